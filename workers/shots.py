"""Where one shot ends and the next begins, and how much moves, from a thumbnail of every decoded picture.

A cut is a jump: between two neighbouring pictures the layout changes *and* the colours change, by far more than just
before and just after, and what was there does not come back. Each clause keeps a look-alike out:

- The change of layout is one minus the correlation of brightness, which a fade or a change of exposure hardly touches;
  the change of colour is the mean absolute difference. Their geometric mean is high only where both are.
- The bar rises with the changes around it, before and after, so that steady motion, however fast, is none; whereas a
  cut out of a calm shot into a wild one still stands above the mean of both sides. Repeated pictures (animation "on
  twos") are no calm and are left out of that mean.
- A flash, a dropped picture or an inserted one is followed by what stood before it.

Gradual transitions (fades, dissolves) are not cuts: both scenes lie in one shot, over which frames are spread by time.

The bounds were set on 28 real clips, by looking at every jump above 0.15: hand-held motion stays below 0.15, real cuts
begin at 0.17 and are mostly above 0.35; the highest jumps that are none (explosions, whip pans) fail the other clauses.
"""

from __future__ import annotations

import math
import statistics
from collections import deque
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from store.records import Float32, Shot

THUMBNAIL = (64, 36)  # width, height; of any picture, whatever its shape

LEAST_JUMP = 0.2
LEAST_JUMP_IN_CALM = 0.15  # where nothing moves before or after: slides
CALM = 0.01
ABOVE_SURROUNDINGS = 2.0  # times the mean of the median changes before and after
ABOVE_NEIGHBOURS = 1.6  # times the mean of the changes of the pictures next to it
ABOVE_BEFORE = 1.25  # times the median change before: what can be told at once
SURROUNDINGS_SECONDS = 0.4
SURROUNDINGS_PICTURES = 8
REPEATED = 0.002  # a change below this is a repeated picture
HELD_SECONDS = 0.15  # a drawing of an animation is held no longer: what repeats for longer is calm
SHORTEST_SECONDS = 0.2  # no shot is shorter
RETURN_SECONDS = 0.3  # how soon what was there must come back to have been interrupted only
RETURN_PICTURES = 12
RETURN_SHARE = 0.4  # of the jump: nearer than this is "the same again"
MOTION_SECONDS = 0.2  # between the two pictures that motion compares
_NOISE = 4.0  # variance of brightness (levels squared) that says nothing about layout


def thumbnail_luma(thumbnail: npt.NDArray[np.uint8]) -> Float32:
    """float32 [height, width] in 0..255 of an RGB `thumbnail` uint8 [height, width, 3]."""
    return _luma(thumbnail.astype(np.float32))


def _luma(colours: Float32) -> Float32:
    # ITU-R BT.601. Written out: a matrix product may sum in another order on another machine.
    luma: Float32 = 0.299 * colours[..., 0] + 0.587 * colours[..., 1] + 0.114 * colours[..., 2]
    return luma


@dataclass(frozen=True, eq=False)
class _Look:
    """What is remembered of a picture: its time, colours float32 [h, w, 3], centred brightness [h, w], variance."""

    second: float
    colours: Float32
    layout: Float32
    variance: float


def _look(second: float, thumbnail: npt.NDArray[np.uint8]) -> _Look:
    colours = thumbnail.astype(np.float32)
    luma = _luma(colours)
    layout = luma - luma.sum() / luma.size
    return _Look(second, colours, layout, float((layout * layout).sum()) / luma.size)


def _jump(one: _Look, other: _Look) -> float:
    """How different two pictures are, 0..1; two blank ones, which have no layout, by their colours alone."""
    colour = float(np.abs(one.colours - other.colours).sum()) / (255.0 * one.colours.size)
    if max(one.variance, other.variance) < _NOISE:
        return colour
    covariance = float((one.layout * other.layout).sum()) / one.layout.size
    # The arithmetic mean of the variances, not the geometric one: a blank picture is like no other.
    alike = (covariance + _NOISE) / ((one.variance + other.variance) / 2 + _NOISE)
    layout = min(1.0, max(0.0, 1.0 - alike))
    return math.sqrt(layout * colour)


def _least_jump(surroundings: float) -> float:
    return LEAST_JUMP_IN_CALM if surroundings < CALM else LEAST_JUMP


@dataclass(eq=False)
class _Suspect:
    """A picture that may begin a shot: its place, its jump, what stood before it, and how near that came back."""

    place: int
    jump: float
    before: list[_Look]
    nearest: float = 1.0


