"""Which encoders there are, and which of them a model set takes. Each is declared once, here or by an entry point.

An encoder has a place: `vision` reads frames, `audio` sound, and so on (`Place`). Whatever fills a place is called in
the same way, so that one can stand for another:

| place | called with | gives |
|---|---|---|
| vision | Frames | Encoded: tokens and VisionAttributes |
| objects | Frames | list of Label |
| appearance | Frames | AppearanceAttributes, without shots, motion and faces |
| faces | Frames | Faces |
| screen | Frames | ScreenAttributes |
| audio | Sound at `rate_hz` | Encoded: tokens and AudioAttributes |
| speech | Sound at `rate_hz` | TranscriptAttributes |
| speakers | Sound at `rate_hz` | SpeakersAttributes, and their voices float32 [count, dim] |
| text | pieces, starts, ends; `embed(texts)`, `embed_query(texts)` | Tokens; float32 [n, dim] of unit length |

An encoder is made by `encoder(config, cache, threads)`. Others are added by packages: an entry point of the group
`reelsense.encoders` that names an `EncoderSpec` (docs/encoders.md shows one).
"""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache as remember
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, get_args

from pydantic import BaseModel, ValidationError

from encoders.weights import WEIGHTS, Weights, find
from store.errors import ModelError, SettingsError
from store.settings import Settings

ENTRY_POINTS = "reelsense.encoders"
Place = Literal["vision", "objects", "appearance", "faces", "screen", "audio", "speech", "speakers", "text"]
PLACES: tuple[Place, ...] = get_args(Place)


@dataclass(frozen=True)
class EncoderSpec:
    """One encoder.

    `modality` is its place. `dim` is the length of its token embeddings, None when it gives none. `weights` are names
    in `WEIGHTS`, `modules` the dotted modules whose code makes the result, and `data` the files beside the first of
    them that they read. `package` carries the algorithm where no weights do. `config` and `encoder` are `module:Class`.
    `rate_hz` is the rate at which an encoder of sound wants it. `hub` is the id of the model on its hub, where its
    weights come from there.
    """

    name: str
    modality: Place
    dim: int | None
    weights: tuple[str, ...]
    modules: tuple[str, ...]
    preprocessing: str
    licence: str
    config: str
    encoder: str
    data: tuple[str, ...] = ()
    package: str | None = None
    rate_hz: int | None = None
    hub: str | None = None


@dataclass(frozen=True)
class ModelSet:
    """A named choice of encoders: for each place the name of one."""

    name: str
    encoders: Mapping[Place, str] = field(default_factory=dict)


