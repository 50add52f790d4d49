"""What a fused vector is asked in `bench.fusion`, and the fusions that are not trained.

A *row* is a fusion: token sets in, vectors out, a vector of zeros where it has nothing to go by. *Tasks*: find the
other half of a clip among the other halves of all clips, from all modalities or with one of them missing; find a clip's
frames by its sound or by its words; tell a clip's subject by its nearest neighbours. A tie counts as the middle of its
places, so that a row without an answer is as good as chance and no better.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from bench.fusion_clips import Clip
from fusion.attention import FusionConfig, fuse
from fusion.projection import projection
from store.errors import InputError
from store.records import MODALITIES, Float32, Modality, Tokens

Float64 = npt.NDArray[np.float64]
TokenSet = Mapping[Modality, Tokens]
Row = Callable[[Sequence[TokenSet]], Float32]
NEIGHBOURS = 3
DIM = 256


@dataclass(frozen=True)
class Ranks:
    """The place of the right answer, from 1, for each query that could be asked, and which clip asked."""

    places: Float64
    clips: npt.NDArray[np.intp]

    def scores(self) -> dict[str, float]:
        """Shares of the queries whose answer is first, or among five, and the mean reciprocal rank."""
        return {
            "r1": float((self.places < 1.5).mean()),
            "r5": float((self.places < 5.5).mean()),
            "mrr": float((1 / self.places).mean()),
            "queries": len(self.places),
        }


def mean_rows(tokens: Tokens) -> Float64:
    """[width]: the mean direction of a modality's tokens by salience, of unit length; zeros without any."""
    rows = tokens.embeddings.astype(np.float64)
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    rows = np.divide(rows, lengths, out=np.zeros_like(rows), where=lengths > 0)
    mean = tokens.salience.astype(np.float64) @ rows
    length = float(np.linalg.norm(mean))
    result: Float64 = mean / length if length > 1e-9 else np.zeros(rows.shape[1])
    return result


def _joint(tokens: TokenSet) -> dict[Modality, Float64]:
    """The mean direction of each modality in the training-free joint space."""
    found: dict[Modality, Float64] = {}
    for modality in MODALITIES:
        if modality in tokens and len(tokens[modality]):
            mean = mean_rows(tokens[modality])
            if mean.any():
                found[modality] = mean @ projection(modality, len(mean), DIM, 0).astype(np.float64)
    return found


def _unit(vectors: Sequence[Float64]) -> Float32:
    stacked = np.stack(vectors)
    lengths = np.linalg.norm(stacked, axis=1, keepdims=True)
    result: Float32 = np.divide(stacked, lengths, out=np.zeros_like(stacked), where=lengths > 1e-12).astype(np.float32)
    return result


def alone(modality: Modality) -> Row:
    """One modality by itself."""

    def row(videos: Sequence[TokenSet]) -> Float32:
        return _unit([_joint(video).get(modality, np.zeros(DIM)) for video in videos])

    return row


def mean_row(videos: Sequence[TokenSet]) -> Float32:
    """The mean over all tokens of all modalities, each token alike."""
    found = []
    for video in videos:
        total = np.zeros(DIM)
        for modality, tokens in video.items():
            rows = tokens.embeddings.astype(np.float64)
            lengths = np.linalg.norm(rows, axis=1, keepdims=True)
            rows = np.divide(rows, lengths, out=np.zeros_like(rows), where=lengths > 0)
            total += rows.sum(axis=0) @ projection(modality, rows.shape[1], DIM, 0).astype(np.float64)
        found.append(total)
    return _unit(found)


def sum_row(videos: Sequence[TokenSet]) -> Float32:
    """The sum of the modalities' mean directions."""
    return _unit([np.sum([np.zeros(DIM), *_joint(video).values()], axis=0) for video in videos])


def product_row(videos: Sequence[TokenSet]) -> Float32:
    """The product, entry by entry, of the modalities' mean directions in the joint space."""
    return _unit([np.prod(list(_joint(video).values()) or [np.zeros(DIM)], axis=0) for video in videos])


def training_free_row(videos: Sequence[TokenSet]) -> Float32:
    """`fusion.attention`."""
    found = []
    for video in videos:
        try:
            fused = fuse(video, {name: ["token"] * len(tokens) for name, tokens in video.items()}, FusionConfig())
            found.append(fused.vector.astype(np.float64))
        except InputError:
            found.append(np.zeros(DIM))
    return _unit(found)


def concatenation_row(training: Sequence[TokenSet], widths: Mapping[Modality, int]) -> Row:
    """The modalities' mean directions side by side (zeros for a missing one), reduced by a PCA of `training`."""

    def side_by_side(videos: Sequence[TokenSet]) -> Float64:
        return np.stack(
            [
                np.concatenate(
                    [
                        mean_rows(video[name]) if name in video and len(video[name]) else np.zeros(widths[name])
                        for name in MODALITIES
                    ]
                )
                for video in videos
            ]
        )

    known = side_by_side(training)
    mean = known.mean(axis=0)
    _, _, directions = np.linalg.svd(known - mean, full_matrices=False)
    kept = directions[: min(DIM, len(known) - 1)]

    def row(videos: Sequence[TokenSet]) -> Float32:
        wide = side_by_side(videos)
        present = wide.any(axis=1, keepdims=True)
        return _unit(list(((wide - mean) * present) @ kept.T))

    return row


