"""Evaluation, item neighbours, similar viewers and walks, each held to a plain computation of the same."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from ranker.evaluation import best, difference, measure
from ranker.events import Event
from ranker.grouping import sampled
from ranker.interactions import Interactions
from ranker.item_item import ItemItemConfig, item_item, scores
from ranker.similar_viewers import SimilarViewers, SimilarViewersConfig
from ranker.walks import WalkConfig, Walks
from tests.ranker.builders import NOON, video_id


def some_interactions(seed: int, viewers: int = 12, videos: int = 9, share: float = 0.3) -> Interactions:
    stream = np.random.default_rng(seed)
    cells = np.argwhere(stream.random((viewers, videos)) < share)
    return Interactions.from_arrays(cells[:, 0], cells[:, 1], viewers, videos, stream.uniform(0.1, 2, len(cells)))


def of_pairs(pairs: list[tuple[int, int]], viewers: int, videos: int) -> Interactions:
    table = np.array(pairs, int).reshape(-1, 2)
    return Interactions.from_arrays(table[:, 0], table[:, 1], viewers, videos)


# --- evaluation ------------------------------------------------------------------------------------------------------


def test_an_oracle_reaches_one_and_random_k_of_n() -> None:
    stream = np.random.default_rng(0)
    held = sparse.csr_matrix((stream.random((3000, 100)) < 0.02).astype(np.float32))
    nothing = sparse.csr_matrix(held.shape, dtype=np.float32)
    oracle = measure(lambda viewers: held[viewers].toarray(), held, nothing).means()
    assert {oracle[f"{name}@20"] for name in ("recall", "ndcg", "hr")} == {1.0}
    guess = stream.random(held.shape)
    found = measure(lambda viewers: guess[viewers], held, nothing).means()
    assert found["recall@10"] == pytest.approx(0.1, abs=0.01)
    assert found["recall@20"] == pytest.approx(0.2, abs=0.012)
    assert found["coverage@10"] == 1.0


def test_random_ranks_only_what_was_not_seen() -> None:
    stream = np.random.default_rng(1)
    held = sparse.csr_matrix((stream.random((2000, 100)) < 0.03).astype(np.float32))
    seen = sparse.csr_matrix(((stream.random((2000, 100)) < 0.5) & (held.toarray() == 0)).astype(np.float32))
    guess = stream.random(held.shape)
    found = measure(lambda viewers: guess[viewers], held, seen).means()
    assert found["recall@10"] == pytest.approx(10 / 51.5, abs=0.015)


def test_ndcg_by_hand() -> None:
    held = sparse.csr_matrix(np.array([[0, 1, 0, 1, 0]], np.float32))
    found = measure(lambda _: np.array([[5.0, 4.0, 3.0, 2.0, 1.0]]), held, held * 0, (3,)).each
    assert found["ndcg@3"][0] == pytest.approx((1 / np.log2(3)) / (1 + 1 / np.log2(3)))
    assert found["recall@3"][0] == 0.5
    assert found["hr@3"][0] == 1.0


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_permuting_ids_changes_nothing(seed: int) -> None:
    stream = np.random.default_rng(seed)
    held, seen = stream.random((20, 30)) < 0.1, stream.random((20, 30)) < 0.2
    seen &= ~held
    guess = stream.permutation(600).reshape(20, 30).astype(np.float64)
    rows, columns = stream.permutation(20), stream.permutation(30)

    def means(held: np.ndarray, seen: np.ndarray, guess: np.ndarray) -> dict[str, float]:
        matrices = [sparse.csr_matrix(part.astype(np.float32)) for part in (held, seen)]
        return measure(lambda viewers: guess[viewers], *matrices, (5, 10)).means()

    moved = [part[rows][:, columns] for part in (held, seen, guess)]
    assert means(held, seen, guess) == pytest.approx(means(*moved), abs=2e-4)


def test_ties_go_to_the_lower_place_and_nothing_seen_is_listed() -> None:
    seen = sparse.csr_matrix(np.array([[0, 1, 0, 0]], np.float32))
    order, there = best(np.zeros((1, 4)), seen, 4)
    assert order[0][there[0]].tolist() == [0, 2, 3]


def test_nobody_to_measure() -> None:
    nothing = sparse.csr_matrix((3, 4), dtype=np.float32)
    assert measure(lambda viewers: np.zeros((len(viewers), 4)), nothing, nothing).means()["recall@10"] == 0.0


def test_a_clear_difference_has_an_interval_above_nothing() -> None:
    found = difference(np.full(100, 0.4), np.linspace(0.1, 0.3, 100))
    assert found["interval95"][0] > 0.15


# --- interactions ----------------------------------------------------------------------------------------------------


def acts(rows: list[tuple[str, str, str, float | None]]) -> list[Event]:
    return [
        Event.checked(user=user, video=video_id(video), kind=kind, watched_seconds=seconds, at=NOON + place, now=NOON)
        for place, (user, video, kind, seconds) in enumerate(rows)
    ]


def test_what_was_refused_after_all_is_no_interaction() -> None:
    durations = {video_id(name): 20.0 for name in ("a", "b")}
    events = acts([("ann", "a", "like", None), ("ann", "b", "view", 20.0), ("ann", "a", "report", None),
                   ("bob", "b", "skip", None), ("bob", "unknown", "like", None)])  # fmt: skip
    found = Interactions.from_events(events, durations)
    assert found.matrix.nnz == 1
    assert found.matrix[found.viewers["ann"], found.videos[video_id("b")]] == pytest.approx(20 / 23)
    assert video_id("unknown") not in found.videos


@settings(max_examples=40, deadline=None)
@given(
    rows=st.lists(
        st.tuples(st.sampled_from("abc"), st.sampled_from("xyz"), st.sampled_from(["like", "skip", "share"]))
    ),
    random=st.randoms(use_true_random=False),
)
def test_interactions_do_not_depend_on_the_order_of_events(rows: list[tuple[str, str, str]], random: object) -> None:
    durations = {video_id(name): 20.0 for name in "xyz"}
    events = acts([(*row, None) for row in rows])
    shuffled = list(events)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    one, other = Interactions.from_events(events, durations), Interactions.from_events(shuffled, durations)

    def cells(found: Interactions) -> dict[tuple[str, str], float]:
        names = list(found.viewers), list(found.videos)
        return {
            (names[0][row], names[1][column]): round(float(found.matrix[row, column]), 6)
            for row, column in zip(*found.matrix.nonzero(), strict=True)
        }

    assert cells(one) == cells(other)


def test_no_events_at_all() -> None:
    empty = Interactions.from_events([], {})
    assert empty.matrix.shape == (0, 0)
    assert item_item(empty).shape == (0, 0)
    assert len(Walks(empty).walk({}, 10).videos) == 0


# --- item neighbours and similar viewers -----------------------------------------------------------------------------


@pytest.mark.parametrize("shrinkage", [0.0, 3.0])
def test_item_neighbours_are_shrunk_cosines(shrinkage: float) -> None:
    dense = some_interactions(3).matrix.toarray().astype(np.float64)
    near = item_item(some_interactions(3), ItemItemConfig(neighbours=100, shrinkage=shrinkage)).toarray()
    lengths = np.linalg.norm(dense, axis=0)
    expected = dense.T @ dense / (np.outer(lengths, lengths) + shrinkage)
    np.fill_diagonal(expected, 0)
    assert near == pytest.approx(expected, abs=1e-6)
    history = some_interactions(4).matrix
    assert scores(item_item(some_interactions(3), ItemItemConfig(shrinkage=shrinkage)), history) == pytest.approx(
        history.toarray() @ expected, abs=1e-5
    )


def test_each_found_video_keeps_its_nearest_few() -> None:
    full = item_item(some_interactions(5), ItemItemConfig(neighbours=100)).toarray()
    few = item_item(some_interactions(5), ItemItemConfig(neighbours=2)).toarray()
    for column in range(full.shape[1]):
        kept = np.flatnonzero(few[:, column])
        assert sorted(kept) == sorted(
            place for place in np.argsort(-full[:, column], kind="stable")[:2] if full[place, column] > 0
        )
        assert few[kept, column] == pytest.approx(full[kept, column])


def test_similar_viewers_by_hand() -> None:
    crowd = of_pairs([(0, 0), (0, 1), (1, 0), (1, 2), (2, 3)], 3, 4)
    found = SimilarViewers(crowd, SimilarViewersConfig(shrinkage=0.0))
    columns, liked = found.found({0: 1.0, 1: 1.0})
    by_column = dict(zip(columns.tolist(), liked.tolist(), strict=True))
    assert by_column[0] == pytest.approx(1.0 + 0.5)
    assert by_column[2] == pytest.approx(0.5)
    assert 3 not in by_column
    itself = sparse.identity(3, format="csr", dtype=np.float32)
    without_himself = found.scores(crowd.matrix[:1], itself[:1])
    assert without_himself[0].tolist() == pytest.approx([0.5, 0, 0.5, 0])


# --- walks -----------------------------------------------------------------------------------------------------------


def plain_walk(crowd: Interactions, creators: np.ndarray, seeds: np.ndarray, config: WalkConfig) -> np.ndarray:
    """The formula of the module's docstring, dense."""

    def steps(cells: np.ndarray) -> np.ndarray:
        total = cells.sum(axis=1, keepdims=True)
        return np.where(total > 0, cells / np.where(total > 0, total, 1), 0) ** config.alpha

    liked = crowd.matrix.toarray().astype(np.float64).T
    once = sum(
        config.weights[kind] * steps(cells) @ steps(cells.T)
        for kind, cells in (("viewer", liked), ("creator", creators))
    )
    first = seeds / seeds.sum() @ once
    popular = np.maximum((liked > 0).sum(axis=1), 1)
    return np.asarray((first + config.second * first @ once) / popular**config.beta)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), alpha=st.sampled_from([0.7, 1.0]), second=st.sampled_from([0.0, 2.0]))
