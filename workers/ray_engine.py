"""A re-embedding job on Ray Data: for fleets on which one message per stage and video is too much to send.

    python -m workers.ray_engine JOB [--processes 8] [--address auto]

The same plan, the same stage functions, the same ledger and the same keys as through Celery, so both write the same
artifacts, and both may work on one job at once: a run that one has claimed the other passes over. What differs is who
hands the work out. Ray streams the job's shards as a dataset of video ids through a pool of actors; each actor loads
the encoders once and takes a video through all stages that changed, without a message in between.

A job is started, compared, counted and switched as ever (`reelsense reembed`, and a feeder that runs somewhere): this
takes up a job that is past its sample, and ends when nothing is left that it could do. It waits behind uploads too.

Needs the extra `ray`. Ray moves functions and rows between its own processes by pickle: use it on a network that you
trust. Settings are read by each process from its own environment, and never travel.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
import time
from collections import Counter
from typing import Any

from store.catalogue import Catalogue, Video
from store.errors import InputError, ReelsenseError, StackError
from store.jobs import Job
from store.objects import open_objects
from store.settings import Settings, load_settings
from workers.extraction import Encoders
from workers.graph import Graph
from workers.plans import Plan, changed_stages, target_of
from workers.stages import BY_NAME

ACTOR_BATCH = 8
BEHIND_UPLOADS_SECONDS = 1.0
MOST_OF_A_SHARD = 1_000_000


def open_unsent(settings: Settings) -> Graph:
    """A stage graph that sends nothing: whoever runs a stage goes on with the next by itself."""
    return Graph(settings, open_objects(settings), Catalogue(settings.database_url()), send=lambda _: None)


def plan_of(graph: Graph, job_id: str) -> tuple[Plan, list[str]]:
    """The plan of an open job, and the stages that it changes. Raises `job.wrong_state`."""
    graph.refresh()
    plan = next((plan for plan in graph.plans if plan.job == job_id), None)
    if plan is None:
        raise InputError("job.wrong_state", f"The job {job_id} is not open, or its models are not on this machine.")
    return plan, changed_stages(graph.plans[0], plan)


class StageActor:
    """What one process of the pool keeps: the graph, and the encoders it has loaded."""

    def __init__(self, job: str) -> None:
        settings = load_settings()
        self.job = job
        self.graph = open_unsent(settings)
        self.encoders = Encoders(settings)

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Take each video of a batch (`video`: ids) through the stages that changed; `state`: done, failed or left."""
        plan, changed = plan_of(self.graph, self.job)
        videos = {video.id: video for video in self.graph.catalogue.videos([str(name) for name in batch["video"]])}
        states = [self._through(videos[str(name)], plan, changed) for name in batch["video"]]
        return {"video": batch["video"], "state": states}

    def _through(self, video: Video, plan: Plan, changed: list[str]) -> str:
        for name in changed:
            key = self.graph.key(video, name, plan)
            if not all(self.graph.has(self.graph.key(video, need, plan)) for need in BY_NAME[name].needs):
                continue  # what it needs failed, or is an upload's that is still under way
            run = self.graph.run(key, self.encoders)
            while run is not None and run.state == "queued" and run.queued_at == 0.0:
                # Handed back: uploads are waiting, or the job is paused.
                if self.graph.jobs.job(self.job).state not in ("canary", "running", "paused", "complete"):
                    return "left"
                time.sleep(BEHIND_UPLOADS_SECONDS)
                run = self.graph.run(key, self.encoders)
        target = target_of(plan, changed)
        if all(self.graph.has(self.graph.key(video, name, plan)) for name in target.ends):
            return "done"
        return "left" if self.graph.jobs.unsettled([video.id], target) else "failed"


def ids_of(shard: dict[str, Any]) -> list[dict[str, str]]:
    """The videos of one shard that lack something, a row each."""
    graph = open_unsent(load_settings())
    job = graph.jobs.job(str(shard["job"]))
    plan, changed = plan_of(graph, job.id)
    videos = graph.jobs.videos_between(
        str(shard["after"]), str(shard["last"]), job.where, MOST_OF_A_SHARD, lacking=target_of(plan, changed)
    )
    graph.catalogue.close()
    return [{"video": video.id} for video in videos]


def run_job(job: Job, graph: Graph, *, processes: int, address: str | None = None) -> dict[str, int]:
    """Do all of a job that can be done now, on so many actors; how many videos came to which end.

    `address`: of a Ray cluster (`auto`: the one of this machine); None starts Ray here for as long as this takes.
    Raises `engine.missing`, `job.wrong_state`.
    """
    try:
        ray: Any = importlib.import_module("ray")
        ray_data: Any = importlib.import_module("ray.data")
    except ImportError as error:
        raise StackError(
            "engine.missing", "Ray is not installed here.", hint="pip install 'reelsense[ray]', or let Celery do it."
        ) from error
    if job.state not in ("running", "complete"):
        raise InputError(
            "job.wrong_state",
            f"The job {job.id} is {job.state}: Ray takes up a job whose sample was compared.",
            hint="Wait until `reelsense reembed show` says `running`.",
        )
    plan_of(graph, job.id)
    ours = not ray.is_initialized()
    if ours:
        ray.init(
            address=address,
            num_cpus=None if address else processes + 1,
            include_dashboard=False if address is None else None,
            log_to_driver=False,
        )
    try:
        shards = [shard.model_dump(include={"job", "after", "last"}) for shard in graph.jobs.shards(job.id)]
        rows = (
            ray_data.from_items(shards)
            .flat_map(ids_of)
            .map_batches(
                StageActor,
                fn_constructor_args=(job.id,),
                batch_size=ACTOR_BATCH,
                compute=ray_data.ActorPoolStrategy(size=processes),
            )
        )
        return dict(Counter(str(row["state"]) for row in rows.iter_rows()))
    finally:
        if ours:
            ray.shutdown()


def main() -> None:
    """Read the arguments, and run the job."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("job", help="a job's id, or the beginning of it")
    parser.add_argument("--processes", type=int, default=2, help="actors; each loads the encoders (default: 2)")
    parser.add_argument("--address", help="of a Ray cluster; default: Ray starts here")
    arguments = parser.parse_args()
    try:
        settings = load_settings()
        os.environ.update(settings.environment())  # for the processes that Ray starts on this machine
        graph = open_unsent(settings)
        ended = run_job(graph.jobs.job(arguments.job), graph, processes=arguments.processes, address=arguments.address)
    except ReelsenseError as error:
        sys.exit(f"{error.code}: {error.message} {error.hint}")
    sys.stdout.write(", ".join(f"{count} {state}" for state, count in sorted(ended.items())) + "\n")


if __name__ == "__main__":
    main()