def without(tokens: TokenSet, modality: Modality) -> dict[Modality, Tokens]:
    """The token set with a modality missing."""
    return {name: part for name, part in tokens.items() if name != modality}


def only(tokens: TokenSet, modality: Modality) -> dict[Modality, Tokens]:
    """One modality of the token set."""
    return {name: part for name, part in tokens.items() if name == modality}


def usable(tokens: TokenSet) -> bool:
    """Whether there is a token with direction and salience."""
    return any(bool(((part.salience > 0) & part.embeddings.any(axis=1)).any()) for part in tokens.values())


def find(queries: Float32, gallery: Float32, asked: npt.NDArray[np.bool_], same: npt.NDArray[np.bool_]) -> Ranks:
    """Place of gallery item i for query i, of those `asked` [n]. `same` [n, n]: pairs that show the same, which are no
    wrong answers; rows of zeros in the gallery are items that nothing is known of, and stay in it."""
    scores = (queries @ gallery.T).astype(np.float64)
    places, clips = [], []
    for index in np.flatnonzero(asked):
        others = np.flatnonzero(~same[index])
        right = scores[index, index]
        better = (scores[index, others] > right + 1e-7).sum()
        tied = (np.abs(scores[index, others] - right) <= 1e-7).sum()
        places.append(1 + better + tied / 2)
        clips.append(index)
    return Ranks(np.array(places, np.float64), np.array(clips, np.intp))


def joined(ranks: Sequence[Ranks]) -> Ranks:
    """All queries together."""
    return Ranks(np.concatenate([found.places for found in ranks]), np.concatenate([found.clips for found in ranks]))


@dataclass(frozen=True, eq=False)
class Tasks:
    """The token sets of all clips, and which clips show the same."""

    clips: Sequence[Clip]

    @property
    def same(self) -> npt.NDArray[np.bool_]:
        """[n, n]: clips of one footage, and each with itself."""
        from bench.fusion_clips import SAME

        names = [SAME.get(clip.source.name, clip.source.name) for clip in self.clips]
        return np.array([[one == other for other in names] for one in names])

    def run(self, row: Row, tested: npt.NDArray[np.bool_]) -> dict[str, Ranks | Float64]:
        """All tasks, asked by the clips `tested` [n], with every clip in the gallery."""
        same = self.same
        halves = [[clip.half(number) for clip in self.clips] for number in (0, 1)]
        vectors = [row(half) for half in halves]
        able = [np.array([usable(tokens) for tokens in half]) for half in halves]
        results: dict[str, Ranks | Float64] = {
            "full": joined(
                [find(vectors[number], vectors[1 - number], tested & able[0] & able[1], same) for number in (0, 1)]
            )
        }
        for modality in MODALITIES:
            found = []
            for number in (0, 1):
                fewer = [without(tokens, modality) for tokens in halves[number]]
                asked = np.array(
                    [modality in tokens and usable(rest) for tokens, rest in zip(halves[number], fewer, strict=True)]
                )
                found.append(find(row(fewer), vectors[1 - number], tested & asked & able[1 - number], same))
            results[f"without {modality}"] = joined(found)
        wholes = [clip.whole() for clip in self.clips]
        frames = [only(tokens, "vision") for tokens in wholes]
        shown = row(frames)
        for name, modality in (("sound to frames", "audio"), ("words to frames", "text")):
            given = [only(tokens, modality) for tokens in wholes]
            able_both = np.array([usable(one) and usable(other) for one, other in zip(given, frames, strict=True)])
            # Only clips with frames can be answers.
            away = same | ~np.array([usable(one) for one in frames])[None, :]
            results[name] = find(row(given), shown, tested & able_both, away)
        results["subject"] = self._subjects(row(wholes), tested)
        return results

    def _subjects(self, vectors: Float32, tested: npt.NDArray[np.bool_]) -> Float64:
        """1 or 0 for each tested clip whose subject has three clips or more: whether the three nearest clips of other
        groups name it, the nearer counting more."""
        subjects = np.array([clip.source.subject for clip in self.clips])
        groups = np.array([clip.source.group for clip in self.clips])
        scores = vectors @ vectors.T
        right = []
        for index in np.flatnonzero(tested):
            others = np.flatnonzero((groups != groups[index]) & (subjects != ""))
            if not subjects[index] or (subjects[others] == subjects[index]).sum() < 2:
                continue
            nearest = others[np.argsort(-scores[index, others], kind="stable")[:NEIGHBOURS]]
            votes: dict[str, float] = {}
            for other in nearest:
                votes[str(subjects[other])] = votes.get(str(subjects[other]), 0.0) + 1.0 + float(scores[index, other])
            right.append(float(max(votes, key=lambda name: votes[name]) == subjects[index]))
        return np.array(right)
