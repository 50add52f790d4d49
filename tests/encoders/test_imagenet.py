"""Every class of ImageNet has a word or is one, and evidence adds up over the classes of a word."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from encoders import imagenet
from encoders.imagenet import by_group, labels, read_classes
from store.records import Float32, Label

ANIMALS = {"Chihuahua": "dog", "tiger cat": "cat", "house finch": "bird", "sea lion": "seal", "hermit crab": "crab"}
THINGS = {
    "convertible": "car",
    "freight car": "train",
    "acoustic guitar": "musical instrument",
    "soccer ball": "ball",
    "cheeseburger": "food",
    "water bottle": "bottle",
    "cellular telephone": "phone",
    "monastery": "building",
    "alp": "mountain",
}
PLAIN = ("zebra", "jellyfish", "mushroom", "umbrella", "web site", "traffic light")


def probabilities(*frames: dict[str, float]) -> Float32:
    """[n, 1000]: the named classes as stated, all others 0."""
    names = read_classes().names
    result = np.zeros((len(frames), len(names)), np.float32)
    for row, frame in zip(result, frames, strict=True):
        for name, value in frame.items():
            row[names.index(name)] = value
    return result


def named(*frames: dict[str, float], count: int = 8, min_confidence: float = 0.3) -> list[Label]:
    return labels(
        probabilities(*frames),
        np.arange(len(frames), dtype=np.float64),
        count=count,
        min_confidence=min_confidence,
        min_group_confidence=0.4,
        peak_share=0.25,
        label_seconds=5,
    )


# --- the groups ------------------------------------------------------------------------------------------------------


def test_every_class_has_an_entry_in_the_order_of_the_classifier() -> None:
    from torchvision.models._meta import _IMAGENET_CATEGORIES

    assert read_classes().names == tuple(_IMAGENET_CATEGORIES)
    rows = json.loads(Path(imagenet.__file__).with_name(imagenet.GROUPS_FILE).read_text(encoding="utf-8"))["classes"]
    synsets = [synset for synset, *_ in rows]
    assert len(set(synsets)) == 1000
    assert all(len(synset) == 9 and synset[0] == "n" and synset[1:].isdigit() for synset in synsets)
    assert synsets == sorted(synsets)  # ImageNet numbers its classes so


@pytest.mark.parametrize(("name", "group"), [*ANIMALS.items(), *THINGS.items(), *((name, None) for name in PLAIN)])
def test_classes_fall_under_everyday_words(name: str, group: str | None) -> None:
    classes = read_classes()
    assert classes.groups[classes.names.index(name)] == group


def test_all_breeds_are_dogs_and_no_wild_animal_is() -> None:
    classes = read_classes()
    dogs = [index for index, group in enumerate(classes.groups) if group == "dog"]
    assert dogs == list(range(151, 269))  # as ImageNet orders them, Chihuahua to Mexican hairless
    assert classes.members["dog"] == tuple(dogs)


def test_a_word_counts_the_class_that_is_called_so() -> None:
    classes = read_classes()
    assert classes.names.index("mushroom") in classes.members["mushroom"]
    assert all(group != name for name, group in zip(classes.names, classes.groups, strict=True))


# --- evidence --------------------------------------------------------------------------------------------------------


def test_evidence_for_a_word_is_the_sum_over_its_classes() -> None:
    frames = np.random.default_rng(3).dirichlet(np.full(1000, 0.05), 6).astype(np.float32)
    classes = read_classes()
    evidence = by_group(frames)
    expected = np.zeros((6, len(classes.members)))
    for index, (name, group) in enumerate(zip(classes.names, classes.groups, strict=True)):
        word = group or name
        if word in classes.members:
            expected[:, list(classes.members).index(word)] += frames[:, index]
    np.testing.assert_allclose(evidence, expected, atol=1e-6)
    assert (evidence.sum(axis=1) <= 1.0 + 1e-5).all()


def test_breeds_of_which_none_is_sure_are_a_dog() -> None:
    breeds = {"beagle": 0.2, "basset": 0.15, "English foxhound": 0.1, "tabby": 0.2}
    (found,) = named({"umbrella": 0.1}, breeds, {}, {})
    assert found == Label(name="dog", confidence=0.45, seconds=[1.0], group=None)


def test_a_sure_breed_carries_its_word_and_is_not_doubled() -> None:
    (found,) = named({"beagle": 0.6, "basset": 0.2})
    assert found == Label(name="beagle", confidence=0.6, seconds=[0.0], group="dog")


def test_a_word_is_as_sure_as_its_best_frames_together() -> None:
    """The classes may differ from frame to frame, as they do when a dog turns round."""
    (found,) = named({"beagle": 0.28}, {"basset": 0.28, "pug": 0.2}, {"pug": 0.28, "beagle": 0.2}, {}, {}, {}, {}, {})
    assert (found.name, found.confidence, found.seconds) == ("dog", 0.48, [0.0, 1.0, 2.0])


def test_labels_are_the_surest_first_and_bounded() -> None:
    frame = {"umbrella": 0.32, "beagle": 0.25, "pug": 0.2, "tabby": 0.31}
    assert [label.name for label in named(frame)] == ["dog", "umbrella", "tabby"]
    assert [label.name for label in named(frame, count=2)] == ["dog", "umbrella"]
    assert named(frame, count=0) == []
    assert named() == []
    assert [label.name for label in named(frame, min_confidence=0.5)] == ["dog"]
    assert named({"beagle": 0.2, "pug": 0.19}) == []  # a sum gathers what is wrong, too, and must be surer
