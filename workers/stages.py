"""The stage graph as data: what each stage needs, the queue it runs on, and the version that names its results.

    source ──▶ frames ──▶ vision ────────────┐
                      ──▶ screen ─▶ text ────┼─▶ fused ──▶ published
           ──▶ audio ────────────────────────┤
           ──▶ transcript ─▶ text ───────────┘
    captions, title, tags ─▶ text ─▶ topics
               frames ──▶ appearance
    source ──▶ speakers

The picture is decoded once, into `frames`: a new vision model, or a new reader of on-screen text, decodes nothing.

A version is a digest of what changes the result: the encoders' weights, settings and code, the code that decodes for
them, and the versions of what it needs. A new vision model is a new `vision`, `fused`, `published`, and nothing else.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from pydantic import BaseModel

from encoders.catalogue import chosen, config_of
from encoders.identity import code_digest, identity
from encoders.specs import EncoderSpec, Place
from fusion.attention import FusionConfig
from store.artifacts import digest
from store.settings import Settings
from workers.frame_sampling import FrameSampling
from workers.words import WordsConfig


@dataclass(frozen=True)
class Stage:
    """One row of the graph.

    `reads_words`: whether what the uploader wrote goes into it, directly or through a need. `places`: the encoders that
    it calls. `code`: the modules, and functions of modules, whose code makes its result beside those (see
    `encoders.identity.code_digest`). `cost`: CPU seconds that it is expected to take for each second of video;
    time limits come from it (`workers.time_limits`), and no version does. `learnt`: the model learnt from the
    catalogue that it uses, if any.
    """

    name: str
    needs: tuple[str, ...]
    queue: str
    reads_words: bool
    places: tuple[Place, ...]
    code: tuple[str, ...]
    cost: float
    learnt: str | None = None


_DECODING = ("workers.decoding", "workers.containers")
_FRAMES = ("workers.stored_frames",)
_SOUND = (*_DECODING, "workers.sound_decoding")

# In the order in which a video passes them: a need stands above the stage that needs it.
STAGES: tuple[Stage, ...] = (
    Stage(
        "frames",
        (),
        "frames",
        False,
        (),
        (*_DECODING, "workers.frame_decoding", "workers.frame_sampling", "workers.pictures", "workers.shots", *_FRAMES),
        cost=0.4,
    ),
    Stage("vision", ("frames",), "vision", False, ("vision", "objects"), _FRAMES, cost=0.5),
    Stage(
        "appearance",
        ("frames",),
        "appearance",
        False,
        ("appearance", "faces"),
        (*_FRAMES, "encoders.signature", "encoders.pictures"),
        cost=0.3,
    ),
    Stage("screen", ("frames",), "screen", False, ("screen",), _FRAMES, cost=1.0),
    Stage("audio", (), "audio", False, ("audio",), _SOUND, cost=0.1),
    Stage("transcript", (), "transcript", False, ("speech",), _SOUND, cost=0.6),
    Stage("speakers", (), "speakers", False, ("speakers",), _SOUND, cost=0.3),
    Stage(
        "text",
        ("transcript", "screen"),
        "text",
        True,
        ("text",),
        ("workers.captions", "workers.containers", "workers.words"),
        cost=0.1,
    ),
    Stage(
        "topics",
        ("text",),
        "topics",
        True,
        (),
        ("encoders.topics", "encoders.keywords", "encoders.stop_words"),
        cost=0.02,
        learnt="topics",
    ),
    Stage(
        "fused",
        ("vision", "audio", "text"),
        "fused",
        True,
        (),
        ("fusion.attention", "fusion.projection", "fusion.trained", "fusion.network", "fusion.batches"),
        cost=0.02,
        learnt="fusion",
    ),
    Stage(
        "published",
        ("frames", "vision", "audio", "transcript", "text", "fused"),
        "published",
        True,
        ("text",),
        ("workers.publication",),
        cost=0.02,
    ),
)
BY_NAME: dict[str, Stage] = {stage.name: stage for stage in STAGES}
QUEUES: tuple[str, ...] = tuple(stage.queue for stage in STAGES)


@dataclass(frozen=True)
class StageConfigs:
    """What the settings ask of the stages: the encoder and its configuration for each place, and the rest."""

    sampling: FrameSampling
    words: WordsConfig
    fusion: FusionConfig
    encoders: Mapping[Place, tuple[EncoderSpec, Any]]


def configs(settings: Settings) -> StageConfigs:
    """The configurations that these settings ask for. Raises `model.unknown`, `settings.invalid`."""
    return StageConfigs(
        sampling=FrameSampling(strategy=settings.frame_strategy, max_frames=settings.frames),
        words=WordsConfig(caption_languages=tuple(settings.caption_languages.replace(",", " ").split())),
        fusion=FusionConfig(),
        encoders={place: (spec, config_of(spec, settings)) for place, spec in chosen(settings).items()},
    )


def token_space(settings: Settings) -> str:
    """16 hex digits that name the encoders of the tokens: a fusion holds for those on whose tokens it was trained."""
    chosen_encoders = configs(settings).encoders
    return digest({place: identity(*chosen_encoders[place], settings.cache) for place in ("vision", "audio", "text")})


def versions(settings: Settings, learnt: Mapping[str, str] = MappingProxyType({})) -> dict[str, str]:
    """The version of each stage by name, 16 hex digits. `learnt` are the versions of the models learnt from the
    catalogue, by name. Loads no weights. Raises `model.unknown`, `settings.invalid`."""
    config = configs(settings)
    own: Mapping[str, BaseModel] = {"frames": config.sampling, "text": config.words, "fused": config.fusion}
    result: dict[str, str] = {}
    for stage in STAGES:
        described: dict[str, Any] = {
            "stage": stage.name,
            "needs": {need: result[need] for need in stage.needs},
            "configuration": own[stage.name].model_dump(mode="json") if stage.name in own else None,
            "encoders": {
                place: identity(*config.encoders[place], settings.cache)
                for place in stage.places
                if place in config.encoders
            },
            "code": code_digest(*stage.code, f"workers.extraction:_{stage.name}"),
        }
        if stage.learnt is not None and stage.learnt in learnt:
            described["model"] = learnt[stage.learnt]
        result[stage.name] = digest(described)
    return result
