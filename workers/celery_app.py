"""The Celery application: queues, delivery settings, and the one task that runs any stage.

The settings here are those that held when brokers and workers were killed on purpose (docs/reliability.md): late
acknowledgement, one message at a time, tasks of killed children sent back (the ledger counts attempts before any work,
so a poison video ends in the dead letters and not in a loop), confirmed publishing on AMQP, no result backend.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

import structlog
from celery import Celery
from celery.signals import worker_process_init
from kombu.entity import Exchange, Queue

from store.catalogue import Catalogue, RunKey
from store.errors import PassingError, StackError
from store.measured_objects import open_measured
from store.settings import Settings
from workers import tracing
from workers.stages import BY_NAME, QUEUES

if TYPE_CHECKING:
    from workers.extraction import Encoders
    from workers.graph import Graph

TASK = "reelsense.run_stage"
# Passing troubles are tried again after 2, 4, 8, ... seconds, at most 60, so many times; then the sweep takes over.
MOST_RETRIES = 6
FIRST_RETRY_SECONDS, LONGEST_RETRY_SECONDS = 2.0, 60.0
MOST_CHILD_KILOBYTES = 4 * 2**20
# A child is replaced after so many stages, whatever it holds: what a library leaks is bounded.
MOST_CHILD_TASKS = 2000


def create_app(settings: Settings) -> Celery:
    """A Celery application for these settings. Raises `stack.not_running` when there is no broker to talk to."""
    if not settings.broker:
        raise StackError(
            "stack.not_running",
            f"No stack runs on {settings.data}, and no other broker is set.",
            hint="Start one with `reelsense up`, add `--wait`, or set REELSENSE_BROKER.",
        )
    app = Celery("reelsense", broker=settings.broker, set_as_current=False)
    redis = _is_redis(settings)
    app.conf.update(
        task_queues=[queue_named(name, settings) for name in QUEUES],
        task_default_queue=QUEUES[0],
        task_create_missing_queues=False,
        task_serializer="json",
        accept_content=["json"],
        task_ignore_result=True,
        task_acks_late=True,
        task_reject_on_worker_lost=True,
        task_track_started=False,
        # The limits of stages are in `workers.time_limits`. This one is the last resort, for what hangs around them; a
        # message may stand for a batch that is taken apart and one run after it.
        task_time_limit=2 * settings.limits.stage_seconds + 60.0,
        worker_prefetch_multiplier=1,
        worker_max_memory_per_child=MOST_CHILD_KILOBYTES,
        worker_max_tasks_per_child=MOST_CHILD_TASKS,
        worker_soft_shutdown_timeout=5.0,
        worker_hijack_root_logger=False,
        worker_send_task_events=True,
        broker_connection_retry=True,
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        broker_transport_options=_redis_options(settings) if redis else {"confirm_publish": True},
        enable_utc=True,
    )
    app.task(bind=True, name=TASK, max_retries=MOST_RETRIES)(_run_stage)
    app.reelsense_settings = settings
    return app


def queue_named(name: str, settings: Settings) -> Queue:
    """A queue that outlives its broker's restart, of the kind that the broker of these settings has."""
    return Queue(name, durable=True) if _is_redis(settings) else _quorum_queue(name)


def _is_redis(settings: Settings) -> bool:
    return settings.broker.startswith("redis")


def _quorum_queue(name: str) -> Queue:
    """A RabbitMQ queue whose confirmed messages are on the disks of most nodes. Behind a topic exchange, for only there
    does Celery let the broker, and not a worker, hold a retry until its time."""
    exchange = Exchange("reelsense", type="topic", durable=True)
    return Queue(name, exchange, routing_key=name, durable=True, queue_arguments={"x-queue-type": "quorum"})


def _redis_options(settings: Settings) -> dict[str, Any]:
    return {
        "visibility_timeout": settings.visibility_seconds,
        # At their defaults, tasks of a killed worker stayed stuck for minutes (measured).
        "unacked_restore_interval": 1,
        "unacked_restore_throttle": 1,
        "unacked_mutex_expire": 10,
        "queue_order_strategy": "round_robin",
        # Without these a broker that dies in mid-answer is waited for without end.
        "socket_timeout": 30.0,
        "socket_connect_timeout": 5.0,
    }


