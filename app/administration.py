"""What administrators can ask and do, once for the command line, the HTTP API and the page: each method returns the
document that `--json` prints.

What is decided goes to the database, which the workers follow (`workers.following`); so all of this works while the
broker is away, and says then what could not be told to the workers: they see it within seconds all the same.
"""

from __future__ import annotations

import os
import pwd
import socket
import time
from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

from store.administration import Actor, Administration
from store.catalogue import Run, RunKey, Video
from store.errors import InputError, NotFoundError, ReelsenseError
from store.run_events import timeline
from store.worker_registry import SILENT_SECONDS, WorkerRegistry, WorkerRow

if TYPE_CHECKING:
    from app.operations import ReelSense

RATE_SECONDS = 300.0
# More is left to the sweep: a command should not take minutes.
SENT_AT_ONCE = 10_000
MOST_WORKERS = 256
ANSWER_SECONDS = 1.0


def this_user(via: str = "cli") -> Actor:
    """The OS user who runs this process, by the system's own word and not the environment's."""
    try:
        name = pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        name = f"uid {os.getuid()}"
    return Actor(name, "cli" if via == "cli" else "page")


class Administrator:
    """One administrator of one installation. Methods raise ReelsenseError."""

    def __init__(self, reelsense: ReelSense, actor: Actor) -> None:
        self.reelsense = reelsense
        self.actor = actor

    @cached_property
    def administration(self) -> Administration:
        """The decisions of administrators."""
        return self.reelsense.graph.administration

    @cached_property
    def registry(self) -> WorkerRegistry:
        """The workers that there are."""
        return WorkerRegistry(self.reelsense.catalogue)

    # --- queues ------------------------------------------------------------------------------------------------------

    def queues(self) -> dict[str, Any]:
        """Every queue: how much waits and runs, since when, how fast it goes, and whether it is paused.

        `depth` counts the runs of present versions that the ledger has queued, `messages` what the broker holds (None
        without one); rates are of the last five minutes; `drain_seconds` is depth by the rate out, None where nothing
        went out or the queue is paused.
        """
        from workers.stages import QUEUES

        messages, broker = self._messages()
        rows = [self._queue(name, messages) for name in dict.fromkeys(QUEUES)]
        return {"queues": rows, "broker": broker}

    def _queue(self, name: str, messages: dict[str, int] | None) -> dict[str, Any]:
        from workers.admission import pause_names

        now = time.time()
        stages = stages_of(name)
        versions = {(stage, plan.versions[stage]) for plan in self.reelsense.graph.plans for stage in stages}
        loads = [load for load in self._loads if (load.stage, load.version) in versions]
        depth = sum(load.queued for load in loads)
        oldest = min((load.oldest for load in loads if load.oldest is not None), default=None)
        came, ended = (sum(self._counts.get(stage, (0, 0))[side] for stage in stages) for side in (0, 1))
        names = sorted(name for stage in stages for name in pause_names(stage) if name in self._pauses)
        paused = all(not pause_names(stage).isdisjoint(self._pauses) for stage in stages)
        per_second = ended / RATE_SECONDS
        mark = self._pauses[names[0]] if names else None
        return {
            "name": name,
            "stages": stages,
            "depth": depth,
            "running": sum(load.running for load in loads),
            "paused": paused,
            "pause": mark.model_dump(exclude={"name"}) if mark else None,
            "oldest_seconds": None if oldest is None or not depth else round(max(0.0, now - oldest), 3),
            "in_per_minute": round(came * 60 / RATE_SECONDS, 2),
            "out_per_minute": round(ended * 60 / RATE_SECONDS, 2),
            "drain_seconds": None if depth and (paused or not ended) else round(depth / (per_second or 1.0), 1),
            "messages": None if messages is None else messages.get(stages_queue(stages[0]), 0),
        }

    # One look for all the queues of a listing; an Administrator lives for one command or request.
    @cached_property
    def _loads(self) -> list[Any]:
        return self.administration.loads()

    @cached_property
    def _counts(self) -> dict[str, tuple[int, int]]:
        return dict(self.administration.history.counts(time.time() - RATE_SECONDS))

    @cached_property
    def _pauses(self) -> dict[str, Any]:
        return self.administration.pauses()

    def queue(self, name: str) -> dict[str, Any]:
        """One queue or stage: its row, what runs, what has waited longest, and its failures by code."""
        stages = stages_of(name)
        messages, broker = self._messages()
        return {
            **self._queue(name, messages),
            "broker": broker,
            "under_way": [_run(run) for run in self.administration.running() if run.stage in stages],
            "waiting": [_run(run) for run in self.administration.oldest(stages, 10)],
            "failures": [row for row in self.administration.failures() if row["stage"] in stages],
        }

    def pause(self, name: str, reason: str = "") -> dict[str, Any]:
        """Let no run of a queue or stage begin, until it is resumed; what runs is finished."""
        stages = stages_of(name)
        changed = self.administration.pause(name, self.actor, reason)
        running = sum(run.stage in stages for run in self.administration.running())
        return {"name": name, "paused": True, "changed": changed, "running": running, **self._tell()}

    def resume(self, name: str) -> dict[str, Any]:
        """Take a pause back, and send what has no message any more."""
        stages = stages_of(name)
        changed = self.administration.resume(name, self.actor)
        told = self._tell()
        return {"name": name, "paused": False, "changed": changed, "sent": self._send(stages), **told}

    def purge(self, name: str, *, dry_run: bool) -> dict[str, Any]:
        """Cancel what waits in a queue; with `dry_run` only say how much that is. Raises `queue.busy`."""
        stages = stages_of(name)
        messages, broker = self._messages()
        lease = self.reelsense.settings.lease_seconds
        runs = self.administration.purge(name, stages, self.actor, lease_seconds=lease, dry_run=dry_run)
        queue = stages_queue(stages[0])
        waiting = 0 if messages is None else messages.get(queue, 0)
        if not dry_run and waiting:
            self._empty(queue)
        return {"name": name, "stages": stages, "runs": runs, "messages": waiting, "dry_run": dry_run, "broker": broker}

    def restore(self, name: str) -> dict[str, Any]:
        """Take a purge back: what it cancelled waits again, and is sent."""
        stages = stages_of(name)
        runs = self.administration.restore(name, stages, self.actor)
        return {"name": name, "stages": stages, "runs": runs, "sent": self._send(stages)}

    def _send(self, stages: Sequence[str]) -> int:
        """Send queued runs of these stages that have no message: those that are known to, and all when the broker holds
        none. How many; 0 without a broker: then the sweep sends them when it is back."""
        from workers.admission import pause_names

        paused = self.administration.pauses()
        stages = [stage for stage in stages if pause_names(stage).isdisjoint(paused)]
        messages, _ = self._messages()
        if messages is None or not stages:
            return 0
        graph = self.reelsense.graph
        if any(messages.get(stages_queue(stage), 0) for stage in stages):
            keys = self.administration.take_unsent(stages, SENT_AT_ONCE)
        else:
            keys = self.administration.queued(stages, SENT_AT_ONCE)
        versions = {(stage, plan.versions[stage]) for plan in graph.plans for stage in stages}
        keys = [key for key in keys if (key.stage, key.version) in versions]
        for key in keys:
            graph.send(key)
        return len(keys)

    def _messages(self) -> tuple[dict[str, int] | None, str]:
        """Messages by queue, and how the broker is: `ok`, or the code of what is wrong with it."""
        from workers.celery_app import queue_depths

        try:
            return queue_depths(self.reelsense.celery), "ok"
        except ReelsenseError as error:
            return None, error.code

    def _empty(self, queue: str) -> None:
        """Drop the messages of a queue. Those that come meanwhile for other runs are found by the sweep."""
        with self.reelsense.celery.connection_for_write() as connection, connection.channel() as channel:
            channel.queue_purge(queue)

    def _tell(self, worker: str | None = None) -> dict[str, Any]:
        """Let workers look at once: how many said that they did, and why not, where they could not be told."""
        messages, broker = self._messages()
        if messages is None:
            return {"told": 0, "not_told": broker}
        alive = [row for row in self.registry.workers() if is_alive(row)] if worker is None else [worker]
        if not alive:
            return {"told": 0, "not_told": None}
        answers = self.reelsense.celery.control.broadcast(
            "follow_administration",
            destination=None if worker is None else [worker],
            reply=True,
            timeout=ANSWER_SECONDS,
            limit=len(alive),
        )
        return {"told": len(answers or []), "not_told": None}

    # --- workers -----------------------------------------------------------------------------------------------------

    def workers(self) -> dict[str, Any]:
        """Every worker: where it runs, what it does and since when, and how it is. `state` is working, draining,
        stopping, drained, silent (not heard of), or dead (its process is gone from this machine)."""
        running = self.administration.running()
        rows = [_worker(row, running) for row in self.registry.workers()]
        held = {item["video"] + item["stage"] for row in rows for item in row["running"]}
        others = [_run(run) for run in running if run.video_id + run.stage not in held]
        wish = self.administration.scaled()
        bounds = None if wish is None else {"least": wish.least, "most": wish.most}
        return {"workers": rows, "held_by_others": others, "scaled": bounds}

    def _worker_named(self, name: str) -> WorkerRow:
        """The live worker of this name, or of this name before its `@`. Raises `worker.unknown`."""
        rows = [row for row in self.registry.workers() if name in (row.name, row.name.partition("@")[0])]
        alive = [row for row in rows if is_alive(row)]
        if len(alive) == 1:
            return alive[0]
        if len(alive) > 1:
            text = f"More than one worker is called {name!r}: {', '.join(row.name for row in alive)}."
        elif rows:
            text = f"The worker {rows[0].name} is gone."
        else:
            text = f"There is no worker {name[:100]!r}."
        raise NotFoundError("worker.unknown", text, hint="`reelsense workers ls` lists them.")

    def drain(self, name: str) -> dict[str, Any]:
        """Let a worker finish what it runs, take no more, and leave."""
        row = self._worker_named(name)
        self.administration.drain(row.name, self.actor)
        return {"worker": row.name, "state": "draining", **self._tell(row.name)}

    def scale(self, least: int | None, most: int | None = None) -> dict[str, Any]:
        """How many workers the embedded stack runs, or between which bounds; None: as many as the settings say."""
        from app.stack import running

        most = least if most is None else most
        if least is None or most is None:
            self.administration.scale_by_settings(self.actor)
            least = most = self.reelsense.settings.workers
        else:
            if not 0 <= least <= most <= MOST_WORKERS:
                raise InputError(
                    "request.invalid", f"Workers must be 0 to {MOST_WORKERS}, the least first; got {least} and {most}."
                )
            self.administration.scale(least, most, self.actor)
        stack = running(self.reelsense.settings)
        return {"least": least, "most": most, "stack": None if stack is None else stack.pid}

    def pool(self, name: str, processes: int) -> dict[str, Any]:
        """How many stages one worker runs at a time."""
        if not 1 <= processes <= MOST_WORKERS:
            raise InputError("request.invalid", f"A worker has 1 to {MOST_WORKERS} processes, not {processes}.")
        row = self._worker_named(name)
        self.administration.set_pool(row.name, processes, self.actor)
        return {"worker": row.name, "processes": processes, **self._tell(row.name)}

    # --- videos ------------------------------------------------------------------------------------------------------

    def _keys(self, video: Video) -> list[RunKey]:
        from workers.stages import STAGES

        graph = self.reelsense.graph
        graph.refresh()
        return [key for stage in STAGES for key in graph.keys(video, stage.name)]

    def timeline(self, video_id: str) -> dict[str, Any]:
        """What happened to a video, oldest first, and the size of each artifact it has."""
        from store.artifacts import artifact_key
        from workers.stages import STAGES

        video = self.reelsense.catalogue.video(video_id)
        rows = timeline(self.administration.history.of_video(video.id))
        sizes = {}
        for stage in STAGES:
            key = self.reelsense.graph.key(video, stage.name)
            path = artifact_key(key.stage, key.version, key.video_id, key.revision)
            sizes[stage.name] = self.reelsense.objects.size(path)
        entries = self.administration.audit(1000, subject=video.id)
        administered = [
            {"at": entry.at, "what": entry.action, "who": entry.who, "details": entry.details} for entry in entries
        ]
        return {
            "video": video.id,
            "uploaded_at": video.uploaded_at,
            "events": rows,
            "bytes": sizes,
            "administered": administered[::-1],
        }

    def prioritise(self, video_id: str, *, off: bool = False) -> dict[str, Any]:
        """Run what waits of a video before all else, or in its turn again."""
        video = self._processed(video_id)
        changed = self.administration.prioritise(video.id, self.actor, off=off)
        return {"video": video.id, "prioritised": not off, "changed": changed}

    def cancel(self, video_id: str) -> dict[str, Any]:
        """Cancel what waits of a video, and what would come after it. What runs is finished."""
        video = self._processed(video_id)
        runs = self.administration.cancel(video.id, self._keys(video), self.actor)
        running = [_run(run) for run in self.administration.running() if run.video_id == video.id]
        return {"video": video.id, "cancelled": runs, "running": running}

    def retry(self, video_id: str) -> dict[str, Any]:
        """Try again what failed, was given up or was cancelled of a video."""
        video = self._processed(video_id)
        self.reelsense.graph.retry(video)
        self.administration.note(self.actor, "video.retry", video.id, {})
        state, error = self.reelsense.graph.states([video])[video.id]
        return {"video": video.id, "state": state, "error": None if error is None else error.code}

    def _processed(self, video_id: str) -> Video:
        """A video that may be processed. Raises `video.unknown`, `video.quarantined`."""
        video = self.reelsense.catalogue.video(video_id)
        mark = self.administration.quarantined([video.id]).get(video.id)
        if mark is not None:
            raise InputError(
                "video.quarantined", mark.message, hint=f"`reelsense videos release {video.id[:12]}` takes that back."
            )
        return video

    def quarantine(self, video_id: str, reason: str = "") -> dict[str, Any]:
        """Set a video aside: nothing of it is processed, and no feed, search or list shows it."""
        video = self.reelsense.catalogue.video(video_id)
        changed = self.administration.quarantine(video.id, self._keys(video), self.actor, reason)
        mark = self.administration.quarantined([video.id])[video.id]
        return {"video": video.id, "quarantined": True, "changed": changed, **mark.model_dump(exclude={"name"})}

    def release(self, video_id: str) -> dict[str, Any]:
        """Take a video out of quarantine, and send what is missing of it."""
        video = self.reelsense.catalogue.video(video_id)
        changed = self.administration.release(video.id, self.actor)
        if changed:
            self.reelsense.graph.retry(video)
        return {"video": video.id, "quarantined": False, "changed": changed}

    def aside(self) -> dict[str, Any]:
        """The videos that are in quarantine or prioritised."""
        return {
            "quarantined": [
                {"video": mark.name, **mark.model_dump(exclude={"name"})}
                for mark in self.administration.quarantined().values()
            ],
            "prioritised": [
                {"video": mark.name, "who": mark.who, "at": mark.at}
                for mark in self.administration.priorities().values()
            ],
        }

    # --- failures and the audit log ----------------------------------------------------------------------------------

    def failures(self) -> dict[str, Any]:
        """Failed and dead runs by stage and code."""
        return {"failures": self.administration.failures()}

    def replay(self, stage: str, code: str) -> dict[str, Any]:
        """Try again the runs of a stage that ended with a code, of what is served or made now."""
        stages_of(stage)
        aside = self.administration.quarantined()
        found = current(self.reelsense, self.administration.failed(stage, code, SENT_AT_ONCE))
        keys = [key for key in found if key.video_id not in aside]
        self.reelsense.catalogue.reset(keys)
        self.administration.note(self.actor, "dead.replay", stage, {"code": code, "runs": len(keys)})
        self.reelsense.graph.enqueue(keys)
        return {"stage": stage, "code": code, "runs": len(keys)}

    def note(self, action: str, subject: str, details: dict[str, Any]) -> None:
        """Write a decision into the audit log."""
        self.administration.note(self.actor, action, subject, details)

    def audit(self, k: int, subject: str | None = None) -> dict[str, Any]:
        """The latest entries of the audit log, newest first."""
        if not 1 <= k <= SENT_AT_ONCE:
            raise InputError("request.invalid", f"k must be 1 to {SENT_AT_ONCE}, got {k}.")
        return {"audit": [entry.model_dump() for entry in self.administration.audit(k, subject)]}


