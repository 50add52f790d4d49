"""Words in the picture: PP-OCRv6 (small) by rapidocr, read on the frames that differ, merged into phrases with times.

Reading a frame costs as much as all else that is done with it, so little is read. A frame is passed over when its
edges are those of the frame before that was looked at: text is edges, and a fade, noise or a spinner are not many of
them. The detector glances at what is left at `glance_side` pixels: there it still sees that there are lines, at a
quarter of the cost of seeing where they end. Frames with lines are read, at most `frames` of them, evenly spread: the
detector finds the lines at `side` pixels, and the recogniser reads each out of the picture as it came, one at a time,
so that no line depends on which others stand beside it. `bench/quality_screen_text.py` measures what each size costs
and loses.

What is unsure is left out, and so are single characters: to a reader of 18,000 characters every crate and window frame
is an ideograph (a wall of toy blocks gave ten of them, at confidences up to 0.99).
"""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, field
from difflib import SequenceMatcher
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field

from encoders.weights import WEIGHTS, locate
from store.records import Float32, Frames, ScreenAttributes, ScreenPhrase

_LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601
_TILE = 12  # side of the tiles in which edges are compared, in pixels of the halved picture: about a letter
_ALIKE = 0.9  # least similarity of a text that has moved (a page that is scrolled)
_ALIKE_IN_PLACE = 0.75  # and of one that has not: the reader's own doubt
_IN_PLACE = 0.5  # least share of the smaller box that two boxes have in common
_AS_LONG = 0.9  # a reading shorter than this share of the longest is of text that was not all there yet
_GLANCE_SURENESS = 0.4  # of the detector that a box is text, at a glance; 0.5 overlooks a dialog full of small lines
_MISSED_READS = 1  # so often may a phrase be overlooked before it is taken for gone

_Box = tuple[float, float, float, float]  # left, top, right, bottom in 0..1 of the picture


class ScreenTextConfig(BaseModel):
    """What changes the result of the reader of on-screen text.

    `side` and `glance_side`: pixels of the longer side of the picture in which lines are looked for, to read them and
    to see whether there are any. At most `frames` frames are read and `glances` glanced at, evenly spread.
    A frame differs when in `changed_share` (0..1) of its tiles the edges changed by `changed_edges` (0..510, mean over
    the tile of the absolute change of luma's gradient). A line counts from `min_confidence` (0..1) and
    `min_characters` letters or digits on. At most `phrases` phrases are kept, the longest-standing first.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    model: Literal["pp-ocrv6-small"] = "pp-ocrv6-small"
    side: int = Field(640, ge=64, le=2048, multiple_of=32)
    glance_side: int = Field(256, ge=64, le=2048, multiple_of=32)
    frames: int = Field(12, ge=1)
    glances: int = Field(48, ge=1)
    changed_edges: float = Field(8.0, gt=0)
    changed_share: float = Field(0.01, gt=0, le=1)
    min_confidence: float = Field(0.85, ge=0, le=1)
    min_characters: int = Field(2, ge=1)
    phrases: int = Field(128, ge=1)


@dataclass(frozen=True)
class ScreenLine:
    """One line as it was read in one frame: its words, the reader's confidence 0..1, and its box."""

    text: str
    confidence: float
    box: _Box


@dataclass
class _Standing:
    """A phrase that is followed from frame to frame: its readings, the frames that show it, where it last stood."""

    readings: list[ScreenLine]
    first: int
    last: int
    missed: int = 0
    order: int = 0


@dataclass
class _Following:
    """All phrases met so far, those still followed apart."""

    gone: list[_Standing] = field(default_factory=list)
    standing: list[_Standing] = field(default_factory=list)


