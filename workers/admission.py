"""What a worker does with a message: a message says that work waits in a queue, the ledger says which.

Most messages name the run that is done. The others: a run whose stage is paused goes back untried; a run of a video in
quarantine ends; and where another video of the stage was given priority, that one goes first and the message's own run
waits for the message that the other does not need any more. So there are always as many messages as runs that wait
(but for what a broker loses, which the sweep finds).
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import structlog

from store.catalogue import Run, RunKey
from store.errors import PassingError
from workers.stages import BY_NAME

if TYPE_CHECKING:
    from workers.extraction import Encoders
    from workers.graph import Graph

log = structlog.get_logger()


def pause_names(stage: str) -> frozenset[str]:
    """The names under which a stage can be paused: its own, and its queue's."""
    return frozenset((stage, BY_NAME[stage].queue))


def run_message(graph: Graph, key: RunKey, encoders: Encoders) -> Run | None:
    """Run what a message asks for, as administrators have decided. The ledger's row of what ran; None when nothing did.

    Raises PassingError after handing the run back, so that the caller can try again later.
    """
    administration = graph.administration
    directions = administration.directions(key, pause_names(key.stage) if key.stage in BY_NAME else ())
    if directions.paused:
        administration.keep_unsent(key)
        log.info("stage is paused", stage=key.stage, video=key.video_id)
        return None
    if directions.quarantine is not None:
        administration.refuse(key, directions.quarantine)
        log.info("video is in quarantine", stage=key.stage, video=key.video_id)
        return None
    began = time.time()
    if directions.first is not None:
        administration.keep_unsent(key)
        run = graph.run(directions.first, encoders)
    else:
        run = graph.run(key, encoders)
    if _began_here(run, graph, began):
        return run
    # This message's work was done already, by a message that came before: it is free for a run that has none.
    for other in administration.take_unsent([key.stage], 1, key.version):
        try:
            run = graph.run(other, encoders)
        except PassingError:
            administration.keep_unsent(other)
            raise
    return run


def _began_here(run: Run | None, graph: Graph, began: float) -> bool:
    return run is not None and run.worker == graph.worker and (run.started_at or 0.0) >= began
