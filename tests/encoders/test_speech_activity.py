"""Speech activity: probabilities and spans are the package's own, and spans are sound whatever the probabilities."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from bench.speech_quality import read_clip
from encoders.speech_activity import RATE_HZ, WINDOW_SAMPLES, WINDOW_SECONDS, SpeechActivity, speech_spans
from store.records import Float32

CLIPS = ("audio/conversation_multi_speaker.wav", "audio/jfk.flac")
PROBABILITIES = arrays(np.float32, st.integers(0, 200), elements=st.floats(0, 1, width=32))
# Speech comes in stretches, which independent probabilities hardly ever make.
STRETCHES = st.lists(st.tuples(st.integers(1, 40), st.floats(0, 1, width=32)), max_size=12).map(
    lambda parts: np.concatenate([np.zeros(0, np.float32), *(np.full(n, p, np.float32) for n, p in parts)])
)


@pytest.fixture(scope="module")
def activity(tmp_path_factory: pytest.TempPathFactory) -> SpeechActivity:
    return SpeechActivity(tmp_path_factory.mktemp("cache"))


def samples_of(media: Path, name: str) -> Float32:
    return read_clip(media / name).mono()


def covered(spans: list[tuple[float, float]]) -> float:
    return sum(end - start for start, end in spans)


# --- probabilities ---------------------------------------------------------------------------------------------------


@pytest.mark.models
@pytest.mark.filterwarnings("ignore:`torch.jit.load` is deprecated:FutureWarning")  # the package's affair
@pytest.mark.parametrize("onnx", [True, False], ids=["onnx", "torch"])
@pytest.mark.parametrize("name", CLIPS)
def test_probabilities_are_those_of_the_package(
    activity: SpeechActivity, shared_media: Path, name: str, onnx: bool
) -> None:
    import torch
    from silero_vad import load_silero_vad

    samples = samples_of(shared_media, name)
    assert len(samples) % WINDOW_SAMPLES  # the last window is not full
    expected = load_silero_vad(onnx=onnx).audio_forward(torch.from_numpy(samples), RATE_HZ).numpy()[0]
    assert expected.max() > 0.9
    np.testing.assert_allclose(activity.probabilities(samples), expected, atol=1e-4)


@pytest.mark.models
@pytest.mark.parametrize("count", [0, 1, 511, 512, 513, 5000])
def test_every_window_has_a_probability(activity: SpeechActivity, count: int) -> None:
    found = activity.probabilities(np.zeros(count, np.float32))
    assert found.dtype == np.float32
    assert len(found) == -(-count // WINDOW_SAMPLES)
    assert ((found >= 0) & (found <= 1)).all()


@pytest.mark.models
def test_one_call_does_not_hear_the_other(activity: SpeechActivity, shared_media: Path) -> None:
    samples = samples_of(shared_media, "audio/austen_0880.wav")
    first = activity.probabilities(samples)
    activity.probabilities(np.random.default_rng(7).normal(0, 0.3, RATE_HZ).astype(np.float32))
    np.testing.assert_array_equal(activity.probabilities(samples), first)


@pytest.mark.models
def test_samples_of_another_kind_are_refused(activity: SpeechActivity) -> None:
    with pytest.raises(ValueError, match="float64"):
        activity.probabilities(np.zeros(512))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"\(1, 512\)"):
        activity.probabilities(np.zeros((1, 512), np.float32))


# --- spans -----------------------------------------------------------------------------------------------------------


@pytest.mark.models
@pytest.mark.parametrize("threshold", [0.15, 0.5, 0.9])
@pytest.mark.parametrize("name", CLIPS)
def test_spans_are_those_of_the_package(
    activity: SpeechActivity, shared_media: Path, name: str, threshold: float
) -> None:
    import torch
    from silero_vad import get_speech_timestamps, load_silero_vad

    samples = samples_of(shared_media, name)
    expected = get_speech_timestamps(
        torch.from_numpy(samples), load_silero_vad(onnx=True), threshold, neg_threshold=0.7 * threshold
    )
    spans = speech_spans(activity.probabilities(samples), threshold, seconds=len(samples) / RATE_HZ)
    assert expected
    assert len(spans) == len(expected)
    for (start, end), theirs in zip(spans, expected, strict=True):
        assert start == pytest.approx(theirs["start"] / RATE_HZ, abs=WINDOW_SECONDS)
        assert end == pytest.approx(theirs["end"] / RATE_HZ, abs=WINDOW_SECONDS)


@given(
    probabilities=PROBABILITIES | STRETCHES,
    threshold=st.sampled_from([0.15, 0.3, 0.5, 0.8]),
    silence_ms=st.sampled_from([100, 300, 500]),
    pad_ms=st.sampled_from([0, 30, 300]),
    missing=st.integers(0, WINDOW_SAMPLES - 1),
)
@settings(deadline=None, derandomize=True)
def test_spans_of_any_probabilities_are_those_of_the_package(
    probabilities: Float32, threshold: float, silence_ms: int, pad_ms: int, missing: int
) -> None:
    from silero_vad.utils_vad import get_speech_timestamps_from_probs

    total = max(len(probabilities) * WINDOW_SAMPLES - missing, 0)
    expected = get_speech_timestamps_from_probs(
        probabilities.tolist(),
        threshold=threshold,
        neg_threshold=0.7 * threshold,
        min_silence_duration_ms=silence_ms,
        speech_pad_ms=pad_ms,
        audio_length_samples=total,
    )
    spans = speech_spans(
        probabilities,
        threshold,
        min_silence_seconds=silence_ms / 1000,
        pad_seconds=pad_ms / 1000,
        seconds=total / RATE_HZ,
    )
    theirs = [(span["start"] / RATE_HZ, span["end"] / RATE_HZ) for span in expected]
    # They count in whole samples.
    np.testing.assert_allclose(np.array(spans).reshape(-1, 2), np.array(theirs).reshape(-1, 2), atol=2 / RATE_HZ)


@given(
    probabilities=PROBABILITIES | STRETCHES,
    thresholds=st.tuples(st.floats(0.05, 0.95), st.floats(0.05, 0.95)),
    silence=st.floats(0.05, 0.6),
    pad=st.floats(0.0, 0.6),
    shortest=st.floats(0.05, 0.5),
)
@settings(deadline=None, derandomize=True)
def test_spans_are_in_order_apart_inside_and_shrink_as_the_threshold_grows(
    probabilities: Float32, thresholds: tuple[float, float], silence: float, pad: float, shortest: float
) -> None:
    low, high = (
        speech_spans(
            probabilities, threshold, min_silence_seconds=silence, pad_seconds=pad, min_speech_seconds=shortest
        )
        for threshold in sorted(thresholds)
    )
    total = len(probabilities) * WINDOW_SECONDS
    for spans in (low, high):
        bounds = np.array([0.0, *(bound for span in spans for bound in span), total])
        assert (np.diff(bounds) >= -1e-9).all()
        assert all(end - start > shortest - 1e-9 for start, end in spans)
    assert covered(high) <= covered(low) + 1e-9


def test_hysteresis_holds_a_span_open_between_the_thresholds() -> None:
    probabilities = np.array([0.9] * 20 + [0.4] * 20 + [0.0] * 20, np.float32)
    assert speech_spans(probabilities, 0.5, pad_seconds=0.0) == [(0.0, 40 * WINDOW_SECONDS)]
    assert speech_spans(probabilities, 0.5, release=0.45, pad_seconds=0.0) == [(0.0, 20 * WINDOW_SECONDS)]
