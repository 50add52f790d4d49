"""A factorisation machine: every pair of features that hold together adds a product of vectors (Rendle 2010).

    score(x) = sum w_f x_f + sum over pairs f < g of (v_f . v_g) x_f x_g

The fields are the viewer, the video, the video's tags, and, where the log has times, the hour of the day and the day
of the week (UTC). The second term is computed in the time of n features, not of their pairs: with S the sum of v_f x_f
it is half of |S|^2 - sum |v_f x_f|^2 (equation 5). All that the viewer's side has of its own (its weights, viewer by
hour) is the same for all videos and is left out, so that a score is

    (v_viewer + v_hour + v_day) . S_video  +  w_video + sum w_tag x_tag + (the pairs within the video)

which is again one vector for each viewer and one for each video. Learnt by the softmax loss over all videos
(`ranking_loss.softmax_loss`), once for each context, an hour of a day of the week in which a viewer watched; x_tag is
one by the root of the number of the video's tags.

The context of a score is that of the viewer's last act in the log. A viewer who was not in training is folded in from
the videos in the log (`factors.folded_in`). A video without an act in training is ranked by its tags, with the lowest
weight that any video has, and without tags gets the lowest score of the others.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Self

import numpy as np
import numpy.typing as npt
import torch
from pydantic import Field
from scipy import sparse  # type: ignore[import-untyped]
from torch import Tensor, nn

from ranker.interactions import Sparse
from ranker.models.factors import Factors, fingerprint, folded_in, largest_first, watched
from ranker.models.learning import LearningConfig, Rows, learn, seed_of, shuffled
from ranker.models.model import Arrays, Reason, Run, check_fit
from ranker.models.ranking_loss import softmax_loss, sparse_sum
from ranker.models.training_data import ActLog, Content, Float32, Float64, Integers, TrainingData

# Earlier "times" are places in a file: nobody's acts are from before 1980.
FIRST_TIME = 315_532_800.0
HOURS, DAYS = 24, 7


class FactorisationMachineConfig(LearningConfig):
    """A batch is one of contexts; `epochs` are passes over them."""

    epochs: int = Field(100, ge=1)
    batch: int = Field(1024, ge=1)
    learning_rate: float = Field(0.01, gt=0, allow_inf_nan=False)
    evaluate_every: int = Field(5, ge=1)
    patience: int = Field(4, ge=1)
    dim: int = Field(64, ge=1)
    l2: float = Field(0.1, ge=0, allow_inf_nan=False, description="On squared vectors, for each act that uses them.")
    heavy: float = Field(1.0, ge=0, le=1, description="A context of n videos counts n to this power.")
    context: bool = Field(True, description="Hour and day of the week as fields, where the log has times.")
    tags: bool = Field(True, description="Tags as a field, where videos have any.")
    most_candidates: int = Field(20_000, ge=1, description="Videos in a softmax; of more, so many are drawn.")


class _Network(nn.Module):
    def __init__(self, n_viewers: int, n_videos: int, n_tags: int, dim: int, seed: int) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)

        def vectors(n: int) -> nn.Parameter:
            return nn.Parameter(0.05 * torch.randn(n, dim, generator=generator))

        self.viewers, self.videos, self.tags = vectors(n_viewers), vectors(n_videos), vectors(n_tags)
        self.hours, self.days = vectors(HOURS), vectors(DAYS)
        self.video_weights = nn.Parameter(torch.zeros(n_videos))
        self.tag_weights = nn.Parameter(torch.zeros(n_tags))

    def sides(self, tags: Sparse) -> tuple[Tensor, Tensor]:
        """[n_videos, dim] the sum S of the video's vectors, and [n_videos] its weights and the pairs within it."""
        of_tags = sparse_sum(tags, self.tags)
        squares = sparse_sum(tags.multiply(tags).tocsr(), self.tags.square().sum(dim=1, keepdim=True))[:, 0]
        weights = sparse_sum(tags, self.tag_weights[:, None])[:, 0]
        within = (self.videos * of_tags).sum(dim=1) + (of_tags.square().sum(dim=1) - squares) / 2
        return self.videos + of_tags, self.video_weights + weights + within


