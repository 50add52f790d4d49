"""A worker that trains rankers: `python -m app.training_worker [--name NAME]`; settings from the environment.

It is a Celery worker like those of the stages, with a queue of its own (`training`) and one task. It lives here because
it needs `ranker`, and `workers` and `ranker` do not know each other. A message holds a job's id and nothing else; what
is to be done, and how far it is, stands in the catalogue (`store.batch_jobs`).

A message is acknowledged when it comes, as training may take longer than any broker waits. A job whose worker died is
sent again by the next training worker that looks, and goes on from its checkpoint where that is on the same machine.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import structlog
from celery import Celery
from celery.signals import worker_ready

from store.batch_jobs import BatchJob, BatchJobs
from store.catalogue import Catalogue
from store.errors import PassingError, ReelsenseError
from store.settings import Settings, load_settings
from workers.celery_app import create_app, queue_named
from workers.time_limits import INTERRUPT

if TYPE_CHECKING:
    from ranker.models.model import Progress

TASK = "reelsense.train_ranker"
QUEUE = "training"
KIND = "train ranker"
LONGEST_SECONDS = 86_400.0
LEASE_SECONDS = 30.0
BEAT_SECONDS = 2.0
# Progress is written down at most so often.
TELL_SECONDS = 0.5
log = structlog.get_logger()


class Stopped(BaseException):
    """The job was cancelled, another worker has it, or this one shuts down. No Exception: no model may keep it."""


def training_app(settings: Settings) -> Celery:
    """The Celery application with the queue and the task of training. Raises `stack.not_running`."""
    app = create_app(settings)
    app.conf.update(task_queues=[*app.conf.task_queues, queue_named(QUEUE, settings)], task_time_limit=LONGEST_SECONDS)

    def train(job: str) -> None:
        run_job(settings, job)

    app.task(name=TASK, acks_late=False, reject_on_worker_lost=False, max_retries=0)(train)
    return app


def submit(settings: Settings, catalogue: Catalogue, request: dict[str, Any], who: str) -> BatchJob:
    """Note a job and send its message. Raises `stack.not_running`; a broker that does not answer delays it alone."""
    app = training_app(settings)
    job = BatchJobs(catalogue).create(KIND, request, who)
    send(app, job.id)
    return job


def send(app: Celery, job_id: str) -> None:
    """Send the message of a job. One that does not get through is sent by the next training worker that looks."""
    import kombu.exceptions

    try:
        app.send_task(TASK, kwargs={"job": job_id}, queue=QUEUE, retry=False)
    except (kombu.exceptions.OperationalError, OSError):
        log.warning("the message of a job was not sent", job=job_id)


def run_job(settings: Settings, job_id: str) -> None:
    """Claim a job and do it. Whatever comes of it is written down."""
    from app.operations import ReelSense

    reelsense = ReelSense(settings)
    jobs = BatchJobs(reelsense.catalogue)
    job = jobs.claim(job_id, f"{socket.gethostname()}:{os.getpid()}")
    if job is None:
        return
    try:
        if job.attempts > settings.limits.attempts:
            text = f"Its worker died {job.attempts - 1} times."
            jobs.fail(job, ReelsenseError("ranker.training_failed", text))
            return
        with _alive(jobs, job) as tell:
            result = _trained(reelsense, job, tell)
        jobs.finish(job, result)
    except Stopped:
        # A job that was cancelled, or is another's by now, stays what it is.
        log.info("job stopped", job=job.id, handed_back=jobs.release(job))
    except PassingError as error:
        log.warning("job handed back", job=job.id, code=error.code, message=error.message)
        with contextlib.suppress(PassingError):
            jobs.release(job)
    except ReelsenseError as error:
        jobs.fail(job, error)
    except Exception as error:
        # Whatever a model raises ends its job and not the worker.
        log.exception("job failed", job=job.id)
        jobs.fail(job, ReelsenseError("ranker.training_failed", f"Training ended with {type(error).__name__}: {error}"))
    finally:
        reelsense.catalogue.close()


def _trained(reelsense: Any, job: BatchJob, tell: Callable[[Progress], None]) -> dict[str, Any]:
    from app.ranker_models import promote
    from store.errors import InputError

    asked = job.request
    found: dict[str, Any] = reelsense.train_ranker(
        asked["model"], seed=asked.get("seed"), settings=asked.get("settings"), on_progress=tell
    )
    result = {"ranker": found["ranker"], "validation": found["card"]["validation"]}
    if asked.get("promote"):
        try:
            result["promotion"] = promote(reelsense, found["ranker"])
        except InputError as error:
            if error.code not in ("ranker.not_better", "request.invalid"):
                raise
            result["not_promoted"] = error.message
    return result


@contextlib.contextmanager
def _alive(jobs: BatchJobs, job: BatchJob) -> Iterator[Callable[[Progress], None]]:
    """Renew the lease until the block ends, and stop it where the job is cancelled: by the signal to this very process
    with which workers that shut down take back what runs. It is answered between two steps of what is computed."""
    ended = threading.Event()
    told: list[dict[str, Any]] = []

    def stop(*_: Any) -> None:
        if not ended.is_set():
            raise Stopped

    def tell(progress: Progress) -> None:
        told[:] = [vars(progress)]

    def beat() -> None:
        said: dict[str, Any] | None = None
        while not ended.wait(TELL_SECONDS):
            now = told[0] if told else None
            if now == said and time.time() - last[0] < BEAT_SECONDS:
                continue
            with contextlib.suppress(PassingError):
                if not jobs.beat(job, now):
                    if not ended.is_set():
                        os.kill(os.getpid(), INTERRUPT)
                    return
                said, last[0] = now, time.time()

    last = [0.0]
    former = signal.signal(INTERRUPT, stop)
    thread = threading.Thread(target=beat, name="lease", daemon=True)
    thread.start()
    try:
        yield tell
        ended.set()
        if told:
            jobs.beat(job, told[0])
    finally:
        ended.set()
        thread.join()
        signal.signal(INTERRUPT, former)


def look_after(settings: Settings, app: Celery, ended: threading.Event) -> None:
    """Send again what waits or whose worker fell silent, now and then, until `ended`."""
    jobs: BatchJobs | None = None
    sent: dict[str, float] = {}
    while not ended.is_set():
        with contextlib.suppress(PassingError):
            jobs = jobs or BatchJobs(Catalogue(settings.database_url()))
            for job in jobs.abandoned(LEASE_SECONDS):
                # A message may wait behind a long job: the same one is not sent every few seconds.
                if time.monotonic() - sent.get(job.id, -LEASE_SECONDS) >= LEASE_SECONDS:
                    send(app, job.id)
                    sent[job.id] = time.monotonic()
        ended.wait(LEASE_SECONDS / 3)


def main() -> None:
    """Read the arguments and serve."""
    from workers.worker import run

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--name", default=f"trainer-{os.getpid()}")
    arguments = parser.parse_args()
    settings = load_settings()
    ended = threading.Event()

    def ready(**_: Any) -> None:
        threading.Thread(target=look_after, args=(settings, training_app(settings), ended), daemon=True).start()

    worker_ready.connect(ready, weak=False)
    run(settings, [QUEUE], arguments.name, training_app)
    ended.set()


if __name__ == "__main__":
    main()
