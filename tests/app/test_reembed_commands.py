"""Re-embedding through the public commands on a real stack: broker, workers, feeder."""

from __future__ import annotations

import contextlib
import json
import os
import signal
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from app.cli import app
from store.catalogue import Catalogue
from store.jobs import Jobs
from store.settings import load_settings
from tests import clips
from tests.app.commands import descendants, reelsense, stack, until

pytestmark = [pytest.mark.models, pytest.mark.stack]
COUNT = 4
QUICK = {"REELSENSE_SWEEP_SECONDS": "1", "REELSENSE_LEASE_SECONDS": "4"}


@pytest.fixture(scope="module")
def batch(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("batch")
    return [
        clips.test_pattern(folder / f"{number}.mp4", seconds=1.0 + number / 5, tone_hz=220.0 * (1 + number))
        for number in range(COUNT)
    ]


def ask(data: Path, *arguments: object) -> Any:
    answer = reelsense(*arguments, "--json", "--data", data)
    assert answer.status == 0, answer.stdout + answer.stderr
    return answer.json


def refused(data: Path, *arguments: object) -> str:
    answer = reelsense(*arguments, "--json", "--data", data)
    assert answer.status == 1, answer.stdout
    code: str = answer.json["error"]["code"]
    return code


def await_end(data: Path, job: str) -> dict[str, Any]:
    """What `reembed show` says when the job has come to an end."""
    jobs = Jobs(Catalogue(load_settings(data=data).database_url()))
    until(lambda: jobs.job(job).state in ("complete", "failed"), 600, "the job does not end")
    shown: dict[str, Any] = ask(data, "reembed", "show", job)
    return shown


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_from_a_plan_to_a_switch_and_back(batch: list[Path], tmp_path: Path) -> None:
    """The feeder and a worker are killed in the middle: every run of the job is done once all the same."""
    data = tmp_path / "data"
    with stack(data, **QUICK) as up:
        ids = [item["id"] for item in ask(data, "add", *batch, "--region", "DE", "--wait")["videos"]]
        ask(data, "event", "ana", ids[0], "--kind", "like")
        before = ask(data, "recommend", "ana")
        plan = ask(data, "reembed", "start", "--stage", "vision", "--set", "frames=3", "--dry-run")
        assert plan["videos"] == COUNT
        assert plan["stages"]["vision"]["runs"] == COUNT
        assert "audio" in plan["unchanged"]
        slow = ask(data, "reembed", "start", "--set", "frames=3", "--rate", "0.0001")["job"]
        assert refused(data, "reembed", "start", "--set", "frames=4") == "job.overlaps"
        assert refused(data, "reembed", "switch", slow) == "job.incomplete"
        assert ask(data, "reembed", "cancel", slow)["state"] == "cancelled"
        job = ask(
            data, "reembed", "start", "--set", "frames=3", "--rate", "0.4", "--where", "uploaded_at > 2020-01-01"
        )["job"]
        until(lambda: own_runs(data, ids) > 0, 60, "nothing under way")
        kill(up.pid, "workers.feeder")
        kill(up.pid, "workers.worker")
        shown = await_end(data, job)
        assert (shown["state"], shown["done"], shown["failed"]) == ("complete", COUNT, 0)
        assert shown["canary"]["videos"] == COUNT
        still = ask(data, "recommend", "ana")["items"]
        assert [item["video"] for item in still] == [item["video"] for item in before["items"]]
        switched = ask(data, "reembed", "switch", job)
        assert switched["served"]["overrides"] == {"frames": 3}
        after = ask(data, "recommend", "ana")
        assert {item["video"] for item in after["items"]} == {item["video"] for item in before["items"]}
        late = ask(data, "add", clips.colour_bars(tmp_path / "late.mp4", seconds=1.0), "--wait")["videos"][0]
        stages = ask(data, "status", late["id"])["videos"][0]["stages"]
        assert stages["frames"]["version"] == switched["served"]["versions"]["frames"], "uploads follow the switch"
        assert ask(data, "reembed", "gc", "--dry-run")["artifacts"] == 0
        back = ask(data, "reembed", "rollback")
        assert (back["state"], back["served"]["overrides"]) == ("rolled_back", {})
    runs = Catalogue(load_settings(data=data).database_url()).runs(ids)
    versions = switched["served"]["versions"]
    changed = set(plan["stages"])
    own = [run for run in runs if run.stage in changed and run.version == versions[run.stage]]
    assert Counter(run.stage for run in own) == Counter(dict.fromkeys(changed, COUNT))
    assert {run.state for run in own} == {"done"}
    assert sum(run.attempts - 1 for run in own) <= 1, "only the run that died with its worker was tried again"


def own_runs(data: Path, ids: list[str]) -> int:
    """How many versions of `frames` the ledger knows beside the first: the job has begun when there is one."""
    runs = Catalogue(load_settings(data=data).database_url()).runs(ids)
    return len({run.version for run in runs if run.stage == "frames"}) - 1


def kill(pid: int, module: str) -> None:
    """SIGKILL of a process of the stack that runs this module."""
    found = [child for child, command in descendants(pid).items() if module in command]
    assert found, descendants(pid)
    with contextlib.suppress(ProcessLookupError):
        os.kill(found[0], signal.SIGKILL)


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("start", "--stage", "colour", "--set", "frames=3"), "stage.unknown"),
        (("start", "--set", "frames=0"), "settings.invalid"),
        (("start", "--set", "threads=2"), "settings.invalid"),
        (("start", "--model-set", "none"), "model.unknown"),
        (("start", "--set", "encoders.vision=none"), "model.unknown"),
        (("start", "--set", "frames=3", "--where", "region = DE"), "filter.invalid"),
        (("start", "--set", "frames=3", "--rate", "0"), "request.invalid"),
        (("start", "--stage", "vision"), "job.nothing_to_do"),
        (("start", "--set", "frames=3"), "job.nothing_to_do"),
        (("show", "abcd"), "job.unknown"),
        (("pause", "abcd"), "job.unknown"),
        (("switch", "abcd"), "job.unknown"),
        (("rollback",), "job.wrong_state"),
    ],
)
def test_mistakes_are_coded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], code: str
) -> None:
    for name in [name for name in os.environ if name.startswith("REELSENSE_")]:
        monkeypatch.delenv(name)
    run = CliRunner()
    answer = run.invoke(app, ["reembed", *arguments, "--json", "--data", str(tmp_path)])
    assert (answer.exit_code, json.loads(answer.stdout)["error"]["code"]) == (1, code)
    listed = run.invoke(app, ["reembed", "ls", "--json", "--data", str(tmp_path)])
    assert json.loads(listed.stdout) == {"jobs": []}


def test_the_place_of_a_mistake_in_a_filter_is_shown(tmp_path: Path) -> None:
    where = "uploaded_at > 2026-01-01 and region = DE"
    answer = reelsense("reembed", "start", "--set", "frames=3", "--where", where, "--data", tmp_path)
    lines = answer.stderr.splitlines()
    assert lines[0].startswith("filter.invalid: The filter is not understood at character 39:")
    assert lines[1] == f"  {where}"
    assert lines[2].index("^") - 2 == where.index("DE")


def test_a_dry_run_of_what_changes_nothing_says_so(tmp_path: Path) -> None:
    plan = ask(tmp_path, "reembed", "start", "--stage", "vision", "--dry-run")
    assert (plan["videos"], plan["stages"]) == (0, {})


@pytest.mark.slow
def test_without_a_broker_a_job_waits_for_the_next_stack(batch: list[Path], tmp_path: Path) -> None:
    data = tmp_path / "data"
    ask(data, "add", batch[0], "--wait")
    job = ask(data, "reembed", "start", "--set", "frames=2")
    assert (job["state"], job["broker"]) == ("planned", False)
    with stack(data, **QUICK):
        assert await_end(data, job["job"])["state"] == "complete"
