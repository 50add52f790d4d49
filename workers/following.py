"""What the parent process of a worker does for administrators: now and then it reads what they decided, takes from the
queues that are not paused, leaves when it is asked to, and says how it is.

It follows the database and not messages, so a decision holds for a worker that starts later, after a restart, and after
a broker that lost everything; Celery's own `cancel_consumer`, `pool_grow` and `shutdown` are forgotten by then. What
they call is called here. The remote control command `follow_administration` only makes a worker look at once.
"""

from __future__ import annotations

import contextlib
import os
import socket
import time
from typing import Any

import psutil  # type: ignore[import-untyped]
import structlog
from celery import Celery, bootsteps
from celery.signals import worker_shutdown
from celery.worker import state as worker_state
from celery.worker.control import control_command

from store.errors import PassingError
from store.settings import Settings
from store.worker_registry import Orders, Registration, WorkerRow, WorkerState
from workers.stages import STAGES

LOOK_SECONDS = 2.0
ANNOUNCE_SECONDS = 6.0
# A database that does not answer must not hold up the messages of a worker each two seconds.
AFTER_ERROR_SECONDS = 15.0
log = structlog.get_logger()


class Following:
    """One worker that follows the administration. `queues` are those it was started for."""

    def __init__(self, settings: Settings, name: str, queues: list[str]) -> None:
        self.settings = settings
        self.queues = queues
        self.registration = Registration(settings.database_url(), name)
        self.started_at = time.time()
        self.state: WorkerState = "working"
        self.announced = 0.0
        self.not_before = 0.0
        self.last: WorkerRow | None = None

    def follow(self, consumer: Any, *, at_once: bool = False) -> None:
        """Look, obey, and announce. An administration that cannot be read leaves everything as it is."""
        now = time.monotonic()
        if now < self.not_before and not at_once:
            return
        try:
            orders = self.registration.look()
            self._obey(consumer, orders)
            if at_once or now - self.announced > ANNOUNCE_SECONDS:
                self.registration.announce(self.describe(consumer))
                self.announced = now
        except PassingError as error:
            self.not_before = now + AFTER_ERROR_SECONDS
            log.warning("administration cannot be read", code=error.code, message=error.message)

    def _obey(self, consumer: Any, orders: Orders) -> None:
        # A drain that was asked of an earlier process of this name is done.
        if orders.drained_at is not None and orders.drained_at >= self.started_at and self.state == "working":
            self.state = "draining"
            self.announced = 0.0
        wanted = set() if self.state == "draining" else open_queues(self.queues, orders.paused)
        taken = _taken(consumer)
        for queue in sorted(wanted - taken):
            consumer.add_task_queue(queue)
        for queue in sorted(taken - wanted):
            consumer.cancel_task_queue(queue)
        if self.state == "draining" and not worker_state.reserved_requests:
            worker_state.should_stop = os.EX_OK
        if orders.processes is not None and (more := orders.processes - consumer.pool.num_processes):
            (consumer.pool.grow if more > 0 else consumer.pool.shrink)(abs(more))
            consumer._update_prefetch_count(more)

    def describe(self, consumer: Any) -> WorkerRow:
        """This worker as it is now."""
        children = list(consumer.pool.info.get("processes", []))
        return WorkerRow(
            name=self.registration.name,
            host=socket.gethostname(),
            pid=os.getpid(),
            children=children,
            queues=sorted(_taken(consumer)),
            model_set=self.settings.model_set,
            threads=self.settings.threads,
            memory_bytes=sum(_resident(pid) for pid in [os.getpid(), *children]),
            tasks=sum(worker_state.total_count.values()),
            state=self.state,
            started_at=self.started_at,
            seen_at=time.time(),
        )

    def stop(self, consumer: Any) -> None:
        """The worker ends: it finishes what it runs, and says so before it waits for that."""
        if self.state == "working":
            self.state = "stopping"
        with contextlib.suppress(PassingError):
            self.last = self.describe(consumer).model_copy(update={"queues": []})
            self.registration.announce(self.last)

    def leave(self) -> None:
        """The last word: a drained worker stays in the list as such, another is gone from it."""
        with contextlib.suppress(PassingError):
            if self.state == "draining" and self.last is not None:
                ended = {"state": "drained", "children": [], "memory_bytes": 0, "seen_at": time.time()}
                self.registration.announce(self.last.model_copy(update=ended))
            else:
                self.registration.leave()


def open_queues(queues: list[str], paused: frozenset[str]) -> set[str]:
    """Those of `queues` that a worker may take from: not paused by name, and with a stage that is not paused."""
    shut = {
        stage.queue for stage in STAGES if all(other.name in paused for other in STAGES if other.queue == stage.queue)
    }
    return set(queues) - shut - paused


def _taken(consumer: Any) -> set[str]:
    """The queues that a worker takes from, or will when its loop begins (Kombu's `consuming_from` denies those)."""
    return {queue.name for queue in consumer.task_consumer.queues}


def _resident(pid: int) -> int:
    with contextlib.suppress(psutil.Error):
        return int(psutil.Process(pid).memory_info().rss)
    return 0


class FollowStep(bootsteps.StartStopStep):  # type: ignore[misc]
    """The part of a worker's consumer that calls `Following.follow` between messages, and at every (re)connection."""

    requires = ("celery.worker.consumer.tasks:Tasks",)

    def __init__(self, consumer: Any, **options: Any) -> None:
        super().__init__(consumer, **options)
        self.timer: Any = None

    def start(self, consumer: Any) -> None:
        """Follow from now on. The queues that a new connection takes from are put right before its first message."""
        following: Following = consumer.app.reelsense_following
        following.follow(consumer, at_once=True)
        self.timer = consumer.timer.call_repeatedly(LOOK_SECONDS, following.follow, (consumer,))

    def stop(self, consumer: Any) -> None:
        """The connection is gone, or the worker ends."""
        if worker_state.should_stop is not None and worker_state.should_stop is not False:
            consumer.app.reelsense_following.stop(consumer)
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None


def install(app: Celery, settings: Settings, name: str, queues: list[str]) -> None:
    """Let the worker that this process will be follow the administration."""
    following = Following(settings, name, queues)
    app.reelsense_following = following
    app.steps["consumer"].add(FollowStep)
    worker_shutdown.connect(lambda **_: following.leave(), weak=False)


@control_command()  # type: ignore[untyped-decorator]
def follow_administration(state: Any, **_: Any) -> dict[str, str]:
    """Celery's remote control: look at once at what administrators decided."""
    state.consumer.app.reelsense_following.follow(state.consumer, at_once=True)
    return {"ok": "followed"}
