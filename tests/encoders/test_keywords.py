"""Keywords: what a person would underline, in English and without harm elsewhere."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from encoders.keywords import content_words, keywords, language_of
from encoders.stop_words import STOP_WORDS
from store.records import TextPiece, TextSource

RECIPE = (
    "Today we are going to bake a sourdough bread. First you take the sourdough starter and the flour. "
    "The sourdough starter needs to be warm, and so does the water. Don't forget the salt!"
)


def said(text: str, source: TextSource = "transcript") -> TextPiece:
    return TextPiece(source=source, text=text)


def test_what_comes_back_ranks_first_and_function_words_never() -> None:
    found = keywords([said(RECIPE)])
    assert "sourdough" in found[0]
    assert "sourdough starter" in found[:4]
    assert {"flour", "salt", "water"} <= set(found)
    words = {word for phrase in found for word in phrase.split()}
    assert not words & STOP_WORDS["en"]


@pytest.mark.parametrize(
    "text",
    [
        "Although he went away, although she went away",
        "Thy light and thine, thou and thee",
        "Ich suche jemanden, für jemanden",
        "Busco a alguien y alguien a mí",
        "Rencontrer quelqu'un et quelqu'un",
    ],
)
def test_pronouns_and_conjunctions_are_no_keywords(text: str) -> None:
    found = {word for phrase in keywords([said(text)]) for word in phrase.split()}
    assert not found & {"although", "away", "thy", "thine", "thou", "thee", "jemanden", "alguien", "quelqu"}


def test_a_title_outweighs_a_sentence() -> None:
    pieces = [said("the plow pulls the plow along the field"), said("Vintage tractor", "title")]
    assert keywords(pieces)[0] == "vintage tractor"
    assert keywords(pieces, k=1) == ["vintage tractor"]


def test_a_keyword_adds_something_to_those_before_it() -> None:
    found = keywords([said("movable metal letters and movable metal letters; letters of metal", "title")])
    assert found == ["movable metal letters"]


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("Heute backen wir ein Brot. Der Sauerteig muss warm sein, und das Mehl für den Sauerteig auch.", "sauerteig"),
        ("Nous allons faire du pain au levain: le levain doit être chaud et la farine aussi.", "levain"),
        ("Hoy vamos a hacer pan con masa madre, y la masa madre tiene que estar caliente.", "masa madre"),
    ],
)
def test_other_listed_languages(text: str, wanted: str) -> None:
    assert keywords([said(text)])[0] == wanted


def test_an_unknown_language_is_asked_for_its_title_alone() -> None:
    russian = (
        "Сегодня мы будем печь хлеб и это очень просто потому что мы это уже делали и мы это знаем и нам это нужно"
    )
    assert keywords([said(russian)]) == []
    assert keywords([said(russian), said("Домашний хлеб", "title")]) == ["домашний хлеб"]


def test_words_with_marks_stay_whole_and_unspaced_scripts_give_none() -> None:
    assert keywords([said("हिन्दी भाषा", "title")]) == ["हिन्दी भाषा"]
    assert keywords([said("한국 음식", "title")]) == ["한국 음식"]
    assert keywords([said("今日はラーメンを作ります", "title")]) == []
    assert len(content_words("今日はラーメンを作ります")) == 6


def test_a_language_is_told_by_its_function_words_or_not_at_all() -> None:
    assert language_of(RECIPE) == "en"
    assert (
        language_of("Nous allons faire du pain au levain: le levain doit être chaud et la farine aussi, " * 2) == "fr"
    )
    assert language_of("bread and water") is None
    assert language_of("Сегодня мы будем печь хлеб и это очень просто потому что мы это уже делали " * 3) is None
    assert language_of("") is None


@given(
    st.lists(st.builds(TextPiece, source=st.sampled_from(["title", "caption"]), text=st.text(max_size=60)), max_size=6)
)
def test_any_text_gives_at_most_k_distinct_keywords(pieces: list[TextPiece]) -> None:
    found = keywords(pieces, k=3)
    assert len(found) == len(set(found)) <= 3
    assert found == keywords(pieces, k=3) == keywords(pieces)[: len(found)]
    assert all(phrase.strip() for phrase in found)
