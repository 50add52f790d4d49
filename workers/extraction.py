"""What each stage computes: a pure function from the source and the artifacts it needs to one artifact.

Encoders are loaded when a stage first needs them and kept for the life of the worker's child process: torch must not
be touched before the fork, and a worker that serves one queue never loads the models of the others.
"""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
from pydantic import BaseModel

from store.artifacts import source_key, token_arrays
from store.catalogue import Video
from store.objects import ObjectStore
from store.records import (
    MODALITIES,
    Artifact,
    AudioAttributes,
    FusedAttributes,
    Modality,
    Phrase,
    TextAttributes,
    TranscriptAttributes,
    VisionAttributes,
)
from store.settings import Settings
from workers import captions, decoding, publication, stages, words

if TYPE_CHECKING:
    from encoders.audio import AudioEncoder
    from encoders.speech import SpeechEncoder
    from encoders.text import TextEncoder
    from encoders.vision import VisionEncoder

Arrays = dict[str, np.ndarray[Any, Any]]
Computed = tuple[BaseModel, Arrays]


class Encoders:
    """The encoders of one process, each loaded at its first use."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.configs = stages.configs(settings)

    @cached_property
    def vision(self) -> VisionEncoder:
        """The frame encoder."""
        from encoders.vision import VisionEncoder

        return VisionEncoder(self.configs.vision, self.settings.cache, self.settings.threads)

    @cached_property
    def audio(self) -> AudioEncoder:
        """The sound encoder."""
        from encoders.audio import AudioEncoder

        return AudioEncoder(self.configs.audio, self.settings.cache, self.settings.threads)

    @cached_property
    def speech(self) -> SpeechEncoder:
        """The speech recogniser."""
        from encoders.speech import SpeechEncoder

        return SpeechEncoder(self.configs.speech, self.settings.cache, self.settings.threads)

    @cached_property
    def text(self) -> TextEncoder:
        """The sentence encoder."""
        from encoders.text import TextEncoder

        return TextEncoder(self.configs.text, self.settings.cache, self.settings.threads)


@dataclass(frozen=True)
class StageInput:
    """All that a stage may read: the video's record, its source, and the artifacts that it needs."""

    video: Video
    objects: ObjectStore
    needs: Mapping[str, Artifact]

    @contextlib.contextmanager
    def source(self) -> Iterator[BinaryIO]:
        """The uploaded bytes as a seekable stream: containers keep their index at either end."""
        with self.objects.open(source_key(self.video.id)) as stream:
            if stream.seekable():
                yield stream
                return
            with tempfile.TemporaryFile(prefix="reelsense-") as copy:
                shutil.copyfileobj(stream, copy, 1 << 20)
                copy.seek(0)
                yield copy

    def tokens_of(self, need: str) -> Any:
        """The tokens of an artifact that this stage needs."""
        return self.needs[need].tokens()


def compute(stage: str, given: StageInput, encoders: Encoders) -> Computed:
    """Run one stage. Raises what decoding and encoders raise: InputError for the video's own faults."""
    return _COMPUTE[stage](given, encoders)


def _vision(given: StageInput, encoders: Encoders) -> Computed:
    with given.source() as source:
        frames = decoding.read_frames(source, encoders.configs.sampling, encoders.settings.limits)
    encoded = encoders.vision(frames)
    return encoded.attributes, token_arrays(encoded.tokens)


def _audio(given: StageInput, encoders: Encoders) -> Computed:
    with given.source() as source:
        sound = decoding.read_sound(source, encoders.configs.audio.rate_hz, encoders.settings.limits)
    encoded = encoders.audio(sound)
    return encoded.attributes, token_arrays(encoded.tokens)


def _transcript(given: StageInput, encoders: Encoders) -> Computed:
    from encoders.whisper_runtimes import RATE_HZ

    with given.source() as source:
        sound = decoding.read_sound(source, RATE_HZ, encoders.settings.limits)
    return encoders.speech(sound), {}


def _text(given: StageInput, encoders: Encoders) -> Computed:
    from encoders.keywords import keywords

    tracks = list(given.video.metadata.captions)
    if given.video.media.subtitle_streams:
        with given.source() as source:
            tracks += captions.read_embedded(source, encoders.settings.limits)
    transcript = TranscriptAttributes.model_validate(given.needs["transcript"].attributes)
    duration = given.video.media.duration or transcript.seconds_decoded
    timed = words.pieces_of(given.video.metadata, tracks, transcript.segments, duration)
    pieces = [item.piece for item in timed]
    tokens = encoders.text(pieces, [item.start for item in timed], [item.end for item in timed])
    attributes = TextAttributes(pieces=pieces, captions=tracks, keywords=keywords(pieces))
    return attributes, token_arrays(tokens)


def _fused(given: StageInput, encoders: Encoders) -> Computed:
    from fusion.attention import fuse

    tokens = {modality: given.tokens_of(modality) for modality in MODALITIES}
    text = TextAttributes.model_validate(given.needs["text"].attributes)
    sources: dict[Modality, list[str]] = {
        "vision": ["frame"] * len(tokens["vision"]),
        "audio": ["window"] * len(tokens["audio"]),
        "text": [str(piece.source) for piece in text.pieces],
    }
    fused = fuse(tokens, sources, encoders.configs.fusion)
    return fused.attributes, {
        "vector": fused.vector,
        "weights": fused.weights,
        "token_vectors": fused.token_vectors,
    }


def _published(given: StageInput, encoders: Encoders) -> Computed:
    vision = VisionAttributes.model_validate(given.needs["vision"].attributes)
    text = TextAttributes.model_validate(given.needs["text"].attributes)
    tokens = given.tokens_of("text")
    spoken = [
        Phrase(source=piece.source, text=piece.text, start=float(start), end=float(end))
        for piece, start, end in zip(text.pieces, tokens.start_seconds, tokens.end_seconds, strict=True)
    ]
    labels = publication.label_phrases(vision)
    attributes = publication.published(
        given.video.metadata,
        vision,
        AudioAttributes.model_validate(given.needs["audio"].attributes),
        TranscriptAttributes.model_validate(given.needs["transcript"].attributes),
        text,
        spoken,
        FusedAttributes.model_validate(given.needs["fused"].attributes),
    )
    seen = encoders.text.embed([label.text for label in labels])
    fused = given.needs["fused"].arrays
    return attributes, {
        "vector": fused["vector"],
        "weights": fused["weights"],
        "token_vectors": fused["token_vectors"],
        "phrase_embeddings": np.concatenate([tokens.embeddings, seen]).astype(np.float32),
    }


_COMPUTE: Mapping[str, Callable[[StageInput, Encoders], Computed]] = {
    "vision": _vision,
    "audio": _audio,
    "transcript": _transcript,
    "text": _text,
    "fused": _fused,
    "published": _published,
}
