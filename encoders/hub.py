"""Models of the transformers library: from a directory, from the hub's cache, or from the hub where that is allowed.

Only safetensors and text are read or fetched, and no code that comes with a model is run. A model is looked for where
it is before it is fetched, so that it never changes by itself; `digests` says what it is, for the version of what it
makes.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from json import loads
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from encoders.weights import file_sha256
from store.errors import ModelError, SettingsError

Precision = Literal["float32", "float16", "bfloat16"]

INDEX = "model.safetensors.index.json"
# All that loading reads. Folders hold the same model for other runtimes, and *.fp32* the same weights twice as large.
FILES = ("*.safetensors", "*.json", "*.txt", "*.model")
OTHERS = ("*/*", "*fp32*")
_HUB_ID = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")
_COMMIT = re.compile(r"[0-9a-f]{40}")


class HubConfig(BaseModel):
    """What every encoder of a hub's model can be told.

    `model` is the hub's id, `OWNER/NAME`, or a directory (absolute, or beginning with `.` or `~`). `revision` is a
    branch, a tag or, best, a commit of the hub's. With `device` and `batch_size` results differ by rounding alone, so
    that they are no part of a version (`encoders.identity`).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    model: str = Field(min_length=1)
    revision: str | None = Field(None, pattern=r"^[\w][\w./-]*$")
    precision: Precision = "float32"
    device: str = Field("auto", pattern=r"^(auto|cpu|mps|(cuda|xpu)(:\d+)?)$")
    batch_size: int = Field(16, ge=1, le=4096)

    @field_validator("model")
    @classmethod
    def _names_a_model(cls, model: str) -> str:
        if _is_directory(model) or _HUB_ID.fullmatch(model):
            return model
        raise ValueError("`model` is OWNER/NAME on the hub, or a directory: an absolute path, or ./PATH, or ~/PATH")


@dataclass(frozen=True)
class Found:
    """Where a model's files lie. `commit` is the hub's, None for a directory of the user's own."""

    directory: Path
    commit: str | None


def find(config: HubConfig, cache: Path) -> Found | None:
    """The model where it already is: the named directory, CACHE/hub, the hub's own cache. None when it is nowhere
    whole.

    Reaches for no network.
    """
    if _is_directory(config.model):
        directory = Path(config.model).expanduser()
        return Found(directory, None) if _whole(directory) else None
    for folder in (cache / "hub", None):
        directory_in_cache = _snapshot(config, folder, online=False)
        if directory_in_cache is not None:
            return directory_in_cache
    return None


def obtain(config: HubConfig, cache: Path) -> Found:
    """The model's files, fetched into CACHE/hub when they are nowhere and HF_HUB_OFFLINE does not forbid it.

    Raises `model.missing`, which says in one sentence what to do.
    """
    found = find(config, cache)
    if found is not None:
        return found
    if _is_directory(config.model):
        raise ModelError(
            "model.missing",
            f"{config.model} is not a directory with config.json and whole *.safetensors files.",
            hint="Put the model's files there, or name another directory or a hub id in the encoder's `model`.",
        )
    if _offline():
        raise _missing(config, cache, "and HF_HUB_OFFLINE forbids to fetch it")
    try:
        fetched = _snapshot(config, cache / "hub", online=True)
    except Exception as error:  # the hub's client raises a dozen kinds: HTTP, DNS, disk, gated, unknown name
        raise _missing(config, cache, f"and fetching it failed: {_first_line(error)}") from error
    if fetched is None:
        raise _missing(config, cache, "and what the hub has of it lacks config.json or *.safetensors files")
    return fetched


def fetch(config: HubConfig, cache: Path) -> None:
    """See to it that the model's files are on this machine, where they come from a hub. Raises `model.missing`."""
    if _HUB_ID.fullmatch(config.model):
        obtain(config, cache)


def digests(config: HubConfig, cache: Path) -> dict[str, str]:
    """What the weights are, for a version: the hub's commit, or the SHA-256 of every file of a directory by name.

    A pinned commit is its own answer, on machines too that have no copy of the model. Raises `model.missing`.
    """
    if not _is_directory(config.model) and config.revision and _COMMIT.fullmatch(config.revision):
        return {"commit": config.revision}
    found = find(config, cache)
    if found is None:
        raise _missing(config, cache, "so that nobody can say which model it is")
    if found.commit is not None:
        return {"commit": found.commit}
    files = {path for pattern in FILES for path in found.directory.glob(pattern)}
    return {path.name: file_sha256(path) for path in sorted(files)}


