"""What the tests of spoken words share: sounds, and what every transcript must be."""

from __future__ import annotations

import numpy as np
import pytest

from encoders.whisper_runtimes import RATE_HZ
from store.records import Float32, Sound, TranscriptAttributes


def sound(samples: Float32, start_seconds: float = 0.0) -> Sound:
    return Sound(np.atleast_2d(samples), RATE_HZ, present=True, start_seconds=start_seconds)


def holds_together(found: TranscriptAttributes, start: float, end: float) -> None:
    """Lines in order, inside the sound, each with words and a believable number behind them."""
    bounds = [bound for line in found.segments for bound in (line.start, line.end)]
    assert bounds == sorted(bounds)
    words_hold_together(found)
    assert all(line.start < line.end for line in found.segments)
    assert all(start <= bound <= end + 1e-3 for bound in bounds)
    assert all(line.text == line.text.strip() != "" for line in found.segments)
    assert all(0 < line.confidence <= 1 for line in found.segments)
    assert 0 < found.speech_seconds <= end - start


def words_hold_together(found: TranscriptAttributes) -> None:
    """Words in order, inside their line, which begins and ends with them, and whose text is theirs."""
    for line in found.segments:
        times = [at for word in line.words for at in (word.start, word.end)]
        assert times == sorted(times)
        assert line.start <= times[0]
        assert times[-1] <= line.end
        assert (line.start, line.end) == pytest.approx((times[0], times[-1]), abs=0.0201)
        assert all(0 <= word.confidence <= 1 for word in line.words)
        between = "" if line.language in ("ja", "zh") else " "
        assert between.join(word.text for word in line.words) == line.text
