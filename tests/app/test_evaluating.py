"""`reelsense evaluate` on the events of an installation."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from app.cli import app
from app.evaluating import USUAL, evaluate
from app.operations import ReelSense
from ranker.video_table import VideoTable
from store.catalogue import StoredEvent
from store.errors import InputError
from store.local_objects import LocalObjects
from store.settings import load_settings
from tests.ranker import builders
from tests.ranker.builders import NOON, World, video_id

QUICK = ("popularity", "item_knn", "hybrid")


def furnished(folder: Path, videos: int, acts: list[tuple[int, str, str, float]]) -> Path:
    """An installation of so many videos of each of two topics, and acts of (viewer, video, kind, seconds from noon)."""
    reelsense = ReelSense(load_settings(data=folder))
    objects = LocalObjects(reelsense.settings.objects_directory())
    with pytest.MonkeyPatch.context() as patch:
        version = reelsense.graph.versions["published"]
        patch.setattr(builders, "VERSION", version)
        world = World(objects, reelsense.catalogue, VideoTable(objects, reelsense.catalogue, version))
        for place in range(videos):
            for topic in ("cars", "cooking"):
                world.publish(f"{topic} {place}", topic, tags={topic: 1.0})
    reelsense.event_log.add(
        [
            StoredEvent(
                id=str(place),
                user_id=f"viewer {viewer:02d}",
                video_id=video_id(video),
                kind=kind,
                watched_seconds=None,
                at=NOON + at,
            )
            for place, (viewer, video, kind, at) in enumerate(acts)
        ]
    )
    reelsense.catalogue.close()
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Thirty viewers of two tastes, eight acts each on twenty-four videos."""
    stream = np.random.default_rng(0)
    acts = []
    for viewer in range(30):
        topic = ("cars", "cooking")[viewer % 2]
        for step, place in enumerate(stream.permutation(12)[:8]):
            acts.append((viewer, f"{topic} {place}", "skip" if step == 3 else "like", -5000.0 + 100 * step + viewer))
    return furnished(tmp_path_factory.mktemp("tastes"), 12, acts)


def run(folder: Path, *arguments: str) -> dict:
    result = CliRunner().invoke(app, ["evaluate", "--data", str(folder), "--json", *arguments])
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


@pytest.mark.parametrize("split", ["global_time", "leave_last_out", "random"])
def test_models_are_measured_on_what_viewers_did_next(folder: Path, split: str) -> None:
    found = evaluate(ReelSense(load_settings(data=folder)), QUICK, split=split)
    assert found["split"] == split
    assert found["train"] + found["valid"] + found["test"] <= 240
    assert found["test"] > 0
    assert list(found["models"]) == list(QUICK)
    tastes, popular = found["models"]["item_knn"], found["models"]["popularity"]
    assert tastes["recall@10"] > popular["recall@10"] + 0.1
    assert found["best_by_validation"] in ("item_knn", "hybrid")
    assert set(tastes["beyond"]) == {
        f"{name}@10" for name in ("coverage", "gini", "novelty", "serendipity", "variety", "miscalibration")
    }
    assert tastes["beyond"]["miscalibration@10"] < popular["beyond"]["miscalibration@10"]
    assert tastes["low"] <= tastes["ndcg@10"] <= tastes["high"]
    assert (
        tastes["groups"]["light"]["viewers"] + tastes["groups"].get("heavy", {"viewers": 0})["viewers"]
        == (tastes["viewers"])
    )
    assert sum(sum(weights) for weights in found["models"]["hybrid"]["weights"].values()) == pytest.approx(1, abs=0.01)


def test_the_command_prints_one_document_or_tables(folder: Path) -> None:
    asked = ("--model", "popularity", "--model", "item_knn", "--split", "leave_last_out")
    document = run(folder, *asked)
    assert list(document["models"]) == ["popularity", "item_knn"]
    again = run(folder, *asked)
    for rows in (document["models"], again["models"]):
        for row in rows.values():
            row.pop("fit_cpu_seconds")
    assert document == again
    result = CliRunner().invoke(app, ["evaluate", "--data", str(folder), *asked])
    assert result.exit_code == 0
    assert "Beyond being right" in result.stdout
    assert "item_knn" in result.stdout


def test_a_model_that_cannot_be_fitted_costs_the_others_nothing(tmp_path: Path) -> None:
    # Nobody has three acts to learn from, and a hybrid of its own needs that; the last acts are of five new viewers.
    acts = [
        (viewer, f"{topic} {viewer % 3}", "like", -900.0 + 10 * viewer + step)
        for viewer in range(10)
        for step, topic in enumerate(("cars", "cooking"))
    ]
    acts += [(viewer, f"cars {viewer % 3}", "like", float(viewer - 20)) for viewer in range(10, 15)]
    found = evaluate(ReelSense(load_settings(data=furnished(tmp_path, 3, acts))), ["hybrid", "popularity"])
    assert found["models"]["hybrid"]["error"]["code"] == "ranker.too_few_events"
    assert found["best_by_validation"] == "popularity"
    assert found["viewers_without_training"] == 5
    assert found["models"]["popularity"]["groups"]["few_events"]["viewers"] == 2


def test_what_cannot_be_evaluated_is_told(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    empty = tmp_path_factory.mktemp("empty")
    result = CliRunner().invoke(app, ["evaluate", "--data", str(empty), "--json", "--model", "popularity"])
    assert result.exit_code == 1
    assert json.loads(result.stdout)["error"]["code"] == "ranker.too_few_events"
    result = CliRunner().invoke(app, ["evaluate", "--data", str(folder), "--json", "--model", "oracle"])
    assert json.loads(result.stdout)["error"]["code"] == "ranker.no_such_model"
    with pytest.raises(InputError) as told:
        evaluate(ReelSense(load_settings(data=folder)), ["popularity"], split="by_moon")
    assert told.value.code == "request.invalid"


def test_the_usual_models_exist() -> None:
    from ranker.models.model import MODELS

    assert set(USUAL) <= set(MODELS)
