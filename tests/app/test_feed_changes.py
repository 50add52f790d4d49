"""How a feed answered, in places and in words."""

from __future__ import annotations

from app.feed_changes import Change, because, compare, sentence

TITLES = {name: name.upper() for name in "abcdef"}


def test_each_video_of_the_new_list_has_its_change() -> None:
    answer = compare(["a", "b", "c", "d"], ["c", "b", "e", "a", "f"])
    assert answer.changes == {
        "c": Change("up", 2), "b": Change("same"), "e": Change("new"), "a": Change("down", 3), "f": Change("more"),
    }  # fmt: skip
    assert answer.gone == ("d",)


def test_a_first_list_is_no_change() -> None:
    answer = compare([], ["a", "b"])
    assert {change.kind for change in answer.changes.values()} == {"more"}
    assert answer.gone == ()


def test_the_sentence_names_what_was_done_and_what_it_did() -> None:
    answer = compare(["a", "b", "c"], ["b", "e", "a"])
    assert sentence(answer, TITLES, because("skip", "Cars")) == (
        "You skipped “Cars”: “E” is new here; “B” moved up; “C” left."
    )
    assert sentence(compare(["a"], ["a"]), TITLES, because("like", "Cars")) == (
        "You liked “Cars”: what comes next stays as it is."
    )
    assert sentence(compare(["a"], ["b"]), TITLES, "") == "“B” is new here; “A” left."


def test_many_are_counted_and_what_has_no_title_too() -> None:
    answer = compare(["a", "x", "y", "z", "b"], [])
    assert sentence(answer, TITLES, "") == "“A”, “B” and 3 more left."
    assert sentence(compare(["x"], []), TITLES, "") == "1 video left."
    assert because("nothing", "Cars") == ""
    assert because("like", "x" * 100) == f"You liked “{'x' * 39}…”"
