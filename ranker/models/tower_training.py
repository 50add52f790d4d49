"""How the two towers learn: their settings, where they start, and what is held back to be found again."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional

from ranker.interactions import Sparse
from ranker.models.learning import LearningConfig
from ranker.models.tower_network import TowerNetwork
from ranker.models.tower_start import ease, neighbours, principal, spectral
from ranker.models.training_data import ActLog, Integers, TrainingData
from store.errors import InputError

# Scales of ids, strengths of content, shares of log popularity, and what content is worth beside an id, that are tried
# before learning starts.
SCALES = (0.5, 1.0, 2.0, 4.0, 8.0, 16.0)
SHARES = (0.0, 0.25, 0.5, 1.0)
WORTHS = (1.0, 0.5, 0.25, 0.1, 0.03)
# Viewers on whom they are tried.
TRIED = 512


class TwoTowerConfig(LearningConfig):
    """`Field`s say what each setting is; the defaults are for some thousand viewers."""

    epochs: int = Field(40, ge=1)
    batch: int = Field(512, ge=1, description="Viewers in a step.")
    learning_rate: float = Field(3e-3, gt=0, allow_inf_nan=False)
    dim: int = Field(128, ge=1, description="Width of ids.")
    width: int = Field(64, ge=1, description="Width of a modality's space.")
    interests: int = Field(4, ge=1, description="Interests of a viewer.")
    choice: float = Field(1.0, ge=0, allow_inf_nan=False, description="How sharply the best interest is chosen.")
    power: float = Field(0.5, ge=0, le=1, description="1: an id's part goes by the mean of the history; 0: by its sum.")
    half_rank: float | None = Field(None, gt=0, description="History fades as exp(-rank / half_rank).")
    keep: float = Field(0.5, gt=0, lt=1, description="Share of a history that is shown in training.")
    targets: Literal["random", "next"] = Field("random", description="What is held back: any acts, or later ones.")
    horizon: int = Field(5, ge=1, description="Of `next`: how many acts ahead are to be found.")
    item_dropout: float = Field(0.2, ge=0, lt=1, description="Share of videos whose id is taken away in a step.")
    negatives: Literal["all", "batch"] = Field("all", description="The rivals of what is held back.")
    correction: float = Field(1.0, ge=0, le=1, description="Of `batch`: share of log q that is taken off (0: none).")
    start: Literal["spectral", "ease", "random"] = Field("spectral", description="Where ids start.")
    popular: float = Field(0.5, ge=0, le=1, description="Of `spectral`: b.")
    passes: float = Field(0.5, ge=0, allow_inf_nan=False, description="Of `spectral`: steps of a walk (0: all alike).")
    ridge: float = Field(250.0, gt=0, allow_inf_nan=False, description="Of `ease`.")
    anchor: float = Field(0.0, ge=0, allow_inf_nan=False, description="Pull of ids back to where they started.")
    smoothing: float = Field(0.0, ge=0, allow_inf_nan=False, description="How much of its neighbours' ids a video has.")
    attention: Literal["viewer", "uniform"] = Field("viewer", description="Whose weights the modalities have.")
    modalities: tuple[str, ...] | None = Field(None, description="Which ones are used (none given: all there are).")


class HeldBack:
    """What learning shows and asks. Of each viewer's videos (each once, at its latest act) some are held back, others
    shown: random ones, or (`targets` next) the next few after a random moment. Viewers with a single video learn from
    an empty history; those whose acts say nothing good are left out.

    `viewers` int64: who can be learnt from. Raises `ranker.too_few_events` where nobody has two videos.
    """

    def __init__(self, log: ActLog, config: TwoTowerConfig) -> None:
        self.config = config
        matrix = log.matrix
        good = np.flatnonzero(np.asarray(matrix[log.viewers, log.videos]).ravel() > 0) if len(log) else np.zeros(0, int)
        pair = log.viewers[good] * log.n_videos + log.videos[good]
        # The latest act of a pair: the first when read backwards.
        _, first = np.unique(pair[::-1], return_index=True)
        places = good[np.sort(len(good) - 1 - first)]
        self._videos = torch.from_numpy(log.videos[places])
        self._values = torch.from_numpy(np.asarray(matrix[log.viewers[places], log.videos[places]]).ravel())
        starts = np.searchsorted(log.viewers[places], np.arange(log.n_viewers + 1)).astype(np.int64)
        self._starts, self._counts = torch.from_numpy(starts), torch.from_numpy(np.diff(starts))
        self.n_videos = log.n_videos
        self.viewers: Integers = np.flatnonzero(np.diff(starts)).astype(np.int64)
        if not len(places) or int(np.diff(starts).max()) < 2:
            raise InputError(
                "ranker.too_few_events",
                "No viewer has two videos that he liked: nothing can be held back to learn from.",
                hint="Take in more events first.",
            )
        share = np.bincount(log.videos[places], minlength=log.n_videos) / len(places)
        self.popularity = torch.from_numpy(share.astype(np.float32))
        # Where the ids of videos started: (watched, ids), once that is settled.
        self.anchors: tuple[Tensor, Tensor] | None = None
        self.mark = json.dumps([len(log), log.n_viewers, log.n_videos, float(log.values.sum()), int(pair.sum())])

    def drawn(self, viewers: Integers) -> tuple[Tensor, Tensor, Tensor]:
        """(row, video, weight) of all videos of these viewers, rows 0..b-1; the weight is 0 for what is held back and
        -1 for what is neither shown nor asked."""
        chosen = torch.from_numpy(viewers)
        counts = self._counts[chosen]
        rows = torch.repeat_interleave(torch.arange(len(chosen)), counts)
        first = torch.cumsum(counts, 0) - counts
        place = torch.arange(len(rows)) - first[rows]
        acts = self._starts[chosen][rows] + place
        if self.config.targets == "random":
            luck = torch.rand(len(rows), dtype=torch.float64)
            order = torch.argsort(rows.double() + luck)
            rank = torch.empty_like(order)
            rank[order] = torch.arange(len(rows)) - first[rows]
            # One at least is held back, and one shown where there are two.
            held_count = torch.round(counts * (1 - self.config.keep)).long().clamp_min(1)
            held_count = torch.minimum(held_count, (counts - 1).clamp_min(1))
            held, unused = rank < held_count[rows], torch.zeros(len(rows), dtype=torch.bool)
        else:
            moment = 1 + (torch.rand(len(chosen), dtype=torch.float64) * (counts - 1).clamp_min(0)).long()
            moment = torch.minimum(moment, (counts - 1).clamp_min(0))
            held = (place >= moment[rows]) & (place < moment[rows] + self.config.horizon)
            unused = place >= moment[rows] + self.config.horizon
        shown = ~(held | unused)
        if self.config.half_rank is None:
            weights = self._values[acts].clone()
        else:
            # How many of the shown ones come later.
            until = torch.cumsum(shown.long(), 0)
            last = torch.cat([until.new_zeros(1), until])[first + counts]
            weights = torch.exp(-(last[rows] - until).double() / self.config.half_rank).float()
        weights[held], weights[unused] = 0.0, -1.0
        return rows, self._videos[acts], weights

    def loss(self, network: TowerNetwork, viewers: Integers) -> Tensor:
        """The sum over viewers of the mean negative log-likelihood of what is held back."""
        rows, places, weights = self.drawn(viewers)
        shown, held = weights > 0, weights == 0
        history = coalesced(rows[shown], places[shown], weights[shown], (len(viewers), self.n_videos))
        dropped = (torch.rand(self.n_videos) < self.config.item_dropout).float()
        videos = network.videos(dropped if self.config.item_dropout else None)
        asked = network.viewers(history, videos)
        targets, columns = places[held], places
        if self.config.negatives == "batch":
            rivals = torch.unique(targets)
            column_of = torch.full((self.n_videos,), -1)
            column_of[rivals] = torch.arange(len(rivals))
            logits = network.score(asked, videos.only(rivals))
            # The chance to be among what the batch holds back, with as many draws as it made.
            chance = -torch.expm1(len(targets) * torch.log1p(-self.popularity[rivals].clamp_max(0.999)))
            logits = logits - self.config.correction * torch.log(chance.clamp_min(1e-12))
            targets, columns = column_of[targets], column_of[places]
        else:
            logits = network.score(asked, videos)
        # What is shown, or comes later than what is asked, is no rival.
        others = ~held & (columns >= 0)
        mask = torch.zeros_like(logits)
        mask[rows[others], columns[others]] = -torch.inf
        likely = functional.log_softmax(logits + mask, dim=1)[rows[held], targets]
        count = torch.bincount(rows[held], minlength=len(viewers)).clamp_min(1)
        loss = -(likely / count[rows[held]]).sum()
        if self.anchors is not None and self.config.anchor:
            strayed = (network.watched - self.anchors[0]).square().sum() + (
                network.ids - self.anchors[1]
            ).square().sum()
            loss = loss + len(viewers) * self.config.anchor * strayed
        return loss


def begin(data: TrainingData, config: TwoTowerConfig) -> tuple[TowerNetwork, list[str]]:
    """(the network where learning starts, the modalities that were left out as no video has them)."""
    asked = sorted(data.content.features) if config.modalities is None else list(config.modalities)
    given = {name: rows for name, rows in data.content.features.items() if name in asked}
    features = {name: torch.from_numpy(rows.astype(np.float32)) for name, rows in given.items() if rows.any()}
    network = network_of(features, torch.from_numpy(data.seen_videos), config)
    with torch.no_grad():
        for name in network.modalities:
            directions, offset = principal(given[name], config.width)
            network.maps[name].weight.copy_(torch.from_numpy(directions))
            network.maps[name].bias.copy_(torch.from_numpy(offset))
        if config.start != "random":
            binary = data.log.binary
            watched, ids = (
                ease(binary, config.dim, config.ridge)
                if config.start == "ease"
                else spectral(binary, config.dim, config.popular, config.passes)
            )
            network.watched.copy_(torch.from_numpy(watched))
            network.ids.copy_(torch.from_numpy(ids))
    if config.smoothing:
        graph = neighbours(data.log.binary) * config.smoothing
        network.smoothing = sparse_tensor(graph)
    return network, [name for name in asked if name not in features]


@torch.no_grad()
def calibrate(network: TowerNetwork, held: HeldBack, config: TwoTowerConfig) -> None:
    """Bring ids, content and popularity to the scales at which the loss is least, one after another: a start that is
    right but too flat would take many steps to sharpen."""
    size = torch.linalg.vector_norm
    both = size(network.watched), size(network.ids)
    if both[0] > 0 and both[1] > 0:
        network.watched.mul_((both[1] / both[0]).sqrt())
        network.ids.mul_((both[0] / both[1]).sqrt())
    stream = np.random.Generator(np.random.PCG64(config.seed))
    some = held.viewers[stream.permutation(len(held.viewers))[:TRIED]]

    def tried() -> float:
        torch.manual_seed(config.seed)
        return float(held.loss(network, some))

    network.strength[0] = float("-inf")
    rows, places, weights = held.drawn(some)
    shown = weights > 0
    videos = network.videos()
    history = coalesced(rows[shown], places[shown], weights[shown], (len(some), held.n_videos))
    spread = (network.viewers(history, videos).ids @ videos.ids.T).std()
    watched, ids = network.watched.clone(), network.ids.clone()
    counts = torch.log1p(held.popularity * len(held.popularity))
    losses: dict[float, float] = {}
    for scale in SCALES:
        root = (scale / spread.clamp_min(1e-6)).sqrt()
        network.watched.copy_(watched * root)
        network.ids.copy_(ids * root)
        losses[scale] = tried()
    root = (min(losses, key=lambda one: losses[one]) / spread.clamp_min(1e-6)).sqrt()
    network.watched.copy_(watched * root)
    network.ids.copy_(ids * root)
    # Content is brought to scale by the videos whose ids are dropped, then it is asked what it is worth to the others.
    network.worth.fill_(np.log(WORTHS[-1]))
    for parameter, values in ((network.bias, SHARES), (network.strength, SCALES), (network.worth, WORTHS)):
        losses = {}
        for value in values:
            _set(parameter, value, counts)
            losses[value] = tried()
        _set(parameter, min(losses, key=lambda one: losses[one]), counts)
    held.anchors = network.watched.clone(), network.ids.clone()


def _set(parameter: Tensor, value: float, counts: Tensor) -> None:
    if parameter.dim() and len(parameter) == len(counts):
        parameter.copy_(value * counts)
    elif parameter.dim():
        parameter[0] = float(np.log(value))
    else:
        parameter.fill_(float(np.log(value)))


def network_of(features: Mapping[str, Tensor], known: Tensor, config: TwoTowerConfig) -> TowerNetwork:
    """The network for these videos, before it has learnt anything."""
    return TowerNetwork(
        features,
        known,
        dim=config.dim,
        width=config.width,
        interests=config.interests,
        power=config.power,
        choice=config.choice,
        uniform=config.attention == "uniform",
    )


def history_of(log: ActLog, half_rank: float | None) -> Sparse:
    """CSR float32 [n_viewers, n_videos] of what viewers had, as the towers weigh it."""
    return log.matrix if half_rank is None else log.fading(half_rank)


def sparse_tensor(matrix: Sparse) -> Tensor:
    """A sparse tensor of a CSR matrix."""
    rows = np.repeat(np.arange(matrix.shape[0]), np.diff(matrix.indptr))
    return coalesced(
        torch.from_numpy(rows),
        torch.from_numpy(matrix.indices.astype(np.int64)),
        torch.from_numpy(np.asarray(matrix.data, np.float32)),
        matrix.shape,
    )


def coalesced(rows: Tensor, columns: Tensor, values: Tensor, shape: tuple[int, int]) -> Tensor:
    """A sparse tensor [shape] of cells, none of which comes twice."""
    return torch.sparse_coo_tensor(torch.stack([rows, columns]), values, shape, check_invariants=False).coalesce()
