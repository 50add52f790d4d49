"""Training with engagement alone: what people finished says which videos belong together.

`fusion.training` asks that the parts of one video agree, and takes pairs of videos as one more hint. Where videos come
as one token per modality there are no parts, and where people have histories there is more to learn from than pairs.
Here each step plays what happens when new videos come in:

    hidden  = a random share of all videos: in this step nobody has seen them (item dropout, Volkovs et al. 2017)
    profile = for each of a few people, the mean of the fused vectors of the videos of theirs that are not hidden
    loss    = cross-entropy of their hidden videos under softmax over all hidden videos of  cosine / temperature

So a vector is made from content alone, must be found from other videos' content, and is told apart from videos that are
as new as it is. The hidden videos are drawn evenly, whoever watched them, which makes the sampled softmax unbiased
without a logQ correction (Bengio & Senecal 2003). Popularity is in the *right* answers instead: by itself the softmax
would have vectors say how popular a video is. `popularity` adds that much of the logarithm of a video's count to its
scores while training, so that vectors need not (as logit adjustment does, Menon et al. 2021); `evenness` has rare
videos count as much as popular ones among the answers, for new ones are rare.

Modalities are left out of videos at random and entries of embeddings blanked, as in `fusion.views`. Projections begin
where `fusion.mapping` says and are pulled back there: the closed form finds in a second what hundreds of steps do
not. Everything is drawn from (seed, step): the same histories give the same bytes on one machine. Of the networks
looked at on the way, the one that `judge` likes best is returned.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor
from torch.nn import functional

from fusion.batches import batch_of, check_tokens
from fusion.mapping import MappingConfig, mapped_starts
from fusion.network import AttentionNetwork, NetworkConfig, Projected, TokenBatch, pooled
from fusion.optimising import optimiser_of, rate_at
from fusion.starts import StartConfig, starts_of
from fusion.trained import TrainedFusion
from fusion.training import Training
from store.errors import InputError, ModelError
from store.records import Float32, Tokens

Judge = Callable[[Float32], float]
FUSED_AT_ONCE = 1024


class EngagementConfig(BaseModel):
    """All that decides a run besides the videos, the histories, the judge and the network's shape."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    seed: int = Field(0, ge=0)
    steps: int = Field(200, ge=1, description="Most steps of the optimiser.")
    people: int = Field(256, ge=2, description="People in a step.")
    hidden: float = Field(0.2, gt=0, lt=1, description="Share of the videos that nobody has seen in a step.")
    most_hidden: int = Field(2048, ge=2, description="Most hidden videos in a step.")
    most_seen: int = Field(16, ge=1, description="Most videos of a profile in a step.")
    temperature: float = Field(0.1, gt=0, le=10)
    popularity: float = Field(0.5, ge=0, le=1, description="How much of it vectors need not explain.")
    evenness: float = Field(0.0, ge=0, le=1, description="How much rare videos count as answers; 1: as popular ones.")
    modality_dropout: float = Field(0.1, ge=0, lt=1, description="Share of a video's modalities left out.")
    feature_dropout: float = Field(0.1, ge=0, lt=1, description="Share of an embedding's entries that are blanked.")
    learning_rate: float = Field(1e-3, gt=0, description="Of the attention, at the end of the warm-up.")
    projection_rate: float = Field(0.3, ge=0, description="Of the projections, in units of their entries.")
    scalar_rate: float = Field(0.01, ge=0, description="Of the few numbers that weigh the modalities.")
    weight_decay: float = Field(0.01, ge=0, description="Of the attention's matrices (AdamW).")
    projection_decay: float = Field(0.01, ge=0, description="Pulls the projections back to where they began.")
    warm_up: float = Field(0.1, ge=0, le=1, description="Share of the steps in which the rate rises.")
    clip: float = Field(1.0, gt=0, description="Longest gradient.")
    evaluate_every: int = Field(20, ge=1, description="Steps between two looks of the judge.")
    patience: int = Field(4, ge=1, description="Looks without gain after which training ends.")
    least_people: int = Field(8, ge=2, description="With fewer who saw two videos there is nothing to learn from.")
    start: StartConfig = Field(default_factory=StartConfig)
    mapping: MappingConfig = Field(default_factory=MappingConfig)


@dataclass(frozen=True, eq=False)
class Step:
    """What a step asks: places of `videos`, of which the first `hidden` are hidden; `seen` float32 [people, videos],
    rows summing to one, what makes each profile; `right` float32 [people, hidden], rows summing to one; `known` bool
    [people, hidden], videos of theirs that are hidden."""

    videos: npt.NDArray[np.intp]
    hidden: int
    seen: Tensor
    right: Tensor
    known: Tensor


