"""Training what is learnt from the catalogue: its topics, and its fusion.

A new model is brought in beside the served one (`workers.plans`): nothing is decoded or encoded for it, and it is
served when every video has what it makes new.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from app.learnt_models import choice_of
from store.artifacts import learnt_model_card_key, learnt_model_key
from store.errors import InputError
from store.records import MODALITIES, TextAttributes, TextPiece, Tokens
from workers.plans import LearntModel

# With fewer who finished two videos, training goes by the videos alone and takes engagement as a hint. What it is worth
# was measured on data sets of 1,800 and 9,300 people (docs/fusion.md).
LEAST_PEOPLE = 1000
AS_NEW = 0.15  # share of the videos by which training on engagement is judged

if TYPE_CHECKING:
    from app.operations import ReelSense
    from fusion.training import Progress
    from fusion.views import TrainingVideo


def train_topics(reelsense: ReelSense, topics: int | None = None) -> dict[str, Any]:
    """Learn the topics of the catalogue from the words of its videos, and send what they make new.

    No word is encoded anew. Raises `topics.too_few_videos`, `request.invalid`.
    """
    from encoders.topics import TopicConfig, train_topics

    documents: dict[str, list[TextPiece]] = {}
    for video in reelsense.catalogue.videos():
        text = reelsense.artifact(video, "text")
        if text is not None:
            documents[video.id] = TextAttributes.model_validate(text.attributes).pieces
    try:
        config = TopicConfig() if topics is None else TopicConfig(topics=topics)
    except ValidationError:
        raise InputError("request.invalid", f"A topic model has at least 2 topics, got {topics}.") from None
    model = train_topics(documents, config)
    _bring_in(reelsense, "topics", model.version, model.to_bytes(), None)
    return {
        "model": model.version,
        "videos": len(documents),
        "topics": [{"number": number, "words": list(words)} for number, words in enumerate(model.words)],
    }


def train_fusion(
    reelsense: ReelSense,
    *,
    seed: int = 0,
    steps: int | None = None,
    on_progress: Callable[[Progress], None] | None = None,
    least_people: int = LEAST_PEOPLE,
) -> dict[str, Any]:
    """Train the attention on the stored tokens of the catalogue, and on what the same people finish, and send what it
    makes new. A run that was stopped goes on from its checkpoint.

    Where at least `least_people` finished two videos or more, it is trained to find videos by what people finish
    (`fusion.engagement`); that takes a minute and begins anew after a stop.

    Under torchrun every process calls this, each computes its share of a batch, and the first (see `leads`) brings the
    fusion in. On a GPU, `precision = "bfloat16"` makes it mixed precision; on a CPU that would be slower, and is left.

    Raises `fusion.too_few_videos`, `fusion.not_finite`, `fusion.training_failed`, `request.invalid`.
    """
    from fusion.card import card_of, markdown
    from fusion.network import NetworkConfig
    from fusion.trained import TrainedFusion
    from fusion.training import TrainingConfig, train
    from ranker.engagement import finished_histories, finished_together
    from store.event_log import EventLog
    from workers.stages import token_space

    videos = _training_videos(reelsense)
    widths = {
        name: found.tokens[name].embeddings.shape[1]
        for name in MODALITIES
        for found in list(videos.values())
        if name in found.tokens
    }
    if not widths:
        raise InputError("fusion.too_few_videos", "No video has tokens to learn from yet.", hint="Add videos first.")
    durations = {video: _duration(reelsense, video) for video in videos}
    histories = finished_histories(EventLog(reelsense.catalogue).all(), durations)
    try:
        given = {"seed": seed, **_device(reelsense)} | ({} if steps is None else {"steps": steps})
        config = TrainingConfig.model_validate(given)
    except ValidationError as error:
        first = error.errors()[0]
        raise InputError("request.invalid", f"{first['loc'][0]}: {first['msg']}.") from None
    network = NetworkConfig(widths=widths, seed=seed)
    checkpoint = reelsense.settings.data / "training" / "fusion.safetensors"
    checkpoint.parent.mkdir(parents=True, exist_ok=True)
    if len(histories) >= least_people:
        trained = _trained_on_histories(videos, histories, network, seed, steps, on_progress)
    else:
        pairs = finished_together(histories)
        trained = _trained(videos, network, config, pairs, checkpoint, on_progress, train)
    data = trained.fusion.to_bytes()
    # What is served was read back once, and gave the vectors that its probes say.
    TrainedFusion.from_bytes(data, trained.fusion.version)
    card = card_of(trained.facts, date=datetime.now(UTC).strftime("%Y-%m-%d"))
    version = f"{trained.fusion.version}-{token_space(reelsense.served)}"
    if leads():
        _bring_in(reelsense, "fusion", version, data, markdown(card))
        checkpoint.unlink(missing_ok=True)
    return {"model": version, "card": card}


def leads() -> bool:
    """Whether this is the only process of a training, or the first of those that torchrun started."""
    return os.environ.get("RANK", "0") == "0"


def _device(reelsense: ReelSense) -> dict[str, str]:
    """Where training runs, and in which arithmetic, as the settings ask for and the machine has."""
    import torch

    asked = reelsense.settings.device
    if asked.startswith("cuda") or (asked == "auto" and torch.cuda.is_available()):
        return {
            "device": "cuda",
            "precision": "bfloat16" if reelsense.settings.precision == "bfloat16" else "float32",
        }
    return {"device": "cpu"}


def _trained(
    videos: dict[str, TrainingVideo],
    network: Any,
    config: Any,
    pairs: list[tuple[str, str]],
    checkpoint: Path,
    on_progress: Callable[[Progress], None] | None,
    train: Callable[..., Any],
) -> Any:
    try:
        return train(videos, network, config, pairs=pairs, checkpoint=checkpoint, progress=on_progress)
    except InputError:
        raise
    except Exception as error:
        # A checkpoint of another run (other videos, another seed) is of no use to this one.
        if getattr(error, "code", "") != "fusion.bad_checkpoint":
            raise
        checkpoint.unlink(missing_ok=True)
        return train(videos, network, config, pairs=pairs, checkpoint=checkpoint, progress=on_progress)


def _trained_on_histories(
    videos: dict[str, TrainingVideo],
    histories: list[list[str]],
    network: Any,
    seed: int,
    steps: int | None,
    on_progress: Callable[[Progress], None] | None,
) -> Any:
    """Settings are those that were best for new items (docs/fusion.md): those are what the fusion is for."""
    from fusion.engagement import EngagementConfig, judged_by_new, train_on_histories
    from fusion.mapping import MappingConfig
    from fusion.training import Progress

    tokens = {name: video.tokens for name, video in videos.items()}
    kept, judge = judged_by_new(histories, sorted(tokens), AS_NEW, seed)
    config = EngagementConfig(
        seed=seed,
        steps=40 if steps is None else steps,
        popularity=0.0,
        projection_rate=0.003,
        mapping=MappingConfig(share=1.0, ridge=3.0),
    )

    def told(step: int, most: int) -> None:
        if on_progress is not None:
            on_progress(Progress(step, most, {}, None, None))

    return train_on_histories(tokens, kept, network, config, judge, told)


def _training_videos(reelsense: ReelSense) -> dict[str, TrainingVideo]:
    from fusion.views import TrainingVideo

    found: dict[str, TrainingVideo] = {}
    for video in reelsense.catalogue.videos():
        artifacts = {name: reelsense.artifact(video, name) for name in MODALITIES}
        if any(artifact is None for artifact in artifacts.values()):
            continue  # not read to the end yet
        tokens: dict[str, Tokens] = {
            name: artifact.tokens()
            for name, artifact in artifacts.items()
            if artifact is not None and len(artifact.arrays["embeddings"])
        }
        if tokens:
            found[video.id] = TrainingVideo(tokens)
    return found


def _duration(reelsense: ReelSense, video_id: str) -> float:
    return reelsense.catalogue.video(video_id).media.duration or 0.0


def _bring_in(reelsense: ReelSense, name: LearntModel, version: str, data: bytes, card: str | None) -> None:
    """Store a model, note it as the next one, and send what it makes new."""
    reelsense.objects.put(learnt_model_key(name, version), data)
    if card is not None:
        reelsense.objects.put(learnt_model_card_key(name, version), card.encode())
    reelsense.catalogue.choose(choice_of(reelsense, name, version))
    reelsense.graph.reconcile()
