"""Videos that the same people finish are pairs; others are not."""

from __future__ import annotations

from ranker.engagement import NEXT, finished_histories, finished_together
from store.catalogue import StoredEvent

LENGTHS = {"a": 10.0, "b": 20.0, "c": 10.0, "d": 10.0}


def act(user: str, video: str, kind: str = "view", watched: float | None = None, at: float = 0.0) -> StoredEvent:
    return StoredEvent(
        id=f"{user}{video}{kind}{at}", user_id=user, video_id=video, kind=kind, watched_seconds=watched, at=at
    )


def test_finishing_and_approving_make_pairs() -> None:
    events = [
        act("ana", "a", watched=9.5, at=1),
        act("ana", "b", watched=9.5, at=2),  # less than half of it
        act("ana", "c", "like", at=3),
        act("ben", "c", watched=10.0, at=1),
        act("ben", "a", watched=30.0, at=2),  # three times over
        act("ben", "d", "skip", watched=10.0, at=3),
    ]
    assert finished_together(finished_histories(events, LENGTHS)) == [("a", "c"), ("a", "c")]


def test_one_viewer_s_pairs_grow_no_faster_than_what_is_watched() -> None:
    lengths = {f"{number:03}": 10.0 for number in range(200)}
    events = [act("ana", video, watched=10.0, at=place) for place, video in enumerate(lengths)]
    assert len(finished_together(finished_histories(events, lengths))) <= NEXT * 200


def test_the_same_video_again_is_no_pair_with_itself_and_unknown_videos_are_passed_over() -> None:
    events = [
        act("ana", "a", watched=10.0, at=1),
        act("ana", "a", watched=10.0, at=2),
        act("ana", "gone", "like", at=3),
    ]
    assert finished_together(finished_histories(events, LENGTHS)) == []
