"""The hybrid: several fitted models blended, each by as much as acts that were held back say that it is worth.

    score(u, i) = sum over members m of  w_m(u) * alike(score_m(u, i))            of a video that has acts in training
    score(u, i) = offset + slope * sum over content members c of  v_c * alike(score_c(u, i))      of one that has none

`alike` and the search for the weights are in `ranker.models.blending`. Members whose labels are alike up to an "@" (one
model fitted with several seeds: sasrec@0, sasrec@1) share one weight evenly. Heavy viewers (more acts in training than
the median) have weights of their own only where that gains, by an interval over viewers, on viewers who were left out.

A video without acts has nothing but its content, and what collaborative members say of it is their floor. So it is
scored by members of content alone, and *calibrated* into the list: `slope` and `offset` are the line that predicts the
full blend from the content blend on videos that have both (its slope is below 1, as content knows less), and where
validation holds enough acts on such videos it may move them all up or down. `v` is found on videos taken out of
training, not on known ones: a network that learnt known videos by heart looks better there than it is.

A viewer who was not in training is whatever his log holds to each member; his weights are those of light viewers until
he has more acts than the median.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field

from ranker.models import blending
from ranker.models.blending import Blend, Kind, Pool, alike, had, pool_of
from ranker.models.model import Arrays, Judge, Model, Reason, Run, check_fit, make_model, model_class
from ranker.models.training_data import ActLog, Float32, Float64, Integers, TrainingData
from ranker.splits import leave_last_out
from store.errors import InputError, ModelError

# Models that can tell videos without acts apart.
CONTENT = ("content", "content_map", "knowledge_graph", "fm", "two_tower", "sasrec_content")
# What is blended unless settings say otherwise; those of content only where there is content.
USUAL = ("popularity", "item_knn", "walk", "als", "ease", "content_map")
# Steps in standard deviations of the full blend by which validation may move videos without acts.
MOVES = (-3.0, -1.0, -0.5, 0.5, 1.0)
# With fewer acts on such videos validation says nothing about them.
LEAST_COLD = 20
HELD_VIDEOS = 5
BATCH = 256
PREFIX = "blend"


class Member(BaseModel):
    """`model` by its name, and its settings. `cold`: whether it ranks videos without acts (left out: by its kind)."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    model: str
    settings: dict[str, Any] = Field(default_factory=dict)
    cold: bool | None = None

    @property
    def of_content(self) -> bool:
        """Whether it takes part in ranking videos without acts."""
        return self.model in CONTENT if self.cold is None else self.cold


