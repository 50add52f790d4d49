"""Who speaks when: voices of 1.6 s pieces of speech, gathered into speakers.

Speech is what `sound_kinds` calls speech, so music, singing and rooms have no speakers. Its pieces are gathered by how
alike their voices are (average linkage on the cosine, which hangs on no order and no seed); then each tenth of a second
goes to the speaker whose voice the pieces over it resemble, and changing speakers costs, less in a pause. Nobody is
told how many speakers there are, and nobody is recognised: a vector is comparable between videos, and has no name.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field

from encoders.samples import mended, streams
from encoders.sound_kinds import levels_and_tones, sound_segments
from encoders.speech_activity import RATE_HZ, SpeechActivity, speech_spans
from encoders.speech_activity import WINDOW_SECONDS as SPEECH_WINDOW_SECONDS
from encoders.voice_embedding import (
    HOP_SAMPLES,
    PIECE_FRAMES,
    PIECE_SECONDS,
    VOICE_DIM,
    VoiceEmbedding,
    mel_power,
    raising,
    unit,
)
from store.records import Float32, Sound, SpeakersAttributes, SpokenSegment

Float64 = npt.NDArray[np.float64]
Labels = npt.NDArray[np.int64]

STEP_SECONDS = 0.1
PAD_SECONDS = 0.1
PAUSE_SECONDS = 0.3
LEAST_SECONDS = 0.3


class SpeakersConfig(BaseModel):
    """What changes who is heard."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    rate_hz: Literal[16000] = Field(16000, description="Rate at which the sound is decoded, Hz; the model wants it.")
    gate: float = Field(0.3, gt=0, lt=1, description="Speech probability from which somebody speaks, within speech.")
    hop_seconds: float = Field(0.4, ge=0.1, le=1.6, description="From one piece of 1.6 s to the next.")
    max_pieces: int = Field(2000, ge=8, le=5000, description="Most pieces; longer speech gets a longer hop.")
    piece_likeness: float = Field(0.66, gt=0, lt=1, description="Mean cosine of pieces from which groups are joined.")
    voice_likeness: float = Field(0.7, gt=0, lt=1, description="Cosine of the groups' voices from which they are one.")
    least_seconds: float = Field(1.0, ge=0, description="A voice heard for less is the likeliest of the others.")
    change_cost: float = Field(
        1.0, ge=0, description="What changing speakers costs, in cosine times tenths of seconds."
    )
    pause_cost: float = Field(0.3, ge=0, description="The same across a pause.")


@dataclass(frozen=True, eq=False)
class _Stretch:
    """Speech from `start` to `end` seconds in one stream: bounds of its pieces [n, 2] and their voices [n, 256]."""

    stream: int
    start: float
    end: float
    bounds: Float64
    voices: Float32
    spans: list[tuple[float, float]]


class SpeakersEncoder:
    """Hears who speaks when in the sound of a video."""

    def __init__(self, config: SpeakersConfig, cache: Path, threads: int = 1) -> None:
        """Load the models. `cache` is where unpacked weights live. Raises ModelError."""
        from threadpoolctl import ThreadpoolController  # type: ignore[import-untyped]

        self.config = config
        self._activity = SpeechActivity(cache, threads)
        self._embedding = VoiceEmbedding(cache, threads)
        self._blas = ThreadpoolController()

    def __call__(self, sound: Sound) -> tuple[SpeakersAttributes, Float32]:
        """Who speaks when in `sound` (16 kHz), on the video's clock, and the voices float32 [count, 256], unit.

        Two channels that do not correlate are two microphones: each is heard for itself, and turns may then overlap.
        Samples that are no numbers count as silence. No sound, no speech: no speakers.
        """
        if sound.rate_hz != self.config.rate_hz:
            raise ValueError(f"sound must be at {self.config.rate_hz} Hz, got {sound.rate_hz}")
        if not sound.present or sound.samples.shape[1] == 0:
            return SpeakersAttributes(), np.zeros((0, VOICE_DIM), np.float32)
        samples, _ = mended(sound.samples)
        with self._blas.limit(limits=1, user_api="blas"):
            stretches = [part for index, stream in enumerate(streams(samples)) for part in self._hear(index, stream)]
            segments, voices = gathered(stretches, self.config)
        shift = sound.start_seconds
        placed = [
            SpokenSegment(start=round(one.start + shift, 3), end=round(one.end + shift, 3), speaker=one.speaker)
            for one in segments
        ]
        return SpeakersAttributes(count=len(voices), segments=placed), voices

    def _hear(self, index: int, samples: Float32) -> list[_Stretch]:
        """The stretches of speech in one stream, with their voices."""
        seconds = len(samples) / RATE_HZ
        speech = self._activity.probabilities(samples)
        if not (speech >= self.config.gate).any():
            return []
        level_db, sustained, rate_hz = levels_and_tones(samples, RATE_HZ)
        kinds = sound_segments(
            level_db,
            sustained,
            speech,
            rate_hz=rate_hz,
            speech_window_seconds=SPEECH_WINDOW_SECONDS,
            seconds=seconds,
        )
        spoken = [(kind.start, kind.end) for kind in kinds if kind.kind == "speech"]
        spans = speech_spans(
            speech,
            self.config.gate,
            min_silence_seconds=PAUSE_SECONDS,
            pad_seconds=PAD_SECONDS,
            min_speech_seconds=0.1,
            seconds=seconds,
        )
        hop = max(self.config.hop_seconds, sum(end - start for start, end in spoken) / self.config.max_pieces)
        found = []
        for start, end in spoken:
            within = [(max(a, start), min(b, end)) for a, b in spans if min(b, end) - max(a, start) > 0]
            if within:
                start, end = within[0][0], within[-1][1]  # what stands before and after the words is no voice
                bounds = piece_bounds(start, end, seconds, hop)
                voices = self._voices(samples, bounds)
                found.append(_Stretch(index, start, end, bounds, voices, within))
        return found

    def _voices(self, samples: Float32, bounds: Float64) -> Float32:
        first = int(bounds[0, 0] * RATE_HZ) // HOP_SAMPLES
        cut = samples[first * HOP_SAMPLES : int(np.ceil(bounds[-1, 1] * RATE_HZ))]
        mel = mel_power(cut)
        pieces = []
        for start, end in bounds:
            frame = round(start * RATE_HZ / HOP_SAMPLES) - first
            count = min(round((end - start) * RATE_HZ / HOP_SAMPLES), PIECE_FRAMES)
            gain = raising(cut[frame * HOP_SAMPLES : (frame + count) * HOP_SAMPLES])
            pieces.append(mel[frame : frame + count] * np.float32(gain**2))
        shortest = min(len(piece) for piece in pieces)
        return self._embedding(np.stack([piece[:shortest] for piece in pieces]))