def send(app: Celery, key: RunKey) -> None:
    """Send the message of a run to the queue of its stage. Raises `broker.unavailable`."""
    import kombu.exceptions

    try:
        app.send_task(
            TASK,
            kwargs=key.model_dump(),
            headers=tracing.headers(),
            queue=BY_NAME[key.stage].queue,
            retry=True,
            retry_policy={"max_retries": 3, "interval_start": 0.1, "interval_step": 0.3, "interval_max": 1.0},
        )
    except (kombu.exceptions.OperationalError, OSError) as error:
        raise PassingError(
            "broker.unavailable",
            "The message broker does not answer.",
            hint="The video is stored; `reelsense reconcile` sends it when the broker is back.",
        ) from error


def queue_depths(app: Celery) -> dict[str, int]:
    """Messages waiting in each queue, those that a worker holds not counted. Raises `broker.unavailable`."""
    import kombu.exceptions

    depths: dict[str, int] = {}
    try:
        with app.connection_for_read(transport_options=app.conf.broker_transport_options) as connection:
            connection.ensure_connection(max_retries=2, interval_start=0.1)
            for name in QUEUES:
                channel = connection.channel()
                try:
                    depths[name] = channel.queue_declare(queue=name, passive=True).message_count
                except connection.channel_errors:
                    depths[name] = 0  # nobody has declared it yet, so nothing waits in it
                finally:
                    channel.close()
    except (kombu.exceptions.OperationalError, OSError) as error:
        raise PassingError("broker.unavailable", "The message broker does not answer.") from error
    return depths


def open_graph(app: Celery) -> Graph:
    """The stage graph of this application's settings, sending through this application."""
    from workers.graph import Graph

    settings: Settings = app.reelsense_settings
    return Graph(settings, open_measured(settings), Catalogue(settings.database_url()), send=lambda key: send(app, key))


class _Child:
    """What one pool child keeps: the graph and the encoders it has loaded. Made at the first task, after the fork."""

    graph: Graph | None = None
    encoders: Encoders | None = None


@worker_process_init.connect(weak=False)
def _forget(**_: Any) -> None:
    # A forked child must not share database or broker connections with its parent.
    _Child.graph = None
    _Child.encoders = None


def _run_stage(task: Any, video_id: str, stage: str, version: str, revision: str) -> None:
    from workers.admission import run_message
    from workers.extraction import Encoders

    key = RunKey(video_id=video_id, stage=stage, version=version, revision=revision)
    try:
        if _Child.graph is None or _Child.encoders is None:
            _Child.graph = open_graph(task.app)
            _Child.encoders = Encoders(task.app.reelsense_settings)
        request = task.request
        with (
            structlog.contextvars.bound_contextvars(task=request.id, stage=stage, video=video_id),
            tracing.stage(key, _Child.graph.catalogue, _headers(request), request.id or ""),
        ):
            run_message(_Child.graph, key, _Child.encoders)
    except PassingError as error:
        number = task.request.retries
        if number >= MOST_RETRIES:
            return  # the ledger says `queued`; the sweep sends it again when the surroundings are back
        # The queue by name: what a message says of how it was delivered names exchanges of RabbitMQ's delays.
        raise task.retry(exc=error, countdown=retry_seconds(number), queue=BY_NAME[stage].queue) from error


def _headers(request: Any) -> dict[str, Any]:
    """What the sender wrote on the message beside what Celery needs: in `headers`, or as attributes of the request."""
    found = dict(request.headers or {})
    value = found.get(tracing.HEADER) or getattr(request, tracing.HEADER, None)
    return {tracing.HEADER: value} if value else {}


def retry_seconds(number: int) -> float:
    """How long to wait before the retry `number`, from 0: exponential, with jitter by half, so that a thousand stages
    that lost the same store do not come back in the same second."""
    return min(LONGEST_RETRY_SECONDS, FIRST_RETRY_SECONDS * 2.0**number) * random.uniform(0.5, 1.5)
