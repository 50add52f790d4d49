"""Tags: the match of all rows at once is that of each row by itself, and a rare tag counts for more."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ranker.tag_index import TagIndex, length, shares

weightings = st.dictionaries(st.sampled_from("abcdef"), st.floats(0, 3), max_size=5)


@given(st.lists(weightings, min_size=1, max_size=12), weightings, st.integers(0, 12))
def test_all_rows_at_once_match_as_each_row_alone(
    rows: list[dict[str, float]], wanted: dict[str, float], seen: int
) -> None:
    index = TagIndex()
    for tags in rows:
        index.add(tags)
    count = min(seen, len(rows))
    found = index.matches(wanted, count)
    alone = [sum(shares(wanted, length(wanted), tags, index).values()) for tags in rows[:count]]
    assert np.allclose(found, alone, atol=1e-12)
    assert all(-1e-12 <= match <= 1 + 1e-12 for match in alone)


def test_a_rare_tag_counts_for_more_than_a_common_one() -> None:
    index = TagIndex()
    for place in range(9):
        index.add({"common": 1.0, "rare": 1.0} if place == 0 else {"common": 1.0})
    assert index.rarity("rare") == 1.0
    assert index.rarity("common") == pytest.approx(math.log(2) / math.log(10))
    assert index.rarity("never seen") == 0.0
    found = shares({"common": 1.0, "rare": 1.0}, math.sqrt(2), {"common": 1.0, "rare": 1.0}, index)
    assert list(found) == ["rare", "common"]


def test_a_tag_that_is_all_of_both_and_rare_matches_fully() -> None:
    index = TagIndex()
    for tag in "abc":
        index.add({tag: 0.2})
    assert index.matches({"b": 7.0}, 3).tolist() == pytest.approx([0.0, 1.0, 0.0])


def test_a_row_that_was_replaced_does_not_count_for_rarity() -> None:
    once, again = TagIndex(), TagIndex()
    for tags in ({"dog": 1.0}, {"cat": 1.0}, {"dog": 0.5, "path": 1.0}):
        once.add(tags)
        again.add(tags)
    for _ in range(3):
        again.replace(again.rows - 1, {"dog": 0.5, "path": 1.0})
        again.add({"dog": 0.5, "path": 1.0})
    for tag in ("dog", "cat", "path", "none"):
        assert again.rarity(tag) == once.rarity(tag)
