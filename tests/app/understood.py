"""Videos of which everything is understood, planted without any model: the artifacts of all stages, and a real clip."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from app.operations import ReelSense
from fusion.attention import FusionConfig, fuse
from store.artifacts import artifact_key, source_key, to_bytes
from store.catalogue import Video
from store.records import (
    AppearanceAttributes,
    Artifact,
    AudioAttributes,
    CaptionSegment,
    CaptionTrack,
    Colour,
    Faces,
    Frames,
    Label,
    MediaInfo,
    Metadata,
    Modality,
    Music,
    Phrase,
    PublishedAttributes,
    ScreenAttributes,
    ScreenPhrase,
    Shot,
    SoundSegment,
    SpeakersAttributes,
    SpokenSegment,
    TextAttributes,
    TextPiece,
    Topic,
    TopicsAttributes,
    TranscriptAttributes,
    TranscriptSegment,
    VisionAttributes,
)
from tests.ranker.builders import WIDTHS, direction, topic_tokens
from workers.stored_frames import frames_attributes, frames_to_arrays

SECONDS = 12.0
UPLOADED = 1_790_000_000.0


def understand(
    reelsense: ReelSense,
    name: str,
    *,
    metadata: Metadata | None = None,
    file_name: str | None = None,
    said: str = "the first words",
    shown: str = "dog",
    topic: str = "animals",
    uploaded_at: float = UPLOADED,
    clip: Path | None = None,
    tags: Mapping[str, float] | None = None,
    stages: Sequence[str] | None = None,
    timed: bool = False,
) -> str:
    """A video with the artifacts of all `stages` (None: of every one), which is then ready; its id. What was said, seen
    and written in it are `said`, `shown` and `metadata`. `timed`: the ledger knows when each stage waited and ran."""
    content = clip.read_bytes() if clip else name.encode()
    video = Video(
        id=hashlib.sha256(content if clip else name.encode()).hexdigest()[:32],
        revision=hashlib.sha256(repr(metadata).encode()).hexdigest()[:16],
        file_name=f"{name}.mp4" if file_name is None else file_name,
        metadata=metadata or Metadata(),
        media=MediaInfo(
            container="mp4", bytes=len(content), duration=SECONDS, width=320, height=240, video_codec="h264",
            audio_codec="aac", audio_rate=44_100, audio_channels=2,
        ),
        uploaded_at=uploaded_at,
    )  # fmt: skip
    reelsense.catalogue.put_video(video)
    reelsense.objects.put(source_key(video.id), content)
    for stage, (attributes, arrays) in _understood(video, said, shown, topic, tags).items():
        if stages is None or stage in stages:
            key = reelsense.graph.key(video, stage)
            artifact = Artifact(stage, key.version, video.id, key.revision, attributes, arrays)
            reelsense.objects.put(artifact_key(stage, key.version, video.id, key.revision), to_bytes(artifact))
            if timed:
                reelsense.catalogue.mark_queued(key, uploaded_at)
                reelsense.catalogue.claim(key, "here/1", 30.0, uploaded_at + 1)
            reelsense.catalogue.finish(key, 0.5)
            if stage == "published":
                reelsense.catalogue.publish(video.id, key.version, key.revision)
    return video.id


def _understood(
    video: Video, said: str, shown: str, topic: str, tags: Mapping[str, float] | None
) -> dict[str, tuple[dict[str, Any], dict[str, Any]]]:
    numbers = np.random.default_rng(int(video.id[:8], 16))
    frames = Frames(
        numbers.integers(0, 255, (4, 24, 32, 3), dtype=np.uint8),
        np.array([0.5, 3.5, 6.5, 9.5]),
        SECONDS,
        120,
        None,
        degraded=False,
        width=320,
        height=240,
        shots=(Shot(start=0, end=5), Shot(start=5, end=SECONDS)),
        motion=0.25,
    )
    tokens: dict[Modality, Any] = {
        modality: topic_tokens(topic, modality, 4, 0.4, 7 + place, SECONDS) for place, modality in enumerate(WIDTHS)
    }
    sources: dict[Modality, list[str]] = {
        "vision": ["frame"] * 4,
        "audio": ["window"] * 4,
        "text": ["title", "transcript", "caption", "screen"],
    }
    fused = fuse(tokens, sources, FusionConfig())
    vision = VisionAttributes(labels=[Label(name=shown, confidence=0.8, seconds=[0.5, 6.5], group="animal")])
    captions = CaptionTrack(
        origin="sidecar", language="en", segments=[CaptionSegment(start=1, end=2, text=f"caption: {said}")]
    )
    phrases = [Phrase(source="transcript", text=said, start=2, end=4)]
    published = PublishedAttributes(
        title=video.metadata.title, creator=video.metadata.creator, region="", language="en", duration=SECONDS,
        tags=dict(tags if tags is not None else {shown.casefold(): 0.8, topic: 0.5}),
        attention=fused.attributes.attention, tokens=fused.attributes.tokens, phrases=phrases,
    )  # fmt: skip
    music = Music(share=0.5, type="orchestral", mood="calm", energy=0.4)
    kinds = ("speech", "music", "noise", "silence")
    heard = [SoundSegment(start=3 * place, end=3 * place + 3, kind=kind) for place, kind in enumerate(kinds)]
    vectors = {"weights": fused.weights, "token_vectors": fused.token_vectors, "vector": fused.vector}
    attributes: dict[str, Any] = {
        "frames": frames_attributes(frames),
        "vision": vision,
        "appearance": AppearanceAttributes(
            colours=[Colour(name="red", hex="#aa1122", share=0.6), Colour(name="grey", hex="#808080", share=0.4)],
            brightness=0.5,
            faces=Faces(count=2, share=0.5, seconds=[3.5]),
        ),
        "screen": ScreenAttributes(phrases=[ScreenPhrase(start=5, end=7, text=f"written: {said}", confidence=0.9)]),
        "audio": AudioAttributes(
            present=True, segments=heard, loudness=-18.0, tempo=120.0, speech_share=0.25, music=music
        ),
        "transcript": TranscriptAttributes(
            language="en",
            segments=[
                TranscriptSegment(start=2, end=4, text=said, confidence=0.9),
                TranscriptSegment(start=5, end=6, text="and the last", confidence=0.9),
            ],
        ),
        "speakers": SpeakersAttributes(count=1, segments=[SpokenSegment(start=2, end=6, speaker=0)]),
        "text": TextAttributes(pieces=[TextPiece(source="title", text=said)], captions=[captions], keywords=[shown]),
        "topics": TopicsAttributes(model="m", topics=[Topic(number=0, name=topic, words=[topic], share=0.7)]),
        "fused": fused.attributes,
        "published": published,
    }
    arrays: dict[str, dict[str, Any]] = {
        "frames": frames_to_arrays(frames),
        "fused": vectors,
        "published": vectors | {"phrase_embeddings": np.stack([direction(said, WIDTHS["text"])])},
    }
    return {name: (item.model_dump(mode="json"), arrays.get(name, {})) for name, item in attributes.items()}
