"""The HTTP API as a process of its own, and the words of the tus protocol."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import http.client
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from store.catalogue import Catalogue
from store.settings import load_settings
from store.upload_ledger import Upload, UploadLedger
from tests.app.commands import environment, free_port, until
from tests.conftest import ROOT

TUS = {"Tus-Resumable": "1.0.0"}
UPLOADS = "/api/v1/uploads"


def piece(offset: int, **more: str) -> dict[str, str]:
    """Headers of a PATCH."""
    return TUS | {"Content-Type": "application/offset+octet-stream", "Upload-Offset": str(offset)} | more


def creation(length: int, **words: str) -> dict[str, str]:
    """Headers of a POST that begins an upload; `words` are its metadata."""
    pairs = [f"{name.replace('__', '.')} {base64.b64encode(text.encode()).decode()}" for name, text in words.items()]
    return TUS | {"Upload-Length": str(length)} | ({"Upload-Metadata": ",".join(pairs)} if pairs else {})


def sha1(data: bytes) -> str:
    """An Upload-Checksum."""
    return "sha1 " + base64.b64encode(hashlib.sha1(data).digest()).decode()


@dataclass
class Api:
    """A running API process."""

    process: subprocess.Popen[bytes]
    port: int

    def ask(
        self, method: str, path: str, headers: Mapping[str, str] | None = None, body: bytes | None = None
    ) -> tuple[int, dict[str, str], bytes]:
        """One request on a connection of its own."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            connection.request(method, path, body, dict(headers or {}))
            answer = connection.getresponse()
            return answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()
        finally:
            connection.close()

    def kill(self) -> None:
        """SIGKILL, at once."""
        self.process.kill()
        self.process.wait()


@contextlib.contextmanager
def serving(data: Path, **variables: str) -> Iterator[Api]:
    """`python -m app.api` on a data directory, until the block ends."""
    data.mkdir(parents=True, exist_ok=True)
    port = free_port()
    with (data / "api.log").open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "app.api"],
            cwd=ROOT,
            env=environment(REELSENSE_DATA=str(data), REELSENSE_PORT=str(port), **variables),
            stdout=log,
            stderr=log,
        )
    api = Api(process, port)
    try:
        until(lambda: _answers(api), 60, f"no API: {(data / 'api.log').read_text()}")
        yield api
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        try:
            process.wait(40)
        except subprocess.TimeoutExpired:
            process.kill()
            raise


def _answers(api: Api) -> bool:
    assert api.process.poll() is None, "the API ended"
    with contextlib.suppress(OSError):
        return api.ask("GET", "/health/live")[0] == 200
    return False


def ledger(data: Path) -> UploadLedger:
    """The ledger of a data directory."""
    return UploadLedger(Catalogue(load_settings(data=data).database_url()))


def ended(rows: UploadLedger, upload_id: str, seconds: float = 30) -> Upload:
    """The upload when it has ended."""
    deadline = time.monotonic() + seconds
    while True:
        upload = rows.find(upload_id)
        assert upload is not None
        if upload.state in ("taken", "refused"):
            return upload
        assert time.monotonic() < deadline, f"still {upload.state}"
        time.sleep(0.05)
