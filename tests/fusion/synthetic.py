"""Catalogues with a structure that is known: what a training that works must find."""

from __future__ import annotations

import numpy as np

from fusion.views import TrainingVideo
from store.records import Float32, Tokens

WIDTHS: dict[str, int] = {"vision": 24, "audio": 16, "text": 20}


def _generator(*place: int) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(list(place)))


def tokens_of(rows: Float32, seconds: float = 1.0, salience: float = 0.7) -> Tokens:
    start = (np.arange(len(rows)) * seconds).astype(np.float32)
    return Tokens(
        rows.astype(np.float32),
        start,
        (start + np.float32(seconds)).astype(np.float32),
        np.full(len(rows), salience, np.float32),
    )


def planted(number: int, tokens: int = 6, noise: float = 3.0) -> dict[str, Tokens]:
    """One video. What it is about lies in a few directions of its `vision` and `text`, a linear image of the same four
    numbers in both; all other directions, and the whole of `audio`, are louder and say nothing of the video."""
    about = _generator(1, number).standard_normal(4)
    found = {}
    for place, (name, width) in enumerate(WIDTHS.items()):
        image = _generator(2, place).standard_normal((4, width))
        basis = np.linalg.qr(_generator(3, place).standard_normal((width, width)))[0]
        random = _generator(4, place, number)
        # Noise in three quarters of the directions; the signal is clean in the rest.
        loud = basis[: width * 3 // 4]
        rows = noise * random.standard_normal((tokens, len(loud))) @ loud + 0.3 * random.standard_normal(
            (tokens, width)
        )
        if name != "audio":
            rows = rows + about @ image
        found[name] = tokens_of(rows.astype(np.float32))
    return found


def catalogue(count: int, first: int = 0) -> dict[str, TrainingVideo]:
    """That many videos, by name."""
    return {f"video-{number:04d}": TrainingVideo(planted(number)) for number in range(first, first + count)}


def half(tokens: dict[str, Tokens], number: int) -> dict[str, Tokens]:
    """The earlier (0) or later (1) half of every modality."""
    found = {}
    for name, part in tokens.items():
        places = slice(0, len(part) // 2) if number == 0 else slice(len(part) // 2, None)
        found[name] = Tokens(
            part.embeddings[places], part.start_seconds[places], part.end_seconds[places], part.salience[places]
        )
    return found