def train_on_histories(
    videos: Mapping[str, Mapping[str, Tokens]],
    histories: Sequence[Sequence[str]],
    network: NetworkConfig,
    config: EngagementConfig,
    judge: Judge | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Training:
    """Train a fusion on what each person finished, a sequence of names of `videos`; other names are passed over.

    `judge` is given the vectors float32 [n, dim] of all videos, in the order of `sorted(videos)`, and says how good
    they are, more is better; it should go by interactions that are not in `histories`. Without one, the last network
    is kept. `progress` is told the steps that are done, and the most there are.

    Errors: `fusion.too_few_videos` (too few videos, or too few people who saw two of them), `fusion.not_finite`,
    `fusion.bad_checkpoint` (tokens of another width than the network takes), `fusion.training_failed`.
    """
    names = sorted(videos)
    for name in names:
        check_tokens(videos[name], network, whose=f"the video {name}")
    place_of = {name: place for place, name in enumerate(names)}
    seen = [np.array(sorted({place_of[name] for name in history if name in place_of}), int) for history in histories]
    seen = [history for history in seen if len(history) > 1]
    if len(seen) < config.least_people or len(names) < 4:
        raise InputError(
            "fusion.too_few_videos",
            f"{len(seen)} people saw two or more of {len(names)} videos; {config.least_people} people and 4 videos are"
            " needed to learn what belongs together.",
            hint="Train without engagement, on the videos alone, until there is more of it.",
        )
    return _Run([videos[name] for name in names], seen, network, config, judge).go(progress)


def judged_by_new(
    histories: Sequence[Sequence[str]], videos: Sequence[str], share: float, seed: int
) -> tuple[list[list[str]], Judge]:
    """Histories without a `share` of the videos, which are as new then, and a judge that goes by them: Recall@10 of the
    people's new videos among all new ones, by the cosine to the mean of their others. `videos`: names in order."""
    generator = np.random.Generator(np.random.PCG64([seed, len(videos)]))
    place_of = {name: place for place, name in enumerate(videos)}
    count = min(max(2, round(share * len(videos))), len(videos) - 2)
    is_new = np.zeros(len(videos), bool)
    is_new[generator.permutation(len(videos))[:count]] = True
    new = np.flatnonzero(is_new)
    column = np.cumsum(is_new) - 1
    kept: list[list[str]] = []
    asked: list[tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]] = []
    for history in histories:
        places = np.array(sorted({place_of[name] for name in history if name in place_of}), int)
        others, away = places[~is_new[places]], places[is_new[places]]
        kept.append([videos[place] for place in others])
        if len(others) and len(away):
            asked.append((others, column[away]))

    def judge(vectors: Float32) -> float:
        hits = 0.0
        for others, answers in asked:
            profile = vectors[others].mean(axis=0)
            best = np.argsort(-(vectors[new] @ profile), kind="stable")[:10]
            hits += float(np.isin(answers, best).mean())
        return hits / max(1, len(asked))

    return kept, judge


