"""What each stage computes: a pure function from the source and the artifacts it needs to one artifact.

Encoders are loaded when a stage first needs them and kept for the life of the worker's child process: torch must not
be touched before the fork, and a worker that serves one queue never loads the models of the others.
"""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
from pydantic import BaseModel

from encoders.catalogue import load
from encoders.specs import Place
from store import measurements
from store.artifacts import learnt_model_key, source_key, token_arrays
from store.catalogue import Video
from store.errors import ModelError
from store.objects import ObjectStore
from store.records import (
    MODALITIES,
    AppearanceAttributes,
    Artifact,
    AudioAttributes,
    Encoded,
    Frames,
    FramesAttributes,
    FusedAttributes,
    Modality,
    Phrase,
    ScreenAttributes,
    TextAttributes,
    Tokens,
    TopicsAttributes,
    TranscriptAttributes,
    VisionAttributes,
)
from store.settings import Settings
from workers import captions, publication, stages, words
from workers.frame_decoding import read_frames
from workers.sound_decoding import read_sound
from workers.stored_frames import frames_attributes, frames_from_arrays, frames_to_arrays

if TYPE_CHECKING:
    from encoders.topics import TopicModel
    from fusion.trained import TrainedFusion

Arrays = dict[str, np.ndarray[Any, Any]]
Computed = tuple[BaseModel, Arrays]


# What is served, and what a re-embedding brings in beside it.
KEPT_SETTINGS = 2


class Encoders:
    """The encoders of one process by one set of settings, each loaded at its first use.

    `of` gives those by other settings, such as a re-embedding's. A process keeps the sets of the `KEPT_SETTINGS` used
    last, and an encoder on which they agree once.
    """

    def __init__(self, settings: Settings, kept: list[Encoders] | None = None) -> None:
        self.settings = settings
        self.configs = stages.configs(settings)
        self._loaded: dict[Place, Any] = {}
        self._learnt: dict[str, tuple[str, Any]] = {}
        self._kept: list[Encoders] = [self] if kept is None else kept

    def of(self, settings: Settings) -> Encoders:
        """The encoders by these settings. Raises `model.unknown`, `settings.invalid`."""
        found = next((held for held in self._kept if held.settings == settings), None)
        if found is None:
            found = self if settings == self.settings else Encoders(settings, self._kept)
        else:
            self._kept.remove(found)
        self._kept.append(found)
        while len(self._kept) > KEPT_SETTINGS:
            gone = self._kept.pop(0)
            gone._loaded.clear()
            gone._learnt.clear()
        return found

    def get(self, place: Place) -> Any:
        """The encoder of a place, None where the model set leaves it empty (see `encoders.catalogue` for what each is
        called with). Raises ModelError."""
        if place not in self._loaded:
            found = self.configs.encoders.get(place)
            beside = [
                held._loaded[place]
                for held in self._kept
                if place in held._loaded and held.configs.encoders.get(place) == found
            ]
            if beside or found is None:
                self._loaded[place] = beside[0] if beside else None
            else:
                with measurements.timed("reelsense_model_load_seconds", place=place):
                    self._loaded[place] = load(*found, self.settings.cache, self.settings.threads)
        return self._loaded[place]

    def rate_hz(self, place: Place) -> int:
        """The rate at which an encoder of sound wants it."""
        rate = self.configs.encoders[place][0].rate_hz
        if rate is None:
            raise ModelError(
                "model.unknown",
                f"The encoder {self.configs.encoders[place][0].name} does not say at which rate it wants sound.",
                hint="Set `rate_hz` in its EncoderSpec.",
            )
        return rate

    def topics(self, version: str, objects: ObjectStore) -> TopicModel:
        """The topic model of this version, read from storage once. Raises `store.missing`."""
        from encoders.topics import TopicModel

        model: TopicModel = self._read("topics", version, objects, TopicModel.from_bytes)
        return model

    def fusion(self, version: str, objects: ObjectStore) -> TrainedFusion:
        """The trained fusion of this version, read from storage once and held to its probes. Raises `store.missing`,
        `model.damaged`, `fusion.bad_checkpoint`."""
        from fusion.trained import TrainedFusion

        digest = version.partition("-")[0]
        model: TrainedFusion = self._read(
            "fusion", version, objects, lambda data: TrainedFusion.from_bytes(data, digest)
        )
        return model

    def _read(self, name: str, version: str, objects: ObjectStore, read: Callable[[bytes], Any]) -> Any:
        if name not in self._learnt or self._learnt[name][0] != version:
            self._learnt[name] = (version, read(objects.get(learnt_model_key(name, version))))
        return self._learnt[name][1]


@dataclass(frozen=True)
class StageInput:
    """All that a stage may read: the video's record, its source, and the artifacts that it needs."""

    video: Video
    objects: ObjectStore
    needs: Mapping[str, Artifact]
    models: Mapping[str, str] = field(default_factory=dict)

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

    def tokens_of(self, need: str) -> Tokens:
        """The tokens of an artifact that this stage needs."""
        return self.needs[need].tokens()

    def frames(self) -> Frames:
        """The pictures that the stage `frames` kept."""
        stored = self.needs["frames"]
        return frames_from_arrays(FramesAttributes.model_validate(stored.attributes), stored.arrays)


def compute(stage: str, given: StageInput, encoders: Encoders) -> Computed:
    """Run one stage. Raises what decoding and encoders raise: InputError for the video's own faults."""
    return _COMPUTE[stage](given, encoders)


def takes_batches(stage: str, encoders: Encoders) -> bool:
    """Whether the stage gains from several videos at once: its encoder says so by having `encode_many`."""
    return stage == "vision" and hasattr(encoders.get("vision"), "encode_many")


