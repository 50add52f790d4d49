"""One suite over both databases: what administrators decide, the history that the ledger writes, and the property that
no sequence of decisions loses a run or puts it into two states."""

from __future__ import annotations

import time
import uuid
from pathlib import Path

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from store.administration import Actor, Administration
from store.catalogue import Catalogue, RunKey
from store.errors import InputError, PassingError
from store.run_events import timeline
from store.worker_registry import Registration, WorkerRegistry, WorkerRow

# The server is started, and skipped aloud, as for the catalogue's own suite.
from tests.store.test_catalogue import catalogue  # noqa: F401

ANA = Actor("ana", "cli")
BOB = Actor("key of bob", "http")


def key(number: int, stage: str = "audio") -> RunKey:
    return RunKey(video_id=f"{number:032x}", stage=stage, version="v1", revision="")


@pytest.fixture
def administration(catalogue: Catalogue) -> Administration:  # noqa: F811
    administration = Administration(catalogue)
    WorkerRegistry(catalogue)
    with catalogue.engine.begin() as connection:
        # The tests of a module share one server.
        for name in sa.inspect(connection).get_table_names():
            connection.execute(sa.text(f"DELETE FROM {name}"))
        connection.execute(sa.text("DELETE FROM run_events"))  # of the rows that were just deleted
    return administration


def states(administration: Administration) -> dict[str, str]:
    return {f"{int(run.video_id, 16)}/{run.stage}": run.state for run in administration.catalogue.runs()}


def test_a_pause_is_kept_with_who_and_why_and_the_first_one_stays(administration: Administration) -> None:
    assert administration.pause("vision", ANA, "the disk is full.")
    assert not administration.pause("vision", BOB, "another")
    mark = administration.pauses()["vision"]
    assert (mark.who, mark.reason) == ("ana", "the disk is full")
    assert abs(mark.at - time.time()) < 5
    again = Administration(administration.catalogue)
    assert list(again.pauses()) == ["vision"]
    assert again.resume("vision", BOB)
    assert not again.resume("vision", BOB)
    assert administration.pauses() == {}
    log = [(entry.who, entry.via, entry.action, entry.subject) for entry in administration.audit(10)]
    assert log == [("key of bob", "http", "queue.resume", "vision"), ("ana", "cli", "queue.pause", "vision")]


def test_a_purge_changes_what_its_dry_run_says_and_can_be_taken_back(administration: Administration) -> None:
    ledger = administration.catalogue
    for number in range(5):
        ledger.mark_queued(key(number))
    ledger.mark_queued(key(9, "vision"))
    ledger.finish(key(4), 1.0)
    dry = administration.purge("audio", ["audio"], ANA, lease_seconds=30, dry_run=True)
    assert list(states(administration).values()).count("queued") == 5
    assert administration.audit(10) == []
    assert administration.purge("audio", ["audio"], ANA, lease_seconds=30, dry_run=False) == dry == 4
    assert states(administration) == {
        **{f"{number}/audio": "failed" for number in range(4)}, "4/audio": "done", "9/vision": "queued",
    }  # fmt: skip
    run = ledger.run(key(0))
    assert run is not None
    assert (run.error_code, run.error_message) == ("stage.cancelled", "Cancelled by ana: the queue audio was purged.")
    ledger.mark_queued(key(0))
    assert ledger.claim(key(0), "w/1", 30) is None, "a message that was still in the broker runs nothing"
    assert administration.restore("audio", ["audio"], BOB) == 4
    assert list(states(administration).values()).count("queued") == 5
    assert ledger.claim(key(0), "w/1", 30) == 1
    assert [(entry.action, entry.details) for entry in administration.audit(10)] == [
        ("queue.restore", {"runs": 4}),
        ("queue.purge", {"runs": 4}),
    ]


def test_a_stage_that_runs_is_not_purged(administration: Administration) -> None:
    ledger = administration.catalogue
    ledger.mark_queued(key(1))
    ledger.mark_queued(key(2))
    assert ledger.claim(key(1), "w/1", 30) == 1
    for dry_run in (True, False):
        with pytest.raises(InputError, match="1 run of audio is under way") as caught:
            administration.purge("audio", ["audio"], ANA, lease_seconds=30, dry_run=dry_run)
        assert caught.value.code == "queue.busy"
        assert "queue pause audio" in caught.value.hint
    assert states(administration) == {"1/audio": "running", "2/audio": "queued"}
    assert administration.audit(10) == []
    # A lease that ran out is no work under way.
    assert administration.purge("audio", ["audio"], ANA, lease_seconds=-1, dry_run=False) == 1


