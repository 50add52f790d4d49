"""Speech to text: Whisper base, gated by speech activity and guarded against words that nobody said.

The gate is wide and the guards are narrow. A low threshold on speech activity lets noisy speech through, and some music
with it; what Whisper then writes must be likely in its own eyes, must not loop, and must lie where there may be speech.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from encoders.speech_activity import SpeechActivity, speech_spans
from encoders.speech_guards import Line, compression_ratio, lines_of, token_cap, without_loops
from encoders.speech_windows import Window, speech_within, windows_of
from encoders.whisper_runtimes import (
    RATE_HZ,
    TOKENS_AT_MOST,
    WINDOW_SECONDS,
    RuntimeName,
    load_runtime,
    log_mel,
)
from store.records import Float32, Sound, TranscriptAttributes, TranscriptSegment


class SpeechConfig(BaseModel):
    """What changes a transcript; every field does."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    runtime: RuntimeName = Field("ctranslate2", description="What runs Whisper; both give the same tokens at float32.")
    compute_type: Literal["float32", "int8"] = Field(
        "float32", description="Arithmetic of CTranslate2. int8 is faster and changes words in four clips of ten."
    )
    gate: float = Field(0.15, gt=0, lt=1, description="Speech probability from which Whisper gets to hear a sound.")
    gate_silence_seconds: float = Field(0.3, gt=0, description="Shorter pauses do not end a span of speech.")
    gate_pad_seconds: float = Field(0.3, ge=0, description="Sound kept before and after a span of speech.")
    join_seconds: float = Field(3.0, ge=0, description="Spans nearer to each other than this share a window.")
    tail_seconds: float = Field(
        1.0, gt=0, le=30, description="Silence after a window; Whisper hears no more than that."
    )
    max_tokens_per_second: float = Field(12.0, gt=0, description="Cap on the tokens of a window, on top of 16.")
    max_repeats: int = Field(4, ge=1, description="A phrase repeated more often in a row is a loop, kept once.")
    max_compression_ratio: float = Field(2.4, gt=1, description="A window whose text compresses better is dropped.")
    max_no_speech_prob: float = Field(0.6, gt=0, le=1, description="Above it, a window needs a fair log probability.")
    min_logprob: float = Field(-1.0, lt=0, description="A window less likely than that is dropped.")
    beam_size: int = Field(1, ge=1, le=10, description="Hypotheses that the decoder follows; 1 is greedy.")
    doubt_logprob: float = Field(-0.15, le=0, description="A window less likely than that is heard a second time.")
    doubt_beam_size: int = Field(5, ge=1, le=10, description="Hypotheses in the second hearing, of 30 seconds.")
    own_language: float = Field(0.8, gt=0, le=1, description="A window this sure of its language keeps its own.")


@dataclass(frozen=True, eq=False)
class _Heard:
    """A window, what Whisper's encoder made of it, and how likely each language is in it."""

    window: Window
    features: Any
    languages: dict[str, float]
    seconds: float


@dataclass(frozen=True, eq=False)
class _Said:
    """What Whisper wrote for a window, line by line, and whether the guards believe it."""

    lines: list[Line]
    texts: list[str]
    logprobs: list[list[float]]
    logprob: float
    believed: bool


