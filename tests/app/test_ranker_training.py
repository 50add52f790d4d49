"""Rankers in the product: what they are trained on, how they are served, switched and forgotten."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import sparse  # type: ignore[import-untyped]
from typer.testing import CliRunner

from app.cli import app
from app.feeds import Feeds
from app.forgetting import forget
from app.operations import ReelSense
from app.ranker_models import champion_of, listed, promote, rollback
from app.ranker_training import train_ranker, training_data_of
from app.rebuilding import rebuild
from ranker.events import KINDS
from ranker.models.histories import unpacked
from ranker.models.model import Progress, make_model
from ranker.models.training_data import ActLog, Content, TrainingData
from ranker.models.validation import split_by_time
from ranker.stored_rankers import (
    VIEWER_ARRAYS,
    StoredRanker,
    load,
    titles,
    viewer_arrays,
    viewers_of,
    without,
)
from ranker.video_table import VideoTable
from store.artifacts import ranker_key
from store.catalogue import StoredEvent
from store.errors import InputError, ReelsenseError
from store.local_objects import LocalObjects
from store.settings import load_settings
from tests.ranker import builders
from tests.ranker.builders import NOON, World, two_tastes, video_id


def act(user: str, name: str, kind: str = "like", at: float = NOON - 60, watched: float | None = None) -> StoredEvent:
    return StoredEvent(
        id=f"{user} {name} {kind} {at}",
        user_id=user,
        video_id=video_id(name),
        kind=kind,
        watched_seconds=watched,
        at=at,
    )


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    """The videos of an installation, made by hand in the version that it serves."""
    reelsense = ReelSense(load_settings(data=tmp_path))
    version = reelsense.graph.versions["published"]
    monkeypatch.setattr(builders, "VERSION", version)
    objects = LocalObjects(reelsense.settings.objects_directory())
    yield World(objects, reelsense.catalogue, VideoTable(objects, reelsense.catalogue, version))
    reelsense.catalogue.close()


@pytest.fixture
def reelsense(world: World, tmp_path: Path) -> ReelSense:
    two_tastes(world)
    # What is asked here is what sources find, not how fast they are on a busy machine.
    (tmp_path / "ranker.toml").write_text("[recall]\nseconds = 10.0\n")
    return ReelSense(load_settings(data=tmp_path))


def test_the_training_data_are_the_acts_by_number_and_what_the_videos_are(reelsense: ReelSense, world: World) -> None:
    world.publish("silent", "cooking", quiet=("audio",), duration=40.0)
    log = reelsense.event_log
    log.add([act("ben", "cars 1", at=NOON - 5), act("ben", "cars 0", "view", NOON - 9, watched=5.0)])
    log.add([act("ana", "silent", "skip"), act("ana", "gone"), act("zoe", "gone")])
    found = training_data_of(reelsense)
    assert found.viewer_ids == ("ana", "ben"), "zoe did nothing with any video that is there"
    assert list(found.video_ids) == sorted(found.video_ids)
    assert len(found.video_ids) == 14
    acts = found.data.log
    assert [found.viewer_ids[number] for number in acts.viewers] == ["ana", "ben", "ben"]
    assert [found.video_ids[number] for number in acts.videos] == [
        video_id(name) for name in ("silent", "cars 0", "cars 1")
    ]
    assert acts.at.tolist() == [NOON - 60, NOON - 9, NOON - 5]
    assert [KINDS[kind] for kind in acts.kinds] == ["skip", "view", "like"]
    assert acts.watched[1] == pytest.approx(0.25)
    assert np.isnan(acts.watched[[0, 2]]).all()
    assert acts.values[0] == pytest.approx(-0.5)
    assert 0 < acts.values[1] < acts.values[2] == 1.0
    content = found.data.content
    assert set(content.features) == {"fused", "vision", "audio", "text"}
    place = found.video_ids.index(video_id("cars 0"))
    row = reelsense.table.snapshot.row_of[video_id("cars 0")]
    np.testing.assert_array_equal(content.features["fused"][place], reelsense.table.snapshot.vectors[row])
    for features in content.features.values():
        np.testing.assert_allclose(np.linalg.norm(features, axis=1), 1.0, atol=1e-5)
    other = found.video_ids.index(video_id("cooking 0"))
    same = found.video_ids.index(video_id("cars 1"))
    vision = content.features["vision"]
    assert vision[place] @ vision[same] > 0.5 > vision[place] @ vision[other]
    assert content.tags is not None
    named = {content.tag_names[column]: weight for column, weight in zip(*_cells(content.tags, place), strict=True)}
    assert named == {"cars": 1.0, "road": 0.5}


def _cells(tags: object, row: int) -> tuple[list[int], list[float]]:
    own = tags[row]  # type: ignore[index]
    return own.indices.tolist(), own.data.tolist()


def test_an_empty_installation_has_empty_training_data(tmp_path: Path) -> None:
    found = training_data_of(ReelSense(load_settings(data=tmp_path)))
    assert (len(found.data.log), found.video_ids, found.viewer_ids) == (0, (), ())
    assert found.data.content.tag_names == ()


# --- training --------------------------------------------------------------------------------------------------------

VIEWERS = 60
SLOW = ("gru", "sasrec", "sasrec_content", "hybrid", "fm", "svdpp", "lightgcn", "two_tower")


def crowd(reelsense: ReelSense) -> None:
    """Sixty viewers who like five of the six videos of one taste each, one after the other."""
    reelsense.event_log.add(
        [
            act(f"viewer {n}", f"{('cooking', 'cars')[n % 2]} {(n + place) % 6}", at=NOON - 10_000 + 1000 * place + n)
            for n in range(VIEWERS)
            for place in range(5)
        ]
    )


def test_a_ranker_is_trained_on_the_past_judged_by_what_came_later_and_kept_with_its_card(
    reelsense: ReelSense,
) -> None:
    crowd(reelsense)
    seen: list[Progress] = []
    document = train_ranker(
        reelsense, "bpr", seed=3, settings={"epochs": 3, "dim": 4, "evaluate_every": 1}, on_progress=seen.append
    )
    assert [progress.done for progress in seen] == [1, 2, 3]
    assert seen[-1].judged is not None
    card = document["card"]
    assert card["data"] | {"until": 0} == {
        "acts": 300, "liked": 300, "viewers": 60, "videos": 13, "learnt_from": 270, "until": 0,
    }  # fmt: skip
    assert (card["validation"]["held_back"], card["validation"]["viewers"]) == ("time", 30)
    assert card["settings"]["seed"] == 3
    assert {"python", "numpy", "torch"} <= card["software"].keys()
    page = reelsense.objects.get(ranker_key("bpr", card["version"], "md")).decode()
    assert "| seed | 3 |" in page
    whole = json.dumps(card) + page
    assert "viewer 1" not in whole, "a card names nobody"
    assert not list((reelsense.settings.data / "training").iterdir()), "what was for going on with is gone"
    again = load(reelsense.objects, document["ranker"])
    assert (again.videos, again.viewers) == (
        training_data_of(reelsense).video_ids,
        training_data_of(reelsense).viewer_ids,
    )
    assert train_ranker(reelsense, "bpr", seed=3, settings=card["settings"])["ranker"] == document["ranker"]
    assert train_ranker(reelsense, "bpr", seed=4, settings=card["settings"])["ranker"] != document["ranker"]


class Stopped(Exception):
    """As a kill would."""


def test_a_stopped_run_goes_on_with_the_events_it_had_begun_with(reelsense: ReelSense) -> None:
    crowd(reelsense)
    settings = {"epochs": 4, "dim": 4, "evaluate_every": 1}
    whole = train_ranker(reelsense, "bpr", settings=settings)

    def stop(progress: Progress) -> None:
        if progress.done == 3:
            raise Stopped

    with pytest.raises(Stopped):
        train_ranker(reelsense, "bpr", settings=settings, on_progress=stop)
    reelsense.event_log.add([act("late", "cars 1", at=NOON + 5)])
    went_on = train_ranker(reelsense, "bpr", settings=settings)
    assert went_on["card"]["fit"]["resumed_at"] > 0
    assert went_on["ranker"] == whole["ranker"]
    anew = train_ranker(reelsense, "bpr", settings=settings)
    assert anew["card"]["fit"]["resumed_at"] == 0
    assert anew["card"]["data"]["acts"] == 301


def test_a_checkpoint_of_other_settings_is_not_gone_on_with(reelsense: ReelSense) -> None:
    crowd(reelsense)

    def stop(progress: Progress) -> None:
        if progress.done == 2:
            raise Stopped

    with pytest.raises(Stopped):
        train_ranker(reelsense, "bpr", settings={"epochs": 3, "dim": 4}, on_progress=stop)
    assert train_ranker(reelsense, "bpr", settings={"epochs": 3, "dim": 5})["card"]["fit"]["resumed_at"] == 0


@pytest.mark.parametrize(
    ("name", "settings", "code"),
    [
        ("nosuch", {}, "ranker.no_such_model"),
        ("ease", {"nosuch": 1}, "request.invalid"),
        ("ease", {"regularisation": -1}, "request.invalid"),
        ("ease", {"seed": 1}, "request.invalid"),
        ("ease", {}, "ranker.too_few_events"),
    ],
)
def test_what_makes_no_sense_is_refused(
    reelsense: ReelSense, name: str, settings: dict[str, object], code: str
) -> None:
    with pytest.raises(InputError) as refused:
        train_ranker(reelsense, name, settings=settings)
    assert refused.value.code == code
    assert titles(reelsense.objects) == []


def test_what_is_held_back_came_later_and_is_new_to_those_who_are_known() -> None:
    generator = np.random.default_rng(0)
    n = 800
    log = ActLog.of(generator.integers(0, 40, n), generator.integers(0, 60, n), 40, 60, at=generator.uniform(0, 1, n))
    split = split_by_time(log)
    assert split.how == "time"
    assert split.cut is not None
    assert split.train.at.max() < split.cut
    assert len(split.train) == 720
    rows, columns = split.held.nonzero()
    assert not split.train.binary[rows, columns].any(), "what was liked before cannot be found"
    assert (np.diff(split.train.starts)[rows] > 0).all()
    few = split_by_time(ActLog.of(np.array([0, 0, 1]), np.array([0, 1, 0]), 2, 2))
    assert (few.how, few.viewers, len(few.train)) == ("last_act", 1, 2)
    assert few.held.nonzero()[1].tolist() == [1]
    with pytest.raises(InputError, match="judge"):
        split_by_time(ActLog.of(np.array([0, 1]), np.array([0, 1]), 2, 2))


# --- champion and challenger -----------------------------------------------------------------------------------------


def test_a_challenger_is_served_when_it_is_better_and_only_then(reelsense: ReelSense) -> None:
    crowd(reelsense)
    good = train_ranker(reelsense, "ease", settings={"regularisation": 100.0})["ranker"]
    floor = train_ranker(reelsense, "popularity")["ranker"]
    assert champion_of(reelsense) is None
    with pytest.raises(InputError) as refused:
        promote(reelsense, floor)
    assert refused.value.code == "ranker.not_better", "a first one has to beat popularity, and is it"
    with pytest.raises(InputError) as refused:
        promote(reelsense, good, margin=0.99)
    assert refused.value.code == "ranker.not_better"
    served = promote(reelsense, good)
    assert (served["champion"], served["rival"], served["forced"]) == (good, "popularity", False)
    assert served["score"] > served["rival_score"] > 0
    assert champion_of(reelsense) == good
    with pytest.raises(InputError):
        promote(reelsense, good)
    worse = promote(reelsense, "popularity", force=True)
    assert (worse["rival"], worse["forced"], worse["rival_may_have_seen"]) == (good, True, False)
    assert worse["rival_score"] == served["score"], "both are asked the same"
    roles = {row["ranker"]: (row["role"], len(row["promotions"])) for row in listed(reelsense)["models"]}
    assert roles == {good: ("previous", 1), floor: ("champion", 1)}
    assert rollback(reelsense) == {"champion": good, "previous": floor}
    assert rollback(reelsense) == {"champion": floor, "previous": good}
    with pytest.raises(InputError):
        promote(reelsense, "nosuch")


def test_the_first_switch_is_rolled_back_to_none(reelsense: ReelSense) -> None:
    with pytest.raises(InputError):
        rollback(reelsense)
    crowd(reelsense)
    promote(reelsense, train_ranker(reelsense, "ease", settings={"regularisation": 100.0})["ranker"])
    assert rollback(reelsense)["champion"] is None
    assert champion_of(reelsense) is None


def test_a_rival_of_other_videos_and_viewers_is_asked_the_same(reelsense: ReelSense, world: World) -> None:
    crowd(reelsense)
    old = train_ranker(reelsense, "ease", settings={"regularisation": 100.0})
    world.publish("a new one", "cars")
    later = [act(f"viewer {n}", "a new one", at=NOON + n) for n in range(1, 60, 2)]
    reelsense.event_log.add([act("aaron", "cars 0", at=NOON - 20_000), act("zed", "cooking 0"), *later])
    found = training_data_of(reelsense, content=False)
    ranker = load(reelsense.objects, old["ranker"])
    rows = np.arange(len(found.viewer_ids))
    scores = ranker.scores(found.data.log, found.viewer_ids, found.video_ids, rows)
    unknown = found.video_ids.index(video_id("a new one"))
    assert np.isneginf(scores[:, unknown]).all()
    place = found.viewer_ids.index("viewer 7")
    own = ActLog.of(
        np.zeros(5, np.int64),
        np.array([ranker.video_numbers[video_id(f"cars {(7 + n) % 6}")] for n in range(5)]),
        1,
        13,
    )
    expected = ranker.model.score(own, np.array([0]))[0]
    aaron, zed = found.viewer_ids.index("aaron"), found.viewer_ids.index("zed")
    other = found.video_ids.index(video_id("cars 1"))
    assert scores[aaron, other] > scores[zed, other] == 0, "strangers are not one stranger"
    for video, number in ranker.video_numbers.items():
        assert scores[place, found.video_ids.index(video)] == pytest.approx(expected[number], abs=1e-6)


# --- serving ---------------------------------------------------------------------------------------------------------


def other_process(reelsense: ReelSense) -> Feeds:
    return ReelSense(reelsense.settings).feeds


def test_the_champion_is_one_more_source_and_its_term_adds_up_and_says_why(reelsense: ReelSense) -> None:
    crowd(reelsense)
    reelsense.event_log.add([act("ana", "cars 0")])
    before = other_process(reelsense).make("ana", 12, NOON)
    server = other_process(reelsense)
    server.make("ana", 12, NOON)
    document = train_ranker(reelsense, "ease", settings={"regularisation": 100.0})
    kept = server.make("ana", 12, NOON)
    assert [(item.video, item.terms) for item in kept.items] == [(item.video, item.terms) for item in before.items]
    assert not [term for item in kept.items for term in item.terms if term == "source_model"]
    promote(reelsense, document["ranker"])
    feed = server.make("ana", 12, NOON)
    assert feed.left_out == {}
    found = {item.video: item for item in feed.items if item.terms.get("source_model", 0) > 0}
    assert {video_id(f"cars {n}") for n in range(1, 6)} <= found.keys(), "what those liked who liked cars 0"
    for item in feed.items:
        assert item.score == math.fsum(item.terms.values())
    best = found[video_id("cars 1")]
    (said,) = [reason for reason in best.reasons if reason.get("source") == "model"]
    assert said["effect"] == best.terms["source_model"]
    assert said["path"] == [f"video:{video_id('cars 0')}", "model:ease", f"video:{video_id('cars 1')}"]
    assert "“cars 0” → ease → “cars 1”" in said["text"]


def test_an_event_counts_at_once_a_stranger_is_served_and_a_new_video_comes_from_elsewhere(
    reelsense: ReelSense, world: World
) -> None:
    crowd(reelsense)
    promote(reelsense, train_ranker(reelsense, "ease", settings={"regularisation": 100.0})["ranker"])
    server = other_process(reelsense)
    world.publish("a new one", "cars", tags={"cars": 1.0})
    reelsense.event_log.add([act("new here", "cooking 0")])

    def by_model() -> list[str]:
        items = server.make("new here", 13, NOON).items
        assert video_id("a new one") in {item.video for item in items}
        found = [item for item in items if item.terms.get("source_model", 0) > 0]
        return [item.video for item in sorted(found, key=lambda item: -item.terms["source_model"])]

    assert video_id("a new one") not in by_model()
    assert set(by_model()[:5]) == {video_id(f"cooking {n}") for n in range(1, 6)}
    reelsense.event_log.add([act("new here", f"cars {n}", kind="share", at=NOON - 1) for n in range(2)])
    assert set(by_model()[:3]) <= {video_id(f"cars {n}") for n in range(6)}


def test_a_damaged_champion_is_left_out_and_spoils_nothing(reelsense: ReelSense) -> None:
    crowd(reelsense)
    title = train_ranker(reelsense, "ease", settings={"regularisation": 100.0})["ranker"]
    promote(reelsense, title)
    name, _, version = title.partition("/")
    key = ranker_key(name, version, "safetensors")
    data = bytearray(reelsense.objects.get(key))
    data[-3] ^= 1
    reelsense.objects.put(key, bytes(data))
    feed = other_process(reelsense).make("viewer 1", 5, NOON)
    assert len(feed.items) == 5
    assert feed.left_out == {"model": "model.damaged"}
    other = reelsense.objects.get(ranker_key(name, version, "ids.json")).replace(b"3", b"4")
    reelsense.objects.put(key, bytes(data[:-3]) + bytes([data[-3] ^ 1]) + bytes(data[-2:]))
    reelsense.objects.put(ranker_key(name, version, "ids.json"), other)
    with pytest.raises(ReelsenseError) as refused:
        load(reelsense.objects, title)
    assert refused.value.code == "model.damaged", "ids of other videos"


@pytest.mark.slow
@pytest.mark.parametrize(("name", "torch"), [("ease", False), ("bpr", True)])
def test_a_serving_process_loads_torch_for_a_champion_that_needs_it_alone(
    reelsense: ReelSense, name: str, *, torch: bool
) -> None:
    crowd(reelsense)
    promote(reelsense, train_ranker(reelsense, name)["ranker"], force=True)
    program = (
        "import sys; from pathlib import Path; from app.operations import ReelSense\n"
        "from store.settings import load_settings\n"
        "reelsense = ReelSense(load_settings(data=Path(sys.argv[1])))\n"
        "items = reelsense.recommend('viewer 1', 9)['items']\n"
        "assert any('source_model' in item['terms'] for item in items)\n"
        "print('torch' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(reelsense.settings.data)], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout.strip()) == (0, str(torch)), done.stderr[-2000:]


# --- forgetting ------------------------------------------------------------------------------------------------------


def test_a_forgotten_viewer_is_in_no_stored_model_and_what_is_served_follows(
    reelsense: ReelSense, monkeypatch: pytest.MonkeyPatch
) -> None:
    crowd(reelsense)
    settings = {"epochs": 20, "dim": 4}
    titles_before = [
        train_ranker(reelsense, "bpr", settings=settings)["ranker"],
        train_ranker(reelsense, "ease", settings={"regularisation": 100.0})["ranker"],
        train_ranker(reelsense, "walk")["ranker"],
    ]
    monkeypatch.delitem(VIEWER_ARRAYS, "walk")
    for title in titles_before:
        promote(reelsense, title, force=True)
    rollback(reelsense)  # ease is served, walk was before
    old = load(reelsense.objects, titles_before[0])
    number = old.viewer_numbers["viewer 57"]
    assert old.model.arrays()["own"][number].any()
    server = other_process(reelsense)
    server.make("viewer 1", 3, NOON)
    proof = forget(reelsense, "viewer 57")
    assert sorted(proof["rankers"].values()) == ["cleaned", "cleaned", "withdrawn"]
    assert proof["rankers"][titles_before[2]] == "withdrawn", (
        "of a model that is not named nobody knows which numbers are whose"
    )
    assert proof["found"] == {}
    for item in reelsense.objects.list("models/"):
        assert b"viewer 57" not in reelsense.objects.get(item.key), item.key
    left = titles(reelsense.objects)
    assert not set(left) & set(titles_before), "cleaned ones are other versions"
    (bpr,) = [load(reelsense.objects, title) for title in left if title.startswith("bpr/")]
    assert bpr.viewers[number] is None
    assert not bpr.model.arrays()["own"][number].any()
    others = np.delete(np.arange(VIEWERS), number)
    np.testing.assert_array_equal(bpr.model.arrays()["own"][others], old.model.arrays()["own"][others])
    assert champion_of(reelsense) in left
    assert reelsense.catalogue.choices()["ranker.previous"] == "none", "what was withdrawn is not gone back to"
    rows = {row["ranker"]: row["forgotten_viewers"] for row in listed(reelsense)["models"]}
    assert set(rows.values()) == {1}
    assert server.make("viewer 1", 3, NOON).left_out == {}
    assert forget(reelsense, "viewer 57")["rankers"] == {}
    assert promote(reelsense, bpr.title, force=True)["viewers"] == 29, "who is gone is no part of what is judged"


def test_who_is_forgotten_while_a_model_is_trained_is_not_in_what_is_stored(reelsense: ReelSense) -> None:
    crowd(reelsense)

    def forget_now(progress: Progress) -> None:
        if progress.done == 2:
            forget(ReelSense(reelsense.settings), "viewer 7")

    train_ranker(reelsense, "bpr", settings={"epochs": 3, "dim": 4}, on_progress=forget_now)
    (title,) = titles(reelsense.objects)
    assert "viewer 7" not in viewers_of(reelsense.objects, title)
    assert "viewer 8" in viewers_of(reelsense.objects, title)


def test_a_bucket_of_before_brings_nobody_back(reelsense: ReelSense) -> None:
    crowd(reelsense)
    train_ranker(reelsense, "ease", settings={"regularisation": 100.0})
    kept = {item.key: reelsense.objects.get(item.key) for item in reelsense.objects.list("models/")}
    forget(reelsense, "viewer 7")
    for key, data in kept.items():
        reelsense.objects.put(key, data)
    assert any("viewer 7" in viewers_of(reelsense.objects, title) for title in titles(reelsense.objects))
    rebuild(reelsense)
    assert not any("viewer 7" in viewers_of(reelsense.objects, title) for title in titles(reelsense.objects))


NAMES = sorted(VIEWER_ARRAYS)
# Inputs that have rows for viewers of their own.
MADE_OF = {
    "multitask": {"inputs": ["bpr", "graph"], "input_settings": {"bpr": {"epochs": 1}, "graph": {"model": "walk"}}}
}


@pytest.mark.parametrize("name", [pytest.param(n, marks=[pytest.mark.slow] if n in SLOW else []) for n in NAMES])
def test_of_each_model_it_is_known_which_numbers_are_a_viewers(name: str) -> None:
    """Whatever is as long as there are viewers is named, and holds nothing of a forgotten one; the others stay."""
    generator = np.random.default_rng(1)
    n_viewers, n_videos = 137, 11
    log = ActLog.of(generator.integers(0, n_viewers, 900), generator.integers(0, n_videos, 900), n_viewers, n_videos)
    features = generator.standard_normal((n_videos, 5)).astype(np.float32)
    tags = sparse.csr_matrix(np.eye(n_videos, 3, dtype=np.float32))
    settings: dict[str, Any] = dict(MADE_OF.get(name, {}))
    if "epochs" in make_model(name).config.model_dump():
        settings["epochs"] = 1
    model = make_model(name, settings)
    model.fit(TrainingData(log, Content({"fused": features}, tags, ("a", "b", "c"))))
    ranker = StoredRanker(model, tuple(f"v{n}" for n in range(n_videos)), tuple(f"u{n}" for n in range(n_viewers)))
    left = without(ranker, ["u5", "nobody"])
    assert left is not None
    assert left.viewers[5] is None
    own = viewer_arrays(model)
    assert own is not None
    before, after = model.arrays(), left.model.arrays()
    for key in before:
        if before[key].shape[:1] in ((n_viewers,), (n_viewers + 1,)):
            assert key.removesuffix(".indptr") in (*own[0], *own[1]), key
        if key in own[0]:
            assert not after[key][5].any(), key
            np.testing.assert_array_equal(np.delete(after[key], 5, 0), np.delete(before[key], 5, 0))
    for key in own[1]:
        was, now = unpacked(key, before), unpacked(key, after)
        assert was[5].nnz > now[5].nnz == 0
        assert was.nnz - now.nnz == was[5].nnz
    scores = left.model.score(log, np.arange(n_viewers))
    assert np.isfinite(scores).all()
    if not own[0] and not own[1]:
        np.testing.assert_array_equal(scores, model.score(log, np.arange(n_viewers)))


# --- commands --------------------------------------------------------------------------------------------------------


def test_the_commands_train_list_promote_and_roll_back(reelsense: ReelSense) -> None:
    crowd(reelsense)
    run, data = CliRunner(), ["--data", str(reelsense.settings.data)]

    def asked(*arguments: str) -> dict[str, object]:
        done = run.invoke(app, [*arguments, *data, "--json"])
        assert done.exit_code == 0, done.output
        found: dict[str, object] = json.loads(done.stdout)
        return found

    trained = asked("train", "ranker", "--model", "ease", "--set", "regularisation=100.0", "--promote")
    assert trained["promotion"]["champion"] == trained["ranker"]  # type: ignore[index]
    said = run.invoke(app, ["train", "ranker", "--model", "popularity", *data])
    assert said.exit_code == 0, said.output
    assert "popularity/" in said.stdout
    assert len(asked("ranker", "models")["models"]) == 2  # type: ignore[arg-type]
    shown = run.invoke(app, ["ranker", "models", *data])
    assert "champion" in shown.stdout
    assert run.invoke(app, ["ranker", "promote", "popularity", *data]).exit_code == 1
    assert asked("ranker", "promote", "popularity", "--force")["forced"] is True
    assert asked("ranker", "rollback")["champion"] == trained["ranker"]
    assert "settings.invalid" in run.invoke(app, ["train", "ranker", "--model", "ease", "--set", "x", *data]).stderr