def test_a_cancelled_video_stays_cancelled_when_its_running_stage_ends(administration: Administration) -> None:
    ledger = administration.catalogue
    ledger.mark_queued(key(1, "frames"))
    ledger.mark_queued(key(1, "audio"))
    assert ledger.claim(key(1, "frames"), "w/1", 30) == 1
    keys = [key(1, stage) for stage in ("frames", "audio", "vision")]
    assert administration.cancel(key(1).video_id, keys, ANA) == 2
    ledger.finish(key(1, "frames"), 1.0)
    ledger.mark_queued(key(1, "vision"))  # what the end of `frames` would send
    assert states(administration) == {"1/audio": "failed", "1/frames": "done", "1/vision": "failed"}
    administration.lift(key(1).video_id)
    assert states(administration) == {"1/frames": "done"}


def test_quarantine_and_release(administration: Administration) -> None:
    ledger = administration.catalogue
    ledger.mark_queued(key(1))
    video = key(1).video_id
    assert administration.quarantine(video, [key(1), key(1, "vision")], ANA, "copyright")
    assert not administration.quarantine(video, [key(1)], BOB, "another")
    mark = administration.quarantined()[video]
    assert mark.message == "Set aside by ana: copyright."
    run = ledger.run(key(1))
    assert run is not None
    assert (run.state, run.error_code) == ("failed", "video.quarantined")
    assert administration.directions(key(1), ["audio"]).quarantine == "Set aside by ana: copyright."
    assert administration.restore("audio", ["audio"], ANA) == 0, "a queue's restore releases nobody"
    assert administration.release(video, BOB)
    assert not administration.release(video, BOB)
    assert states(administration) == {}
    assert [entry.action for entry in administration.audit(10, subject=video)] == ["video.release", "video.quarantine"]


def test_a_prioritised_video_goes_first_and_nobody_loses_a_message(administration: Administration) -> None:
    ledger = administration.catalogue
    for number in range(4):
        ledger.mark_queued(key(number), now=float(number))
    assert administration.directions(key(0), ["audio"]).first is None
    assert administration.prioritise(key(3).video_id, ANA)
    assert not administration.prioritise(key(3).video_id, ANA)
    assert administration.directions(key(0), ["audio"]).first == key(3)
    assert administration.directions(key(3), ["audio"]).first is None, "it is at hand already"
    assert administration.directions(key(0, "vision"), ["vision"]).first is None
    ledger.claim(key(3), "w/1", 30)
    assert administration.directions(key(0), ["audio"]).first is None
    administration.keep_unsent(key(0))
    administration.keep_unsent(key(1))
    administration.keep_unsent(key(3))  # it runs, so it needs no message
    ledger.claim(key(1), "w/2", 30)
    assert administration.take_unsent(["audio"], 5, "v1") == [key(0)]
    assert administration.take_unsent(["audio"], 5) == []
    assert administration.prioritise(key(3).video_id, ANA, off=True)
    assert administration.priorities() == {}


def test_what_waits_is_counted_by_stage_and_version(administration: Administration) -> None:
    ledger = administration.catalogue
    for number in range(3):
        ledger.mark_queued(key(number), now=100.0 + number)
    ledger.mark_queued(key(1, "vision"), now=7.0)
    ledger.claim(key(0), "w/1", 30)
    ledger.finish(key(2), 1.0)
    loads = [load.model_dump() for load in administration.loads()]
    assert loads == [
        {"stage": "audio", "version": "v1", "queued": 1, "running": 1, "oldest": 101.0},
        {"stage": "vision", "version": "v1", "queued": 1, "running": 0, "oldest": 7.0},
    ]
    assert administration.queued(["audio", "vision"], 5) == [key(1), key(1, "vision")]
    assert administration.queued(["audio", "vision"], 5, after=key(1)) == [key(1, "vision")]


