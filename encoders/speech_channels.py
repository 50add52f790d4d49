"""Whether two stereo channels carry different speech, and so must be heard one by one.

The mean of two channels scrambles two people who talk at once, one in each. What tells them from one person in stereo
is the correlation of the wave forms, not the levels: the same voice is in both channels, if a little later or upside
down in one of them.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import numpy.typing as npt

from encoders.speech_activity import WINDOW_SECONDS as ACTIVITY_SECONDS
from store.records import Float32

BLOCK_SECONDS = 0.5
_ACTIVE = 0.5  # mean probability of speech from which somebody surely talks in a block
_LAG_SECONDS = 0.01  # the way of sound between two microphones that are three metres apart
_SILENT_POWER = 1e-7  # -70 dB: a block below that is the same as nothing
_AT_LEAST_SECONDS = 1.0  # of talking at once; less is a slip


def correlations(left: Float32, right: Float32, rate_hz: int) -> npt.NDArray[np.float64]:
    """float64 [n_blocks]: the largest absolute correlation (0..1) of the two channels (float32 [n]) in each whole block
    of half a second, over lags of up to 10 ms either way. Where a channel is silent it is 1: nothing is different."""
    size, lag = round(BLOCK_SECONDS * rate_hz), round(_LAG_SECONDS * rate_hz)
    count = len(left) // size
    first, second = (channel[: count * size].reshape(count, size).astype(np.float64) for channel in (left, right))
    first, second = (blocks - blocks.mean(axis=1, keepdims=True) for blocks in (first, second))
    powers = [np.square(blocks).mean(axis=1) for blocks in (first, second)]
    spectrum = np.fft.rfft(first, 2 * size) * np.conj(np.fft.rfft(second, 2 * size))
    products = np.abs(np.fft.irfft(spectrum, 2 * size))
    most = np.maximum(products[:, : lag + 1].max(axis=1), products[:, -lag:].max(axis=1)) / size
    silent = np.minimum(*powers) < _SILENT_POWER
    found: npt.NDArray[np.float64] = np.where(silent, 1.0, most / np.sqrt(np.where(silent, 1.0, powers[0] * powers[1])))
    return found


def may_differ(found: npt.NDArray[np.float64], threshold: float) -> bool:
    """Whether enough blocks correlate less than `threshold` for it to be worth to look for speech in each channel."""
    return bool((found < threshold).sum() * BLOCK_SECONDS >= _AT_LEAST_SECONDS)


def speak_differently(found: npt.NDArray[np.float64], left: Float32, right: Float32, threshold: float) -> bool:
    """Whether, where both channels have speech by their probabilities `left` and `right` (float32, windows of 32 ms),
    it is for a second or more, and mostly, not the same: their correlations `found` (per block) are below `threshold`.
    """
    bounds = (np.arange(len(found) + 1) * BLOCK_SECONDS / ACTIVITY_SECONDS).astype(int)
    both = np.array(
        [
            min(left[first:last].mean(), right[first:last].mean()) >= _ACTIVE
            for first, last in pairwise(bounds.tolist())
        ],
        bool,
    )
    different = int((both & (found < threshold)).sum())
    return different * BLOCK_SECONDS >= _AT_LEAST_SECONDS and 2 * different > int(both.sum())
