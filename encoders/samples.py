"""What every reader of sound does to samples first: mend what is broken, mix what is one, part what is not."""

from __future__ import annotations

import numpy as np

from store.records import Float32

SAMPLE_LIMIT = 8.0  # 18 dB over full scale; lossy codecs overshoot by a few dB, not by that
APART_CORRELATION = 0.3
APART_SHARE = 1e-3


def mended(samples: Float32) -> tuple[Float32, bool]:
    """`samples` with NaN and infinity replaced by 0 and the absurdly large cut off, and whether there were any."""
    finite = np.isfinite(samples)
    with np.errstate(invalid="ignore"):
        damaged = not finite.all() or bool((np.abs(samples) > SAMPLE_LIMIT).any())
    if not damaged:
        return samples, False
    return np.clip(np.where(finite, samples, np.float32(0.0)), -SAMPLE_LIMIT, SAMPLE_LIMIT).astype(np.float32), True


def mixed(samples: Float32) -> Float32:
    """float32 [n]: the mean of the channels, or the louder one where they cancel out."""
    mean: Float32 = samples.mean(axis=0, dtype=np.float32)
    powers = np.square(samples, dtype=np.float64).mean(axis=1)
    if float(np.square(mean, dtype=np.float64).mean()) < 0.1 * powers.max():
        return np.ascontiguousarray(samples[int(powers.argmax())])
    return mean


def streams(samples: Float32) -> list[Float32]:
    """The sounds, float32 [n] each, in `samples` (float32 [1 or 2, n]): one, or two where the channels differ.

    Two microphones, one for each talker, have channels that do not correlate, and a mix of them is a scramble. A
    channel with under a thousandth of the other's power is a fault or an echo, not a talker.
    """
    if len(samples) < 2 or samples.shape[1] == 0:
        return [mixed(samples)]
    centred = samples.astype(np.float64) - samples.mean(axis=1, dtype=np.float64)[:, None]
    powers = np.square(centred).mean(axis=1)
    if powers.min() <= APART_SHARE * powers.max():
        return [np.ascontiguousarray(samples[int(powers.argmax())])]
    correlation = float((centred[0] * centred[1]).mean() / np.sqrt(powers[0] * powers[1]))
    if abs(correlation) >= APART_CORRELATION:
        return [mixed(samples)]
    return [np.ascontiguousarray(channel) for channel in samples]
