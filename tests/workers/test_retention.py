"""The sweep deletes events that are older than they may be, from the database and from the journal."""

from __future__ import annotations

import time
from pathlib import Path

from store.catalogue import StoredEvent
from store.journal import Journal
from store.settings import load_settings
from tests.workers.test_brokers import valkey
from workers.sweeper import Sweeper


def event(name: str, days_ago: float) -> StoredEvent:
    at = time.time() - days_ago * 86_400
    return StoredEvent(id=name, user_id=name, video_id="v", kind="view", watched_seconds=1.0, at=at)


def test_the_sweep_applies_the_setting(tmp_path: Path) -> None:
    with valkey(tmp_path) as url:
        said: list[str] = []
        for days, left in ((0.0, ["new", "old"]), (30.0, ["new"])):
            settings = load_settings(data=tmp_path / "data", broker=url, event_retention_days=days)
            sweeper = Sweeper(settings, said.append)
            log = sweeper.journal.log
            log.add([event("old", 31.0), event("new", 29.0)])
            sweeper.now_and_then()
            assert [item.user_id for item in log.all()] == left
            held = {name: Journal(sweeper.graph.objects, log.catalogue).held_of(name, 1e12) for name in ("old", "new")}
            assert [name for name in sorted(held) if held[name]] == left
        assert [line for line in said if line.startswith("retention")] == [
            "retention: deleted 1 old events, and from 1 segments of the journal"
        ]
