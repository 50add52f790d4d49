"""The same job on Ray Data, on two processes: the same artifacts, byte for byte, as a worker's."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from store.errors import ReelsenseError
from store.settings import load_settings
from tests.conftest import ROOT
from tests.workers.test_reembedding import ANEW, COUNT, FEWER_FRAMES, JobHouse, ready
from workers import extraction, reembedding
from workers.ray_engine import run_job

pytestmark = [pytest.mark.models, pytest.mark.slow]
needs_ray = pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="needs the extra `ray`")


@pytest.fixture(scope="module")
def encoders(tmp_path_factory: pytest.TempPathFactory) -> extraction.Encoders:
    return extraction.Encoders(load_settings(data=tmp_path_factory.mktemp("encoders")))


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory, encoders: extraction.Encoders) -> Path:
    return ready(tmp_path_factory.mktemp("done"), encoders)


def begun(folder: Path) -> JobHouse:
    """An installation with a job that is past its sample (which is empty here: nothing has run)."""
    house = JobHouse(load_settings(data=folder))
    job = reembedding.start(house.graph, FEWER_FRAMES, "ana")
    house.graph.jobs.note(job.id, state="running")
    return house


@needs_ray
def test_both_engines_write_the_same_artifacts(
    done: Path,
    encoders: extraction.Encoders,
    tmp_path: Path,
) -> None:
    for name in ("celery", "ray"):
        shutil.copytree(done / "data", tmp_path / name)
    house = begun(tmp_path / "celery")
    house.play(encoders, ("complete",))
    other = begun(tmp_path / "ray")
    command = [sys.executable, "-m", "workers.ray_engine", other.job().id, "--processes", "2"]
    done_by_ray = subprocess.run(
        command, cwd=ROOT, env=os.environ | other.settings.environment(), capture_output=True, text=True, check=False
    )
    assert done_by_ray.returncode == 0, done_by_ray.stderr
    assert done_by_ray.stdout.splitlines()[-1] == f"{COUNT} done"
    assert other.contents() == house.contents()
    versions = next(plan for plan in other.graph.plans if plan.job).versions if other.graph.refresh() is None else {}
    for stage in ANEW:
        assert other.attempts(stage, versions[stage]) == [1] * COUNT, stage
    assert other.play(encoders, ("complete",)) == [], "the feeder finds everything done"
    assert reembedding.switch(other.graph, other.job(), "ana")[0].state == "switched"
    again = subprocess.run(
        command, cwd=ROOT, env=os.environ | other.settings.environment(), capture_output=True, text=True, check=False
    )
    assert again.returncode == 1
    assert "job.wrong_state" in again.stderr


@pytest.mark.skipif(importlib.util.find_spec("ray") is not None, reason="Ray is installed here")
def test_without_ray_it_says_what_to_install(done: Path, tmp_path: Path) -> None:
    shutil.copytree(done / "data", tmp_path / "data")
    house = begun(tmp_path / "data")
    with pytest.raises(ReelsenseError) as caught:
        run_job(house.job(), house.graph, processes=2)
    assert caught.value.code == "engine.missing"
