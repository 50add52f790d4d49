"""The stage graph as data: what each stage needs, the queue it runs on, and the version that names its results.

    source ──▶ vision ─────────────┐
           ──▶ audio ──────────────┤
           ──▶ transcript ─▶ text ─┴─▶ fused ──▶ published
    captions, title, tags ─▶ ─┘

A version is a digest of what changes the result: the encoder's weights, settings and code, the code that decodes for
it, and the versions of what it needs. A new vision model is a new `vision`, `fused`, `published`, and nothing else.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel

from encoders.audio import AudioConfig
from encoders.catalogue import ENCODERS, code_digest, identity, model_set
from encoders.speech import SpeechConfig
from encoders.text import TextConfig
from encoders.vision import VisionConfig
from fusion.attention import FusionConfig
from store.artifacts import digest
from store.settings import Settings
from workers.decoding import FrameSampling


@dataclass(frozen=True)
class Stage:
    """One row of the graph.

    `reads_words`: whether what the uploader wrote goes into it, directly or through a need. `code`: the modules, and
    functions of modules, whose code makes its result beside its encoder's (see `encoders.catalogue.code_digest`).
    """

    name: str
    needs: tuple[str, ...]
    queue: str
    reads_words: bool
    code: tuple[str, ...]


_DECODING = ("workers.decoding", "workers.containers")

# In the order in which a video passes them: a need stands above the stage that needs it.
STAGES: tuple[Stage, ...] = (
    Stage("vision", (), "vision", False, _DECODING),
    Stage("audio", (), "audio", False, _DECODING),
    Stage("transcript", (), "transcript", False, _DECODING),
    Stage("text", ("transcript",), "text", True, ("workers.captions", "workers.containers", "workers.words")),
    Stage("fused", ("vision", "audio", "text"), "fused", True, ("fusion.attention", "fusion.projection")),
    Stage("published", ("vision", "audio", "transcript", "text", "fused"), "published", True, ("workers.publication",)),
)
BY_NAME: dict[str, Stage] = {stage.name: stage for stage in STAGES}
QUEUES: tuple[str, ...] = tuple(stage.queue for stage in STAGES)


@dataclass(frozen=True)
class StageConfigs:
    """The typed configuration of every stage, made from the settings and the model set they name."""

    sampling: FrameSampling
    vision: VisionConfig
    audio: AudioConfig
    speech: SpeechConfig
    text: TextConfig
    fusion: FusionConfig


def configs(settings: Settings) -> StageConfigs:
    """The configurations that these settings ask for."""
    return StageConfigs(
        sampling=FrameSampling(),
        vision=VisionConfig(),
        audio=AudioConfig(music=settings.music),
        speech=SpeechConfig(runtime=settings.speech_runtime),
        text=TextConfig(),
        fusion=FusionConfig(),
    )


def versions(settings: Settings) -> dict[str, str]:
    """The version of each stage by name, 16 hex digits. Loads no weights. Raises `model.unknown`."""
    chosen = model_set(settings.model_set)
    config = configs(settings)
    parts: Mapping[str, tuple[str | None, tuple[BaseModel, ...]]] = {
        "vision": (chosen.vision, (config.vision, config.sampling)),
        "audio": (chosen.audio, (config.audio,)),
        "transcript": (chosen.speech, (config.speech,)),
        "text": (chosen.text, (config.text,)),
        "fused": (None, (config.fusion,)),
        "published": (None, ()),
    }
    result: dict[str, str] = {}
    for stage in STAGES:
        encoder, configurations = parts[stage.name]
        described: dict[str, Any] = {
            "stage": stage.name,
            "needs": {need: result[need] for need in stage.needs},
            "configurations": [item.model_dump(mode="json") for item in configurations],
            "code": code_digest(*stage.code, f"workers.extraction:_{stage.name}"),
        }
        if encoder is not None:
            described["encoder"] = identity(ENCODERS[encoder], configurations[0])
        result[stage.name] = digest(described)
    return result
