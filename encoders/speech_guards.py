"""From Whisper's tokens to spoken lines, and the guards that keep invented words out of them."""

from __future__ import annotations

import zlib
from dataclasses import dataclass

import numpy as np

from encoders.whisper_runtimes import SECONDS_PER_TIMESTAMP


@dataclass(frozen=True)
class Line:
    """One line between two time stamps: seconds from the start of its window, and its token ids."""

    start: float
    end: float
    tokens: tuple[int, ...]


def lines_of(tokens: tuple[int, ...], timestamp_begin: int, seconds: float) -> list[Line]:
    """The lines of one window of `seconds`; `timestamp_begin` is the token id of the time stamp 0.00.

    Text tokens lie between a start and an end stamp. An end that is missing (the token cap was reached) or beyond the
    window is the end of the window. A line that starts where the window is over was heard in the silence after it, and
    is dropped.
    """
    lines: list[Line] = []
    start = 0.0
    words: list[int] = []
    for token in (*tokens, timestamp_begin + round(seconds / SECONDS_PER_TIMESTAMP)):
        if token < timestamp_begin:
            words.append(token)
            continue
        stamp = min((token - timestamp_begin) * SECONDS_PER_TIMESTAMP, seconds)
        if words and start < seconds:
            lines.append(Line(start, max(stamp, start), tuple(words)))
        words = []
        start = stamp
    return lines


def without_loops(lines: list[Line], max_repeats: int) -> list[Line]:
    """`lines` with every phrase that is said more than `max_repeats` times in a row said once.

    Greedy decoding falls into loops on music and on speech that repeats. The phrase may be of any length and run over
    several lines. A line that is left without words is dropped.
    """
    while (shorter := _unrolled_once(lines, max_repeats)) is not lines:
        lines = shorter  # a loop of loops is a plain loop by now
    return lines


def without_hasty_repeats(lines: list[Line], tokens_per_second: float) -> list[Line]:
    """`lines` without those that say what the line before them said, faster than anybody speaks.

    At the end of a window the decoder may write a sentence a second time into the rest of a second.
    """
    return [
        line
        for place, line in enumerate(lines)
        if place == 0
        or line.tokens != lines[place - 1].tokens
        or len(line.tokens) <= tokens_per_second * (line.end - line.start)
    ]


def compression_ratio(text: str) -> float:
    """Bytes of the text over bytes of its zlib compression: far above 2 when it loops (Radford et al., 2022)."""
    raw = text.encode()
    return len(raw) / len(zlib.compress(raw)) if raw else 0.0


def token_cap(seconds: float, tokens_per_second: float, at_most: int) -> int:
    """Most tokens a window of `seconds` may give: nobody speaks faster, a loop does."""
    return int(min(at_most, 16 + round(seconds * tokens_per_second)))


def _unrolled_once(lines: list[Line], max_repeats: int) -> list[Line]:
    """One pass of `without_loops`; the same object when there is nothing to take away."""
    flat = [(index, token) for index, line in enumerate(lines) for token in line.tokens]
    kept = _without_cycles([token for _, token in flat], max_repeats)
    if len(kept) == len(flat):
        return lines
    places: dict[int, list[int]] = {}
    offsets = np.cumsum([0] + [len(line.tokens) for line in lines])
    for place in kept:
        index = flat[place][0]
        places.setdefault(index, []).append(place - int(offsets[index]))
    return [
        Line(line.start, line.end, tuple(line.tokens[place] for place in places[index]))
        for index, line in enumerate(lines)
        if index in places
    ]


def _without_cycles(tokens: list[int], max_repeats: int) -> list[int]:
    """Places in `tokens` that stay when each run of more than `max_repeats` equal neighbouring phrases keeps one."""
    kept: list[int] = []
    place = 0
    while place < len(tokens):
        period, cycles = _cycle_at(tokens, place, max_repeats)
        kept.extend(range(place, place + period))
        place += period * cycles
    return kept


def _cycle_at(tokens: list[int], place: int, max_repeats: int) -> tuple[int, int]:
    """(period, cycles) of the shortest phrase at `place` that comes more than `max_repeats` times; else (1, 1)."""
    left = len(tokens) - place
    for period in range(1, left // (max_repeats + 1) + 1):
        phrase = tokens[place : place + period]
        cycles = 1
        while tokens[place + cycles * period : place + (cycles + 1) * period] == phrase:
            cycles += 1
        if cycles > max_repeats:
            return period, cycles
    return 1, 1
