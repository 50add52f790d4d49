"""Walking the stage graph: what is missing, what is ready, how one stage is run, and the sweep that loses no video.

Nothing here remembers a run outside storage. A stage whose artifact exists is done. When a stage ends, the stages whose
needs are now all present are sent to their queues. Two workers may both send the same stage; the claim in the ledger
lets one of them run it, and a second run would write the same artifact.
"""

from __future__ import annotations

import contextlib
import errno
import math
import os
import socket
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import structlog

from store import ledger_figures, measurements
from store.administration import Administration
from store.artifacts import artifact_key, from_bytes, source_key, to_bytes
from store.catalogue import Catalogue, Run, RunKey, Video
from store.dead_letters import DeadLetters
from store.deletions import Deletions
from store.errors import InputError, NotFoundError, PassingError, ReelsenseError
from store.jobs import ENCODING, Jobs
from store.objects import ObjectStore
from store.records import Artifact
from store.settings import Settings
from workers import extraction, run_log, stages, time_limits, tracing
from workers.admission import pause_names
from workers.plans import JobEncoding, Plan, next_choice, plans

Send = Callable[[RunKey], None]
_SPOILT = ("store.missing", "store.artifact_damaged")
# What an operating system says when this machine is full: no fault of the video that happened to meet it.
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.ENFILE)
log = structlog.get_logger()


@dataclass(frozen=True)
class SweepReport:
    """What a sweep did: `videos` looked at, runs `sent` to queues, publications `repaired`, runs given up, damaged
    artifacts that were `discarded`, and learnt models that are `served` from now on."""

    videos: int = 0
    sent: list[RunKey] = field(default_factory=list)
    repaired: int = 0
    given_up: list[RunKey] = field(default_factory=list)
    discarded: list[RunKey] = field(default_factory=list)
    served: dict[str, str] = field(default_factory=dict)


