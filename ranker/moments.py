"""Where two videos are alike: what each token of one adds to their cosine, and the moment that adds most, in words."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from ranker.modality_parts import modality_sums, weighted_tokens
from ranker.video_table import PublishedVideo, VideoRow, VideoTable
from store.records import MODALITIES, AttendedToken, Modality

Float64 = npt.NDArray[np.float64]
Reason = dict[str, Any]

WHOLE_VIDEO_SOURCES = frozenset({"title", "description", "tags"})


def called(row: VideoRow) -> str:
    """What to call a video in a sentence: its title in quotes, else the beginning of its id."""
    return f"“{row.title}”" if row.title else f"video {row.id[:12]}"


def contributions(video: PublishedVideo, other: PublishedVideo) -> Float64:
    """float64 [n_tokens]: what each token of `video` adds to the cosine of the two vectors, through the tokens of the
    same modality in `other`.

    A vector is the weighted sum of its token vectors at unit length, so the cosine is the sum of these and of products
    across modalities. The latter are near 0 (`fusion.projection`) and mean nothing: no token is credited with them.
    """
    numbers, mine = modality_sums(video)
    _, theirs = modality_sums(other)
    added: Float64 = np.einsum("td,td->t", weighted_tokens(video), theirs[numbers])
    return added / (np.linalg.norm(mine.sum(axis=0)) * np.linalg.norm(theirs.sum(axis=0)))


def by_modality(video: PublishedVideo, added: Float64) -> dict[Modality, float]:
    """The sums of token contributions over each modality that the video has."""
    numbers, _ = modality_sums(video)
    sums = np.bincount(numbers, added, len(MODALITIES))
    counts = np.bincount(numbers, minlength=len(MODALITIES))
    return {modality: float(sums[place]) for place, modality in enumerate(MODALITIES) if counts[place]}


def moment(table: VideoTable, row: VideoRow, anchor: VideoRow) -> list[Reason]:
    """The token that does most for the modality that does most, and its counterpart in the watched video."""
    video, other = table.find(row.id), table.find(anchor.id)
    if video is None or other is None:
        return []
    added = contributions(video, other)
    modality, share = max(by_modality(video, added).items(), key=lambda item: item[1])
    if share <= 0:
        return []
    mine = _of(video, modality)
    best = max(mine, key=lambda index: (added[index], -index))
    theirs = _of(other, modality)
    token = video.attributes.tokens[best]
    reason: Reason = {
        "kind": "moment",
        "text": f"{_spoken(token)} {_verb(modality)}",
        "modality": modality,
        "source": token.source,
        "start": token.start,
        "end": token.end,
        "share": share,
        "video": anchor.id,
    }
    counterpart = None
    if theirs:
        near = other.weights[theirs].astype(np.float64) * (other.token_vectors[theirs] @ video.token_vectors[best])
        counterpart = other.attributes.tokens[theirs[int(np.argmax(near))]]
        reason["there"] = {"source": counterpart.source, "start": counterpart.start, "end": counterpart.end}
    reason["text"] = f"{_spoken(token)} {_verb(modality)} {_there(counterpart, anchor)}."
    return [reason]


def _of(video: PublishedVideo, modality: Modality) -> list[int]:
    numbers, _ = modality_sums(video)
    inside: list[int] = np.flatnonzero((numbers == MODALITIES.index(modality)) & (video.weights > 0)).tolist()
    return inside


def _spoken(token: AttendedToken) -> str:
    if token.source in WHOLE_VIDEO_SOURCES:
        return f"Its {token.source} {'are' if token.source == 'tags' else 'is'}"
    written = {"transcript": "speech", "screen": "text on screen"}.get(token.source, token.source)
    what = {"vision": "picture", "audio": "sound", "text": written}[token.modality]
    return f"The {what} at {clock(token.start)} is"


def _verb(modality: Modality) -> str:
    return {"vision": "like", "audio": "like", "text": "close in meaning to"}[modality]


def _there(token: AttendedToken | None, anchor: VideoRow) -> str:
    if token is None:
        return called(anchor)
    if token.source in WHOLE_VIDEO_SOURCES:
        return f"the {token.source} of {called(anchor)}"
    return f"{clock(token.start)} of {called(anchor)}"


def clock(seconds: float) -> str:
    """Minutes and seconds, as players show them."""
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"
