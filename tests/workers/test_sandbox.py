"""The sandbox of decoders: each wall is tried in a child of its own, which tells what happened to it."""

from __future__ import annotations

import errno
import platform
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from store.errors import MediaError
from store.settings import Limits
from tests import clips
from workers import probe as probing
from workers import sandbox

pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or platform.machine() not in ("x86_64", "aarch64"),
    reason="the system call filter is Linux's",
)
_PREPARE = """
import ctypes, os, signal, socket, struct, sys, threading
from workers.sandbox import Bounds, bound, close_off
libc = ctypes.CDLL(None, use_errno=True)
file = open(sys.argv[1], "rb")
bound(Bounds(memory_bytes=2**29, cpu_seconds=2, open_files=32, written_bytes=10))
assert close_off()
def tell(action):
    try:
        text = str(action())
    except (OSError, MemoryError) as error:
        text = str(getattr(error, "errno", None) or type(error).__name__)
    os.write(1, (text + "\\n").encode())
"""


def inside(code: str, *arguments: str) -> tuple[int, list[str]]:
    """What a child in the sandbox prints and its status; `file` is open there, and reads this module."""
    command = [sys.executable, "-c", _PREPARE + code, __file__, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    return done.returncode, done.stdout.split("\n")[:-1]


def test_nobody_is_called() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(0.3)
        port = listener.getsockname()[1]
        connect = f"lambda: socket.socket().connect(('127.0.0.1', {port}))"
        code = f"""
tell({connect})
for family, kind in ((socket.AF_INET, socket.SOCK_DGRAM), (socket.AF_UNIX, socket.SOCK_STREAM), (16, 3)):
    tell(lambda: socket.socket(family, kind))
tell(socket.socketpair)
"""
        assert inside(code)[1] == ["1"] * 5
        with pytest.raises(TimeoutError):
            listener.accept()
        # The same child without the filter does reach it: the listener can hear.
        subprocess.run([sys.executable, "-c", f"import socket; ({connect})()"], check=True)
        listener.accept()[0].close()


def test_no_other_file_is_opened_named_or_changed(tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    canary.write_text("canary")
    code = """
path = sys.argv[2]
tell(lambda: open("/etc/passwd").read())
tell(lambda: open(path).read())
tell(lambda: open(path, "w"))
tell(lambda: os.open(".", os.O_RDONLY))
for action in (os.unlink, os.rmdir, os.listdir, os.stat, os.chdir, lambda p: os.rename(p, p + "x"), os.mkfifo):
    tell(lambda: action(path))
tell(lambda: os.memfd_create("x"))
tell(lambda: os.dup(0))
tell(lambda: len(file.read()) > 1000)
"""
    assert inside(code, str(canary))[1] == ["1"] * 13 + ["True"]
    assert canary.read_text() == "canary"
    assert list(tmp_path.iterdir()) == [canary]


def test_nothing_is_started_and_nobody_is_signalled() -> None:
    code = """
def fork():
    if os.fork() == 0:
        os._exit(0)
tell(fork)
tell(lambda: os.execv("/bin/true", ["true"]))
tell(lambda: os.posix_spawn("/bin/true", ["true"], {}))
tell(lambda: os.kill(os.getppid(), 0))
tell(lambda: signal.pidfd_send_signal(0, 0))
def call(number, *arguments):
    if libc.syscall(number, *arguments) < 0:
        raise OSError(ctypes.get_errno(), "")
tell(lambda: call({"x86_64": 101, "aarch64": 117}[os.uname().machine], 0, 0, 0, 0))  # ptrace
tell(lambda: call({"x86_64": 234, "aarch64": 131}[os.uname().machine], os.getppid(), os.getppid(), 0))  # tgkill
tell(lambda: call(425, 1, 0))  # io_uring_setup, which would do all of it on one's behalf
"""
    assert inside(code)[1] == ["1"] * 8


def test_threads_of_its_own_still_work() -> None:
    code = "t = threading.Thread(target=lambda: tell(lambda: 'ran')); t.start(); t.join()"
    assert inside(code)[1] in (["ran"], [])  # [] where the limit on processes counts threads too (not for root)


def test_memory_is_bounded_and_never_executable() -> None:
    code = """
tell(lambda: len(bytearray(2**27)))
tell(lambda: bytearray(2**30))
libc.mmap.restype = ctypes.c_void_p
def take(protection):
    if libc.mmap(None, ctypes.c_size_t(4096), protection, 0x22, -1, 0) == ctypes.c_void_p(-1).value:
        raise OSError(ctypes.get_errno(), "")
tell(lambda: take(3))
tell(lambda: take(5))
"""
    assert inside(code)[1] == [str(2**27), "MemoryError", "None", str(errno.EPERM)]


def test_time_written_bytes_and_crashes_end_it() -> None:
    assert inside("while True: pass")[0] == -signal.SIGXCPU
    assert inside("tell(lambda: 'before'); os.abort()") == (-signal.SIGABRT, ["before"])
    assert inside("ctypes.string_at(0)")[0] == -signal.SIGSEGV


def test_the_filter_names_both_machines() -> None:
    programs = {machine: sandbox.filter_program(machine, 1) for machine in ("x86_64", "aarch64")}
    for program in programs.values():
        assert len(program) % 8 == 0
        assert len(program) // 8 < 4096
        # No jump leads behind the end, and the last word is a refusal.
        steps = [program[place : place + 8] for place in range(0, len(program), 8)]
        for place, step in enumerate(steps):
            if step[0] & 7 == 5:
                assert place + 1 + max(step[2], step[3]) < len(steps)
        assert steps[-1][0] == 6
        assert int.from_bytes(steps[-1][4:], "little") == 0x00050000 | errno.EPERM
    assert programs["x86_64"] != programs["aarch64"]


def test_doctor_tries_every_door() -> None:
    held, told = sandbox.found()
    assert held, told
    assert all(door in told for door in ("network", "files", "processes", "programs", "memory"))


def test_the_probe_sits_in_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The child of a probe has the filter and the limits on, no name of the file, and none of our variables."""
    video = clips.test_pattern(tmp_path / "v.mp4", seconds=0.5, tone_hz=None)
    monkeypatch.setenv("REELSENSE_S3_SECRET_KEY", "canary")
    seen: dict[str, object] = {}
    real = subprocess.Popen

    class Watched(real):  # type: ignore[type-arg, misc]
        def __init__(self, command: list[str], **options: object) -> None:
            slow = "import time, av.container.input; import workers.probe as p\n"
            slow += "p.look = lambda *_: (time.sleep(4), p.os._exit(3))\np.main(__import__('sys').argv[1:])"
            seen["command"] = [part for part in command if str(tmp_path) in part]
            super().__init__([sys.executable, "-P", "-c", slow, *command[4:]], **options)  # type: ignore[call-overload]
            seen["pid"] = self.pid

    monkeypatch.setattr(subprocess, "Popen", Watched)

    def look() -> None:
        for _ in range(200):
            time.sleep(0.05)
            if "pid" not in seen:
                continue
            status = Path(f"/proc/{seen['pid']}/status").read_text()
            if "Seccomp:\t2" in status:
                seen["privileges"] = "NoNewPrivs:\t1" in status
                seen["limits"] = Path(f"/proc/{seen['pid']}/limits").read_text()
                seen["environment"] = Path(f"/proc/{seen['pid']}/environ").read_bytes()
                return

    watcher = threading.Thread(target=look)
    watcher.start()
    with pytest.raises(MediaError) as caught:
        probing.probe(video, Limits(memory_bytes=2**30, probe_cpu_seconds=7, probe_files=33))
    watcher.join()
    assert caught.value.code == "media.decoder_crashed"
    assert seen["command"] == []
    assert seen["privileges"] is True
    limits = {line[:26].strip(): line[26:].split()[0] for line in str(seen["limits"]).splitlines()[1:]}
    assert limits["Max address space"] == str(2**30)
    assert limits["Max cpu time"] == "8"
    assert limits["Max open files"] == "33"
    assert limits["Max file size"] == "0" == limits["Max core file size"]
    environment = seen["environment"]
    assert isinstance(environment, bytes)
    assert b"canary" not in environment
    assert b"PATH=" in environment


def test_an_answer_of_a_decoder_taken_over_is_not_believed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Endless output, nonsense, and codes that do not exist are a crash, and cost no memory here."""
    video = clips.test_pattern(tmp_path / "v.mp4", seconds=0.5, tone_hz=None)
    real = subprocess.Popen
    for script in (
        "while True: sys.stdout.write('x' * 65536)",
        "print('{\"media\": {}}')",
        'print(\'{"error": {"code": "no.such", "message": "m"}}\')',
        "print('[' * 60000)",
        "print('{}')",
    ):

        class Other(real):  # type: ignore[type-arg, misc]
            def __init__(self, command: list[str], script: str = script, **options: object) -> None:
                super().__init__([command[0], "-c", "import sys\n" + script], **options)  # type: ignore[call-overload]

        monkeypatch.setattr(subprocess, "Popen", Other)
        with pytest.raises(MediaError) as caught:
            probing.probe(video, Limits())
        assert caught.value.code == "media.decoder_crashed", script


def test_no_module_is_taken_from_the_current_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`reelsense add` run in a folder of downloads must not run what lies there."""
    video = clips.test_pattern(tmp_path / "v.mp4", seconds=0.5, tone_hz=None)
    for name in ("json", "av", "pydantic", "workers"):
        (tmp_path / f"{name}.py").write_text("import os; os._exit(7)")
    monkeypatch.chdir(tmp_path)
    assert probing.probe(video, Limits()).width == 320
    assert Path.cwd() == tmp_path