def piece_bounds(start: float, end: float, seconds: float, hop: float) -> Float64:
    """[n, 2] in seconds: pieces of 1.6 s that reach from `start` to `end`, about `hop` apart; one where there is less.

    A piece shorter than 0.8 s is widened to that as far as the sound of `seconds` goes: less than that is no voice.
    """
    if end - start <= PIECE_SECONDS:
        lacking = max(PIECE_SECONDS / 2 - (end - start), 0.0) / 2
        return np.array([[max(start - lacking, 0.0), min(end + lacking, seconds)]])
    count = 1 + int(np.ceil((end - start - PIECE_SECONDS) / hop))
    starts = np.linspace(start, end - PIECE_SECONDS, count)
    return np.stack([starts, starts + PIECE_SECONDS], axis=1)


# --- from voices to speakers -----------------------------------------------------------------------------------------


def gathered(stretches: list[_Stretch], config: SpeakersConfig) -> tuple[list[SpokenSegment], Float32]:
    """Turns in the order of time, speakers numbered by their first turn, and the speakers' voices [count, 256]."""
    if not stretches:
        return [], np.zeros((0, VOICE_DIM), np.float32)
    voices = np.concatenate([stretch.voices for stretch in stretches])
    lengths = np.concatenate([_own_seconds(stretch) for stretch in stretches])
    labels = alike(voices, lengths, config)
    centres = _centres(voices, labels)
    turns: list[tuple[float, float, int]] = []
    for stretch, steps in zip(stretches, _labelled(stretches, centres, config), strict=True):
        turns += _turns(stretch, steps)
    turns = _joined(turns)
    order = list(dict.fromkeys(label for _, _, label in turns))
    segments = [
        SpokenSegment(start=round(start, 3), end=round(end, 3), speaker=order.index(label))
        for start, end, label in turns
    ]
    return segments, centres[order]


def alike(voices: Float32, lengths: Float64, config: SpeakersConfig) -> Labels:
    """A number for each of `voices` [n, 256]: average linkage, then groups whose voices are as alike become one.

    Pieces of one voice differ more than the means of many, and in noise or in a hall more than in a studio: average
    linkage alone either parts a noisy voice or joins two clean ones. Groups with under `least_seconds` of `lengths` [n]
    go, piece by piece, to the larger group they are most like.
    """
    from scipy.cluster.hierarchy import fcluster, linkage  # type: ignore[import-untyped]
    from scipy.spatial.distance import squareform  # type: ignore[import-untyped]

    if len(voices) == 1:
        return np.zeros(1, np.int64)
    wide = voices.astype(np.float64)
    apart = squareform(1.0 - np.clip(wide @ wide.T, -1.0, 1.0), checks=False)
    tree = linkage(np.maximum(apart, 0.0), "average")
    labels = np.asarray(fcluster(tree, 1.0 - config.piece_likeness, "distance"), np.int64) - 1
    labels = _merged(wide, labels, config.voice_likeness)
    seconds = np.bincount(labels, lengths)
    large = np.flatnonzero(seconds >= config.least_seconds)
    if len(large) == 0:
        large = np.array([int(np.argmax(seconds))])
    likest = (wide @ _centres(voices, labels)[large].T.astype(np.float64)).argmax(axis=1)
    return np.where(np.isin(labels, large), np.searchsorted(large, labels), likest).astype(np.int64)


