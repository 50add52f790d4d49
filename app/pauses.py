"""Which queues administrators have paused."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from app.operations import ReelSense


def paused(reelsense: ReelSense) -> dict[str, bool]:
    """Whether each queue is paused, by its own name or by that of its stage."""
    from workers.stages import STAGES

    pauses = reelsense.graph.administration.pauses()
    return {stage.queue: stage.queue in pauses or stage.name in pauses for stage in STAGES}
