"""The vector index against brute force: exact where it says so, near by cells, never a row it may not show."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ranker import vector_index
from ranker.vector_cells import Cells, Mask
from ranker.vector_index import IndexKeeper, VectorIndex
from store.errors import PassingError
from store.records import Float32

ROWS = 30_000
WIDTH = 32


def units(generator: np.random.Generator, count: int, width: int = WIDTH) -> Float32:
    """Unit vectors around 50 topics, with the spectrum 1 / k."""
    spectrum = 1 / np.sqrt(np.arange(1, width + 1))
    topics = np.random.default_rng(1).standard_normal((50, width)) * spectrum
    drawn = topics[generator.integers(50, size=count)] + generator.standard_normal((count, width)) * spectrum
    return (drawn / np.linalg.norm(drawn, axis=1, keepdims=True)).astype(np.float32)


def brute(vectors: Float32, mask: Mask, query: Float32, k: int) -> list[int]:
    """The same question, one row at a time."""
    direction = query.astype(np.float64) / np.linalg.norm(query.astype(np.float64))
    direction = direction.astype(np.float32).astype(np.float64)
    cosines = np.einsum("nd,d->n", vectors.astype(np.float64), direction)
    return sorted(np.flatnonzero(mask).tolist(), key=lambda row: (-cosines[row], row))[:k]


@pytest.fixture(scope="module")
def vectors() -> Float32:
    return units(np.random.default_rng(2), ROWS)


@pytest.fixture(scope="module")
def cells(vectors: Float32) -> Cells:
    return Cells.build(vectors[: ROWS - 1000])


@given(
    seed=st.integers(0, 2**32 - 1),
    count=st.integers(1, 200),
    k=st.integers(1, 250),
    share=st.floats(0, 1),
    copies=st.booleans(),
)
@settings(max_examples=60, deadline=None)
def test_exact_is_brute_force(seed: int, count: int, k: int, share: float, copies: bool) -> None:
    generator = np.random.default_rng(seed)
    vectors = units(generator, count, 8)
    if copies:
        vectors = vectors[generator.integers(max(1, count // 3), size=count)]
    alive, allowed = generator.random(count) < 0.9, generator.random(count) < share
    queries = units(generator, 3, 8) * 7
    rows, cosines = VectorIndex(vectors, alive, None).search(queries, k, allowed)
    assert rows.shape == cosines.shape == (3, k)
    assert rows.dtype == np.int64
    assert cosines.dtype == np.float32
    for found, near, query in zip(rows, cosines, queries, strict=True):
        expected = brute(vectors, alive & allowed, query, k)
        assert found.tolist() == expected + [-1] * (k - len(expected))
        assert np.isneginf(near[len(expected) :]).all()
        assert (np.diff(near[: len(expected)]) <= 0).all()


def test_ties_go_by_row() -> None:
    vectors = np.repeat(units(np.random.default_rng(0), 1), 500, axis=0)
    rows, cosines = VectorIndex(vectors, np.ones(500, np.bool_)).search(vectors[:1], 5)
    assert rows[0].tolist() == [0, 1, 2, 3, 4]
    assert np.allclose(cosines, 1)


def test_nothing_to_find() -> None:
    empty = VectorIndex(np.zeros((0, 0), np.float32), np.zeros(0, np.bool_))
    rows, _ = empty.search(np.ones((2, 8), np.float32), 3)
    assert rows.tolist() == [[-1] * 3] * 2
    vectors = units(np.random.default_rng(0), 5)
    dead = VectorIndex(vectors, np.zeros(5, np.bool_))
    assert dead.search(vectors, 3)[0].max() == -1
    assert dead.search(vectors[:0], 3)[0].shape == (0, 3)


@pytest.mark.parametrize("value", [np.nan, np.inf, 0.0])
def test_what_is_no_direction_is_refused(value: float) -> None:
    vectors = units(np.random.default_rng(0), 5)
    index = VectorIndex(vectors, np.ones(5, np.bool_))
    query = np.full((1, WIDTH), 0.0, np.float32)
    query[0, 3] = value
    with pytest.raises(ValueError, match="finite"):
        index.search(query, 1)


def test_other_shapes_are_refused() -> None:
    vectors = units(np.random.default_rng(0), 5)
    index = VectorIndex(vectors, np.ones(5, np.bool_))
    for queries, k, allowed in (
        (vectors[0], 1, None),
        (units(np.random.default_rng(0), 2, WIDTH + 2), 1, None),
        (vectors, 0, None),
        (vectors, 1, np.ones(4, np.bool_)),
        (vectors, 1, np.ones(5, np.int64)),
    ):
        with pytest.raises(ValueError, match="must be"):
            index.search(queries, k, allowed)


def test_cells_find_what_is_near(vectors: Float32, cells: Cells) -> None:
    index = VectorIndex(vectors, np.ones(ROWS, np.bool_), cells)
    queries = units(np.random.default_rng(3), 50)
    rows, cosines = index.search(queries, 100)
    exact, exact_cosines = index.search(queries, 100, exactly=True)
    shared = [len(np.intersect1d(a, b)) / 100 for a, b in zip(rows, exact, strict=True)]
    assert np.mean(shared) > 0.95
    assert (rows != -1).all()
    # A row has the same cosine, to the last bit, whichever way it was found.
    known = dict(zip(exact[0].tolist(), exact_cosines[0].tolist(), strict=True))
    assert all(
        known[row] == near for row, near in zip(rows[0].tolist(), cosines[0].tolist(), strict=True) if row in known
    )


def test_rows_beside_the_cells_are_found(vectors: Float32, cells: Cells) -> None:
    index = VectorIndex(vectors, np.ones(ROWS, np.bool_), cells)
    newest = np.arange(ROWS - 20, ROWS)
    assert index.search(vectors[newest], 1)[0][:, 0].tolist() == newest.tolist()


@given(
    seed=st.integers(0, 2**32 - 1), share=st.sampled_from([0.95, 0.8, 0.7, 0.3, 0.01]), k=st.sampled_from([1, 10, 100])
)
@settings(max_examples=25, deadline=None)
def test_cells_never_show_what_they_may_not(vectors: Float32, cells: Cells, seed: int, share: float, k: int) -> None:
    generator = np.random.default_rng(seed)
    alive, allowed = generator.random(ROWS) < 0.98, generator.random(ROWS) < share
    rows, _ = VectorIndex(vectors, alive, cells).search(units(generator, 2), k, allowed)
    assert (rows >= 0).all()
    assert (alive & allowed)[rows].all()
    assert all(len(set(found)) == k for found in rows.tolist())


def test_a_filter_that_the_visited_cells_do_not_hold_falls_back(
    vectors: Float32, cells: Cells, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vector_index, "EXACT_ROWS", 10)
    monkeypatch.setattr(vector_index, "VISITED_CELLS", 1)
    # Only the farthest half is allowed, so the nearest cell holds little of it.
    query = vectors[:1]
    allowed = vectors @ query[0] < np.median(vectors @ query[0])
    index = VectorIndex(vectors, np.ones(ROWS, np.bool_), cells)
    rows, _ = index.search(query, 1000, allowed)
    assert (rows >= 0).all()
    assert allowed[rows].all()


def test_the_same_vectors_make_the_same_cells(vectors: Float32, tmp_path: Path) -> None:
    for name in ("a", "b"):
        Cells.build(vectors[:5000]).save(tmp_path / name, vectors)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_stored_cells_answer_alike_and_damage_is_noticed(vectors: Float32, cells: Cells, tmp_path: Path) -> None:
    file = tmp_path / "cells"
    cells.save(file, vectors)
    alive = np.ones(ROWS, np.bool_)
    expected = VectorIndex(vectors, alive, cells).search(vectors[:20], 50)[0]
    assert (VectorIndex(vectors, alive, Cells.load(file, vectors)).search(vectors[:20], 50)[0] == expected).all()
    whole = file.read_bytes()
    for place in (3, 40, len(whole) // 2, len(whole) - 1):
        file.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        with pytest.raises(PassingError) as caught:
            Cells.load(file, vectors)
        assert caught.value.code == "store.artifact_damaged"
    for cut in (0, 30, len(whole) - 5):
        file.write_bytes(whole[:cut])
        with pytest.raises(PassingError):
            Cells.load(file, vectors)


def test_extending_keeps_the_old_cells_as_they_were(vectors: Float32, cells: Cells) -> None:
    alive = np.ones(ROWS, np.bool_)
    before = VectorIndex(vectors[: cells.covered], alive[: cells.covered], cells)
    expected = before.search(vectors[:10], 20)[0]
    longer = cells.extended(vectors)
    assert (longer.covered, cells.covered) == (ROWS, ROWS - 1000)
    assert (before.search(vectors[:10], 20)[0] == expected).all()
    assert (VectorIndex(vectors, alive, longer).search(vectors[-5:], 1)[0][:, 0] == np.arange(ROWS - 5, ROWS)).all()


def test_the_keeper_searches_while_it_makes_and_stores_what_it_made(
    vectors: Float32, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vector_index, "CELLS_FROM", 10_000)
    monkeypatch.setattr(vector_index, "LONGEST_TAIL", 500)
    monkeypatch.setattr(vector_index, "EXACT_ROWS", 5_000)
    alive = np.ones(ROWS, np.bool_)
    keeper = IndexKeeper(tmp_path / "cells")
    first = keeper.index(vectors[:20_000], alive[:20_000])
    assert first.cells is None
    assert first.search(vectors[19_999:20_000], 1)[0][0, 0] == 19_999
    keeper.wait()
    assert keeper.changed
    second = keeper.index(vectors[:20_400], alive[:20_400])
    assert second.cells is not None
    assert second.cells.covered == 20_000
    assert not keeper.busy
    keeper.index(vectors[:21_000], alive[:21_000])
    keeper.wait()
    third = keeper.index(vectors[:21_000], alive[:21_000])
    assert third.cells is not None
    assert third.cells.covered == 21_000
    assert first.cells is None
    assert second.cells.covered == 20_000
    # Another start: no cells are learnt where the stored ones are those of these vectors.
    monkeypatch.setattr(Cells, "build", None)
    later = IndexKeeper(tmp_path / "cells")
    later.index(vectors[:21_100], alive[:21_100])
    later.wait()
    found = later.index(vectors[:21_100], alive[:21_100])
    assert found.cells is not None
    assert found.cells.trained == 20_000
    assert found.search(vectors[21_000:21_100], 1)[0][:, 0].tolist() == list(range(21_000, 21_100))


def test_stored_cells_of_other_vectors_are_not_used(vectors: Float32, tmp_path: Path) -> None:
    file = tmp_path / "cells"
    Cells.build(vectors[:5000]).save(file, vectors)
    keeper = IndexKeeper(file)
    assert keeper._stored(vectors[1:6000]) is None
    assert keeper._stored(vectors[:4000]) is None
    assert keeper._stored(vectors[:6000]) is not None


def test_threads_get_what_one_gets(vectors: Float32, cells: Cells) -> None:
    index = VectorIndex(vectors, np.ones(ROWS, np.bool_), cells)
    allowed = np.arange(ROWS) % 5 > 0
    expected = [index.search(vectors[place : place + 1], 30, allowed)[0] for place in range(40)]
    wrong: list[int] = []

    def ask() -> None:
        for place in range(40):
            if (index.search(vectors[place : place + 1], 30, allowed)[0] != expected[place]).any():
                wrong.append(place)

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