def _merged(voices: Float64, labels: Labels, likeness: float) -> Labels:
    """`labels` with the two groups whose mean voices are most alike made one, for as long as they reach `likeness`."""
    sums = [voices[labels == label].sum(axis=0) for label in range(labels.max() + 1)]
    groups = [[label] for label in range(len(sums))]
    while len(sums) > 1:
        cosines = np.asarray(unit(np.stack(sums)), np.float64)
        cosines = np.triu(cosines @ cosines.T, 1)
        first, second = np.unravel_index(int(np.argmax(cosines)), cosines.shape)
        if cosines[first, second] < likeness:
            break
        sums[first] = sums[first] + sums.pop(second)
        groups[first] += groups.pop(second)
    renamed = {label: index for index, group in enumerate(groups) for label in group}
    return np.array([renamed[label] for label in labels.tolist()], np.int64)


def _own_seconds(stretch: _Stretch) -> Float64:
    """The seconds of the stretch that each piece stands for, which are nearest to its middle."""
    middles = stretch.bounds.mean(axis=1)
    edges = np.concatenate([[stretch.start], (middles[1:] + middles[:-1]) / 2, [stretch.end]])
    return np.asarray(np.diff(edges))


def _centres(voices: Float32, labels: Labels) -> Float32:
    return unit(np.stack([voices[labels == label].mean(axis=0, dtype=np.float64) for label in range(labels.max() + 1)]))


def _labelled(stretches: list[_Stretch], centres: Float32, config: SpeakersConfig) -> list[Labels]:
    """The speaker of each tenth of a second of each stretch."""
    found = []
    for stretch in stretches:
        count = max(round((stretch.end - stretch.start) / STEP_SECONDS), 1)
        moments = stretch.start + (np.arange(count) + 0.5) * (stretch.end - stretch.start) / count
        middles = stretch.bounds.mean(axis=1)
        # A piece says most of its middle and nothing of its ends; at the ends of the stretch the nearest one speaks.
        weights = np.maximum(1.0 - np.abs(moments[:, None] - middles) / (PIECE_SECONDS / 2), 1e-6)
        weights /= weights.sum(axis=1, keepdims=True)
        likenesses = weights @ (stretch.voices.astype(np.float64) @ centres.T.astype(np.float64))
        paused = np.array([all(not (a <= moment < b) for a, b in stretch.spans) for moment in moments])
        likenesses[paused] = 0.0
        found.append(_path(likenesses, np.where(paused, config.pause_cost, config.change_cost)))
    return found


def _path(scores: Float64, costs: Float64) -> Labels:
    """The speaker of each step: the highest sum of `scores` [n_steps, n] less `costs` [n_steps] for each change."""
    best = scores[0]
    came = np.zeros(scores.shape, np.intp)
    for index in range(1, len(scores)):
        other = int(np.argmax(best))
        stays = best >= best[other] - costs[index]
        came[index] = np.where(stays, np.arange(scores.shape[1]), other)
        best = np.where(stays, best, best[other] - costs[index]) + scores[index]
    path = [int(np.argmax(best))]
    for index in range(len(scores) - 1, 0, -1):
        path.append(int(came[index, path[-1]]))
    return np.array(path[::-1], np.int64)


def _turns(stretch: _Stretch, steps: Labels) -> list[tuple[float, float, int]]:
    """The spans of speech of the stretch, cut where the speaker changes."""
    edges = np.linspace(stretch.start, stretch.end, len(steps) + 1)
    changes = [0, *(np.flatnonzero(np.diff(steps)) + 1).tolist(), len(steps)]
    turns = []
    for first, last in pairwise(changes):
        for start, end in stretch.spans:
            begin, stop = max(start, float(edges[first])), min(end, float(edges[last]))
            if stop > begin:
                turns.append((begin, stop, int(steps[first])))
    return turns


def _joined(turns: list[tuple[float, float, int]]) -> list[tuple[float, float, int]]:
    """Turns in order: those of one speaker that overlap or are less than a pause apart are one, scraps are dropped."""
    joined: list[tuple[float, float, int]] = []
    last: dict[int, int] = {}
    for start, end, label in sorted(turns):
        place = last.get(label)
        if place is not None and start - joined[place][1] < PAUSE_SECONDS:
            joined[place] = (joined[place][0], max(joined[place][1], end), label)
        else:
            last[label] = len(joined)
            joined.append((start, end, label))
    kept = [turn for turn in joined if turn[1] - turn[0] >= LEAST_SECONDS]
    return kept or joined[:1]
