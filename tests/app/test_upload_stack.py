"""An upload over HTTP to a running stack is processed to its end, and nobody has to ask for it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from app.stack import running
from store.settings import load_settings
from tests import clips
from tests.app.commands import stack, until
from tests.app.serving import UPLOADS, Api, creation, piece


@pytest.mark.slow
@pytest.mark.models
@pytest.mark.stack
@pytest.mark.timeout(600)
def test_an_upload_is_ready_by_itself(tmp_path: Path) -> None:
    clip = clips.test_pattern(tmp_path / "a.mp4", seconds=1.0, tone_hz=220.0).read_bytes()
    data = tmp_path / "data"
    # No sweep helps: what is sent is sent by the upload and by the stages.
    with stack(data, REELSENSE_SWEEP_SECONDS="3600") as up:
        info = running(load_settings(data=data))
        assert info is not None
        api = Api(up, int(info.api.rpartition(":")[2]))  # type: ignore[arg-type]

        def shown(path: str) -> dict[str, str]:
            status, _, body = api.ask("GET", path)
            assert status == 200, body
            found: dict[str, str] = json.loads(body)
            return found

        def answers() -> bool:
            try:
                return api.ask("GET", "/health/ready")[0] == 200
            except OSError:
                return False

        until(answers, 60, "no API")
        where = api.ask("POST", UPLOADS, creation(len(clip), title="mine"))[1]["location"]
        assert api.ask("PATCH", where, piece(0), clip)[0] == 204
        until(lambda: shown(where)["state"] == "taken", 60, "it was not taken in")
        video = shown(where)["video"]
        until(lambda: shown(f"/api/v1/videos/{video}")["state"] == "ready", 300, "it was not processed")
