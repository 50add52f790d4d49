"""Which queues administrators have paused."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from app.operations import ReelSense


def paused(reelsense: ReelSense) -> dict[str, bool]:
    """Which queues are paused. The one place that knows how pauses are kept; without that module none is."""
    from workers.stages import STAGES

    try:
        administration = importlib.import_module("store.administration")
    except ModuleNotFoundError:
        return {stage.queue: False for stage in STAGES}
    pauses = administration.Administration(reelsense.catalogue).pauses()
    return {stage.queue: stage.queue in pauses or stage.name in pauses for stage in STAGES}
