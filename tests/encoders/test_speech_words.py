"""Words at their times by both runtimes, two talkers, two languages, and many sounds at once."""

from __future__ import annotations

import math
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.speech_quality import IN_SILENCE, TWO_TALKERS, in_silence, mixed, onset_errors, read_clip, two_talkers
from encoders.speech import SpeechConfig, SpeechEncoder
from encoders.speech_channels import correlations
from encoders.speech_words import settled, without_echoes, words_of
from encoders.whisper_runtimes import RATE_HZ
from encoders.whisper_warping import token_starts
from store.records import Sound, TranscriptSegment, Word
from tests.encoders.spoken_checks import holds_together, sound, words_hold_together


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def encoder(cache: Path) -> SpeechEncoder:
    return SpeechEncoder(SpeechConfig(), cache)


# --- warping ---------------------------------------------------------------------------------------------------------


@given(rows=st.integers(1, 6), columns=st.integers(1, 9), seed=st.integers(0, 999))
@settings(deadline=None, derandomize=True)
def test_the_path_collects_most(rows: int, columns: int, seed: int) -> None:
    likeness = np.random.default_rng(seed).normal(size=(rows, columns)).astype(np.float32)

    def most(row: int, column: int, starts: tuple[int, ...]) -> tuple[float, tuple[int, ...]]:
        """The best way from a cell to the last corner, by trying them all."""
        here = float(likeness[row, column])
        ways = [
            (row + down, column + along, (*starts, column + along) if down else starts)
            for down, along in ((1, 1), (1, 0), (0, 1))
            if row + down < rows and column + along < columns
        ]
        if not ways:
            return here, starts
        gain, best = max(most(*way) for way in ways)
        return here + gain, best

    assert tuple(token_starts(likeness)) == most(0, 0, (0,))[1]


# --- times of words --------------------------------------------------------------------------------------------------


def tokenizer(language: str) -> Any:
    from whisper.tokenizer import get_tokenizer

    return get_tokenizer(True, num_languages=99, language=language, task="transcribe")


@pytest.mark.parametrize(
    ("language", "text", "words"),
    [
        ("en", " Ask not, my ill-disposed friends.", ["Ask", "not,", "my", "ill-disposed", "friends."]),
        ("en", ' He said "no" - twice!', ["He", "said", '"no"', "- twice!"]),
        ("en", " I don't know 1,000 of Mr. O'Neil's.", ["I", "don't", "know", "1,000", "of", "Mr.", "O'Neil's."]),
        ("es", " ¿Qué tal? ¡Bien!", ["¿Qué", "tal?", "¡Bien!"]),
        ("fr", " Il n'a pas l'été.", ["Il", "n'a", "pas", "l'été."]),
        ("ja", "客観的。", ["客", "観", "的。"]),
        ("en", " ...", []),
        ("en", " Yes", ["Yes"]),
    ],
)
def test_words_are_what_stands_between_spaces(language: str, text: str, words: list[str]) -> None:
    tokens = tokenizer(language).encode(text)
    starts = [0.5 * place for place in range(len(tokens) + 1)]
    found = words_of(tokenizer(language), tokens, starts, [-0.1] * len(tokens))
    assert [word.text for word in found] == words
    assert all(word.start < word.end for word in found)
    assert all(before.end <= after.start for before, after in pairwise(found))
    assert all(word.confidence == pytest.approx(math.exp(-0.1), abs=1e-4) for word in found)


def test_a_words_time_is_without_its_punctuation() -> None:
    tokens = tokenizer("en").encode(" not, ask")
    first, second = words_of(tokenizer("en"), tokens, [0.0, 0.4, 2.0, 2.5], [0.0] * 3)
    assert (first.start, first.end, second.start, second.end) == (0.0, 0.4, 2.0, 2.5)


