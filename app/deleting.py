"""`reelsense videos delete`: a video goes everywhere, and what was done is proved."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from app.administration import Administrator


def delete(by: Administrator, video_id: str) -> dict[str, Any]:
    """Delete a video: `video`, `removed` (rows by table, objects by kind), and `found` after it, which is empty.

    It is no more in any list, feed or search from the next request on; who plays it gets no next part. Raises
    `video.unknown`, and `store.unavailable` or `database.unavailable`, after which it has to be run again.
    """
    from workers.deleting import delete_video

    document = delete_video(by.reelsense.graph, video_id, by.actor.who)
    by.note("video.delete", document["video"], document["removed"]["objects"])
    return document