class Graph:
    """The stage graph over one store and one catalogue, in the versions that are served, come next or jobs bring in."""

    def __init__(self, settings: Settings, objects: ObjectStore, catalogue: Catalogue, send: Send) -> None:
        self.settings = settings
        self.objects = objects
        self.catalogue = catalogue
        self.letters = DeadLetters(catalogue)
        self.administration = Administration(catalogue)
        self.deletions = Deletions(catalogue)
        self.send = send
        self.jobs = Jobs(catalogue)
        self.plans: tuple[Plan, ...] = ()
        self._chosen: object = None
        self.refresh()
        self.worker = f"{socket.gethostname()}/{os.getpid()}"
        # Runs that could not be given back, for the database was away: by now it may be there.
        self._unreturned: set[RunKey] = set()
        # For each run of another worker: what it last showed, and since when by the steady clock of this process.
        self._leases: dict[RunKey, tuple[tuple[str | None, int, float | None], float]] = {}

    def refresh(self) -> None:
        """See what is served by now, what comes next, and which jobs are open: others make other versions."""
        choices, jobs = self.catalogue.choices(), self.jobs.open_encodings()
        if (choices, jobs) != self._chosen:
            open_jobs = [JobEncoding(job, self.jobs.overrides(encoding), whole) for job, encoding, whole in jobs]
            served = self.jobs.overrides(choices.get(ENCODING, ""))
            self.plans = plans(self.settings, choices, served, open_jobs)
            self._chosen = (choices, jobs)

    @property
    def followed(self) -> tuple[Plan, ...]:
        """The plans that uploads and sweeps follow, the served one first: all but those of jobs under way, which are
        fed piece by piece."""
        return tuple(plan for plan in self.plans if plan.followed)

    def job_versions(self) -> set[str]:
        """The versions that only jobs bring in."""
        shared = {version for plan in self.plans if not plan.job for version in plan.versions.values()}
        return {version for plan in self.plans if plan.job for version in plan.versions.values()} - shared

    @property
    def versions(self) -> Mapping[str, str]:
        """The version of each stage that is served."""
        return self.plans[0].versions

    # --- what there is to do -----------------------------------------------------------------------------------------

    def key(self, video: Video, stage: str, plan: Plan | None = None) -> RunKey:
        """The run of a stage of a video in its version by `plan` (the served one when None) and, where words play a
        part, its present revision."""
        revision = video.revision if stages.BY_NAME[stage].reads_words else ""
        version = (plan or self.plans[0]).versions[stage]
        return RunKey(video_id=video.id, stage=stage, version=version, revision=revision)

    def keys(self, video: Video, stage: str) -> list[RunKey]:
        """The runs of a stage of a video by every followed plan, the served one first; one where they agree."""
        return list(dict.fromkeys(self.key(video, stage, plan) for plan in self.followed))

    def has(self, key: RunKey) -> bool:
        """Whether the artifact of a run exists."""
        return self.objects.size(_artifact_key(key)) is not None

    def ready(self, video: Video, present: set[str] | None = None, plan: Plan | None = None) -> list[RunKey]:
        """The stages of a video whose artifact is missing while all they need is there, in the order of the graph."""
        if present is None:
            present = {stage.name for stage in stages.STAGES if self.has(self.key(video, stage.name, plan))}
        return [
            self.key(video, stage.name, plan)
            for stage in stages.STAGES
            if stage.name not in present and present.issuperset(stage.needs)
        ]

    def enqueue(self, keys: Sequence[RunKey]) -> None:
        """Note each run in the ledger and send its message; one that failed before stays failed and is not sent, and
        none of a video in quarantine."""
        aside = self.administration.quarantined([key.video_id for key in keys]) if keys else {}
        for key in keys:
            if key.video_id in aside:
                continue
            self.catalogue.mark_queued(key)
            run = self.catalogue.run(key)
            if run is not None and run.state == "queued":
                self.send(key)

    # --- one stage ---------------------------------------------------------------------------------------------------

    def run(self, key: RunKey, encoders: extraction.Encoders) -> Run | None:
        """Run one stage of one video and send what becomes ready. Returns the ledger's row, None for a stale message.

        Raises PassingError after handing the run back, so that the caller can try again later.
        """
        self.refresh()
        self._return()
        plan = self._plan_of(key)
        if plan is None:
            # A message of another version: this worker would write under a key that names something else.
            log.warning("stale message dropped", stage=key.stage, version=key.version, video=key.video_id)
            return None
        try:
            video = self.catalogue.video(key.video_id)
        except NotFoundError:
            log.warning("message of an unknown video dropped", stage=key.stage, video=key.video_id)
            self.catalogue.forget(key)
            return None
        if self.key(video, key.stage, plan) != key:
            return None  # the uploader's words have changed since; the new revision has its own message
        if self.has(key):
            measurements.count("reelsense_stage_cache_hits_total", stage=key.stage)
            tracing.note(outcome="there already")
            self._done(video, key, None)
            return self.catalogue.run(key)
        if plan.job and not self._may_start(plan, key):
            log.info("behind uploads", stage=key.stage, video=key.video_id, job=plan.job)
            return self.catalogue.run(key)
        encoders = encoders.of(plan.settings)
        attempt = self._claim(key)
        if attempt is None:
            return self.catalogue.run(key)
        if attempt > self.settings.limits.attempts:
            self.give_up(key)
            return self.catalogue.run(key)
        if attempt > 1 or not self._attempt_together(key, encoders):
            self._attempt(video, key, attempt, encoders)
        return self.catalogue.run(key)

    def _plan_of(self, key: RunKey) -> Plan | None:
        """The first plan by which this run has its version. Plans that agree on a stage agree on all it needs."""
        return next((plan for plan in self.plans if plan.versions.get(key.stage) == key.version), None)

    def _may_start(self, plan: Plan, key: RunKey) -> bool:
        starve = self.settings.reembed.starve_seconds
        return self.jobs.may_start(plan.job, key, self.job_versions(), self.settings.lease_seconds, starve)

    def _claim(self, key: RunKey) -> int | None:
        # A lease never runs out by comparing clocks: two machines' differ, and any may jump. The sweep, which watches
        # for a while, takes runs from the silent; here only those of processes that are surely gone are taken.
        attempt = self.catalogue.claim(key, self.worker, math.inf)
        if attempt is None:
            held = self.catalogue.run(key)
            if held is not None and held.state == "running" and _is_dead(held.worker):
                attempt = self.catalogue.claim(key, self.worker, lease_seconds=-1.0)
        return attempt

    def _return(self) -> None:
        """Give back what could not be given back before. Raises `database.unavailable`."""
        for key in sorted(self._unreturned, key=str):
            self.catalogue.abandon(key, counted=False, worker=self.worker)
            self._unreturned.discard(key)

    def _release(self, key: RunKey, error: PassingError) -> None:
        """Hand a run back uncounted; where even that fails, as soon as the database is there again."""
        self._unreturned.add(key)
        self.catalogue.release(key, error, traceback.format_exc())
        self._unreturned.discard(key)

    def _attempt(self, video: Video, key: RunKey, attempt: int, encoders: extraction.Encoders) -> None:
        at_once = attempt > 1 or self.settings.limits.attempts == 1
        with run_log.kept(self.letters, [key], at_once=at_once) as lines:
            failed = True
            try:
                failed = self._attempt_kept(video, key, attempt, encoders)
            finally:
                lines.end(failed=failed)

    def _attempt_kept(self, video: Video, key: RunKey, attempt: int, encoders: extraction.Encoders) -> bool:
        """Whether the run has failed for good. Raises PassingError after handing it back."""
        started = time.monotonic()
        bound = log.bind(stage=key.stage, video=key.video_id, version=key.version, attempt=attempt)
        limits = time_limits.limits_of(key.stage, [video], self.settings)
        if attempt > 1:
            measurements.count("reelsense_stage_retries_total", stage=key.stage, reason="attempt")
        tracing.note(attempt=attempt, worker=self.worker)
        bound.info("stage started", worker=self.worker, hard_limit_seconds=round(limits.hard, 1))
        try:
            with self._heartbeat([key]), time_limits.limited(limits):
                self._write(key, extraction.compute(key.stage, self._input(video, key), encoders))
            _measure(key, video, time.monotonic() - started)
            self._done(video, key, time.monotonic() - started)
            bound.info("stage done", seconds=round(time.monotonic() - started, 3))
        except time_limits.HandedBack:
            bound.warning("stage handed back, for the worker shuts down")
            self.catalogue.abandon(key, counted=False, worker=self.worker)
            self.send(key)
        except ReelsenseError as error:
            # What passes is tried again, and finds by itself that the video is gone: nothing may be asked of a database
            # that is away before the run is noted as one to hand back.
            if not isinstance(error, PassingError) and self._was_deleted(key):
                return False
            if error.code in _SPOILT and self._mend_needs(video, key):
                bound.warning("stage waits for its needs again", code=error.code, message=error.message)
            elif error.code == "store.missing" and self.objects.size(source_key(video.id)) is not None:
                # It is there again: some stores have a moment without an object while it is written anew.
                passing = PassingError("store.unavailable", f"An object was away for a moment: {error.message}")
                self._release(key, passing)
                raise passing from error
            elif isinstance(error, PassingError):
                bound.warning("stage handed back", code=error.code, message=error.message)
                measurements.count("reelsense_stage_retries_total", stage=key.stage, reason="passing")
                self._release(key, error)
                raise
            else:
                bound.warning("stage failed", code=error.code, message=error.message)
                _failed(key, error.code)
                self.catalogue.fail(key, error, traceback.format_exc())
                return True
        except OSError as error:
            if error.errno not in _FULL:
                return self._fail_unexpected(key, error, bound)
            full = PassingError("store.unavailable", f"This worker's machine is full: {error.strerror}.")
            bound.warning("stage handed back", code=full.code, message=full.message)
            self._release(key, full)
            raise full from error
        except Exception as error:
            return self._fail_unexpected(key, error, bound)
        return False

    def _fail_unexpected(self, key: RunKey, error: Exception, bound: structlog.typing.FilteringBoundLogger) -> bool:
        bound.exception("stage failed")
        _failed(key, "internal")
        wrapped = ReelsenseError("internal", f"{type(error).__name__}: {error}"[:500])
        self.catalogue.fail(key, wrapped, traceback.format_exc())
        return True

    def _attempt_together(self, key: RunKey, encoders: extraction.Encoders) -> bool:
        """Run `key`, which is claimed, and others of its stage that wait, as one batch. False when there are none, the
        stage has no batches, or anything went wrong: then the others are handed back untried, and `key` is to be run
        alone, which tells whose fault it was."""
        most = self.settings.batch_videos - 1
        if most < 1 or not extraction.takes_batches(key.stage, encoders):
            return False
        others = self._not_aside(self.catalogue.claim_waiting(key, self.worker, most))
        if not others:
            return False
        started = time.monotonic()
        keys = [key, *others]
        try:
            videos = [self.catalogue.video(item.video_id) for item in keys]
            limits = time_limits.limits_of(key.stage, videos, self.settings)
            with self._heartbeat(keys), time_limits.limited(limits):
                inputs = [self._input(video, item) for video, item in zip(videos, keys, strict=True)]
                for item, computed in zip(keys, extraction.compute_many(key.stage, inputs, encoders), strict=True):
                    self._write(item, computed)
        except Exception as error:
            log.warning(
                "batch taken apart", stage=key.stage, videos=len(keys), error=f"{type(error).__name__}: {error}"
            )
            for other in others:
                self.catalogue.abandon(other, counted=False, worker=self.worker)
                self.send(other)
            return False
        except time_limits.HandedBack:
            for item in keys:
                self.catalogue.abandon(item, counted=False, worker=self.worker)
                self.send(item)
            return True
        seconds = (time.monotonic() - started) / len(keys)
        for video, item in zip(videos, keys, strict=True):
            _measure(item, video, seconds)
            self._done(video, item, seconds)
        log.info("batch done", stage=key.stage, videos=len(keys), seconds=round(seconds, 3))
        return True

    def _not_aside(self, keys: list[RunKey]) -> list[RunKey]:
        """Those of some claimed runs whose video is not in quarantine; the others end."""
        aside = self.administration.quarantined([key.video_id for key in keys]) if keys else {}
        for key in keys:
            if key.video_id in aside:
                self.catalogue.abandon(key, counted=False)
                self.administration.refuse(key, aside[key.video_id].message)
        return [key for key in keys if key.video_id not in aside]

    def _input(self, video: Video, key: RunKey) -> extraction.StageInput:
        plan = self._plan_of(key) or self.plans[0]
        needs = {need: self.artifact(self.key(video, need, plan)) for need in stages.BY_NAME[key.stage].needs}
        return extraction.StageInput(video, self.objects, needs, plan.models)

    def _write(self, key: RunKey, computed: extraction.Computed) -> None:
        attributes, arrays = computed
        if "embeddings" in arrays:
            measurements.count("reelsense_tokens_total", len(arrays["embeddings"]), stage=key.stage)
        described = attributes.model_dump(mode="json")
        artifact = Artifact(key.stage, key.version, key.video_id, key.revision, described, arrays)
        self.objects.put(_artifact_key(key), to_bytes(artifact))

    def give_up(self, key: RunKey, code: str = "stage.gave_up") -> None:
        """Set a run aside as dead, keeping the reason that its last attempt left, if any. Where the hard limit killed
        it, the code is `stage.timeout`."""
        run = self.catalogue.run(key)
        noted = self.letters.noted(key)
        last = f" Last error: {run.error_message}" if run is not None and run.error_message else ""
        why = "it kills its worker or cannot reach what it needs"
        if noted.lines and time_limits.SOFT_LIMIT_EVENT in noted.lines[-1]:
            code, why = "stage.timeout", "it takes longer than its hard limit and does not stop"
        error = ReelsenseError(
            code,
            f"The stage {key.stage} was tried {run.attempts if run else 0} times without an end: {why}.{last}",
        )
        self.catalogue.fail(key, error, (run.traceback if run else None) or noted.place or None, dead=True)
        _failed(key, code)
        log.error("stage set aside", stage=key.stage, video=key.video_id, message=error.message)

    def artifact(self, key: RunKey) -> Artifact:
        """Read an artifact. Raises `store.missing`, `store.artifact_damaged`."""
        return from_bytes(self.objects.get(_artifact_key(key)))

    def readable(self, key: RunKey) -> bool:
        """Whether an artifact is there and whole. Reads all of it. Raises `store.unavailable`."""
        try:
            self.artifact(key)
        except ReelsenseError as error:
            if error.code in _SPOILT:
                return False
            raise
        return True

    def discard(self, key: RunKey) -> None:
        """Delete an artifact and what the ledger knows of its run, so that it is made again: its key names exactly what
        made it, so the new one is what the old one should have been."""
        log.warning("artifact discarded", stage=key.stage, video=key.video_id, version=key.version)
        self.objects.delete(_artifact_key(key))
        self.catalogue.forget(key)

    def _mend_needs(self, video: Video, key: RunKey) -> bool:
        """Discard those needs of a run that cannot be read, and send them; their end sends the run again. Whether there
        were any."""
        plan = self._plan_of(key)
        needs = [self.key(video, need, plan) for need in stages.BY_NAME[key.stage].needs]
        spoilt = [need for need in needs if not self.readable(need)]
        for need in spoilt:
            self.discard(need)
        if spoilt:
            self.catalogue.forget(key)
            self.enqueue(self.ready(video, plan=plan))
        return bool(spoilt)

    def _done(self, video: Video, key: RunKey, seconds: float | None) -> None:
        # Words that changed while the stage ran: their own revision is published, this one is not any more.
        if key.stage == stages.STAGES[-1].name and self._says_still(key):
            if seconds is not None and ledger_figures.is_unpublished(self.catalogue, key.video_id):
                measurements.observe("reelsense_publish_seconds", max(0.0, time.time() - video.uploaded_at))
            self.catalogue.publish(key.video_id, key.version, key.revision)
        self.catalogue.finish(key, seconds)
        # Asked after all was written: a deletion that comes later finds it by itself.
        if self._was_deleted(key):
            return
        # An upload's run does not set a job's runs off, though both share it: those are fed by the job.
        of_jobs = self.job_versions()
        fresh = [
            ready
            for plan in self.plans
            if plan.versions[key.stage] == key.version and (plan.followed or key.version in of_jobs)
            for stage in stages.STAGES
            if key.stage in stage.needs
            and not self.has(ready := self.key(video, stage.name, plan))
            and all(self.has(self.key(video, need, plan)) for need in stage.needs)
        ]
        self.enqueue(list(dict.fromkeys(fresh)))

    def _was_deleted(self, key: RunKey) -> bool:
        """Whether the video of a run was deleted while it ran; then what the run left is removed."""
        if self.deletions.is_there(key.video_id):
            return False
        log.info("the video was deleted meanwhile", stage=key.stage, video=key.video_id)
        self.deletions.remove(key.video_id, self.worker)
        self.objects.delete(_artifact_key(key))
        return True

    def _says_still(self, key: RunKey) -> bool:
        """Whether the video of a run is there and has the words that went into it."""
        return any(video.revision == key.revision for video in self.catalogue.videos([key.video_id]))

    @contextlib.contextmanager
    def _heartbeat(self, keys: Sequence[RunKey]) -> Iterator[None]:
        """Renew the leases from a thread while the stage computes."""
        stop = threading.Event()

        def beat() -> None:
            while not stop.wait(self.settings.lease_seconds / 4):
                # A missed beat is no error: the lease outlives three of them.
                for key in keys:
                    with contextlib.suppress(PassingError):
                        self.catalogue.beat(key, self.worker)
                if run_log.RunLog.current is not None:
                    run_log.RunLog.current.save()

        thread = threading.Thread(target=beat, name="heartbeat", daemon=True)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()

    # --- the sweep ---------------------------------------------------------------------------------------------------

    def reconcile(
        self, depths: Mapping[str, int] | None = None, *, resend_after: float = 0.0, verify: bool = False
    ) -> SweepReport:
        """Compare what should exist with what does, and send what is missing and ready.

        A run is left alone while its worker gives signs of life (see `_is_abandoned`); while its message is younger
        than `resend_after` seconds; and while its queue holds any message (`depths`, messages by queue), for its own
        may be among them, and a long queue must not grow with every sweep. A run that died with its worker too often is
        set aside. Cost: one listing per stage and one read of the ledger, however many videos there are. With `verify`
        every artifact is read as well, and a damaged one is discarded and made again. Where a learnt model comes next,
        what it makes new is sent behind everything else, and it is served as soon as every video has that. Videos in
        quarantine are passed over, and nothing is sent to a paused stage: what waits there is in the ledger.
        """
        self.refresh()
        aside = self.administration.quarantined()
        paused = self.administration.pauses()
        videos = [video for video in self.catalogue.videos() if video.id not in aside]
        report = SweepReport(videos=len(videos), discarded=self._discard_damaged(videos) if verify else [])
        ledger = {_key_of(run): run for run in self.catalogue.runs()}
        running = {key for key, run in ledger.items() if run.state == "running"}
        self._leases = {key: lease for key, lease in self._leases.items() if key in running}
        for plan in self.followed:
            present = {stage.name: self._present(stage.name, plan) for stage in stages.STAGES}
            report = replace(report, repaired=report.repaired + self._repair(videos, plan, present, ledger))
            whole = True
            for video in videos:
                there = {name for name, leaves in present.items() if _leaf(self.key(video, name, plan)) in leaves}
                for key in self.ready(video, there, plan):
                    waiting = bool(depths and depths.get(stages.BY_NAME[key.stage].queue))
                    if not pause_names(key.stage).isdisjoint(paused):
                        self._sweep_paused(key, ledger.get(key))
                        continue
                    self._sweep_one(key, ledger.get(key), waiting, resend_after, report)
                whole = whole and (len(there) == len(stages.STAGES) or self._has_failed(video, plan, ledger))
            if plan is not self.plans[0] and not plan.job and whole:
                self._serve(plan)
                report = replace(report, served=dict(plan.models))
        return report

    def _repair(
        self, videos: Sequence[Video], plan: Plan, present: Mapping[str, set[str]], ledger: dict[RunKey, Run]
    ) -> int:
        """Bring catalogue and ledger in line with the artifacts that are there; how many publications were missing."""
        published = {
            (row.video_id, row.revision) for row in self.catalogue.publications(plan.versions[stages.STAGES[-1].name])
        }
        repaired = 0
        for video in videos:
            last = self.key(video, stages.STAGES[-1].name, plan)
            if _leaf(last) in present[last.stage] and (video.id, last.revision) not in published:
                self.catalogue.publish(video.id, last.version, last.revision)
                repaired += 1
            for name in present:
                key = self.key(video, name, plan)
                if _leaf(key) in present[name] and ((run := ledger.get(key)) is None or run.state != "done"):
                    self.catalogue.finish(key, None)
        return repaired

    def repair(self) -> int:
        """Note in catalogue and ledger what artifacts there are, and send nothing; how many publications it lacked."""
        videos = self.catalogue.videos()
        ledger = {_key_of(run): run for run in self.catalogue.runs()}
        return sum(
            self._repair(videos, plan, {stage.name: self._present(stage.name, plan) for stage in stages.STAGES}, ledger)
            for plan in self.plans
        )

    def _has_failed(self, video: Video, plan: Plan, ledger: Mapping[RunKey, Run]) -> bool:
        found = (ledger.get(self.key(video, stage.name, plan)) for stage in stages.STAGES)
        return any(run is not None and run.state in ("failed", "dead") for run in found)

    def _serve(self, plan: Plan) -> None:
        """Serve a plan for which everything is there."""
        self.catalogue.choose(plan.models, instead_of=[next_choice(name) for name in plan.models])
        log.info("learnt models served", **plan.models)
        self.refresh()

    def tend(self, run: Run, waiting: bool, resend_after: float) -> None:
        """Send a run that is under way again where its message or its worker is gone (see `reconcile`)."""
        self._sweep_one(_key_of(run), run, waiting, resend_after, SweepReport())

    def complete(self, video: Video, plan: Plan, names: Sequence[str]) -> None:
        """Bring ledger and publications in line with artifacts of these stages that are there."""
        for name in names:
            key = self.key(video, name, plan)
            run = self.catalogue.run(key)
            if (run is None or run.state != "done") and self.has(key):
                self.catalogue.finish(key, None)
        last = self.key(video, stages.STAGES[-1].name, plan)
        if last.stage in names and self.has(last):
            self.catalogue.publish(video.id, last.version, last.revision)

    def _sweep_one(self, key: RunKey, run: Run | None, waiting: bool, resend_after: float, report: SweepReport) -> None:
        now = time.time()
        if run is not None:
            if run.state in ("failed", "dead"):
                return
            # A message from the future is one from before a clock was set back.
            if run.state == "queued" and (waiting or 0.0 <= now - (run.queued_at or 0.0) < resend_after):
                return
            if run.state == "done":
                # The ledger says done, the artifact is gone: somebody deleted it, and wants it again.
                self.catalogue.forget(key)
            if run.state == "running":
                if not self._is_abandoned(key, run):
                    return
                if run.attempts >= self.settings.limits.attempts:
                    self.give_up(key)
                    report.given_up.append(key)
                    return
                # Only from that worker in that attempt: another sweep may have been faster.
                self.catalogue.abandon(key, worker=run.worker, attempt=run.attempts)
        self.catalogue.mark_queued(key)
        self.send(key)
        report.sent.append(key)

    def _is_abandoned(self, key: RunKey, run: Run) -> bool:
        """Whether the worker of a running stage is gone: its process is, or it has shown no new heartbeat for a lease,
        measured by the steady clock of this very process. No two clocks are compared, so that none that jumps, here or
        there, takes a run from the living or leaves one with the dead."""
        if _is_dead(run.worker):
            return True
        shown = (run.worker, run.attempts, run.heartbeat_at)
        now = time.monotonic()
        if key not in self._leases or self._leases[key][0] != shown:
            self._leases[key] = (shown, now)
        return now - self._leases[key][1] >= self.settings.lease_seconds

    def _sweep_paused(self, key: RunKey, run: Run | None) -> None:
        """Let a run of a paused stage wait in the ledger, without a message."""
        if run is None:
            self.catalogue.mark_queued(key)
            self.administration.keep_unsent(key)
        elif run.state == "running" and _is_dead(run.worker):
            self.catalogue.abandon(key)
            self.administration.keep_unsent(key)

    def _discard_damaged(self, videos: Sequence[Video]) -> list[RunKey]:
        keys = [key for video in videos for stage in stages.STAGES for key in self.keys(video, stage.name)]
        damaged = [key for key in keys if self.has(key) and not self.readable(key)]
        for key in damaged:
            self.discard(key)
        return damaged

    def _present(self, stage: str, plan: Plan) -> set[str]:
        prefix = f"artifacts/{stage}/{plan.versions[stage]}/"
        return {item.key.removeprefix(prefix) for item in self.objects.list(prefix)}

    # --- what people ask ---------------------------------------------------------------------------------------------

    def states(self, videos: Sequence[Video]) -> dict[str, tuple[str, ReelsenseError | None]]:
        """For each video: `waiting`, `processing`, `ready` or `failed`, and the error of its first failed stage. One in
        quarantine is `failed`, whatever is there of it."""
        self.refresh()
        ids = [video.id for video in videos]
        ledger = {_key_of(run): run for run in self.catalogue.runs(ids)}
        aside = self.administration.quarantined(ids)
        result: dict[str, tuple[str, ReelsenseError | None]] = {}
        for video in videos:
            found = [ledger.get(self.key(video, stage.name)) for stage in stages.STAGES]
            broken = next((run for run in found if run is not None and run.state in ("failed", "dead")), None)
            if video.id in aside:
                result[video.id] = ("failed", InputError("video.quarantined", aside[video.id].message))
            elif broken is not None:
                error = InputError(broken.error_code or "internal", broken.error_message or "")
                result[video.id] = ("failed", error)
            elif all(run is not None and run.state == "done" for run in found):
                result[video.id] = ("ready", None)
            elif any(run is not None and run.state in ("running", "done") for run in found):
                result[video.id] = ("processing", None)
            else:
                result[video.id] = ("waiting", None)
        return result

    def retry(self, video: Video) -> None:
        """Let the failed and dead stages of a video be tried anew, and send what is missing and ready.

        Where nothing is missing (earlier words have come back), the video is published again. One in quarantine is left
        alone.
        """
        self.refresh()
        if self.administration.quarantined([video.id]):
            return
        self.administration.lift(video.id)
        self.catalogue.reset([key for stage in stages.STAGES for key in self.keys(video, stage.name)])
        last = self.key(video, stages.STAGES[-1].name)
        if self.has(last):
            self._done(video, last, None)
        self.enqueue(list(dict.fromkeys(key for plan in self.followed for key in self.ready(video, plan=plan))))