class ScreenTextEncoder:
    """Frames in, the phrases that stand in them out. The same frames give the same phrases."""

    def __init__(self, config: ScreenTextConfig, cache: Path, threads: int = 1) -> None:
        """Load the models, which lie in rapidocr's own package. `threads` is what they may use. Raises ModelError."""
        detector = locate(WEIGHTS["pp-ocrv6-small-det"], cache)
        recogniser = locate(WEIGHTS["pp-ocrv6-small-rec"], cache)
        import cv2
        from rapidocr import RapidOCR

        cv2.setNumThreads(threads)
        self.config = config
        common = {
            "Global.log_level": "critical",
            "Global.use_cls": False,  # nobody writes upside down on a screen
            "Global.text_score": 0.0,
            "Det.model_path": str(detector),
            "Det.limit_type": "max",
            "Rec.model_path": str(recogniser),
            "Rec.rec_batch_num": 1,
            # rapidocr takes a larger number than there are processors for "all of them"
            "EngineConfig.onnxruntime.intra_op_num_threads": min(threads, os.cpu_count() or 1),
            "EngineConfig.onnxruntime.inter_op_num_threads": 1,
        }
        self._reader: Any = RapidOCR(params=common | {"Det.limit_side_len": config.side})
        self._glancer: Any = RapidOCR(
            params=common
            | {"Det.limit_side_len": config.glance_side, "Det.box_thresh": _GLANCE_SURENESS, "Global.use_rec": False}
        )

    def __call__(self, frames: Frames) -> ScreenAttributes:
        """The phrases in order of time, then from the top left to the bottom right.

        A phrase begins with the first frame that shows it and ends where the first one begins that does not (at the
        video's end for the last). A frame that was not looked at is taken for the one whose edges it has, or else for
        the nearest one in time.
        """
        turns, shown_by = self._turns(frames)
        following = _Following()
        for turn, (place, has_lines) in enumerate(turns):
            _follow(following, self.read(frames.pixels[place]) if has_lines else [], turn)
        met = sorted(
            [*following.gone, *following.standing], key=lambda phrase: (phrase.first - phrase.last, phrase.first)
        )
        kept = sorted(met[: self.config.phrases], key=lambda phrase: (phrase.first, phrase.order))
        starts = [*(float(second) for second in frames.seconds), max(frames.duration_seconds, *frames.seconds, 0.0)]
        phrases = []
        for phrase in kept:
            shown = np.flatnonzero((shown_by >= phrase.first) & (shown_by <= phrase.last))
            best = _best(phrase.readings)
            phrases.append(
                ScreenPhrase(
                    start=round(starts[int(shown[0])], 3),
                    end=round(starts[int(shown[-1]) + 1], 3),
                    text=best.text,
                    confidence=round(max(line.confidence for line in phrase.readings if line.text == best.text), 4),
                )
            )
        return ScreenAttributes(phrases=phrases, frames_read=sum(has_lines for _, has_lines in turns))

    def read(self, pixels: npt.NDArray[np.uint8]) -> list[ScreenLine]:
        """The sure lines of one picture, uint8 [height, width, 3] RGB, from the top left to the bottom right."""
        found = self._reader(_bgr(pixels))
        if found.boxes is None or found.txts is None:
            return []
        height, width = pixels.shape[:2]
        lines = []
        for text, confidence, corners in zip(found.txts, found.scores, found.boxes, strict=True):
            words = " ".join(unicodedata.normalize("NFKC", text).split())
            telling = sum(character.isalnum() for character in words)
            if confidence >= self.config.min_confidence and telling >= self.config.min_characters:
                left, top = corners.min(axis=0) / (width, height)
                right, bottom = corners.max(axis=0) / (width, height)
                box = (float(left), float(top), float(right), float(bottom))
                lines.append(ScreenLine(words, float(confidence), box))
        return _in_reading_order(lines)

    def has_lines(self, pixels: npt.NDArray[np.uint8]) -> bool:
        """Whether a glance at a picture, uint8 [height, width, 3] RGB, finds anything that may be a line of text."""
        return self._glancer(_bgr(pixels)).boxes is not None

    def _turns(self, frames: Frames) -> tuple[list[tuple[int, bool]], npt.NDArray[np.int64]]:
        """The places of the frames that were looked at, each with whether it is to be read; and for each frame
        [n_frames] the number, in that list, of the one that stands for it."""
        different: list[int] = []
        like = np.zeros(len(frames.pixels), np.int64)
        last: Float32 | None = None
        for place, pixels in enumerate(frames.pixels):
            edges = edges_of(pixels)
            if last is None or self._differs(edges, last):
                different.append(place)
                last = edges
            like[place] = len(different) - 1
        glanced = _thinned(different, self.config.glances)
        lined = [place for place in glanced if self.has_lines(frames.pixels[place])]
        read = _thinned(lined, self.config.frames)
        turns = [(place, place in read) for place in glanced if place in read or place not in lined]
        number = {place: turn for turn, (place, _) in enumerate(turns)}
        stands = []
        for place in different:
            looked = _nearest(frames.seconds, place, glanced)
            # What has lines and was not read is like the nearest one that was, not like a frame without any.
            stands.append(number[looked if looked in number else _nearest(frames.seconds, place, read)])
        return turns, np.array(stands, np.int64)[like]

    def _differs(self, edges: Float32, before: Float32) -> bool:
        tiles = _tiles(np.abs(edges - before))
        return bool((tiles >= self.config.changed_edges).mean() >= self.config.changed_share)


