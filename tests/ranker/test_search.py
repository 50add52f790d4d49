"""Search by meaning and by words."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from ranker.phrase_index import words_of
from ranker.search import Hit, search
from store.errors import InputError
from store.records import Float32, Phrase
from tests.ranker.builders import WIDTHS, World, direction, video_id

WIDTH = WIDTHS["text"]


def phrase(text: str, source: str = "transcript", start: float = 0.0, weight: float = 1.0) -> Phrase:
    return Phrase(source=source, text=text, start=start, end=start + 5, weight=weight)


def meaning(*texts: str, noise: float = 0.5) -> Float32:
    """A query that means what the phrases mean, in other words."""
    total = sum(direction(text, WIDTH) for text in texts) + noise * direction("other words", WIDTH)
    return (total / np.linalg.norm(total)).astype(np.float32)


@pytest.fixture
def library(world: World) -> World:
    world.publish("pasta", "cooking", tags={"kitchen": 1.0}, phrases=[
        phrase("boil the water", start=2), phrase("add salt", start=8), phrase("carbonara", "label", 3, 0.25),
    ])  # fmt: skip
    world.publish("engine", "cars", tags={"garage": 1.0}, phrases=[
        phrase("change the oil", start=1), phrase("torque of ninety newton", start=11),
    ])  # fmt: skip
    world.publish("Straße nach Köln", "road", tags={}, phrases=[phrase("driving north")])
    world.publish("mute", "clouds", tags={}, title="", phrases=[])
    world.table.refresh()
    return world


def names(world: World, hits: list[Hit]) -> list[str]:
    return [world.table.get(hit.video).attributes.title for hit in hits]


def test_meaning_finds_what_other_words_ask_for(library: World) -> None:
    hits = search(library.table, "heat up a pot", meaning("boil the water"), 10)
    assert names(library, hits)[0] == "pasta"
    assert hits[0].score > 2 * hits[1].score
    assert hits[0].match is not None
    assert (hits[0].match.text, hits[0].match.source, hits[0].match.start) == ("boil the water", "transcript", 2.0)


def test_words_find_what_no_encoder_knows(library: World) -> None:
    hits = search(library.table, "torque ninety", direction("nothing known", WIDTH), 10)
    assert names(library, hits)[0] == "engine"
    assert hits[0].terms["lexical"] > 0.1
    assert hits[0].match is not None
    assert (hits[0].match.text, hits[0].match.start) == ("torque of ninety newton", 11.0)


@pytest.mark.parametrize("query", ["strasse", "STRASSE", "Straße", "köln", "KÖLN", "ko\u0308ln"])
def test_words_are_compared_without_case_and_composition(library: World, query: str) -> None:
    hits = search(library.table, query, direction("nothing known", WIDTH), 10)
    assert names(library, hits)[0] == "Straße nach Köln"


@pytest.mark.parametrize(("query", "title"), [("garage", "engine"), ("pasta", "pasta")])
def test_tags_and_titles_are_words_too(library: World, query: str, title: str) -> None:
    hits = search(library.table, query, direction("nothing known", WIDTH), 10)
    assert names(library, hits)[0] == title


def test_what_has_nothing_to_do_with_it_scores_low_and_comes_last(library: World) -> None:
    hits = search(library.table, "add salt", direction("add salt", WIDTH), 10)
    assert len(hits) == 4
    assert hits[0].score > 0.7
    assert all(hit.score < 0.3 for hit in hits[1:])
    mute = next(hit for hit in hits if hit.video == video_id("mute"))
    assert mute.score == 0
    assert mute.match is None


def test_terms_add_up_and_scores_fall_within_zero_and_one(library: World) -> None:
    hits = search(library.table, "change the water", meaning("boil the water", "change the oil"), 10)
    for hit in hits:
        assert set(hit.terms) == {"semantic", "lexical"}
        assert math.isclose(math.fsum(hit.terms.values()), hit.score, rel_tol=1e-9, abs_tol=1e-12)
        assert 0 <= hit.score <= 1
        assert json.loads(json.dumps(hit.as_json(), allow_nan=False)) == hit.as_json()
    assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)
    assert [hit.video for hit in search(library.table, "change the water", meaning("boil the water"), 2)] == [
        hit.video for hit in search(library.table, "change the water", meaning("boil the water"), 10)
    ][:2]


def test_an_unsure_label_counts_for_less_than_spoken_words(world: World) -> None:
    world.publish("shown", "one", tags={}, phrases=[phrase("a red kite", "label", weight=0.2)])
    world.publish("said", "two", tags={}, phrases=[phrase("a red kite")])
    world.table.refresh()
    hits = search(world.table, "something", direction("a red kite", WIDTH), 2)
    assert names(world, hits) == ["said", "shown"]
    assert hits[1].terms["semantic"] == pytest.approx(hits[0].terms["semantic"] * math.sqrt(0.2), rel=1e-5)


def test_a_rare_word_counts_for_more_than_a_common_one(world: World) -> None:
    for place in range(8):
        world.publish(f"video {place}", "one", tags={}, title="", phrases=[phrase(f"the usual words {place}")])
    world.publish("rare", "two", tags={}, title="", phrases=[phrase("some axolotl here")])
    world.table.refresh()
    hits = search(world.table, "usual axolotl", direction("nothing known", WIDTH), 9)
    assert hits[0].video == video_id("rare")


def test_words_without_meaning_of_their_own_do_not_match(library: World) -> None:
    hits = search(library.table, "the torque", direction("nothing known", WIDTH), 10)
    by_name = dict(zip(names(library, hits), hits, strict=True))
    assert by_name["pasta"].terms["lexical"] == 0
    only = search(library.table, "the", direction("nothing known", WIDTH), 10)
    assert max(hit.terms["lexical"] for hit in only) > 0


def test_new_videos_and_new_words_are_found_without_a_restart(library: World) -> None:
    assert search(library.table, "zeppelin", direction("nothing known", WIDTH), 1)[0].terms["lexical"] == 0
    library.publish("airship", "sky", tags={}, phrases=[phrase("a zeppelin lands")])
    library.publish("pasta", "cooking", tags={}, title="rice", revision="b" * 16, phrases=[phrase("steam the rice")])
    library.table.refresh()
    assert search(library.table, "zeppelin", direction("nothing known", WIDTH), 1)[0].video == video_id("airship")
    hits = search(library.table, "carbonara", direction("nothing known", WIDTH), 10)
    assert len(hits) == 5
    assert all(hit.terms["lexical"] == 0 for hit in hits)
    assert search(library.table, "rice", direction("nothing known", WIDTH), 1)[0].video == video_id("pasta")


def test_scripts_without_spaces_are_compared_by_pairs_of_signs() -> None:
    assert words_of("東京タワー tower") == ["東京", "京タ", "タワ", "ワー", "tower"]
    assert words_of("猫") == ["猫"]
    assert words_of("Ｃafé, IT'S 42!") == ["café", "it", "s", "42"]


@pytest.mark.parametrize(("query", "k"), [("", 3), ("   ", 3), ("word", 0), ("word", -1)])
def test_impossible_requests_are_refused(library: World, query: str, k: int) -> None:
    with pytest.raises(InputError) as raised:
        search(library.table, query, direction("word", WIDTH), k)
    assert raised.value.code == "request.invalid"


@pytest.mark.parametrize(
    "embedding",
    [np.zeros(WIDTH, np.float32), np.full(WIDTH, np.nan, np.float32), np.ones(WIDTH + 1, np.float32)],
    ids=["zero", "nan", "wide"],
)
def test_an_embedding_that_is_none_is_refused(library: World, embedding: Float32) -> None:
    with pytest.raises(ValueError, match="query"):
        search(library.table, "word", embedding, 3)


def test_an_empty_catalogue_finds_nothing(world: World) -> None:
    assert search(world.table, "word", direction("word", WIDTH), 3) == []
