"""Every source over a real catalogue and real events, and the audience that follows them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import sqlalchemy as sa
from hypothesis import given
from hypothesis import strategies as st

from ranker.audience import Audience, AudienceConfig, Crowd
from ranker.candidates import Candidates, Request, gather
from ranker.exploration import ExplorationConfig
from ranker.profiles import build
from ranker.sources import (
    QUOTAS,
    CoWatch,
    Followed,
    Fresh,
    Graph,
    Interest,
    SimilarTaste,
    TrendingNow,
    seeds_of,
    shares,
    sources,
    with_quotas,
)
from store.catalogue import StoredEvent
from store.event_log import EventLog, events
from tests.ranker.builders import NOON, World, video_id

HOUR = 3600.0


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def crowded(tastes: World) -> World:
    """Ten people who finished cooking 0 to 3, and ten who finished cars 0 to 3; in Germany and in France."""
    watched = [
        act(f"{taste} lover {person}", f"{taste} {place}", NOON - 60 * place, region=region)
        for person in range(10)
        for place in range(4)
        for taste, region in (("cooking", "DE"), ("cars", "FR"))
    ]
    assert EventLog(tastes.catalogue).add(watched) == len(watched)
    return tastes


def act(user: str, name: str, at: float = NOON, kind: str = "view", region: str = "") -> StoredEvent:
    return StoredEvent(
        id=f"{user}/{name}/{kind}/{at}", user_id=user, video_id=video_id(name), kind=kind,
        watched_seconds=20.0 if kind == "view" else None, at=at, region=region,
    )  # fmt: skip


def event(world: World, user: str, name: str, at: float = NOON) -> None:
    assert EventLog(world.catalogue).add([act(user, name, at)]) == 1


def audience_of(world: World, config: AudienceConfig | None = None) -> Audience:
    found = Audience(world.catalogue, config)
    found.refresh(world.table.snapshot, background=False)
    return found


def request_of(world: World, user: str = "ann", **more: object) -> Request:
    world.table.refresh()
    snapshot = world.table.snapshot
    profile = build(EventLog(world.catalogue).of(user), world.table)
    unseen = snapshot.alive.copy()
    unseen[[snapshot.row_of[name] for name in profile.seen if name in snapshot.row_of]] = False
    return Request(profile, snapshot, NOON, unseen, viewer=user, **more)  # type: ignore[arg-type]


def titles(found: Candidates, request: Request) -> list[str]:
    assert len(set(found.rows.tolist())) == len(found.rows)
    assert request.unseen[found.rows].all()
    assert set(found.paths) == set(found.rows.tolist())
    for row, path in found.paths.items():
        assert path[-1] == f"video:{request.snapshot.rows[row].id}"
    return [request.snapshot.rows[row].title for row in found.rows]


# --- each source -----------------------------------------------------------------------------------------------------


def test_interest_finds_what_is_alike(tastes: World) -> None:
    tastes.happens("ann", "cooking 0", "view", 20.0)
    request = request_of(tastes)
    found = titles(Interest().find(request, 5), request)
    assert len(found) == 5
    assert all(title.startswith("cooking") for title in found)


@given(masses=st.lists(st.floats(1e-3, 1e3), min_size=1, max_size=8), more=st.integers(0, 300))
def test_the_quota_is_shared_by_mass_and_nobody_gets_nothing(masses: list[float], more: int) -> None:
    quota = len(masses) + more
    given_out = shares(masses, quota)
    assert sum(given_out) == quota
    assert min(given_out) >= 1
    heaviest = max(range(len(masses)), key=lambda place: masses[place])
    assert given_out[heaviest] == max(given_out)


def test_co_watch_follows_what_others_watched_besides(crowded: World) -> None:
    audience = audience_of(crowded)
    event(crowded, "ann", "cars 1")
    request = request_of(crowded)
    found = CoWatch(audience).find(request, 10)
    assert set(titles(found, request)) == {"cars 0", "cars 2", "cars 3"}
    path = found.paths[request.snapshot.row_of[video_id("cars 2")]]
    assert path == (f"video:{video_id('cars 1')}", "together", f"video:{video_id('cars 2')}")


def test_the_graph_says_its_path_and_names_no_viewer(crowded: World) -> None:
    audience = audience_of(crowded)
    event(crowded, "ann", "cars 1")
    request = request_of(crowded)
    found = Graph(audience).find(request, 20)
    names = titles(found, request)
    # Those that people watched are nearest; the others by the same creator and topic were watched by nobody.
    assert set(names[:3]) == {"cars 0", "cars 2", "cars 3"}
    assert set(names[3:5]) == {"cars 4", "cars 5"}
    path = found.paths[request.snapshot.row_of[video_id("cars 5")]]
    assert path[0] == f"video:{video_id('cars 1')}"
    assert path[1] in ("creator:driver", "topic:cars", "topic:road")
    assert "lover" not in str(found.paths)
    watched = found.paths[request.snapshot.row_of[video_id("cars 2")]]
    assert watched[1] in ("viewer", "creator:driver", "topic:cars", "topic:road")


def test_the_graph_finds_what_is_made_with_the_same_sound(tmp_path: Path) -> None:
    world = World.at(tmp_path)
    world.publish("first", "dance", tags={"dance": 1.0}, creator="ann", sound="Last Summer")
    world.publish("second", "cooking", tags={"cooking": 1.0}, creator="ben", sound="Last Summer")
    world.publish("third", "cars", tags={"cars": 1.0}, creator="eve", sound="Engine")
    world.table.refresh()
    world.happens("zoe", "first", "like")
    audience = audience_of(world)
    world.happens("ann", "first", "like")
    request = request_of(world)
    found = Graph(audience).find(request, 10)
    assert titles(found, request) == ["second"]
    [path] = found.paths.values()
    assert path == (f"video:{video_id('first')}", "sound:Last Summer", f"video:{video_id('second')}")


def test_similar_viewers_liked_it(crowded: World) -> None:
    audience = audience_of(crowded)
    event(crowded, "ann", "cooking 1")
    request = request_of(crowded)
    assert set(titles(SimilarTaste(audience).find(request, 10), request)) == {"cooking 0", "cooking 2", "cooking 3"}


def test_followed_creators_newest_first(tastes: World) -> None:
    tastes.happens("ann", "cars 0", "follow")
    request = request_of(tastes)
    found = Followed().find(request, 3)
    assert titles(found, request) == ["cars 5", "cars 4", "cars 3"]
    assert found.paths[int(found.rows[0])][0] == "creator:driver"


def test_trending_knows_the_region(crowded: World) -> None:
    audience = audience_of(crowded)
    for region, taste in (("DE", "cooking"), ("FR", "cars")):
        request = request_of(crowded, region=region)
        found = titles(TrendingNow(audience).find(request, 4), request)
        assert all(title.startswith(taste) for title in found)
        assert len(found) == 4


def test_an_event_counts_in_the_very_next_request(crowded: World) -> None:
    audience = audience_of(crowded)
    EventLog(crowded.catalogue).add([act(f"passer-by {person}", "clouds") for person in range(80)])
    audience.refresh(crowded.table.snapshot)
    request = request_of(crowded)
    assert titles(TrendingNow(audience).find(request, 1), request) == ["clouds"]


def test_fresh_videos_are_tried_on_whom_they_suit_and_the_same_within_an_hour(crowded: World) -> None:
    for place in range(6):
        crowded.publish(f"new cars {place}", "cars")
        crowded.publish(f"new cooking {place}", "cooking")
    event(crowded, "ann", "cars 1")
    crowded.table.refresh()
    audience = audience_of(crowded, AudienceConfig(exploration=ExplorationConfig(fresh_seconds=1e-3, enough=5)))
    request = request_of(crowded)
    found = titles(Fresh(audience).find(request, 8), request)
    # Eight cars were shown to hardly anybody: 4, 5 and the six new ones; all suit better than any cooking.
    assert {title.split()[-2] for title in found} == {"cars"}
    assert titles(Fresh(audience).find(request, 8), request) == found
    later = [titles(Fresh(audience).find(replace(request, now=NOON + n * HOUR), 8), request) for n in range(1, 4)]
    assert any(other != found for other in later)


def test_fresh_leaves_out_what_is_old_and_well_known(crowded: World) -> None:
    audience = audience_of(crowded, AudienceConfig(exploration=ExplorationConfig(fresh_seconds=1e-3, enough=5)))
    later = replace(request_of(crowded), now=4e9)
    found = titles(Fresh(audience).find(later, 100), later)
    assert sorted(found) == ["cars 4", "cars 5", "clouds", "cooking 4", "cooking 5"]


# --- hard cases, for all of them -------------------------------------------------------------------------------------


def test_an_empty_catalogue_without_viewers(world: World) -> None:
    found = gather(with_quotas(sources(audience_of(world))), request_of(world), 5.0)
    assert found.left_out == {}
    assert len(found.rows) == 0


def test_nobody_ever_watched_anything(tastes: World) -> None:
    found = gather(with_quotas(sources(audience_of(tastes))), request_of(tastes), 5.0)
    assert found.left_out == {}
    # A new viewer of a new installation gets what is fresh.
    assert {part.source for part in found.candidates if len(part.rows)} == {"fresh"}
    assert len(found.rows) == 13


def test_everything_was_seen(crowded: World) -> None:
    audience = audience_of(crowded)
    for row in crowded.table.snapshot.rows:
        event(crowded, "ann", row.title)
    found = gather(with_quotas(sources(audience)), request_of(crowded), 5.0)
    assert found.left_out == {}
    assert len(found.rows) == 0


def test_deleted_and_unknown_videos_in_a_profile_spoil_nothing(crowded: World) -> None:
    audience = audience_of(crowded)
    event(crowded, "ann", "cars 1")
    event(crowded, "ann", "never published")
    request = request_of(crowded)
    gone = video_id("cars 2")
    snapshot = replace(
        request.snapshot, row_of={name: row for name, row in request.snapshot.row_of.items() if name != gone}
    )
    unseen = request.unseen.copy()
    unseen[request.snapshot.row_of[gone]] = False
    found = gather(with_quotas(sources(audience)), replace(request, snapshot=snapshot, unseen=unseen), 5.0)
    assert found.left_out == {}
    assert request.snapshot.row_of[gone] not in found.rows
    assert request.snapshot.row_of[video_id("cars 3")] in found.rows


def test_a_video_published_after_the_crowd_was_made_is_found_at_once(crowded: World) -> None:
    audience = audience_of(crowded)
    event(crowded, "ann", "cars 1")
    crowded.publish("brand new", "cars", creator="driver")
    request = request_of(crowded)
    row = request.snapshot.row_of[video_id("brand new")]
    found = gather(with_quotas(sources(audience)), request, 5.0)
    assert {"interest", "fresh"} <= set(found.sources_of(row))


def test_quotas_hold_and_all_sources_have_one(crowded: World) -> None:
    audience = audience_of(crowded)
    event(crowded, "ann", "cars 1")
    everybody = sources(audience)
    assert [source.name for source in everybody] == list(QUOTAS)
    found = gather([(source, 2) for source in everybody], request_of(crowded), 5.0)
    assert all(len(part.rows) <= 2 for part in found.candidates)


def test_seeds_are_what_was_liked_and_the_recent_weighs_more(tastes: World) -> None:
    for place in range(5):
        tastes.happens("ann", f"cars {place}", "view", 20.0, at=NOON - 60 * place)
    tastes.happens("ann", "cars 5", "view", 20.0, at=NOON - 90 * 86_400)
    tastes.happens("ann", "cars 1", "report")
    weights = seeds_of(build(EventLog(tastes.catalogue).of("ann"), tastes.table))
    assert list(weights) == [video_id(f"cars {place}") for place in (0, 2, 3, 4, 5)]
    assert weights[video_id("cars 4")] == pytest.approx(weights[video_id("cars 0")] * np.exp(-0.3), rel=1e-3)


# --- the audience ----------------------------------------------------------------------------------------------------


def cells(crowd: Crowd) -> dict[tuple[str, str], float]:
    viewers, videos = list(crowd.interactions.viewers), list(crowd.interactions.videos)
    matrix = crowd.interactions.matrix
    return {
        (viewers[row], videos[column]): round(float(matrix[row, column]), 5)
        for row, column in zip(*matrix.nonzero(), strict=True)
    }


def test_two_processes_agree_whenever_they_looked(crowded: World) -> None:
    one = audience_of(crowded)
    for place in range(5):
        event(crowded, "ann", f"cars {place}", NOON + place)
        one.refresh(crowded.table.snapshot, background=False)
    other = audience_of(crowded)
    assert one.followed == other.followed == 85
    assert cells(one.rebuild(crowded.table.snapshot)) == cells(other.rebuild(crowded.table.snapshot))
    assert one.trending.leading(NOON) == other.trending.leading(NOON)
    assert one.refresh(crowded.table.snapshot) == 0


def test_events_of_a_video_that_is_still_processed_wait_for_it(world: World) -> None:
    world.enter("later")
    event(world, "ann", "later")
    audience = audience_of(world)
    assert audience.tallies.shown == {}
    world.publish("later", "cars")
    world.table.refresh()
    audience.refresh(world.table.snapshot, background=False)
    assert audience.tallies.shown == {video_id("later"): 1}
    audience.refresh(world.table.snapshot, background=False)
    assert audience.tallies.shown == {video_id("later"): 1}


def test_who_is_forgotten_is_gone_at_the_next_rebuild(crowded: World) -> None:
    audience = audience_of(crowded)
    event(crowded, "ann", "clouds")
    audience.refresh(crowded.table.snapshot)
    assert audience.trending.count(video_id("clouds"), NOON) > 0
    with crowded.catalogue.engine.begin() as connection:
        connection.execute(sa.delete(events).where(events.c.user_id == "ann"))
    snapshot = crowded.table.snapshot
    audience.rebuild(snapshot)
    audience.refresh(snapshot, background=False)
    assert audience.trending.count(video_id("clouds"), NOON) == 0
    assert "ann" not in audience.rebuild(snapshot).interactions.viewers
    assert audience.followed == 80


def test_a_crowd_that_takes_long_is_made_less_often(crowded: World) -> None:
    clock = Clock()
    audience = Audience(crowded.catalogue, AudienceConfig(rebuild_seconds=60.0), clock)
    snapshot = crowded.table.snapshot
    audience.refresh(snapshot, background=False)
    assert audience.crowd is not None
    # As if it had taken half a minute: of 300 seconds that is a tenth.
    audience.crowd = long = replace(audience.crowd, cpu_seconds=30.0)
    event(crowded, "ann", "cars 1")
    clock.now = 299.0
    audience.refresh(snapshot, background=False)
    assert audience.crowd is long
    clock.now = 300.0
    audience.refresh(snapshot, background=False)
    assert audience.crowd is not long


def test_the_crowd_is_made_anew_in_the_background_when_there_is_news(crowded: World) -> None:
    clock = Clock()
    audience = Audience(crowded.catalogue, AudienceConfig(rebuild_seconds=60.0), clock)
    snapshot = crowded.table.snapshot
    audience.refresh(snapshot, background=False)
    first = audience.crowd
    event(crowded, "ann", "cars 1")
    clock.now = 59.0
    audience.refresh(snapshot, background=False)
    assert audience.crowd is first
    clock.now = 60.0
    audience.refresh(snapshot, background=True)
    for thread in running_crowds():
        thread.join(10)
    assert audience.crowd is not first
    assert audience.crowd is not None
    assert "ann" in audience.crowd.interactions.viewers
    clock.now = 200.0
    second = audience.crowd
    audience.refresh(snapshot, background=False)
    assert audience.crowd is second


def running_crowds() -> Iterator[object]:
    import threading

    return (thread for thread in threading.enumerate() if thread.name == "crowd")


def test_what_was_just_published_comes_first_until_it_was_shown(crowded: World) -> None:
    crowded.publish("new dance", "dance")
    crowded.table.refresh()
    audience = audience_of(crowded)
    event(crowded, "ann", "cars 1")
    request = request_of(crowded)
    new = request.snapshot.row_of[video_id("new dance")]
    published = np.full(len(request.snapshot), NOON - 2 * HOUR)
    published[new] = NOON - 60
    request = replace(request, now=NOON, snapshot=replace(request.snapshot, published_at=published))
    assert titles(Fresh(audience).find(request, 50), request)[0] == "new dance"
    later = replace(request, now=NOON + HOUR)
    assert titles(Fresh(audience).find(later, 50), later)[0] != "new dance", "cars suit better"
