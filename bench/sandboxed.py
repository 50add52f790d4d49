"""Decoding of hostile bytes in a forked child that sits in the sandbox of `workers.sandbox`: what came of it, and what
it took. For the attack corpus of the tests and for `bench.fuzz`; a fork costs milliseconds where a probe starts Python.
"""

from __future__ import annotations

import io
import json
import os
import select
import signal
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from store.errors import ReelsenseError
from store.settings import Limits
from workers.captions import read_embedded
from workers.frame_decoding import read_frames
from workers.frame_sampling import FrameSampling
from workers.probe import import_decoders, look
from workers.sandbox import Bounds, bound, close_off
from workers.sound_decoding import read_sound

RATE_HZ = 16_000
ANSWER_BYTES = 2**22


@dataclass(frozen=True)
class Outcome:
    """How a child ended: `status` 0, or minus the signal; `answer` None where it gave none; what it took beside what
    it had of its parent."""

    status: int
    answer: dict[str, Any] | None
    late: bool
    cpu_seconds: float
    peak_bytes: int

    @property
    def fault(self) -> str:
        """The exception that no code was given to, or the hang: what must not be. Empty where all is well."""
        if self.late:
            return "hang"
        return str((self.answer or {}).get("exception", ""))


def apart(work: Callable[[], dict[str, Any]], limits: Limits, seconds: float) -> Outcome:
    """Run `work` in a forked child in the sandbox and return what it gave, for `seconds` of wall time at the most."""
    import_decoders()
    read_end, write_end = os.pipe()
    before = _memory("VmRSS")
    with warnings.catch_warnings():
        # Python 3.12 warns of any fork beside threads; those of the numeric libraries are idle here.
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if child == 0:
        _child(work, limits, write_end)
    os.close(write_end)
    printed, late = _read(read_end, time.monotonic() + seconds)
    if late:
        os.kill(child, signal.SIGKILL)
    os.close(read_end)
    _, status, used = os.wait4(child, 0)
    code = os.waitstatus_to_exitcode(status)
    return Outcome(
        status=code,
        answer=json.loads(printed) if code == 0 and printed else None,
        late=late or code == -signal.SIGXCPU,
        cpu_seconds=used.ru_utime + used.ru_stime,
        peak_bytes=max(0, used.ru_maxrss * 1024 - before),
    )


def _read(pipe: int, deadline: float) -> tuple[bytes, bool]:
    """What the child prints until it ends, and whether it was late. Without a thread: forks and threads do not mix."""
    printed = b""
    while len(printed) <= ANSWER_BYTES:
        if not select.select([pipe], [], [], max(0.0, deadline - time.monotonic()))[0]:
            return printed, True
        part = os.read(pipe, 2**16)
        if not part:
            break
        printed += part
    return printed, False


def _child(work: Callable[[], dict[str, Any]], limits: Limits, write_end: int) -> NoReturn:
    os.dup2(write_end, 1)
    bounds = Bounds(
        limits.memory_bytes + _memory("VmSize"), int(limits.probe_cpu_seconds) + 1, limits.probe_files + 192, 0
    )
    bound(bounds)
    close_off()
    try:
        answer = work()
    except BaseException as error:  # whatever it is, the parent is told
        answer = {"exception": f"{type(error).__name__}: {error}"[:300]}
    os.write(1, json.dumps(answer).encode()[:ANSWER_BYTES])
    os._exit(0)


def _memory(name: str) -> int:
    """A figure of /proc/self/status, in bytes; 0 on systems without it."""
    try:
        with Path("/proc/self/status").open() as stream:
            found = [line.split()[1] for line in stream if line.startswith(name + ":")]
    except OSError:
        return 0
    return int(found[0]) * 1024 if found else 0


def probed_and_decoded(data: bytes, limits: Limits) -> dict[str, Any]:
    """All that is done to the bytes of an upload: the probe, and if it passes, pictures, sound and captions.

    `probe`, `frames`, `sound`, `captions`: the code of the error, or "" and beside it what was found.
    """
    result: dict[str, Any] = {"probe": "", "degraded": False, "text": ""}
    try:
        result["media"] = look(io.BytesIO(data), limits).model_dump(mode="json")
    except ReelsenseError as error:
        return {"probe": error.code, "message": error.message}
    except MemoryError:
        return {"probe": "media.too_many_pixels", "message": "memory"}
    return result | decoded(data, limits)


def decoded(data: bytes, limits: Limits) -> dict[str, Any]:
    """Pictures, sound and captions of bytes that passed the probe; see `probed_and_decoded`."""
    result: dict[str, Any] = {"degraded": False, "text": ""}

    def pictures() -> None:
        frames = read_frames(io.BytesIO(data), FrameSampling(), limits)
        result.update(decoded=frames.decoded, degraded=result["degraded"] or frames.degraded)

    def sound() -> None:
        heard = read_sound(io.BytesIO(data), RATE_HZ, limits)
        result.update(samples=heard.samples.shape[1], degraded=result["degraded"] or heard.degraded)

    def captions() -> None:
        tracks = read_embedded(io.BytesIO(data), limits)
        result["text"] = " ".join(line.text for track in tracks for line in track.segments)[:10_000]

    for name, step in (("frames", pictures), ("sound", sound), ("captions", captions)):
        try:
            step()
            result[name] = ""
        except ReelsenseError as error:
            result[name] = error.code
            result[name + "_message"] = error.message
    return result
