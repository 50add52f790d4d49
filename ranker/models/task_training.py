"""How the heads of `ranker.models.multitask` are taught: which can be, the loss of a batch, the calibration."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ranker.models.calibration import Calibration, Method, calibrate_where_it_pays, expected_calibration_error
from ranker.models.learning import Rows, parts
from ranker.models.task_examples import Examples
from ranker.models.task_losses import combined, pairwise, pointwise, with_adversary
from ranker.models.task_network import TaskNetwork
from ranker.models.task_outcomes import BINARY, HEADS
from ranker.models.training_data import Float32, Float64, Integers

# An act that came fewer times than this, or stayed away fewer times, is not learnt.
LEAST_OF_A_CLASS = 3
# What a pair's value counts at most against a video drawn: one share must not drown a hundred views.
MOST_GAP = 3.0
ROWS_AT_ONCE = 65_536


def learnable(examples: Examples) -> tuple[tuple[str, ...], dict[str, str]]:
    """The heads that the examples can teach, in order, and why the others are left out."""
    found, left = [], {}
    for column, head in enumerate(HEADS):
        labels = examples.labels[:, column]
        known = labels[np.isfinite(labels)]
        if head == "view":
            against = (examples.videos[:, 1:] != examples.videos[:, :1]).sum()
            known = np.r_[known, np.zeros(int(against), np.float32)]
        if not len(known):
            left[head] = "nothing is known of it"
        elif head in BINARY and min(int((known > 0.5).sum()), int((known <= 0.5).sum())) < LEAST_OF_A_CLASS:
            left[head] = f"one class only: true {int((known > 0.5).sum())} times of {len(known)}"
        elif head not in BINARY and (len(known) < LEAST_OF_A_CLASS or float(np.ptp(known)) == 0):
            left[head] = f"{len(known)} known views, all watched alike"
        else:
            found.append(head)
    return tuple(found), left


@dataclass(frozen=True)
class Teaching:
    """The settings of the loss; see `ranker.models.task_losses`. `weights` by head, where they are fixed."""

    weights: dict[str, float]
    smoothing: float
    pairwise: float
    adversarial: bool
    epsilon: float
    adversarial_weight: float


class Lesson:
    """The loss of some examples. `features` of `examples` are standardised; `viewers` and `videos` are rows of the
    network's embeddings; `tags` float32 [n_videos + 1, buckets]."""

    def __init__(
        self,
        network: TaskNetwork,
        examples: Examples,
        heads: tuple[str, ...],
        viewers: Integers,
        videos: Integers,
        tags: Float32,
        teaching: Teaching,
    ) -> None:
        self.network, self.heads, self.teaching = network, heads, teaching
        self.features = torch.from_numpy(np.ascontiguousarray(examples.features, np.float32))
        self.viewers, self.videos = torch.from_numpy(viewers), torch.from_numpy(videos)
        self.tags = torch.from_numpy(tags)
        # Where a viewer had everything the pair stands against itself, which says nothing.
        self.drawn = torch.from_numpy(examples.videos[:, 1:] != examples.videos[:, :1])
        self.labels = torch.from_numpy(examples.labels[:, [HEADS.index(head) for head in heads]].astype(np.float32))
        self.values = torch.from_numpy(examples.values.astype(np.float32)).clamp(0, MOST_GAP)
        # Examples are in order of viewer: another pair of the same viewer lies between these places.
        self.first = torch.from_numpy(np.searchsorted(examples.viewers, examples.viewers, side="left"))
        self.count = torch.from_numpy(np.searchsorted(examples.viewers, examples.viewers, side="right")) - self.first

    def loss(self, rows: Rows) -> Tensor:
        """The summed loss of examples, with all that training adds: pairs, smoothing, the adversary."""
        some = torch.from_numpy(rows)
        other = self.first[some] + (torch.rand(len(some)) * self.count[some]).long()
        features = torch.cat([self.features[some], self.features[other, :1]], dim=1)
        videos = torch.cat([self.videos[some], self.videos[other, :1]], dim=1)
        viewers = self.viewers[some, None].expand(videos.shape)
        embedded = self.network.embedded(viewers, videos, self.tags[videos])

        def at(place: Tensor) -> Tensor:
            return self._of_logits(self.network(features, place), some, other)

        teaching = self.teaching
        if not teaching.adversarial:
            return at(embedded)
        return with_adversary(at, embedded, teaching.epsilon, teaching.adversarial_weight)

    def _of_logits(self, logits: Tensor, some: Tensor, other: Tensor) -> Tensor:
        teaching, losses, counts = self.teaching, [], []
        own, drawn, partner = logits[:, 0], logits[:, 1:-1], logits[:, -1]
        for place, head in enumerate(self.heads):
            labels = self.labels[some, place]
            loss, count = pointwise(own[:, place], labels, teaching.smoothing, head not in BINARY)
            if head == "view":
                against = self.drawn[some]
                never = torch.where(against, 0.0, torch.nan)
                more, others = pointwise(drawn[..., place], never, teaching.smoothing, False)
                gaps = self.values[some, None] * against / max(drawn.shape[1], 1)
                # Sums over a pair and its drawn ones: of the size of one example, like the other heads'.
                loss, count = (loss + more) / logits.shape[1], (count + others) / logits.shape[1]
                loss = loss + teaching.pairwise * pairwise(own[:, None, place], drawn[..., place], gaps)
            else:
                gaps = labels - self.labels[other, place]
                loss = loss + teaching.pairwise * pairwise(own[:, place], partner[:, place], gaps)
            losses.append(loss)
            counts.append(count)
        weights = [teaching.weights.get(head, 1.0) for head in self.heads]
        regressions = [head not in BINARY for head in self.heads]
        return combined(losses, counts, weights, regressions, self.network.log_variance)

    def logits(self) -> tuple[Float64, Float64]:
        """(float64 [n, heads] of the pairs themselves, float64 [n, drawn] of view for what was drawn), nothing of
        training added."""
        found = []
        with torch.no_grad():
            for part in parts(len(self.viewers), max(1, ROWS_AT_ONCE // self.videos.shape[1])):
                videos = self.videos[part]
                viewers = self.viewers[part, None].expand(videos.shape)
                embedded = self.network.embedded(viewers, videos, self.tags[videos])
                found.append(self.network(self.features[part], embedded).double().numpy())
        if not found:
            return np.zeros((0, len(self.heads))), np.zeros((0, self.videos.shape[1] - 1))
        whole = np.concatenate(found)
        view = self.heads.index("view") if "view" in self.heads else 0
        return whole[:, 0], whole[:, 1:, view]

    def known(self, head: str) -> tuple[Float64, Float64]:
        """(logits, labels) float64 [m] of a head wherever its label is known, drawn videos among them for view."""
        own, drawn = self.logits()
        place = self.heads.index(head)
        labels = self.labels[:, place].double().numpy()
        here = np.isfinite(labels)
        z, y = own[here, place], labels[here]
        if head == "view":
            against: npt.NDArray[np.bool_] = self.drawn.numpy()
            z, y = np.r_[z, drawn[against]], np.r_[y, np.zeros(int(against.sum()))]
        return z, y

    def plain_loss(self) -> float:
        """The mean over heads of cross-entropy (squared error for watch), nothing of training added."""
        found = []
        for head in self.heads:
            z, y = (torch.from_numpy(array) for array in self.known(head))
            loss, count = pointwise(z, y, 0.0, head not in BINARY)
            if int(count):
                found.append(self.teaching.weights.get(head, 1.0) * float(loss / count))
        return float(np.mean(found)) if found else 0.0


def calibrated(lesson: Lesson, method: Method) -> tuple[dict[str, Calibration], dict[str, dict[str, float]]]:
    """The calibration of each head by examples that nobody learnt from, none where it does not pay, and its error
    before and after on those same examples (after: in sample, so the flattering side): expected calibration error, of
    watch mean absolute error."""
    found, report = {}, {}
    for head in lesson.heads:
        z, y = lesson.known(head)
        found[head] = calibrate_where_it_pays(z, y, method)
        if not len(y):
            continue
        before, after = Calibration()(z), found[head](z)
        if head in BINARY:
            errors = expected_calibration_error(before, y), expected_calibration_error(after, y)
            report[head] = {"ece_before": round(errors[0], 4), "ece_after": round(errors[1], 4)}
        else:
            errors = float(np.abs(before - y).mean()), float(np.abs(after - y).mean())
            report[head] = {"error_before": round(errors[0], 4), "error_after": round(errors[1], 4)}
    return found, report
