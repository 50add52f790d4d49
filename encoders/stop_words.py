"""Function words of a few languages: what every text has, whatever it is about.

Short on purpose. Pronouns, articles, prepositions, conjunctions, auxiliaries and the fillers of speech are closed
classes, so a list of a hundred covers most of what occurs; a missing one costs a poor keyword and nothing else. Words
with an apostrophe are listed by their parts ("don't" is "don" and "t").
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

_ENGLISH = """
a about above after again against ain all almost also although am an and another any anybody anyone anything are aren
around as at away back be because been before behind being below between both but by came can cannot come could couldn
d did didn do does doesn doing don done down during each either else even ever every everybody everyone everything few
first for from get gets getting give go goes going gone gonna good got gotta had hadn has hasn have haven having he
hello her here hers herself hey hi him himself his how i if in instead into is isn it its itself just know let like
little ll look lot m made make makes many may maybe me mean might mine more most much must my myself need never next
no nobody none nor not nothing now o of off oh ok okay on once one only onto or other others our ours ourselves out
over own perhaps please put quite rather re really right s said same say says see seen shall she should shouldn since
so some somebody someone something still such sure t take than thank thanks that the their theirs them themselves then
there these they thing things think this those though three through to today together too two uh um under until up
upon us use used using ve very want wants was wasn way we well went were weren what when where whether which while who
whom whose why will with within without won would wouldn yeah yes yet thee thine thou thy you your yours yourself
yourselves
"""

_GERMAN = """
ab aber alle allem allen aller alles als also am an andere anderen auch auf aus bei beim bin bis bist da dabei dafür
damit dann das dass dein deine dem den denn der des dich die dies diese diesem diesen dieser dieses dir doch dort du
durch ein eine einem einen einer eines er es etwas euch euer eure für ganz gar gegen gibt hab habe haben hat hatte
hatten heute hier hin ich ihm ihn ihnen ihr ihre ihrem ihren ihrer im in ins ist ja jede jeder jedes jemand jemandem
jemanden jetzt kann kein keine keinen können könnte machen mal man mehr mein meine meinem meinen meiner mich mir mit
muss müssen nach nein nicht nichts noch nun nur ob oder ohne schon sehr sein seine seinem seinen seiner selbst sich
sie sind so soll sollte sondern über um und uns unser unsere unter viel vom von vor war waren warum was weil welche
wenn wer werden wie wieder will wir wird wo wurde wurden während zu zum zur zwischen
"""

_FRENCH = """
ai allons alors après as au aujourd aussi autre aux avait avant avec avez avoir avons bien c ça car ce ceci cela celle
celui ces cet cette ceux chaque chez ci comme comment d dans de depuis des deux dit dois donc dont du elle elles en
encore entre es est et étaient était été être eu fait faire hui il ils j je jusque l la là laquelle le lequel les leur
leurs lors lui m ma mais me même mes moi moins mon n ne nos notre nous on ont ou où par parce pas peu peut plus pour
pourquoi qu quand que quel quelle quelles quelqu quelque quelques quels qui quoi s sa sans se sera ses si soit son
sont sous sur t ta te tes toi ton tous tout toute toutes très trop tu un une va vers voilà vos votre vous y
"""

_SPANISH = """
a ahora al algo alguien alguno algunos alguna algunas ante antes aquel aquí así aún aunque bien cada como cómo con
contra cosa cual cuál cuando cuándo de del desde donde dónde dos durante e el él ella ellas ellos en entre era eran
eres es esa esas ese eso esos está están estas este esto estos estoy fue fueron ha hace hacer hacia han has hasta hay
he hemos la las le les lo los más me mi mí mis mismo mucho muchos muy nada ni no nos nosotros nuestra nuestro o os
otra otro otros para pero poco por porque puede pues que qué quien quién se sea ser si sí sido sin sobre sois solo
sólo somos son soy su sus también tan tanto te tener tengo ti tiene tienen toda todas todo todos tu tú tus un una unas
uno unos usted va vamos y ya yo
"""

_ITALIAN = """
a abbiamo ad agli ai al alla alle allo anche ancora avere aveva c che chi ci come con così cosa cui da dagli dai dal
dalla dalle dei del dell della delle dello di dopo dove due e ed era erano essere fa fare fra gli ha hai hanno ho i il
in io l la le lei li lo loro lui ma me mi mia mio molto ne nel nell nella nelle noi non nostra nostro o ogni ora per
perché perchè però più poi può qual quale quando quanto quella quelle quelli quello questa queste questi questo qui se
sei sempre senza si sì sia siamo solo sono sopra sta stato su sua sue sugli sul sulla suo suoi te ti tra tu tutta
tutti tutto un una uno va vi voi è
"""

_PORTUGUESE = """
a agora ainda ao aos aquela aquele aqui as às até bem cada com como da das de dela dele deles depois do dois dos e é
ela elas ele eles em então entre era eram essa esse esta está estão estas este eu faz foi foram há isso isto já lá lhe
mais mas me mesmo meu minha muito muitos na não nas nem no nos nós nossa nosso num numa o onde os ou para pela pelo
por porque porquê pode pois qual quando que quem se sem ser será seu seus só sobre sua suas também tão te tem têm
temos ter teu toda todas todo todos tu tudo um uma umas uns vai você vocês vos
"""

_DUTCH = """
aan al alle alles als altijd andere ben bij daar dan dat de der deze die dit doch doen door dus een en er ge geen had
heb hebben heeft hem hen het hier hij hoe hun iets ik in is ja je kan kon kunnen maar me meer men met mij mijn moet na
naar niet niets nog nu of om omdat onder ons onze ook op over reeds te tegen toch toen tot uit uw van veel voor want
waren was wat we wel werd wezen wie wij wil worden wordt zal ze zei zich zij zijn zo zonder zou
"""

STOP_WORDS: Mapping[str, frozenset[str]] = MappingProxyType(
    {
        "en": frozenset(_ENGLISH.split()),
        "de": frozenset(_GERMAN.split()),
        "es": frozenset(_SPANISH.split()),
        "fr": frozenset(_FRENCH.split()),
        "it": frozenset(_ITALIAN.split()),
        "nl": frozenset(_DUTCH.split()),
        "pt": frozenset(_PORTUGUESE.split()),
    }
)
