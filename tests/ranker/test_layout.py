"""The layout of a map: like things near each other, the same map each time, and any vectors whatever."""

from __future__ import annotations

import numpy as np
import pytest

from ranker.layout import clusters, components, laid_out, nearest
from store.records import Float32


def crowd(count: int, groups: int, seed: int = 1, spread: float = 0.6) -> tuple[Float32, np.ndarray]:
    """Unit vectors around so many directions, and the group of each."""
    numbers = np.random.default_rng(seed)
    middles = numbers.normal(size=(groups, 64))
    group = numbers.integers(0, groups, count)
    vectors = middles[group] + spread * numbers.normal(size=(count, 64))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32), group


def alike(places: np.ndarray, group: np.ndarray) -> float:
    """How often the nearest on the map is of the same group."""
    distances = ((places[:, None] - places[None, :]) ** 2).sum(-1)
    np.fill_diagonal(distances, np.inf)
    return float((group[distances.argmin(1)] == group).mean())


def test_what_is_alike_lies_near_where_two_components_cannot_tell() -> None:
    vectors, group = crowd(900, 30)
    places = laid_out(vectors)
    assert places.shape == (900, 2)
    assert places.min() >= 0
    assert places.max() <= 1
    assert alike(places, group) > 0.97
    assert alike(components(vectors, 2), group) < 0.8


def test_the_same_vectors_give_the_same_map() -> None:
    vectors, _ = crowd(200, 4)
    assert np.array_equal(laid_out(vectors), laid_out(vectors.copy()))


@pytest.mark.parametrize("count", [0, 1, 2, 3, 4, 13, 14])
def test_few_videos_have_their_places_too(count: int) -> None:
    places = laid_out(crowd(count, 2)[0])
    assert places.shape == (count, 2)
    assert np.isfinite(places).all()
    assert ((places >= 0) & (places <= 1)).all()


def test_videos_that_are_one_and_vectors_of_one_number() -> None:
    same = np.ones((40, 8), np.float32)
    places = laid_out(same)
    assert np.isfinite(places).all()
    assert len(np.unique(places, axis=0)) == 40, "each can be pointed at"
    assert np.isfinite(laid_out(np.linspace(0, 1, 30, dtype=np.float32)[:, None])).all()


def test_the_nearest_are_those_of_all_distances() -> None:
    points = np.random.default_rng(2).normal(size=(2_500, 5))  # more than a block
    found = nearest(points, 4)
    for row in (0, 1_023, 1_024, 2_499):
        distances = ((points - points[row]) ** 2).sum(1)
        distances[row] = np.inf
        assert set(found[row].tolist()) == set(np.argsort(distances)[:4].tolist())


def test_clusters_are_the_groups_that_were_planted_and_the_same_each_time() -> None:
    vectors, group = crowd(300, 5)
    of = clusters(components(vectors, 16), 5)
    pairs = set(zip(of.tolist(), group.tolist(), strict=True))
    assert len(pairs) == 5, "one to one"
    assert np.array_equal(of, clusters(components(vectors.copy(), 16), 5))
    same = clusters(np.ones((6, 2)), 3)
    assert set(same.tolist()) == {0}
    assert clusters(np.eye(2), 9).tolist() in ([0, 1], [1, 0])