def line_of(*times: tuple[float, float]) -> TranscriptSegment:
    words = [Word(start=start, end=end, text=f"w{place}") for place, (start, end) in enumerate(times)]
    return TranscriptSegment(start=0.0, end=9.0, text=" ".join(word.text for word in words), words=words)


def test_words_keep_out_of_the_pauses() -> None:
    spans = [(1.0, 2.0), (4.0, 5.0)]
    found = settled(line_of((0.0, 1.5), (1.5, 3.5), (3.5, 4.4), (4.4, 7.0), (7.0, 7.2)), spans, 0.0, 8.0)
    times = [(word.start, word.end) for word in found.words]
    assert times == [(1.0, 1.5), (1.5, 2.0), (4.0, 4.4), (4.4, 5.0), (5.0, 5.0)]
    assert (found.start, found.end) == (1.0, 5.0)


@given(
    cuts=st.lists(st.floats(-1, 12), min_size=2, max_size=9).map(sorted),
    edges=st.lists(st.floats(0, 10), max_size=6).map(sorted),
    bounds=st.tuples(st.floats(0, 10), st.floats(0.1, 5)),
)
@settings(deadline=None, derandomize=True)
def test_settled_words_stay_in_order_and_inside(
    cuts: list[float], edges: list[float], bounds: tuple[float, float]
) -> None:
    floor, end = bounds[0], bounds[0] + bounds[1]
    spans = list(zip(edges[::2], edges[1::2], strict=False))
    found = settled(line_of(*pairwise(cuts)), spans, floor, end)
    times = [at for word in found.words for at in (word.start, word.end)]
    assert times == sorted(times)
    assert floor - 0.001 <= times[0]
    assert times[-1] <= end + 0.001
    assert found.start < found.end
    assert found.start <= times[0] + 0.001
    assert times[-1] <= found.end + 0.001


@pytest.mark.models
def test_first_words_start_where_the_sound_does(encoder: SpeechEncoder, shared_media: Path) -> None:
    names = [name for name in IN_SILENCE if "ljspeech" in name or "libri" in name]
    samples, bounds = in_silence([read_clip(shared_media / name).mono() for name in names], 1.5)
    found = encoder(sound(samples))
    holds_together(found, 0.0, len(samples) / RATE_HZ)
    errors = onset_errors(found, bounds)
    assert all(error is not None and abs(error) <= 0.3 for error in errors), errors
    # And nothing is placed in the silence between them, but for the decay of the last sound.
    for word in (word for line in found.segments for word in line.words):
        assert any(start - 0.15 <= word.start and word.end <= end + 0.3 for start, end in bounds), word


@pytest.mark.models
def test_both_runtimes_place_the_same_words_at_the_same_times(
    encoder: SpeechEncoder, cache: Path, shared_media: Path
) -> None:
    other = SpeechEncoder(SpeechConfig(runtime="openai-whisper"), cache)
    heard = read_clip(shared_media / "audio" / "jfk.flac")
    ours, theirs = ([word for line in each(heard).segments for word in line.words] for each in (encoder, other))
    assert [word.text for word in ours] == [word.text for word in theirs]
    assert len(ours) == 22
    for name in ("start", "end", "confidence"):
        assert [getattr(word, name) for word in theirs] == pytest.approx(
            [getattr(word, name) for word in ours], abs=0.0201
        )


# --- two talkers -----------------------------------------------------------------------------------------------------


def test_the_correlation_of_channels_sees_through_delay_and_sign() -> None:
    rng = np.random.default_rng(7)
    voice, other = rng.normal(0, 0.1, (2, 2 * RATE_HZ)).astype(np.float32)
    assert correlations(voice, voice, RATE_HZ) == pytest.approx(np.ones(4))
    assert correlations(voice, -0.1 * np.roll(voice, 100), RATE_HZ).min() > 0.95
    assert correlations(voice, other, RATE_HZ).max() < 0.1
    assert correlations(voice, np.zeros_like(voice), RATE_HZ) == pytest.approx(np.ones(4))
    assert len(correlations(voice[:100], other[:100], RATE_HZ)) == 0