def compute_many(stage: str, given: Sequence[StageInput], encoders: Encoders) -> list[Computed]:
    """Run one stage of several videos at once, where `takes_batches`; the results are those of one by one."""
    if stage != "vision":
        raise ValueError(f"the stage {stage} has no batches")
    frames = [item.frames() for item in given]
    return [
        _seen(item, encoded, encoders)
        for item, encoded in zip(frames, encoders.get("vision").encode_many(frames), strict=True)
    ]


def _frames(given: StageInput, encoders: Encoders) -> Computed:
    with given.source() as source:
        frames = read_frames(source, encoders.configs.sampling, encoders.settings.limits)
    return frames_attributes(frames), frames_to_arrays(frames)


def _vision(given: StageInput, encoders: Encoders) -> Computed:
    frames = given.frames()
    return _seen(frames, encoders.get("vision")(frames), encoders)


def _seen(frames: Frames, encoded: Encoded, encoders: Encoders) -> Computed:
    detector = encoders.get("objects")
    attributes = encoded.attributes
    if detector is not None:
        attributes = attributes.model_copy(update={"objects": detector(frames)})
    return attributes, token_arrays(encoded.tokens)


def _appearance(given: StageInput, encoders: Encoders) -> Computed:
    from encoders.signature import signature_of

    frames = given.frames()
    attributes: AppearanceAttributes = encoders.get("appearance")(frames)
    complete = attributes.model_copy(update={"faces": encoders.get("faces")(frames)})
    return complete, dict(signature_of(frames).arrays())


def _screen(given: StageInput, encoders: Encoders) -> Computed:
    return encoders.get("screen")(given.frames()), {}


def _audio(given: StageInput, encoders: Encoders) -> Computed:
    with given.source() as source:
        sound = read_sound(source, encoders.rate_hz("audio"), encoders.settings.limits)
    encoded = encoders.get("audio")(sound)
    return encoded.attributes, token_arrays(encoded.tokens)


def _transcript(given: StageInput, encoders: Encoders) -> Computed:
    with given.source() as source:
        sound = read_sound(source, encoders.rate_hz("speech"), encoders.settings.limits)
    return encoders.get("speech")(sound), {}


def _speakers(given: StageInput, encoders: Encoders) -> Computed:
    with given.source() as source:
        sound = read_sound(source, encoders.rate_hz("speakers"), encoders.settings.limits)
    attributes, voices = encoders.get("speakers")(sound)
    return attributes, {"voices": voices}


def _text(given: StageInput, encoders: Encoders) -> Computed:
    from encoders.keywords import keywords

    tracks = list(given.video.metadata.captions)
    if given.video.media.subtitle_streams:
        with given.source() as source:
            tracks += captions.read_embedded(source, encoders.settings.limits)
    transcript = TranscriptAttributes.model_validate(given.needs["transcript"].attributes)
    screen = ScreenAttributes.model_validate(given.needs["screen"].attributes)
    duration = given.video.media.duration or transcript.seconds_decoded
    timed = words.pieces_of(
        given.video.metadata,
        tracks,
        transcript.segments,
        duration,
        screen=screen.phrases,
        caption_languages=encoders.configs.words.caption_languages,
    )
    pieces = [item.piece for item in timed]
    tokens = encoders.get("text")(pieces, [item.start for item in timed], [item.end for item in timed])
    attributes = TextAttributes(pieces=pieces, captions=tracks, keywords=keywords(pieces))
    return attributes, token_arrays(tokens)


def _topics(given: StageInput, encoders: Encoders) -> Computed:
    if "topics" not in given.models:
        return TopicsAttributes(), {}
    text = TextAttributes.model_validate(given.needs["text"].attributes)
    model = encoders.topics(given.models["topics"], given.objects)
    return model.infer(text.pieces), {}


def _fused(given: StageInput, encoders: Encoders) -> Computed:
    from fusion.attention import fuse

    tokens = {modality: given.tokens_of(modality) for modality in MODALITIES}
    text = TextAttributes.model_validate(given.needs["text"].attributes)
    sources: dict[Modality, list[str]] = {
        "vision": ["frame"] * len(tokens["vision"]),
        "audio": ["window"] * len(tokens["audio"]),
        "text": [str(piece.source) for piece in text.pieces],
    }
    if "fusion" in given.models:
        fused = encoders.fusion(given.models["fusion"], given.objects).fuse(tokens, sources)
    else:
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
    labels = publication.label_phrases(vision, given.needs["frames"].attributes["duration"])
    attributes = publication.published(
        given.video.metadata,
        FramesAttributes.model_validate(given.needs["frames"].attributes),
        vision,
        AudioAttributes.model_validate(given.needs["audio"].attributes),
        TranscriptAttributes.model_validate(given.needs["transcript"].attributes),
        text,
        spoken,
        FusedAttributes.model_validate(given.needs["fused"].attributes),
    )
    seen = encoders.get("text").embed([label.text for label in labels])
    fused = given.needs["fused"].arrays
    return attributes, {
        "vector": fused["vector"],
        "weights": fused["weights"],
        "token_vectors": fused["token_vectors"],
        "phrase_embeddings": np.concatenate([tokens.embeddings, seen]).astype(np.float32),
    }


_COMPUTE: Mapping[str, Callable[[StageInput, Encoders], Computed]] = {
    "frames": _frames,
    "vision": _vision,
    "appearance": _appearance,
    "screen": _screen,
    "audio": _audio,
    "transcript": _transcript,
    "speakers": _speakers,
    "text": _text,
    "topics": _topics,
    "fused": _fused,
    "published": _published,
}
