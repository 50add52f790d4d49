"""What each video adds to a viewer's profile: a mapping that is never changed, kept in columns so that fading all of it
is one multiplication, and adding to it one copy."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
import numpy.typing as npt

Float64 = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Contribution:
    """What one video adds to a profile, faded to the profile's time, each at least 0; and the act that spoke loudest
    for it (`act`, with the value it had when it happened), for people to read. `followed` is the creator whom the
    viewer followed from it, or empty."""

    long: float = 0.0
    recent: float = 0.0
    negative: float = 0.0
    act: str = ""
    act_value: float = 0.0
    followed: str = ""

    def joined(self, other: Contribution) -> Contribution:
        """Both together, the same whichever came first: the louder act by value, then by name."""
        louder = max(self, other, key=lambda part: (part.act_value, part.act))
        return Contribution(
            self.long + other.long,
            self.recent + other.recent,
            self.negative + other.negative,
            louder.act,
            louder.act_value,
            self.followed or other.followed,
        )


class Contributions(Mapping[str, Contribution]):
    """The contributions by video. The three weights stand in one float64 [rows, 3], so that a profile of thousands of
    videos fades in microseconds; a `Contribution` is made when it is asked for. `follows`: the creators followed, by
    the video from which that was done."""

    __slots__ = ("_acts", "_rows", "_weights", "follows")

    def __init__(self, parts: Mapping[str, Contribution] = MappingProxyType({})) -> None:
        self._rows: dict[str, int] = {video: row for row, video in enumerate(parts)}
        self._weights: Float64 = np.array(
            [(part.long, part.recent, part.negative) for part in parts.values()], np.float64
        ).reshape(-1, 3)
        self._acts = [(part.act, part.act_value) for part in parts.values()]
        self.follows = {video: part.followed for video, part in parts.items() if part.followed}

    def __getitem__(self, video: str) -> Contribution:
        row = self._rows[video]
        long, recent, negative = self._weights[row].tolist()
        return Contribution(long, recent, negative, *self._acts[row], self.follows.get(video, ""))

    def __iter__(self) -> Iterator[str]:
        return iter(self._rows)

    def __len__(self) -> int:
        return len(self._rows)

    def __contains__(self, video: object) -> bool:
        return video in self._rows

    def weights(self) -> Float64:
        """float64 [n, 3]: long, recent, negative of each video, in the order of iteration."""
        return self._weights[list(self._rows.values())]

    def of(self, video: str) -> tuple[float, float, float]:
        """(long, recent, negative) of one video, zeros where it adds nothing."""
        row = self._rows.get(video)
        if row is None:
            return (0.0, 0.0, 0.0)
        long, recent, negative = self._weights[row].tolist()
        return (long, recent, negative)

    def aged(self, factors: tuple[float, float, float]) -> Contributions:
        """All long, recent and negative weights times their factor."""
        return self._copy(self._rows, self._weights * np.array(factors), self._acts, self.follows)

    def plus(self, video: str, added: Contribution) -> Contributions:
        """With one more contribution of a video."""
        row = self._rows.get(video)
        total = added if row is None else self[video].joined(added)
        weight = (total.long, total.recent, total.negative)
        if row is None:
            rows = {**self._rows, video: len(self._weights)}
            weights = np.concatenate([self._weights, np.array([weight], np.float64)])
            acts = [*self._acts, (total.act, total.act_value)]
        else:
            rows = self._rows
            weights = self._weights.copy()
            weights[row] = weight
            acts = self._acts.copy()
            acts[row] = (total.act, total.act_value)
        follows = {**self.follows, video: total.followed} if total.followed else self.follows
        return self._copy(rows, weights, acts, follows)

    def without(self, video: str) -> Contributions:
        """All but one video. Its row stays, unnamed: such a mapping lives for one explanation."""
        rows = self._rows.copy()
        rows.pop(video, None)
        follows = {name: creator for name, creator in self.follows.items() if name != video}
        return self._copy(rows, self._weights, self._acts, follows)

    @classmethod
    def _copy(
        cls, rows: dict[str, int], weights: Float64, acts: list[tuple[str, float]], follows: dict[str, str]
    ) -> Contributions:
        made = cls.__new__(cls)
        made._rows, made._weights, made._acts, made.follows = rows, weights, acts, follows
        return made

    def __repr__(self) -> str:
        return f"Contributions({len(self)})"