@pytest.mark.models
def test_two_talkers_in_two_channels_are_both_heard(encoder: SpeechEncoder, shared_media: Path) -> None:
    heard = read_clip(shared_media / TWO_TALKERS)
    found = encoder(heard)
    assert two_talkers(found, shared_media) == {"left": 0.0, "right": 0.0}
    assert len(found.segments) == 2
    words_hold_together(found)
    assert [line.start for line in found.segments] == sorted(line.start for line in found.segments)
    assert 0 < found.speech_seconds <= heard.seconds  # seconds in which both talk count once
    mixed_down = encoder(sound(heard.mono()))
    assert max(two_talkers(mixed_down, shared_media).values()) > 0.5  # what the mean of the channels makes of it


@pytest.mark.models
def test_one_talker_in_two_unlike_channels_is_heard_once(encoder: SpeechEncoder, shared_media: Path) -> None:
    """Another noise in each channel, a delay, one channel upside down, or one without a voice: one voice, one pass."""
    voice = read_clip(shared_media / "audio" / "libri_1272-128104-0000.wav").mono()
    noises = np.random.default_rng(7).normal(0, 1, (2, len(voice))).astype(np.float32)
    jazz = read_clip(shared_media / "audio" / "music_jazz_vibe_ace.ogg").mono()[: len(voice)]
    for left, right in (
        (mixed(voice, noises[0], 10), mixed(voice, noises[1], 10)),
        (voice, -np.roll(voice, 60)),
        (voice, 0.2 * jazz),
    ):
        assert len(encoder._tracks(sound(np.stack([left, right]).astype(np.float32)))) == 1


def test_an_echo_of_the_other_channel_is_dropped() -> None:
    def said(start: float, text: str, confidence: float) -> TranscriptSegment:
        return TranscriptSegment(start=start, end=start + 2, text=text, confidence=confidence)

    ours, echo = said(1.0, "Mr. Quilter is the apostle", 0.9), said(1.1, "Mr. Quilter is an apostle", 0.8)
    later, other = said(8.0, "Mr. Quilter is the apostle", 0.7), said(1.2, "We are glad to welcome", 0.5)
    assert without_echoes([echo, later, ours, other]) == [ours, other, later]


# --- languages, and many at once ------------------------------------------------------------------------------------


@pytest.mark.models
def test_each_line_is_heard_in_its_own_language(encoder: SpeechEncoder, shared_media: Path) -> None:
    """Eighteen seconds around the place where the reader goes over from English to German."""
    samples = read_clip(shared_media / "audio" / "en_de_mit_licence.mp3").samples[:, 18 * RATE_HZ : 36 * RATE_HZ]
    found = encoder(sound(samples))
    holds_together(found, 0.0, samples.shape[1] / RATE_HZ)
    spoken_in = {code: " ".join(line.text for line in found.segments if line.language == code) for code in ("en", "de")}
    assert "substantial portions of the software" in spoken_in["en"]
    assert "der diese Software und die dazugehörigen" in spoken_in["de"]


@pytest.mark.models
def test_many_sounds_at_once_are_heard_as_each_alone(encoder: SpeechEncoder, shared_media: Path) -> None:
    names = ("ljspeech_0004.wav", "libri_1272-128104-0000.wav")
    first, second = (read_clip(shared_media / "audio" / name) for name in names)
    silence = sound(np.zeros((1, RATE_HZ), np.float32))
    none = Sound(np.zeros((1, 0), np.float32), RATE_HZ, present=False)
    sounds = [first, silence, second, sound(0.5 * first.samples), none, sound(second.samples, 2.0)]
    alone = [encoder(each) for each in sounds]
    assert encoder.transcribe_many(sounds) == alone
    assert [bool(each.segments) for each in alone] == [True, False, True, True, False, True]
    assert encoder.transcribe_many([]) == []
