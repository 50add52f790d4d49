"""What may be said of each picture: the labels that the quality of labels is measured against.

`CLIPS` are rows of ../shared/media/index.csv. For each, `classes` are the ImageNet classes and `groups` the everyday
words that name something which the index says is seen. They were written down from the index's descriptions alone,
before any prediction was looked at, and are not to be fitted to what the encoder says. `NOT_IN_IMAGENET` are the clips
of `good/` for whose described subject none of the 1,000 classes stands (people, mostly), and second copies; they count
nowhere.

`PHOTOGRAPHS` are files that come with scikit-image and scikit-learn, judged by looking at them. Those without a subject
that ImageNet knows (textures, microscopy, colour charts) are left out.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType


@dataclass(frozen=True)
class Subject:
    """Names of which each is right, as ImageNet has them and as groups."""

    classes: frozenset[str]
    groups: frozenset[str] = frozenset()


def _subject(classes: str, groups: str = "") -> Subject:
    def names(text: str) -> frozenset[str]:
        return frozenset(name.strip() for name in text.split(",") if name.strip())

    return Subject(names(classes), names(groups))


CLIPS = MappingProxyType(
    {
        "good/beetle_on_flower.mp4": _subject(
            "long-horned beetle, leaf beetle, ground beetle, tiger beetle, ladybug, weevil, daisy", "insect, flower"
        ),
        "good/bottles_conveyor.mp4": _subject("water bottle, pop bottle", "bottle"),
        "good/cars_parking.mp4": _subject(
            "beach wagon, cab, convertible, jeep, limousine, minivan, sports car, pickup, car wheel, grille,"
            " parking meter",
            "car",
        ),
        "good/cartoon_bunny_20s.mp4": _subject("", "bird"),
        "good/cartoon_bunny_30s.webm": _subject("", "bird, rabbit"),
        "good/cups_shell_game.mp4": _subject("cup, coffee mug, measuring cup, beaker, bucket", "cup"),
        "good/dog_and_woman_path.mp4": _subject("jean", "dog"),
        "good/flower_timelapse.mp4": _subject("daisy", "flower"),
        "good/kids_jump_bed.mp4": _subject("four-poster, studio couch, quilt, pillow, crib", "bed"),
        "good/lecture_slides_talk.mov": _subject("web site, menu, monitor, screen, projector", "screen"),
        "good/mixed_book_machine.webm": _subject(
            "plow, tractor, harvester, thresher, half track, book jacket, comic book, crossword puzzle, menu, web site,"
            " stage",
            "farm machine, book",
        ),
        "good/office_intro_googlework.mp4": _subject(
            "fountain, street sign, mountain bike, bicycle-built-for-two", "bicycle"
        ),
        "good/shuttle_orbit.webm": _subject("space shuttle", "spacecraft"),
        "good/sign_language_book.mkv": _subject("sweatshirt, monitor, screen, television, desktop computer", "screen"),
        "good/ski_mountain_panorama.mp4": _subject("alp, volcano, ski", "mountain"),
        "good/slides_two_states.mp4": _subject("web site, menu, monitor, screen, projector", "screen"),
        "good/talk_art_critic_webcam.mp4": _subject("web site, monitor, screen", "screen"),
        "good/toy_frog.mp4": _subject("tree frog, bullfrog, tailed frog", "frog"),
        "good/ui_screen_recording.mp4": _subject("web site, monitor, screen, desktop computer", "screen"),
        "good/woman_phone_train.mp4": _subject(
            "cellular telephone, passenger car, electric locomotive, bullet train, streetcar, viaduct",
            "phone, train, bridge",
        ),
        "bad/cockatoo_444_seek_green.mp4": _subject("sulphur-crested cockatoo", "bird"),
        "bad/made_bitflips.mp4": _subject("soccer ball", "ball"),
        "bad/made_rot90.mp4": _subject("hog, piggy bank", "pig"),
        "bad/mouse_seek_green.mp4": _subject("hamster", "rodent"),
    }
)

NOT_IN_IMAGENET = (
    "good/ad_chrome_browser.mp4",
    "good/earth_night_rotation.mp4",
    "good/film_scifi_battle.webm",
    "good/flower_timelapse.webm",
    "good/man_green_wall.mp4",
    "good/toy_blocks_letters.mp4",
    "good/toy_crystal.mp4",
    "good/toy_robot_bricks.mp4",
)

# Package and path of the file in it, and what it shows.
PHOTOGRAPHS = MappingProxyType(
    {
        ("skimage", "data/astronaut.png"): _subject("space shuttle, crash helmet", "spacecraft, helmet"),
        ("skimage", "data/camera.png"): _subject("tripod, reflex camera, Polaroid camera", "camera"),
        ("skimage", "data/chelsea.png"): _subject("", "cat"),
        ("skimage", "data/coffee.png"): _subject("espresso, cup, coffee mug", "cup"),
        ("skimage", "data/horse.png"): _subject("sorrel", "horse"),
        ("skimage", "data/motorcycle_left.png"): _subject("moped, motor scooter", "motorcycle"),
        ("skimage", "data/page.png"): _subject("web site, menu, crossword puzzle, book jacket", "book"),
        ("skimage", "data/rocket.jpg"): _subject("missile, projectile", "rocket"),
        ("sklearn", "datasets/images/china.jpg"): _subject("bell cote, castle, tile roof", "building, roof"),
        ("sklearn", "datasets/images/flower.jpg"): _subject("daisy", "flower"),
    }
)