def _artifact_key(key: RunKey) -> str:
    return artifact_key(key.stage, key.version, key.video_id, key.revision)


def _measure(key: RunKey, video: Video, seconds: float) -> None:
    """Count a run that has made its artifact."""
    measurements.observe("reelsense_stage_seconds", seconds, stage=key.stage)
    length = max(video.media.duration or 0.0, video.media.audio_duration or 0.0)
    if length > 0.0:
        measurements.count("reelsense_stage_video_seconds_total", length, stage=key.stage)
        measurements.observe("reelsense_stage_realtime_ratio", seconds / length, stage=key.stage)


def _failed(key: RunKey, code: str) -> None:
    measurements.count("reelsense_stage_failures_total", stage=key.stage, code=code)
    tracing.note(failure=code)


def _leaf(key: RunKey) -> str:
    return _artifact_key(key).rsplit("/", 1)[1]


def _key_of(run: Run) -> RunKey:
    return RunKey(video_id=run.video_id, stage=run.stage, version=run.version, revision=run.revision)


def _is_dead(worker: str | None) -> bool:
    """Whether `host/pid` was a process of this machine that is gone. Of other machines nothing is known: False."""
    host, _, pid = (worker or "").rpartition("/")
    if host != socket.gethostname() or not pid.isdigit():
        return False
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    return False
