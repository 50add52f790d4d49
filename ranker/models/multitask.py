"""The multi-task ranker: what will come of a video that is shown to a viewer, and what that is worth.

It stands on top of other models. Their scores, made comparable, are features beside what is known of viewer, video and
moment (`ranker.models.task_features`); a network (`task_network`: shared bottom or MMoE) gives a logit for each head

    view, finish, like, share, follow, not_interested      probabilities, calibrated
    watch                                                  the expected quantile of the watch time, 0..1, likewise

and all but the first are of videos that were taken up: P(view) P(head | view), as in ESMM (Ma et al., SIGIR 2018), so
that a head learns from every view and is no judge of what the viewer was never shown. P(view) is against videos that
were drawn in training: it orders, and its level is that of the drawing. (Drawing them from the inputs' best alone looks
right for a re-ranker and is wrong: what stands low in the inputs' lists is then a taken video every time, and the head
learns their order upside down; NDCG@10 on MovieLens-100K falls from .278 to .255.)

    score = sum over heads of  objective(head) * weight(head) * P(view) [* P(head | view)]

The objectives are the viewer's, the creators' and the platform's value of `ranker.objectives`. Only the `most` best
videos of the inputs' union are scored so; all others keep a floor below them, in the order of the inputs' mean.

A viewer who was not in training has no embedding of his own: the one of nobody stands for it, which training meets too
(`hidden_share`), and everything else is read from his log. A video without acts likewise, and one that came after
training: inputs that know content bring it in.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Self

import numpy as np
import numpy.typing as npt
import torch

from ranker.models.calibration import Calibration, sigmoid
from ranker.models.learning import learn, seed_of, shuffled
from ranker.models.model import Arrays, Model, Reason, Run, check_fit, make_model, model_class
from ranker.models.multitask_config import SIDES, MultiTaskConfig
from ranker.models.task_examples import Examples, gathered, had, held_back
from ranker.models.task_features import (
    Standardised,
    VideoFacts,
    ViewerFacts,
    block,
    candidates,
    hashed_tags,
    names,
    ranks,
    standard,
)
from ranker.models.task_network import TaskNetwork
from ranker.models.task_outcomes import (
    HEADS,
    durations_of,
    outcomes_of,
    watch_norms,
    without_durations,
)
from ranker.models.task_training import ROWS_AT_ONCE, Lesson, Teaching, calibrated, learnable
from ranker.models.training_data import ActLog, Float32, Float64, Integers, TrainingData
from ranker.watch_time import WatchNorms
from store.errors import InputError, ModelError

VIEWERS_AT_ONCE = 256


class MultiTask:
    """See the module. `inputs` may hold names, or models, which are taken as unfitted: their class and settings
    count, and what they learnt elsewhere is not used."""

    name: ClassVar[str] = "multitask"

    def __init__(self, inputs: Sequence[str | Model] | None = None, **settings: Any) -> None:
        self._classes: dict[str, type[Model]] = {}
        if inputs is not None:
            settings["inputs"] = tuple(item if isinstance(item, str) else item.name for item in inputs)
            given = {item.name: item for item in inputs if not isinstance(item, str)}
            self._classes = {name: type(item) for name, item in given.items()}
            described = {name: item.config.model_dump(mode="json") for name, item in given.items()}
            settings["input_settings"] = dict(settings.get("input_settings", {})) | described
        self.config = MultiTaskConfig(**settings)
        self.heads: tuple[str, ...] = ()
        self._inputs: list[Model] = []
        self._network: TaskNetwork | None = None
        self._calibrations: dict[str, Calibration] = {}
        self._known_viewers = np.zeros(0, bool)
        self._tags = np.zeros((1, 0), np.float32)
        self._durations: Float64 | None = None
        self._norms: WatchNorms | None = None
        # What was read from the last log, and while training goes on, the features of its judge's viewers.
        self._last: tuple[ActLog, ViewerFacts] | None = None
        self._kept: dict[tuple[int, bytes], _Candidates] | None = None

    @property
    def members(self) -> dict[str, Model]:
        """The fitted inputs, by label."""
        return dict(zip(self.config.inputs, self._inputs, strict=True)) if self._inputs else {}

    def _make_inputs(self) -> list[Model]:
        made = []
        for label, (name, settings) in self.config.made_of().items():
            maker: Any = self._classes.get(label)
            made.append(make_model(name, settings) if maker is None else maker(**settings))
        return made

    def fit(self, data: TrainingData, run: Run | None = None) -> dict[str, Any]:
        """Fit the inputs to parts and to all of the data, then the network. Heads that cannot be learnt (one class
        only) are left out and named in the report; with none left `ranker.too_few_events` is raised. Early stopping
        goes by the judge, or by the loss of pairs that are kept for calibration where there is none."""
        check_fit(data)
        config, run, log = self.config, run or Run(), data.log
        content = without_durations(data.content)
        self._durations = durations_of(data.content)
        self._norms = watch_norms(log, self._durations)
        outcomes = outcomes_of(log, self._norms, self._durations)
        fold = held_back(outcomes, config.holdout, config.folds, config.held_share, config.seed)
        examples = gathered(
            data, outcomes, fold, content, self._make_inputs,
            drawn=config.drawn, hard=config.hard, most=config.most, seed=config.seed,
        )  # fmt: skip
        stream = np.random.Generator(np.random.PCG64(seed_of(config.seed, 3)))
        held = stream.random(len(examples)) < config.valid_share
        train, valid = examples[~held], examples[held]
        self.heads, left = learnable(train)
        if not self.heads:
            raise InputError(
                "ranker.too_few_events",
                f"None of the heads can be learnt: {left}.",
                hint="Take in more events, of more kinds, first.",
            )
        self._inputs = self._make_inputs()
        reports = {label: model.fit(TrainingData(log, content)) for label, model in self.members.items()}
        self._facts = VideoFacts.of(outcomes, log.n_videos)
        self._known_viewers = np.bincount(train.viewers, minlength=log.n_viewers) > 0
        self._tags = np.concatenate(
            [hashed_tags(content, log.n_videos, config.buckets), np.zeros((1, config.buckets), np.float32)]
        )
        self._standard = Standardised.of(train.features.reshape(-1, train.features.shape[-1]))
        network = self._network_of(train.features.shape[-1])
        self._network, self._calibrations = network, {head: Calibration() for head in self.heads}
        lessons = [self._lesson(part, network) for part in (train, valid)]
        self._kept = {}
        try:
            judge = None if run.judge is None else (lambda: run.judge(self))  # type: ignore[misc]
            learnt = learn(
                network,
                lessons[0].loss,
                lambda epoch: shuffled(len(train), config.seed, epoch),
                config,
                run,
                judge or (lambda: -lessons[1].plain_loss()),
                (config.model_dump(mode="json"), _digest(log)),
            )
        finally:
            self._kept = None
        self._calibrations, calibration = calibrated(lessons[1], config.calibration)
        return learnt | {
            "heads": list(self.heads),
            "left_out": left,
            "examples": len(train),
            "calibrated_on": len(valid),
            "calibration": calibration,
            "features": names(config.inputs),
            "inputs": reports,
        }

    def _network_of(self, n_features: int) -> TaskNetwork:
        config = self.config
        torch.manual_seed(seed_of(config.seed, 4))
        return TaskNetwork(
            n_viewers=len(self._known_viewers),
            n_videos=len(self._facts.had),
            n_features=n_features,
            n_buckets=self._tags.shape[1] if self._tags.any() else 0,
            n_heads=len(self.heads),
            architecture=config.architecture,
            dim=config.dim,
            width=config.width,
            experts=config.experts,
            tower=config.tower,
            dropout=config.dropout,
            hidden_share=config.hidden_share,
            uncertainty=config.weighting == "uncertainty",
        )

    def _lesson(self, examples: Examples, network: TaskNetwork) -> Lesson:
        config = self.config
        ready = Examples(
            examples.viewers,
            examples.videos,
            self._standard(examples.features),
            examples.labels,
            examples.values,
        )
        teaching = Teaching(
            dict(config.task_weights),
            config.label_smoothing,
            config.pairwise,
            config.adversarial and config.epsilon > 0,
            config.epsilon,
            config.adversarial_weight,
        )
        viewers, videos = self._rows(examples.viewers, examples.videos)
        return Lesson(network, ready, self.heads, viewers, videos, self._tags, teaching)

    def _rows(self, viewers: Integers, videos: Integers) -> tuple[Integers, Integers]:
        """Rows of the embeddings: who or what training did not meet is nobody."""
        n_viewers, n_videos = len(self._known_viewers), len(self._facts.had)
        met, had_once = np.r_[self._known_viewers, False], np.r_[self._facts.had > 0, False]
        viewers, videos = np.minimum(viewers, n_viewers), np.minimum(videos, n_videos)
        return np.where(met[viewers], viewers, n_viewers), np.where(had_once[videos], videos, n_videos)

    def _viewer_facts(self, log: ActLog) -> ViewerFacts:
        if self._last is None or self._last[0] is not log:
            durations = self._durations
            if durations is not None and log.n_videos > len(durations):
                durations = np.r_[durations, np.zeros(log.n_videos - len(durations))]
            outcomes = outcomes_of(log, self._norms, durations)
            self._last = log, ViewerFacts.of(outcomes, log.n_viewers, self._facts.base)
        return self._last[1]

    def _asked(self, log: ActLog, viewers: Integers) -> tuple[list[Float32], list[Integers], npt.NDArray[np.bool_]]:
        """(standardised scores, ranks, bool seen) of each input, [len(viewers), n_videos]."""
        if log.n_videos < len(self._facts.had):
            raise ValueError(f"a log of {log.n_videos} videos for a model of {len(self._facts.had)}")
        seen = had(log, viewers)
        scores = [np.asarray(model.score(log, viewers)) for model in self._inputs]
        return [standard(score) for score in scores], [ranks(score, seen) for score in scores], seen

    def _block(self, log: ActLog, viewers: Integers, rows: Integers, videos: Integers, asked: Any) -> Float32:
        facts = self._viewer_facts(log)
        scored, ranked, _ = asked
        found = block(
            [score[rows, videos] for score in scored],
            [rank[rows, videos] for rank in ranked],
            viewers[rows],
            videos,
            facts.now[viewers[rows]],
            self._facts.widened(log.n_videos),
            facts,
        )
        return self._standard(found)

    def _candidates(self, log: ActLog, viewers: Integers) -> _Candidates:
        key = (id(log), viewers.tobytes())
        if self._kept is not None and key in self._kept:
            return self._kept[key]
        asked = self._asked(log, viewers)
        rows, videos = np.nonzero(candidates(asked[1], asked[2], self.config.most))
        features = self._block(log, viewers, rows, videos, asked)
        mean = np.asarray(np.mean(np.stack(asked[0]), axis=0, dtype=np.float64), np.float64)
        found = _Candidates(rows, videos, features, mean, log)
        if self._kept is not None:
            self._kept[key] = found
        return found

    def _probabilities(
        self, features: Float32, viewers: Integers, videos: Integers, calibrated: bool = True
    ) -> dict[str, Float64]:
        """float64 [n] by head; `viewers` and `videos` as in the log."""
        network = self._network
        if network is None:
            raise ValueError("the model is not fitted")
        rows = self._rows(viewers, videos)
        logits = []
        with torch.no_grad():
            for start in range(0, len(features), ROWS_AT_ONCE):
                part = slice(start, start + ROWS_AT_ONCE)
                viewer, video = (torch.from_numpy(array[part]) for array in rows)
                tags = torch.from_numpy(self._tags[np.minimum(videos[part], len(self._tags) - 1)])
                embedded = network.embedded(viewer, video, tags)
                logits.append(network(torch.from_numpy(features[part]), embedded).double().numpy())
        whole = np.concatenate(logits) if logits else np.zeros((0, len(self.heads)))
        plain = Calibration()
        return {
            head: (self._calibrations[head] if calibrated else plain)(whole[:, place])
            for place, head in enumerate(self.heads)
        }

    def predict(
        self, log: ActLog, viewers: Integers, videos: Integers, *, calibrated: bool = True
    ) -> dict[str, Float64]:
        """float64 [n] of each head that was learnt, for n pairs of a viewer (row of the log) and a video: view as
        P(view), the others given the view; on request as the network has it, before calibration."""
        some, row = np.unique(viewers, return_inverse=True)
        found = {head: np.zeros(len(viewers)) for head in self.heads}
        for start in range(0, len(some), VIEWERS_AT_ONCE):
            these = some[start : start + VIEWERS_AT_ONCE]
            pairs = np.flatnonzero((row >= start) & (row < start + VIEWERS_AT_ONCE))
            asked = self._asked(log, these)
            features = self._block(log, these, row[pairs] - start, videos[pairs], asked)
            for head, values in self._probabilities(features, viewers[pairs], videos[pairs], calibrated).items():
                found[head][pairs] = values
        return found

    def _weights(self) -> dict[str, float]:
        sides = self.config.objectives.model_dump()
        return {head: sides[SIDES[head]] * self.config.head_weights.get(head, 0.0) for head in self.heads}

    def _worth(self, found: Mapping[str, Float64]) -> dict[str, Float64]:
        """What each head adds to the score, float64 [n]."""
        view = found.get("view", np.ones(1))
        return {
            head: weight * (found[head] if head == "view" else view * found[head])
            for head, weight in self._weights().items()
        }

    def score(self, log: ActLog, viewers: Integers) -> Float32:
        """float32 [len(viewers), n_videos]; see the module."""
        found = np.zeros((len(viewers), log.n_videos), np.float32)
        for start in range(0, len(viewers), VIEWERS_AT_ONCE):
            some = viewers[start : start + VIEWERS_AT_ONCE]
            near = self._candidates(log, some)
            # Values lie within the sum of all weights: the floor is below them all.
            part = self._floor() + sigmoid(near.mean)
            worth = self._worth(self._probabilities(near.features, some[near.rows], near.videos))
            part[near.rows, near.videos] = np.sum(list(worth.values()), axis=0)
            found[start : start + len(some)] = part
        return found

    def _floor(self) -> float:
        return -1.0 - sum(abs(weight) for weight in self._weights().values())

    def explain(self, log: ActLog, viewer: int, video: int) -> list[Reason]:
        """What each head adds; for a video that is not among the best of the inputs, the floor and the inputs' mean."""
        some = np.array([viewer], np.int64)
        near = self._candidates(log, some)
        place = np.flatnonzero(near.videos == video)
        if not len(place):
            order = float(sigmoid(near.mean[0, [video]])[0])
            reasons = [Reason("floor", "not among the best", self._floor()), Reason("inputs", "mean", order)]
        else:
            one = near.features[place]
            worth = self._worth(self._probabilities(one, some, np.array([video], np.int64)))
            reasons = [Reason("head", head, float(values[0])) for head, values in worth.items()]
        return sorted(reasons, key=lambda reason: -reason.share)

    def arrays(self) -> Arrays:
        """Those of the inputs are named `input.LABEL.*`."""
        if self._network is None:
            raise ValueError("the model is not fitted")
        found: Arrays = {
            "heads": np.array([HEADS.index(head) for head in self.heads], np.int64),
            "known_viewers": self._known_viewers.astype(np.uint8),
            "tags": self._tags,
            "standard.mean": self._standard.mean,
            "standard.scale": self._standard.scale,
        }
        if self._durations is not None and self._norms is not None:
            found |= {"durations": self._durations, "norms": self._norms.counts}
        found |= {f"facts.{name}": array for name, array in self._facts.arrays().items()}
        found |= {f"network.{name}": tensor.numpy() for name, tensor in self._network.state_dict().items()}
        for head, calibration in self._calibrations.items():
            found |= {f"calibration.{head}.{name}": array for name, array in calibration.arrays().items()}
        for label, member in self.members.items():
            found |= {f"input.{label}.{name}": array for name, array in member.arrays().items()}
        return found

    @classmethod
    def from_arrays(cls, config: Mapping[str, Any], arrays: Mapping[str, npt.NDArray[Any]]) -> Self:
        """What `arrays` gave. Raises `ranker.bad_model`."""
        model = cls(**config)
        try:
            model.heads = tuple(HEADS[int(place)] for place in arrays["heads"])
            model._known_viewers = np.asarray(arrays["known_viewers"]) > 0
            model._tags = np.asarray(arrays["tags"], np.float32)
            model._standard = Standardised(arrays["standard.mean"], arrays["standard.scale"])
            if "durations" in arrays:
                model._durations, model._norms = arrays["durations"], WatchNorms(arrays["norms"])
            model._facts = VideoFacts.from_arrays(_under(arrays, "facts"))
            model._calibrations = {
                head: Calibration.from_arrays(_under(arrays, f"calibration.{head}")) for head in model.heads
            }
            network = model._network_of(len(model._standard.mean))
            network.load_state_dict(
                {name: torch.from_numpy(np.array(array)) for name, array in _under(arrays, "network").items()}
            )
            network.eval()
            model._network = network
            model._inputs = [
                model_class(name).from_arrays(settings, _under(arrays, f"input.{label}"))
                for label, (name, settings) in model.config.made_of().items()
            ]
        except (KeyError, IndexError, ValueError, RuntimeError) as error:
            raise ModelError(
                "ranker.bad_model",
                f"The parts of the stored multi-task ranker do not fit together ({type(error).__name__}).",
                hint="Train it again.",
            ) from error
        return model


class _Candidates:
    """What the heads are asked about for some viewers: `rows` int64 [n] places in `viewers`, `videos` int64 [n],
    `features` float32 [n, features], standardised; `mean` float64 [viewers, n_videos], of the inputs' standardised
    scores. The log is held so that no other can get its id."""

    def __init__(self, rows: Integers, videos: Integers, features: Float32, mean: Float64, log: ActLog) -> None:
        self.rows, self.videos, self.features, self.mean, self.log = rows, videos, features, mean, log


def _under(arrays: Mapping[str, npt.NDArray[Any]], prefix: str) -> Arrays:
    return {name[len(prefix) + 1 :]: array for name, array in arrays.items() if name.startswith(prefix + ".")}


def _digest(log: ActLog) -> str:
    told = hashlib.sha256()
    for array in (log.viewers, log.videos, log.at, log.values, log.watched, log.kinds, log.ratings):
        told.update(np.ascontiguousarray(array).tobytes())
    return told.hexdigest()
