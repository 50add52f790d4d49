"""What an explanation names matters: without it, the score is lower, by what the explanation says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ranker.explanations import MATTERS, Reason
from ranker.found import Found
from ranker.profiles import Profile, build
from ranker.recommend import Recommendation, recommend
from ranker.refusals import refused_of
from ranker.scoring import RankerConfig, Situation, score_terms
from ranker.video_table import VideoTable
from store.catalogue import StoredEvent
from store.records import Float32
from tests.ranker.builders import NOON, World, video_id

TOPICS = ("cooking", "cars", "dance")
NAMES = [f"{topic} {place}" for topic in TOPICS for place in range(5)]
REGIONS, LANGUAGES = ("DE", "JP", ""), ("en", "pt-BR", None)


@dataclass(frozen=True, eq=False)
class Taste:
    """One interest, as profiles hold them."""

    vector: np.ndarray
    mass: float
    tags: Mapping[str, float]
    videos: tuple[str, ...]


@dataclass(frozen=True, eq=False, repr=False)
class Known(Profile):
    """A profile with several interests and places."""

    tastes: tuple[Taste, ...] = ()
    places: Mapping[str, Mapping[str, float]] = field(default_factory=dict)

    @property
    def interests(self) -> tuple[Taste, ...]:
        return self.tastes

    @property
    def regions(self) -> Mapping[str, float]:
        return self.places.get("regions", {})

    @property
    def languages(self) -> Mapping[str, float]:
        return self.places.get("languages", {})


@dataclass(frozen=True)
class Found1:
    source: str
    rows: np.ndarray
    scores: np.ndarray
    paths: Mapping[int, tuple[str, ...]] = field(default_factory=dict)


@dataclass(frozen=True)
class FoundAll:
    candidates: Sequence[Found1]
    left_out: Mapping[str, str] = field(default_factory=dict)


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> VideoTable:
    world = World.at(tmp_path_factory.mktemp("reasons"))
    for number, name in enumerate(NAMES):
        topic = name.split()[0]
        tags = {topic: 1.0, f"shared {number % 3}": 0.6, f"own {number}": 0.3, f"half {number % 2}": 0.5}
        artifact = world.artifact(name, topic, tags=tags, creator=f"creator {number % 4}", noise=1.0)
        said = {"region": REGIONS[number % 3], "language": LANGUAGES[number % 2]}
        world.enter(name)
        world.put(replace(artifact, attributes=artifact.attributes | said))
        world.catalogue.publish(artifact.video_id, artifact.version, artifact.revision)
    world.table.refresh()
    return world.table


def stored(name: str, kind: str, watched: float | None, age: float) -> StoredEvent:
    at = NOON - age * 86_400
    return StoredEvent(id=f"{name}{kind}{age}"[:64], user_id="u", video_id=video_id(name), kind=kind,
                       watched_seconds=watched, at=at)  # fmt: skip


EVENTS = st.lists(
    st.builds(
        stored,
        st.sampled_from(NAMES[:3] + NAMES[5:8] + NAMES[10:12]),
        st.sampled_from(["view", "view", "like", "share", "follow", "skip", "not_interested"]),
        st.sampled_from([0.5, 5.0, 19.0, 20.0]),
        st.sampled_from([0.0, 0.01, 1.0, 20.0, 200.0]),
    ),
    min_size=0,
    max_size=12,
)


def known_of(events: Sequence[StoredEvent], table: VideoTable, tastes: bool, places: bool) -> Known:
    profile = build(events, table)
    own: list[Taste] = []
    if tastes:
        for topic in TOPICS:
            inside = [
                name
                for name, part in profile.contributions.items()
                if part.long > 0 and (row := table.snapshot.row(name)) and topic in row.tags
            ]
            if inside:
                total = sum(
                    profile.contributions[name].long * vector_of(table, name).astype(np.float64) for name in inside
                )
                mass = sum(profile.contributions[name].long for name in inside)
                own.append(Taste(total / np.linalg.norm(total), mass, {topic: 1.0}, tuple(inside)))
    there = {"regions": {"DE": 0.75, "JP": 0.25}, "languages": {"en": 1.0}} if places else {}
    return Known(
        **{name: getattr(profile, name) for name in Profile.__dataclass_fields__}, tastes=tuple(own), places=there
    )


def vector_of(table: VideoTable, name: str) -> Float32:
    vector: Float32 = table.snapshot.vectors[table.snapshot.row_of[name]]
    return vector


def alone(profile: Profile, table: VideoTable, video: str, where: Situation, config: RankerConfig) -> float:
    """The score of one video, whatever else is in the list, less what sources add."""
    refused = refused_of(profile, table.snapshot, NOON, config, table)
    row = np.array([table.snapshot.row_of[video]])
    terms = score_terms(profile, table.snapshot, row, NOON, config, situation=where, refused=refused)
    return float(sum(values[0] for values in terms.values()))


def without_it(
    reason: Reason, item: Recommendation, profile: Known, events: Sequence[StoredEvent], table: VideoTable,
    where: Situation, config: RankerConfig,
) -> float | None:  # fmt: skip
    """The video's score where what the reason names is not there; None where it names nothing that can be taken."""
    match reason["kind"]:
        case "tags":
            rest: Profile = replace(
                profile, tags={tag: weight for tag, weight in profile.tags.items() if tag not in reason["tags"]}
            )
        case "interest":
            tastes = [taste for number, taste in enumerate(profile.tastes) if number != reason["number"]]
            rest = replace(profile, tastes=tuple(tastes))
        case "followed_creator":
            parts = {
                name: replace(part, followed="" if part.followed == reason["creator"] else part.followed)
                for name, part in profile.contributions.items()
            }
            rest = replace(profile, contributions=type(profile.contributions)(parts))  # type: ignore[call-arg]
        case "region":
            return alone(replace(profile, places={**profile.places, "regions": {}}), table, item.video,
                         replace(where, region=""), config)  # fmt: skip
        case "language":
            return alone(replace(profile, places={**profile.places, "languages": {}}), table, item.video,
                         replace(where, language=""), config)  # fmt: skip
        case "small_creator":
            return alone(profile, table, item.video, where, config.model_copy(update={"small_creator": 0.0}))
        case "fresh":
            return alone(profile, table, item.video, where, config.model_copy(update={"freshness": 0.0}))
        case "watched_video":
            left = [event for event in events if event.video_id != reason["video"]]
            rest = build(left, table)
            rest = Known(**{name: getattr(rest, name) for name in Profile.__dataclass_fields__}, places=profile.places)
        case _:
            return None
    return alone(rest, table, item.video, where, config)


