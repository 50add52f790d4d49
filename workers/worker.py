"""A worker process: `python -m workers.worker [--queues vision,audio] [--name NAME]`; settings from the environment.

One process runs one stage at a time with `threads` threads of arithmetic: on measured machines two such workers do more
than one worker of two. More throughput is more worker processes, on this machine or on others.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import os
import signal
import sys
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from celery.signals import setup_logging, worker_process_init, worker_process_shutdown, worker_shutting_down

from store.settings import Settings, load_settings
from workers import logs
from workers.reporting import Reporter

if TYPE_CHECKING:
    from celery import Celery

PR_SET_PDEATHSIG = 1
# How long a worker that was told to stop goes on with the stage at hand, before it hands it back. Container engines
# kill 10 s after they ask.
HAND_BACK_SECONDS = 4.0


def die_with_parent(signal_number: int = signal.SIGKILL) -> None:
    """Ask the kernel for a signal when the parent dies (Linux; elsewhere nothing): a killed worker leaves no child."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, int(signal_number), 0, 0, 0)


class _Process:
    """What a pool child has of its parent's start (`settings`, `name`), and its own reporter."""

    settings: Settings | None = None
    name = ""
    reporter: Reporter | None = None


@worker_process_init.connect(weak=False)
def _after_fork(**_: Any) -> None:
    from workers import time_limits, tracing

    die_with_parent()
    time_limits.listen()
    if _Process.settings is not None:
        tracing.start(_Process.settings, "worker")
        _Process.reporter = Reporter(_Process.settings, "worker", _Process.name)
        _Process.reporter.start()


@worker_process_shutdown.connect(weak=False)
def _before_end(**_: Any) -> None:
    from workers import tracing

    if _Process.reporter is not None:
        _Process.reporter.end()
    tracing.stop()


@setup_logging.connect(weak=False)
def _keep_logging(**_: Any) -> None:
    """Celery leaves logging as it is where somebody answers this signal."""


@worker_shutting_down.connect(weak=False)
def _hand_back_in_time(**_: Any) -> None:
    """On SIGTERM the stage at hand may end; one that takes longer is handed back by its child, and costs no attempt."""
    from workers import time_limits

    def interrupt() -> None:
        for child in children(os.getpid()):
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, time_limits.INTERRUPT)

    timer = threading.Timer(HAND_BACK_SECONDS, interrupt)
    timer.daemon = True
    timer.start()


def children(pid: int) -> list[int]:
    """The processes whose parent is `pid`."""
    import psutil  # type: ignore[import-untyped]

    with contextlib.suppress(psutil.NoSuchProcess):
        return [child.pid for child in psutil.Process(pid).children()]
    return []


def limit_threads(threads: int) -> None:
    """Bound the threads of everything that is loaded later: the environment variables that OpenMP and its kin read."""
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"):
        os.environ[name] = str(threads)
    os.environ["TOKENIZERS_PARALLELISM"] = "false"


def run(settings: Settings, queues: list[str], name: str, make: Callable[[Settings], Celery] | None = None) -> None:
    """Serve `queues` until told to stop (SIGTERM: finish the stage at hand, then leave). `make` makes an application
    with other tasks than the stages."""
    from celery.utils.nodenames import host_format

    from workers import following
    from workers.celery_app import create_app

    limit_threads(settings.threads)
    logs.configure(settings, service="worker", worker=name)
    _Process.settings, _Process.name = settings, name
    app = (make or create_app)(settings)
    following.install(app, settings, host_format(f"{name}@%h"), queues)
    app.worker_main(
        [
            "worker",
            "--pool=prefork",
            "--concurrency=1",
            f"--hostname={name}@%h",
            f"--queues={','.join(queues)}",
            "--loglevel=WARNING",
            "--without-gossip",
            "--without-mingle",
        ]
    )


def main() -> None:
    """Read the arguments and serve."""
    from workers.stages import QUEUES

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--queues", default=",".join(QUEUES), help="comma-separated; default: all")
    parser.add_argument("--name", default=f"worker-{os.getpid()}")
    arguments = parser.parse_args()
    queues = arguments.queues.split(",")
    unknown = sorted(set(queues) - set(QUEUES))
    if unknown:
        parser.error(f"unknown queue {unknown[0]}; there are {', '.join(QUEUES)}")
    run(load_settings(), queues, arguments.name)


if __name__ == "__main__":
    main()
