"""Captions while a video plays in a feed: what was written for it, else what was heard in it, as WebVTT (W3C).

Of several written tracks the first is shown: they are in the order in which the uploader gave them. No other artifact
is read than the one that holds them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from app.video_view import web_vtt
from store.administration import Administration
from store.errors import InputError
from store.records import TextAttributes, TranscriptAttributes

if TYPE_CHECKING:
    from app.operations import ReelSense


def captions_of(reelsense: ReelSense, video_id: str) -> str:
    """The captions of a video, without cues while there are none. Raises `video.unknown`, `video.quarantined`."""
    video = reelsense.catalogue.video(video_id)
    if mark := Administration(reelsense.catalogue).quarantined([video.id]).get(video.id):
        raise InputError("video.quarantined", mark.message)
    text = reelsense.artifact(video, "text")
    written = [] if text is None else TextAttributes.model_validate(text.attributes).captions
    if track := next((track for track in written if track.segments), None):
        return web_vtt(line.model_dump() for line in track.segments)
    transcript = reelsense.artifact(video, "transcript")
    heard = [] if transcript is None else TranscriptAttributes.model_validate(transcript.attributes).segments
    return web_vtt(line.model_dump() for line in heard)
