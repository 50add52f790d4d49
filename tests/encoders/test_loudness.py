"""Loudness against the test signals of EBU Tech 3341 (2016), table 1, by the binary that production uses."""

from __future__ import annotations

import numpy as np
import pytest

from encoders.loudness import integrated_loudness
from store.errors import PassingError
from store.records import Float32

RATE_HZ = 22050


def sine(dbfs: float, seconds: float, rate_hz: int = RATE_HZ, hertz: float = 1000.0) -> Float32:
    """float32 [n]: a sine whose peak is `dbfs`."""
    time = np.arange(round(seconds * rate_hz)) / rate_hz
    return (10 ** (dbfs / 20) * np.sin(2 * np.pi * hertz * time)).astype(np.float32)


def stereo(samples: Float32) -> Float32:
    return np.stack([samples, samples])


@pytest.mark.parametrize("dbfs", [-23.0, -33.0])
def test_stereo_sine_is_as_loud_as_its_peak(dbfs: float) -> None:
    # Cases 1 and 2; the standard allows 0.1 LU.
    assert integrated_loudness(stereo(sine(dbfs, 20)), RATE_HZ) == pytest.approx(dbfs, abs=0.11)


def test_quiet_parts_are_gated_out() -> None:
    # Case 3: without the relative gate it would be -24.2.
    tone = np.concatenate([sine(-36, 10), sine(-23, 60), sine(-36, 10)])
    assert integrated_loudness(stereo(tone), RATE_HZ) == pytest.approx(-23.0, abs=0.11)


def test_mono_is_heard_from_two_loudspeakers_and_one_channel_of_two_from_one() -> None:
    tone = sine(-23, 10, hertz=997.0)
    assert integrated_loudness(tone[np.newaxis], RATE_HZ) == pytest.approx(-23.0, abs=0.2)
    assert integrated_loudness(np.stack([tone, 0 * tone]), RATE_HZ) == pytest.approx(-26.0, abs=0.2)


@pytest.mark.parametrize("rate_hz", [16000, 44100, 48000])
def test_rate_does_not_matter(rate_hz: int) -> None:
    assert integrated_loudness(sine(-23, 5, rate_hz)[np.newaxis], rate_hz) == pytest.approx(-23.0, abs=0.2)


def test_gain_of_6_db_is_6_lu() -> None:
    noise = np.random.default_rng(3).normal(0, 0.02, (2, RATE_HZ * 5)).astype(np.float32)
    before = integrated_loudness(noise, RATE_HZ)
    after = integrated_loudness(noise * np.float32(10 ** (6 / 20)), RATE_HZ)
    assert before is not None
    assert after == pytest.approx(before + 6.0, abs=0.11)


def test_silence_and_less_than_a_block_have_no_loudness() -> None:
    assert integrated_loudness(np.zeros((1, RATE_HZ), np.float32), RATE_HZ) is None
    assert integrated_loudness(sine(-90, 2)[np.newaxis], RATE_HZ) is None
    assert integrated_loudness(sine(-23, 0.39)[np.newaxis], RATE_HZ) is None
    assert integrated_loudness(sine(-23, 0.45)[np.newaxis], RATE_HZ) == pytest.approx(-23.0, abs=0.3)
    assert integrated_loudness(np.zeros((2, 0), np.float32), RATE_HZ) is None


def test_time_out_is_a_passing_error() -> None:
    with pytest.raises(PassingError) as raised:
        integrated_loudness(stereo(sine(-23, 60)), RATE_HZ, timeout_seconds=0.001)
    assert raised.value.code == "stage.timeout"


def test_more_than_two_channels_are_refused() -> None:
    with pytest.raises(ValueError, match="1 or 2 channels, got 3"):
        integrated_loudness(np.zeros((3, RATE_HZ), np.float32), RATE_HZ)