class HybridConfig(BaseModel):
    """`members` by label (none: the usual ones); `kind`: how scores are made alike (none: as validation says)."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    members: dict[str, Member] = Field(default_factory=dict)
    kind: Kind | None = None
    candidates: int = Field(100, ge=10, description="Best videos of each member that weights are searched on.")
    viewers: int = Field(2000, ge=4, description="Most viewers that weights are searched on.")
    repeats: int = Field(2, ge=1, description="Partings of the viewers into halves.")
    by_activity: bool = Field(True, description="Whether heavy viewers may have their own weights.")
    seed: int = Field(0, ge=0)


@dataclass(frozen=True, eq=False)
class ColdCheck:
    """Members of content fitted without any act on `candidates` (bool [n_videos]), to `log`; `held`: sparse [viewers,
    videos], acts on those."""

    members: Mapping[str, Model]
    log: ActLog
    held: Any
    candidates: npt.NDArray[np.bool_]


class Hybrid:
    """`members` by label, in the order of labels. `weights` float64 [1 or 2, members] (light and heavy viewers), each
    row of sum 1; `cold_weights` float64 [members], 0 of what is not of content; `line`: slope and offset."""

    name: ClassVar[str] = "hybrid"

    def __init__(self, **settings: Any) -> None:
        self.config = HybridConfig(**settings)
        for label in self.config.members:
            if "/" in label or label == PREFIX:
                raise InputError("request.invalid", f"hybrid: a member cannot be called {label[:40]!r}.")
        self.members: dict[str, Model] = {}
        self.kind: Kind = "z"
        self.weights: Float64 = np.zeros((1, 0))
        self.cold_weights: Float64 = np.zeros(0)
        self.line: Float64 = np.array([1.0, 0.0])
        self.median = 0.0
        self.known = np.zeros(0, bool)

    # --- learning ----------------------------------------------------------------------------------------------------

    def fit(self, data: TrainingData, run: Run | None = None) -> dict[str, Any]:
        """Fit all members without the last act of each viewer, find the weights on those, find the weights of content
        on a fifth of the videos that content members are fitted without, then fit all members to everything.

        Members that stop early by validation learn in the end for as many epochs as were best before. See `Model.fit`;
        `ranker.too_few_events` where no viewer has three acts.
        """
        check_fit(data, 3)
        asked, members = run or Run(), self._asked(data)
        parts = leave_last_out(data.log)
        # No test is needed here: the last act of each viewer is what choices are made by.
        held = parts.test.binary
        if not held.nnz:
            raise InputError("ranker.too_few_events", "No viewer has three acts to blend models by.")
        inner = replace(data, log=parts.later)
        steps, done = 2 * len(members) + sum(member.of_content for member in members.values()), 0
        first: dict[str, Model] = {}
        settings: dict[str, dict[str, Any]] = {}
        for label, member in members.items():
            first[label], said = _fitted(member, inner, _judge(inner.log, held))
            settings[label] = _settled(first[label], said)
            asked.tell(done := done + 1, steps)
        check = self._cold_check(data, members, settings)
        done += sum(member.of_content for member in members.values())
        facts = self.blend(first, inner, held, check)
        for label, member in members.items():
            self.members[label] = _fitted(Member(model=member.model, settings=settings[label]), data, None)[0]
            asked.tell(done := done + 1, steps)
        self._remember(data)
        return facts

    def blend(
        self, members: Mapping[str, Model], data: TrainingData, held: Any, check: ColdCheck | None = None
    ) -> dict[str, Any]:
        """Take fitted `members` and find their weights on `held` (sparse [viewers, videos]: acts after `data`, to which
        they were fitted). Returns facts: the weights, and `validation`, the NDCG@10 that they reach on viewers who were
        left out, with `alone`, that of the best single member, found likewise.
        """
        started = time.process_time()
        self._take(members, data)
        chosen, labels = self.config, list(self.members)
        scorers = [lambda viewers, model=model: model.score(data.log, viewers) for model in self.members.values()]
        full = pool_of(scorers, data.log, held, each=chosen.candidates, viewers=chosen.viewers, seed=chosen.seed)
        groups = _groups(labels)
        pool = blending.together(full, groups)
        kinds = blending.KINDS if chosen.kind is None else (chosen.kind,)
        blends = [blending.chosen(pool, kind, chosen.repeats, chosen.seed) for kind in kinds]
        best: Blend = max(blends, key=lambda blend: float(blend.each.mean()) if len(blend.each) else 0.0)
        self.kind, self.weights = best.kind, blending.spread(best.weights[None], groups)
        facts: dict[str, Any] = {
            "validation": round(float(best.each.mean()), 4),
            "alone": round(float(best.alone.mean()), 4),
            "kind": self.kind,
            "by_kind": {blend.kind: round(float(blend.each.mean()), 4) for blend in blends},
            "viewers": len(pool.viewers),
        }
        if chosen.by_activity:
            heavy = np.diff(data.log.starts)[pool.viewers] > self.median
            own = blending.parted(pool, best, heavy, chosen.repeats, chosen.seed)
            if own is not None:
                self.weights, facts["gain_by_activity"] = blending.spread(own[0], groups), own[1]
        facts |= self._calibrate(full, held, check)
        facts["weights"] = {label: np.round(self.weights[:, place], 4).tolist() for place, label in enumerate(labels)}
        return facts | {"blend_cpu_seconds": round(time.process_time() - started, 1)}

    def with_members(self, members: Mapping[str, Model], data: TrainingData) -> Hybrid:
        """The same weights over the same labels, fitted to other data."""
        made = Hybrid(**self.config.model_dump())
        made._take(members, data)
        if list(made.members) != list(self.members):
            raise ValueError(f"members {sorted(made.members)} for weights of {sorted(self.members)}")
        made.kind, made.weights, made.cold_weights, made.line = self.kind, self.weights, self.cold_weights, self.line
        return made

    def _asked(self, data: TrainingData) -> dict[str, Member]:
        members = dict(self.config.members) or {
            name: Member(model=name) for name in USUAL if data.content.features or name not in CONTENT
        }
        return {label: members[label] for label in sorted(members)}

    def _take(self, members: Mapping[str, Model], data: TrainingData) -> None:
        if not members:
            raise ValueError("a hybrid of no members")
        asked = self.config.members
        self.members = {label: members[label] for label in sorted(members)}
        self.config = self.config.model_copy(update={"members": {
            label: Member(
                model=model.name,
                settings=model.config.model_dump(mode="json"),
                cold=asked[label].cold if label in asked else None,
            )
            for label, model in self.members.items()
        }})  # fmt: skip
        self._remember(data)

    def _remember(self, data: TrainingData) -> None:
        counts = np.diff(data.log.starts)
        self.median = float(np.median(counts[counts > 0])) if (counts > 0).any() else 0.0
        self.known = data.seen_videos.copy()

    def _content(self) -> npt.NDArray[np.bool_]:
        return np.array([member.of_content for member in self._ordered().values()], bool)

    def _ordered(self) -> dict[str, Member]:
        return {label: self.config.members[label] for label in self.members}

    def _cold_check(
        self, data: TrainingData, members: Mapping[str, Member], settings: Mapping[str, Mapping[str, Any]]
    ) -> ColdCheck | None:
        """Content members once more, without a fifth of the videos."""
        content = {label: member for label, member in members.items() if member.of_content}
        known = np.flatnonzero(data.seen_videos)
        drawn = np.random.Generator(np.random.PCG64(self.config.seed)).permutation(known)[: len(known) // HELD_VIDEOS]
        candidates = np.zeros(data.log.n_videos, bool)
        candidates[drawn] = True
        log = _without(data.log, candidates)
        if not content or len(drawn) < 2 or int((log.values > 0).sum()) < 2:
            return None
        held = data.log.binary.multiply(candidates[None, :].astype(np.float32)).tocsr()
        held.eliminate_zeros()
        rest = replace(data, log=log)
        fitted = {
            label: _fitted(Member(model=member.model, settings=dict(settings[label])), rest, None)[0]
            for label, member in content.items()
        }
        return ColdCheck(fitted, log, held, candidates)

    def _calibrate(self, pool: Pool, held: Any, check: ColdCheck | None) -> dict[str, Any]:
        """Weights of content, then the line, then where the videos without acts stand."""
        content = self._content()
        self.cold_weights = np.zeros(len(content))
        self.line = np.array([1.0, 0.0])
        if not content.any():
            return {"cold": "none: no member of content"}
        facts: dict[str, Any] = {}
        own = self.weights.mean(axis=0) * content
        self.cold_weights = own / own.sum() if own.sum() > 0 else content / content.sum()
        if check is not None and (found := self._checked(check)) is not None:
            blend, labels = found
            place = {label: number for number, label in enumerate(self.members)}
            # Who was not asked about videos taken out of training is not trusted with new ones.
            self.cold_weights = np.zeros(len(content))
            own = blending.spread(blend.weights, _groups(labels))
            self.cold_weights[[place[label] for label in labels]] = own
            facts["cold_validation"] = round(float(blend.each.mean()), 4)
            facts["cold_alone"] = round(float(blend.alone.mean()), 4)
        facts["cold_weights"] = {
            label: round(float(weight), 4) for label, weight in zip(self.members, self.cold_weights, strict=True)
        }
        weights = self._weights_of(np.zeros(len(pool.viewers), np.int64))
        warm = self.known[pool.sampled]
        full = np.einsum("nm,mnw->nw", weights, pool.sampled_scores[self.kind])[warm]
        plain = np.tensordot(self.cold_weights, pool.sampled_scores[self.kind], axes=1)[warm]
        spread = float(plain.var()) if len(plain) else 0.0
        slope = max(float(np.cov(plain, full)[0, 1]) / spread, 1e-3) if spread > 0 else 1.0
        offset = float(full.mean() - slope * plain.mean()) if len(plain) else 0.0
        self.line = np.array([slope, offset])
        cold = ~self.known[np.maximum(pool.videos, 0)] & (pool.videos >= 0)
        if int(held[pool.viewers][:, ~self.known].nnz) >= LEAST_COLD:
            facts["cold_moved"] = self._moved(pool, cold, float(full.std()))
        return facts | {"line": np.round(self.line, 4).tolist()}

    def _checked(self, check: ColdCheck) -> tuple[Blend, list[str]] | None:
        """Weights of content on videos that were taken out of training, and whose they are."""
        labels = [label for label, member in self._ordered().items() if member.of_content and label in check.members]
        asked = self.config
        if not labels or not check.held.nnz:
            return None
        scorers = [lambda some, model=check.members[label]: model.score(check.log, some) for label in labels]
        pool = pool_of(
            scorers,
            check.log,
            check.held,
            each=asked.candidates,
            viewers=asked.viewers,
            seed=asked.seed,
            candidates=check.candidates,
        )
        pool = blending.together(pool, _groups(labels))
        return blending.chosen(pool, self.kind, asked.repeats, asked.seed), labels

    def _moved(self, pool: Pool, cold: npt.NDArray[np.bool_], step: float) -> float:
        """Move all videos without acts to where validation has them, and say by how many standard deviations."""
        weights = self._weights_of(np.zeros(len(pool.viewers), np.int64))
        full = np.einsum("nm,mnw->nw", weights, pool.scores[self.kind])
        plain = np.tensordot(self.cold_weights, pool.scores[self.kind], axes=1)
        slope, offset = self.line
        reached, moved = -1.0, 0.0
        for move in (0.0, *MOVES):
            total = np.where(cold, offset + move * step + slope * plain, full)
            found = float(blending.ndcg(pool, total).mean())
            if found > reached + 1e-6:
                reached, moved = found, move
        self.line = np.array([slope, offset + moved * step])
        return moved

    # --- ranking -----------------------------------------------------------------------------------------------------

    def score(self, log: ActLog, viewers: Integers) -> Float32:
        """float32 [len(viewers), n_videos]. See the module."""
        found = np.empty((len(viewers), log.n_videos), np.float32)
        for start in range(0, len(viewers), BATCH):
            some = viewers[start : start + BATCH]
            found[start : start + BATCH] = self._parts(log, some).sum(axis=0)
        return found

    def explain(self, log: ActLog, viewer: int, video: int) -> list[Reason]:
        """What each member adds, of kind `model`; for a video without acts also the `calibration`."""
        parts = self._parts(log, np.array([viewer], np.int64))[:, 0, video]
        names = [("model", label) for label in self.members] + [("calibration", "new video")]
        reasons = [Reason(kind, name, float(share)) for (kind, name), share in zip(names, parts, strict=True) if share]
        return sorted(reasons, key=lambda reason: -abs(reason.share))

    def _parts(self, log: ActLog, viewers: Integers) -> Float64:
        """float64 [members + 1, len(viewers), n_videos]: what each member adds, and the offset."""
        seen = had(log, viewers)
        events = np.array([log.starts[v + 1] - log.starts[v] if v < log.n_viewers else 0 for v in viewers], np.int64)
        weights = self._weights_of(events)
        cold = ~self.known
        slope, offset = self.line
        parts = np.zeros((len(self.members) + 1, len(viewers), log.n_videos))
        for place, model in enumerate(self.members.values()):
            if not weights[:, place].any() and not (self.cold_weights[place] and cold.any()):
                continue
            made = alike(model.score(log, viewers), seen, self.kind).astype(np.float64)
            parts[place] = np.where(
                cold[None, :] & self._content().any(),
                slope * self.cold_weights[place] * made,
                weights[:, [place]] * made,
            )
        if self._content().any():
            parts[-1][:, cold] = offset
        return parts

    def _weights_of(self, events: Integers) -> Float64:
        """float64 [n, members], by how many acts viewers have."""
        heavy = (events > self.median).astype(np.int64) if len(self.weights) > 1 else np.zeros(len(events), np.int64)
        return np.asarray(self.weights[heavy], np.float64)

    # --- keeping -----------------------------------------------------------------------------------------------------

    def arrays(self) -> Arrays:
        """Those of the members, `LABEL/NAME`, and the hybrid's own, `blend/NAME`."""
        found: Arrays = {
            f"{label}/{name}": array for label, model in self.members.items() for name, array in model.arrays().items()
        }
        own: Arrays = {
            "weights": self.weights,
            "cold_weights": self.cold_weights,
            "line": self.line,
            "median": np.array([self.median]),
            "known": self.known.astype(np.uint8),
            "kind": np.array([blending.KINDS.index(self.kind)], np.int64),
        }
        return found | {f"{PREFIX}/{name}": array for name, array in own.items()}

    @classmethod
    def from_arrays(cls, config: Mapping[str, Any], arrays: Mapping[str, npt.NDArray[Any]]) -> Self:
        """Raises `ranker.bad_model`."""
        made = cls(**config)
        own = _under(arrays, PREFIX)
        for label in sorted(made.config.members):
            member = made.config.members[label]
            made.members[label] = model_class(member.model).from_arrays(member.settings, _under(arrays, label))
        made.weights, made.cold_weights, made.line = (
            np.asarray(own[name], np.float64) for name in ("weights", "cold_weights", "line")
        )
        made.median, made.known = float(own["median"][0]), np.asarray(own["known"]).astype(bool)
        made.kind = blending.KINDS[int(own["kind"][0])]
        n = len(made.members)
        if made.weights.shape not in ((1, n), (2, n)) or made.cold_weights.shape != (n,) or made.line.shape != (2,):
            raise ModelError("ranker.bad_model", f"The weights of the hybrid do not fit its {n} members.")
        return made


