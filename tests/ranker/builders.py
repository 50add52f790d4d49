"""Small published catalogues with planted topics: a real database, real objects, vectors made by the real fusion."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from fusion.attention import FusionConfig, fuse
from ranker.events import Event, record
from ranker.video_table import VideoTable
from store.artifacts import artifact_key, from_bytes, to_bytes
from store.catalogue import Catalogue, StoredEvent, Video
from store.event_log import EventLog
from store.local_objects import LocalObjects
from store.records import Artifact, Float32, MediaInfo, Metadata, Modality, Phrase, PublishedAttributes, Tokens

VERSION = "0123456789abcdef"
WIDTHS: dict[Modality, int] = {"vision": 96, "audio": 40, "text": 64}
NOON = 1_800_000_000.0


def video_id(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()[:32]


def direction(name: str, width: int) -> Float32:
    """A unit vector for each name; those of different names are orthogonal, but for one pair in `width`."""
    number = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "little")
    basis, _ = np.linalg.qr(np.random.default_rng(width).standard_normal((width, width)))
    vector: Float32 = basis[number % width].astype(np.float32)
    return vector


def topic_tokens(
    topic: str, modality: Modality, count: int, noise: float, seed: int, duration: float = 20.0, salience: float = 0.8
) -> Tokens:
    """Tokens around the topic's direction, spread evenly over the duration."""
    width = WIDTHS[modality]
    scatter = np.random.default_rng(seed).standard_normal((count, width)).astype(np.float32) / np.sqrt(width)
    edges = np.linspace(0, duration, count + 1, dtype=np.float32)
    embeddings = (direction(f"{topic}/{modality}", width) + noise * scatter).astype(np.float32)
    return Tokens(embeddings, edges[:-1], edges[1:], np.full(count, salience, np.float32))


@dataclass
class World:
    """A catalogue under construction, and the table that follows it."""

    objects: LocalObjects
    catalogue: Catalogue
    table: VideoTable
    count: itertools.count[int] = field(default_factory=lambda: itertools.count(1))

    @classmethod
    def at(cls, folder: Path, database: str = "") -> World:
        """Objects in a folder, and beside them an SQLite database, or the database of this URL."""
        objects = LocalObjects(folder / "objects")
        catalogue = Catalogue(database or f"sqlite:///{folder / 'catalogue.sqlite3'}")
        return cls(objects, catalogue, VideoTable(objects, catalogue, VERSION))

    def artifact(
        self,
        name: str,
        topic: str,
        *,
        title: str | None = None,
        tags: Mapping[str, float] | None = None,
        creator: str = "",
        sound: str = "",
        duration: float = 20.0,
        noise: float = 0.4,
        revision: str = "a" * 16,
        topics: Mapping[Modality, str] | None = None,
        quiet: Sequence[Modality] = (),
        phrases: Sequence[Phrase] = (),
    ) -> Artifact:
        seed = next(self.count)
        about: dict[Modality, str] = {"vision": topic, "audio": topic, "text": topic, **(topics or {})}
        tokens = {
            modality: topic_tokens(
                about[modality], modality, 4, noise, 10 * seed + place, duration, 0.2 if modality in quiet else 0.8
            )
            for place, modality in enumerate(WIDTHS)
        }
        sources: dict[Modality, list[str]] = {
            "vision": ["frame"] * 4,
            "audio": ["window"] * 4,
            "text": ["title", *["transcript"] * 3],
        }
        fused = fuse(tokens, sources, FusionConfig())
        attributes = PublishedAttributes(
            title=name if title is None else title,
            creator=creator,
            region="",
            language="en",
            duration=duration,
            tags=dict({topic: 1.0} if tags is None else tags),
            attention=fused.attributes.attention,
            tokens=fused.attributes.tokens,
            phrases=list(phrases),
            sound=sound,
        )
        embeddings = [direction(phrase.text, WIDTHS["text"]) for phrase in phrases]
        arrays = {
            "vector": fused.vector,
            "weights": fused.weights,
            "token_vectors": fused.token_vectors,
            "phrase_embeddings": np.stack(embeddings) if embeddings else np.zeros((0, WIDTHS["text"]), np.float32),
        }
        return Artifact("published", VERSION, video_id(name), revision, attributes.model_dump(mode="json"), arrays)

    def enter(self, name: str, revision: str = "a" * 16) -> None:
        """The upload, without any artifact yet."""
        media = MediaInfo(container="mp4", bytes=1, duration=20.0, width=2, height=2, video_codec="h264")
        self.catalogue.put_video(
            Video(
                id=video_id(name),
                revision=revision,
                file_name=f"{name}.mp4",
                metadata=Metadata(title=name),
                media=media,
                uploaded_at=NOON,
            )
        )

    def publish(self, name: str, topic: str, **how: object) -> str:
        """Upload, artifact and publication; the video's id."""
        artifact = self.artifact(name, topic, **how)  # type: ignore[arg-type]
        self.enter(name, artifact.revision)
        self.put(artifact)
        self.catalogue.publish(artifact.video_id, VERSION, artifact.revision)
        return artifact.video_id

    def put(self, artifact: Artifact) -> str:
        key = artifact_key("published", VERSION, artifact.video_id, artifact.revision)
        self.objects.put(key, to_bytes(artifact))
        return key

    def artifact_of(self, video: str, revision: str = "a" * 16) -> dict[str, Float32]:
        """The arrays that were published for a video."""
        return from_bytes(self.objects.get(artifact_key("published", VERSION, video, revision))).arrays

    def happens(
        self, user: str, name: str, kind: str, watched: float | None = None, at: float = NOON
    ) -> list[StoredEvent]:
        """Record an event; all events of the user after it."""
        event = Event.checked(user=user, video=video_id(name), kind=kind, watched_seconds=watched, at=at, now=NOON)
        assert record(self.catalogue, event)
        return EventLog(self.catalogue).of(user)


def two_tastes(world: World, each: int = 6) -> None:
    """Videos about cooking and about cars, and one of neither."""
    for place in range(each):
        world.publish(f"cooking {place}", "cooking", tags={"cooking": 1.0, "kitchen": 0.5}, creator="chef")
        world.publish(f"cars {place}", "cars", tags={"cars": 1.0, "road": 0.5}, creator="driver")
    world.publish("clouds", "clouds")
    world.table.refresh()
