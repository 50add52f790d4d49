"""Artifacts as bytes: safetensors with one metadata entry, and the keys they are stored under.

The same artifact gives the same bytes: arrays are laid out by name, the JSON is sorted, and there is exactly one
metadata entry (the order of several is not fixed by the format).
"""

from __future__ import annotations

import hashlib
import json
import re
from typing import Any

import numpy as np

from store.errors import PassingError
from store.records import Artifact, Metadata, Tokens

METADATA_ENTRY = "reelsense"
_ID = re.compile(r"[0-9a-f]{32}")


def digest(value: Any, length: int = 16) -> str:
    """Hex digest (`length` characters) of any JSON value: equal values, equal digests, on every machine."""
    canonical = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return hashlib.sha256(canonical.encode()).hexdigest()[:length]


def revision_of(metadata: Metadata) -> str:
    """The revision of these words."""
    said = metadata.model_dump(mode="json")
    # Words that were given before videos could name a sound keep their revision.
    if not metadata.sound:
        del said["sound"]
    return digest(said)


def video_id_of(sha256: str) -> str:
    """The id of the video whose bytes have this SHA-256: its first 128 bits in hex."""
    return sha256[:32]


def is_video_id(text: str) -> bool:
    """Whether `text` has the form of a whole video id."""
    return bool(_ID.fullmatch(text))


def artifact_key(stage: str, version: str, video_id: str, revision: str) -> str:
    """The key of an artifact: `artifacts/STAGE/VERSION/VIDEO`, with `-REVISION` where the uploader's words went in."""
    leaf = f"{video_id}-{revision}" if revision else video_id
    return f"artifacts/{stage}/{version}/{leaf}"


def source_key(video_id: str) -> str:
    """Where the uploaded bytes lie."""
    return f"sources/{video_id}/video"


def metadata_key(video_id: str, revision: str) -> str:
    """Where one revision of the uploader's words lies."""
    return f"sources/{video_id}/metadata-{revision}.json"


def learnt_model_key(name: str, version: str) -> str:
    """Where a model that was learnt from the catalogue lies (`topics`, `fusion`)."""
    return f"models/{name}/{version}"


def learnt_model_card_key(name: str, version: str) -> str:
    """Where the card of such a model lies, in Markdown."""
    return f"models/{name}/{version}.md"


RANKERS = "models/rankers/"


def ranker_key(name: str, version: str, part: str) -> str:
    """Where a part of a trained ranker lies: `safetensors` (what was learnt), `ids.json` (its videos and tags, by
    number), `viewers.json` (its viewers, by number), `json` and `md` (its card)."""
    return f"{RANKERS}{name}/{version}.{part}"


def token_arrays(tokens: Tokens) -> dict[str, np.ndarray[Any, Any]]:
    """The arrays under which an artifact keeps tokens."""
    return {
        "embeddings": tokens.embeddings,
        "start_seconds": tokens.start_seconds,
        "end_seconds": tokens.end_seconds,
        "salience": tokens.salience,
    }


def to_bytes(artifact: Artifact) -> bytes:
    """Serialise; refuses NaN and infinity in attributes and arrays (ValueError), which JSON and cosine cannot carry."""
    from safetensors.numpy import save

    for name, array in artifact.arrays.items():
        if not np.isfinite(array).all():
            raise ValueError(f"array {name!r} of {artifact!r} holds NaN or infinity")
    header = {
        "stage": artifact.stage,
        "version": artifact.version,
        "video_id": artifact.video_id,
        "revision": artifact.revision,
        "attributes": artifact.attributes,
    }
    text = json.dumps(header, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    arrays = {name: np.ascontiguousarray(array) for name, array in sorted(artifact.arrays.items())}
    result: bytes = save(arrays, metadata={METADATA_ENTRY: text})
    return result


def from_bytes(data: bytes) -> Artifact:
    """Read back what `to_bytes` wrote. Raises `store.artifact_damaged` for anything else."""
    from safetensors.numpy import load

    try:
        header_length = int.from_bytes(data[:8], "little")
        header = json.loads(data[8 : 8 + header_length])
        described = json.loads(header["__metadata__"][METADATA_ENTRY])
        return Artifact(arrays=load(data), **described)
    except Exception as error:
        raise PassingError(
            "store.artifact_damaged",
            f"An artifact of {len(data)} bytes cannot be read back: {type(error).__name__}.",
            hint="`reelsense reconcile --verify` makes damaged artifacts again.",
        ) from error
