"""From content to behaviour in closed form: where training with engagement begins.

What is said, shown and heard is laid out by what it is; people sort by taste. Both are brought together at once, before
any gradient (content-to-collaborative mapping, Gantner et al. 2010; van den Oord et al. 2013):

    P_pv   = 1 / sqrt(videos of person p  x  people of video v)   where p finished v, else 0
    F_v    = right singular vectors of P, each by the root of its singular value     what people's taste says of v
    W      = the ridge regression of F on the embeddings of all modalities side by side, over videos with people
    start  = (1 - share) x `fusion.starts`  +  share x W_m                           for each modality m

F is PureSVD (Cremonesi et al. 2010) on degree-normalised counts. The regression is one over all modalities, so that
none repeats what another says; how long the part of each is on average is how much of the answer it gives, and is what
its mass begins with. A video that nobody finished has a place by its content all the same.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import torch
from pydantic import BaseModel, ConfigDict, Field

from fusion.network import NetworkConfig, Start
from fusion.starts import mean_rows
from store.records import Tokens

Float64 = npt.NDArray[np.float64]
ROUNDS, SPARE = 6, 16  # of the subspace iteration, and directions beyond those asked for (Halko et al. 2011)


class MappingConfig(BaseModel):
    """How much of behaviour goes into where training begins. `share` 0 leaves it to `fusion.starts`."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
    share: float = Field(0.5, ge=0, le=1)
    ridge: float = Field(
        1.0, gt=0, le=1e9, description="In videos' worth: higher trusts content more, and behaviour less."
    )


def item_factors(histories: Sequence[npt.NDArray[np.intp]], videos: int, count: int) -> Float64:
    """[videos, count]: what taste says of each video, over those that anyone saw of mean square length one; zeros for
    the others, and in columns beyond what the histories hold. `histories`: places of videos, one array a person."""
    people = np.concatenate([np.full(len(history), person) for person, history in enumerate(histories)])
    items = np.concatenate(list(histories))
    seen = np.bincount(items, minlength=videos)
    weights = 1 / np.sqrt(np.array([len(history) for history in histories])[people] * seen[items])
    order = np.argsort(items, kind="stable")
    warm, firsts = np.unique(items[order], return_index=True)
    persons, begins = np.unique(people, return_index=True)

    def to_people(rows: Float64) -> Float64:
        found: Float64 = np.add.reduceat(rows[items] * weights[:, None], begins)
        return found

    def to_items(rows: Float64) -> Float64:
        found = np.zeros((videos, rows.shape[1]))
        place = np.searchsorted(persons, people[order])
        found[warm] = np.add.reduceat(rows[place] * weights[order, None], firsts)
        return found

    wide = min(count + SPARE, len(warm), len(persons))
    stream = np.random.Generator(np.random.PCG64(0))
    basis = to_items(stream.standard_normal((len(persons), wide)))
    for _ in range(ROUNDS):
        basis = to_items(to_people(np.linalg.qr(basis)[0]))
    basis = np.linalg.qr(basis)[0]
    across = to_people(basis)
    squares, turn = np.linalg.eigh(across.T @ across)
    kept = np.argsort(-squares)[:count]
    found = np.zeros((videos, count))
    found[:, : len(kept)] = (basis @ turn[:, kept]) * np.maximum(squares[kept], 0.0) ** 0.25
    found[seen == 0] = 0.0  # not even rounding error
    scale = math.sqrt(np.square(found).sum() / len(warm))
    return found / scale if scale > 0 else found


def mapped_starts(
    videos: Sequence[Mapping[str, Tokens]],
    histories: Sequence[npt.NDArray[np.intp]],
    network: NetworkConfig,
    config: MappingConfig,
    starts: Mapping[str, Start],
) -> tuple[dict[str, Start], dict[str, float]]:
    """Where the projections begin, and by what factor the mass of each modality does. `starts`: without behaviour."""
    if config.share == 0:
        return dict(starts), dict.fromkeys(network.modalities, 1.0)
    seen = np.unique(np.concatenate(list(histories)))
    rows, means, scales = {}, {}, {}
    for name in network.modalities:
        found, there = mean_rows(videos, name, network.widths[name])
        means[name] = found[there].mean(axis=0) if there.any() else np.zeros(network.widths[name])
        rows[name] = np.where(there[:, None], found - means[name], 0.0)
        length = math.sqrt(np.square(rows[name]).sum() / max(1, there.sum()))
        scales[name] = length if length > 0 else 1.0
    joined = np.concatenate([rows[name][seen] / scales[name] for name in network.modalities], axis=1)
    factors = item_factors(histories, len(videos), network.dim)[seen]
    solved = np.linalg.solve(joined.T @ joined + config.ridge * np.eye(joined.shape[1]), joined.T @ factors)
    ends = np.cumsum([network.widths[name] for name in network.modalities])[:-1]
    results, masses = {}, {}
    for name, part in zip(network.modalities, np.split(solved, ends), strict=True):
        matrix = part / scales[name]
        says = _length(rows[name][seen] @ matrix)
        plain = starts[name].matrix.numpy().astype(np.float64)
        length = _length(rows[name][seen] @ plain)
        if not (says > 0 and length > 0):
            results[name], masses[name] = starts[name], 1.0
            continue
        own, other = config.share / says, (1 - config.share) / length
        shift = other * starts[name].shift.numpy() - own * means[name] @ matrix
        results[name] = Start(
            torch.from_numpy((other * plain + own * matrix).astype(np.float32)),
            torch.from_numpy(shift.astype(np.float32)),
        )
        masses[name] = says**config.share
    return results, masses


def _length(rows: Float64) -> float:
    """Root mean square length."""
    return math.sqrt(np.square(rows).sum(axis=1).mean())
