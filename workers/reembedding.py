"""Re-embedding a catalogue: planning a job, switching to what it made, and back. Feeding it: `workers.feeder`.

A job brings another *encoding* in beside the served one (`store.jobs`, `workers.plans`). Everything in it is an
ordinary stage run over another plan; what is special is that it is planned before, fed piece by piece behind uploads,
compared with what is served, and served in one step when it is whole.
"""

from __future__ import annotations

import secrets
import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from encoders.catalogue import model_set
from store.artifacts import artifact_key, digest
from store.catalogue import Video
from store.errors import InputError, NotFoundError
from store.filters import parse
from store.jobs import ENCODING, SHARD_VIDEOS, Job, Jobs, Shard, Target, encoding_id
from store.overrides import overridden
from workers.graph import Graph
from workers.plans import Plan, changed_stages, plans, target_of
from workers.stages import BY_NAME, STAGES

SAMPLED = 20
LAST_ID = "g"  # above every video id, which is hexadecimal


@dataclass(frozen=True)
class Request:
    """What somebody asks a job to do. `stages` (empty: all) are those that are meant: each must get another version,
    and of `model_set` only their encoders are taken. `overrides`: settings by name; `where`: a filter of videos
    (`store.filters`); `rate`: most videos a second; `concurrency`: most videos under way, None: as the settings say."""

    stages: tuple[str, ...] = ()
    model_set: str | None = None
    overrides: Mapping[str, Any] = field(default_factory=dict)
    where: str = ""
    rate: float | None = None
    concurrency: int | None = None


@dataclass(frozen=True)
class Planned:
    """A job before it begins: its plan, the stages that change, its shards, and the document that people read."""

    plan: Plan
    overrides: Mapping[str, Any]
    changed: list[str]
    shards: list[Shard]
    document: dict[str, Any]


# --- planning --------------------------------------------------------------------------------------------------------


def overrides_of(graph: Graph, request: Request) -> dict[str, Any]:
    """The overrides of the encoding that is asked for: the served one's, and on top what the request says. Raises
    `stage.unknown`, `model.unknown`."""
    for name in request.stages:
        if name not in BY_NAME:
            raise NotFoundError(
                "stage.unknown", f"There is no stage {name[:64]!r}.", hint=f"Known: {', '.join(BY_NAME)}."
            )
    found = dict(graph.jobs.overrides(graph.catalogue.choices().get(ENCODING, "")))
    if request.model_set is not None:
        chosen = model_set(request.model_set).encoders
        if request.stages:
            places = {place for name in request.stages for place in BY_NAME[name].places}
            found |= {f"encoders.{place}": name for place, name in chosen.items() if place in places}
        else:
            found = {name: value for name, value in found.items() if not name.startswith("encoders.")}
            found["model_set"] = request.model_set
    return found | dict(request.overrides)


def plan_job(graph: Graph, request: Request) -> Planned:
    """What a job would do, in a number of small queries and in memory that does not grow with the catalogue (a shard is
    a few words). `bytes` counts the uploads once for each changed stage that decodes them, and the artifacts that
    changed stages need, by the mean of a sample. `hours` is by the median seconds of each stage for the latest uploads,
    shared by the settings' workers; None where a stage was never measured here.

    Raises `stage.unknown`, `model.unknown`, `settings.invalid`, `filter.invalid`, `request.invalid`.
    """
    if (request.rate is not None and not 0 < request.rate < 1e6) or (request.concurrency or 1) < 1:
        raise InputError("request.invalid", "A job's rate and concurrency are above 0.")
    parse(request.where)
    graph.refresh()
    overrides = overrides_of(graph, request)
    served = graph.plans[0]
    plan = plans(overridden(graph.settings, overrides), graph.catalogue.choices())[0]
    changed = changed_stages(served, plan)
    if request.stages and not set(request.stages) <= set(changed):
        changed = []
    shards, size, there = _shards(graph.jobs, request.where, {name: plan.versions[name] for name in changed})
    videos = sum(shard.videos for shard in shards)
    stages: dict[str, Any] = {}
    for name in changed:
        seconds, measured = _seconds(graph, name, plan)
        runs = max(0, videos - there.get(name, 0))
        stages[name] = {"runs": runs, "there": there.get(name, 0), "seconds": seconds, "measured": measured}
    workers = graph.settings.workers
    known = all(entry["seconds"] is not None for entry in stages.values() if entry["runs"])
    work = sum((entry["seconds"] or 0.0) * entry["runs"] for entry in stages.values()) / 3600 / workers
    if request.rate is not None:
        work = max(work, max((entry["runs"] for entry in stages.values()), default=0) / request.rate / 3600)
    document = {
        "videos": videos,
        "stages": stages,
        "unchanged": [stage.name for stage in STAGES if stage.name not in changed],
        "bytes": _bytes(graph, stages, size, videos, shards, served),
        "hours": round(work, 4) if known else None,
        "workers": workers,
        "shards": len(shards),
        "overrides": overrides,
        "encoding": encoding_id(overrides),
        "where": request.where,
        "rate": request.rate,
        "concurrency": request.concurrency or graph.settings.reembed.concurrency,
    }
    return Planned(plan, overrides, changed, shards, document)


