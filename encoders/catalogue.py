"""Which encoders there are, which of them a model set takes, and what names the result of each."""

from __future__ import annotations

import ast
import hashlib
import importlib.metadata
import importlib.util
import io
import tokenize
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache as remember
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

from pydantic import BaseModel

from encoders.weights import WEIGHTS, Weights, find
from store.errors import ModelError

_HERE = Path(__file__).parent
_Place = tuple[int, int]  # in a source: line and column, both from 0
_Span = tuple[_Place, _Place]
EncoderModality = Literal["vision", "audio", "speech", "text"]


@dataclass(frozen=True)
class EncoderSpec:
    """One encoder.

    `dim` is the length of its token embeddings, None when it gives none. `weights` are names in `WEIGHTS`, `modules`
    the dotted modules whose code makes the result, and `data` the files beside this one that they read. `package`
    carries the algorithm where no weights do.
    """

    name: str
    modality: EncoderModality
    dim: int | None
    weights: tuple[str, ...]
    modules: tuple[str, ...]
    preprocessing: str
    licence: str
    data: tuple[str, ...] = ()
    package: str | None = None


@dataclass(frozen=True)
class ModelSet:
    """A named choice of encoders, each by its name in `ENCODERS`."""

    name: str
    vision: str
    audio: str
    speech: str
    text: str


_SPECS = (
    EncoderSpec(
        name="efficientnet-lite0",
        modality="vision",
        dim=1280,
        weights=("efficientnet-lite0",),
        modules=("encoders.vision", "encoders.efficientnet_lite"),
        preprocessing="shorter side to 256 px (bicubic), middle 224 x 224 px, RGB to -1..1",
        licence=WEIGHTS["efficientnet-lite0"].licence,
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
    ),
    EncoderSpec(
        name="minilm-l6-v2",
        modality="text",
        dim=384,
        weights=("minilm-l6-v2",),
        modules=("encoders.text", "encoders.keywords", "encoders.stop_words"),
        preprocessing="lower-cased WordPiece, at most 256 tokens",
        licence=WEIGHTS["minilm-l6-v2"].licence,
    ),
)
ENCODERS: Mapping[str, EncoderSpec] = MappingProxyType({spec.name: spec for spec in _SPECS})
MODEL_SETS: Mapping[str, ModelSet] = MappingProxyType(
    {
        "starter": ModelSet(
            "starter",
            vision="efficientnet-lite0",
            audio="librosa-features",
            speech="whisper-base",
            text="minilm-l6-v2",
        )
    }
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


def identity(spec: EncoderSpec, config: BaseModel) -> dict[str, Any]:
    """What changes the encoder's result, for JSON: its name, its weights' digests, its configuration, its code.

    Versions of libraries are left out: a fleet that is half updated still agrees on what is done, and results differ by
    rounding.
    """
    return {
        "encoder": spec.name,
        "weights": {name: WEIGHTS[name].digests for name in spec.weights},
        "config": config.model_dump(mode="json"),
        "code": code_digest(*spec.modules),
        "data": {name: hashlib.sha256((_HERE / name).read_bytes()).hexdigest() for name in spec.data},
    }


def describe(cache: Path) -> list[dict[str, Any]]:
    """One entry for each encoder, for JSON; reads no weights.

    `package` is what pip takes, `digest` the SHA-256 of its first weights (None without any), `path` where those lie or
    will lie, and `weights` says the same of each set of weights by itself.
    """
    return [_described(spec, cache) for spec in ENCODERS.values()]


def _described(spec: EncoderSpec, cache: Path) -> dict[str, Any]:
    weights = [_described_weights(WEIGHTS[name], cache) for name in spec.weights]
    own = weights[0] if spec.package is None else _described_package(spec.package)
    return {
        "name": spec.name,
        "modality": spec.modality,
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


@remember
def code_digest(*places: str) -> str:
    """SHA-256 in hex of what the code at these places does: its source without comments, docstrings and blank lines.

    A place is a module, `package.module`, or one function or class of it, `package.module:name`. The sources are found
    without importing the modules, and the digest is the same on every Python from 3.11. Raises FileNotFoundError, and
    KeyError for a name that the module does not define.
    """
    found = hashlib.sha256()
    for place in places:
        module, _, name = place.partition(":")
        source = _source(module)
        code = normalised(_definition(source, name) if name else source)
        found.update(place.encode() + b"\0" + code.encode() + b"\0")
    return found.hexdigest()


def _definition(source: str, name: str) -> str:
    """The lines of the function or class called `name` at the top level of `source`, decorators left out."""
    for node in ast.parse(source).body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and node.name == name:
            return "\n".join(source.split("\n")[node.lineno - 1 : node.end_lineno])
    raise KeyError(name)


def _source(module: str) -> str:
    """The text of a module's file. Only the first name is looked up: a dotted look-up would import the parents."""
    first, *inner = module.split(".")
    spec = importlib.util.find_spec(first)
    roots = (spec.submodule_search_locations or ()) if spec else ()
    for root in roots:
        path = Path(root, *inner)
        for candidate in (path.with_suffix(".py"), path / "__init__.py"):
            if candidate.is_file():
                return candidate.read_text(encoding="utf-8")
    raise FileNotFoundError(f"no source of the module {module}")


def normalised(source: str) -> str:
    """`source` without comments, docstrings, blank lines and trailing blanks; other strings are untouched.

    What goes is cut out of the text, and the rest is kept as it stands: since Python 3.12 an f-string is many tokens
    and before it was one, so that tokens put together again would differ.
    """
    lines = source.split("\n")
    comments, strings = _comments_and_strings(source)
    docstrings = set(_docstrings(ast.parse(source), lines))
    # A line that ends inside a string is part of its text, blank or not.
    kept = {line for start, end in strings if (start, end) not in docstrings for line in range(start[0], end[0])}
    for (first, left), (last, right) in sorted([*comments, *docstrings], reverse=True):
        lines[first : last + 1] = [lines[first][:left].rstrip() + lines[last][right:], *[""] * (last - first)]
    stripped = [line if index in kept else line.rstrip() for index, line in enumerate(lines)]
    return "\n".join(line for index, line in enumerate(stripped) if line or index in kept)


def _comments_and_strings(source: str) -> tuple[list[_Span], list[_Span]]:
    """Where the comments and the string literals are; an f-string counts as one literal on every Python."""
    comments: list[_Span] = []
    strings: list[_Span] = []
    opened: list[_Place] = []
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        start, end = (token.start[0] - 1, token.start[1]), (token.end[0] - 1, token.end[1])
        kind = tokenize.tok_name[token.type]
        if kind == "COMMENT":
            comments.append((start, end))
        elif kind == "FSTRING_START":
            opened.append(start)
        elif kind == "FSTRING_END":
            start = opened.pop()
            if not opened:
                strings.append((start, end))
        elif kind == "STRING" and not opened:
            strings.append((start, end))
    return comments, strings


def _docstrings(tree: ast.Module, lines: list[str]) -> Iterator[_Span]:
    for node in ast.walk(tree):
        if not isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) or not node.body:
            continue
        first = node.body[0]
        if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and isinstance(first.value.value, str):
            text = first.value
            last = text.lineno if text.end_lineno is None else text.end_lineno
            yield (
                _place(lines, text.lineno, text.col_offset),
                _place(lines, last, text.end_col_offset or 0),
            )


def _place(lines: list[str], line: int, offset: int) -> _Place:
    """`ast` counts lines from 1 and columns in bytes of UTF-8."""
    return line - 1, len(lines[line - 1].encode()[:offset].decode())
