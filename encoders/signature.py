"""A near-duplicate signature: 64 bits for each frame that survive re-encoding, rescaling, brightness and a slight crop.

The bits say of the 64 lowest frequencies of a frame's lightness, but for its mean, which lie above their median (a
perceptual hash, as Zauner 2010, "Implementation and Benchmarking of Perceptual Image Hash Functions", describes
it). Low frequencies are what encoding and scaling leave alone; a change of brightness or contrast moves all of
them, and their median, together; the picture is squeezed into a square first, so that neither does its shape matter.
Two frames are of the same picture when their bits differ in about a fifth at most; unrelated ones differ in half.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from encoders.pictures import Float64, Pixels, blank, block_means, luma
from store.records import Float32, Frames

BITS = 64
_SIDE, _FREQUENCIES = 32, 9


@dataclass(frozen=True, eq=False)
class Signature:
    """`hashes` uint8 [n, 8], one row of 64 bits for each frame that shows something, and its `seconds` float32 [n].

    Blank frames have none: black is like black, and would make duplicates of all videos that fade.
    """

    hashes: npt.NDArray[np.uint8]
    seconds: Float32

    def __post_init__(self) -> None:
        if self.hashes.ndim != 2 or self.hashes.shape[1] != BITS // 8 or self.hashes.dtype != np.uint8:
            raise ValueError(f"hashes must be uint8 [n, {BITS // 8}], got {self.hashes.dtype} {self.hashes.shape}")
        if self.seconds.shape != self.hashes.shape[:1] or self.seconds.dtype != np.float32:
            raise ValueError(f"seconds must be float32 [{len(self.hashes)}], got {self.seconds.shape}")

    def arrays(self) -> dict[str, npt.NDArray[np.uint8] | Float32]:
        """The arrays under which an artifact keeps a signature."""
        return {"signature": self.hashes, "signature_seconds": self.seconds}

    def __repr__(self) -> str:
        return f"Signature(hashes={self.hashes.shape})"


def signature_of(frames: Frames) -> Signature:
    """The signature of the frames that are not blank, in their order; a frame's bits depend on that frame alone."""
    shown = np.array([index for index, frame in enumerate(frames.pixels) if _shows(frame)], np.intp)
    hashes = np.zeros((len(shown), BITS // 8), np.uint8)
    for row, index in enumerate(shown):
        hashes[row] = _hash(frames.pixels[index])
    return Signature(hashes, frames.seconds[shown].astype(np.float32))


def _shows(frame: Pixels) -> bool:
    return frame.size > 0 and not bool(blank(frame[np.newaxis])[0])


def _hash(frame: Pixels) -> npt.NDArray[np.uint8]:
    """uint8 [8]: 64 bits of one frame uint8 [height, width, 3]."""
    grey = luma(block_means(frame[np.newaxis], _SIDE, _SIDE))[0]
    spectrum = _cosines(grey.shape[0]) @ grey @ _cosines(grey.shape[1]).T
    # Rounded, so that the last bits of a float, which differ between machines, decide nothing.
    low = np.round(spectrum, 4)[_ROWS, _COLUMNS]
    return np.packbits(low > np.median(low))


def _cosines(length: int) -> Float64:
    """float64 [9, length]: the lowest rows of the orthonormal discrete cosine transform (type II), over its size."""
    frequency, place = np.arange(_FREQUENCIES)[:, np.newaxis], np.arange(length)
    rows = np.sqrt(2.0) * np.cos(np.pi * frequency * (2 * place + 1) / (2 * length)) / length
    rows[0] /= np.sqrt(2.0)
    return np.asarray(rows, np.float64)


def _lowest(count: int) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """Rows and columns of the `count` lowest frequencies but the mean: a block of 8 by 8 and one more, (0, 8)."""
    grid = range(_FREQUENCIES)
    places = sorted((max(row, column), row + column, row, column) for row in grid for column in grid)
    chosen = places[1 : count + 1]
    return np.array([place[2] for place in chosen]), np.array([place[3] for place in chosen])


_ROWS, _COLUMNS = _lowest(BITS)