_SPECS = (
    EncoderSpec(
        name="efficientnet-lite0",
        modality="vision",
        dim=1280,
        weights=("efficientnet-lite0",),
        modules=("encoders.vision", "encoders.efficientnet_lite"),
        preprocessing="shorter side to 256 px (bicubic), middle 224 x 224 px, RGB to -1..1",
        licence=WEIGHTS["efficientnet-lite0"].licence,
        config="encoders.vision:VisionConfig",
        encoder="encoders.vision:VisionEncoder",
    ),
    EncoderSpec(
        name="librosa-features",
        modality="audio",
        dim=178,
        weights=("silero-vad",),
        modules=(
            "encoders.audio",
            "encoders.loudness",
            "encoders.music",
            "encoders.music_vibenet",
            "encoders.speech_activity",
        ),
        data=("audio_reference.json",),
        preprocessing="22,050 Hz, mean power of the channels, windows of about 5 s",
        licence="ISC",
        package="librosa",
        config="encoders.audio:AudioConfig",
        encoder="encoders.audio:AudioEncoder",
        rate_hz=22_050,
    ),
    EncoderSpec(
        name="whisper-base",
        modality="speech",
        dim=None,
        weights=("whisper-base", "silero-vad"),
        modules=(
            "encoders.speech",
            "encoders.speech_activity",
            "encoders.speech_guards",
            "encoders.speech_windows",
            "encoders.whisper_runtimes",
            "encoders.whisper_weights",
        ),
        preprocessing="mean of the channels at 16 kHz, 80-band log-Mel spectrogram of windows with speech",
        licence=WEIGHTS["whisper-base"].licence,
        config="encoders.speech:SpeechConfig",
        encoder="encoders.speech:SpeechEncoder",
        rate_hz=16_000,
    ),
    EncoderSpec(
        name="minilm-l6-v2",
        modality="text",
        dim=384,
        weights=("minilm-l6-v2",),
        modules=("encoders.text", "encoders.keywords", "encoders.stop_words"),
        preprocessing="lower-cased WordPiece, at most 256 tokens",
        licence=WEIGHTS["minilm-l6-v2"].licence,
        config="encoders.text:TextConfig",
        encoder="encoders.text:TextEncoder",
    ),
    EncoderSpec(
        name="oklab-palette",
        modality="appearance",
        dim=None,
        weights=(),
        modules=("encoders.appearance", "encoders.pictures"),
        preprocessing="frames shrunk to a few thousand pixels, sRGB to OKLab",
        licence="Apache-2.0",
        config="encoders.appearance:AppearanceConfig",
        encoder="encoders.appearance:AppearanceEncoder",
    ),
    EncoderSpec(
        name="mtcnn",
        modality="faces",
        dim=None,
        weights=("mtcnn",),
        modules=("encoders.faces", "encoders.pictures"),
        preprocessing="at most 12 frames, RGB to -1..1, an image pyramid",
        licence=WEIGHTS["mtcnn"].licence,
        config="encoders.faces:FaceConfig",
        encoder="encoders.faces:FaceCounter",
    ),
    EncoderSpec(
        name="pp-ocrv6-small",
        modality="screen",
        dim=None,
        weights=("pp-ocrv6-small-det", "pp-ocrv6-small-rec"),
        modules=("encoders.screen_text",),
        preprocessing="frames that differ, longer side to 480 px to find lines, lines at their own size to read them",
        licence=WEIGHTS["pp-ocrv6-small-det"].licence,
        config="encoders.screen_text:ScreenTextConfig",
        encoder="encoders.screen_text:ScreenTextEncoder",
    ),
    EncoderSpec(
        name="resemblyzer",
        modality="speakers",
        dim=256,
        weights=("resemblyzer-voice", "silero-vad"),
        modules=("encoders.speakers", "encoders.voice_embedding", "encoders.speech_activity", "encoders.samples"),
        preprocessing="channels that differ apart, 16 kHz, 40 Mel bands of 25 ms, partials of 1.6 s",
        licence=WEIGHTS["resemblyzer-voice"].licence,
        config="encoders.speakers:SpeakersConfig",
        encoder="encoders.speakers:SpeakersEncoder",
        rate_hz=16_000,
    ),
)
BUILT_IN: Mapping[str, EncoderSpec] = MappingProxyType({spec.name: spec for spec in _SPECS})
MODEL_SETS: Mapping[str, ModelSet] = MappingProxyType(
    {
        "starter": ModelSet(
            "starter",
            {
                "vision": "efficientnet-lite0",
                "appearance": "oklab-palette",
                "faces": "mtcnn",
                "screen": "pp-ocrv6-small",
                "audio": "librosa-features",
                "speech": "whisper-base",
                "speakers": "resemblyzer",
                "text": "minilm-l6-v2",
            },
        )
    }
)


@remember
def encoders() -> Mapping[str, EncoderSpec]:
    """Every encoder by name: the built-in ones, then those of installed packages. Raises `model.unknown` for a package
    whose entry point does not lead to an `EncoderSpec` of the same name."""
    found = dict(BUILT_IN)
    for point in sorted(importlib.metadata.entry_points(group=ENTRY_POINTS), key=lambda point: point.name):
        try:
            spec = point.load()
        except Exception as error:
            raise _bad_entry_point(point, f"it does not load: {type(error).__name__}: {error}") from error
        if not isinstance(spec, EncoderSpec) or spec.name != point.name or spec.modality not in PLACES:
            raise _bad_entry_point(point, "it names no EncoderSpec of that name")
        if spec.name in BUILT_IN:
            raise _bad_entry_point(point, "a built-in encoder has that name")
        found[spec.name] = spec
    return MappingProxyType(found)


def _bad_entry_point(point: importlib.metadata.EntryPoint, why: str) -> ModelError:
    return ModelError(
        "model.unknown",
        f"The encoder {point.name!r} of the entry point {point.value!r} cannot be used: {why}.",
        hint="Mend or uninstall the package that declares it; docs/encoders.md shows how an encoder is declared.",
    )


def model_set(name: str) -> ModelSet:
    """The model set of this name. Raises `model.unknown`."""
    if name not in MODEL_SETS:
        raise ModelError(
            "model.unknown",
            f"No model set is called {name!r}.",
            hint=f"Known: {', '.join(sorted(MODEL_SETS))}.",
        )
    return MODEL_SETS[name]


