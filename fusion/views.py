"""Parts of a training video: what a network that knows the video from one part should recognise in another.

Two views of a video are either what lies before and after a moment of it (a time crop, so that the parts share not one
token), or two random subsets of its tokens (as another frame rate would give them). Of each, at most so many tokens of
a modality are kept, and some features are blanked. Modalities are left out of one of the two alone: of two views that
share no modality nothing could be learnt but what modalities have in common, and a small catalogue cannot teach that;
such pairs would drown the others. All of it is drawn from a generator seeded by the run, the step and the video alone:
whoever computes the view, and wherever, it is the same.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from fusion.batches import duration_of
from store.records import Tokens


@dataclass(frozen=True, eq=False)
class TrainingVideo:
    """One video to train on: its tokens by modality, and other recordings of the same, if there are any.

    `group` names videos that are the same in truth (re-uploads): they are never each other's wrong answers, and always
    on one side of the held-out split. Empty: the video stands for itself.
    """

    tokens: Mapping[str, Tokens]
    recordings: Sequence[Mapping[str, Tokens]] = field(default=())
    group: str = ""


class ViewConfig(BaseModel):
    """How views are drawn. Shares are probabilities, 0..1."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
    most_tokens: int = Field(8, ge=1, le=4096, description="Most tokens of one modality in a view.")
    crops: float = Field(1.0, ge=0, le=1, description="Share of pairs that are cut at a moment, where there is time.")
    kept: float = Field(0.6, gt=0, le=1, description="Share of the tokens in the other pairs' views.")
    modality_dropout: float = Field(0.3, ge=0, lt=1, description="Share of modalities left out of one view.")
    feature_dropout: float = Field(0.0, ge=0, lt=1, description="Share of an embedding's entries that are blanked.")
    recordings: float = Field(
        0.3, ge=0, le=1, description="Share of views taken of another recording, if there is one."
    )


@dataclass(frozen=True, eq=False)
class View:
    """Tokens of a part, the modalities that are attended to, and the duration of the whole video in seconds."""

    tokens: Mapping[str, Tokens]
    attended: frozenset[str]
    duration: float


def generator_for(seed: int, step: int, name: str) -> np.random.Generator:
    """The generator of one video at one step of one run."""
    return np.random.Generator(
        np.random.PCG64(int.from_bytes(hashlib.sha256(f"{seed}/{step}/{name}".encode()).digest()[:16], "little"))
    )


def two_views(video: TrainingVideo, generator: np.random.Generator, config: ViewConfig) -> tuple[View, View]:
    """Two parts of a video."""
    recordings = [_recording(video, generator, config) for _ in range(2)]
    duration = duration_of(video.tokens)
    crop = generator.random() < config.crops and duration > 0
    share = generator.uniform(0.35, 0.65)
    turned = bool(generator.random() < 0.5)
    poorer = int(generator.integers(2))
    coins = np.random.Generator(np.random.PCG64(int(generator.integers(2**63))))
    state = coins.bit_generator.state
    parts = []
    for number, recording in enumerate(recordings):
        later = (number == 1) != turned
        coins.bit_generator.state = state
        part = _cropped(recording, share, later, coins) if crop else _thinned(recording, config.kept, generator)
        dropout = config.modality_dropout if number == poorer else 0.0
        parts.append(_view(part or recording, duration, generator, config, dropout))
    return parts[0], parts[1]


def one_view(video: TrainingVideo, generator: np.random.Generator, config: ViewConfig) -> View:
    """A part of a video by itself."""
    recording = _recording(video, generator, config)
    part = _thinned(recording, config.kept, generator) or recording
    return _view(part, duration_of(video.tokens), generator, config, 0.0)


def _recording(video: TrainingVideo, generator: np.random.Generator, config: ViewConfig) -> Mapping[str, Tokens]:
    other = generator.random() < config.recordings
    place = int(generator.integers(max(1, len(video.recordings))))
    return video.recordings[place] if other and video.recordings else video.tokens


def _cropped(
    recording: Mapping[str, Tokens], share: float, later: bool, coins: np.random.Generator
) -> dict[str, Tokens]:
    """What lies before, or after, that share of the recording. A token that spans all of it (a title) is in one of the
    two by the toss of a coin: in both, it would give the answer away."""
    duration = duration_of(recording)
    cut = share * duration
    found = {}
    for name in sorted(recording):
        part = recording[name]
        if not len(part):
            continue
        middle = (part.start_seconds + part.end_seconds) / 2
        whole = part.end_seconds - part.start_seconds > 0.9 * duration
        chosen = np.where(whole, (coins.random(len(part)) < 0.5) == later, (middle >= cut) == later)
        if chosen.any():
            found[name] = _taken(part, np.flatnonzero(chosen))
    return found


def _thinned(recording: Mapping[str, Tokens], kept: float, generator: np.random.Generator) -> dict[str, Tokens]:
    found = {}
    for name in sorted(recording):
        part = recording[name]
        if len(part):
            chosen = generator.random(len(part)) < kept
            chosen[int(generator.integers(len(part)))] = True
            found[name] = _taken(part, np.flatnonzero(chosen))
    return found


def _view(
    tokens: Mapping[str, Tokens],
    duration: float,
    generator: np.random.Generator,
    config: ViewConfig,
    modality_dropout: float,
) -> View:
    shown: dict[str, Tokens] = {}
    for name in sorted(tokens):
        part = tokens[name]
        if not len(part):
            continue
        if len(part) > config.most_tokens:
            places = generator.choice(len(part), config.most_tokens, replace=False, shuffle=False)
            part = _taken(part, np.sort(places))
        blank = np.asarray(generator.random(part.embeddings.shape[1]) < config.feature_dropout)
        blanked = part.embeddings.copy()
        if not blank.all():
            blanked[:, blank] = 0.0
        shown[name] = Tokens(blanked, part.start_seconds, part.end_seconds, part.salience)
    usable = [name for name, part in shown.items() if part.salience.any()]
    attended = [name for name in usable if generator.random() >= modality_dropout]
    if not attended and usable:
        attended = [usable[int(generator.integers(len(usable)))]]
    return View(shown, frozenset(attended), duration)


def _taken(tokens: Tokens, places: np.ndarray[tuple[int], np.dtype[np.intp]]) -> Tokens:
    return Tokens(
        tokens.embeddings[places], tokens.start_seconds[places], tokens.end_seconds[places], tokens.salience[places]
    )
