"""The audience of new viewers follows what was stored last."""

from __future__ import annotations

from ranker.group_tastes import GroupTastesCache, latest_events
from ranker.video_table import VideoTable
from tests.ranker.builders import World


def test_the_audience_is_kept_for_a_while_and_then_made_anew(tastes: World) -> None:
    kept, always = GroupTastesCache(tastes.catalogue), GroupTastesCache(tastes.catalogue, refresh_seconds=0.0)
    assert kept.get(tastes.table).everyone.acts == 0
    tastes.happens("ana", "cooking 0", "like")
    tastes.happens("ben", "cooking 0", "skip")
    assert kept.get(tastes.table).everyone.acts == 0
    assert always.get(tastes.table).everyone.acts == 1
    tastes.happens("ben", "cars 0", "share")
    assert always.get(tastes.table).everyone.acts == 2
    assert GroupTastesCache(tastes.catalogue, most_events=1).get(tastes.table).everyone.acts == 1


def test_only_the_latest_events_are_read_and_another_table_tells_another_audience(tastes: World) -> None:
    for place in range(5):
        tastes.happens("ana", f"cooking {place}", "like")
    assert [event.sequence for event in latest_events(tastes.catalogue, 2)] == [5, 4]
    cache = GroupTastesCache(tastes.catalogue)
    assert cache.get(tastes.table).everyone.acts == 5
    other = VideoTable(tastes.objects, tastes.catalogue, "fedcba9876543210")
    assert cache.get(other).everyone.acts == 0
    assert cache.get(tastes.table).everyone.acts == 5
