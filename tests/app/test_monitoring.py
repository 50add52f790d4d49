"""What operators see: names, types and values of `/metrics`, readiness, log lines without secrets, the live view."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog
import yaml
from prometheus_client.parser import text_string_to_metric_families
from starlette.testclient import TestClient

from app.api import create_api
from app.metrics import GAUGES, names
from app.readiness import Part
from store import ledger_figures, measurements
from store.api_keys import ApiKeys
from store.catalogue import Catalogue, RunKey
from store.errors import InputError, PassingError
from store.measured_objects import open_measured
from store.settings import Settings, load_settings
from tests import clips
from tests.app.commands import environment, reelsense
from tests.conftest import ROOT
from workers import logs, tracing

UNITS = ("_seconds", "_bytes", "_ratio", "_total")


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return load_settings(data=tmp_path / "data")


@pytest.fixture
def catalogue(settings: Settings) -> Iterator[Catalogue]:
    catalogue = Catalogue(settings.database_url())
    measurements.flush(catalogue)  # what other tests have counted in this process
    yield catalogue
    catalogue.close()


@pytest.fixture
def client(settings: Settings) -> Iterator[TestClient]:
    with TestClient(create_api(settings), base_url="http://127.0.0.1") as client:
        yield client


def samples(text: str) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def queued(catalogue: Catalogue, number: int, stage: str = "frames", at: float | None = None) -> RunKey:
    key = RunKey(video_id=f"{number:032x}", stage=stage, version="v", revision="")
    catalogue.mark_queued(key, at)
    return key


# --- the numbers -----------------------------------------------------------------------------------------------------


def test_names_follow_the_conventions_of_prometheus(client: TestClient) -> None:
    client.get("/api/v1/viewers/ana/feed")
    text = client.get("/metrics").text
    families = {family.name: family for family in text_string_to_metric_families(text)}
    for name, family in families.items():
        assert re.fullmatch(r"reelsense_[a-z]+(_[a-z]+)*", name), name
        assert family.documentation, f"{name} has no HELP"
        assert family.type in ("counter", "gauge", "histogram"), name
        if family.type == "histogram":
            assert name.endswith(UNITS[:3]), f"{name} says no unit"
        assert not re.search(r"milli|minute|percent|_ms\b|kilo", name), f"{name} is in no base unit"
    for measure in measurements.MEASURES:
        assert measure.name.endswith("_total") == (measure.kind == "counter"), measure.name
        assert measure.name.removesuffix("_total") in families
        assert list(measure.buckets) == sorted(set(measure.buckets))
    assert not any(name.endswith("_total") for name in GAUGES)
    assert set(GAUGES) <= set(families)
    allowed = {"stage", "state", "code", "reason", "place", "operation", "outcome", "method", "route", "status"}
    used = {label for measure in measurements.MEASURES for label in measure.labels}
    used |= {label for _, labels in GAUGES.values() for label in labels}
    assert used <= allowed | {"part", "queue", "kind", "worker"}, "a label that may take values without end"


def test_the_ledger_is_told_as_it_is(client: TestClient, catalogue: Catalogue) -> None:
    queued(catalogue, 1, at=time.time() - 100)
    queued(catalogue, 2)
    failed = queued(catalogue, 3, "vision")
    assert catalogue.claim(failed, "host/1", 30.0) == 1
    catalogue.fail(failed, InputError("media.no_frames", "None."))
    found = samples(client.get("/metrics").text)
    assert found["reelsense_queue_depth", (("queue", "frames"),)] == 2
    assert 100 <= found["reelsense_queue_oldest_age_seconds", (("queue", "frames"),)] < 130
    assert found["reelsense_queue_oldest_age_seconds", (("queue", "vision"),)] == 0
    assert found["reelsense_runs", (("stage", "vision"), ("state", "failed"))] == 1
    assert found["reelsense_dead_letters", (("code", "media.no_frames"), ("stage", "vision"))] == 1
    assert found["reelsense_part_up", (("part", "database"),)] == 1
    assert found["reelsense_part_up", (("part", "broker"),)] == 0


def test_uploads_feeds_and_requests_are_counted(client: TestClient, tmp_path: Path) -> None:
    clip = clips.test_pattern(tmp_path / "a.mp4", seconds=1.0, tone_hz=None)
    assert client.post("/api/v1/videos", files={"file": ("a.mp4", clip.read_bytes())}).status_code == 202
    assert client.post("/api/v1/videos", files={"file": ("b.mp4", b"text")}).status_code == 422
    assert client.get("/api/v1/viewers/ana/feed").status_code == 200
    found = samples(client.get("/metrics").text)
    assert found["reelsense_uploads_accepted_total", (("outcome", "new"),)] == 1
    assert found["reelsense_uploads_refused_total", (("code", "media.not_media"),)] == 1
    assert found["reelsense_feed_seconds_count", ()] == 1
    route = ("route", "/api/v1/viewers/{user}/feed")
    assert found["reelsense_http_requests_total", (("method", "GET"), route, ("status", "200"))] == 1
    assert found["reelsense_store_operation_seconds_count", (("operation", "put_file"),)] >= 1


def test_two_processes_add_up_and_none_counts_twice(catalogue: Catalogue, settings: Settings) -> None:
    code = """
