"""Feeding re-embedding jobs: a few videos at a time, behind uploads, the sample first, until everything is there.

Part of `reelsense up` while a job is open; on a fleet it runs beside the sweep (`python -m workers.sweeper`) or by
itself, `python -m workers.feeder`. A job is fed by whoever holds its lease, so that many feeders do no harm, and when
one dies the next takes the job up where its cursors stand. What was sent twice runs once: the ledger sees to that.

A job passes through these states:

    planned ─▶ canary ─▶ running ─▶ complete ─▶ switched ─▶ rolled_back
                  └──────────┴─▶ failed (what was made is worse than what is served)
    paused, from the first three and back; cancelled, from all before `switched`

Messages are few: at most `concurrency` videos of a job are under way at any time, whatever the size of the catalogue.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

from store.artifacts import digest
from store.catalogue import Video
from store.errors import PassingError, ReelsenseError
from store.jobs import OPEN, Job, State
from store.records import MODALITIES, Artifact, Float32
from store.settings import Settings, load_settings
from workers import logs
from workers.comparing import Pair, compare, complaints
from workers.graph import Graph
from workers.plans import Plan, changed_stages, target_of
from workers.reembedding import own_versions, sample_of
from workers.reporting import reporting
from workers.stages import BY_NAME

LEASE_SECONDS = 30.0
PAUSE_SECONDS = 0.2
IDLE_SECONDS = 1.0
RESEND_SECONDS = 60.0
COUNT_SECONDS = 3.0
AGAIN_SECONDS = 10.0
PROGRESS_POINTS = 120
LOOKED_AT = 500


class Feeder:
    """Feeds every open job of one installation. `depths` tells how many messages wait in each queue; `say` receives a
    line when a job comes into another state."""

    def __init__(self, graph: Graph, depths: Callable[[], dict[str, int]], say: Callable[[str], None]) -> None:
        self.graph = graph
        self.jobs = graph.jobs
        self.depths = depths
        self.say = say
        self.name = f"{socket.gethostname()}/{os.getpid()}/{threading.get_ident()}"
        self._counted: dict[str, float] = {}
        self._again: dict[str, float] = {}
        # What was under way when this feeder began may have died with its broker: look at it at once.
        self._seen: set[str] = set()

    def feed(self) -> bool:
        """Do what can be done now for every open job; whether one is to be made. Raises PassingError."""
        found = self.jobs.jobs(OPEN)
        for job in found:
            if self.jobs.lease(job.id, self.name, LEASE_SECONDS):
                self._feed(job)
        return any(job.state in ("planned", "canary", "running") for job in found)

    def _feed(self, job: Job) -> None:
        self.graph.refresh()
        plan = next((plan for plan in self.graph.plans if plan.job == job.id), None)
        if plan is None:
            return  # it asks for what this machine does not have; another feeder may have it
        served = self.graph.plans[0]
        changed = changed_stages(served, plan)
        if digest(dict(plan.versions)) != job.versions and job.state in ("running", "complete"):
            # A learnt model or an encoding was served meanwhile, and the job's versions are others now.
            self.jobs.reopen(job.id)
            self._move(
                job, (job.state,), "running", "start over: versions have changed", versions=digest(dict(plan.versions))
            )
            return
        under_way = self._tend(job)
        if job.state == "planned":
            self._begin(job, served)
        elif job.state == "canary":
            self._canary(job, served, plan, changed, under_way)
        elif job.state == "running":
            self._run(job, served, plan, changed, under_way)

    # --- what is under way -------------------------------------------------------------------------------------------

    def _tend(self, job: Job) -> int:
        """Send again what a worker handed back, or what was lost; how many videos are under way."""
        own = own_versions(self.graph, job)
        runs = self.jobs.under_way(own)
        if job.state == "paused":
            return len({run.video_id for run in runs})
        now = time.time()
        old = now - RESEND_SECONDS if job.id in self._seen else now
        lost = [run for run in runs if run.queued_at and (run.state == "running" or run.queued_at < old)]
        handed_back = [run for run in runs if run.state == "queued" and not run.queued_at]
        if handed_back:
            wait = self.jobs.uploads_wait(self.graph.job_versions(), self.graph.settings.lease_seconds)
            if wait:
                handed_back = handed_back[:1] if self._starves(job) else []
            for run in handed_back:
                self.graph.tend(run, False, 0.0)
        lost = [run for run in lost if run.state == "queued" or now - (run.heartbeat_at or 0.0) > 1.0]
        if lost:
            depths = self.depths() if any(run.state == "queued" for run in lost) else {}
            for run in lost:
                waiting = bool(depths.get(BY_NAME[run.stage].queue))
                self.graph.tend(run, waiting, RESEND_SECONDS if job.id in self._seen else 0.0)
        self._seen.add(job.id)
        return len({run.video_id for run in runs})

    def _starves(self, job: Job) -> bool:
        return time.time() - job.last_started > self.graph.settings.reembed.starve_seconds

    def _allowance(self, job: Job, under_way: int) -> int:
        """How many more videos may be sent now."""
        room = max(0, job.concurrency - under_way)
        if job.rate is not None:
            # No more than a second's worth is saved up.
            earned = min((time.time() - job.fed_at) * job.rate, max(1.0, job.rate))
            room = min(room, int(earned))
        if room and self.jobs.uploads_wait(self.graph.job_versions(), self.graph.settings.lease_seconds):
            room = 1 if self._starves(job) and not under_way else 0
        return room

    def _send(self, video: Video, plan: Plan, changed: Sequence[str]) -> bool:
        """Send those changed stages of a video that are missing and ready, and whether there were any. What it shares
        with the served plan is left to uploads and sweeps."""
        present = {
            name
            for name in dict.fromkeys([*changed, *(need for stage in changed for need in BY_NAME[stage].needs)])
            if self.graph.has(self.graph.key(video, name, plan))
        }
        ready = [name for name in changed if name not in present and present.issuperset(BY_NAME[name].needs)]
        self.graph.complete(video, plan, [name for name in changed if name in present])
        self.graph.enqueue([self.graph.key(video, name, plan) for name in ready])
        return bool(ready)

    def _spend(self, job: Job, sent: int) -> None:
        if sent and job.rate is not None:
            now = time.time()
            self.jobs.note(job.id, fed_at=max(job.fed_at, now - max(1.0, 1.0 / job.rate)) + sent / job.rate)

    # --- the sample --------------------------------------------------------------------------------------------------

    def _begin(self, job: Job, served: Plan) -> None:
        sample = sample_of(
            self.graph, self.jobs.shards(job.id), job.where, self.graph.settings.reembed.canary_videos, served
        )
        self._move(job, ("planned",), "canary", "send a sample", sample=[video.id for video in sample])

    def _canary(self, job: Job, served: Plan, plan: Plan, changed: Sequence[str], under_way: int) -> None:
        if self._fed(job, self.graph.catalogue.videos(job.sample), plan, changed, under_way):
            numbers = self._numbers(job.sample, served, plan, changed)
            self._judge(job, "canary", "running", numbers)

    def _fed(self, job: Job, videos: Sequence[Video], plan: Plan, changed: Sequence[str], under_way: int) -> bool:
        """Send what of these videos is to be made, as much as may be; whether nothing is left to make."""
        unsettled = set(self.jobs.unsettled([video.id for video in videos], target_of(plan, changed)))
        if not unsettled:
            return True
        busy = {run.video_id for run in self.jobs.under_way(own_versions(self.graph, job))}
        left = [video for video in videos if video.id in unsettled - busy]
        room = self._allowance(job, under_way)
        sent = sum(self._send(video, plan, changed) for video in left[:room])
        self._spend(job, sent)
        return False

    def _numbers(self, ids: Sequence[str], served: Plan, plan: Plan, changed: Sequence[str]) -> dict[str, Any]:
        """See `workers.comparing`. Videos that are not published by the served version are left out."""
        modalities = [str(name) for name in MODALITIES if name in changed]
        ends = target_of(plan, changed).ends
        pairs: list[Pair] = []
        failed = 0
        for video in self.graph.catalogue.videos(ids):
            before, after = (self._artifact(video, "published", which) for which in (served, plan))
            if before is None:
                continue
            if after is None or not all(self.graph.has(self.graph.key(video, name, plan)) for name in ends):
                failed += 1
                continue
            old, new = (
                {name: _tokens(self._artifact(video, name, which)) for name in modalities} for which in (served, plan)
            )
            pairs.append(Pair(before.arrays["vector"], after.arrays["vector"], old, new))
        numbers = compare(pairs, modalities, failed)
        return numbers | {"complaints": complaints(numbers, self.graph.settings.reembed), "at": time.time()}

    def _artifact(self, video: Video, stage: str, plan: Plan) -> Artifact | None:
        key = self.graph.key(video, stage, plan)
        return self.graph.artifact(key) if self.graph.has(key) else None

    def _judge(self, job: Job, name: str, good: State, numbers: dict[str, Any]) -> None:
        """Go on when the numbers are good, else stop the job by itself."""
        if not numbers["complaints"]:
            self._move(job, (job.state,), good, f"{name} is good", **{name: numbers})
            return
        own = own_versions(self.graph, job)
        reason = {"code": "job.canary_failed", "message": " ".join(numbers["complaints"])}
        self._move(job, (job.state,), "failed", f"{name} is bad", **{name: numbers, "reason": reason})
        self.jobs.forget_queued(own)

    def _move(self, job: Job, allowed: tuple[State, ...], state: State, what: str, **values: Any) -> None:
        try:
            self.jobs.change(job, allowed, state, what, "feeder", **values)
        except ReelsenseError as error:
            if error.code != "job.wrong_state":
                raise
            return  # somebody paused or cancelled it at this moment
        self.say(f"re-embedding {job.id}: {what}, now {state}")

    # --- all of it ---------------------------------------------------------------------------------------------------

    def _run(self, job: Job, served: Plan, plan: Plan, changed: Sequence[str], under_way: int) -> None:
        target = target_of(plan, changed)
        room = self._allowance(job, under_way)
        sent = self._advance(job, plan, changed, room)
        self._spend(job, sent)
        now = time.monotonic()
        if now - self._counted.get(job.id, 0.0) < COUNT_SECONDS and (room == 0 or sent):
            return
        self._counted[job.id] = now
        waiting = self.jobs.shards(job.id, ("waiting",), most=1)
        begun = [shard for shard in waiting if shard.cursor != shard.after]
        unsettled = self.jobs.shards(job.id, ("sent",))
        for shard in [*begun, *unsettled]:
            found = self.jobs.census(shard.after, shard.last, job.where, target, job.created_at)
            # What came since the job began is not the job's: uploads make it for both plans, or the sweep does.
            counted = shard.model_copy(
                update={"videos": found.videos - found.late, "done": found.done, "failed": found.failed}
            )
            if shard.state == "sent" and not found.missing:
                counted = counted.model_copy(update={"state": "done"})
            elif shard.state == "sent" and not under_way and now > self._again.get(job.id, 0.0):
                # Some came back without a vector (their needs were away for a while, say): once more.
                self._again[job.id] = now + AGAIN_SECONDS
                counted = counted.model_copy(update={"state": "waiting", "cursor": shard.after})
            self.jobs.put_shard(counted)
            self.jobs.lease(job.id, self.name, LEASE_SECONDS)
        totals = self.jobs.totals(job.id)
        points = [*job.progress, (round(time.time(), 2), totals.done)][-PROGRESS_POINTS:]
        self.jobs.note(job.id, progress=points)
        if not self.jobs.shards(job.id, ("waiting", "sent"), most=1):
            sample = sample_of(
                self.graph,
                self.jobs.shards(job.id),
                job.where,
                self.graph.settings.reembed.validation_videos,
                served,
            )
            # Late ones are made when the job is complete.
            early = [video.id for video in sample if video.uploaded_at <= job.created_at]
            numbers = self._numbers(early, served, plan, changed)
            self._judge(job, "validation", "complete", numbers)

    def _advance(self, job: Job, plan: Plan, changed: Sequence[str], room: int) -> int:
        """Send what the next videos lack, in the order of their ids, and move the cursors along; how many were sent."""
        target = target_of(plan, changed)
        sent = looked = 0
        while sent < room and looked < LOOKED_AT:
            waiting = self.jobs.shards(job.id, ("waiting",), most=1)
            if not waiting:
                break
            (shard,) = waiting
            most = room - sent
            batch = self.jobs.videos_between(shard.cursor, shard.last, job.where, most, lacking=target)
            sent += sum(self._send(video, plan, changed) for video in batch)
            looked += max(1, len(batch))
            ended = len(batch) < most
            # Behind the sending: a feeder that dies in between sends these again, and what runs twice ends at once.
            self.jobs.put_shard(
                shard.model_copy(update={"cursor": shard.last, "state": "sent"} if ended else {"cursor": batch[-1].id})
            )
            self.jobs.lease(job.id, self.name, LEASE_SECONDS)
        return sent


def _tokens(artifact: Artifact | None) -> Float32:
    import numpy as np

    return artifact.tokens().embeddings if artifact is not None else np.zeros((0, 0), np.float32)


def open_feeder(settings: Settings, say: Callable[[str], None]) -> Feeder:
    """A feeder that sends through the broker of these settings. Raises `stack.not_running`."""
    from workers.celery_app import create_app, open_graph, queue_depths

    app = create_app(settings)
    return Feeder(open_graph(app), lambda: queue_depths(app), say)


def feed_until(stop: threading.Event, feeder: Feeder, say: Callable[[str], None]) -> None:
    """Feed until told to stop. A store, database or broker that is away is reported and tried again."""
    pause = IDLE_SECONDS
    while not stop.wait(pause):
        try:
            pause = PAUSE_SECONDS if feeder.feed() else IDLE_SECONDS
        except PassingError as error:
            say(f"feeder: {error.code}: {error.message}")
            pause = 10 * IDLE_SECONDS


def main() -> None:
    """Feed until SIGTERM or SIGINT."""
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())

    def say(text: str) -> None:
        sys.stderr.write(text + "\n")
        sys.stderr.flush()

    try:
        settings = load_settings()
        logs.configure(settings, service="feeder")
        feeder = open_feeder(settings, say)
    except ReelsenseError as error:
        sys.exit(f"{error.code}: {error.message} {error.hint}")
    with reporting(settings, "feeder"):
        feed_until(stop, feeder, say)


if __name__ == "__main__":
    main()
