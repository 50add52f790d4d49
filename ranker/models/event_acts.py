"""Stored events as the acts that models learn from, and are asked with: one way for both, so that they agree."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from ranker.events import KINDS, completion_of, value
from ranker.models.training_data import ActLog
from store.catalogue import StoredEvent
from store.event_following import FollowedEvent

_PLACES: dict[str, int] = {kind: place for place, kind in enumerate(KINDS)}


def log_of(
    events: Iterable[StoredEvent | FollowedEvent],
    viewers: Mapping[str, int],
    videos: Mapping[str, int],
    durations: Mapping[str, float],
    n_viewers: int | None = None,
) -> ActLog:
    """The acts of those viewers on those videos, by their numbers; all other events are passed over.

    Events come in the order of their arrival, or of one viewer by time. `durations` in seconds by video. An act's value
    is `ranker.events.value` by length alone, as everywhere where many viewers are looked at at once: what is usual for
    a length, and for a viewer, changes while events come in, and would change the values of acts that were learnt from.
    """
    columns: tuple[array[Any], ...] = tuple(array(code) for code in "qqdffb")
    for event in events:
        viewer, video = viewers.get(event.user_id), videos.get(event.video_id)
        if viewer is None or video is None:
            continue
        duration = durations.get(event.video_id) or 0.0
        share = np.nan
        if event.watched_seconds is not None and duration > 0:
            share = completion_of(event.watched_seconds, duration)
        act = (viewer, video, event.at, value(_stored(event), duration), share, _PLACES.get(event.kind, -1))
        for column, number in zip(columns, act, strict=True):
            column.append(number)
    kinds = (np.int64, np.int64, np.float64, np.float32, np.float32, np.int8)
    users, items, at, values, watched, acts = (np.array(c, k) for c, k in zip(columns, kinds, strict=True))
    return ActLog.of(
        users,
        items,
        len(viewers) if n_viewers is None else n_viewers,
        len(videos),
        at=at,
        values=values,
        watched=watched,
        kinds=acts,
    )


def _stored(event: StoredEvent | FollowedEvent) -> StoredEvent:
    if isinstance(event, StoredEvent):
        return event
    # Checked when it was stored.
    return StoredEvent.model_construct(
        id="", user_id=event.user_id, video_id=event.video_id, kind=event.kind,
        watched_seconds=event.watched_seconds, at=event.at,
    )  # fmt: skip