def _shards(jobs: Jobs, where: str, versions: Mapping[str, str]) -> tuple[list[Shard], int, dict[str, int]]:
    """The shards (whose job is not named yet), the bytes of the uploads, and how many videos have each stage."""
    shards: list[Shard] = []
    size, there, after = 0, dict.fromkeys(versions, 0), ""
    while (last := jobs.range_end(after, SHARD_VIDEOS)) is not None:
        count, uploaded = jobs.sizes(after, last, where)
        if count:
            number = len(shards)
            shards.append(Shard(job="", number=number, after=after, last=last, cursor=after, videos=count))
            size += uploaded
            if versions:
                for name, done in jobs.done_by_stage(after, last, where, versions).items():
                    there[name] += done
        after = last
    if shards:
        # Videos that come later belong to a shard too.
        shards[-1] = shards[-1].model_copy(update={"last": LAST_ID})
    return shards, size, there


def _seconds(graph: Graph, stage: str, plan: Plan) -> tuple[float | None, int]:
    """Median seconds of a stage and over how many runs: in the new version where it ran already, else in any."""
    for version in (plan.versions[stage], None):
        found = graph.jobs.seconds_of(stage, version)
        if found:
            return round(statistics.median(found), 4), len(found)
    return None, 0


def _bytes(
    graph: Graph,
    stages: Mapping[str, Any],
    uploaded: int,
    videos: int,
    shards: Sequence[Shard],
    served: Plan,
) -> int:
    sample = sample_of(graph, shards, "", SAMPLED, served)
    total = 0.0
    for name, entry in stages.items():
        share = entry["runs"] / videos if videos else 0.0
        if not BY_NAME[name].needs:
            total += uploaded * share
        for need in BY_NAME[name].needs:
            # A need that changes too is taken to be as large as it is now.
            sizes = [graph.objects.size(key_of(graph, video, need, served)) for video in sample]
            there = [size for size in sizes if size is not None]
            total += entry["runs"] * (statistics.mean(there) if there else 0.0)
    return round(total)


def key_of(graph: Graph, video: Video, stage: str, plan: Plan) -> str:
    """Where the artifact of a stage of a video lies by a plan."""
    key = graph.key(video, stage, plan)
    return artifact_key(key.stage, key.version, key.video_id, key.revision)


