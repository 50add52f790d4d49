"""Words in the picture: what is read, what is left unread, and how readings become phrases with times."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image, ImageDraw, ImageFont

from encoders.screen_text import ScreenLine, ScreenTextConfig, ScreenTextEncoder, edges_of
from store.errors import ModelError
from store.records import Frames, ScreenPhrase
from store.settings import Limits

Words = tuple[str, int, int]  # text, left, top


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> ScreenTextEncoder:
    return ScreenTextEncoder(ScreenTextConfig(), tmp_path_factory.mktemp("cache"))


def picture(*words: Words, grey: int = 40, size: tuple[int, int] = (640, 360)) -> npt.NDArray[np.uint8]:
    image = Image.new("RGB", size, (grey, grey, grey))
    pen = ImageDraw.Draw(image)
    for text, left, top in words:
        pen.text((left, top), text, fill=(250, 250, 250), font=ImageFont.load_default(26))
    return np.asarray(image)


def frames_of(*pictures: npt.NDArray[np.uint8], step: float = 1.0) -> Frames:
    return Frames(np.stack(pictures), np.arange(len(pictures)) * step, len(pictures) * step, len(pictures), None, False)


def spans(phrases: list[ScreenPhrase]) -> list[tuple[str, float, float]]:
    return [(phrase.text, phrase.start, phrase.end) for phrase in phrases]


@pytest.mark.models
def test_each_text_is_one_phrase_for_as_long_as_it_stands(reader: ScreenTextEncoder) -> None:
    first, second = picture(("Chapter one", 60, 40)), picture(("The old harbour", 60, 250))
    found = reader(frames_of(picture(), first, first, first, second, second, picture(), step=2.0))
    assert spans(found.phrases) == [("Chapter one", 2.0, 8.0), ("The old harbour", 8.0, 12.0)]
    assert found.frames_read == 2
    assert all(0.85 <= phrase.confidence <= 1.0 for phrase in found.phrases)


@pytest.mark.models
def test_what_changes_beside_a_text_does_not_cut_it(reader: ScreenTextEncoder) -> None:
    noise = np.random.default_rng(7).integers(0, 255, (9, 16, 3), dtype=np.uint8)
    shown = []
    for step in range(5):
        background = np.asarray(Image.fromarray(np.roll(noise, step, axis=1)).resize((640, 220))).copy()
        whole = picture(("Breaking news tonight", 60, 270)).copy()
        whole[:220] = background
        shown.append(whole)
    found = reader(frames_of(*shown))
    assert spans(found.phrases) == [("Breaking news tonight", 0.0, 5.0)]


@pytest.mark.models
def test_lines_are_in_reading_order(reader: ScreenTextEncoder) -> None:
    shown = picture(
        ("lower right", 430, 300), ("upper left", 20, 20), ("upper right", 430, 24), ("lower left", 20, 296)
    )
    found = reader(frames_of(shown))
    assert [phrase.text for phrase in found.phrases] == ["upper left", "upper right", "lower left", "lower right"]


@pytest.mark.models
def test_a_text_that_is_written_or_scrolled_is_one_phrase(reader: ScreenTextEncoder) -> None:
    whole = "Your kind smile is warm"
    typed = [picture((whole[:length], 40, 60)) for length in (4, 14, len(whole))]
    assert spans(reader(frames_of(*typed)).phrases) == [(whole, 0.0, 3.0)]
    scrolled = [picture(("Directed by Ada Lovelace", 40, top)) for top in (300, 200, 100)]
    assert spans(reader(frames_of(*scrolled)).phrases) == [("Directed by Ada Lovelace", 0.0, 3.0)]


@pytest.mark.models
def test_another_text_in_the_same_place_is_another_phrase(reader: ScreenTextEncoder) -> None:
    shown = [picture(("Conditional expressions", 40, 60)), picture(("Path expressions", 40, 60))]
    assert [text for text, _, _ in spans(reader(frames_of(*shown)).phrases)] == [
        "Conditional expressions",
        "Path expressions",
    ]


@pytest.mark.models
def test_a_text_that_is_overlooked_once_is_not_two(reader: ScreenTextEncoder) -> None:
    shown, hidden = picture(("Opening hours", 40, 60)), picture(("Something else", 300, 260))
    assert spans(reader(frames_of(shown, hidden, shown)).phrases)[0] == ("Opening hours", 0.0, 3.0)
    apart = spans(reader(frames_of(shown, hidden, picture(), shown)).phrases)
    assert [(start, end) for text, start, end in apart if text == "Opening hours"] == [(0.0, 1.0), (3.0, 4.0)]


@pytest.mark.models
def test_no_text_is_no_phrase(reader: ScreenTextEncoder) -> None:
    noise = np.random.default_rng(3).integers(0, 255, (4, 90, 160, 3), dtype=np.uint8)
    assert reader(frames_of(picture(), picture(grey=255), *noise.repeat(4, 1).repeat(4, 2))).phrases == []
    nothing = Frames(np.zeros((0, 9, 9, 3), np.uint8), np.zeros(0), 0.0, 0, None, True)
    assert reader(nothing).phrases == []
    for size in ((1, 1), (640, 2), (3, 300)):
        assert reader(frames_of(picture(size=size), picture(size=size))).phrases == []


@pytest.mark.models
def test_what_is_unsure_or_a_single_letter_is_left_out(reader: ScreenTextEncoder, tmp_path: Path) -> None:
    shown = picture(("X", 60, 40), ("7", 300, 40), ("Go", 60, 200))
    assert [line.text for line in reader.read(shown)] == ["Go"]
    faint = np.asarray(Image.fromarray(picture(("garden flowers", 60, 40))).resize((64, 36)).resize((640, 360)))
    everything = ScreenTextEncoder(ScreenTextConfig(min_confidence=0, min_characters=1), tmp_path)
    assert {line.text for line in everything.read(shown)} >= {"X", "7", "Go"}
    unsure = [line for line in everything.read(faint) if line.confidence < reader.config.min_confidence]
    assert not {line.text for line in unsure} & {line.text for line in reader.read(faint)}


@pytest.mark.models
def test_no_more_frames_are_read_than_allowed(tmp_path: Path) -> None:
    few = ScreenTextEncoder(ScreenTextConfig(frames=3, glances=6), tmp_path)
    numbers = ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
    shown = [
        picture((f"Rule number {number}", 20 + 30 * place, 20 + 30 * place)) for place, number in enumerate(numbers)
    ]
    found = few(frames_of(*shown))
    assert found.frames_read == 3
    assert 2 <= len(found.phrases) <= 3
    assert found.phrases[0].start == 0.0
    assert max(phrase.end for phrase in found.phrases) == 10.0


@pytest.mark.models
def test_a_line_does_not_depend_on_those_beside_it(reader: ScreenTextEncoder) -> None:
    alone = reader.read(picture(("short", 40, 60)))
    beside = reader.read(picture(("short", 40, 60), ("a line that is a good deal longer than that", 20, 250)))
    assert isinstance(alone[0], ScreenLine)
    assert alone[0].text == beside[0].text == "short"
    assert alone[0].confidence == pytest.approx(beside[0].confidence, abs=1e-5)


@pytest.mark.models
def test_the_same_frames_give_the_same_phrases_whatever_the_threads(reader: ScreenTextEncoder, tmp_path: Path) -> None:
    frames = frames_of(picture(("Chapter one", 60, 40)), picture(("Kapitel zwei: Größe", 90, 240)))
    expected = reader(frames).model_dump_json()
    assert reader(frames).model_dump_json() == expected
    assert ScreenTextEncoder(ScreenTextConfig(), tmp_path, threads=2)(frames).model_dump_json() == expected


def test_edges_are_steps_of_luma_at_half_the_size() -> None:
    pixels = np.zeros((8, 12, 3), np.uint8)
    pixels[:, 6:] = 200
    edges = edges_of(pixels)
    assert edges.shape == (3, 5)
    expected = np.zeros((3, 5), np.float32)
    expected[:, 2] = 200
    np.testing.assert_allclose(edges, expected, atol=1e-3)


OFFLINE = """
import socket, sys
from pathlib import Path
import numpy as np

