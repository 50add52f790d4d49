"""Which pictures of a video are kept: four strategies, one pass, memory that does not grow with the length.

- `shots` (the default): at least one frame for each shot while the bound allows (else the longest shots), the remaining
  ones by how long each shot lasts; within its part of a shot the sharpest that is not blank, away from the cut.
- `uniform`: evenly over the whole video, as many as the bound allows.
- `fps`: the first picture of every 1/`fps` seconds; where these are too many, the rate is halved until they fit.
- `keyframes`: the pictures that the encoder of the file made key pictures, and nothing else is decoded: cheapest, and
  blind to cuts and motion.

How long a video is shows only at its end. So time is cut into slots, and of each slot one candidate is kept; where
candidates become too many, slots are joined in pairs. The outcome is the same as if the final slots had been known from
the start, whatever the length of the video and whoever counts the threads.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field

from store.records import Shot
from workers.shots import thumbnail_luma

Pixels = npt.NDArray[np.uint8]
# Of a second: two key pictures nearer than this are one.
KEYFRAME_SLOT_SECONDS = 1 / 64
# A picture this soon after a cut may still be blurred by it or be mixed with the shot before.
EDGE_SECONDS = 0.2
# However few are kept, some must be there to choose from.
LEAST_CANDIDATES = 8
# Steps of quality in an octave: finer differences are noise, and the earlier picture is kept.
QUALITY_STEPS = 2


class FrameSampling(BaseModel):
    """Which frames are kept, and their size. Part of the version of the stage that decodes them."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    strategy: Literal["shots", "uniform", "fps", "keyframes"] = Field("shots", description="How frames are chosen.")
    max_frames: int = Field(
        24, ge=1, le=4096, description="Most frames of a video; a longer one has them further apart."
    )
    interval_seconds: float = Field(
        0.5, gt=0, description="Least time between frames of one shot (`shots`) or of a video (`uniform`), in seconds."
    )
    fps: float = Field(1.0, gt=0, le=240, description="Frames a second of the strategy `fps`.")
    short_side: int = Field(
        480, ge=16, le=2160, description="Most pixels of the shorter side of what is kept; nothing is enlarged."
    )
    long_side: int = Field(1280, ge=16, le=8192, description="Most pixels of the longer side of what is kept.")


@dataclass(frozen=True, eq=False)
class Candidate:
    """A picture that may be kept. `stretch` numbers what lies between suspected cuts; `quality` is in half octaves."""

    second: float
    stretch: int
    quality: int
    pixels: Pixels


def quality(thumbnail: Pixels, after_cut: float) -> int:
    """How much a picture shows, in half octaves of the mean absolute Laplacian of its brightness; a blank one is at 0.

    `thumbnail` uint8 [height, width, 3]; `after_cut` seconds since the cut: right after it, a picture counts half.
    """
    luma = thumbnail_luma(thumbnail)
    middle = luma[1:-1, 1:-1]
    edges = np.abs(4 * middle - luma[:-2, 1:-1] - luma[2:, 1:-1] - luma[1:-1, :-2] - luma[1:-1, 2:])
    nearness = min(1.0, 0.5 + 0.5 * after_cut / EDGE_SECONDS)
    return max(0, round(QUALITY_STEPS * math.log2(1.0 + float(edges.mean()) * nearness)))