def test_walks_are_their_formula(seed: int, alpha: float, second: float) -> None:
    stream = np.random.default_rng(seed)
    crowd = some_interactions(seed)
    creators = np.eye(3)[stream.integers(3, size=9)]
    config = WalkConfig(alpha=alpha, second=second, beta=0.3, weights={"viewer": 1.0, "creator": 0.5})
    graph = Walks(crowd, {"creator": sparse.csr_matrix(creators.astype(np.float32))}, config)
    seeds = np.zeros(9)
    seeds[stream.permutation(9)[:3]] = stream.uniform(0.2, 1, 3)
    expected = plain_walk(crowd, creators, seeds, config)
    assert graph.scores(sparse.csr_matrix(seeds[None]))[0] == pytest.approx(expected, rel=1e-4, abs=1e-6)
    found = graph.walk({place: weight for place, weight in enumerate(seeds) if weight}, 9)
    left = expected * (seeds == 0)
    assert set(found.videos.tolist()) == set(np.flatnonzero(left > 0).tolist())
    assert found.scores == pytest.approx(left[found.videos], rel=1e-4)
    assert (np.diff(found.scores) <= 1e-12).all()


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_the_path_is_the_heaviest_there_is(seed: int) -> None:
    crowd = some_interactions(seed, share=0.25)
    graph = Walks(crowd, config=WalkConfig(second=0))
    out, back = graph.edges[0].out.toarray(), graph.edges[0].back.toarray()
    seeds = {0: 0.7, 1: 0.3}
    found = graph.walk(seeds, 9)
    for video in found.videos.tolist():
        path = found.path(video)
        (_, start), (kind, node), (_, end) = path
        assert (kind, end) == ("viewer", video)
        weight = seeds[start] * out[start, node] * back[node, video]
        heaviest = max(
            seeds[seed] * out[seed, middle] * back[middle, video]
            for seed, middle in itertools.product(seeds, range(out.shape[1]))
        )
        assert weight == pytest.approx(heaviest, rel=1e-5)
        assert weight > 0


def test_a_path_of_two_rounds_leads_from_a_seed_through_every_step() -> None:
    # 0 and 1 have a viewer in common, 1 and 2 have, 0 and 2 have not.
    crowd = of_pairs([(0, 0), (0, 1), (1, 1), (1, 2)], 2, 3)
    found = Walks(crowd).walk({0: 1.0}, 10)
    assert found.path(2) == (("video", 0), ("viewer", 0), ("video", 1), ("viewer", 1), ("video", 2))


def test_creators_reach_a_video_that_nobody_watched() -> None:
    crowd = of_pairs([(0, 0)], 1, 3)
    creators = sparse.csr_matrix(np.array([[1, 0], [0, 1], [1, 0]], np.float32))
    found = Walks(crowd, {"creator": creators}).walk({0: 1.0}, 10)
    assert found.videos.tolist() == [2]
    assert found.path(2) == (("video", 0), ("creator", 0), ("video", 2))


def test_a_sample_of_edges_is_even_and_bounded() -> None:
    full = sparse.csr_matrix(np.ones((3, 1000), np.float32))
    few = sampled(full, 100)
    assert np.diff(few.indptr).tolist() == [100, 100, 100]
    assert 350 < np.mean(few.indices) < 650
    assert sampled(full, None) is full