def _groups(labels: Sequence[str]) -> list[Integers]:
    """The places of labels that are alike up to an "@"."""
    heads = [label.partition("@")[0] for label in labels]
    return [np.array([n for n, own in enumerate(heads) if own == head], np.int64) for head in dict.fromkeys(heads)]


def _fitted(member: Member, data: TrainingData, judge: Judge | None) -> tuple[Model, dict[str, Any]]:
    model = make_model(member.model, member.settings)
    return model, model.fit(data, Run(judge=judge))


def _settled(model: Model, said: Mapping[str, Any]) -> dict[str, Any]:
    """Its settings, with as many epochs as were best."""
    settings: dict[str, Any] = model.config.model_dump(mode="json")
    if "epochs" in settings and "best_epoch" in said:
        settings["epochs"] = max(int(said["best_epoch"]), 1)
    return settings


def _judge(log: ActLog, held: Any) -> Judge:
    from ranker.evaluation import measure

    seen = log.binary

    def judge(model: Model) -> float:
        found = measure(lambda viewers: model.score(log, viewers), held, seen, (10,))
        return float(found.each["ndcg@10"].mean())

    return judge


def _without(log: ActLog, videos: npt.NDArray[np.bool_]) -> ActLog:
    kept = ~videos[log.videos]
    names: Sequence[str] = ("viewers", "videos", "at", "values", "watched", "kinds", "ratings")
    return replace(log, **{name: getattr(log, name)[kept] for name in names})


def _under(arrays: Mapping[str, npt.NDArray[Any]], label: str) -> Arrays:
    return {name[len(label) + 1 :]: array for name, array in arrays.items() if name.startswith(label + "/")}