class _Run:
    def __init__(
        self,
        videos: list[Mapping[str, Tokens]],
        histories: list[npt.NDArray[np.intp]],
        network: NetworkConfig,
        config: EngagementConfig,
        judge: Judge | None,
    ) -> None:
        self.videos, self.histories, self.config, self.judge = videos, histories, config, judge
        starts, masses = mapped_starts(
            videos, histories, network, config.mapping, starts_of(videos, network, config.start)
        )
        self.network = AttentionNetwork(network, starts)
        with torch.no_grad():
            self.network.prior.add_(torch.tensor([math.log(masses[name]) for name in network.modalities]))
        self.optimiser = optimiser_of(self.network, config)
        counts = np.bincount(np.concatenate(histories), minlength=len(videos))
        self.log_count = torch.from_numpy(np.log(np.maximum(counts, 1)).astype(np.float32))

    def go(self, progress: Callable[[int, int], None] | None) -> Training:
        config, history, losses = self.config, [], []
        best, best_score, best_step, waited, step = self._copy(), -math.inf, 0, 0, 0
        if self.judge is not None:
            best_score = self.judge(self._all_vectors())
            history.append({"step": 0, "judged": best_score})
        while step < config.steps and waited < config.patience:
            losses.append(self._step(step))
            step += 1
            if progress is not None:
                progress(step, config.steps)
            if self.judge is not None and (step % config.evaluate_every == 0 or step == config.steps):
                score = self.judge(self._all_vectors())
                history.append(
                    {"step": step, "judged": score, "loss": float(np.mean(losses[-config.evaluate_every :]))}
                )
                waited = 0 if score > best_score else waited + 1
                if score > best_score:
                    best, best_score, best_step = self._copy(), score, step
        if self.judge is not None:
            self.network.load_state_dict(best)
        fusion = TrainedFusion.of(self.network)
        facts: dict[str, Any] = {
            "version": fusion.version,
            "videos": len(self.videos),
            "videos_with": {
                name: sum(bool(name in video and len(video[name])) for video in self.videos)
                for name in self.network.config.modalities
            },
            "people": len(self.histories),
            "interactions": sum(map(len, self.histories)),
            "steps": step,
            "best_step": step if self.judge is None else best_step,
            "stopped_early": waited >= config.patience,
            "losses": losses,
            "history": history,
            "network": self.network.config.model_dump(mode="json"),
            "training": config.model_dump(mode="json"),
        }
        return Training(fusion, facts)

    def _copy(self) -> dict[str, Tensor]:
        return copy.deepcopy(self.network.state_dict())

    def _step(self, number: int) -> float:
        """One step of the optimiser. Returns its loss; 0 where nobody drawn has both hidden and other videos."""
        config = self.config
        generator = np.random.Generator(np.random.PCG64([config.seed, number]))
        asked = drawn(self.histories, len(self.videos), config, generator)
        if not len(asked.seen):
            return 0.0
        self.network.train()
        tokens = self.network.project(self._batch(asked.videos, generator))
        vectors = pooled(self.network.weights(tokens, self._kept(tokens, generator)), tokens.values)
        popularity = config.popularity * self.log_count[asked.videos[: asked.hidden]]
        worth = (-config.evenness * self.log_count[asked.videos[: asked.hidden]]).exp()
        loss = engagement_loss(vectors, asked, popularity, worth, config.temperature)
        if not torch.isfinite(loss):
            raise ModelError("fusion.training_failed", f"The loss is no number at step {number}.")
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), config.clip)
        for group in self.optimiser.param_groups:
            group["lr"] = group["peak"] * rate_at(number, config)
        self.optimiser.step()
        return float(loss.detach())

    def _batch(self, places: npt.NDArray[np.intp], generator: np.random.Generator) -> TokenBatch:
        batch = batch_of([self.videos[place] for place in places], self.network.config)
        if not self.config.feature_dropout:
            return batch
        blanked = {}
        for name, rows in batch.embeddings.items():
            kept = generator.random((len(rows), 1, rows.shape[2]), np.float32) >= self.config.feature_dropout
            blanked[name] = rows * torch.from_numpy(kept)
        return replace(batch, embeddings=blanked)

    def _kept(self, tokens: Projected, generator: np.random.Generator) -> Tensor:
        """bool [videos, T]: tokens of modalities that are not left out. A video never loses all that it has."""
        there = torch.stack([(tokens.salience[:, span] > 0).any(dim=1) for span in tokens.spans], dim=1)
        stays = torch.from_numpy(generator.random(there.shape) >= self.config.modality_dropout)
        stays = torch.where((stays & there).any(dim=1, keepdim=True), stays, True)
        return torch.cat(
            [stays[:, number, None].expand(-1, span.stop - span.start) for number, span in enumerate(tokens.spans)], 1
        )

    @torch.no_grad()
    def _all_vectors(self) -> Float32:
        self.network.eval()
        found = []
        for first in range(0, len(self.videos), FUSED_AT_ONCE):
            batch = batch_of(self.videos[first : first + FUSED_AT_ONCE], self.network.config)
            found.append(self.network(batch)[0].numpy())
        return np.concatenate(found)


def drawn(
    histories: Sequence[npt.NDArray[np.intp]], videos: int, config: EngagementConfig, generator: np.random.Generator
) -> Step:
    """Hide some of the `videos` and draw people who saw both hidden and other ones. `histories`: places, sorted."""
    count = min(max(2, round(config.hidden * videos)), config.most_hidden, videos - 1)
    is_hidden = np.zeros(videos, bool)
    is_hidden[generator.permutation(videos)[:count]] = True
    hidden = np.flatnonzero(is_hidden)
    column = np.cumsum(is_hidden) - 1
    profiles: list[npt.NDArray[np.intp]] = []
    answers: list[npt.NDArray[np.intp]] = []
    for person in generator.permutation(len(histories)):
        history = histories[person]
        away = is_hidden[history]
        if away.any() and not away.all():
            others = history[~away]
            profiles.append(generator.permutation(others)[: config.most_seen])
            answers.append(column[history[away]])
        if len(profiles) == config.people:
            break
    used = np.unique(np.concatenate([*profiles, np.zeros(0, int)]))
    at = np.zeros(videos, int)
    at[used] = np.arange(len(used)) + count
    seen = torch.zeros(len(profiles), count + len(used))
    right = torch.zeros(len(profiles), count)
    for row, (profile, answer) in enumerate(zip(profiles, answers, strict=True)):
        seen[row, at[profile]] = 1 / len(profile)
        right[row, answer] = 1 / len(answer)
    return Step(np.concatenate([hidden, used]), count, seen, right, right > 0)


def engagement_loss(vectors: Tensor, asked: Step, popularity: Tensor, worth: Tensor, temperature: float) -> Tensor:
    """How badly profiles find the hidden videos of their people. `vectors` [videos, dim] of unit length, in the order
    of `asked.videos`; `popularity` [hidden] is added to the scores, and `worth` [hidden] is what each counts as an
    answer. A person's other hidden videos are never wrong."""
    profiles = functional.normalize(asked.seen @ vectors, dim=1, eps=1e-8)
    scores = profiles @ vectors[: asked.hidden].T / temperature + popularity
    wrong = torch.where(asked.known, -math.inf, scores).logsumexp(dim=1, keepdim=True)
    lost = torch.logaddexp(scores, wrong) - scores
    weights = asked.right * worth
    return (weights * lost).sum() / weights.sum()