def test_the_ledger_writes_its_own_history(administration: Administration) -> None:
    """Every way of changing a run, whoever knows of the history or not."""
    ledger = administration.catalogue
    ledger.mark_queued(key(1))
    ledger.mark_queued(key(1))  # sent again: nothing happened to the run
    ledger.claim(key(1), "w/1", 30)
    ledger.beat(key(1), "w/1")
    ledger.release(key(1), PassingError("store.unavailable", "away"))
    ledger.claim(key(1), "w/1", 30)
    ledger.abandon(key(1))
    ledger.claim(key(1), "w/2", 30)
    ledger.fail(key(1), InputError("media.unreadable", "torn"))
    ledger.reset([key(1)])
    ledger.claim(key(1), "w/2", 30)
    ledger.finish(key(1), 2.5)
    ledger.finish(key(1), None)  # found there: nothing happened
    ledger.forget(key(1))
    rows = timeline(administration.history.of_video(key(1).video_id))
    assert [(row["what"], row["attempt"], row["worker"], row["code"]) for row in rows] == [
        ("queued", 0, None, None),
        ("started", 1, "w/1", None),
        ("handed back", 0, "w/1", "store.unavailable"),
        ("started", 1, "w/1", None),
        ("abandoned", 1, "w/1", None),
        ("started", 2, "w/2", None),
        ("failed", 2, "w/2", "media.unreadable"),
        ("retried", 0, None, None),
        ("started", 1, "w/2", None),
        ("done", 1, "w/2", None),
        ("forgotten", None, None, None),
    ]
    assert [row["seconds"] for row in rows if row["what"] == "done"] == [2.5]
    assert all(abs(float(str(row["at"])) - time.time()) < 30 for row in rows)
    assert administration.history.counts(time.time() - 60) == {"audio": (2, 2)}
    assert administration.history.counts(time.time() + 60) == {}
    assert administration.history.prune(time.time() - 60) == 0
    assert administration.history.prune(time.time() + 60) == len(rows)
    assert administration.history.of_video(key(1).video_id) == []


def test_wishes_about_workers(administration: Administration) -> None:
    url = administration.catalogue.engine.url.render_as_string(hide_password=False)
    name = f"one@{uuid.uuid4().hex[:8]}"
    registration = Registration(url, name)
    registry = WorkerRegistry(administration.catalogue)
    assert registration.look().paused == frozenset()
    assert administration.scaled() is None
    administration.pause("audio", ANA)
    administration.drain(name, ANA)
    administration.set_pool(name, 3, ANA)
    orders = registration.look()
    assert (orders.paused, orders.processes) == (frozenset({"audio"}), 3)
    assert orders.drained_at is not None
    assert abs(orders.drained_at - time.time()) < 5
    row = WorkerRow(
        name=name, host="here", pid=1, children=[2, 3], queues=["audio"], model_set="starter", threads=1,
        memory_bytes=10, tasks=4, state="working", started_at=time.time(), seen_at=time.time(),
    )  # fmt: skip
    registration.announce(row)
    registration.announce(row.model_copy(update={"tasks": 5}))
    assert [(item.name, item.tasks) for item in registry.workers()] == [(name, 5)]
    registration.announce(row.model_copy(update={"seen_at": time.time() - 4000}))
    assert registry.workers() == []
    registry.prune()
    registration.leave()
    administration.scale(1, 4, ANA)
    wish = administration.scaled()
    assert wish is not None
    assert (wish.least, wish.most) == (1, 4)
    assert administration.drained() == {}, "who scales wants workers"


def test_a_database_that_is_away_is_a_passing_error(tmp_path: Path) -> None:
    registration = Registration(f"sqlite:///{tmp_path / 'catalogue.sqlite3'}", "one@here")
    registration.look()
    (tmp_path / "catalogue.sqlite3").write_bytes(b"not a database at all, but long enough to be looked at" * 100)
    for suffix in ("-wal", "-shm"):
        (tmp_path / f"catalogue.sqlite3{suffix}").unlink(missing_ok=True)
    with pytest.raises(PassingError) as caught:
        registration.look()
    assert caught.value.code == "database.unavailable"


RUNS = [key(number, stage) for stage in ("audio", "vision") for number in range(3)]


