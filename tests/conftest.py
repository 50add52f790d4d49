"""Fixtures that every test may use."""

from __future__ import annotations

import csv
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.store.servers import free_port, new_database

ROOT = Path(__file__).parent.parent
SHARED = ROOT.parent / "shared"


@pytest.fixture(scope="session")
def shared_media() -> Path:
    """The folder of real clips, good and bad, beside a checkout; tests that need it skip aloud without it."""
    folder = SHARED / "media"
    if not (folder / "index.csv").is_file():
        pytest.skip("needs the real clips in ../shared/media, which this checkout does not have")
    return folder


@pytest.fixture(scope="session")
def media_index(shared_media: Path) -> dict[str, dict[str, str]]:
    """The rows of ../shared/media/index.csv by file name."""
    with (shared_media / "index.csv").open(newline="") as stream:
        return {row["file"]: row for row in csv.DictReader(stream)}


def postgresql_binaries() -> Path | None:
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    if found:
        return found[-1].parent
    on_path = shutil.which("initdb")
    return Path(on_path).parent if on_path else None


@pytest.fixture(scope="session")
def postgresql_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a PostgreSQL cluster of our own on a free loopback port: one for each process of the tests."""
    binaries = postgresql_binaries()
    if binaries is None:
        pytest.skip("needs PostgreSQL (Debian: apt-get install postgresql; .ci/run does it)")
    folder = tmp_path_factory.mktemp("postgresql")
    user = []
    if os.getuid() == 0:  # the server refuses to run as root
        user = ["runuser", "-u", "postgres", "--"]
        for parent in (folder, *folder.parents):
            if parent.owner() == "root" and parent.stat().st_mode & 0o077 == 0:
                parent.chmod(0o711)
        shutil.chown(folder, "postgres")
    port = free_port()
    cluster = folder / "cluster"
    subprocess.run(
        [*user, str(binaries / "initdb"), "-D", str(cluster), "-U", "test", "-A", "trust"],
        check=True,
        capture_output=True,
    )
    options = f"-p {port} -c listen_addresses=127.0.0.1 -c unix_socket_directories= -c fsync=off"
    subprocess.run(
        [*user, str(binaries / "pg_ctl"), "-D", str(cluster), "-w", "-l", str(folder / "log"), "-o", options, "start"],
        check=True,
        stdout=subprocess.DEVNULL,
    )
    try:
        yield f"postgresql://test@127.0.0.1:{port}/postgres"
    finally:
        subprocess.run(
            [*user, str(binaries / "pg_ctl"), "-D", str(cluster), "-m", "immediate", "stop"],
            check=False,
            capture_output=True,
        )


@pytest.fixture(scope="module")
def postgresql(postgresql_server: str) -> str:
    """The URL of a database of its own for each file of tests."""
    return new_database(postgresql_server)