class FactorisationMachine:
    """Crosses of viewer, video, tags and context."""

    name: ClassVar[str] = "fm"

    def __init__(self, **settings: Any) -> None:
        self.config = FactorisationMachineConfig(**settings)
        self._factors: Factors
        # By name: `videos` and `tags` vectors, `hours`, `days`, `video_weights`, `tag_weights`.
        self._parts: dict[str, Float32]
        self._tags: Sparse

    def fit(self, data: TrainingData, run: Run | None = None) -> dict[str, Any]:
        """Learn from all acts with a value above 0. See `Model.fit`."""
        check_fit(data)
        chosen, asked, log = self.config, run or Run(), data.log
        tags = _tags(data.content if chosen.tags else Content(), log.n_videos)
        timed = chosen.context and _has_times(log)
        contexts, targets = _contexts(log, timed)
        counts = np.asarray(targets.sum(axis=1), np.float32).ravel()
        targets = (sparse.diags((counts ** (chosen.heavy - 1)).astype(np.float32)) @ targets).tocsr()
        network = _Network(log.n_viewers, log.n_videos, tags.shape[1], chosen.dim, seed_of(chosen.seed))
        if not timed:
            for field in (network.hours, network.days):
                nn.init.zeros_(field).requires_grad_(False)

        of_videos = torch.from_numpy(np.asarray(log.binary.sum(axis=0), np.float32).ravel())
        of_tags = torch.from_numpy(np.asarray(log.binary.sum(axis=0) @ tags.multiply(tags), np.float32).ravel())

        def vectors_of(people: Tensor, hours: Tensor, days: Tensor) -> Tensor:
            fields = (network.viewers[people], network.hours[hours], network.days[days])
            return torch.stack([field.square().sum(dim=1) for field in fields]).sum(dim=0)

        def sizes() -> Tensor:
            of = (of_videos * network.videos.square().sum(dim=1)).sum()
            return of + (of_tags * network.tags.square().sum(dim=1)).sum()

        def loss_of(rows: Rows) -> Tensor:
            people, hours, days = (torch.from_numpy(contexts[rows, field]) for field in range(3))
            own = network.viewers[people]
            vectors = own + network.hours[hours] + network.days[days]
            sums, weights = network.sides(tags)
            besides = log.binary[contexts[rows, 0]] - targets[rows].sign()
            found = softmax_loss(
                vectors, sums, weights, targets[rows], data.seen_videos, chosen.most_candidates, besides
            )
            size = (torch.from_numpy(counts[rows]) * vectors_of(people, hours, days)).sum()
            return found + chosen.l2 * (size + (len(rows) / len(contexts)) * sizes())

        def judge() -> float:
            self._take(network, data, tags)
            assert asked.judge is not None
            return asked.judge(self)

        facts = learn(
            network,
            loss_of,
            lambda epoch: shuffled(len(contexts), chosen.seed, epoch),
            chosen,
            asked,
            None if asked.judge is None else judge,
            (self.name, fingerprint(log), tags.shape[1], float(tags.sum())),
        )
        self._take(network, data, tags)
        return facts | {"contexts": len(contexts), "times": timed, "tags": int(tags.shape[1])}

    def _take(self, network: _Network, data: TrainingData, tags: Sparse) -> None:
        seen = data.seen_videos
        with torch.no_grad():
            # Nobody taught these two what they are: they stand for no video in particular.
            network.videos[torch.from_numpy(~seen)] = 0
            network.video_weights[torch.from_numpy(~seen)] = network.video_weights[torch.from_numpy(seen)].min()
            sums, weights = (side.numpy().copy() for side in network.sides(tags))
        own = network.viewers.detach().numpy().copy()
        had = np.diff(data.log.binary.indptr) > 0
        own[~had] = 0
        history = watched(data.log, np.arange(data.log.n_viewers))
        memory = folded_in(own[had], sums, history[had])
        ranked = seen | (np.diff(tags.indptr) > 0)
        self._factors, self._tags = Factors(own, sums, memory, weights, ranked), tags
        names = ("videos", "tags", "hours", "days", "video_weights", "tag_weights")
        self._parts = {name: getattr(network, name).detach().numpy().copy() for name in names}

    def _context(self, log: ActLog, viewers: Integers) -> tuple[Float32, Float32]:
        """float32 [len(viewers), dim] twice: of the hour and of the day of each viewer's last act."""
        dim = self._factors.videos.shape[1]
        found = np.zeros((2, len(viewers), dim), np.float32)
        inside = np.flatnonzero(viewers < log.n_viewers)
        last = log.starts[viewers[inside] + 1]
        inside, last = inside[last > log.starts[viewers[inside]]], last[last > log.starts[viewers[inside]]]
        if len(inside) and _has_times(log):
            hours, days = _hours_and_days(log.at[last - 1])
            found[0, inside], found[1, inside] = self._parts["hours"][hours], self._parts["days"][days]
        return found[0], found[1]

    def score(self, log: ActLog, viewers: Integers) -> Float32:
        """See `Model.score`. Videos with neither acts in training nor tags get the lowest score of the others."""
        hours, days = self._context(log, viewers)
        return self._factors.score(viewers, self._factors.strangers(log, viewers), log.n_videos, hours + days)

    def explain(self, log: ActLog, viewer: int, video: int) -> list[Reason]:
        """By crosses of fields: the viewer (for a new one: each watched video), hour and day, each with the video and
        with each of its tags; the pairs within the video; the weights of video and tags."""
        one = np.array([viewer], np.int64)
        weights = self._factors.strangers(log, one)
        hours, days = self._context(log, one)
        if video >= len(self._factors.seen) or not self._factors.seen[video]:
            return self._factors.explain(viewer, weights, video, hours + days)
        parts, tags = self._parts, self._tags[video]
        fields = [("viewer", self._factors.own_of(one)[0]), ("hour", hours[0]), ("day", days[0])]
        history = weights[:, : len(self._factors.videos)].tocsr()
        fields += [
            (f"watched {j}", weight * self._factors.memory[j])
            for j, weight in zip(history.indices, history.data, strict=True)
        ]
        vectors = [(f"tag {tag}", x * parts["tags"][tag]) for tag, x in zip(tags.indices, tags.data, strict=True)]
        reasons = [Reason("popularity", "weight", float(parts["video_weights"][video]))]
        for (name, vector), tag, x in zip(vectors, tags.indices, tags.data, strict=True):
            reasons.append(Reason("tag", str(tag), float(x * parts["tag_weights"][tag])))
            reasons.append(Reason("cross", f"video x {name}", float(vector @ parts["videos"][video])))
        for field, own in fields:
            reasons.append(Reason("cross", f"{field} x video", float(own @ parts["videos"][video])))
            reasons += [Reason("cross", f"{field} x {name}", float(own @ vector)) for name, vector in vectors]
        among = sum(float(a @ b) for place, (_, a) in enumerate(vectors) for _, b in vectors[:place])
        return largest_first([*reasons, Reason("cross", "tags x tags", among)])

    def arrays(self) -> Arrays:
        """See `Model.arrays`."""
        parts = {f"part_{name}": array for name, array in self._parts.items()}
        tags = {"tag_starts": self._tags.indptr, "tag_columns": self._tags.indices, "tag_shares": self._tags.data}
        return self._factors.arrays() | parts | tags

    @classmethod
    def from_arrays(cls, config: Mapping[str, Any], arrays: Mapping[str, npt.NDArray[Any]]) -> Self:
        """See `Model.from_arrays`."""
        made = cls(**config)
        made._factors = Factors.from_arrays(arrays)
        made._parts = {name[5:]: np.asarray(array) for name, array in arrays.items() if name.startswith("part_")}
        made._tags = sparse.csr_matrix(
            (arrays["tag_shares"], arrays["tag_columns"], arrays["tag_starts"]),
            shape=(len(made._factors.videos), len(made._parts["tags"])),
        )
        return made


