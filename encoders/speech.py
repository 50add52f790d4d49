"""Speech to text: Whisper base, gated by speech activity and guarded against words that nobody said.

The gate is wide and the guards are narrow. A low threshold on speech activity lets noisy speech through, and some music
with it; what Whisper then writes must be likely in its own eyes, must not loop, and must lie where there may be speech.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from encoders.speech_activity import SpeechActivity, speech_spans
from encoders.speech_channels import correlations, may_differ, speak_differently
from encoders.speech_guards import compression_ratio, lines_of, token_cap, without_hasty_repeats, without_loops
from encoders.speech_windows import Window, speech_within, windows_of
from encoders.speech_words import settled, without_echoes, words_of
from encoders.whisper_runtimes import (
    RATE_HZ,
    TOKENS_AT_MOST,
    WINDOW_SECONDS,
    Generated,
    RuntimeName,
    WhisperRuntime,
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
        1.0, gt=0, le=30, description="Silence after a window, at least, up to whole seconds; Whisper hears no more."
    )
    max_tokens_per_second: float = Field(12.0, gt=0, description="Cap on the tokens of a window, on top of 16.")
    max_repeats: int = Field(4, ge=1, description="A phrase repeated more often in a row is a loop, kept once.")
    max_compression_ratio: float = Field(2.4, gt=1, description="A window whose text compresses better is dropped.")
    max_no_speech_prob: float = Field(0.4, gt=0, le=1, description="Above it, a window needs a fair log probability.")
    min_logprob: float = Field(-0.85, lt=0, description="A window less likely than that is dropped.")
    same_speech: float = Field(
        0.3, gt=0, lt=1, description="Channels with speech that correlate less than this are heard one by one."
    )
    beam_size: int = Field(1, ge=1, le=10, description="Hypotheses that the decoder follows; 1 is greedy.")
    doubt_logprob: float = Field(-0.15, le=0, description="A window less likely than that is heard a second time.")
    doubt_beam_size: int = Field(5, ge=1, le=10, description="Hypotheses in the second hearing, of 30 seconds.")
    own_language: float = Field(0.8, gt=0, le=1, description="A window this sure of its language keeps its own.")


@dataclass(frozen=True, eq=False)
class _Track:
    """One voice track: what is heard as one, a channel or the mean of all; its speech probabilities, the spans that
    pass the gate, and the windows made of them. Seconds count from the start of the samples."""

    samples: Float32
    probabilities: Float32
    spans: list[tuple[float, float]]
    windows: list[Window]


@dataclass(frozen=True, eq=False)
class _Heard:
    """A window of a track, what Whisper's encoder made of it (float32 [length, dim]), how likely each language is in
    it, and how many seconds it was filled up to."""

    track: _Track
    window: Window
    features: Float32
    languages: dict[str, float]
    seconds: float


@dataclass(frozen=True, eq=False)
class _Said:
    """What Whisper wrote for a window, line by line (seconds from the start of the window), where the last line ends
    by its own clock, how likely it all is, and whether the guards believe it."""

    lines: list[TranscriptSegment]
    reached: float
    logprob: float
    believed: bool


class SpeechEncoder:
    """Transcribes the sound of videos."""

    def __init__(
        self,
        config: SpeechConfig,
        cache: Path,
        threads: int = 1,
        *,
        encoder_batch: int = 1,
        decoder_batch: int = 8,
        runtime: WhisperRuntime | None = None,
    ) -> None:
        """Load both models. `cache` is where unpacked weights live. Raises ModelError.

        `runtime` is another Whisper than the one that `config` names.

        `encoder_batch` and `decoder_batch` are the most windows that Whisper's halves take at once. They change no
        words. On a CPU the encoder is a sixth slower in batches and the decoder twice as fast, hence the defaults.
        """
        from whisper.tokenizer import get_tokenizer

        self.config = config
        self._activity = SpeechActivity(cache, threads)
        self._runtime = runtime or load_runtime(config.runtime, config.compute_type, cache, threads)
        self._tokenizer = get_tokenizer(True, num_languages=self._runtime.languages)
        self._encoder_batch = encoder_batch
        self._decoder_batch = decoder_batch

    def __call__(self, sound: Sound) -> TranscriptAttributes:
        """The words of `sound` (16 kHz), times in seconds on the video's clock. No sound and no words are no error."""
        return self.transcribe_many([sound])[0]

    def transcribe_many(self, sounds: Sequence[Sound]) -> list[TranscriptAttributes]:
        """The words of each of `sounds`, as if it were the only one; windows of equal length are decoded together."""
        for sound in sounds:
            if sound.rate_hz != RATE_HZ:
                raise ValueError(f"sound must be at {RATE_HZ} Hz, got {sound.rate_hz}")
        tracks = [self._tracks(sound) for sound in sounds]
        heard = self._in_one_language(
            self._hear([(track, window) for each in tracks for track in each for window in track.windows])
        )
        votes: list[dict[str, float]] = []
        turns: list[tuple[_Heard, str]] = []
        for each in tracks:
            parts = [part for part in heard if part.track in each]
            votes.append(_vote(parts))
            turns += [(part, _likeliest(votes[-1])) for part in parts]
        lines = self._lines(turns)
        return [
            self._attributes(sound, each, vote, lines) for sound, each, vote in zip(sounds, tracks, votes, strict=True)
        ]

    def _tracks(self, sound: Sound) -> list[_Track]:
        """The mean of the channels, or both when each has a talker of its own."""
        if not sound.present or sound.samples.shape[1] == 0:
            return []
        config = self.config
        if len(sound.samples) == 2 and not np.array_equal(*sound.samples):
            found = correlations(sound.samples[0], sound.samples[1], RATE_HZ)
            if may_differ(found, config.same_speech):
                pair = [self._track(np.ascontiguousarray(channel)) for channel in sound.samples]
                if speak_differently(found, pair[0].probabilities, pair[1].probabilities, config.same_speech):
                    return pair
        return [self._track(sound.mono())]

    def _track(self, samples: Float32) -> _Track:
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
        return _Track(samples, probabilities, spans, windows)

    def _attributes(
        self, sound: Sound, tracks: list[_Track], vote: dict[str, float], found: dict[_Track, list[_Placed]]
    ) -> TranscriptAttributes:
        nothing = TranscriptAttributes(seconds_decoded=sound.seconds, degraded=sound.degraded)
        lines = [self._settled(track, found.get(track, [])) for track in tracks]
        merged = [line for each in lines for line in each]
        if len(tracks) > 1:
            merged = without_echoes(merged)
        if not merged:
            return nothing
        language = _likeliest(vote)
        return nothing.model_copy(
            update={
                "language": language,
                "language_confidence": vote[language],
                "segments": [_later(line, sound.start_seconds) for line in merged],
                "speech_seconds": _spoken(tracks, lines),
            }
        )

    def _settled(self, track: _Track, found: list[_Placed]) -> list[TranscriptSegment]:
        """The lines of a track in order of time, with words that keep out of the pauses."""
        spans = speech_spans(
            track.probabilities,
            self.config.gate,
            min_speech_seconds=0.0,
            min_silence_seconds=self.config.gate_silence_seconds,
            pad_seconds=0.0,
            seconds=len(track.samples) / RATE_HZ,
        )
        lines: list[TranscriptSegment] = []
        for window, line in sorted(found, key=lambda placed: placed[0].start):
            floor = max(window.start, lines[-1].end if lines else 0.0)
            lines.append(settled(_later(line, window.start), spans, floor, window.end))
        return lines

    def _hear(self, windows: Sequence[tuple[_Track, Window]], whole: bool = False) -> list[_Heard]:
        """Each of `windows` with the silence after it that Whisper is to hear: up to its 30 seconds when `whole`."""
        seconds, mels = [], []
        for track, window in windows:
            seconds.append(WINDOW_SECONDS if whole else self._filled_seconds(window))
            piece = track.samples[round(window.start * RATE_HZ) : round(window.end * RATE_HZ)]
            mels.append(log_mel(piece, seconds[-1], self._runtime.mel_bands))
        heard: list[_Heard | None] = [None] * len(windows)
        for places in _groups([mel.shape[1] for mel in mels], self._encoder_batch):
            features = self._runtime.encode(np.stack([mels[place] for place in places]))
            languages = self._runtime.detect_language(features)
            for place, part, codes in zip(places, features, languages, strict=True):
                heard[place] = _Heard(*windows[place], part, codes, seconds[place])
        return [part for part in heard if part is not None]

    def _in_one_language(self, heard: list[_Heard]) -> list[_Heard]:
        """`heard`, with each window in which the talk goes over from one language to another cut where it does.

        Whisper writes a window in one language, and what is said in another is translated at best. A window of which
        the language is unsure is heard span by span. Spans that are sure of theirs make the cuts; others follow.
        """
        sure = self.config.own_language
        unsure = [part for part in heard if part.languages[_likeliest(part.languages)] < sure]
        pieces = {part: _spans_within(part) for part in unsure}
        spans = iter(self._hear([(part.track, span) for part in unsure for span in pieces[part]]))
        cut: dict[_Heard, list[Window]] = {}
        for part in unsure:
            runs: list[tuple[str | None, list[Window]]] = []  # the language of neighbouring spans, and these
            for span in [next(spans) for _ in pieces[part]]:
                own = _likeliest(span.languages)
                known = own if span.languages[own] >= sure else None
                if runs and (known is None or runs[-1][0] in (None, known)):
                    runs[-1] = (runs[-1][0] or known, [*runs[-1][1], span.window])
                else:
                    runs.append((known, [span.window]))
            if len(runs) > 1:
                probabilities = part.track.probabilities
                bounds = [(windows[0].start, windows[-1].end) for _, windows in runs]
                cut[part] = [Window(start, end, speech_within(probabilities, start, end)) for start, end in bounds]
        again = iter(self._hear([(part.track, window) for part in heard for window in cut.get(part, [])]))
        return [new for part in heard for new in ([next(again) for _ in cut[part]] if part in cut else [part])]

    def _filled_seconds(self, window: Window) -> float:
        """Length of a window with silence: whole seconds, so that many windows are equally long and make a batch."""
        filled = math.ceil(round(window.end - window.start + self.config.tail_seconds, 3))
        return min(float(filled), WINDOW_SECONDS)

    def _lines(self, turns: list[tuple[_Heard, str]]) -> dict[_Track, list[_Placed]]:
        """What is said in each of `turns`, a window and the language of its video; all windows go on side by side."""
        config = self.config
        found: dict[_Track, list[_Placed]] = {}
        while turns:
            said = self._said(turns, config.beam_size)
            # Whisper was trained on 30 seconds, speech or silence; shorter windows are cheap, and err more easily.
            doubted = [
                place for place, each in enumerate(said) if each.logprob < config.doubt_logprob or not each.believed
            ]
            short = [place for place in doubted if turns[place][0].seconds < WINDOW_SECONDS]
            parts = [turns[place][0] for place in short]
            whole = dict(zip(short, self._hear([(part.track, part.window) for part in parts], whole=True), strict=True))
            again = [(whole.get(place, turns[place][0]), turns[place][1]) for place in doubted]
            for place, hearing in zip(doubted, self._said(again, config.doubt_beam_size), strict=True):
                said[place] = max(said[place], hearing, key=lambda each: (each.believed, each.logprob))
            unheard: list[tuple[_Track, Window]] = []
            languages: list[str] = []
            for (part, language), each in zip(turns, said, strict=True):
                if not each.believed:
                    continue
                found.setdefault(part.track, []).extend((part.window, line) for line in each.lines)
                # The model may stop at the end of a sentence with speech still to come: go on from there.
                rest = part.window.start + each.reached
                left = speech_within(part.track.probabilities, rest, part.window.end)
                if left >= 1.0 and each.reached >= 1.0:
                    unheard.append((part.track, Window(rest, part.window.end, left)))
                    languages.append(language)
            turns = list(zip(self._hear(unheard), languages, strict=True))
        return found

    def _said(self, turns: list[tuple[_Heard, str]], beam_size: int) -> list[_Said]:
        """What the decoder writes for each of `turns`, side by side where windows are equally long."""
        config = self.config
        spoken, caps = [], []
        for heard, language in turns:
            own = _likeliest(heard.languages)
            spoken.append(own if heard.languages[own] >= config.own_language else language)
            # By the filled length, as in the batches: windows that are heard together may say equally much.
            seconds = self._filled_seconds(heard.window) - config.tail_seconds
            caps.append(token_cap(seconds, config.max_tokens_per_second, TOKENS_AT_MOST))
        said: list[_Said] = [_UNSAID] * len(turns)
        for places in _groups(
            [(len(heard.features), cap) for (heard, _), cap in zip(turns, caps, strict=True)], self._decoder_batch
        ):
            batch = np.stack([turns[place][0].features for place in places])
            generated = self._runtime.generate(batch, [spoken[place] for place in places], beam_size, caps[places[0]])
            for place, each in zip(places, generated, strict=True):
                said[place] = self._judged(turns[place][0], spoken[place], each)
        return said

    def _judged(self, heard: _Heard, language: str, generated: Generated) -> _Said:
        """The lines and words of what was generated, and whether to believe it."""
        from whisper.tokenizer import get_tokenizer

        config = self.config
        seconds = heard.window.end - heard.window.start
        lines = lines_of(generated.tokens, self._tokenizer.timestamp_begin, seconds)
        lines = without_hasty_repeats(lines, config.max_tokens_per_second)
        lines = without_loops(lines, config.max_repeats)
        tokens = [token for line in lines for token in line.tokens]
        if not tokens:
            return _UNSAID
        found = self._runtime.align(heard.features, language, tokens, seconds)
        tokenizer = get_tokenizer(True, num_languages=99, language=language, task="transcribe")
        texts = [str(tokenizer.decode(list(line.tokens))).strip() for line in lines]
        logprob = float(np.mean(found.logprobs))
        believed = (
            logprob >= config.min_logprob
            and not (generated.no_speech_prob > config.max_no_speech_prob and logprob < config.min_logprob / 2)
            and compression_ratio(" ".join(texts)) <= config.max_compression_ratio
        )
        segments, place = [], 0
        for line, text in zip(lines, texts, strict=True):
            first, place = place, place + len(line.tokens)
            logprobs = found.logprobs[first:place]
            words = words_of(tokenizer, line.tokens, found.starts[first : place + 1], logprobs)
            if words:  # signs alone are not words
                segments.append(
                    TranscriptSegment(
                        start=line.start,
                        end=line.end,
                        text=text,
                        confidence=round(float(np.exp(np.mean(logprobs))), 4),
                        language=language,
                        words=words,
                    )
                )
        return _Said(segments, lines[-1].end, logprob, believed)


