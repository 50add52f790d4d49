"""What follows what, in closed form: the linear part of a sequence model, and the vectors that its videos begin with.

    f_p = sum over what was watched before step p of  exp(-r / rank),  r = 0 for the newest       a fading history
    F   = (A'A + follow_regularisation I)^-1 A'Y     rows of A the f_p of all viewers, rows of Y the video of step p
    P   = (X'X + together_regularisation I)^-1,  T_ji = -P_ji / P_ii off the diagonal             EASE (Steck 2019)
    score = f (T / t + follow F / s)                 t, s: mean spread of f T and of f F over the viewers of training

F is a ridge regression of the next video on the fading history, near to the transitions of SLIST (Choi et al., WWW
2021, "Session-aware Linear Item-Item Models for Session-based Recommendation"); T says what goes together in any order.
Neither alone is as good as both. Each watched video's part of the score is exact: the score is a sum over them.

The videos' first vectors are the largest eigenvectors of the positive pointwise mutual information of what is watched
within NEAR acts of each other (Levy and Goldberg 2014): on small data a network that begins there ends elsewhere than
one that begins at random, and sooner.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field
from scipy import linalg, sparse  # type: ignore[import-untyped]

from ranker.interactions import Sparse
from ranker.models.training_data import ActLog, Float32, Float64, Integers
from store.errors import ModelError

# A watched video that has faded below exp(-FADED) is not looked at.
FADED = 6.0
NEAR = 10
NEAR_RANK = 5.0
BLOCK = 50_000


class TransitionsConfig(BaseModel):
    """The linear part. `most_videos`: with more videos in training it is left out, as it is a dense matrix of them."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    rank: float = Field(10.0, gt=0, le=1000, allow_inf_nan=False, description="Later acts until a video counts 1/e.")
    together_regularisation: float = Field(500.0, gt=0, allow_inf_nan=False)
    follow_regularisation: float = Field(300.0, gt=0, allow_inf_nan=False)
    follow: float = Field(0.5, ge=0, allow_inf_nan=False, description="What F counts beside T.")
    most_videos: int = Field(12_000, ge=1)


@dataclass(frozen=True, eq=False)
class Transitions:
    """`places`: int64 [m], videos with acts in training, in order. `weights`: float32 [m, n]: what a watched one of
    them says of each video of the table; a column of zeros where nothing is known. Both empty: left out."""

    rank: float
    places: Integers
    weights: Float32

    def score(self, log: ActLog, viewers: Integers) -> Float32:
        """float32 [len(viewers), n]."""
        rows = self._histories(log, viewers)
        return np.asarray(rows @ self.weights, np.float32)

    def shares(self, log: ActLog, viewer: int, video: int) -> dict[int, float]:
        """By watched video, what it adds to the score of `video`."""
        row = self._histories(log, np.array([viewer], np.int64))
        return {
            int(self.places[column]): float(weight * self.weights[column, video])
            for column, weight in zip(row.indices, row.data, strict=True)
        }

    def _histories(self, log: ActLog, viewers: Integers) -> Sparse:
        """CSR float32 [len(viewers), m]."""
        column = np.full(max(log.n_videos, int(self.places.max(initial=-1)) + 1), -1, np.int64)
        column[self.places] = np.arange(len(self.places))
        columns, weights, ends = [np.zeros(0, np.int64)], [np.zeros(0)], [0]
        for viewer in viewers:
            # Newest first: the place of a video's first occurrence is the number of acts since its latest.
            videos, since = np.unique(log.history(int(viewer))[::-1], return_index=True)
            kept = (since <= FADED * self.rank) & (column[videos] >= 0)
            columns.append(column[videos[kept]])
            weights.append(np.exp(-since[kept] / self.rank))
            ends.append(ends[-1] + int(kept.sum()))
        shape = (len(viewers), len(self.places))
        data = np.concatenate(weights).astype(np.float32)
        return sparse.csr_matrix((data, np.concatenate(columns), np.array(ends)), shape=shape)


def left_out(n_videos: int, rank: float = 1.0) -> Transitions:
    """The linear part of a model that has none: it says nothing of anything."""
    return Transitions(rank, np.zeros(0, np.int64), np.zeros((0, n_videos), np.float32))


def fitted(log: ActLog, config: TransitionsConfig) -> Transitions:
    """Raises `ranker.training_failed` for a matrix that cannot be inverted."""
    positive = log.values > 0
    places = np.unique(log.videos[positive]).astype(np.int64)
    if len(places) > config.most_videos:
        return left_out(log.n_videos, config.rank)
    viewers = log.viewers[positive]
    videos = np.searchsorted(places, log.videos[positive])
    some = np.flatnonzero(np.diff(log.binary.indptr)).astype(np.int64)
    made = Transitions(config.rank, places, np.zeros((len(places), log.n_videos), np.float32))
    histories = made._histories(log, some)

    def spread(matrix: Float64) -> float:
        found = float(np.asarray(histories @ matrix.astype(np.float32)).std(axis=1).mean())
        return found if found > 0 else 1.0

    together = _together(log.binary[:, places], config.together_regularisation)
    total = together / spread(together)
    if config.follow:
        following = _following(viewers, videos, len(places), config)
        total += config.follow * following / spread(following)
    made.weights[:, places] = total / spread(total)
    return made


