"""Fixed random projections that bring every modality into one space without any training.

A subsampled randomised Hadamard transform per modality: flip signs at random, rotate by a Hadamard matrix, keep some
of the rows (Ailon & Chazelle 2006, "Approximate nearest neighbors and the fast Johnson-Lindenstrauss transform";
Tropp 2011, "Improved analysis of the subsampled randomized Hadamard transform"). Why this one:

- Inner products within a modality are kept: exactly where the embedding is no wider than the joint space, else with an
  error of about `sqrt(1 / dim)` (Johnson & Lindenstrauss 1984), about 0.06 for 256.
- Inner products across modalities, which mean nothing without training, stay near 0, with the same error.
- Every entry is `+-1 / sqrt(dim)` and comes from integers alone: SHA-256 seeds PCG64, of which only the raw 64-bit
  stream is read (numpy promises that stream for all versions; it promises no distribution's). For a `dim` that is a
  power of four the entries are exact binary fractions. So the matrix is the same on every machine, bit for bit.
"""

from __future__ import annotations

import functools
import hashlib

import numpy as np
import numpy.typing as npt

from store.records import Float32


def seed_of(name: str, seed: int) -> int:
    """A 128-bit seed from a name and a number, the same on every machine."""
    return int.from_bytes(hashlib.sha256(f"reelsense.projection/{seed}/{name}".encode()).digest()[:16], "little")


@functools.cache
def projection(modality: str, width: int, dim: int, seed: int) -> Float32:
    """The matrix float32 [width, dim] that takes row vectors of `modality` into the joint space; read-only.

    `dim` must be a power of two. `width` is the modality's own embedding width. Raises ValueError for other sizes.
    """
    if width < 1 or dim < 1 or dim & (dim - 1):
        raise ValueError(f"width must be positive and dim a power of two, got {width} and {dim}")
    order = max(dim, 1 << (width - 1).bit_length())
    stream = np.random.PCG64(seed_of(modality, seed))
    flips: npt.NDArray[np.uint64] = stream.random_raw(width) >> np.uint64(63)
    # The places of the sorted raw numbers are a random permutation; `stable` makes even a tie reproducible.
    kept = np.argsort(stream.random_raw(order), kind="stable")[:dim].astype(np.uint64)
    columns = np.arange(width, dtype=np.uint64)
    # Sylvester's Hadamard matrix: entry (i, j) is -1 to the power of the number of common one bits of i and j.
    odd = (np.bitwise_count(columns[:, None] & kept[None, :]).astype(np.uint64) + flips[:, None]) & np.uint64(1)
    matrix: Float32 = ((1.0 - 2.0 * odd.astype(np.float64)) / np.sqrt(dim)).astype(np.float32)
    matrix.flags.writeable = False
    return matrix