@dataclass(eq=False)
class Sampler:
    """Keeps the candidates of one video: twice `max_frames` or 8 at most, and one picture not converted yet."""

    sampling: FrameSampling
    convert: Callable[[Any], Pixels]
    candidates: list[Candidate] = field(default_factory=list)
    _starts: list[float] = field(default_factory=list)
    _interval: float = 0.0
    _most: int = 0
    # Second, quality and the decoded picture of the slot that is still open.
    _open: tuple[float, int, Any] | None = None

    def __post_init__(self) -> None:
        strategy = self.sampling.strategy
        if strategy == "fps":
            self._interval = 1.0 / self.sampling.fps
        else:
            self._interval = KEYFRAME_SLOT_SECONDS if strategy == "keyframes" else self.sampling.interval_seconds
        self._most = (
            self.sampling.max_frames if strategy == "fps" else max(LEAST_CANDIDATES, 2 * self.sampling.max_frames)
        )

    def offer(self, second: float, frame: Any, thumbnail: Pixels | None, begins: bool) -> None:
        """Take the next picture. `begins`: whether it may begin a shot. `thumbnail` is needed by `shots` alone."""
        choosy = self.sampling.strategy == "shots" and thumbnail is not None
        if not self._starts or (choosy and begins):
            self._close()
            self._starts.append(second)
        worth = quality(thumbnail, second - self._starts[-1]) if choosy and thumbnail is not None else 0
        if self._open is not None and self._slot(second) != self._slot(self._open[0]):
            self._close()
        if worth <= self._open[1] if self._open is not None else self._is_taken(second, worth):
            return
        self._open = (second, worth, frame)

    def chosen(self, shots: Sequence[Shot]) -> list[Candidate]:
        """The frames to keep, in the order of time. `shots` cover the video, one after the other."""
        self._close()
        most = self.sampling.max_frames
        if self.sampling.strategy == "shots" and shots:
            return _spread_over(shots, self.candidates, most)
        count = len(self.candidates)
        if count <= most:
            return list(self.candidates)
        return [self.candidates[int((place + 0.5) * count / most)] for place in range(most)]

    def _slot(self, second: float) -> int:
        # A time stamp that is rounded just below the boundary belongs to the slot that it begins.
        return int((second - self._starts[-1]) / self._interval + 1e-6)

    def _is_taken(self, second: float, worth: int) -> bool:
        """Whether the slot of `second` already has a candidate that is as good: slots grow while they are filled."""
        last = self.candidates[-1] if self.candidates else None
        if last is None or last.stretch != len(self._starts) - 1 or self._slot(last.second) != self._slot(second):
            return False
        return worth <= last.quality

    def _close(self) -> None:
        if self._open is None:
            return
        second, worth, frame = self._open
        self._open = None
        stretch = len(self._starts) - 1
        if not self._is_taken(second, worth):
            self.candidates.append(Candidate(second, stretch, worth, self.convert(frame)))
        self._thin()

    def _thin(self) -> None:
        self._join()
        while len(self.candidates) > self._most:
            stretches = [candidate.stretch for candidate in self.candidates]
            if len(set(stretches)) == len(stretches):
                self._drop_shortest()
                continue
            self._interval *= 2
            self._join()

    def _join(self) -> None:
        """Of each slot the best candidate; the earliest of equals."""
        best: dict[tuple[int, int], Candidate] = {}
        for candidate in self.candidates:
            start = self._starts[candidate.stretch]
            slot = (candidate.stretch, int((candidate.second - start) / self._interval + 1e-6))
            if slot not in best or candidate.quality > best[slot].quality:
                best[slot] = candidate
        self.candidates = list(best.values())

    def _drop_shortest(self) -> None:
        """Every stretch has one candidate, and they are too many: the shortest is left out (the last of equals).

        The stretch that is still going on counts as the longest.
        """

        def seconds(candidate: Candidate) -> float:
            follows = candidate.stretch + 1
            return self._starts[follows] - self._starts[candidate.stretch] if follows < len(self._starts) else math.inf

        shortest = min(reversed(self.candidates), key=seconds)
        self.candidates = [candidate for candidate in self.candidates if candidate is not shortest]


def _spread_over(shots: Sequence[Shot], candidates: Sequence[Candidate], most: int) -> list[Candidate]:
    """At most `most` of the candidates: one for each shot, the longest first, then by how long each shot lasts."""
    inside: list[list[Candidate]] = [[] for _ in shots]
    place = 0
    for candidate in candidates:
        while place + 1 < len(shots) and candidate.second >= shots[place + 1].start:
            place += 1
        inside[place].append(candidate)
    lengths = [shot.end - shot.start for shot in shots]
    counts = [0] * len(shots)
    for _ in range(min(most, len(candidates))):
        # Each further frame goes where one stands for the longest time; a shot without any comes before all others.
        open_shots = [number for number, found in enumerate(inside) if counts[number] < len(found)]
        number = max(
            open_shots,
            key=lambda number: (counts[number] == 0, lengths[number] / (counts[number] or 1), -number),
        )
        counts[number] += 1
    kept: list[Candidate] = []
    for shot, found, count in zip(shots, inside, counts, strict=True):
        kept += _best_of(shot, found, count)
    return kept


def _best_of(shot: Shot, found: Sequence[Candidate], count: int) -> list[Candidate]:
    """`count` of the candidates found in a shot: of each equal part of it the best one, then the best that are left."""
    if count == 0:
        return []
    length = max(shot.end - shot.start, 1e-9)
    best: dict[int, Candidate] = {}

    def worth(candidate: Candidate) -> tuple[int, float]:
        part = min(count - 1, int((candidate.second - shot.start) / length * count))
        middle = shot.start + (part + 0.5) * length / count
        soon_over = shot.end - candidate.second < EDGE_SECONDS / 2
        return candidate.quality - (QUALITY_STEPS if soon_over else 0), -abs(candidate.second - middle)

    for candidate in found:
        part = min(count - 1, int((candidate.second - shot.start) / length * count))
        if part not in best or worth(candidate) > worth(best[part]):
            best[part] = candidate
    kept = list(best.values())
    rest = [candidate for candidate in found if all(candidate is not other for other in kept)]
    kept += sorted(rest, key=worth, reverse=True)[: count - len(kept)]
    return sorted(kept, key=lambda candidate: candidate.second)
