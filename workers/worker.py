"""A worker process: `python -m workers.worker [--queues vision,audio] [--name NAME]`; settings from the environment.

One process runs one stage at a time with `threads` threads of arithmetic: on measured machines two such workers do more
than one worker of two. More throughput is more worker processes, on this machine or on others.
"""

from __future__ import annotations

import argparse
import ctypes
import logging
import os
import signal
import sys
from typing import Any

from celery.signals import worker_process_init

from store.settings import Settings, load_settings

PR_SET_PDEATHSIG = 1


def die_with_parent(signal_number: int = signal.SIGKILL) -> None:
    """Ask the kernel for a signal when the parent dies (Linux; elsewhere nothing): a killed worker leaves no child."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, int(signal_number), 0, 0, 0)


@worker_process_init.connect(weak=False)
def _after_fork(**_: Any) -> None:
    die_with_parent()


def limit_threads(threads: int) -> None:
    """Bound the threads of everything that is loaded later: the environment variables that OpenMP and its kin read."""
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"):
        os.environ[name] = str(threads)
    os.environ["TOKENIZERS_PARALLELISM"] = "false"


def configure_logging() -> None:
    """Log lines as JSON on stderr, one an event, with video, stage and attempt as fields."""
    import structlog

    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(),
        ],
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
    )


def run(settings: Settings, queues: list[str], name: str) -> None:
    """Serve `queues` until told to stop (SIGTERM: finish the stage at hand, then leave)."""
    from celery.utils.nodenames import host_format

    from workers import following
    from workers.celery_app import create_app

    limit_threads(settings.threads)
    configure_logging()
    app = create_app(settings)
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
