"""How long one run of a stage may take, and how it is ended from outside: by its time, or by a worker that shuts down.

The *soft* limit interrupts the computation, which ends as `stage.timeout`. Code that hangs inside a library never hears
of it; for that there is the *hard* limit, a timer of the kernel that kills this very process, whatever it is doing: the
ledger counted the attempt before it began. Both run on the machine's steady clock, so that a clock that is set back or
forward neither kills a healthy stage nor lets a hanging one live.
"""

from __future__ import annotations

import contextlib
import signal
import threading
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import structlog

from store.catalogue import Video
from store.errors import ReelsenseError
from store.settings import Settings
from workers import stages

# What a stage may take beside its work: a busy machine loads the largest model of the starter set in 20 s (measured).
START_SECONDS = 120.0
# How many times its expected cost a stage may take: machines are slow, shared, and videos differ.
SLACK = 10.0
SOFT_SHARE = 0.9
# A container may lie about its length. So many bytes count as a second of it at the least.
BYTES_PER_SECOND = 50_000
SOFT_LIMIT_EVENT = "soft limit passed"
INTERRUPT = signal.SIGUSR2
log = structlog.get_logger()


@dataclass(frozen=True)
class TimeLimits:
    """Wall seconds: after `soft` a run is interrupted, after `hard` its process is killed."""

    soft: float
    hard: float


class HandedBack(BaseException):
    """The worker shuts down and wants the run back. No Exception: no encoder's own handlers may keep it."""


class _Interrupted(BaseException):
    """Raised inside the computation by the signal."""


def limits_of(stage: str, videos: Sequence[Video], settings: Settings) -> TimeLimits:
    """The limits of one run of a stage over one video, or over a batch: by its expected cost and the length of the
    videos, bounded by `limits.stage_seconds`."""
    seconds = sum(max(_length(video), video.media.bytes / BYTES_PER_SECOND) for video in videos)
    hard = min(settings.limits.stage_seconds, START_SECONDS + SLACK * stages.BY_NAME[stage].cost * seconds)
    return TimeLimits(soft=SOFT_SHARE * hard, hard=hard)


def _length(video: Video) -> float:
    return max(video.media.duration or 0.0, video.media.audio_duration or 0.0)


class _Block:
    """The block of `limited` that this process is in, if any; `expired` when its soft limit interrupted it."""

    current: _Block | None = None

    def __init__(self) -> None:
        self.expired = False


def listen() -> None:
    """Take the signal that interrupts. Outside of `limited` it does nothing: by default it would kill the process."""
    signal.signal(INTERRUPT, _on_interrupt)


def _on_interrupt(*_: object) -> None:
    if _Block.current is not None:
        raise _Interrupted


@contextlib.contextmanager
def limited(limits: TimeLimits) -> Iterator[None]:
    """Run the block under the limits. Raises `stage.timeout`, and HandedBack when another process of ours sent the
    signal. The main thread alone hears signals: elsewhere there are no limits. The hard one is left out where somebody
    else (a test's time-out) has the alarm of this process already."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    listen()
    block = _Block()
    main = threading.main_thread().ident

    def expire() -> None:
        log.warning(SOFT_LIMIT_EVENT, seconds=round(limits.soft, 1), killed_at=round(limits.hard, 1))
        block.expired = True
        if main is not None and _Block.current is block:
            signal.pthread_kill(main, INTERRUPT)

    timer = threading.Timer(limits.soft, expire)
    timer.daemon = True
    ours = signal.getsignal(signal.SIGALRM) is signal.SIG_DFL and signal.getitimer(signal.ITIMER_REAL)[0] == 0.0
    try:
        try:
            _Block.current = block
            timer.start()
            if ours:
                signal.setitimer(signal.ITIMER_REAL, limits.hard)
            yield
        finally:
            _Block.current = None
            timer.cancel()
            if ours:
                signal.setitimer(signal.ITIMER_REAL, 0.0)
    except _Interrupted as interrupted:
        if not block.expired:
            raise HandedBack from None
        place = traceback.extract_tb(interrupted.__traceback__)
        # The last frames are this handler's own; the one before is where the time went.
        where = next((frame for frame in reversed(place) if frame.filename != __file__), None)
        raise ReelsenseError(
            "stage.timeout",
            f"The stage took longer than {limits.soft:.0f} seconds"
            + (f", and was in {where.name} of {where.filename.rpartition('/')[2]}." if where else "."),
            hint="Raise REELSENSE_LIMITS__STAGE_SECONDS if such videos are to be processed.",
        ) from interrupted