def chosen(settings: Settings) -> dict[Place, EncoderSpec]:
    """The encoder for each place: the one that the setting `encoders` names, else the model set's. A place for which
    there is none is left out. Raises `model.unknown`."""
    base = model_set(settings.model_set).encoders
    found: dict[Place, EncoderSpec] = {}
    for place in PLACES:
        name = getattr(settings.encoders, place) or base.get(place, "")
        if not name:
            continue
        spec = encoders().get(name)
        if spec is None or spec.modality != place:
            fitting = sorted(other.name for other in encoders().values() if other.modality == place)
            raise ModelError(
                "model.unknown", f"No encoder for {place} is called {name!r}.", hint=f"Known: {', '.join(fitting)}."
            )
        found[place] = spec
    return found


def config_of(spec: EncoderSpec, settings: Settings) -> Any:
    """The typed configuration of an encoder: what the settings say of all (`device`, `precision`, ...), then its own
    `options`. Raises `settings.invalid`, naming the option."""
    kind: type[BaseModel] = _named(spec.config)
    general: dict[str, Any] = {"device": settings.device, "precision": settings.precision, "music": settings.music}
    if spec.modality == "speech":
        general["runtime"] = settings.speech_runtime
    given = {name: value for name, value in general.items() if name in kind.model_fields}
    try:
        return kind.model_validate(given | settings.options.get(spec.name, {}))
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(str(part) for part in first["loc"]) or "?"
        raise SettingsError(
            "settings.invalid",
            f"The option {name} of the encoder {spec.name} is not valid: {first['msg']}.",
            hint=f"Known: {', '.join(sorted(kind.model_fields))}.",
        ) from None


def load(spec: EncoderSpec, config: BaseModel, cache: Path, threads: int) -> Any:
    """Make the encoder, which loads its weights. Raises ModelError."""
    return _named(spec.encoder)(config, cache, threads)


def _named(path: str) -> Any:
    module, _, name = path.partition(":")
    return getattr(importlib.import_module(module), name)


def describe(cache: Path) -> list[dict[str, Any]]:
    """One entry for each encoder, for JSON; reads no weights.

    `package` is what pip takes, `digest` the SHA-256 of its first weights (None without any), `path` where those lie or
    will lie, and `weights` says the same of each set of weights by itself.
    """
    return [_described(spec, cache) for spec in encoders().values()]


def _described(spec: EncoderSpec, cache: Path) -> dict[str, Any]:
    weights = [_described_weights(WEIGHTS[name], cache) for name in spec.weights]
    if spec.package is not None:
        own = _described_package(spec.package)
    elif weights:
        own = weights[0]
    else:
        own = _described_code(spec)
    return {
        "name": spec.name,
        "modality": spec.modality,
        "sets": sorted(name for name, chosen in MODEL_SETS.items() if spec.name in chosen.encoders.values()),
        "dim": spec.dim,
        "package": own["package"],
        "digest": own["digest"],
        "licence": spec.licence,
        "source": own["source"],
        "path": own["path"],
        "installed": own["installed"] and all(entry["installed"] for entry in weights),
        "preprocessing": spec.preprocessing,
        "weights": weights,
    }


def _described_weights(weights: Weights, cache: Path) -> dict[str, Any]:
    path = find(weights, cache)
    return {
        "name": weights.name,
        "package": weights.package,
        "digest": weights.sha256,
        "bytes": weights.bytes,
        "licence": weights.licence,
        "source": weights.source,
        "description": weights.description,
        "path": str(path) if path else None,
        "installed": path is not None,
    }


def _described_package(package: str) -> dict[str, Any]:
    """A package that is itself the encoder: an algorithm without weights."""
    try:
        found = importlib.metadata.distribution(package)
    except importlib.metadata.PackageNotFoundError:
        return {"package": package, "digest": None, "source": package, "path": None, "installed": False}
    return {
        "package": f"{package}=={found.version}",
        "digest": None,
        "source": f"algorithms of the package {package}, without weights",
        "path": str(found.locate_file(package)),
        "installed": True,
    }


def _described_code(spec: EncoderSpec) -> dict[str, Any]:
    """An encoder that is code alone, or whose weights come from a hub."""
    module = importlib.util.find_spec(spec.modules[0].partition(".")[0])
    source = "code alone, without weights" if spec.hub is None else f"the model {spec.hub} of a hub, or a directory"
    return {
        "package": spec.modules[0].partition(".")[0],
        "digest": None,
        "source": source,
        "path": module.origin if module else None,
        "installed": module is not None,
    }
