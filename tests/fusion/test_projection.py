"""The fixed projections: the same everywhere, and keeping inner products."""

from __future__ import annotations

import hashlib

import numpy as np
import numpy.typing as npt
import pytest

from fusion.projection import projection


def unit_rows(count: int, width: int, seed: int) -> npt.NDArray[np.float64]:
    rows = np.random.default_rng(seed).standard_normal((count, width))
    unit: npt.NDArray[np.float64] = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return unit


def test_the_matrix_is_pinned_bit_for_bit() -> None:
    # Computed once from integers alone: a change here is a change of every stored vector.
    found = {
        (name, width): hashlib.sha256(projection(name, width, 256, 0).tobytes()).hexdigest()[:16]
        for name, width in (("vision", 1280), ("audio", 100), ("text", 384))
    }
    assert found == PINNED


PINNED = {
    ("vision", 1280): "044e4c7214a84a77",
    ("audio", 100): "5cc579ac53fec18b",
    ("text", 384): "7e42a1f4ff8a4c9a",
}


def test_entries_are_plus_or_minus_one_sixteenth() -> None:
    assert set(np.unique(projection("vision", 1280, 256, 0)).tolist()) == {-1 / 16, 1 / 16}


@pytest.mark.parametrize("width", [1, 5, 100, 256])
def test_narrow_embeddings_keep_inner_products_exactly(width: int) -> None:
    matrix = projection("audio", width, 256, 0).astype(np.float64)
    assert np.allclose(matrix @ matrix.T, np.eye(width), atol=1e-12)


@pytest.mark.parametrize("width", [384, 1280])
def test_wide_embeddings_keep_inner_products_nearly(width: int) -> None:
    rows = unit_rows(300, width, 1)
    projected = rows @ projection("vision", width, 256, 0)
    error = projected @ projected.T - rows @ rows.T
    # Johnson and Lindenstrauss: sqrt(1 / 256) is 0.0625.
    assert error.std() < 0.07
    assert abs(error.mean()) < 0.005


def test_modalities_do_not_speak_to_each_other() -> None:
    rows = unit_rows(300, 384, 2)
    crossed = (rows @ projection("text", 384, 256, 0)) @ (rows @ projection("vision", 384, 256, 0)).T
    assert crossed.std() < 0.07
    assert abs(np.diag(crossed)).mean() < 0.1


def test_seed_and_modality_choose_the_matrix() -> None:
    first = projection("text", 384, 256, 0)
    assert not np.array_equal(first, projection("text", 384, 256, 1))
    assert not np.array_equal(first, projection("vision", 384, 256, 0))


@pytest.mark.parametrize(("width", "dim"), [(0, 256), (10, 0), (10, 100)])
def test_impossible_sizes_are_refused(width: int, dim: int) -> None:
    with pytest.raises(ValueError, match="power of two"):
        projection("text", width, dim, 0)


def test_the_matrix_cannot_be_written_to() -> None:
    with pytest.raises(ValueError, match="read-only"):
        projection("text", 384, 256, 0)[0, 0] = 1
