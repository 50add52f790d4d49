"""BPR: triples never set a video that the viewer had against another, and the hardest draw is the one learnt from."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ranker.models.bpr import BprConfig, _had, _loss, _Network
from ranker.models.model import make_model
from store.errors import InputError
from tests.ranker.planted_factors import VIDEOS, VIEWERS, planted


def test_what_a_viewer_had_is_told_from_what_he_had_not() -> None:
    log = planted().log
    pairs = log.binary.tocoo()
    keys = pairs.row.astype(np.int64) * log.n_videos + pairs.col
    viewers = np.arange(VIEWERS + 1)
    drawn = torch.arange(VIDEOS + 1).expand(VIEWERS + 1, -1)
    assert (_had(keys, viewers, drawn, log).numpy() == (log.binary.toarray() > 0)).all()


def test_the_loss_by_hand() -> None:
    network = _Network(1, 4, 2, seed=0)
    chosen = BprConfig(l2=0.1, l2_bias=0.0, draws=3)
    own = network.viewers[torch.tensor([0, 0])]
    drawn = torch.tensor([[1, 2, 3], [2, 2, 2]])
    had = torch.tensor([[False, False, False], [True, True, True]])
    found = float(_loss(network, own, torch.tensor([0, 0]), drawn, had, chosen).detach())
    p, q = network.viewers[0].detach().numpy(), network.videos.detach().numpy()
    hardest = 1 + int(np.argmax(q[1:] @ p))
    # The second triple has nothing to stand against, and counts nothing.
    expected = np.log1p(np.exp(-(p @ (q[0] - q[hardest])))) + 0.1 * (p @ p + q[0] @ q[0] + q[hardest] @ q[hardest])
    assert found == pytest.approx(expected, rel=1e-5)


def test_settings_that_it_does_not_have() -> None:
    with pytest.raises(InputError) as caught:
        make_model("bpr", {"layers": 2})
    assert caught.value.code == "request.invalid"
