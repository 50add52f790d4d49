"""What the catalogue is about: topics by latent Dirichlet allocation over the words of its videos.

A topic is a distribution over words, a video a mixture of topics (Blei, Ng and Jordan, 2003). Training is a batch job
over the words of all videos, by scikit-learn's variational Bayes (Hoffman, Blei and Bach, 2010); of several starts the
one with the highest bound is kept, since one start in three lands in a poor local optimum. A new video is only
inferred: the same update as scikit-learn's `transform`, here in numpy, so that workers load no scikit-learn.

Topics are named by relevance (Sievert and Shirley, 2014): a word's log probability in the topic, weighed against how
much likelier it is there than in the catalogue, so that the word of every video names none.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, Literal

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field

from encoders.keywords import SOURCE_WEIGHT, content_words
from store.errors import InputError, PassingError
from store.records import Float32, TextPiece, Topic, TopicsAttributes

_METADATA_ENTRY = "reelsense"
_SHORTEST = 3  # letters of a word in a script with spaces
_VIDEOS_FOR_TWO_TOPICS = 8
_INFERENCE_STEPS = 100
_INFERENCE_TOLERANCE = 1e-3
_EPSILON = float(np.finfo(np.float64).eps)

_Float64 = npt.NDArray[np.float64]


class TopicConfig(BaseModel):
    """What changes a topic model.

    `topics`: how many, or `auto`: the square root of half the number of videos, from 2 to `most_topics`. A word counts
    when at least `min_videos_of_word` videos have it and at most `most_share_of_word` (0..1) of all, and of those the
    `vocabulary` most frequent. `document_prior` and `word_prior` are the Dirichlet parameters of topics in a video and
    of words in a topic: below 1, few of each. `passes` over all videos are made from each of `starts` starts. A topic
    is named by `words` words at the `relevance` (Sievert and Shirley's lambda). At most `topics_of_video` topics of at
    least `min_share` (0..1) are said of a video.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    topics: Literal["auto"] | Annotated[int, Field(ge=2)] = "auto"
    most_topics: int = Field(50, ge=2)
    min_videos_of_word: int = Field(2, ge=1)
    most_share_of_word: float = Field(0.5, gt=0, le=1)
    vocabulary: int = Field(10_000, ge=2)
    document_prior: float = Field(0.1, gt=0)
    word_prior: float = Field(0.02, gt=0)
    passes: int = Field(60, ge=1)
    starts: int = Field(4, ge=1)
    seed: int = Field(0, ge=0)
    words: int = Field(8, ge=1)
    relevance: float = Field(0.6, ge=0, le=1)
    topics_of_video: int = Field(4, ge=1)
    min_share: float = Field(0.15, ge=0, le=1)


@dataclass(frozen=True, eq=False)
class TopicModel:
    """Topics of one catalogue. `components` float32 [n_topics, n_words], the expected counts of each word in each topic
    (with the prior), largest topic first; `vocabulary` the words, sorted; `videos` how many it was made from."""

    components: Float32
    vocabulary: tuple[str, ...]
    videos: int
    config: TopicConfig

    def __post_init__(self) -> None:
        shape = (len(self.components), len(self.vocabulary))
        if self.components.shape != shape or self.components.dtype != np.float32 or 0 in shape:
            raise ValueError(f"components: float32 {shape}, got {self.components.dtype} {self.components.shape}")

    def __repr__(self) -> str:
        return f"TopicModel(components={self.components.shape}, videos={self.videos})"

    @cached_property
    def version(self) -> str:
        """Digest of all that the model is: 16 hex characters."""
        return hashlib.sha256(self.to_bytes()).hexdigest()[:16]

    @cached_property
    def words(self) -> tuple[tuple[str, ...], ...]:
        """The words of each topic, the most relevant first."""
        counts = self.components.astype(np.float64)
        within = np.log(counts / counts.sum(axis=1, keepdims=True))
        overall = np.log(counts.sum(axis=0) / counts.sum())
        relevance = self.config.relevance * within + (1.0 - self.config.relevance) * (within - overall)
        order = np.argsort(-relevance, axis=1, kind="stable")[:, : self.config.words]
        return tuple(tuple(self.vocabulary[word] for word in row) for row in order.tolist())

    def infer(self, pieces: Sequence[TextPiece]) -> TopicsAttributes:
        """The topics of one video, the largest share first. None when it has no word that the model knows."""
        counts = _counted(pieces)
        known = {word: count for word, count in sorted(counts.items()) if word in self._places}
        if not known:
            return TopicsAttributes(model=self.version)
        shares = self.shares([self._places[word] for word in known], list(known.values()))
        best = np.argsort(-shares, kind="stable")[: self.config.topics_of_video].tolist()
        return TopicsAttributes(
            model=self.version,
            topics=[
                Topic(
                    number=number,
                    name=", ".join(self.words[number][:3]),
                    words=list(self.words[number]),
                    share=round(float(shares[number]), 4),
                )
                for number in best
                if shares[number] >= self.config.min_share
            ],
        )

    def shares(self, words: Sequence[int], counts: Sequence[float]) -> _Float64:
        """float64 [n_topics], sum 1: the expected mixture of a video with these words (places in `vocabulary`), each so
        often.

        Coordinate ascent on the variational parameters, from 1 for each topic: with b the exponential of the expected
        log probability of a word in a topic, and a that of a topic in the video, gamma = prior + a * (counts / (a b))
        b^T until its mean change is below a thousandth.
        """
        from scipy.special import psi  # type: ignore[import-untyped]

        likely = self._likely[:, list(words)]
        counted = np.asarray(counts, np.float64)
        gamma = np.ones(len(self.components))
        for _ in range(_INFERENCE_STEPS):
            before = gamma
            weight = np.exp(psi(gamma) - psi(gamma.sum()))
            gamma = self.config.document_prior + weight * ((counted / (weight @ likely + _EPSILON)) @ likely.T)
            if np.abs(gamma - before).mean() < _INFERENCE_TOLERANCE:
                break
        shares: _Float64 = gamma / gamma.sum()
        return shares

    @cached_property
    def _places(self) -> dict[str, int]:
        return {word: place for place, word in enumerate(self.vocabulary)}

    @cached_property
    def _likely(self) -> _Float64:
        """float64 [n_topics, n_words]: the exponential of the expected log probability of each word in each topic."""
        from scipy.special import psi

        counts = self.components.astype(np.float64)
        likely: _Float64 = np.exp(psi(counts) - psi(counts.sum(axis=1, keepdims=True)))
        return likely

    def to_bytes(self) -> bytes:
        """One safetensors object; the same model gives the same bytes."""
        from safetensors.numpy import save

        header = {
            "vocabulary": self.vocabulary,
            "videos": self.videos,
            "config": self.config.model_dump(mode="json"),
        }
        text = json.dumps(header, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        data: bytes = save({"components": np.ascontiguousarray(self.components)}, metadata={_METADATA_ENTRY: text})
        return data

    @classmethod
    def from_bytes(cls, data: bytes) -> TopicModel:
        """Read back what `to_bytes` wrote. Raises `store.artifact_damaged` for anything else."""
        from safetensors.numpy import load

        try:
            length = int.from_bytes(data[:8], "little")
            described = json.loads(json.loads(data[8 : 8 + length])["__metadata__"][_METADATA_ENTRY])
            model = cls(
                components=load(data)["components"],
                vocabulary=tuple(described["vocabulary"]),
                videos=int(described["videos"]),
                config=TopicConfig.model_validate(described["config"]),
            )
            if not (np.isfinite(model.components).all() and (model.components > 0).all()):
                raise ValueError("components that are no counts")
        except Exception as error:
            raise PassingError(
                "store.artifact_damaged",
                f"A topic model of {len(data)} bytes cannot be read back: {type(error).__name__}.",
                hint="Train the topics again.",
            ) from error
        return model


def train_topics(documents: Mapping[str, Sequence[TextPiece]], config: TopicConfig) -> TopicModel:
    """A topic model of these videos, each the pieces of its text; the same videos in any order give the same bytes.

    Raises `topics.too_few_videos` when fewer videos than the number of topics needs have any word that counts.
    """
    counted = {name: _counted(documents[name]) for name in sorted(documents)}
    vocabulary = _vocabulary(counted, config)
    rows = [
        row
        for row in ({word: count for word, count in words.items() if word in vocabulary} for words in counted.values())
        if row
    ]
    needed = _VIDEOS_FOR_TWO_TOPICS if config.topics == "auto" else max(_VIDEOS_FOR_TWO_TOPICS, 2 * config.topics)
    if len(rows) < needed:
        raise InputError(
            "topics.too_few_videos",
            f"{len(rows)} videos share words with others, and topics need {needed} of them.",
            hint="Add videos, with titles, tags or captions, and train again.",
        )
    topics = topic_count(len(rows), config)
    components = _fitted(rows, vocabulary, topics, config)
    order = np.argsort(-components.sum(axis=1), kind="stable")
    return TopicModel(components[order].astype(np.float32), tuple(vocabulary), len(rows), config)


def topic_count(videos: int, config: TopicConfig) -> int:
    """How many topics so many videos give."""
    if config.topics != "auto":
        return config.topics
    return min(max(2, round(math.sqrt(videos / 2))), config.most_topics)


def _counted(pieces: Sequence[TextPiece]) -> dict[str, float]:
    """How often each content word is said, by the weight of what says it; numbers and scraps of words left out."""
    counts: dict[str, float] = {}
    for piece in pieces:
        for word in content_words(piece.text):
            if word[0].isalpha() and (len(word) >= _SHORTEST or not word.isascii()):
                counts[word] = counts.get(word, 0.0) + SOURCE_WEIGHT[piece.source]
    return counts


def _vocabulary(counted: Mapping[str, Mapping[str, float]], config: TopicConfig) -> dict[str, int]:
    """The words that count, sorted, each with its place."""
    videos = Counter(word for words in counted.values() for word in words)
    most = max(config.most_share_of_word * len(counted), config.min_videos_of_word)
    fit = [word for word, count in videos.items() if config.min_videos_of_word <= count <= most]
    kept = sorted(sorted(fit, key=lambda word: (-videos[word], word))[: config.vocabulary])
    return {word: place for place, word in enumerate(kept)}


def _fitted(
    rows: Sequence[Mapping[str, float]], vocabulary: Mapping[str, int], topics: int, config: TopicConfig
) -> _Float64:
    """float64 [topics, n_words]: the components of the best of `starts` models."""
    from scipy.sparse import csr_matrix  # type: ignore[import-untyped]
    from sklearn.decomposition import LatentDirichletAllocation  # type: ignore[import-untyped]

    places = [sorted((vocabulary[word], count) for word, count in row.items()) for row in rows]
    counts = csr_matrix(
        (
            np.array([count for row in places for _, count in row], np.float64),
            np.array([place for row in places for place, _ in row], np.int32),
            np.cumsum([0, *map(len, places)], dtype=np.int32),
        ),
        shape=(len(rows), len(vocabulary)),
    )
    best: tuple[float, _Float64] | None = None
    for start in range(config.starts):
        model = LatentDirichletAllocation(
            n_components=topics,
            doc_topic_prior=config.document_prior,
            topic_word_prior=config.word_prior,
            learning_method="batch",
            max_iter=config.passes,
            random_state=config.seed + start,
        ).fit(counts)
        bound = float(model.score(counts))
        if best is None or bound > best[0]:
            best = (bound, model.components_)
    assert best is not None
    return best[1]
