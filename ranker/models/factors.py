"""Scores of viewers and videos as vectors: what BPR, SVD++, LightGCN and the factorisation machine leave behind.

    score(u, i) = bias_i + (own_u + sum over videos j of weight_uj memory_j) . video_i

`own` is what was learnt of a viewer in training; `memory` is what a watched video says of whoever watched it, so the
second part follows what the log holds when it is asked, and is all there is of a viewer who was not in training. Every
part is linear in the watched videos, so that a score is told by them exactly.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt
from scipy import sparse  # type: ignore[import-untyped]

from ranker.interactions import Sparse
from ranker.models.model import Arrays, Reason
from ranker.models.training_data import ActLog, Float32, Integers
from store.errors import ModelError


@dataclass(frozen=True, eq=False)
class Factors:
    """`own` float32 [n_viewers, dim], zeros for viewers who had nothing in training; `videos` and `memory` float32
    [n_videos, dim]; `bias` float32 [n_videos]; `seen` bool [n_videos]: which videos had an act in training."""

    own: Float32
    videos: Float32
    memory: Float32
    bias: Float32
    seen: npt.NDArray[np.bool_]

    def __post_init__(self) -> None:
        n_videos, dim = self.videos.shape
        found = (self.own.shape[1:], self.memory.shape, self.bias.shape, self.seen.shape)
        if found != ((dim,), (n_videos, dim), (n_videos,), (n_videos,)):
            raise ModelError(
                "ranker.bad_model", "The factors do not fit together.", hint="Train the model again."
            ) from None

    @property
    def known(self) -> npt.NDArray[np.bool_]:
        """bool [n_viewers]: the viewers who had anything in training."""
        return np.asarray(self.own.any(axis=1), np.bool_)

    def own_of(self, viewers: Integers) -> Float32:
        """float32 [len(viewers), dim]: zeros for viewers who were not in training."""
        found = np.zeros((len(viewers), self.videos.shape[1]), np.float32)
        trained = viewers < len(self.own)
        found[trained] = self.own[viewers[trained]]
        return found

    def score(self, viewers: Integers, weights: Sparse, n_videos: int, context: Float32 | float = 0.0) -> Float32:
        """float32 [len(viewers), n_videos]. `weights`: sparse [len(viewers), n_videos], the weight of each watched
        video; `context` [len(viewers), dim] is added to the viewers' vectors. A video without an act in training gets
        the floor: the lowest score of the others in its row."""
        vectors = self.own_of(viewers) + weights[:, : len(self.videos)] @ self.memory + context
        found = np.zeros((len(viewers), n_videos), np.float32)
        found[:, : len(self.videos)] = vectors @ self.videos.T + self.bias
        unseen = np.append(~self.seen, np.ones(n_videos - len(self.seen), bool))
        if unseen.any():
            found[:, unseen] = found[:, ~unseen].min(axis=1, keepdims=True)
        return found

    def strangers(self, log: ActLog, viewers: Integers) -> Sparse:
        """As `watched`, but zeros for viewers whose own vector was learnt, for models that fold in the others alone."""
        known = np.append(self.known, False)[np.minimum(viewers, len(self.own))]
        return (sparse.diags((~known).astype(np.float32)) @ watched(log, viewers)).tocsr()

    def explain(self, viewer: int, weights: Sparse, video: int, context: Float32 | float = 0.0) -> list[Reason]:
        """What each watched video, the viewer's own taste and the video's bias add to one score, largest first."""
        if video >= len(self.seen) or not self.seen[video]:
            lowest = self.score(np.array([viewer], np.int64), weights, max(len(self.seen), video + 1), context)
            return [Reason("floor", "no acts in training", float(lowest[0, video]))]
        row = weights[:, : len(self.videos)].tocsr()
        shares = row.data * (self.memory[row.indices] @ self.videos[video])
        reasons = [Reason("video", str(j), float(share)) for j, share in zip(row.indices, shares, strict=True)]
        own = float(self.own_of(np.array([viewer], np.int64))[0] @ self.videos[video])
        reasons += [Reason("viewer", "own taste", own), Reason("popularity", "bias", float(self.bias[video]))]
        return largest_first(reasons)

    def arrays(self) -> Arrays:
        """By name, for a file."""
        return {
            "own": self.own,
            "videos": self.videos,
            "memory": self.memory,
            "bias": self.bias,
            "seen": self.seen.astype(np.uint8),
        }

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, npt.NDArray[Any]]) -> Self:
        """What `arrays` gave. Raises `ranker.bad_model` where that does not fit together."""
        own, videos, memory, bias = (
            np.asarray(arrays[name], np.float32) for name in ("own", "videos", "memory", "bias")
        )
        return cls(own, videos, memory, bias, np.asarray(arrays["seen"]) > 0)


def largest_first(reasons: list[Reason]) -> list[Reason]:
    """By how much they say, for or against; parts of nothing are left out."""
    return sorted((one for one in reasons if one.share), key=lambda one: (-abs(one.share), one.kind, one.name))


def watched(log: ActLog, viewers: Integers) -> Sparse:
    """CSR float32 [len(viewers), n_videos]: |N(u)|^-1/2 for each video with a value above 0 (Koren 2008, eq. 15); a
    row of zeros for a viewer who is not in the log."""
    inside = viewers < log.n_viewers
    rows = log.binary[np.where(inside, viewers, 0)]
    scale = inside / np.sqrt(np.maximum(np.diff(rows.indptr), 1))
    found: Sparse = (sparse.diags(scale.astype(np.float32)) @ rows).tocsr()
    found.eliminate_zeros()
    return found


def remembered(log: ActLog, viewers: Integers, half_rank: float | None) -> Sparse:
    """As `watched`, and where `half_rank` is given late videos count more: exp(-rank / half_rank), `rank` being how
    many the viewer had later, times what makes the squares of a row sum to one as they do in `watched`."""
    if half_rank is None:
        return watched(log, viewers)
    inside = viewers < log.n_viewers
    rows = log.fading(half_rank)[np.where(inside, viewers, 0)]
    length = np.sqrt(np.asarray(rows.multiply(rows).sum(axis=1)).ravel())
    scale = inside / np.where(length > 0, length, 1)
    found: Sparse = (sparse.diags(scale.astype(np.float32)) @ rows).tocsr()
    found.eliminate_zeros()
    return found


def folded_in(own: Float32, videos: Float32, history: Sparse, ridge: float = 1.0) -> Float32:
    """float32 [n_videos, dim]: memories whose sum over a history comes nearest to what was learnt of viewers, for
    models that know a viewer by number alone. A map of dim x dim from the videos' vectors, by ridge regression over
    the viewers of training; `history` as from `watched`, its rows those of `own`."""
    inputs = (history @ videos).astype(np.float64)
    gram = inputs.T @ inputs + ridge * np.eye(videos.shape[1])
    return (videos @ np.linalg.solve(gram, inputs.T @ own.astype(np.float64))).astype(np.float32)


def fingerprint(log: ActLog) -> str:
    """What tells the acts that a run learns from: a checkpoint of other acts is refused."""
    told = hashlib.sha256(f"{log.n_viewers} {log.n_videos}".encode())
    for array in (log.viewers, log.videos, log.at, log.values, log.ratings):
        told.update(np.ascontiguousarray(array).tobytes())
    return told.hexdigest()