class SpeechEncoder:
    """Transcribes the sound of a video."""

    def __init__(self, config: SpeechConfig, cache: Path, threads: int = 1) -> None:
        """Load both models. `cache` is where unpacked weights live. Raises ModelError."""
        from whisper.tokenizer import get_tokenizer

        self.config = config
        self._activity = SpeechActivity(cache, threads)
        self._runtime = load_runtime(config.runtime, config.compute_type, cache, threads)
        self._tokenizer = get_tokenizer(True, num_languages=99)

    def __call__(self, sound: Sound) -> TranscriptAttributes:
        """The words of `sound` (16 kHz), times in seconds on the video's clock. No sound and no words are no error."""
        if sound.rate_hz != RATE_HZ:
            raise ValueError(f"sound must be at {RATE_HZ} Hz, got {sound.rate_hz}")
        nothing = TranscriptAttributes(seconds_decoded=sound.seconds, degraded=sound.degraded)
        if not sound.present or sound.samples.shape[1] == 0:
            return nothing
        return self._transcribe(sound.mono(), sound, nothing)

    def _transcribe(self, samples: Float32, sound: Sound, nothing: TranscriptAttributes) -> TranscriptAttributes:
        config = self.config
        probabilities = self._activity.probabilities(samples)
        spans = speech_spans(
            probabilities,
            config.gate,
            min_silence_seconds=config.gate_silence_seconds,
            pad_seconds=config.gate_pad_seconds,
            seconds=len(samples) / RATE_HZ,
        )
        windows = windows_of(spans, probabilities, config.join_seconds, WINDOW_SECONDS - 1.0)
        heard = [self._hear(samples, window, config.tail_seconds) for window in windows]
        vote = _vote(heard)
        segments: list[TranscriptSegment] = []
        if not vote:
            return nothing
        language = max(sorted(vote), key=vote.__getitem__)
        for part in heard:
            segments += self._segments(samples, probabilities, part, language)
        if not segments:
            return nothing
        shift = sound.start_seconds
        return nothing.model_copy(
            update={
                "language": language,
                "language_confidence": vote[language],
                "segments": [
                    line.model_copy(update={"start": line.start + shift, "end": line.end + shift}) for line in segments
                ],
                "speech_seconds": _overlap(spans, segments),
            }
        )

    def _hear(self, samples: Float32, window: Window, tail: float) -> _Heard:
        piece = samples[round(window.start * RATE_HZ) : round(window.end * RATE_HZ)]
        seconds = min(window.end - window.start + tail, WINDOW_SECONDS)
        features = self._runtime.encode(log_mel(piece, seconds))
        return _Heard(window, features, self._runtime.detect_language(features), seconds)

    def _segments(
        self, samples: Float32, probabilities: Float32, heard: _Heard, language: str
    ) -> list[TranscriptSegment]:
        window = heard.window
        said = self._said(heard, language, self.config.beam_size)
        if said.logprob < self.config.doubt_logprob or not said.believed:
            # Whisper was trained on 30 seconds, speech or silence; shorter windows are cheap, and err more easily.
            whole = self._hear(samples, window, WINDOW_SECONDS) if heard.seconds < WINDOW_SECONDS else heard
            again = self._said(whole, language, self.config.doubt_beam_size)
            said = max(said, again, key=lambda hearing: (hearing.believed, hearing.logprob))
        if not said.believed:
            return []
        found = [
            TranscriptSegment(
                start=round(window.start + line.start, 3),
                end=round(window.start + line.end, 3),
                text=text,
                confidence=float(np.exp(np.mean(logprobs))),
            )
            for line, text, logprobs in zip(said.lines, said.texts, said.logprobs, strict=True)
            if text
        ]
        # The model may stop at the end of a sentence with speech still to come: go on from there.
        reached = said.lines[-1].end
        rest = window.start + reached
        left = speech_within(probabilities, rest, window.end)
        if left >= 1.0 and reached >= 1.0:
            unheard = self._hear(samples, Window(rest, window.end, left), self.config.tail_seconds)
            found += self._segments(samples, probabilities, unheard, language)
        return found

    def _said(self, heard: _Heard, language: str, beam_size: int) -> _Said:
        config = self.config
        seconds = heard.window.end - heard.window.start
        spoken = max(sorted(heard.languages), key=heard.languages.__getitem__)
        if heard.languages[spoken] < config.own_language:
            spoken = language
        cap = token_cap(seconds, config.max_tokens_per_second, TOKENS_AT_MOST)
        generated = self._runtime.generate(heard.features, spoken, beam_size, cap)
        lines = without_loops(lines_of(generated.tokens, self._tokenizer.timestamp_begin, seconds), config.max_repeats)
        texts = [self._text(line) for line in lines]
        tokens = [token for line in lines for token in line.tokens]
        if not tokens:
            return _Said([], [], [], -np.inf, False)
        flat = self._runtime.logprobs(heard.features, spoken, tokens)
        logprob = float(np.mean(flat))
        believed = (
            logprob >= config.min_logprob
            and not (generated.no_speech_prob > config.max_no_speech_prob and logprob < config.min_logprob / 2)
            and compression_ratio(" ".join(texts)) <= config.max_compression_ratio
        )
        logprobs = [[flat.pop(0) for _ in line.tokens] for line in lines]
        return _Said(lines, texts, logprobs, logprob, believed)

    def _text(self, line: Line) -> str:
        return str(self._tokenizer.decode(list(line.tokens))).strip()


def _vote(heard: list[_Heard]) -> dict[str, float]:
    """Probability of each language, every window counting by its seconds of speech."""
    total = sum(part.window.speech_seconds for part in heard)
    if not total:
        return {}
    vote: dict[str, float] = {}
    for part in heard:
        for code, probability in part.languages.items():
            vote[code] = vote.get(code, 0.0) + probability * part.window.speech_seconds / total
    return vote


def _overlap(spans: list[tuple[float, float]], segments: list[TranscriptSegment]) -> float:
    """Seconds of `spans` in which `segments` have words."""
    total = 0.0
    for start, end in spans:
        covered = [(max(start, line.start), min(end, line.end)) for line in segments]
        total += sum(max(last - first, 0.0) for first, last in covered)
    return total