_Placed = tuple[Window, TranscriptSegment]  # a line, in seconds from the start of its window
_UNSAID = _Said([], 0.0, -np.inf, False)


def _spans_within(heard: _Heard) -> list[Window]:
    """The spans of speech of a window, or rather what of them lies in it; none when it is a single one."""
    window, probabilities = heard.window, heard.track.probabilities
    bounds = [(max(start, window.start), min(end, window.end)) for start, end in heard.track.spans]
    found = [Window(start, end, speech_within(probabilities, start, end)) for start, end in bounds if end > start]
    return found if len(found) > 1 else []


def _groups(keys: Sequence[Any], most: int) -> list[list[int]]:
    """The places of `keys`, those of equal ones together, at most so many in a group; in order of first appearance."""
    together: dict[Any, list[int]] = {}
    for place, key in enumerate(keys):
        together.setdefault(key, []).append(place)
    return [places[first : first + most] for places in together.values() for first in range(0, len(places), most)]


def _likeliest(languages: dict[str, float]) -> str:
    return max(sorted(languages), key=languages.__getitem__)


def _later(line: TranscriptSegment, seconds: float) -> TranscriptSegment:
    """The line and its words, `seconds` later."""

    def moved(at: float) -> float:
        return round(at + seconds, 3)

    words = [word.model_copy(update={"start": moved(word.start), "end": moved(word.end)}) for word in line.words]
    return line.model_copy(update={"start": moved(line.start), "end": moved(line.end), "words": words})


def _vote(heard: list[_Heard]) -> dict[str, float]:
    """Probability of each language, every window counting by its seconds of speech."""
    total = sum(part.window.speech_seconds for part in heard)
    vote: dict[str, float] = {}
    for part in heard:
        for code, probability in part.languages.items():
            vote[code] = vote.get(code, 0.0) + probability * part.window.speech_seconds / total
    return vote


def _spoken(tracks: list[_Track], lines: list[list[TranscriptSegment]]) -> float:
    """Seconds in which any of `tracks` may have speech and has `lines`."""
    covered = sorted(
        (max(start, line.start), min(end, line.end))
        for track, of_track in zip(tracks, lines, strict=True)
        for start, end in track.spans
        for line in of_track
    )
    total = reached = 0.0
    for start, end in covered:
        total += max(end - max(start, reached), 0.0)
        reached = max(reached, end)
    return total