@dataclass(eq=False)
class ShotDetector:
    """Takes every picture in turn; memory is one number a picture, whatever the length."""

    seconds: list[float] = field(default_factory=list)
    jumps: list[float] = field(default_factory=list)
    _recent: deque[_Look] = field(default_factory=lambda: deque(maxlen=RETURN_PICTURES + 1))
    _suspects: list[_Suspect] = field(default_factory=list)
    _moved: float = 0.0
    _moved_seconds: float = 0.0
    _still: _Look | None = None

    def add(self, second: float, thumbnail: npt.NDArray[np.uint8]) -> bool:
        """Whether this picture may begin a shot. All that `starts` says were told here; the rest turn out to be none.

        `second` must not go backward. `thumbnail` uint8 [36, 64, 3] RGB.
        """
        look = _look(second, thumbnail)
        jump = _jump(self._recent[-1], look) if self._recent else 0.0
        before = self._median(len(self.jumps), -1, second)
        suspicious = jump >= _least_jump(before) and jump >= ABOVE_BEFORE * before
        if suspicious and self._suspects:
            last = self._suspects[-1]
            suspicious = second - self.seconds[last.place] >= SHORTEST_SECONDS or jump > last.jump
        self._follow_up(look)
        if suspicious:
            stood = [old for old in self._recent if second - old.second <= RETURN_SECONDS] or [self._recent[-1]]
            # The jump's own two pictures are no return.
            self._suspects.append(_Suspect(len(self.jumps), jump, stood, self._nearest(stood[:-1], look)))
        self._measure_motion(look, suspicious)
        self.seconds.append(second)
        self.jumps.append(jump)
        self._recent.append(look)
        return suspicious

    def starts(self) -> list[int]:
        """The places of the pictures that begin a shot, from 0 on: the first, and one for each cut."""
        if not self.seconds:
            return []
        cuts: list[_Suspect] = []
        for suspect in self._suspects:
            if not self._stands_out(suspect):
                continue
            if cuts and self.seconds[suspect.place] - self.seconds[cuts[-1].place] < SHORTEST_SECONDS:
                if suspect.jump > cuts[-1].jump:
                    cuts[-1] = suspect
                continue
            cuts.append(suspect)
        first, last = self.seconds[0] + SHORTEST_SECONDS, self.seconds[-1] - SHORTEST_SECONDS
        # A black picture before the first shot, or one of the next film after the last, is no shot.
        return [0, *(cut.place for cut in cuts if first <= self.seconds[cut.place] <= last)]

    def shots(self, duration: float) -> list[Shot]:
        """The shots in seconds, one after the other, from the first picture to `duration`."""
        starts = [self.seconds[place] for place in self.starts()]
        ends = [*starts[1:], max(duration, self.seconds[-1])] if starts else []
        return [Shot(start=start, end=end) for start, end in zip(starts, ends, strict=True)]

    def motion(self) -> float:
        """How much the brightness of a point changes in a second, as a share of its range, at most 1.

        Pictures about 0.2 s apart are compared, so that it does not depend on the frame rate; a change of all points
        alike (a fade, a flash) is no motion, and a cut is none.
        """
        return min(1.0, self._moved / self._moved_seconds) if self._moved_seconds > 0 else 0.0

    def _median(self, place: int, direction: int, second: float) -> float:
        """The median change of up to eight pictures before (-1) or after (+1) `place`; of those that repeat another,
        the ones that do so for long alone."""
        found: list[float] = []
        changed = second
        while len(found) < SURROUNDINGS_PICTURES:
            place += direction
            if not 0 < place < len(self.jumps) or abs(self.seconds[place] - second) > SURROUNDINGS_SECONDS:
                break
            if self.jumps[place] >= REPEATED:
                changed = self.seconds[place]
            elif abs(self.seconds[place] - changed) <= HELD_SECONDS:
                continue
            found.append(self.jumps[place])
        return statistics.median(found) if found else 0.0

    def _stands_out(self, suspect: _Suspect) -> bool:
        place, jump = suspect.place, suspect.jump
        second = self.seconds[place]
        before, after = self._median(place, -1, second), self._median(place, 1, second)
        around = (before + after) / 2
        beside = (self.jumps[place - 1] + (self.jumps[place + 1] if place + 1 < len(self.jumps) else 0.0)) / 2
        returned = suspect.nearest < RETURN_SHARE * jump
        if jump < _least_jump(max(before, after)):
            return False
        return jump >= ABOVE_SURROUNDINGS * around and jump >= ABOVE_NEIGHBOURS * beside and not returned

    def _follow_up(self, look: _Look) -> None:
        """Compare a new picture with what stood before each jump of the last moments."""
        for suspect in reversed(self._suspects):
            if look.second - self.seconds[suspect.place] > RETURN_SECONDS:
                suspect.before = []
            if not suspect.before:
                return
            suspect.nearest = min(suspect.nearest, self._nearest(suspect.before, look))

    @staticmethod
    def _nearest(before: list[_Look], look: _Look) -> float:
        return min((_jump(old, look) for old in before), default=1.0)

    def _measure_motion(self, look: _Look, begins: bool) -> None:
        still = self._still
        if still is None or begins:
            self._still = look
            return
        passed = look.second - still.second
        if passed < MOTION_SECONDS - 1e-3:
            return
        self._moved += float(np.abs(look.layout - still.layout).mean()) / 255.0
        self._moved_seconds += passed
        self._still = look
