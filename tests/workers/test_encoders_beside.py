"""Encoders by two sets of settings in one process: an encoder on which they agree is there once, old ones go."""

from __future__ import annotations

from pathlib import Path

import pytest

from store.overrides import overridden
from store.settings import load_settings
from workers.extraction import KEPT_SETTINGS, Encoders

pytestmark = pytest.mark.models


def test_settings_that_agree_on_an_encoder_share_it(tmp_path: Path) -> None:
    base = load_settings(data=tmp_path)
    encoders = Encoders(base)
    assert encoders.of(base) is encoders
    other = encoders.of(overridden(base, {"frames": 3}))
    assert other is not encoders
    assert other.get("appearance") is encoders.get("appearance")
    assert other.of(base) is encoders


def test_at_most_two_sets_are_kept(tmp_path: Path) -> None:
    base = load_settings(data=tmp_path)
    encoders = Encoders(base)
    loaded = encoders.get("appearance")
    sets = [overridden(base, {"frames": number}) for number in (3, 4, 5)]
    for settings in sets:
        assert encoders.of(settings).get("appearance") is loaded, "passed on, and not loaded again"
    assert len(encoders._kept) == KEPT_SETTINGS
    assert encoders._loaded == {}, "of the one that went nothing is kept"
    assert encoders.of(base).get("appearance") is loaded, "it came back, by another that had it"