def edges_of(pixels: npt.NDArray[np.uint8]) -> Float32:
    """float32 [height / 2 - 1, width / 2 - 1]: the sum of luma's absolute steps to the right and downwards, at half the
    size, of uint8 [height, width, 3] RGB."""
    even = pixels[: pixels.shape[0] // 2 * 2, : pixels.shape[1] // 2 * 2]
    halved = sum(even[top::2, left::2].astype(np.float32) for top in (0, 1) for left in (0, 1))
    luma = (halved @ np.array(_LUMA, np.float32)) / np.float32(4.0)
    right = np.abs(np.diff(luma, axis=1))[:-1]
    down = np.abs(np.diff(luma, axis=0))[:, :-1]
    edges: Float32 = right + down
    return edges


def _bgr(pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    return np.ascontiguousarray(pixels[:, :, ::-1])  # what rapidocr and OpenCV take a picture for


def _thinned(places: list[int], most: int) -> list[int]:
    """At most `most` of the places, evenly spread."""
    return places if len(places) <= most else [places[turn * len(places) // most] for turn in range(most)]


def _nearest(seconds: npt.NDArray[np.float64], place: int, places: list[int]) -> int:
    """Of `places` the one nearest to `place` in time, the earlier of two."""
    return min(places, key=lambda other: (abs(float(seconds[other] - seconds[place])), other))


def _tiles(values: Float32) -> Float32:
    """The means over tiles; what does not fill a tile at the right and at the bottom is left out, unless all is."""
    height, width = (max(side // _TILE, 1) for side in values.shape)
    tall, wide = min(_TILE, values.shape[0]), min(_TILE, values.shape[1])
    if not tall or not wide:
        return np.zeros((1, 1), np.float32)
    tiles: Float32 = values[: height * tall, : width * wide].reshape(height, tall, width, wide).mean(axis=(1, 3))
    return tiles


def _in_reading_order(lines: Sequence[ScreenLine]) -> list[ScreenLine]:
    """By rows from the top, each from the left. Boxes share a row when the middle of one is inside the first of it."""
    rows: list[list[ScreenLine]] = []
    for line in sorted(lines, key=lambda line: (line.box[1] + line.box[3], line.box[0])):
        middle = (line.box[1] + line.box[3]) / 2
        if rows and rows[-1][0].box[1] <= middle <= rows[-1][0].box[3]:
            rows[-1].append(line)
        else:
            rows.append([line])
    return [line for row in rows for line in sorted(row, key=lambda line: line.box[0])]


def _follow(following: _Following, lines: Sequence[ScreenLine], turn: int) -> None:
    """Give each line of the frame that is read in this turn to the phrase it continues, or let it begin one."""
    pairs = sorted(
        (-_likeness(phrase.readings[-1], line), number, order)
        for number, phrase in enumerate(following.standing)
        for order, line in enumerate(lines)
        if _likeness(phrase.readings[-1], line) > 0.0
    )
    continued: dict[int, int] = {}
    taken: set[int] = set()
    for _, number, order in pairs:
        if number not in continued and order not in taken:
            continued[number] = order
            taken.add(order)
    standing: list[_Standing] = []
    for number, phrase in enumerate(following.standing):
        if number in continued:
            phrase.readings.append(lines[continued[number]])
            phrase.last, phrase.missed = turn, 0
        else:
            phrase.missed += 1
        (standing if phrase.missed <= _MISSED_READS else following.gone).append(phrase)
    begun = [
        _Standing([line], first=turn, last=turn, order=order) for order, line in enumerate(lines) if order not in taken
    ]
    following.standing = [*standing, *begun]


def _likeness(before: ScreenLine, now: ScreenLine) -> float:
    """How sure it is that both are the same words, 0..2; 0 for different ones.

    The same text anywhere (it may be scrolled), nearly the same in the same place, or more of the same text in the same
    place (it is being written).
    """
    in_place = _overlap(before.box, now.box) >= _IN_PLACE
    first, second = before.text.casefold(), now.text.casefold()
    if in_place and (first.startswith(second) or second.startswith(first)):
        return 2.0
    least = _ALIKE_IN_PLACE if in_place else _ALIKE
    longest = max(len(first), len(second))
    if 2.0 * min(len(first), len(second)) / (len(first) + len(second)) < least or not longest:
        return 0.0
    alike = SequenceMatcher(None, first, second, autojunk=False).ratio()
    return alike + (0.5 if in_place else 0.0) if alike >= least else 0.0


def _overlap(one: _Box, other: _Box) -> float:
    """The area that both boxes share, over the area of the smaller one."""
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    if width <= 0 or height <= 0:
        return 0.0
    smaller = min((box[2] - box[0]) * (box[3] - box[1]) for box in (one, other))
    return width * height / max(smaller, 1e-12)


def _best(readings: Sequence[ScreenLine]) -> ScreenLine:
    """Of the readings that are nearly as long as the longest, the one that confidence, added up, speaks most for."""
    longest = max(len(line.text) for line in readings)
    votes: dict[str, float] = {}
    for line in readings:
        if len(line.text) >= _AS_LONG * longest:
            votes[line.text] = votes.get(line.text, 0.0) + line.confidence
    text = max(votes, key=lambda text: (votes[text], text))
    return next(line for line in readings if line.text == text)