def load_model(found: Found, kind: Any, config: HubConfig, may_lack: tuple[str, ...] = ()) -> Any:
    """The model, ready to run on its device, through `kind` (a class of transformers with `from_pretrained`).

    Parameters whose names begin with one of `may_lack` need not be in the files. Any other that is missing would be
    filled with noise: it raises `model.damaged`, as everything does that does not load.
    """
    import torch

    quiet()
    try:
        model, report = kind.from_pretrained(
            found.directory, dtype=getattr(torch, config.precision), output_loading_info=True, **_LOCAL
        )
    except Exception as error:  # OSError, ValueError, RuntimeError, SafetensorError: all say that it does not load
        raise _damaged(config, _first_line(error)) from error
    lacking = [name for name in sorted(report["missing_keys"]) if not name.startswith(may_lack or ("\0",))]
    if lacking or report["mismatched_keys"]:
        raise _damaged(config, f"its files lack {', '.join(lacking[:3]) or 'arrays of the right shape'}")
    device = device_of(config.device)
    if device.type == "cuda":  # TensorFloat-32 has 10 bits of mantissa, and the fastest algorithm differs by the run
        torch.backends.cudnn.allow_tf32 = False
        torch.backends.cudnn.deterministic = True
    return model.to(device).eval().requires_grad_(False)


def load_part(found: Found, kind: Any, config: HubConfig, **options: Any) -> Any:
    """What goes before a model (tokenizer, image processor, feature extractor), through the class `kind`."""
    quiet()
    try:
        return kind.from_pretrained(found.directory, local_files_only=True, trust_remote_code=False, **options)
    except Exception as error:  # as above
        raise _damaged(config, f"no {kind.__name__} in its files: {_first_line(error)}") from error


def device_of(name: str) -> Any:
    """The torch.device of this name; `auto` is the first accelerator, else the CPU. Raises `settings.invalid`."""
    import torch

    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    device = torch.device(name)
    if device.type != "cpu":
        backend = torch.backends.mps if device.type == "mps" else getattr(torch, device.type)
        count = 1 if device.type == "mps" else backend.device_count()
        if not backend.is_available() or (device.index or 0) >= count:
            raise SettingsError(
                "settings.invalid", f"This machine has no device {name}.", hint="Set the encoder's `device` to auto."
            )
    return device


def quiet() -> None:
    """No progress bars and no advice from transformers: logs are ours."""
    from transformers.utils import logging

    logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]


_LOCAL: dict[str, Any] = {"local_files_only": True, "use_safetensors": True, "trust_remote_code": False}


def _is_directory(model: str) -> bool:
    """By its form alone: what it means must not depend on the folder in which a worker was started."""
    return model.startswith((".", "~")) or Path(model).is_absolute()


def _offline() -> bool:
    return os.environ.get("HF_HUB_OFFLINE", "").upper() in {"1", "ON", "YES", "TRUE"}


def _snapshot(config: HubConfig, folder: Path | None, *, online: bool) -> Found | None:
    """The model in this cache of hub models (None is the hub's own), fetched into it if `online`."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        directory = Path(
            snapshot_download(
                config.model,
                revision=config.revision,
                cache_dir=folder,
                local_files_only=not online,
                allow_patterns=list(FILES),
                ignore_patterns=list(OTHERS),
            )
        )
    except LocalEntryNotFoundError:
        if online:
            raise
        return None
    return Found(directory, directory.name) if _whole(directory) else None


def _whole(directory: Path) -> bool:
    """Whether config and all weights are there; an interrupted copy may have left out any file."""
    if not (directory / "config.json").is_file():
        return False
    if (directory / INDEX).is_file():
        try:
            shards = set(loads((directory / INDEX).read_text(encoding="utf-8"))["weight_map"].values())
        except (OSError, ValueError, KeyError, TypeError, AttributeError):  # ValueError: neither JSON nor UTF-8
            return False
        return all((directory / shard).is_file() for shard in shards)
    return (directory / "model.safetensors").is_file()


def _missing(config: HubConfig, cache: Path, why: str) -> ModelError:
    name = config.model + (f" at {config.revision}" if config.revision else "")
    return ModelError(
        "model.missing",
        f"The model {name} is neither in {cache / 'hub'} nor in the hub's own cache, {why}.",
        hint="`reelsense models --fetch` gets it where huggingface.co can be reached and HF_HUB_OFFLINE is not 1; or "
        f"put the files of {config.model} in a directory and name that in the encoder's option `model`.",
    )


def _damaged(config: HubConfig, why: str) -> ModelError:
    return ModelError(
        "model.damaged",
        f"The model {config.model} does not load: {why}.",
        hint="Remove it from the cache so that it is fetched again; a repository without safetensors cannot be used.",
    )


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return (lines[0] if lines else type(error).__name__).rstrip(".")