def _together(cells: Sparse, regularisation: float) -> Float64:
    inverse = _inverse(np.asarray((cells.T @ cells).toarray(), np.float64), regularisation)
    weights: Float64 = inverse / -np.diag(inverse)
    np.fill_diagonal(weights, 0)
    return weights


def _following(viewers: Integers, videos: Integers, m: int, config: TransitionsConfig) -> Float64:
    gram, moved = np.zeros((m, m)), np.zeros((m, m))
    lags = int(np.ceil(FADED * config.rank))
    for begin in range(0, len(videos), BLOCK):
        steps = np.arange(begin, min(begin + BLOCK, len(videos)))
        rows, columns, weights = [], [], []
        for lag in range(1, lags + 1):
            told = steps[steps >= lag]
            told = told[viewers[told - lag] == viewers[told]]
            if not len(told):
                break
            rows.append(told - begin)
            columns.append(videos[told - lag])
            weights.append(np.full(len(told), np.exp(-(lag - 1) / config.rank)))
        if not rows:
            continue
        cells = (np.concatenate(weights), (np.concatenate(rows), np.concatenate(columns)))
        before = sparse.csr_matrix(cells, shape=(len(steps), m))
        after = sparse.csr_matrix((np.ones(len(steps)), (steps - begin, videos[steps])), shape=(len(steps), m))
        gram += (before.T @ before).toarray()
        moved += (before.T @ after).toarray()
    found: Float64 = _inverse(gram, config.follow_regularisation) @ moved
    return found


def _inverse(gram: Float64, regularisation: float) -> Float64:
    """Of a symmetric matrix plus a multiple of one, by Cholesky: half the work of a general inverse."""
    gram[np.diag_indices(len(gram))] += regularisation
    factor, failed = linalg.lapack.dpotrf(np.asfortranarray(gram), lower=1, overwrite_a=1)
    if not failed:
        factor, failed = linalg.lapack.dpotri(factor, lower=1, overwrite_c=1)
    if failed:
        raise ModelError("ranker.training_failed", "The videos' matrix cannot be inverted.")
    lower = np.tril(factor)
    whole: Float64 = lower + np.tril(lower, -1).T
    return whole


def first_vectors(log: ActLog, dim: int, most_videos: int) -> Float32 | None:
    """float32 [n_videos, dim], rows of zeros for videos without acts in training, mean square 0.01; None where there
    are too many videos, or nothing is near anything."""
    positive = log.values > 0
    viewers, places = log.viewers[positive], np.unique(log.videos[positive])
    if len(places) > most_videos:
        return None
    videos, m = np.searchsorted(places, log.videos[positive]), len(places)
    near = np.zeros((m, m))
    for lag in range(1, min(NEAR, len(videos) - 1) + 1):
        same = viewers[lag:] == viewers[:-lag]
        cells = (np.full(int(same.sum()), np.exp(-lag / NEAR_RANK)), (videos[:-lag][same], videos[lag:][same]))
        near += sparse.csr_matrix(cells, shape=(m, m)).toarray()
    near += near.T
    total = near.sum()
    if not total:
        return None
    of_each = np.maximum(near.sum(axis=0), 1e-12)
    expected = np.outer(of_each, of_each) / total
    association = np.log(np.maximum(near / expected, 1.0))
    kept = min(dim, m)
    values, vectors = linalg.eigh(association, subset_by_index=(m - kept, m - 1))
    # An eigenvector's sign is the library's choice: the largest entry decides.
    largest = vectors[np.abs(vectors).argmax(axis=0), np.arange(kept)]
    scaled = vectors * np.sign(largest) * np.sqrt(np.maximum(values, 0))
    spread = float(scaled.std())
    if not spread:
        return None
    found = np.zeros((log.n_videos, dim), np.float32)
    found[places, :kept] = scaled * (0.1 / spread)
    return found


def by_content(transitions: Transitions, features: Float64, regularisation: float) -> Transitions:
    """The same with columns for all videos, also those that nobody watched: a ridge regression of the columns on what
    videos are. `features`: float64 [n_videos, f]."""
    weights, places = transitions.weights, transitions.places
    if not len(places):
        return transitions
    known = features[places]
    centre = known.mean(axis=0)
    centred, columns = known - centre, weights[:, places].T.astype(np.float64)
    mean = columns.mean(axis=0)
    mapped = _inverse(centred.T @ centred, regularisation) @ (centred.T @ (columns - mean))
    predicted: npt.NDArray[Any] = ((features - centre) @ mapped + mean).T
    return Transitions(transitions.rank, places, predicted.astype(np.float32))
