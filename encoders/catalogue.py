"""Which encoders there are, and which of them the settings choose.

An encoder is made by `encoder(config, cache, threads)` (see `encoders.specs` for what it is called with). The built-in
ones are declared in `encoders.built_in`; others are added by packages: an entry point of the group `reelsense.encoders`
that names an `EncoderSpec` (docs/encoders.md shows one).
"""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
from collections.abc import Mapping
from functools import cache as remember
from pathlib import Path
from types import MappingProxyType
from typing import Any

from pydantic import BaseModel, ValidationError

from encoders.built_in import BUILT_IN, MODEL_SETS
from encoders.specs import PLACES, EncoderSpec, ModelSet, Place
from encoders.weights import WEIGHTS, Weights, find
from store.errors import ModelError, SettingsError
from store.settings import Settings

ENTRY_POINTS = "reelsense.encoders"


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
    kind: type[BaseModel] = named(spec.config)
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
    return named(spec.encoder)(config, cache, threads)


def named(path: str) -> Any:
    module, _, name = path.partition(":")
    return getattr(importlib.import_module(module), name)


def fetch(settings: Settings) -> None:
    """Bring the models of a hub that the settings choose onto this machine. Raises `model.missing`."""
    from encoders.hub import HubConfig
    from encoders.hub import fetch as fetch_model

    for spec in chosen(settings).values():
        config = config_of(spec, settings)
        if isinstance(config, HubConfig):
            fetch_model(config, settings.cache)


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
    if spec.hub is not None:
        own = _described_hub(spec, spec.hub, cache)
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
    """An encoder that is code alone."""
    first = spec.modules[0].partition(".")[0]
    module = importlib.util.find_spec(first)
    return {
        "package": first,
        "digest": None,
        "source": "code alone, without weights",
        "path": module.origin if module else None,
        "installed": module is not None,
    }


def _described_hub(spec: EncoderSpec, hub: str, cache: Path) -> dict[str, Any]:
    """An encoder whose weights come from a hub: installed when they are in a cache on this machine."""
    from encoders.hub import find as find_model

    found = find_model(named(spec.config)(), cache)
    return {
        "package": None,
        "digest": found.commit if found else None,
        "source": f"huggingface.co/{hub}, or a directory (option `model`)",
        "path": str(found.directory) if found else None,
        "installed": found is not None,
    }
