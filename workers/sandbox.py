"""The sandbox of the child that looks into hostile files: what it may use, and what it may ask of the system.

Two walls. `bound` sets limits on memory, CPU seconds, open files and written bytes, on every POSIX system. `close_off`
puts a system call filter (seccomp, Linux on x86_64 and aarch64) around the process: it may go on reading what is open,
take memory, write its answer and end. Everything else is refused with EPERM: opening, naming or changing any file,
every kind of socket, new processes and programs, signals to others, tracing, memory that can be executed. A decoder
that a file has taken over finds no door.

The filter lists what is allowed, not what is forbidden, so that a call which a later kernel brings is refused too. It
comes into force once everything is imported and the file is open, and cannot be taken off again. Landlock, which
guards the file system alone, would add nothing to it: no path can be opened in here at all.

    python -m workers.sandbox      try it: one line for each door, and whether it is shut
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import platform
import struct
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

# Numbers of system calls: (x86_64, aarch64), from the kernel's syscall_64.tbl and asm-generic/unistd.h.
_ALLOWED: Mapping[str, tuple[int, int]] = MappingProxyType(
    {
        # What is open may be read, and moved about in.
        "read": (0, 63),
        "readv": (19, 65),
        "pread64": (17, 67),
        "lseek": (8, 62),
        "close": (3, 57),
        # Memory.
        "brk": (12, 214),
        "munmap": (11, 215),
        "mremap": (25, 216),
        "madvise": (28, 233),
        # Threads, clocks and signals of its own.
        "futex": (202, 98),
        "set_robust_list": (273, 99),
        "rseq": (334, 293),
        "sched_yield": (24, 124),
        "sched_getaffinity": (204, 123),
        "clock_gettime": (228, 113),
        "clock_getres": (229, 114),
        "clock_nanosleep": (230, 115),
        "nanosleep": (35, 101),
        "restart_syscall": (219, 128),
        "gettimeofday": (96, 169),
        "getpid": (39, 172),
        "gettid": (186, 178),
        "getrusage": (98, 165),
        "getrandom": (318, 278),
        "rt_sigaction": (13, 134),
        "rt_sigprocmask": (14, 135),
        "rt_sigreturn": (15, 139),
        "sigaltstack": (131, 132),
        "exit": (60, 93),
        "exit_group": (231, 94),
    }
)
_WRITES = ((1, 64), (20, 66))  # write, writev: to standard output and error alone
_MAPS = ((9, 222), (10, 226))  # mmap, mprotect: never executable
_CLONE, _CLONE3 = (56, 220), (435, 435)  # threads alone; clone3 cannot be looked into, so that glibc is sent to clone
_TGKILL = (234, 131)  # of this process alone: `abort` raises a signal at itself
_SECCOMP = (317, 277)

# linux/filter.h, linux/seccomp.h, linux/audit.h, linux/sched.h, asm-generic/mman-common.h, linux/prctl.h
_LOAD, _EQUAL, _ABOVE, _BITS, _RETURN = 0x20, 0x15, 0x25, 0x45, 0x06
_ALLOW, _ERRNO, _KILL = 0x7FFF0000, 0x00050000, 0x80000000
_MODE_FILTER, _ALL_THREADS = 1, 1
_ARCHITECTURES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}
_X32 = 0x40000000  # the second set of numbers that x86_64 answers to
_CLONE_THREAD = 0x00010000
_PROT_EXEC = 4
_NO_NEW_PRIVILEGES, _DEATH_SIGNAL, _SIGKILL = 38, 1, 9


@dataclass(frozen=True)
class Bounds:
    """What a process may use: address space in bytes, CPU seconds, open files, and bytes in a file that it writes."""

    memory_bytes: int
    cpu_seconds: int
    open_files: int
    written_bytes: int


def bound(bounds: Bounds) -> None:
    """Bound this very process, for good: no more than `bounds`, no core dump, no new process; on Linux it also ends
    with the one that started it. To be called before it touches the hostile file, once everything is imported (the
    libraries are files too)."""
    import resource

    for what, amount in (
        (resource.RLIMIT_CPU, bounds.cpu_seconds),
        (resource.RLIMIT_FSIZE, bounds.written_bytes),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_NOFILE, bounds.open_files),
        (resource.RLIMIT_AS, bounds.memory_bytes),
        (resource.RLIMIT_NPROC, 0),  # does not bind root, whom the filter binds
    ):
        hard = resource.getrlimit(what)[1]
        most = amount if hard == resource.RLIM_INFINITY else min(amount, hard)
        # A second between the signal that says so and the one that kills.
        grace = 1 if what == resource.RLIMIT_CPU and most != hard else 0
        with contextlib.suppress(ValueError):  # macOS has no limit on address space; `doctor` tells what holds
            resource.setrlimit(what, (most, most + grace))
    if sys.platform == "linux":
        _prctl(_DEATH_SIGNAL, _SIGKILL)


def close_off() -> bool:
    """Put the filter around this process and all its threads, for good. False where the system has no such filter."""
    if sys.platform != "linux" or platform.machine() not in _ARCHITECTURES or sys.byteorder != "little":
        return False
    program = filter_program(platform.machine(), os.getpid())
    buffer = ctypes.create_string_buffer(program, len(program))

    class Program(ctypes.Structure):
        _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_void_p))

    given = Program(len(program) // 8, ctypes.addressof(buffer))
    if _prctl(_NO_NEW_PRIVILEGES, 1) != 0:
        return False
    libc = ctypes.CDLL(None, use_errno=True)
    number = _SECCOMP[_ARCHITECTURES[platform.machine()][0]]
    return int(libc.syscall(number, _MODE_FILTER, _ALL_THREADS, ctypes.byref(given))) == 0


def _prctl(option: int, value: int) -> int:
    return int(ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0))


def filter_program(machine: str, pid: int) -> bytes:
    """The filter in BPF for a machine, for the process `pid`: 8 bytes an instruction (linux/filter.h, sock_filter)."""
    which, architecture = _ARCHITECTURES[machine]
    refuse, missing = _ERRNO | errno.EPERM, _ERRNO | errno.ENOSYS
    code = [
        _step(_LOAD, 4),  # seccomp_data: number at 0, architecture at 4, arguments from 16, 8 bytes each
        _step(_EQUAL, architecture, 1, 0),
        _step(_RETURN, _KILL),
        _step(_LOAD, 0),
    ]
    if machine == "x86_64":
        code += [_step(_ABOVE, _X32 - 1, 0, 1), _step(_RETURN, refuse)]
    for numbers in _ALLOWED.values():
        code += [_step(_EQUAL, numbers[which], 0, 1), _step(_RETURN, _ALLOW)]
    for numbers in _WRITES:
        # Descriptor 1 or 2.
        code += _when(numbers[which], 0, [_step(_EQUAL, 1, 1, 0), _step(_EQUAL, 2, 0, 1), _step(_RETURN, _ALLOW)])
    for numbers in _MAPS:
        code += _when(numbers[which], 2, [_step(_BITS, _PROT_EXEC, 1, 0), _step(_RETURN, _ALLOW)])
    code += _when(_CLONE[which], 0, [_step(_BITS, _CLONE_THREAD, 0, 1), _step(_RETURN, _ALLOW)])
    code += _when(_TGKILL[which], 0, [_step(_EQUAL, pid, 0, 1), _step(_RETURN, _ALLOW)])
    code += [_step(_EQUAL, _CLONE3[which], 0, 1), _step(_RETURN, missing), _step(_RETURN, refuse)]
    return b"".join(code)


def _step(operation: int, value: int, if_true: int = 0, if_false: int = 0) -> bytes:
    return struct.pack("<HBBI", operation, if_true, if_false, value)


def _when(number: int, argument: int, rule: list[bytes]) -> list[bytes]:
    """`rule` on the low half of an argument of one call, which is refused where the rule does not allow it."""
    refuse = _step(_RETURN, _ERRNO | errno.EPERM)
    body = [_step(_LOAD, 16 + 8 * argument), *rule, refuse]
    return [_step(_EQUAL, number, 0, len(body)), *body]


def found() -> tuple[bool, str]:
    """Whether every door is shut in a child on this machine, and what was found. For `reelsense doctor`."""
    done = subprocess.run(
        [sys.executable, "-P", "-m", "workers.sandbox"], capture_output=True, text=True, timeout=30, check=False
    )
    lines = [line.partition(": ") for line in done.stdout.splitlines()]
    open_doors = [name for name, _, state in lines if state != "shut"]
    if done.returncode != 0 or not lines:
        return False, f"the sandbox cannot be tried (status {done.returncode})"
    if open_doors:
        return False, f"decoders are bounded, but these stay open to them: {', '.join(open_doors)}"
    return True, f"shut to decoders: {', '.join(name for name, _, _ in lines)}"


def _try_doors() -> None:
    import socket

    bounds = Bounds(2**30, cpu_seconds=10, open_files=64, written_bytes=2**16)
    doors: dict[str, Callable[[], object]] = {
        "network": lambda: socket.socket(),
        "files": lambda: os.open(sys.executable, os.O_RDONLY),
        "processes": _fork,
        "programs": lambda: os.execv(sys.executable, [sys.executable, "-c", "print('programs: open')"]),
        "memory": lambda: bytearray(2**30),
    }
    bound(bounds)
    close_off()
    for name, attempt in doors.items():
        try:
            attempt()
            state = "open"
        except (OSError, MemoryError):
            state = "shut"
        os.write(1, f"{name}: {state}\n".encode())
    os._exit(0)


def _fork() -> None:
    if os.fork() == 0:
        os._exit(0)


if __name__ == "__main__":
    _try_doors()
