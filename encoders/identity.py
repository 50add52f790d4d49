"""What names an encoder's result: its weights, its configuration, and its code without comments and docstrings."""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import io
import tokenize
from collections.abc import Iterator
from functools import cache as remember
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from encoders.catalogue import named
from encoders.specs import EncoderSpec
from encoders.weights import WEIGHTS

_Place = tuple[int, int]  # in a source: line and column, both from 0
_Span = tuple[_Place, _Place]
# Where and in which portions something is computed does not change what comes out.
_NO_RESULT = frozenset(("device", "batch_size", "batch_tokens"))


def identity(spec: EncoderSpec, config: BaseModel, cache: Path) -> dict[str, Any]:
    """What changes the encoder's result, for JSON: its name, its weights' digests, its configuration, its code.

    Versions of libraries are left out: a fleet that is half updated still agrees on what is done, and results differ by
    rounding. `cache` is where models of a hub are looked for. Raises `model.missing` where nobody knows which they are.
    """
    own: dict[str, str] = named(spec.digests)(config, cache) if spec.digests else {}
    return {
        "encoder": spec.name,
        "weights": {name: WEIGHTS[name].digests for name in spec.weights} | ({"own": own} if own else {}),
        "config": config.model_dump(mode="json", exclude=set(_NO_RESULT)),
        "code": code_digest(*spec.modules),
        "data": {name: hashlib.sha256((_folder(spec) / name).read_bytes()).hexdigest() for name in spec.data},
    }


def _folder(spec: EncoderSpec) -> Path:
    """Where the data files of an encoder lie: beside its first module."""
    return _file(spec.modules[0]).parent


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
    return _file(module).read_text(encoding="utf-8")


def _file(module: str) -> Path:
    """A module's file. Only the first name is looked up: a dotted look-up would import the parents."""
    first, *inner = module.split(".")
    spec = importlib.util.find_spec(first)
    if spec is not None and spec.submodule_search_locations is None and spec.origin and not inner:
        return Path(spec.origin)
    for root in (spec.submodule_search_locations or ()) if spec else ():
        path = Path(root, *inner)
        for candidate in (path.with_suffix(".py"), path / "__init__.py"):
            if candidate.is_file():
                return candidate
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
