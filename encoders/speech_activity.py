"""Where somebody speaks: the Silero voice-activity model on 32 ms windows, and spans made of its probabilities."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from encoders.weights import WEIGHTS, locate
from store.records import Float32

RATE_HZ = 16_000
WINDOW_SAMPLES = 512
WINDOW_SECONDS = WINDOW_SAMPLES / RATE_HZ
_CONTEXT_SAMPLES = 64  # the model sees the end of the window before, as it would in a stream
_STATE_SHAPE = (2, 1, 128)


class SpeechActivity:
    """Silero VAD through ONNX Runtime, on one CPU.

    A low threshold is a good *gate* and a bad judge: at 0.5 the model loses all of a noisy radio voice, and at any
    useful threshold it fires on jazz and on singing. Whoever needs to be sure looks at the words as well.
    """

    def __init__(self, cache: Path, threads: int = 1) -> None:
        """Load the model. `cache` is where unpacked weights live. Raises ModelError."""
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3  # the graph carries unused constants, which ONNX Runtime would report at length
        path = locate(WEIGHTS["silero-vad"], cache)
        self._session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])

    def probabilities(self, samples: Float32) -> Float32:
        """float32 [ceil(n / 512)]: the probability of speech in each 32 ms window of `samples` (float32 [n], 16 kHz).

        The last window is filled up with zeros. The model's memory starts empty at every call.
        """
        if samples.ndim != 1 or samples.dtype != np.float32:
            raise ValueError(f"samples must be float32 [n], got {samples.dtype} {samples.shape}")
        count = -(-len(samples) // WINDOW_SAMPLES)
        padded = np.zeros(_CONTEXT_SAMPLES + count * WINDOW_SAMPLES, np.float32)
        padded[_CONTEXT_SAMPLES : _CONTEXT_SAMPLES + len(samples)] = samples
        state = np.zeros(_STATE_SHAPE, np.float32)
        rate = np.array(RATE_HZ, np.int64)
        found = np.zeros(count, np.float32)
        for index in range(count):
            start = index * WINDOW_SAMPLES
            window = padded[np.newaxis, start : start + _CONTEXT_SAMPLES + WINDOW_SAMPLES]
            output, state = self._session.run(None, {"input": window, "state": state, "sr": rate})
            found[index] = output[0, 0]
        return found


def speech_spans(
    probabilities: Float32,
    threshold: float,
    *,
    release: float | None = None,
    min_speech_seconds: float = 0.25,
    min_silence_seconds: float = 0.1,
    pad_seconds: float = 0.03,
    seconds: float | None = None,
) -> list[tuple[float, float]]:
    """Spans of speech, (start, end) in seconds, in order and apart, from `probabilities` [n_windows] of 32 ms.

    Hysteresis as Silero's own `get_speech_timestamps` does it: a span opens at a window of at least `threshold` and
    closes where the probability first fell below `release` (0.7 of the threshold when None) and did not come back up to
    `threshold` for `min_silence_seconds`. Spans not longer than `min_speech_seconds` are dropped, the others grow by
    `pad_seconds` on both sides, or up to the middle of a narrow gap. `seconds` is the length of the sound, when the
    last window is not full.
    """
    low = threshold * 0.7 if release is None else release
    total = len(probabilities) * WINDOW_SECONDS if seconds is None else seconds
    spans: list[tuple[float, float]] = []
    opened: int | None = None
    fell: int | None = None
    for index, probability in enumerate(probabilities.tolist()):
        if probability >= threshold:
            fell = None
            if opened is None:
                opened = index
        elif opened is not None and probability < low:
            fell = index if fell is None else fell
            if (index - fell) * WINDOW_SECONDS >= min_silence_seconds:
                spans.append((opened * WINDOW_SECONDS, fell * WINDOW_SECONDS))
                opened = fell = None
    if opened is not None:
        spans.append((opened * WINDOW_SECONDS, total))
    spans = [(start, end) for start, end in spans if end - start > min_speech_seconds]
    return _padded(spans, pad_seconds, total)


def _padded(spans: list[tuple[float, float]], pad: float, total: float) -> list[tuple[float, float]]:
    grown = []
    for index, (start, end) in enumerate(spans):
        before = spans[index - 1][1] if index else -np.inf
        after = spans[index + 1][0] if index + 1 < len(spans) else np.inf
        first = max(start - min(pad, (start - before) / 2), 0.0)
        last = min(end + min(pad, (after - end) / 2), total)
        grown.append((float(first), float(last)))
    return grown
