"""Whisper's weights out of a CTranslate2 `model.bin`, by name, for the `openai-whisper` package.

The file is little-endian: uint32 format version, string spec name, uint32 spec revision, uint32 number of variables;
per variable a string name, uint8 rank, uint32 per dimension, uint8 type, uint32 bytes, data; then uint32 number of
aliases and two strings each. A string is uint16 length (with the closing zero) and bytes. Source: CTranslate2's
`ModelSpec._serialize` (python/ctranslate2/specs/model_spec.py), format version 6.
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from store.errors import ModelError

Array = npt.NDArray[Any]

_FORMAT_VERSION = 6
_TYPES: tuple[type[np.generic], ...] = (np.float32, np.int8, np.int16, np.int32, np.float16)

# What CTranslate2 stores beside weights: how to run the layers, which the other runtime has in its code.
_SWITCHES = re.compile(
    r"decoder/(activation|alibi|alibi_use_positive_positions|alignment_heads|alignment_layer|num_heads|pre_norm"
    r"|scale_alibi|scale_embeddings|start_from_zero_embedding)|encoder/num_heads"
)
_WHOLE = {
    "encoder/position_encodings/encodings": "encoder.positional_embedding",
    "encoder/layer_norm/gamma": "encoder.ln_post.weight",
    "encoder/layer_norm/beta": "encoder.ln_post.bias",
    "decoder/position_encodings/encodings": "decoder.positional_embedding",
    "decoder/embeddings/weight": "decoder.token_embedding.weight",
    "decoder/layer_norm/gamma": "decoder.ln.weight",
    "decoder/layer_norm/beta": "decoder.ln.bias",
    **{
        f"encoder/conv{number}/{kind}": f"encoder.conv{number}.{kind}"
        for number in (1, 2)
        for kind in ("weight", "bias")
    },
}
# A layer's variable, and the parameters that it holds one under another.
_LAYER = {
    "self_attention/layer_norm": ("attn_ln",),
    "self_attention/linear_0": ("attn.query", "attn.key", "attn.value"),
    "self_attention/linear_1": ("attn.out",),
    "attention/layer_norm": ("cross_attn_ln",),
    "attention/linear_0": ("cross_attn.query",),
    "attention/linear_1": ("cross_attn.key", "cross_attn.value"),
    "attention/linear_2": ("cross_attn.out",),
    "ffn/layer_norm": ("mlp_ln",),
    "ffn/linear_0": ("mlp.0",),
    "ffn/linear_1": ("mlp.2",),
}
_LAYER_NAME = re.compile(r"(encoder|decoder)/layer_(\d+)/(.+)/(gamma|beta|weight|bias)")
_KIND = {"gamma": "weight", "beta": "bias", "weight": "weight", "bias": "bias"}


@dataclass(frozen=True, eq=False)
class WhisperWeights:
    """`dims` are the fields of openai-whisper's ModelDimensions; `parameters` the arrays of its state dict by name."""

    dims: dict[str, int]
    parameters: dict[str, Array]

    def __repr__(self) -> str:
        return f"WhisperWeights({len(self.parameters)} parameters, {self.dims})"


def read_variables(path: Path) -> dict[str, Array]:
    """Every variable of a CTranslate2 `model.bin` by name, in the stored type. Raises `model.damaged`."""
    content = path.read_bytes()
    try:
        return _parsed(content)
    except (struct.error, ValueError, IndexError, UnicodeDecodeError) as error:
        raise ModelError(
            "model.damaged", f"{path.name} is not a CTranslate2 model that can be read: {error}."
        ) from error


def convert(variables: dict[str, Array]) -> WhisperWeights:
    """The same weights under the names of openai-whisper's state dict, in the stored type and bit for bit.

    CTranslate2 lays query, key and value of one attention under each other; Whisper has no key bias, so that part must
    be zero. A variable that is not known here raises `model.damaged`: nothing is left over in silence.
    """
    parameters: dict[str, Array] = {}
    for name, array in sorted(variables.items()):
        if name in _WHOLE:
            parameters[_WHOLE[name]] = array
        elif not _SWITCHES.fullmatch(name):
            parameters.update(_layer_parameters(name, array))
    try:
        dims = _dims(variables, parameters)
    except KeyError as error:
        raise ModelError("model.damaged", f"The Whisper weights lack {error}.") from error
    except (ValueError, IndexError, TypeError) as error:
        raise ModelError("model.damaged", f"An array of the Whisper weights is of a wrong shape: {error}.") from error
    return WhisperWeights(dims, parameters)


def _parsed(content: bytes) -> dict[str, Array]:
    position = 0

    def number(code: str) -> int:
        nonlocal position
        (value,) = struct.unpack_from("<" + code, content, position)
        position += struct.calcsize("<" + code)
        return int(value)

    def text() -> str:
        nonlocal position
        length = number("H")
        raw = content[position : position + length]
        position += length
        return raw.rstrip(b"\0").decode()

    version = number("I")
    if version != _FORMAT_VERSION:
        raise ValueError(f"format version {version}, supported is {_FORMAT_VERSION}")
    text()  # name of the specification
    number("I")  # and its revision
    variables: dict[str, Array] = {}
    for _ in range(number("I")):
        name = text()
        shape = [number("I") for _ in range(number("B"))]
        kind = _TYPES[number("B")]
        size = number("I")
        items = size // np.dtype(kind).itemsize
        variables[name] = np.frombuffer(content, kind, items, position).reshape(shape if items != 1 or shape else ())
        position += size
    for _ in range(number("I")):
        alias, name = text(), text()
        if name not in variables:
            raise ValueError(f"{alias} is another name of {name}, which is not there")
    if position != len(content):
        raise ValueError(f"{len(content) - position} bytes are left over")
    return variables


def _layer_parameters(name: str, array: Array) -> dict[str, Array]:
    match = _LAYER_NAME.fullmatch(name)
    parts = _LAYER.get(match[3]) if match else None
    if match is None or parts is None:
        raise ModelError("model.damaged", f"The Whisper weights hold {name}, which has no place in openai-whisper.")
    if array.ndim == 0 or len(array) % len(parts):
        raise ModelError("model.damaged", f"{name} of shape {array.shape} does not divide into {len(parts)} parts.")
    found = {}
    for part, values in zip(parts, np.split(array, len(parts)), strict=True):
        target = f"{match[1]}.blocks.{match[2]}.{part}.{_KIND[match[4]]}"
        if target.endswith(".key.bias"):
            if np.any(values):
                raise ModelError("model.damaged", f"{name} holds a key bias, which Whisper does not have.")
            continue
        found[target] = values
    return found


def _dims(variables: dict[str, Array], parameters: dict[str, Array]) -> dict[str, int]:
    audio_ctx, audio_state = parameters["encoder.positional_embedding"].shape
    text_ctx, text_state = parameters["decoder.positional_embedding"].shape
    return {
        "n_mels": parameters["encoder.conv1.weight"].shape[1],
        "n_audio_ctx": audio_ctx,
        "n_audio_state": audio_state,
        "n_audio_head": int(variables["encoder/num_heads"]),
        "n_audio_layer": _layers(parameters, "encoder"),
        "n_vocab": parameters["decoder.token_embedding.weight"].shape[0],
        "n_text_ctx": text_ctx,
        "n_text_state": text_state,
        "n_text_head": int(variables["decoder/num_heads"]),
        "n_text_layer": _layers(parameters, "decoder"),
    }


def _layers(parameters: dict[str, Array], side: str) -> int:
    return len({name.split(".")[2] for name in parameters if name.startswith(f"{side}.blocks.")})
