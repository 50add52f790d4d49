"""A fitted model as bytes: one safetensors object with its name, its settings and a digest of all of it.

Same model, same bytes; the version of a model is the digest. Nothing is pickled.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from ranker.models.model import Arrays, Model, model_class
from store.errors import ModelError, ReelsenseError

FORMAT = 1
ENTRY = "reelsense"


def to_bytes(model: Model) -> bytes:
    """The object. Raises `ranker.not_finite` for a model that learnt numbers that are not finite."""
    from safetensors.numpy import save

    arrays = {name: np.ascontiguousarray(array) for name, array in sorted(model.arrays().items())}
    for name, array in arrays.items():
        if np.issubdtype(array.dtype, np.floating) and not np.isfinite(array).all():
            raise ModelError("ranker.not_finite", f"{name} of the model {model.name} is not finite.")
    config = model.config.model_dump(mode="json")
    facts = {"format": FORMAT, "model": model.name, "config": config, "digest": _digest(model.name, config, arrays)}
    text = json.dumps(facts, sort_keys=True, separators=(",", ":"))
    data: bytes = save(arrays, metadata={ENTRY: text})
    return data


def version_of(model: Model) -> str:
    """16 hexadecimal digits that name what was learnt."""
    return _digest(model.name, model.config.model_dump(mode="json"), model.arrays())[:16]


def from_bytes(data: bytes, version: str = "") -> Model:
    """What `to_bytes` wrote. Raises `model.damaged` for bytes that are not whole, or not of `version` where one is
    given, and `ranker.bad_model` for a model that this version of the code does not have or that does not fit."""
    from safetensors.numpy import load

    try:
        length = int.from_bytes(data[:8], "little")
        facts = json.loads(json.loads(data[8 : 8 + length])["__metadata__"][ENTRY])
        arrays: Arrays = load(data)
        known = facts["format"] == FORMAT
        name, config, digest = str(facts["model"]), dict(facts["config"]), str(facts["digest"])
    except Exception as error:
        raise _damaged(f"it cannot be read ({type(error).__name__})") from error
    if not known:
        raise _bad("it was written by another version of this program")
    if _digest(name, config, arrays) != digest or (version and digest[:16] != version):
        raise _damaged("its content does not have the digest that it states")
    try:
        return model_class(name).from_arrays(config, arrays)
    except ReelsenseError as error:
        if error.code != "ranker.no_such_model":
            raise
        raise _bad(f"this version has no model {name[:40]!r}") from error
    except Exception as error:
        raise _bad(f"its parts do not fit together ({type(error).__name__})") from error


def _digest(name: str, config: Mapping[str, Any], arrays: Mapping[str, npt.NDArray[Any]]) -> str:
    told = hashlib.sha256(json.dumps([FORMAT, name, config], sort_keys=True).encode())
    for key in sorted(arrays):
        array = np.ascontiguousarray(arrays[key])
        told.update(f"{key} {array.dtype} {array.shape}".encode())
        told.update(array.tobytes())
    return told.hexdigest()


def _damaged(why: str) -> ModelError:
    return ModelError("model.damaged", f"The stored model cannot be used: {why}.", hint="Train it again.")


def _bad(why: str) -> ModelError:
    return ModelError("ranker.bad_model", f"The stored model cannot be served: {why}.", hint="Train it again.")
