"""What ReelSense can be asked to do, once for all faces: command line and HTTP API call these and only translate.

Everything is opened at its first use, so that a command pays for what it needs: no command but `search` loads a model.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar, cast

from pydantic import BaseModel

from store import measurements
from store.catalogue import Catalogue, RunKey, Video
from store.errors import InputError, ReelsenseError
from store.measured_objects import open_measured
from store.objects import ObjectStore
from store.records import (
    MODALITIES,
    AppearanceAttributes,
    Artifact,
    AudioAttributes,
    Faces,
    FramesAttributes,
    FusedAttributes,
    Music,
    ScreenAttributes,
    SpeakersAttributes,
    TextAttributes,
    TopicsAttributes,
    TranscriptAttributes,
    VisionAttributes,
)
from store.settings import Settings

if TYPE_CHECKING:
    from celery import Celery

    from app.feeds import Feeds
    from ranker.objectives import RankerFile
    from ranker.profile_cache import ProfileCache
    from ranker.video_table import VideoTable
    from store.event_log import EventLog
    from workers.graph import Graph

MOST_RESULTS = 10_000
_Attributes = TypeVar("_Attributes", bound=BaseModel)


@dataclass(frozen=True)
class Added:
    """What became of one path that was added. `state`: waiting, processing, ready, failed, or refused."""

    path: str
    id: str | None
    state: str
    outcome: str
    error: ReelsenseError | None

    def as_json(self) -> dict[str, Any]:
        """The record as the command line prints it."""
        return {
            "path": self.path,
            "id": self.id,
            "state": self.state,
            "outcome": self.outcome,
            "error": error_json(self.error),
        }


def error_json(error: ReelsenseError | None) -> dict[str, str] | None:
    """An error as JSON, or None."""
    return None if error is None else {"code": error.code, "message": error.message, "hint": error.hint}


class ReelSense:
    """One installation, as its settings name it. Methods raise ReelsenseError."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._table: VideoTable | None = None

    @cached_property
    def objects(self) -> ObjectStore:
        """The object store."""
        return open_measured(self.settings)

    @cached_property
    def catalogue(self) -> Catalogue:
        """The catalogue database."""
        return Catalogue(self.settings.database_url())

    @cached_property
    def event_log(self) -> EventLog:
        """The log of what viewers did."""
        from store.event_log import EventLog

        return EventLog(self.catalogue)

    @cached_property
    def celery(self) -> Celery:
        """The connection to the workers. Raises `stack.not_running`."""
        from workers.celery_app import create_app

        return create_app(self.settings)

    @cached_property
    def graph(self) -> Graph:
        """The stage graph; it can always be read, and sends where there is a broker."""
        from workers.graph import Graph

        return Graph(self.settings, self.objects, self.catalogue, self._send)

    def _send(self, key: RunKey) -> None:
        from workers.celery_app import send

        if self.settings.broker:
            send(self.celery, key)
        # Without a broker nothing is sent: the ledger says `queued`, and the first sweep of the next stack sends it.

    @property
    def table(self) -> VideoTable:
        """The published videos of the served version, up to this moment."""
        from ranker.video_table import VideoTable

        self.graph.refresh()
        version = self.graph.versions["published"]
        table = self._table
        if table is None or table.version != version:
            table = VideoTable(self.objects, self.catalogue, version, self.settings.data / "vector-cells")
        table.refresh()
        # Whole before anybody sees it: a request takes the table once, so it sees one version alone.
        self._table = table
        return table

    @property
    def served(self) -> Settings:
        """The settings by which what is served was made: those of this installation, or a re-embedding's."""
        self.graph.refresh()
        return self.graph.plans[0].settings

    # --- videos ------------------------------------------------------------------------------------------------------

    def add(self, path: Path, *, file_name: str = "", **words: Any) -> Added:
        """Take one file in and send its first stages. `file_name` is what people call it, where `path` is a name of our
        own. Never raises for a bad file: the result says what is wrong."""
        from workers.intake import metadata_of, take_in

        try:
            metadata = metadata_of(path, limits=self.settings.limits, **words)
            taken = take_in(path, metadata, self.settings, self.objects, self.catalogue, file_name=file_name)
            # Adding a file again asks to try again what was given up.
            self.graph.retry(taken.video)
        except InputError as error:
            return Added(str(path), None, "failed", "refused", error)
        state, failure = self.graph.states([taken.video])[taken.video.id]
        return Added(str(path), taken.video.id, state, taken.outcome, failure)

    def wait(
        self,
        added: Sequence[Added],
        timeout_seconds: float,
        on_progress: Callable[[dict[str, tuple[str, ReelsenseError | None]]], None] | None = None,
    ) -> list[Added]:
        """Wait until each added video is ready or failed; after `timeout_seconds`, `wait.timeout` for the rest."""
        ids = sorted({item.id for item in added if item.id is not None})
        deadline = time.monotonic() + timeout_seconds
        while True:
            states = self.graph.states(self.catalogue.videos(ids))
            if on_progress is not None:
                on_progress(states)
            pending = [video for video, (state, _) in states.items() if state not in ("ready", "failed")]
            if not pending or time.monotonic() > deadline:
                break
            time.sleep(0.25)
        late = InputError("wait.timeout", f"Not ready after {timeout_seconds:g} seconds; the work goes on.")
        result = []
        for item in added:
            if item.id is None:
                result.append(item)
                continue
            state, error = states[item.id]
            result.append(Added(item.path, item.id, state, item.outcome, late if item.id in pending else error))
        return result

    def status(self, video: str | None = None) -> dict[str, Any]:
        """Every video's state, or one video's runs; and the depth of the queues where there is a broker."""
        chosen = [self.catalogue.video(video)] if video else self.catalogue.videos()
        states = self.graph.states(chosen)
        rows = []
        for item in chosen:
            state, error = states[item.id]
            rows.append(
                {
                    "id": item.id,
                    "title": title_of(item),
                    "state": state,
                    "uploaded_at": item.uploaded_at,
                    "error": error_json(error),
                    "stages": self._stages(item),
                }
            )
        return {"videos": rows}

    def _stages(self, video: Video) -> dict[str, dict[str, Any]]:
        from workers.stages import STAGES

        runs = {(run.stage, run.version, run.revision): run for run in self.catalogue.runs([video.id])}
        result = {}
        for stage in STAGES:
            key = self.graph.key(video, stage.name)
            run = runs.get((key.stage, key.version, key.revision))
            result[stage.name] = {
                "state": run.state if run else "missing",
                "version": key.version,
                "seconds": run.seconds if run else None,
                "attempts": run.attempts if run else 0,
                "worker": run.worker if run else None,
                "error": {"code": run.error_code, "message": run.error_message} if run and run.error_code else None,
            }
        return result

    def show(self, video_id: str) -> dict[str, Any]:
        """All that is understood of one video. What is not done yet is empty, and its stage's state says so."""
        from workers.stages import STAGES

        video = self.catalogue.video(video_id)
        state, error = self.graph.states([video])[video.id]
        artifacts = {stage.name: self.artifact(video, stage.name) for stage in STAGES}
        frames = _said(artifacts["frames"], FramesAttributes)
        vision = _said(artifacts["vision"], VisionAttributes)
        look = _said(artifacts["appearance"], AppearanceAttributes)
        screen = _said(artifacts["screen"], ScreenAttributes)
        audio = _said(artifacts["audio"], AudioAttributes)
        transcript = _said(artifacts["transcript"], TranscriptAttributes)
        speakers = _said(artifacts["speakers"], SpeakersAttributes)
        text = _said(artifacts["text"], TextAttributes)
        topics = _said(artifacts["topics"], TopicsAttributes)
        fused = _said(artifacts["fused"], FusedAttributes)
        weights = artifacts["fused"].arrays["weights"].tolist() if artifacts["fused"] else []
        degraded = [
            name
            for name, attributes in (("frames", frames), ("audio", audio), ("transcript", transcript))
            if attributes is not None and attributes.degraded
        ]
        return {
            "id": video.id,
            "title": title_of(video),
            "file_name": video.file_name,
            "metadata": video.metadata.model_dump(mode="json", exclude={"captions"}),
            "media": video.media.model_dump(mode="json"),
            "state": state,
            "error": error_json(error),
            "duration": frames.duration if frames else video.media.duration,
            "degraded": degraded,
            "frames": {"decoded": frames.frames_decoded, "declared": frames.frames_declared} if frames else None,
            "frame_seconds": artifacts["frames"].arrays["seconds"].round(3).tolist() if artifacts["frames"] else [],
            "stages": self._stages(video),
            "labels": _dumped(vision.labels if vision else []),
            "objects": _dumped(vision.objects if vision else []),
            "colours": _dumped(look.colours if look else []),
            "appearance": look.model_dump(mode="json", exclude={"colours", "faces"}) if look else None,
            "motion": frames.motion if frames else None,
            "cut_rate": frames.cut_rate if frames else None,
            "shots": _dumped(frames.shots if frames else []),
            "faces": (look.faces if look else Faces()).model_dump(mode="json"),
            "screen_text": _dumped(screen.phrases if screen else []),
            "transcript": {
                "language": transcript.language if transcript else None,
                "segments": _dumped(transcript.segments if transcript else []),
            },
            "speakers": (speakers or SpeakersAttributes()).model_dump(mode="json"),
            "captions": _dumped(text.captions if text else []),
            "keywords": text.keywords if text else [],
            "topics": _dumped(topics.topics if topics else []),
            "topic_model": topics.model if topics else None,
            "music": (audio.music if audio else Music()).model_dump(mode="json"),
            "audio": audio.model_dump(mode="json") if audio else None,
            "attention": {name: fused.attention[name] for name in MODALITIES if name in fused.attention}
            if fused
            else {},
            "tokens": [
                token.model_dump(mode="json") | {"weight": weight}
                for token, weight in zip(fused.tokens, weights, strict=True)
            ]
            if fused
            else [],
        }

    def artifact(self, video: Video, stage: str) -> Artifact | None:
        """The artifact of a stage of a video in the served version, None while there is none."""
        try:
            return self.graph.artifact(self.graph.key(video, stage))
        except InputError as error:
            if error.code == "store.missing":
                return None
            raise

    def reconcile(self, *, verify: bool = False) -> dict[str, Any]:
        """Send everything that is missing and ready; with `verify`, what is damaged too. Raises `stack.not_running`,
        `broker.unavailable`."""
        from workers.celery_app import queue_depths

        report = self.graph.reconcile(queue_depths(self.celery), verify=verify)
        return {
            "videos": report.videos,
            "sent": [key.model_dump() for key in report.sent],
            "repaired": report.repaired,
            "given_up": [key.model_dump() for key in report.given_up],
            "discarded": [key.model_dump() for key in report.discarded],
        }

    # --- the ranker --------------------------------------------------------------------------------------------------

    def similar(self, video_id: str, k: int) -> dict[str, Any]:
        """The videos nearest to one, with what each modality adds."""
        from ranker.similar import similar

        video = self.catalogue.video(video_id)
        return {"video": video.id, "items": self._titled(similar(self.table, video.id, _count(k)))}

    def search(self, query: str, k: int) -> dict[str, Any]:
        """The videos that say or show what the words ask for."""
        from encoders.catalogue import chosen, config_of, load
        from ranker.search import search

        if not query.strip() or len(query) > 1000:
            raise InputError("request.invalid", "The search text must have 1 to 1000 characters.")
        table = self.table
        # The encoder of the very version that the table holds, though another may be served by now.
        plans = [plan for plan in self.graph.plans if plan.versions["published"] == table.version]
        settings = (plans or self.graph.plans)[0].settings
        spec = chosen(settings)["text"]
        encoder = load(spec, config_of(spec, settings), settings.cache, settings.threads)
        found = search(table, query, encoder.embed_query([query])[0], _count(k))
        return {"query": query, "items": self._titled(found)}

    def duplicates(self, threshold: float | None = None) -> dict[str, Any]:
        """Groups of videos that show nearly the same pictures, whatever their size, codec or length."""
        from ranker.duplicates import THRESHOLD, find_duplicates

        least = THRESHOLD if threshold is None else threshold
        videos = self.catalogue.videos()
        looks = {video.id: self.artifact(video, "appearance") for video in videos}
        signatures = {video: look.arrays["signature"] for video, look in looks.items() if look is not None}
        groups = find_duplicates(signatures, least)
        titles = {video.id: title_of(video) for video in videos}
        return {
            "threshold": least,
            "groups": [
                {
                    "videos": [{"id": video, "title": titles[video]} for video in group.videos],
                    "pairs": [pair.as_json() for pair in group.pairs],
                }
                for group in groups
            ],
        }

    # --- training ----------------------------------------------------------------------------------------------------

    def train_topics(self, topics: int | None = None) -> dict[str, Any]:
        """See `app.training.train_topics`."""
        from app import training

        return training.train_topics(self, topics)

    def train_fusion(self, **options: Any) -> dict[str, Any]:
        """See `app.training.train_fusion`."""
        from app import training

        return training.train_fusion(self, **options)

    def train_ranker(self, model: str, **options: Any) -> dict[str, Any]:
        """See `app.ranker_training.train_ranker`."""
        from app import ranker_training

        return ranker_training.train_ranker(self, model, **options)

    def export(self, form: Literal["parquet", "npy"], folder: Path) -> dict[str, Any]:
        """Write the vectors of every video that is ready, aligned by id (see `app.exporting`)."""
        from app import exporting

        rows = []
        for video in self.catalogue.videos():
            artifacts = {name: self.artifact(video, name) for name in exporting.COLUMNS}
            if all(artifact is not None for artifact in artifacts.values()):
                rows.append(exporting.exported(video.id, title_of(video), cast("dict[str, Artifact]", artifacts)))
        versions = {name: self.graph.versions[name] for name in exporting.COLUMNS}
        files = exporting.write(rows, versions, form, folder)
        return {"videos": len(rows), "versions": versions, "files": [str(file) for file in files]}

    # --- viewers -----------------------------------------------------------------------------------------------------

    def event(
        self, user: str, video_id: str, kind: str, watched: float | None, at: float | None = None, **where: Any
    ) -> dict[str, Any]:
        """Record what a viewer did; `where` are the other fields of `ranker.events.Event`. It counts in the next feed,
        unless it is set aside (docs/behaviour.md). Raises `event.forgotten`."""
        from ranker.cleaning import take_one
        from ranker.events import Event

        video = self.catalogue.video(video_id)
        event = Event.checked(user=user, video=video.id, kind=kind, watched_seconds=watched, at=at, **where)
        outcome = take_one(self.catalogue, event)
        return {
            "event": event.model_dump(mode="json"),
            "new": outcome.state == "new",
            "set_aside": None
            if outcome.verdict is None
            else {"reason": outcome.verdict.reason, "detail": outcome.verdict.detail},
        }

    @cached_property
    def profiles(self) -> ProfileCache:
        """The profiles of the viewers who asked last, always up to the last event."""
        from ranker.profile_cache import ProfileCache

        return ProfileCache(self.catalogue)

    def profile(self, user: str, points: int | None = None) -> dict[str, Any]:
        """See `app.profiling.profile`."""
        from app import profiling

        return profiling.profile(self, user, points)

    @cached_property
    def ranker_file(self) -> RankerFile:
        """The ranker's weights and rules, read again when their file changes."""
        from ranker.objectives import FILE_NAME, RankerFile

        return RankerFile(self.settings.data / FILE_NAME)

    @cached_property
    def feeds(self) -> Feeds:
        """What feeds are made from, kept from request to request."""
        from app.feeds import Feeds

        return Feeds(self.catalogue, self.profiles, lambda: self.table, self.ranker_file.current, self.objects)

    def recommend(self, user: str, k: int, **request: Any) -> dict[str, Any]:
        """A viewer's feed, each video with its score, the terms that add up to it, the reasons, what rules moved, and
        which sources found it; `request` as in `app.feeds.Feeds.make`."""
        with measurements.timed("reelsense_feed_seconds"):
            feed = self.feeds.make(user, _count(k), time.time(), **request)
            return {"user": user, "items": self._titled(feed.items), "left_out": dict(feed.left_out)}

    def _titled(self, items: Iterable[Any]) -> list[dict[str, Any]]:
        rows = [item.as_json() for item in items]
        known = {video.id: video for video in self.catalogue.videos([row["video"] for row in rows])}
        # One that was deleted since the table was read is left out.
        return [{**row, "title": title_of(known[row["video"]])} for row in rows if row["video"] in known]


def _said(artifact: Artifact | None, kind: type[_Attributes]) -> _Attributes | None:
    """What people can read in an artifact, None while there is none."""
    return None if artifact is None else kind.model_validate(artifact.attributes)


def _dumped(items: Iterable[BaseModel]) -> list[dict[str, Any]]:
    return [item.model_dump(mode="json") for item in items]


def title_of(video: Video) -> str:
    """What to call a video: its title, else the name of its file."""
    return video.metadata.title or video.file_name


def _count(k: int) -> int:
    if not 1 <= k <= MOST_RESULTS:
        raise InputError("request.invalid", f"k must be 1 to {MOST_RESULTS}, got {k}.")
    return k