def sample_of(graph: Graph, shards: Sequence[Shard], where: str, count: int, served: Plan) -> list[Video]:
    """Videos from shards all over the catalogue that are published by the served plan, at most `count`. Ids are digests
    of content, so the first of a range are as good as any."""
    if not shards:
        return []
    step = max(1, len(shards) // count)
    chosen = list(shards[::step])[:count]
    each = -(-count // len(chosen))
    found: list[Video] = []
    for shard in chosen:
        candidates = graph.jobs.videos_between(shard.after, shard.last, where, 4 * each)
        ready = [video for video in candidates if graph.has(graph.key(video, STAGES[-1].name, served))]
        found.extend(ready[:each])
    return found[:count]


# --- the life of a job -----------------------------------------------------------------------------------------------


def start(graph: Graph, request: Request, who: str, planned: Planned | None = None) -> Job:
    """Note a job; the feeder takes it up. Raises `job.nothing_to_do`, `job.overlaps`, and what `plan_job` raises."""
    planned = planned or plan_job(graph, request)
    document = planned.document
    if not planned.changed:
        what = f"The stage {request.stages[0]}" if len(request.stages) == 1 else "Every stage that is meant"
        raise InputError(
            "job.nothing_to_do",
            f"{what} would have the version that is served: nothing would change.",
            hint="Name another model set (--model-set) or setting (--set); `reelsense reconcile` makes what misses.",
        )
    if not document["videos"]:
        said = "No video passes the filter." if request.where.strip() else "There is no video yet."
        raise InputError("job.nothing_to_do", said, hint="`reelsense status` lists them.")
    now = time.time()
    job = Job(
        id=secrets.token_hex(4),
        state="planned",
        encoding=document["encoding"],
        overrides=dict(planned.overrides),
        previous=graph.catalogue.choices().get(ENCODING, ""),
        stages=planned.changed,
        where=request.where.strip(),
        rate=request.rate,
        concurrency=document["concurrency"],
        videos=document["videos"],
        plan=document,
        versions=digest(dict(planned.plan.versions)),
        created_at=now,
        started_by=who,
        history=[{"at": now, "who": who, "what": "start"}],
        fed_at=now,
        last_started=now,
    )
    graph.jobs.create(job, [shard.model_copy(update={"job": job.id}) for shard in planned.shards])
    return graph.jobs.job(job.id)


def pause(graph: Graph, job: Job, who: str) -> Job:
    """Let what runs end, and begin nothing new. Raises `job.wrong_state`."""
    return graph.jobs.change(job, ("planned", "canary", "running"), "paused", "pause", who)


def resume(graph: Graph, job: Job, who: str) -> Job:
    """Go on where the job was paused. Raises `job.wrong_state`."""
    return graph.jobs.change(job, ("paused",), job.paused_from or "running", "resume", who)  # type: ignore[arg-type]


def cancel(graph: Graph, job: Job, who: str) -> Job:
    """End a job for good; what it made lies in the store until garbage is collected. Raises `job.wrong_state`."""
    own = own_versions(graph, job)
    ended = graph.jobs.change(job, ("planned", "canary", "running", "paused", "complete"), "cancelled", "cancel", who)
    graph.jobs.forget_queued(own)
    graph.refresh()
    return ended


def own_versions(graph: Graph, job: Job) -> set[str]:
    """The versions that this job alone brings in: none when it is not open."""
    graph.refresh()
    plan = next((plan for plan in graph.plans if plan.job == job.id), None)
    others = {version for other in graph.plans if other.job != job.id for version in other.versions.values()}
    return set(plan.versions.values()) - others if plan is not None else set()


def switch(graph: Graph, job: Job, who: str, *, partial: bool = False) -> tuple[Job, dict[str, Any]]:
    """Serve what a job made, for everybody at once: the job, and the census.

    Every video that is published by the served version must be published by the new one, those outside of the job's
    filter included, and its artifacts must be there; `partial` lets the others be absent from feeds until the sweep has
    made them. A video that failed anew is absent too, and needs `partial`.

    Raises `job.incomplete`, `job.wrong_state`.
    """
    if job.state in ("planned", "canary", "running", "paused"):
        totals = graph.jobs.totals(job.id)
        raise InputError(
            "job.incomplete",
            f"The job {job.id} is {job.state}: {totals.done} of {totals.videos} videos are done.",
            hint=f"`reelsense reembed show {job.id}` tells how long it will take.",
        )
    graph.refresh()
    plan = next((plan for plan in graph.plans if plan.job == job.id), None)
    if plan is None:
        raise InputError(
            "job.wrong_state",
            f"The job {job.id} is {job.state}: there is nothing to switch to.",
            hint="`reelsense reembed ls` lists the jobs.",
        )
    served = graph.plans[0]
    changed = changed_stages(served, plan)
    found = _lacking(graph, served, plan, changed)
    if not partial:
        _refuse_lacking(
            found, f"`reelsense reembed switch {job.id} --partial` leaves them out until the sweep made them."
        )
    switched = graph.jobs.serve(job, job.encoding, ("complete",), "switched", "switch", who)
    graph.refresh()
    return switched, found


def rollback(graph: Graph, job: Job | None, who: str, *, partial: bool = False) -> tuple[Job, dict[str, Any]]:
    """Serve again what was served before the last switch. Videos that came since are made by the sweep. Raises
    `job.wrong_state`, and `job.incomplete` where the old version is not whole any more (`partial`: do it still)."""
    now = graph.catalogue.choices().get(ENCODING, "")
    last = next((held for held in reversed(graph.jobs.jobs(("switched",))) if held.encoding == now), None)
    if last is None or (job is not None and job.id != last.id):
        raise InputError(
            "job.wrong_state",
            "There is no switch to take back." if job is None else f"What is served was not switched to by {job.id}.",
            hint="`reelsense reembed ls` lists the jobs.",
        )
    graph.refresh()
    served = graph.plans[0]
    before = plan_of_encoding(graph, last.previous)
    switched_at = max((entry["at"] for entry in last.history if entry["what"] == "switch"), default=None)
    found = _lacking(graph, served, before, changed_stages(served, before), switched_at)
    if not partial:
        _refuse_lacking(found, "With --partial they are left out of feeds until the sweep has made them.")
    rolled = graph.jobs.serve(last, last.previous, ("switched",), "rolled_back", "rollback", who)
    graph.refresh()
    return rolled, found


def plan_of_encoding(graph: Graph, encoding: str) -> Plan:
    """The plan by an encoding that need not be the served one, with the learnt models that are served."""
    return plans(graph.settings, graph.catalogue.choices(), graph.jobs.overrides(encoding))[0]


def _lacking(
    graph: Graph, served: Plan, plan: Plan, changed: Sequence[str], before: float | None = None
) -> dict[str, Any]:
    """The census: which videos are whole by the served plan and not by the other one, by ledger and by store."""
    count, gone, after = 0, 0, ""
    first: list[str] = []
    now, then = target_of(served, changed), target_of(plan, changed)
    while (last := graph.jobs.range_end(after, SHARD_VIDEOS)) is not None:
        # Range by range: no transaction is long, whatever the size of the catalogue.
        found, ids = graph.jobs.lacking(after, last, now, then, 5, before)
        count, first, after = count + found, [*first, *ids][:5], last
    for name in changed:
        for video in _without_artifact(graph, name, plan, then):
            gone += 1
            first = [*first, video][:5]
    return {"lacking": count, "gone": gone, "videos": first}


def _without_artifact(graph: Graph, stage: str, plan: Plan, target: Target) -> Iterator[str]:
    """Videos that are done by the ledger and whose artifact of a stage is not in the store, or is empty: both listings
    are in the order of ids, and walked side by side."""
    prefix = f"artifacts/{stage}/{plan.versions[stage]}/"
    leaves = ((item.key.removeprefix(prefix), item.bytes) for item in graph.objects.list(prefix))
    leaf, size = next(leaves, ("", 0))
    after = ""
    while batch := graph.jobs.done_between(after, 1000, target):
        for video_id, revision in batch:
            wanted = f"{video_id}-{revision}" if BY_NAME[stage].reads_words else video_id
            while leaf and leaf < wanted:
                leaf, size = next(leaves, ("", 0))
            if leaf != wanted or size == 0:
                yield video_id
        after = batch[-1][0]


def _refuse_lacking(found: Mapping[str, Any], hint: str) -> None:
    if found["lacking"]:
        raise InputError(
            "job.incomplete",
            f"{found['lacking']} videos that are served now have no vector in the other version, such as "
            f"{found['videos'][0][:12]}.",
            hint=hint,
        )
    if found["gone"]:
        raise InputError(
            "job.incomplete",
            f"{found['gone']} artifacts of the other version are gone from the store, such as one of "
            f"{found['videos'][-1][:12]}.",
            hint="`reelsense reconcile` makes them again.",
        )
