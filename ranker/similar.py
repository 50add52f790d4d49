"""The videos most like one, and what each modality adds to the likeness."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from ranker.moments import by_modality, contributions
from ranker.video_table import VideoTable
from store.errors import InputError


@dataclass(frozen=True)
class Neighbour:
    """One neighbour. `score` is the cosine of the two fused vectors, -1..1. `terms` add up to it: what each modality of
    this neighbour adds, and `crossed`, the products between different modalities, which are noise around 0."""

    video: str
    score: float
    terms: dict[str, float]

    def as_json(self) -> dict[str, Any]:
        """The record as JSON."""
        return {"video": self.video, "score": self.score, "terms": self.terms}


def similar(table: VideoTable, video_id: str, k: int) -> list[Neighbour]:
    """The `k` nearest other videos by cosine, nearest first; ties go by video id (at the end of the
    list, which of them are in goes by the order of their publication).

    Raises `video.unknown` when the video is not published, `request.invalid` for k below 1.
    """
    if k < 1:
        raise InputError("request.invalid", f"k must be at least 1, got {k}.")
    seed = table.get(video_id)
    snapshot = table.snapshot
    place = snapshot.row_of[video_id]
    allowed = snapshot.alive.copy()
    allowed[place] = False
    rows, _ = snapshot.index.search(snapshot.vectors[place : place + 1], min(k, max(len(snapshot), 1)), allowed)
    found = []
    for row in rows[0][rows[0] >= 0].tolist():
        video = table.find(snapshot.ids[row])
        if video is None:
            continue
        parts = by_modality(video, contributions(video, seed))
        terms: dict[str, float] = {str(modality): value for modality, value in parts.items()}
        terms["crossed"] = float(video.vector.astype(np.float64) @ seed.vector.astype(np.float64)) - sum(parts.values())
        found.append(Neighbour(video.id, math.fsum(terms.values()), terms))
    return sorted(found, key=lambda neighbour: (-neighbour.score, neighbour.video))
