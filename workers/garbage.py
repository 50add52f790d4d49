"""Old versions of artifacts: finding those that nobody needs, and deleting them.

Needed are the versions of what is served, of what comes next, of every open re-embedding job, and of what the last
switch could be rolled back to. Everything else below `artifacts/` is garbage: of encodings that were served once, of
cancelled jobs, of code that has changed since.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from store.errors import InputError
from store.jobs import ENCODING, SHARD_VIDEOS, Target
from workers.graph import Graph
from workers.reembedding import plan_of_encoding
from workers.stages import STAGES

PUBLISHED = STAGES[-1].name


def needed(graph: Graph) -> set[tuple[str, str]]:
    """(stage, version) of everything that must stay."""
    graph.refresh()
    kept = list(graph.plans)
    switched = graph.jobs.jobs(("switched",))
    now = graph.catalogue.choices().get(ENCODING, "")
    last = next((job for job in reversed(switched) if job.encoding == now), None)
    if last is not None:
        kept.append(plan_of_encoding(graph, last.previous))
    open_jobs = {job.id for job in graph.jobs.jobs(("planned", "canary", "running", "paused", "complete"))}
    unread = open_jobs - {plan.job for plan in graph.plans}
    if unread:
        raise InputError(
            "job.unsafe",
            f"What the open job {min(unread)} makes is not known on this machine: its models are not here.",
            hint="Collect garbage where they are, or cancel the job.",
        )
    return {(stage, version) for plan in kept for stage, version in plan.versions.items()}


def garbage(graph: Graph) -> list[dict[str, Any]]:
    """For each version of a stage that nobody needs: `stage`, `version`, how many `artifacts`, and their `bytes`."""
    kept = needed(graph)
    found: dict[tuple[str, str], list[int]] = {}
    for stage, version, _, size in _artifacts(graph):
        if (stage, version) not in kept:
            sums = found.setdefault((stage, version), [0, 0])
            sums[0] += 1
            sums[1] += size
    return [
        {"stage": stage, "version": version, "artifacts": count, "bytes": size}
        for (stage, version), (count, size) in sorted(found.items())
    ]


def collect(graph: Graph) -> list[dict[str, Any]]:
    """Delete it, and what ledger and publications know of it; what `garbage` said of it. Stopped half-way, the rest is
    found next time.

    Raises `job.unsafe` where a version would go in which a video is published that the served version lacks: then these
    settings are not those by which the workers serve, or what they ask for is not complete yet.
    """
    found = garbage(graph)
    served = Target(versions=dict(graph.versions), ends={PUBLISHED: True})
    for entry in found:
        if entry["stage"] == PUBLISHED:
            _refuse_loss(graph, served, entry["version"])
    gone = {(entry["stage"], entry["version"]) for entry in found}
    for stage, version in sorted(gone):
        # Followers must not be told of what is about to go.
        graph.jobs.forget_versions(stage, version)
        for key in [item.key for item in graph.objects.list(f"artifacts/{stage}/{version}/")]:
            graph.objects.delete(key)
        if stage == PUBLISHED:
            for key in [item.key for item in graph.objects.list(f"vectors/{version}/")]:
                graph.objects.delete(key)
    return found


def _refuse_loss(graph: Graph, served: Target, version: str) -> None:
    after = ""
    while (last := graph.jobs.range_end(after, SHARD_VIDEOS)) is not None:
        lost = graph.jobs.published_only(after, last, version, served)
        if lost is not None:
            raise InputError(
                "job.unsafe",
                f"The video {lost[:12]} is published by the version {version}, which would go, and not by the served "
                f"one ({served.versions[PUBLISHED]}).",
                hint="`reelsense reconcile --wait` completes what is served; are these the workers' settings?",
            )
        after = last


def _artifacts(graph: Graph) -> Iterator[tuple[str, str, str, int]]:
    """(stage, version, leaf, bytes) of every artifact in the store."""
    for stage in STAGES:
        for item in graph.objects.list(f"artifacts/{stage.name}/"):
            _, name, version, leaf = item.key.split("/")
            yield name, version, leaf, item.bytes
