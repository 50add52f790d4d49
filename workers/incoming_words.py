"""The words that come with an incoming file: a JSON sidecar, caption files, and what the uploader's tool attached.

All of it is somebody else's writing: bounded, parsed strictly, and never a path. A field that is unknown or of another
kind refuses the upload with `metadata.invalid`, as the API does, so that a misspelt one is noticed.
"""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any

from store.errors import InputError
from store.records import WORD_FIELDS
from workers.captions import _LANGUAGE
from workers.captions import SUFFIXES as CAPTION_SUFFIXES

MOST_SIDECAR_BYTES = 256 * 2**10
PARTIAL_SUFFIXES = (".part", ".partial", ".tmp", ".temp", ".crdownload", ".download", ".filepart", ".aside")


def base_name(key: str) -> str:
    """The last part of a key."""
    return key.rsplit("/", 1)[-1]


def folder_of(key: str) -> str:
    """All of a key but its last part, with its `/`; empty where it has but one."""
    return key[: len(key) - len(base_name(key))]


def is_passed_over(key: str) -> bool:
    """Whether a key is one of those that nobody means to be taken: hidden, or of a download that goes on."""
    parts = key.split("/")
    return any(part.startswith(".") and part not in (".", "..") for part in parts) or parts[-1].lower().endswith(
        PARTIAL_SUFFIXES
    )


def is_words(key: str) -> bool:
    """Whether a key is that of a sidecar by its ending: `.json`, or a caption file."""
    return base_name(key).lower().endswith((".json", *CAPTION_SUFFIXES))


def stem_of(key: str) -> str:
    """A key without its last ending: `a/clip` for `a/clip.mp4`."""
    return folder_of(key) + PurePosixPath(base_name(key)).stem if base_name(key) else key


def stems_of_words(key: str) -> list[str]:
    """What a video may be called whose sidecar this is: `a/clip.en` and `a/clip` for `a/clip.en.vtt`."""
    whole = stem_of(key)
    return [whole] if key.lower().endswith(".json") else [whole, stem_of(whole)]


def sidecars_of(video: str, beside: list[str]) -> tuple[str | None, list[str]]:
    """Of the keys that begin like a video's: its JSON sidecar (`clip.mp4.json` before `clip.json`), its captions."""
    stems = (video, stem_of(video))
    described = next((stem + ".json" for stem in stems if stem + ".json" in beside), None)
    captions = []
    for key in beside:
        stem = stem_of(key)
        if key.lower().endswith(CAPTION_SUFFIXES) and (
            stem in stems or any(stem.startswith(it + ".") and _LANGUAGE.fullmatch(stem[len(it) + 1 :]) for it in stems)
        ):
            captions.append(key)
    return described, sorted(captions)


def parsed_sidecar(data: bytes) -> dict[str, Any]:
    """The fields of a JSON sidecar, each of its kind: texts, and `tags` a list of texts or one text with commas.

    Raises `metadata.invalid`.
    """
    try:
        content = json.loads(data.decode("utf-8-sig"), parse_constant=_no_number)
    except (ValueError, RecursionError) as error:
        raise InputError("metadata.invalid", f"The sidecar is no JSON: {type(error).__name__}.") from None
    if not isinstance(content, dict):
        raise InputError("metadata.invalid", "The sidecar is no JSON object.")
    unknown = sorted(set(content) - set(WORD_FIELDS))
    if unknown:
        raise InputError(
            "metadata.invalid",
            f"The sidecar has an unknown field {clean(unknown[0])[:60]!r}.",
            hint=f"There are {', '.join(WORD_FIELDS)}.",
        )
    words: dict[str, Any] = {}
    for name, value in content.items():
        if value is None:
            continue
        if name == "tags":
            tags = value.split(",") if isinstance(value, str) else value
            if not isinstance(tags, list) or not all(isinstance(tag, str) for tag in tags):
                raise InputError("metadata.invalid", "The sidecar's tags are no list of texts.")
            words[name] = [clean(tag) for tag in tags]
        elif isinstance(value, str):
            words[name] = clean(value)
        else:
            raise InputError("metadata.invalid", f"The sidecar's {name} is no text.")
    return words


def attached_words(attached: Mapping[str, str]) -> dict[str, Any]:
    """The same fields from an object's user metadata (`x-amz-meta-title`, ...); others are other tools' own."""
    words: dict[str, Any] = {name: clean(attached[name]) for name in WORD_FIELDS if attached.get(name)}
    if "tags" in words:
        words["tags"] = words["tags"].split(",")
    return words


def clean(text: str) -> str:
    """Text fit for every database and terminal: without control characters (but line ends and tabs) and half
    surrogates."""
    return "".join(
        "\N{REPLACEMENT CHARACTER}"
        if unicodedata.category(letter) in ("Cc", "Cs") and letter not in "\n\r\t"
        else letter
        for letter in text
    )


def _no_number(_: str) -> None:
    raise ValueError("NaN and infinity are no JSON")
