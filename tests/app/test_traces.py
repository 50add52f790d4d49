"""Traces on the real stack: one from the upload through every stage to the publication."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest

from store.errors import SettingsError
from store.settings import load_settings
from tests import clips
from tests.app.commands import reelsense, stack, until
from workers import tracing
from workers.stages import BY_NAME, STAGES


@pytest.mark.slow
@pytest.mark.models
@pytest.mark.stack
def test_one_trace_leads_from_the_upload_to_the_publication(tmp_path: Path) -> None:
    pytest.importorskip("opentelemetry.sdk", reason="needs the extra `tracing`, which is not installed")
    data, target = tmp_path / "data", tmp_path / "traces.jsonl"
    settings = {"REELSENSE_TRACES": str(target), "REELSENSE_WORKERS": "1"}
    clip = clips.test_pattern(tmp_path / "a.mp4", seconds=1.0, tone_hz=440.0)
    with stack(data, **settings):
        assert reelsense("add", clip, "--wait", "--data", data, **settings).status == 0
        wanted = {"upload", *(stage.name for stage in STAGES)}
        until(lambda: {span["name"] for span in read(target)} >= wanted, 30, f"only {read(target)}")
    spans = {span["name"]: span for span in read(target)}
    assert {span["trace_id"] for span in spans.values()} == {spans["upload"]["trace_id"]}
    ids = {span["span_id"]: name for name, span in spans.items()}
    for stage in STAGES:
        # The stage that ended last of those it needs has sent it; without needs, the upload has.
        assert ids[spans[stage.name]["parent_id"]] in (BY_NAME[stage.name].needs or ("upload",)), stage.name
        assert spans[stage.name]["attributes"]["reelsense.video"] == spans["upload"]["attributes"]["reelsense.video"]
        assert spans[stage.name]["attributes"]["reelsense.task"]


def test_without_the_extra_the_setting_is_refused(tmp_path: Path) -> None:
    if importlib.util.find_spec("opentelemetry.sdk") is not None:
        pytest.skip("the extra `tracing` is installed here")
    with pytest.raises(SettingsError, match="OpenTelemetry") as refused:
        tracing.start(load_settings(data=tmp_path, traces=str(tmp_path / "t")), "test")
    assert "reelsense[tracing]" in refused.value.hint


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
