"""Small batches across videos: claimed in the ledger, encoded at once, written one by one, and taken apart when one of
them is bad."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from encoders import catalogue
from store.settings import load_settings
from tests import clips
from tests.plugins import install_example
from tests.workers.test_graph import House
from workers import extraction

# The example encoder, taught to take several videos at once, to count them, and to choke on a video of one colour.
TAUGHT = """

class _Batching(ColourEncoder):
    batches = []

    def encode_many(self, videos):
        self.batches.append(len(videos))
        if any(float(video.pixels.std()) < 1.0 for video in videos):
            raise RuntimeError("a bad video in the batch")
        return [self(video) for video in videos]


ColourEncoder = _Batching
"""


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Path]:
    """The example as an installed package of this process, with `encode_many`."""
    folder = install_example(tmp_path / "site")
    with (folder / "colour_encoder.py").open("a") as stream:
        stream.write(TAUGHT)
    sys.path.insert(0, str(folder))
    catalogue.encoders.cache_clear()
    yield folder
    sys.path.remove(str(folder))
    sys.modules.pop("colour_encoder", None)
    catalogue.encoders.cache_clear()


def house_of(folder: Path, batch: int) -> House:
    return House(load_settings(data=folder, batch_videos=batch, encoders={"vision": "colour-moments"}))


def add_patterns(house: House, folder: Path, count: int) -> None:
    for number in range(count):
        house.add(clips.test_pattern(folder / f"{number}.mp4", seconds=1.0 + 0.5 * number, tone_hz=None))


def batches() -> Sequence[int]:
    import colour_encoder  # type: ignore[import-not-found]

    found: list[int] = colour_encoder.ColourEncoder.batches
    return found


@pytest.mark.models
@pytest.mark.usefixtures("site")
def test_waiting_videos_are_encoded_at_once_and_each_as_if_alone(tmp_path: Path) -> None:
    together, alone = house_of(tmp_path / "together", 8), house_of(tmp_path / "alone", 1)
    for house in (together, alone):
        encoders = extraction.Encoders(house.settings)
        add_patterns(house, tmp_path, 3)
        house.drain_all_but("vision", encoders)
        house.drain(encoders)
        assert {state for state, _ in house.graph.states(house.catalogue.videos()).values()} == {"ready"}
    assert batches() == [3], "one batch of three, and none where batches are off"
    assert (
        together.contents().items()
        >= {key: data for key, data in alone.contents().items() if "/vision/" in key}.items()
    )
    runs = [run for run in together.catalogue.runs() if run.stage == "vision"]
    assert [run.attempts for run in runs] == [1, 1, 1]


@pytest.mark.models
@pytest.mark.usefixtures("site")
def test_a_batch_with_a_bad_video_is_taken_apart(tmp_path: Path) -> None:
    house = house_of(tmp_path / "data", 8)
    encoders = extraction.Encoders(house.settings)
    add_patterns(house, tmp_path, 2)
    grey = clips.render(
        tmp_path / "grey.mp4", clips.source("color", 1.0, color="gray"), vcodec="libx264", pix_fmt="yuv420p"
    )
    house.add(grey)
    house.drain_all_but("vision", encoders)
    house.drain(encoders)
    assert max(batches()) == 3
    states = house.graph.states(house.catalogue.videos())
    assert list(states.values()).count(("ready", None)) >= 2, "the good ones are not the bad one's victims"
    assert all(run.attempts == 1 for run in house.catalogue.runs() if run.stage == "vision")


@pytest.mark.usefixtures("site")
def test_a_run_that_was_tried_before_is_left_out_of_batches(tmp_path: Path) -> None:
    house = house_of(tmp_path / "data", 8)
    add_patterns(house, tmp_path, 2)
    first, second = (house.graph.key(video, "frames") for video in house.catalogue.videos())
    assert house.catalogue.claim(second, "another/1", 30) == 1
    house.catalogue.abandon(second)
    assert house.catalogue.claim_waiting(first, "me/1", 8) == [first]
