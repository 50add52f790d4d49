"""Captions as a browser shows them: WebVTT (W3C) of what was written for a video, else of what was heard in it.

Of several written tracks the first is shown: they are in the order in which the uploader gave them.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from store.records import CaptionSegment, TextAttributes, TranscriptAttributes

if TYPE_CHECKING:
    from app.operations import ReelSense

# A cue without length would never be shown.
SHORTEST_SECONDS = 0.1


def captions_of(reelsense: ReelSense, video_id: str) -> str:
    """The captions that came with a video, else its transcript, as WebVTT; without cues while there is neither. Raises
    `video.unknown`."""
    video = reelsense.catalogue.video(video_id)
    text = reelsense.artifact(video, "text")
    written = [] if text is None else TextAttributes.model_validate(text.attributes).captions
    if track := next((track for track in written if track.segments), None):
        return web_vtt(track.segments)
    transcript = reelsense.artifact(video, "transcript")
    heard = [] if transcript is None else TranscriptAttributes.model_validate(transcript.attributes).segments
    return web_vtt(heard)


def web_vtt(segments: Iterable[CaptionSegment]) -> str:
    """Segments as a WebVTT file. Their text is shown as it is: it cannot end a cue, begin another, or hold markup."""
    cues = ["WEBVTT\n"]
    for segment in sorted(segments, key=lambda segment: (segment.start, segment.end)):
        lines = [" ".join(line.split()) for line in segment.text.splitlines()]
        text = "\n".join(_plain(line) for line in lines if line)
        if text:
            end = max(segment.end, segment.start + SHORTEST_SECONDS)
            cues.append(f"{_time(segment.start)} --> {_time(end)}\n{text}\n")
    return "\n".join(cues)


def _plain(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _time(seconds: float) -> str:
    whole = max(round(seconds * 1000), 0)
    return f"{whole // 3_600_000:02d}:{whole // 60_000 % 60:02d}:{whole // 1000 % 60:02d}.{whole % 1000:03d}"
