"""What an image-text model is asked to look for: everyday words for scenes, things, animals, food and what people
do."""

from __future__ import annotations

_SCENES = """
airport, alley, amusement park, aquarium, art gallery, attic, bakery, bar, barn, bathroom, beach, bedroom, boat deck,
bookshop, bridge, building site, bus stop, café, campsite, canyon, castle, cave, cemetery, church, cinema, city at
night, city skyline, classroom, cliff, clothes shop, coast, concert hall, corridor, courtroom, dance floor, desert,
dressing room, factory, farm, field, fireworks, football pitch, forest, garage, garden, glacier, golf course, gym,
hairdresser, harbour, highway, hospital, hotel room, ice rink, island, jungle, kitchen, laboratory, lake, lecture
hall, library, living room, market, meadow, motorway, mountain, museum, news studio, night sky, nightclub, office, open
sea, operating theatre, palace, park, petrol station, playground, pond, prison, railway station, rainy street,
restaurant, river, road, rooftop, ruins, running track, school, shopping centre, ski slope, snowy landscape, space,
stadium, stage, staircase, storm, street, sunset, supermarket, swimming pool, temple, tennis court, theatre, train
carriage, tunnel, underwater scene, vineyard, volcano, waterfall, wedding hall, workshop, zoo
"""
_THINGS = """
aeroplane, armchair, backpack, ball, balloon, basketball, bed, bench, bicycle, blackboard, boat, book, bottle, bowl,
box, bus, camera, candle, car, chair, chessboard, clock, computer, computer keyboard, cooking pot, crane, cup, curtain,
desk, door, drawing, dress, drone, drum kit, excavator, fire, fire engine, fireplace, fishing rod, flag, flower,
fountain, frying pan, game controller, glass of wine, glasses, globe, guitar, handbag, hat, headphones, helicopter,
helmet, jewel, kite, knife, lamp, laptop, lorry, make-up, map, mask, microphone, microscope, mirror, mobile phone,
motorcycle, newspaper, oven, painting, pen, piano, picture frame, plant in a pot, plate, printed page, printer,
refrigerator, robot, rocket, satellite, saxophone, scissors, sculpture, shoes, skateboard, skis, sofa, spaceship,
statue, suit and tie, suitcase, sunglasses, surfboard, sword, table, tablet computer, telescope, television, tennis
racket, tent, tool, toy, toy blocks, tractor, traffic light, train, tram, tree, trophy, trumpet, umbrella, vase, violin,
washing machine, watch, wheelchair, whiteboard, window
"""
_LIVING = """
ant, baby, bear, bee, beetle, bird, butterfly, camel, cat, chicken, child, cow, crab, crocodile, crowd, deer, dinosaur,
dog, dolphin, duck, eagle, elephant, face in close-up, fish, flock of birds, fox, frog, giraffe, goat, gorilla, group of
people, hamster, horse, insect, jellyfish, kangaroo, kitten, lion, lizard, man, monkey, mouse, octopus, old person, owl,
panda, parrot, penguin, pig, puppy, rabbit, seal, shark, sheep, snail, snake, spider, squirrel, swan, tiger, tortoise,
two people, whale, wolf, woman, zebra
"""
_FOOD = """
apple, banana, barbecue, beer, berries, bread, burger, cake, cheese, chocolate, cocktail, coffee, curry, dumplings, egg,
fish dish, fruit, ice cream, meat, noodles, orange, pasta, pizza, rice, salad, sandwich, soup, sushi, tea, vegetables
"""
_DOINGS = """
baking, boxing, climbing, cooking, cycling, dancing, diving, drawing with a pencil, driving, fishing, gymnastics,
hiking, horse riding, interview, juggling, kissing, lecture, martial arts, parachuting, parade, playing an instrument,
playing chess, press conference, rowing, running, sailing, shopping, singing, skateboarding, skiing, sleeping,
snowboarding, speech at a lectern, surfing, swimming, talking to the camera, unboxing, wedding, working out, yoga
"""
_PICTURES = """
advertisement, animation, black and white film, cartoon, chart, close-up of a flower, computer game, diagram, aerial
view, logo, map on a screen, medical image, presentation slide, screen recording, subtitles, text on a plain background,
time-lapse of clouds, title screen, website
"""


def _words(text: str) -> tuple[str, ...]:
    return tuple(" ".join(name.split()) for name in text.split(","))


EVERYDAY_NAMES: tuple[str, ...] = tuple(
    name for text in (_SCENES, _THINGS, _LIVING, _FOOD, _DOINGS, _PICTURES) for name in _words(text)
)
