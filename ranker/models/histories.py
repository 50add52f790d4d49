"""What closed-form models share: how a viewer's history counts, what the model does for those who have none, reasons by
watched video, and sparse matrices among a model's arrays."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field
from scipy import sparse  # type: ignore[import-untyped]

from ranker.interactions import ROUNDING, Interactions, Sparse
from ranker.models.model import Arrays, Reason
from ranker.models.training_data import ActLog, Float32, Integers
from store.errors import ModelError


class HistoryConfig(BaseModel):
    """`history`: what a watched video counts when a viewer is scored. plain: 1 if its values sum to more than 0;
    values: that sum; fading: exp(-r / rank), where r counts what the viewer had later. Training sees 1 or, with values,
    the sum: it has no order."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    history: Literal["plain", "values", "fading"] = "plain"
    rank: float = Field(10.0, gt=0, allow_inf_nan=False)


def trained_on(log: ActLog, config: HistoryConfig) -> Sparse:
    """CSR float32 [n_viewers, n_videos]: what training sees."""
    return log.matrix if config.history == "values" else log.binary


def interactions_of(matrix: Sparse) -> Interactions:
    """The cells as what sources read; ids are the numbers as text."""
    viewers, videos = ({str(number): number for number in range(size)} for size in matrix.shape)
    return Interactions(matrix, viewers, videos)


def histories(log: ActLog, viewers: Integers, config: HistoryConfig, n_videos: int) -> Sparse:
    """CSR float32 [len(viewers), n_videos], weights above 0. Videos that came after training are left out: what the
    model does not know cannot speak for others."""
    if config.history == "fading":
        rows = _fading(log, viewers, config.rank)
    else:
        rows = trained_on(log, config)[viewers]
    if n_videos < rows.shape[1]:
        return rows[:, :n_videos].tocsr()
    rows.resize((len(viewers), n_videos))
    return rows


def _fading(log: ActLog, viewers: Integers, rank: float) -> Sparse:
    """The rows of `log.fading(rank)` of these viewers, without those of everybody else."""
    columns, weights, ends = [], [], [0]
    for viewer in viewers:
        # Newest first: the place of a video's first occurrence is the number of acts since its latest.
        videos, since = np.unique(log.history(int(viewer))[::-1], return_index=True)
        fresh = np.exp(-since / rank)
        columns.append(videos[fresh > ROUNDING])
        weights.append(fresh[fresh > ROUNDING])
        ends.append(ends[-1] + len(columns[-1]))
    if not columns:
        return sparse.csr_matrix((0, log.n_videos), dtype=np.float32)
    data = np.concatenate(weights).astype(np.float32)
    return sparse.csr_matrix((data, np.concatenate(columns), np.array(ends)), shape=(len(viewers), log.n_videos))


def popularity_of(matrix: Sparse) -> Float32:
    """float32 [n_videos] in 0..1: viewers of each video by those of the most watched one."""
    counts = np.bincount(matrix.indices, minlength=matrix.shape[1])
    return np.asarray(counts / max(int(counts.max(initial=0)), 1), np.float32)


def completed(scores: Float32, empty: npt.NDArray[np.bool_], popular: Float32, n_videos: int) -> Float32:
    """float32 [n, n_videos]: popularity for viewers without history (`empty`, bool [n]), and 0 for videos that came
    after training."""
    scores[empty] = popular
    if scores.shape[1] == n_videos:
        return scores
    wider = np.zeros((len(scores), n_videos), np.float32)
    known = min(n_videos, scores.shape[1])
    wider[:, :known] = scores[:, :known]
    return wider


def by_popularity(popular: Float32, video: int) -> list[Reason]:
    """Why a viewer without history is shown a video."""
    return [Reason("popularity", "viewers", float(popular[video]))] if video < len(popular) else []


def by_video(videos: Integers, shares: Iterable[float]) -> list[Reason]:
    """Reasons by watched video, largest share first, ties to the lower number; what adds nothing is left out."""
    found = [(float(share), int(video)) for video, share in zip(videos, shares, strict=True) if share]
    return [Reason("video", str(video), share) for share, video in sorted(found, key=lambda one: (-one[0], one[1]))]


def packed(name: str, matrix: Sparse) -> Arrays:
    """A CSR matrix as arrays for a model's file."""
    return {
        f"{name}.data": matrix.data.astype(np.float32),
        f"{name}.indices": matrix.indices.astype(np.int32),
        f"{name}.indptr": matrix.indptr.astype(np.int64),
        f"{name}.shape": np.array(matrix.shape, np.int64),
    }


def unpacked(name: str, arrays: Mapping[str, npt.NDArray[Any]]) -> Sparse:
    """What `packed` made. Raises `ranker.bad_model` where the arrays are no matrix."""
    try:
        parts = tuple(arrays[f"{name}.{part}"] for part in ("data", "indices", "indptr"))
        matrix = sparse.csr_matrix(parts, shape=tuple(int(size) for size in arrays[f"{name}.shape"]))
        matrix.check_format(full_check=True)
    except (KeyError, ValueError, TypeError) as error:
        raise ModelError("ranker.bad_model", f"{name} of the stored model is no sparse matrix.") from error
    return matrix


def checked(arrays: Mapping[str, npt.NDArray[Any]], name: str, shape: tuple[int | None, ...]) -> Float32:
    """An array of the stored model as float32. Raises `ranker.bad_model` where it is missing or not of `shape` (None:
    any size)."""
    array = np.asarray(arrays[name], np.float32) if name in arrays else np.zeros(0, np.float32)
    fits = array.ndim == len(shape) and all(want in (None, size) for want, size in zip(shape, array.shape, strict=True))
    if name not in arrays or not fits:
        raise ModelError("ranker.bad_model", f"{name} of the stored model is missing or has the shape {array.shape}.")
    return array
