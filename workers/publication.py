"""What of a video the ranker gets to know: tags for people, phrases to search by, and the tokens behind the vector."""

from __future__ import annotations

from store.records import (
    AudioAttributes,
    FramesAttributes,
    FusedAttributes,
    Metadata,
    Phrase,
    PublishedAttributes,
    TextAttributes,
    TranscriptAttributes,
    VisionAttributes,
)

WRITTEN_TAG_WEIGHT = 1.0
KEYWORD_WEIGHT = 0.5
MUSIC_WEIGHT = 0.5
LABEL_PHRASES = 10


def tags_of(
    metadata: Metadata, vision: VisionAttributes, audio: AudioAttributes, text: TextAttributes
) -> dict[str, float]:
    """Tags with weights in 0..1: the uploader's own, what is seen (by confidence), keywords, the type
    and the mood of the music. What is seen counts under its own name and under its everyday word."""
    tags: dict[str, float] = {}

    def add(name: str, weight: float) -> None:
        clean = " ".join(name.casefold().replace("_", " ").split())
        if clean:
            tags[clean] = max(tags.get(clean, 0.0), round(weight, 6))

    for tag in metadata.tags:
        add(tag, WRITTEN_TAG_WEIGHT)
    for label in vision.labels:
        add(label.name, label.confidence)
        if label.group:
            add(label.group, label.confidence)
    for found in vision.objects:
        add(found.name, found.confidence)
    for keyword in text.keywords:
        add(keyword, KEYWORD_WEIGHT)
    if audio.music.mood:
        add(f"{audio.music.mood} music", MUSIC_WEIGHT * (audio.music.mood_confidence or 0.0))
    if audio.music.type:
        add(f"{audio.music.type} music", MUSIC_WEIGHT * (audio.music.type_confidence or 0.0))
    return dict(sorted(tags.items(), key=lambda item: (-item[1], item[0])))


def label_phrases(vision: VisionAttributes, duration: float) -> list[Phrase]:
    """What is seen in a video of `duration` seconds, as phrases: weighted by confidence, when it is seen."""
    return [
        Phrase(
            source="label",
            text=label.name if label.group is None else f"{label.name}, {label.group}",
            start=min(label.seconds, default=0.0),
            end=max(label.seconds, default=duration),
            weight=label.confidence,
        )
        for label in vision.labels[:LABEL_PHRASES]
    ]


def published(
    metadata: Metadata,
    frames: FramesAttributes,
    vision: VisionAttributes,
    audio: AudioAttributes,
    transcript: TranscriptAttributes,
    text: TextAttributes,
    spoken: list[Phrase],
    fused: FusedAttributes,
) -> PublishedAttributes:
    """The record of a published video. `spoken` are the phrases of the text tokens, in their order."""
    return PublishedAttributes(
        title=metadata.title,
        creator=metadata.creator,
        region=metadata.region.upper(),
        language=metadata.language or transcript.language,
        duration=frames.duration,
        tags=tags_of(metadata, vision, audio, text),
        attention=fused.attention,
        tokens=fused.tokens,
        phrases=[*spoken, *label_phrases(vision, frames.duration)],
        sound=metadata.sound,
    )