def _tags(content: Content, n_videos: int) -> Sparse:
    """CSR float32 [n_videos, n_tags]: one by the root of the number of the video's tags."""
    if content.tags is None:
        return sparse.csr_matrix((n_videos, 0), dtype=np.float32)
    tags = content.tags.tocsr()
    scale = (1 / np.sqrt(np.maximum(np.diff(tags.indptr), 1))).astype(np.float32)
    found = (sparse.diags(scale) @ (tags > 0).astype(np.float32)).tocsr()
    found.sort_indices()
    return found


def _has_times(log: ActLog) -> bool:
    return len(log) > 0 and float(log.at.min()) >= FIRST_TIME


def _hours_and_days(at: Float64) -> tuple[Integers, Integers]:
    """Hour of the day 0..23 and day of the week 0..6 from Monday, of seconds since 1970 (a Thursday), UTC."""
    return (at % 86_400 // 3_600).astype(np.int64), ((at // 86_400 + 3) % DAYS).astype(np.int64)


def _contexts(log: ActLog, timed: bool) -> tuple[Integers, Sparse]:
    """int64 [n, 3] of viewer, hour and day (0 without times), and CSR [n, n_videos] of 1 for what was watched then."""
    positive = np.flatnonzero(log.values > 0)
    hours, days = _hours_and_days(log.at[positive])
    if not timed:
        hours, days = np.zeros_like(hours), np.zeros_like(days)
    rows = np.stack([log.viewers[positive], hours, days], axis=1)
    contexts, place = np.unique(rows, axis=0, return_inverse=True)
    targets = sparse.csr_matrix(
        (np.ones(len(positive), np.float32), (place.ravel(), log.videos[positive])), shape=(len(contexts), log.n_videos)
    )
    targets.sum_duplicates()
    targets.data[:] = 1
    return contexts.astype(np.int64), targets
