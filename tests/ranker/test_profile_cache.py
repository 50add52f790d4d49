"""The cache of profiles: always what the database holds by now, for little."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from ranker import profile_cache
from ranker.profile_cache import NORMS_SECONDS, ProfileCache, new_events
from ranker.profiles import Profile, build
from ranker.video_table import VideoTable
from store.administration import Actor, Administration
from store.event_log import EventLog
from store.event_log import events as event_rows
from store.own_tables import transaction
from tests.ranker.builders import NOON, VERSION, World, two_tastes, video_id
from tests.ranker.test_profiles import assert_same
from tests.store.servers import new_database


@pytest.fixture(params=["sqlite", "postgresql"])
def world(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[World]:
    """An empty catalogue in either database."""
    postgresql = request.param == "postgresql"
    world = World.at(tmp_path, new_database(request.getfixturevalue("postgresql")) if postgresql else "")
    yield world
    world.catalogue.close()


def assert_current(cache: ProfileCache, world: World, user: str = "ana") -> Profile:
    profile = cache.get(user, world.table)
    assert_same(profile, build(EventLog(world.catalogue).of(user), world.table, profile.scale))
    return profile


def test_an_event_counts_in_the_next_request_of_every_process(tastes: World) -> None:
    here, there = ProfileCache(tastes.catalogue), ProfileCache(tastes.catalogue)
    for place in range(6):
        tastes.happens("ana", f"cooking {place}", "like", at=NOON - 60.0 * (place % 3))
        assert assert_current(here, tastes).events == place + 1
        assert assert_current(there, tastes).events == place + 1


def test_only_newer_events_are_read(tastes: World, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = ProfileCache(tastes.catalogue)
    tastes.happens("ana", "cooking 0", "like")
    tastes.happens("ana", "cooking 1", "like")
    cache.get("ana", tastes.table)
    read = []

    def watched(*how: object) -> profile_cache.NewEvents:
        read.append(new_events(*how))  # type: ignore[arg-type]
        return read[-1]

    monkeypatch.setattr(profile_cache, "new_events", watched)
    first = cache.get("ana", tastes.table)
    assert cache.get("ana", tastes.table) is first
    tastes.happens("ben", "cars 0", "like")
    tastes.happens("ana", "cars 1", "like")
    assert_current(cache, tastes)
    assert [len(news.events) for news in read] == [0, 0, 1]


def test_one_indexed_query_finds_them(tastes: World) -> None:
    tastes.happens("ana", "cooking 0", "like")
    if tastes.catalogue.engine.dialect.name != "sqlite":
        # Of a few rows PostgreSQL reads all: whether it may use the index is a question of statistics.
        names = {tuple(index["column_names"]) for index in sa.inspect(tastes.catalogue.engine).get_indexes("events")}
        assert ("user_id", "sequence") in names
        return
    query = "EXPLAIN QUERY PLAN SELECT * FROM events WHERE user_id = 'ana' AND sequence > 5 ORDER BY sequence"
    with transaction(tastes.catalogue) as connection:
        plan = " ".join(row[3] for row in connection.execute(sa.text(query)))
    assert "USING INDEX" in plan
    assert "user_id=? AND sequence>?" in plan or "user_id=? AND rowid>?" in plan
    assert "TEMP B-TREE" not in plan


def test_a_video_published_after_its_event(tastes: World) -> None:
    cache = ProfileCache(tastes.catalogue)
    tastes.enter("bread")
    tastes.happens("ana", "bread", "like")
    assert assert_current(cache, tastes).long_mass == 0
    tastes.publish("bread", "cooking")
    tastes.table.refresh()
    assert assert_current(cache, tastes).long_mass == 1.0


def test_a_replaced_revision_and_one_video_more(tastes: World) -> None:
    cache = ProfileCache(tastes.catalogue)
    tastes.happens("ana", "cooking 0", "like")
    before = cache.get("ana", tastes.table)
    tastes.publish("another", "cars")
    tastes.table.refresh()
    assert cache.get("ana", tastes.table).contributions is before.contributions
    tastes.publish("cooking 0", "trains", tags={"trains": 1.0}, revision="b" * 16)
    tastes.table.refresh()
    assert "trains" in assert_current(cache, tastes).tags


def test_a_video_in_quarantine_leaves_the_profile_and_comes_back(tastes: World) -> None:
    cache = ProfileCache(tastes.catalogue)
    tastes.happens("ana", "cooking 0", "like")
    tastes.happens("ana", "cars 0", "like")
    assert len(assert_current(cache, tastes).contributions) == 2
    administration = Administration(tastes.catalogue)
    actor = Actor("ada", "cli")
    administration.quarantine(video_id("cooking 0"), [], actor)
    tastes.table.refresh()
    profile = assert_current(cache, tastes)
    assert list(profile.contributions) == [video_id("cars 0")]
    assert video_id("cooking 0") in profile.seen
    administration.release(video_id("cooking 0"), actor)
    tastes.table.refresh()
    assert len(assert_current(cache, tastes).contributions) == 2


def test_events_that_went_away_are_forgotten(tastes: World) -> None:
    cache = ProfileCache(tastes.catalogue)
    tastes.happens("ana", "cooking 0", "like", at=NOON - 9)
    tastes.happens("ana", "cars 0", "like")
    assert cache.get("ana", tastes.table).events == 2
    with transaction(tastes.catalogue) as connection:
        connection.execute(sa.delete(event_rows).where(event_rows.c.at < NOON))
    assert assert_current(cache, tastes).events == 1
    with transaction(tastes.catalogue) as connection:
        connection.execute(sa.delete(event_rows))
    assert cache.get("ana", tastes.table).events == 0
    assert len(cache) == 0


def test_another_table_has_other_profiles(tastes: World) -> None:
    cache = ProfileCache(tastes.catalogue)
    tastes.happens("ana", "cooking 0", "like")
    assert cache.get("ana", tastes.table).long_mass == 1.0
    other = VideoTable(tastes.objects, tastes.catalogue, "fedcba9876543210")
    assert cache.get("ana", other).long_mass == 0
    again = VideoTable(tastes.objects, tastes.catalogue, VERSION)
    again.refresh()
    assert cache.get("ana", again).long_mass == 1.0


def test_a_crowd_is_built_anew_rather_than_folded_and_the_cache_is_bounded(world: World) -> None:
    two_tastes(world, each=2)
    cache = ProfileCache(world.catalogue, most=2)
    for user in ("ana", "ben", "cleo"):
        world.happens(user, "cooking 0", "like")
        cache.get(user, world.table)
    assert len(cache) == 2
    for place in range(profile_cache.MOST_FOLDED + 1):
        world.happens("cleo", "cars 0", "view", 10.0, at=NOON - place)
    assert_current(cache, world, "cleo")
    assert cache.get("nobody", world.table).events == 0
    assert len(cache) == 2
    cache.forget("cleo")
    assert len(cache) == 1


def test_views_are_measured_by_everybody_s_and_by_the_viewer_s_own(tastes: World) -> None:
    """Long videos are left early by most; and who finishes everything says less by finishing."""
    clock = [0.0]
    cache = ProfileCache(tastes.catalogue, clock=lambda: clock[0])
    tastes.happens("ana", "cooking 0", "view", watched=12.0)
    assert cache.get("ana", tastes.table).scale.norms.views == 1
    guessed = cache.get("ana", tastes.table).long_mass
    for number in range(400):
        tastes.happens(f"viewer {number}", f"cooking {number % 6}", "view", watched=4.0)
    assert cache.get("ana", tastes.table).long_mass == guessed, "not before the next look"
    clock[0] = NORMS_SECONDS
    known = assert_current(cache, tastes)
    assert known.scale.norms.views == 401
    assert known.long_mass > guessed, "longer than nearly all others"
    for place in range(6):
        for turn in range(5):
            tastes.happens(
                "ana", f"cooking {place}", "view", watched=12.0, at=NOON - 9000.0 * (turn + 1) - 60.0 * place
            )
    assert assert_current(ProfileCache(tastes.catalogue), tastes).scale.habit.usual > known.scale.habit.usual
