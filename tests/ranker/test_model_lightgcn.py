"""LightGCN held to a plain computation of the paper's equations."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import sparse

from ranker.models.factors import watched
from ranker.models.lightgcn import LightGcn, _edges, _Network
from ranker.models.ranking_loss import softmax_loss, sparse_sum
from tests.ranker.planted_factors import VIDEOS, VIEWERS, planted


@pytest.mark.parametrize("layers", [1, 2, 3])
def test_scores_are_products_of_the_mean_of_all_layers(layers: int) -> None:
    data = planted()
    model = LightGcn(dim=4, layers=layers, epochs=1)
    network = _Network(VIEWERS + 1, VIDEOS + 1, 4, seed=3)
    model._take(network, data, _edges(data.log))
    graph = np.zeros((VIEWERS + VIDEOS + 2,) * 2)
    graph[: VIEWERS + 1, VIEWERS + 1 :] = data.log.binary.toarray()
    graph += graph.T
    degrees = np.maximum(graph.sum(axis=1), 1)
    graph /= np.sqrt(degrees[:, None] * degrees)
    layer = np.concatenate([network.viewers.detach().numpy(), network.videos.detach().numpy()]).astype(np.float64)
    total = layer.copy()
    for _ in range(layers):
        layer = graph @ layer
        total += layer
    total /= layers + 1
    expected = total[:VIEWERS] @ total[VIEWERS + 1 :].T
    # The video that nobody had gets the floor instead.
    found = model.score(data.log, np.arange(VIEWERS))[:, :VIDEOS]
    assert found == pytest.approx(expected[:, :VIDEOS], abs=1e-6)


def test_gradients_of_the_sparse_sum() -> None:
    matrix = planted().log.binary.tocsr()
    dense = torch.randn(VIDEOS + 1, 3, requires_grad=True)
    weights = torch.randn(VIEWERS + 1, 3)
    (sparse_sum(matrix, dense) * weights).sum().backward()  # type: ignore[no-untyped-call]
    expected = torch.from_numpy(matrix.toarray()).T @ weights
    assert dense.grad is not None
    assert torch.allclose(dense.grad, expected, atol=1e-5)


def test_the_softmax_loss_by_hand_and_by_a_sample() -> None:
    torch.manual_seed(0)
    data = planted()
    vectors, videos, bias = torch.randn(VIEWERS + 1, 4), torch.randn(VIDEOS + 1, 4), torch.randn(VIDEOS + 1)
    targets, seen = data.log.binary, data.seen_videos
    scores = (vectors @ videos.T + bias)[:, torch.from_numpy(seen)]
    wanted = torch.from_numpy(targets.toarray())[:, torch.from_numpy(seen)]
    expected = -float((wanted * torch.log_softmax(scores, dim=1)).sum())
    assert float(softmax_loss(vectors, videos, bias, targets, seen, 1000)) == pytest.approx(expected, rel=1e-5)
    drawn = [float(softmax_loss(vectors, videos, bias, targets, seen, 29)) for _ in range(200)]
    # A positive that is not drawn counts besides those that are: a little too much, never far off.
    assert np.mean(drawn) == pytest.approx(expected, rel=0.1)


@pytest.mark.parametrize("most", [1000, 29])
def test_what_was_given_does_not_compete(most: int) -> None:
    data = planted()
    vectors, videos, bias = torch.zeros(1, 4), torch.zeros(VIDEOS + 1, 4), torch.zeros(VIDEOS + 1)
    # All of equal score, and one alone is not given: nothing stands against the target but itself.
    target = sparse.csr_matrix(np.eye(VIDEOS + 1, dtype=np.float32)[[2]])
    given = sparse.csr_matrix(1 - np.eye(VIDEOS + 1, dtype=np.float32)[[2]])
    torch.manual_seed(1)
    alone = float(softmax_loss(vectors, videos, bias, target, data.seen_videos, most, given))
    among = float(softmax_loss(vectors, videos, bias, target, data.seen_videos, most))
    assert alone < np.log(4)
    assert among > np.log(VIDEOS / 2)


def test_a_history_has_length_one() -> None:
    rows = watched(planted().log, np.array([0, 1, VIEWERS, 500]))
    assert np.asarray(rows.multiply(rows).sum(axis=1)).ravel() == pytest.approx([1, 1, 0, 0], abs=1e-6)