@settings(deadline=None, max_examples=60)
@given(events=EVENTS, tastes=st.booleans(), places=st.booleans(), where=st.sampled_from([("", ""), ("JP", "pt")]))
def test_without_what_a_reason_names_the_score_is_lower_by_its_effect(
    table: VideoTable, events: list[StoredEvent], tastes: bool, places: bool, where: tuple[str, str]
) -> None:
    config, situation = RankerConfig(), Situation(*where)
    profile = known_of(events, table, tastes, places)
    feed = recommend(profile, table, 50, NOON, config, situation=situation)
    for item in feed:
        score = alone(profile, table, item.video, situation, config)
        assert score == pytest.approx(item.score - item.terms["diversity"] - item.terms["rules"], abs=1e-9)
        assert len({reason["kind"] for reason in item.reasons}) == len(item.reasons)
        for reason in item.reasons:
            if tastes and reason["kind"] == "watched_video":
                # The stand-in for interests here does not follow when a video is taken out.
                continue
            less = without_it(reason, item, profile, events, table, situation, config)
            if less is None:
                assert reason["kind"] in ("moment", "new_viewer", "unexplored")
                continue
            assert reason["effect"] >= MATTERS or reason["kind"] == "fresh"
            assert less == pytest.approx(score - reason["effect"], abs=1e-6), reason


