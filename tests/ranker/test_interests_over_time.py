"""The picture of a viewer's interests over time."""

from __future__ import annotations

import json

import pytest

from ranker.interests_over_time import MOST_POINTS, profile_over_time
from ranker.profiles import LONG_HALF_LIFE_SECONDS, build
from store.errors import InputError
from tests.ranker.builders import NOON, World

DAY = 86_400.0


def test_interests_grow_and_fade(tastes: World) -> None:
    for place in range(4):
        tastes.happens("ana", f"cooking {place}", "like", at=NOON - 2 * LONG_HALF_LIFE_SECONDS + place)
        tastes.happens("ana", f"cars {place}", "like", at=NOON - place)
    tastes.enter("never published")
    events = tastes.happens("ana", "never published", "like")
    document = profile_over_time(events, tastes.table, 5)
    assert json.loads(json.dumps(document, allow_nan=False)) == document
    assert [interest["tags"][0] for interest in document["interests"]] == ["cars", "cooking"]
    cars, cooking = (interest["mass"] for interest in document["interests"])
    assert document["at"][0] == events[0].at
    assert document["at"][-1] == NOON
    assert cooking[0] == 1.0
    assert cooking[1] == pytest.approx(4 * 0.5**0.5, rel=1e-3)
    assert cooking[-1] == pytest.approx(1.0, rel=1e-3)
    assert cars[:-1] == [0.0, 0.0, 0.0, 0.0]
    profile = build(events, tastes.table)
    assert [cars[-1], cooking[-1]] == pytest.approx([interest.mass for interest in profile.interests], abs=1e-6)
    assert sum(column[-1] for column in (cars, cooking, document["other"])) == pytest.approx(
        profile.long_mass, abs=1e-5
    )


def test_points_are_bounded_and_nobody_has_none(tastes: World) -> None:
    for points in (1, MOST_POINTS + 1):
        with pytest.raises(InputError) as raised:
            profile_over_time([], tastes.table, points)
        assert raised.value.code == "request.invalid"
    assert profile_over_time([], tastes.table, 9) == {"at": [], "interests": [], "other": []}
    events = tastes.happens("ana", "cars 0", "skip")
    assert profile_over_time(events, tastes.table, 3)["interests"] == []