def refuse(*_args, **_keywords):
    raise AssertionError("somebody reached for the network")

socket.socket.connect = socket.socket.connect_ex = socket.getaddrinfo = refuse
from encoders.screen_text import ScreenTextConfig, ScreenTextEncoder

reader = ScreenTextEncoder(ScreenTextConfig(), Path(sys.argv[1]))
print([line.text for line in reader.read(np.load(sys.argv[2]))], reader.read(np.zeros((90, 160, 3), np.uint8)))
"""


@pytest.mark.models
def test_another_process_reads_without_network_and_without_a_word(tmp_path: Path) -> None:
    np.save(tmp_path / "picture.npy", picture(("No network", 60, 40)))
    command = [sys.executable, "-c", OFFLINE, str(tmp_path), str(tmp_path / "picture.npy")]
    found = subprocess.run(command, capture_output=True, text=True, check=True)
    assert found.stdout == "['No network'] []\n"
    assert found.stderr == ""


def test_importing_loads_no_heavy_library() -> None:
    code = """
import sys
import encoders.screen_text
print(sorted({"rapidocr", "cv2", "onnxruntime", "torch"} & set(sys.modules)))
"""
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout == "[]\n"


def test_weights_that_are_not_there_are_a_coded_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    with pytest.raises(ModelError) as caught:
        ScreenTextEncoder(ScreenTextConfig(), tmp_path)
    assert caught.value.code == "model.missing"


@pytest.mark.models
def test_real_clips_show_what_a_person_reads(reader: ScreenTextEncoder, shared_media: Path) -> None:
    from workers.frame_decoding import read_frames
    from workers.frame_sampling import FrameSampling

    sampling = FrameSampling(interval_seconds=1.0, max_frames=24, short_side=480)
    expected = {
        "slides_two_states.mp4": [("This is a slide", 0.0, 20.0), ("This is another one", 20.0, 40.0)],
        "ad_chrome_browser.mp4": [("Open a new browser. Chrome fast.", 24.0, 28.0)],
    }
    for name, wanted in expected.items():
        found = reader(read_frames(shared_media / "good" / name, sampling, Limits()))
        assert [text for text, _, _ in spans(found.phrases)] == [text for text, _, _ in wanted]
        for (_, start, end), (_, begin, stop) in zip(spans(found.phrases), wanted, strict=True):
            assert start == pytest.approx(begin, abs=2.0)
            assert end == pytest.approx(stop, abs=2.0)
    office = reader(read_frames(shared_media / "good" / "office_intro_googlework.mp4", sampling, Limits()))
    texts = {phrase.text for phrase in office.phrases}
    assert {"RUE", "DE LONDRES", "GOOGLE", "PARIS", "CARLO", "OMAR", "Software Engineer"} <= texts


@pytest.mark.slow
@pytest.mark.models
def test_real_clips_without_text_give_none(reader: ScreenTextEncoder, shared_media: Path) -> None:
    from workers.frame_decoding import read_frames
    from workers.frame_sampling import FrameSampling

    sampling = FrameSampling(interval_seconds=2.0, max_frames=12, short_side=480)
    for name in ("bottles_conveyor.mp4", "toy_frog.mp4", "earth_night_rotation.mp4", "flower_timelapse.mp4"):
        assert reader(read_frames(shared_media / "good" / name, sampling, Limits())).phrases == [], name