class Decisions(RuleBasedStateMachine):
    """Six runs, the messages that are in a broker, two workers, and an administrator who does anything at any time.

    A message runs nothing while its stage is paused; a sweep sends what waits without a message, as the real one does.
    """

    where: Path

    def __init__(self) -> None:
        super().__init__()
        self.catalogue = Catalogue(f"sqlite:///{self.where / (uuid.uuid4().hex + '.sqlite3')}")
        self.administration = Administration(self.catalogue)
        self.messages: list[RunKey] = []
        self.running: set[RunKey] = set()
        self.done: set[RunKey] = set()
        for run in RUNS:
            self.catalogue.mark_queued(run)
            self.messages.append(run)

    def teardown(self) -> None:
        """At the end everything is resumed, restored and worked off: nothing is lost, nothing is done twice."""
        for stage in ("audio", "vision"):
            self.administration.resume(stage, ANA)
        for run in list(self.running):
            self.finish(run)
        for stage in ("audio", "vision"):
            self.administration.restore(stage, [stage], ANA)
        self.sweep()
        for message in self.messages:
            if self.catalogue.claim(message, "w/9", 30) is not None:
                self.running.add(message)
                self.finish(message)
        assert self.done == set(RUNS)
        assert {run.state for run in self.catalogue.runs()} == {"done"}
        assert {run.attempts for run in self.catalogue.runs()} == {1}
        self.catalogue.close()

    @rule(stage=st.sampled_from(["audio", "vision"]))
    def pause(self, stage: str) -> None:
        self.administration.pause(stage, ANA)

    @rule(stage=st.sampled_from(["audio", "vision"]))
    def resume(self, stage: str) -> None:
        self.administration.resume(stage, ANA)
        self.messages.extend(self.administration.take_unsent([stage], 100))

    @rule(stage=st.sampled_from(["audio", "vision"]))
    def purge(self, stage: str) -> None:
        busy = any(run.stage == stage for run in self.running)
        try:
            expected = self.administration.purge(stage, [stage], ANA, lease_seconds=30, dry_run=True)
            assert self.administration.purge(stage, [stage], ANA, lease_seconds=30, dry_run=False) == expected
            assert not busy
        except InputError as error:
            assert error.code == "queue.busy"
            assert busy

    @rule(stage=st.sampled_from(["audio", "vision"]))
    def restore(self, stage: str) -> None:
        self.administration.restore(stage, [stage], ANA)

    @rule()
    def lose_all_messages(self) -> None:
        self.messages.clear()

    @rule()
    def sweep(self) -> None:
        paused = self.administration.pauses()
        for run in RUNS:
            row = self.catalogue.run(run)
            if row is not None and row.state == "queued" and run.stage not in paused and run not in self.messages:
                self.messages.append(run)

    @rule(number=st.integers(0, 100), worker=st.sampled_from(["w/1", "w/2"]))
    def take(self, number: int, worker: str) -> None:
        if not self.messages:
            return
        message = self.messages.pop(number % len(self.messages))
        directions = self.administration.directions(message, [message.stage])
        if directions.paused:
            self.administration.keep_unsent(message)
        elif self.catalogue.claim(message, worker, 30) is not None:
            assert message not in self.running
            assert message not in self.done
            self.running.add(message)

    @rule(number=st.integers(0, 100))
    def end(self, number: int) -> None:
        if self.running:
            self.finish(sorted(self.running, key=str)[number % len(self.running)])

    def finish(self, run: RunKey) -> None:
        self.catalogue.finish(run, 1.0)
        self.running.remove(run)
        self.done.add(run)

    @invariant()
    def each_run_is_in_one_state(self) -> None:
        rows = {
            RunKey(video_id=run.video_id, stage=run.stage, version=run.version, revision=run.revision): run.state
            for run in self.catalogue.runs()
        }
        assert set(rows) == set(RUNS)
        assert {run for run, state in rows.items() if state == "running"} == self.running
        assert {run for run, state in rows.items() if state == "done"} == self.done
        waiting = sum(state == "queued" for state in rows.values())
        assert sum(load.queued for load in self.administration.loads()) == waiting


def test_no_sequence_of_decisions_loses_a_run(tmp_path: Path) -> None:
    machine = type("Here", (Decisions,), {"where": tmp_path})
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=20, stateful_step_count=25, deadline=None, suppress_health_check=list(HealthCheck)
        ),
    )
