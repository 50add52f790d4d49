"""People, and the feeds they get: tastes that form, change and are refused; travel; new viewers; nothing left."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from ranker.feed_rules import FeedRules, Safety
from ranker.objectives import Ranking
from ranker.profiles import build
from ranker.recommend import Recommendation, recommend
from ranker.scoring import RankerConfig, Situation
from store.administration import Actor, Administration
from store.catalogue import StoredEvent
from store.errors import InputError
from store.records import Modality
from tests.ranker.builders import NOON, World, video_id

DAY = 86_400.0
TOPICS = ("cooking", "cars", "dance", "dogs", "chess", "news")
CREATORS = 3


def event(name: str, kind: str, watched: float | None = None, at: float = NOON, **where: str) -> StoredEvent:
    identity = f"{name}/{kind}/{at}"
    return StoredEvent(
        id=identity[:64], user_id="ana", video_id=video_id(name), kind=kind, watched_seconds=watched, at=at, **where
    )


def publish(world: World, name: str, topic: str, **how: object) -> None:
    """A video with a region and language of its own."""
    said = {key: how.pop(key) for key in ("region", "language") if key in how}
    artifact = world.artifact(name, topic, **how)  # type: ignore[arg-type]
    world.enter(name)
    world.put(replace(artifact, attributes=artifact.attributes | said))
    world.catalogue.publish(artifact.video_id, artifact.version, artifact.revision)


@pytest.fixture(scope="module")
def city(tmp_path_factory: pytest.TempPathFactory) -> World:
    """Twelve videos on each of six topics, by three creators each."""
    world = World.at(tmp_path_factory.mktemp("city"))
    for topic in TOPICS:
        for place in range(12):
            creator = f"{topic} creator {place % CREATORS}"
            publish(world, f"{topic} {place}", topic, tags={topic: 1.0, f"{topic} {place % 4}": 0.4}, creator=creator)
    world.table.refresh()
    return world


def feed_of(
    world: World, events: Sequence[StoredEvent], k: int = 10, now: float = NOON, config: Ranking | None = None
) -> list[Recommendation]:
    feed = recommend(events, world.table, k, now, config)
    seen = {item.video_id for item in events}
    assert not seen & {item.video for item in feed}
    assert len({item.video for item in feed}) == len(feed)
    for item in feed:
        assert math.fsum(item.terms.values()) == item.score
    return feed


def topics(world: World, feed: Sequence[Recommendation]) -> list[str]:
    return [world.table.snapshot.rows[world.table.snapshot.row_of[item.video]].title.split()[0] for item in feed]


FIVE = [
    event("cooking 0", "view", 20.0, NOON - 50),
    event("cars 0", "skip", 1.0, NOON - 40),
    event("cooking 1", "view", 19.0, NOON - 30),
    event("cars 1", "skip", 0.5, NOON - 20),
    event("cooking 2", "view", 20.0, NOON - 10),
]


def test_who_finishes_cooking_and_skips_cars_has_a_cooking_feed_after_five_events(city: World) -> None:
    shown = topics(city, feed_of(city, FIVE))
    assert shown[:5] == ["cooking"] * 5
    assert shown.count("cooking") >= 7
    assert "cars" not in shown


def test_a_cooking_feed_is_not_all_cooking_and_says_so(city: World) -> None:
    feed = feed_of(city, FIVE, 8, config=Ranking(rules=FeedRules(window=8)))
    other = [item for item, topic in zip(feed, topics(city, feed), strict=True) if topic != "cooking"]
    assert other == feed[-1:]
    assert [rule["rule"] for rule in other[0].rules] == ["entropy"]
    free = Ranking(rules=FeedRules(least_bits=0, topic=10, creator=10))
    assert topics(city, feed_of(city, FIVE, 9, config=free)) == ["cooking"] * 9


def test_no_creator_takes_more_places_than_the_cap(city: World) -> None:
    events = [event(f"cooking {place}", "view", 20.0) for place in (0, 3, 6)]
    capped = Ranking(rules=FeedRules(creator=2, window=6, topic=6, least_bits=0))
    feed = feed_of(city, events, 12, config=capped)
    creators = [city.table.snapshot.rows[city.table.snapshot.row_of[item.video]].creator for item in feed]
    assert all(creators[start : start + 6].count(name) <= 2 for start in range(7) for name in creators)
    assert any(rule["rule"] == "cap_creator" for item in feed for rule in item.rules)


def test_no_sound_takes_more_places_than_the_cap(tmp_path: Path) -> None:
    world = World.at(tmp_path)
    for place in range(12):
        world.publish(
            f"dance {place}", "dance", creator=f"c {place}", sound="Last Summer" if place < 8 else f"s {place}"
        )
    world.table.refresh()
    capped = Ranking(rules=FeedRules(sound=2, window=4, topic=4, least_bits=0))
    feed = feed_of(world, [event("dance 0", "view", 20.0)], 6, config=capped)
    sounds = [world.table.snapshot.rows[world.table.snapshot.row_of[item.video]].sound for item in feed]
    assert all(sounds[start : start + 4].count("Last Summer") <= 2 for start in range(3))
    assert any(rule["rule"] == "cap_sound" for item in feed for rule in item.rules)


def test_who_changes_his_mind_gets_what_he_watches_now(city: World) -> None:
    old = [event(f"cooking {place}", "view", 20.0, NOON - 40 * DAY) for place in range(6)]
    new = [event(f"dance {place}", "view", 20.0, NOON - 600 + place) for place in range(4)]
    assert topics(city, feed_of(city, old))[:5] == ["cooking"] * 5
    shown = topics(city, feed_of(city, [*old, *new]))
    assert shown[:4] == ["dance"] * 4
    assert "cooking" in topics(city, feed_of(city, [*old, *new], 30))


class TestNotInterested:
    FAN = tuple(event(f"cars {place}", "view", 20.0, NOON - 100) for place in range(4))
    REFUSAL = event("cars 5", "not_interested", None, NOON)

    def test_the_very_next_feed_has_none_of_its_topic(self, city: World) -> None:
        assert topics(city, feed_of(city, self.FAN))[0] == "cars"
        for k in (1, 10, 40):
            assert "cars" not in topics(city, feed_of(city, [*self.FAN, self.REFUSAL], k))

    def test_whatever_diversity_and_cap_are_set(self, city: World) -> None:
        for method in ("mmr", "dpp", "off"):
            config = Ranking.model_validate({"diversity": {"method": method}, "rules": {"creator": 1}})
            assert "cars" not in topics(city, feed_of(city, [*self.FAN, self.REFUSAL], 20, config=config))

    def test_it_says_so(self, city: World) -> None:
        feed = feed_of(city, [*self.FAN, self.REFUSAL], 100)
        cars = [item for item, topic in zip(feed, topics(city, feed), strict=True) if topic == "cars"]
        assert len(cars) == 7
        for item in cars:
            refusal = next(rule for rule in item.rules if rule["rule"] == "refusal")
            assert refusal["video"] == video_id("cars 5")
            assert "topic" in refusal["through"]
            first = {"topic": "its topic is like that of", "look": "it looks like"}[refusal["through"][0]]
            assert refusal["text"] == f"Lowered: {first} “cars 5”, which you refused."
            assert refusal["effect"] == item.terms["refusal"] < 0

    def test_it_recovers_slowly(self, city: World) -> None:
        fan = [event(f"cars {place}", "favourite", None, NOON - 100) for place in range(4)]
        events = [*fan, self.REFUSAL]

        def lost(days: float) -> float:
            feed = feed_of(city, events, 100, NOON + days * DAY)
            return min(item.terms["refusal"] for item in feed)

        assert lost(30) == pytest.approx(lost(0) / 2)
        assert lost(60) == pytest.approx(lost(0) / 4)
        # He finishes one more, found by search: soon after the refusal that changes little, long after it is a taste.
        for days, most, least in ((2, 0, 0), (150, 10, 5)):
            again = event("cars 6", "view", 20.0, NOON + days * DAY)
            shown = topics(city, feed_of(city, [*events, again], 10, NOON + days * DAY))
            assert least <= shown.count("cars") <= most

    def test_others_are_not_touched(self, city: World) -> None:
        def alone(item: Recommendation) -> float:
            return item.score - item.terms["diversity"] - item.terms["rules"]

        before = {item.video: alone(item) for item in feed_of(city, [event("dogs 0", "like")], 100)}
        feed = feed_of(city, [event("dogs 0", "like"), self.REFUSAL], 100)
        for item, topic in zip(feed, topics(city, feed), strict=True):
            if topic == "dogs":
                assert item.terms["refusal"] == pytest.approx(0, abs=0.02)
                assert alone(item) == pytest.approx(before[item.video], abs=0.1)

    @pytest.mark.parametrize("alike", ["vision", "audio", "text"])
    def test_it_goes_by_look_sound_or_words_alone(self, world: World, alike: Modality) -> None:
        """Videos that share one modality with what was refused, and neither tags nor creator."""
        publish(world, "refused", "siren", tags={"siren": 1.0}, creator="one")
        about: dict[Modality, str] = {modality: f"own {modality}" for modality in ("vision", "audio", "text")}
        publish(world, "alike", "x", topics={**about, alike: "siren"}, tags={"x": 1.0}, creator="two")
        publish(world, "other", "y", topics={key: f"other {key}" for key in about}, tags={"y": 1.0}, creator="three")  # type: ignore[misc]
        world.table.refresh()
        feed = feed_of(world, [event("refused", "not_interested")])
        assert [item.video for item in feed] == [video_id("other"), video_id("alike")]
        refusal = next(rule for rule in feed[1].rules if rule["rule"] == "refusal")
        assert refusal["through"] == [{"vision": "look", "audio": "sound", "text": "words"}[alike]]
        how = {
            "vision": "it looks like",
            "audio": "it sounds like",
            "text": "its words are close in meaning to those of",
        }
        assert refusal["text"] == f"Lowered: {how[alike]} “refused”, which you refused."
        assert feed[1].terms["refusal"] < -1.5
        assert feed[0].terms["refusal"] > -0.3

    def test_it_goes_by_creator_alone(self, world: World) -> None:
        publish(world, "refused", "a", tags={"a": 1.0}, creator="one")
        publish(world, "same creator", "b", tags={"b": 1.0}, creator="one")
        publish(world, "other", "c", tags={"c": 1.0}, creator="two")
        publish(world, "nameless", "d", tags={"d": 1.0})
        world.table.refresh()
        feed = {item.video: item for item in feed_of(world, [event("refused", "report")])}
        assert feed[video_id("same creator")].terms["refusal"] == pytest.approx(-2.7)
        said = [rule["text"] for rule in feed[video_id("same creator")].rules if rule["rule"] == "refusal"]
        assert said == ["Lowered: by the same creator as “refused”, which you refused."]
        assert feed[video_id("other")].terms["refusal"] > -0.3
        assert list(feed)[-1] == video_id("same creator")

    def test_a_skip_is_no_refusal(self, city: World) -> None:
        feed = feed_of(city, [*self.FAN, event("cars 5", "skip", 0.2)])
        assert topics(city, feed)[:4] == ["cars"] * 4


class TestPlaces:
    @pytest.fixture
    def world(self, world: World) -> World:
        for region, language in (("DE", "de"), ("JP", "ja"), ("BR", "pt-BR")):
            for place in range(5):
                publish(world, f"{region} {place}", f"{region} {place}", region=region, language=language)
        world.table.refresh()
        return world

    def test_who_travels_gets_what_is_near(self, world: World) -> None:
        home = [event("DE 0", "view", 15.0, NOON - 9 * DAY, region="DE", language="de")]
        away = [event("BR 4", "view", 0.1, NOON, region="JP", language="de")]
        assert topics(world, feed_of(world, home, 3)) == ["DE"] * 3
        shown = topics(world, feed_of(world, [*home, *away], 5))
        assert shown.count("JP") >= 2
        assert "BR" not in shown
        said = feed_of(world, [*home, *away], 12)
        texts = [reason["text"] for item in said for reason in item.reasons if reason["kind"] == "region"]
        assert texts.count("From JP, where you are.") == 5
        assert not any("BR" in text for text in texts)

    def test_who_is_new_begins_with_region_and_language(self, world: World) -> None:
        where = Situation("JP", "ja-JP")
        feed = recommend([], world.table, 5, NOON, situation=where)
        assert topics(world, feed) == ["JP"] * 5
        assert {"region", "language", "new_viewer"} <= {reason["kind"] for reason in feed[0].reasons}
        assert topics(world, recommend([], world.table, 5, NOON, situation=Situation(language="pt"))) == ["BR"] * 5
        nobody = recommend([], world.table, 15, NOON, situation=Situation("XX", "xx"))
        assert all(item.terms["region"] == item.terms["language"] == 0 for item in nobody)


def test_who_follows_gets_the_creator_over_others_alike(city: World) -> None:
    events = [event("dogs 0", "view", 12.0), event("dogs 1", "follow")]
    feed = feed_of(city, events)
    followed = [item for item in feed if item.terms["followed_creator"] > 0]
    assert feed[0] in followed
    assert len(followed) == 3
    assert all("followed_creator" in [reason["kind"] for reason in item.reasons] for item in followed)


def test_a_small_creator_comes_before_a_large_one_among_equals(world: World) -> None:
    for place in range(9):
        publish(world, f"large {place}", "same", creator="large", noise=0.0, tags={})
    publish(world, "small", "same", creator="small", noise=0.0, tags={})
    world.table.refresh()
    flat = Ranking(weights=RankerConfig(freshness=0, diversity=0), rules=FeedRules(creator=10))
    feed = recommend([], world.table, 10, NOON, flat)
    assert feed[0].video == video_id("small")
    assert feed[0].terms["small_creator"] == pytest.approx(0.05)
    off = flat.model_copy(update={"objectives": flat.objectives.model_copy(update={"creator": 0.0})})
    assert all(item.terms["small_creator"] == 0 for item in recommend([], world.table, 10, NOON, off))


def test_what_safety_hides_is_in_no_feed(city: World) -> None:
    safe = Ranking(safety=Safety(hidden_tags=("cars", "no such tag"), hidden_creators=("dogs creator 1", "nobody")))
    for events in ([], FIVE):
        feed = recommend(events, city.table, 10_000, NOON, safe)
        rows = [city.table.snapshot.rows[city.table.snapshot.row_of[item.video]] for item in feed]
        assert not any("cars" in row.tags or row.creator == "dogs creator 1" for row in rows)
        assert {"dogs creator 0", "dogs creator 2"} <= {row.creator for row in rows}


class TestBadInput:
    @pytest.mark.parametrize("k", [0, -5])
    def test_k_below_one(self, city: World, k: int) -> None:
        with pytest.raises(InputError) as raised:
            recommend(FIVE, city.table, k, NOON)
        assert raised.value.code == "request.invalid"

    @pytest.mark.parametrize("now", [math.nan, math.inf, -math.inf])
    def test_a_time_that_is_none(self, city: World, now: float) -> None:
        with pytest.raises(InputError) as raised:
            recommend(FIVE, city.table, 5, now)
        assert raised.value.code == "request.invalid"

    def test_k_of_ten_thousand_gives_all_that_is_left(self, city: World) -> None:
        assert len(feed_of(city, FIVE, 10_000)) == 12 * len(TOPICS) - 5

    def test_all_seen_and_nothing_published(self, city: World, world: World) -> None:
        every = [event(f"{topic} {place}", "view", 20.0) for topic in TOPICS for place in range(12)]
        assert feed_of(city, every) == []
        world.table.refresh()
        assert feed_of(world, FIVE) == []
        assert recommend([], world.table, 5, NOON, situation=Situation("DE", "de")) == []

    def test_unknown_and_deleted_videos_in_a_profile(self, city: World, world: World) -> None:
        strange = event("nobody ever added this", "not_interested")
        assert topics(city, feed_of(city, [*FIVE, strange])) == topics(city, feed_of(city, FIVE))
        for name in ("kept", "deleted", "third"):
            publish(world, name, "same")
        world.table.refresh()
        profile = build([event("deleted", "like"), event("third", "not_interested")], world.table)
        for gone in ("deleted", "third"):
            Administration(world.catalogue).quarantine(video_id(gone), [], Actor("ana", "cli"))
        world.table.refresh()
        feed = recommend(profile, world.table, 5, NOON)
        assert [item.video for item in feed] == [video_id("kept")]
        assert not any("video" in reason for reason in feed[0].reasons)
        assert not feed[0].rules

    def test_a_clock_that_is_behind_the_events(self, city: World) -> None:
        assert topics(city, feed_of(city, FIVE, 10, NOON - 400 * DAY))[0] == "cooking"