def current(reelsense: ReelSense, keys: Sequence[RunKey]) -> list[RunKey]:
    """Those of the runs that are of what is served or made now: of a video, its words and a version that still are."""
    graph = reelsense.graph
    graph.refresh()
    videos = {video.id: video for video in reelsense.catalogue.videos([key.video_id for key in keys])}
    return [key for key in keys if key.video_id in videos and key in graph.keys(videos[key.video_id], key.stage)]


def stages_of(name: str) -> list[str]:
    """The stages of a queue, or the stage of that name. Raises `queue.unknown`."""
    from workers.stages import STAGES

    found = [stage.name for stage in STAGES if stage.queue == name] or [
        stage.name for stage in STAGES if stage.name == name
    ]
    if not found:
        raise NotFoundError(
            "queue.unknown", f"There is no queue or stage {name[:64]!r}.", hint="`reelsense queue ls` lists them."
        )
    return found


def stages_queue(stage: str) -> str:
    """The queue on which a stage runs."""
    from workers.stages import BY_NAME

    return BY_NAME[stage].queue


def is_alive(row: WorkerRow) -> bool:
    """Whether a worker is there, as far as can be told from here."""
    return row.state != "drained" and _condition(row) not in ("dead", "silent")


def _condition(row: WorkerRow) -> str:
    import psutil  # type: ignore[import-untyped]

    if row.state == "drained":
        return row.state
    if row.host == socket.gethostname():
        try:
            # The number may belong to another process by now.
            same = psutil.Process(row.pid).create_time() < row.started_at + 1.0
        except psutil.Error:
            same = False
        return row.state if same else "dead"
    # Who finishes a long stage before it leaves has nothing more to say.
    return row.state if row.state == "stopping" or time.time() - row.seen_at < SILENT_SECONDS else "silent"


def _worker(row: WorkerRow, running: Sequence[Run]) -> dict[str, Any]:
    processes = {f"{row.host}/{pid}" for pid in (row.pid, *row.children)}
    return {
        **row.model_dump(exclude={"children", "seen_at", "state"}),
        "processes": len(row.children),
        "state": _condition(row),
        "seen_seconds": round(max(0.0, time.time() - row.seen_at), 1),
        "running": [_run(run) for run in running if run.worker in processes],
    }


def _run(run: Run) -> dict[str, Any]:
    now = time.time()
    since = run.started_at if run.state == "running" else run.queued_at
    return {
        "video": run.video_id,
        "stage": run.stage,
        "state": run.state,
        "attempts": run.attempts,
        "worker": run.worker if run.state == "running" else None,
        "since": since,
        "seconds": None if since is None else round(max(0.0, now - since), 1),
    }