from store import measurements
from store.catalogue import Catalogue
from store.settings import load_settings
import os
measurements.count("reelsense_tokens_total", 3, stage="vision")
if os.fork() == 0:
    measurements.count("reelsense_tokens_total", 4, stage="vision")
    measurements.observe("reelsense_stage_seconds", 0.3, stage="vision")
    measurements.flush(Catalogue(load_settings().database_url()))
    os._exit(0)
os.wait()
measurements.flush(Catalogue(load_settings().database_url()))
"""
    for _ in range(2):
        subprocess.run(
            [sys.executable, "-c", code], cwd=ROOT, env=environment(REELSENSE_DATA=str(settings.data)), check=True
        )
    by_name = {(total.measure.name, total.labels): total for total in measurements.totals(catalogue)}
    assert by_name["reelsense_tokens_total", ("vision",)].value == 14
    seconds = by_name["reelsense_stage_seconds", ("vision",)]
    assert (seconds.value, sum(seconds.buckets)) == (0.6, 2)
    assert seconds.buckets[seconds.measure.buckets.index(0.5)] == 2


def test_labels_without_end_become_other(catalogue: Catalogue) -> None:
    for number in range(measurements.MOST_LABEL_SETS + 50):
        measurements.count("reelsense_http_errors_total", code=f"code.{number}")
    measurements.flush(catalogue)
    found = [total for total in measurements.totals(catalogue) if total.measure.name == "reelsense_http_errors_total"]
    assert len(found) <= measurements.MOST_LABEL_SETS + 1
    assert next(total.value for total in found if total.labels == (measurements.OTHER,)) >= 50


def test_what_the_database_could_not_take_goes_with_the_next(catalogue: Catalogue, tmp_path: Path) -> None:
    away = Catalogue(f"sqlite:///{tmp_path / 'other.sqlite3'}")
    measurements.totals(away)
    away.close()
    for path in tmp_path.glob("other.sqlite3*"):
        path.unlink()
    (tmp_path / "other.sqlite3").mkdir()
    measurements.count("reelsense_tokens_total", 5, stage="audio")
    with pytest.raises(PassingError):
        measurements.flush(away)
    measurements.flush(catalogue)
    found = {(total.measure.name, total.labels): total.value for total in measurements.totals(catalogue)}
    assert found["reelsense_tokens_total", ("audio",)] == 5


def test_dashboard_and_alerts_name_only_what_there_is() -> None:
    dashboard = (ROOT / "deploy/grafana/dashboards/reelsense.json").read_text()
    rules = (ROOT / "deploy/alerts.yml").read_text()
    expressions = [target["expr"] for panel in json.loads(dashboard)["panels"] for target in panel["targets"]]
    alerts = [rule for group in yaml.safe_load(rules)["groups"] for rule in group["rules"]]
    expressions += [rule["expr"] for rule in alerts]
    used = {name for text in expressions for name in re.findall(r"reelsense_[a-z_]+", text)}
    assert used <= names(), used - names()
    shown = {re.sub(r"_(bucket|count|sum)$", "", name) for name in used}
    unseen = {measure.name for measure in measurements.MEASURES} | set(GAUGES) - {"reelsense_queue_paused"}
    assert not unseen - shown, f"nobody looks at {unseen - shown}"
    page = (ROOT / "docs/monitoring.md").read_text()
    for name in [*GAUGES, *(measure.name for measure in measurements.MEASURES), *(rule["alert"] for rule in alerts)]:
        assert f"`{name}`" in page, f"docs/monitoring.md does not explain {name}"


@pytest.mark.slow
def test_a_scrape_of_a_million_runs_is_cheap(catalogue: Catalogue) -> None:
    with catalogue.engine.begin() as connection:
        connection.exec_driver_sql(
            "WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < 999999) "
            "INSERT INTO runs (video_id, stage, version, revision, state, attempts, queued_at, finished_at) "
            "SELECT printf('%032x', i / 10), 's' || (i % 10), 'v', '', "
            "CASE WHEN i % 100 = 0 THEN 'queued' WHEN i % 1000 = 1 THEN 'failed' ELSE 'done' END, 1, i, i FROM n"
        )
    ledger_figures.figures(catalogue)  # makes the indexes
    started = time.process_time()
    figures = ledger_figures.figures(catalogue)
    seconds = time.process_time() - started
    assert sum(figures.runs.values()) == 1_000_000
    print(f"{seconds:.3f} CPU s")  # noqa: T201
    assert seconds < 1.0


# --- readiness -------------------------------------------------------------------------------------------------------


def test_ready_says_what_is_not_and_why(client: TestClient, settings: Settings) -> None:
    answer = client.get("/health/ready")
    assert (answer.status_code, answer.json()["code"]) == (503, "stack.not_running")
    parts = answer.json()["parts"]
    assert parts["store"] == parts["database"] == {"ready": True}
    assert parts["broker"]["ready"] is False
    assert parts["workers"]["code"] == "workers.none"
    refused = load_settings(data=settings.data, broker="redis://:geheim-wort@127.0.0.1:1/0")
    with TestClient(create_api(refused), base_url="http://127.0.0.1") as other:
        answer = other.get("/health/workers")
        assert (answer.status_code, answer.json()["code"]) == (503, "broker.unavailable")
        assert "geheim" not in answer.text
        # A broker that is away takes nothing from the page of figures but its own.
        assert other.get("/metrics").status_code == 200


def test_a_reason_names_no_place() -> None:
    said = Part("database", PassingError("database.unavailable", "cannot open /srv/secret/place")).as_json()
    assert said == {
        "ready": False,
        "code": "database.unavailable",
        "why": "The catalogue database does not answer.",
    }


def test_metrics_need_the_scope_read(client: TestClient, catalogue: Catalogue) -> None:
    keys = ApiKeys(catalogue)
    secret = {scope: keys.create(scope, [scope])[1] for scope in ("read", "admin", "upload")}
    ask = {scope: {"Authorization": f"Bearer {secret[scope]}"} for scope in secret}
    assert client.get("/metrics").status_code == 401
    assert client.get("/metrics", headers=ask["upload"]).status_code == 403
    assert client.get("/metrics", headers=ask["read"]).status_code == 200
    assert client.get("/metrics", headers=ask["admin"]).status_code == 200


# --- logs ------------------------------------------------------------------------------------------------------------

SPEAK = """
import logging, structlog
from store.settings import load_settings
from workers import logs
settings = load_settings()
logs.configure(settings, service="test", worker="w-1")
log = structlog.get_logger()
with structlog.contextvars.bound_contextvars(task="t-1", video="v-1", stage="frames"):
    log.debug("unheard")
    log.info("hello", attempt=2, broker=settings.broker, deep={"key": [settings.s3_secret_key.get_secret_value()]})
    logging.getLogger("library").warning("gone: %s", settings.database)
    try:
        raise ValueError(f"refused {settings.broker} Bearer abcdefghijkl")
    except ValueError:
        log.exception("failed", key="rsk_0123456789ab_" + "A" * 43)