def test_every_kind_of_reason_occurs(table: VideoTable) -> None:
    events = [stored("cooking 0", "view", 20.0, 0.0), stored("cars 0", "follow", None, 1.0)]
    profile = known_of(events, table, True, True)
    snapshot = table.snapshot
    rows = np.arange(len(snapshot))
    paths = {int(rows[4]): ("you", "cooking 0", "creator 1", "cooking 4")}
    gathered: Found = FoundAll([Found1("graph", rows, np.linspace(1, 2, len(rows)), paths)])
    feed = recommend(
        profile, table, 50, NOON, RankerConfig(small_creator=0.2, small_creator_videos=9), gathered=gathered
    )
    kinds = {reason["kind"] for item in feed for reason in item.reasons}
    assert kinds == {
        "watched_video", "moment", "tags", "interest", "followed_creator", "region", "language", "small_creator",
        "source",
    }  # fmt: skip
    new = recommend([], table, 50, NOON)
    assert {"new_viewer", "fresh"} <= {reason["kind"] for item in new for reason in item.reasons}


def test_only_what_sources_found_is_scored_and_each_says_how(table: VideoTable) -> None:
    snapshot = table.snapshot
    two = np.array([snapshot.row_of[video_id("cars 1")], snapshot.row_of[video_id("dance 1")]])
    one = two[1:]
    path = (f"video:{video_id('cooking 0')}", "viewer", "tag:shared 1")
    gathered = FoundAll([
        Found1("co_watch", two, np.array([2.0, 8.0])),
        Found1("graph", one, np.array([0.1]), {int(one[0]): path}),
        Found1("unheard of", two, np.array([1.0, 1.0])),
        Found1("trending", two[:0], np.zeros(0)),
    ])  # fmt: skip
    events = [stored("cooking 0", "view", 20.0, 0.0)]
    feed = recommend(events, table, 10, NOON, gathered=gathered)
    assert [item.video for item in feed] == [video_id("dance 1"), video_id("cars 1")]
    assert feed[0].terms["source_co_watch"] == pytest.approx(0.3)
    assert feed[1].terms["source_co_watch"] == pytest.approx(0.15)
    assert (feed[0].terms["source_graph"], feed[1].terms["source_graph"]) == (pytest.approx(0.3), 0)
    assert "source_unheard of" not in feed[0].terms
    assert [found["source"] for found in feed[0].sources] == ["co_watch", "graph", "unheard of"]
    assert feed[0].sources[1] == {"source": "graph", "score": 0.1, "path": list(path)}
    graph = next(reason for reason in feed[0].reasons if reason.get("source") == "graph")
    assert graph["path"] == list(path)
    assert "“cooking 0” → a viewer → shared 1." in graph["text"]
    for item in feed:
        for reason in item.reasons:
            if reason["kind"] == "source":
                left = [found for found in gathered.candidates if found.source != reason["source"]]
                rest = recommend(events, table, 10, NOON, gathered=FoundAll(left))
                other = next(other for other in rest if other.video == item.video)
                assert other.score - other.terms["diversity"] - other.terms["rules"] == pytest.approx(
                    item.score - item.terms["diversity"] - item.terms["rules"] - reason["effect"]
                )


def test_sources_that_found_nothing_new_leave_the_whole_catalogue(table: VideoTable) -> None:
    events = [stored("cooking 0", "view", 20.0, 0.0)]
    whole = recommend(events, table, 50, NOON)
    seen = np.array([table.snapshot.row_of[video_id("cooking 0")]])
    for nothing in (FoundAll([]), FoundAll([Found1("graph", seen, np.ones(1))], {"trending": "internal"})):
        assert [item.video for item in recommend(events, table, 50, NOON, gathered=nothing)] == [
            item.video for item in whole
        ]
    odd = FoundAll([Found1("graph", np.array([3, 4, 10**6, -1]), np.array([np.nan, np.inf, 1.0, 1.0]))])
    assert len(recommend(events, table, 50, NOON, gathered=odd)) == 2