"""
SECRETS = ("broker-word", "store-word", "base-word", "abcdefghijkl", "A" * 43)


def speak(tmp_path: Path, **variables: str) -> str:
    return subprocess.run(
        [sys.executable, "-c", SPEAK],
        cwd=ROOT,
        env=environment(
            REELSENSE_DATA=str(tmp_path),
            REELSENSE_BROKER="redis://:broker-word@127.0.0.1:1/0",
            REELSENSE_DATABASE="postgresql://u:base-word@127.0.0.1:1/d",
            REELSENSE_S3_SECRET_KEY="store-word",
            **variables,
        ),
        capture_output=True,
        text=True,
        check=True,
    ).stderr


def test_log_lines_are_json_with_what_they_are_about_and_without_secrets(tmp_path: Path) -> None:
    text = speak(tmp_path)
    for secret in SECRETS:
        assert secret not in text
    lines = [json.loads(line) for line in text.splitlines()]
    assert [line["event"].split(":")[0] for line in lines] == ["hello", "gone", "failed"]
    for line in lines:
        bound = {"service": "test", "worker": "w-1", "task": "t-1", "video": "v-1", "stage": "frames"}
        assert line.items() >= bound.items()
        assert line["timestamp"].endswith("Z")
    assert (lines[0]["attempt"], lines[1]["logger"]) == (2, "library")
    assert "ValueError" in lines[2]["exception"]


def test_log_lines_for_people_and_their_level(tmp_path: Path) -> None:
    text = speak(tmp_path, REELSENSE_LOG="console", REELSENSE_LOG_LEVEL="debug")
    assert "unheard" in text
    assert not text.startswith("{")
    assert not any(secret in text for secret in SECRETS)
    assert "hello" not in speak(tmp_path, REELSENSE_LOG_LEVEL="warning")


def test_a_request_has_an_id_on_its_lines_and_in_its_answer(client: TestClient) -> None:
    with structlog.testing.capture_logs(processors=[structlog.contextvars.merge_contextvars]) as lines:
        answer = client.get("/api/v1/viewers/ana/feed", headers={"X-Request-ID": "mine-1"})
        odd = client.get("/health/live", headers={"X-Request-ID": "a b\t<c>"})
    assert answer.headers["x-request-id"] == "mine-1"
    assert re.fullmatch("[0-9a-f]{16}", odd.headers["x-request-id"])
    said = next(line for line in lines if line["event"] == "request answered" and line["log_level"] == "info")
    assert (said["request"], said["route"], said["status"]) == ("mine-1", "/api/v1/viewers/{user}/feed", 200)
    assert "ana" not in json.dumps(said)


# --- traces: without the extra ---------------------------------------------------------------------------------------


def test_without_traces_nothing_of_their_library_is_imported() -> None:
    code = (
        "import sys, app.cli, workers.tracing as t; from store.settings import load_settings; "
        "t.start(load_settings(), 'x'); assert t.headers() == {}; t.note(a=1); t.flush(); t.stop(); "
        "print([m for m in sys.modules if m.startswith(('opentelemetry', 'prometheus_client'))])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=environment(), capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


# --- the live view ---------------------------------------------------------------------------------------------------


def test_watch_prints_a_frame_without_a_terminal(catalogue: Catalogue, settings: Settings) -> None:
    queued(catalogue, 1)
    run = queued(catalogue, 2, "vision")
    catalogue.claim(run, "host/7", 30.0)
    failed = queued(catalogue, 3, "audio")
    catalogue.claim(failed, "host/7", 30.0)
    catalogue.fail(failed, InputError("media.no_frames", "[red]None[/]."))
    measurements.announce(
        catalogue, measurements.Process(name="host/w-7", kind="worker", memory_bytes=2**20, seen_at=time.time())
    )
    answer = reelsense("watch", "--once", "--data", settings.data, COLUMNS="120")
    assert answer.status == 0, answer.stderr
    assert re.search(r"frames +1 +0 +\d+ s", answer.stdout)
    assert re.search(r"host/w-7 +1 MB +vision 0{12} for \d+ s, attempt 1", answer.stdout)
    assert re.search(r"audio +media.no_frames +1 ", answer.stdout)
    seen = reelsense("watch", "--json", "--data", settings.data).json
    assert {row["name"]: row["depth"] for row in seen["queues"]}["frames"] == 1
    assert seen["dead"][0]["code"] == "media.no_frames"


def test_watch_ends_cleanly_on_ctrl_c(settings: Settings) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "app.cli", "watch", "--every", "0.2", "--data", str(settings.data)],
        cwd=ROOT,
        env=environment(PYTHONUNBUFFERED="1"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A shell ignores Ctrl-C in what it runs in the background, and children inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    assert process.stdout is not None
    assert "ReelSense" in process.stdout.readline()
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=30)
    assert (process.returncode, errors) == (130, "")


def test_a_store_that_fails_is_counted(settings: Settings, catalogue: Catalogue) -> None:
    store = open_measured(settings)
    with pytest.raises(InputError):
        store.get("sources/none")
    with pytest.raises(InputError):
        store.put("..", b"")
    measurements.flush(catalogue)
    found = {(total.measure.name, total.labels): total for total in measurements.totals(catalogue)}
    assert sum(found["reelsense_store_operation_seconds", ("get",)].buckets) == 1
    assert found["reelsense_store_errors_total", ("put", "store.key_invalid")].value == 1
    assert ("reelsense_store_errors_total", ("get", "store.missing")) not in found


def test_secrets_of_every_setting_are_known(tmp_path: Path) -> None:
    settings = load_settings(
        data=tmp_path, s3_secret_key="word-1", broker="amqp://u:word-2@h/", database="x://u:word-3@h"
    )
    assert set(logs.secrets_of(settings)) >= {"word-1", "word-2", "word-3"}


def test_a_damaged_header_begins_a_new_trace() -> None:
    pytest.importorskip("opentelemetry")
    assert not tracing._context("00-zz-1-1").is_valid
    assert not tracing._context("nonsense").is_valid
