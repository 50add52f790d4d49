"""What the API answers, as typed records; the API's own description (`/api/openapi.json`) is made from the same ones.

Records keep fields that a later version of the API adds (`model_extra`), so an older client reads a newer server. Times
are seconds since the epoch (UTC), durations are seconds.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

State = Literal["waiting", "processing", "ready", "failed"]
Modality = Literal["vision", "audio", "text"]


class Record(BaseModel):
    """The base of all records."""

    model_config = ConfigDict(extra="allow", frozen=True)


class Problem(Record):
    """Problem details (RFC 9457). `code` is a stable one of docs/errors.md, the same as on the command line."""

    type: str = Field(examples=["urn:reelsense:video.unknown"])
    title: str = Field(examples=["There is no video 'ffffffff'."])
    status: int = Field(examples=[404])
    code: str = Field(examples=["video.unknown"])
    detail: str | None = Field(None, examples=["`reelsense status` lists them."], description="What to do about it.")


class Failure(Record):
    """Why something failed, as part of another answer."""

    code: str
    message: str | None = None
    hint: str | None = None


# --- videos ----------------------------------------------------------------------------------------------------------


class VideoSummary(Record):
    """A video in a list."""

    id: str
    title: str
    state: State
    error: Failure | None = None
    duration: float | None = None
    uploaded_at: float
    tags: list[str] = Field(default_factory=list)
    attention: dict[str, float] = Field(default_factory=dict)
    score: float | None = Field(None, description="How well it fits the words that were asked for.")
    match: dict[str, Any] | None = Field(None, description="The phrase that was found, and when it is said or seen.")


class VideoPage(Record):
    """A page of videos. `next` is the cursor of the following page, null at the end."""

    videos: list[VideoSummary]
    next: str | None = None


class Stage(Record):
    """One stage of a video."""

    state: str
    version: str | None = None
    seconds: float | None = None
    attempts: int | None = None
    worker: str | None = None
    error: Failure | None = None


class Video(Record):
    """All that is understood of a video; what is not done yet is empty, and its stage says so."""

    id: str
    title: str
    file_name: str
    state: State
    error: Failure | None = None
    duration: float | None = None
    metadata: dict[str, Any]
    media: dict[str, Any]
    degraded: list[str] = Field(default_factory=list)
    stages: dict[str, Stage]
    labels: list[dict[str, Any]] = Field(default_factory=list)
    objects: list[dict[str, Any]] = Field(default_factory=list)
    colours: list[dict[str, Any]] = Field(default_factory=list)
    shots: list[dict[str, Any]] = Field(default_factory=list)
    screen_text: list[dict[str, Any]] = Field(default_factory=list)
    transcript: dict[str, Any] = Field(default_factory=dict)
    captions: list[dict[str, Any]] = Field(default_factory=list)
    keywords: list[str] = Field(default_factory=list)
    topics: list[dict[str, Any]] = Field(default_factory=list)
    music: dict[str, Any] = Field(default_factory=dict)
    audio: dict[str, Any] | None = None
    attention: dict[str, float] = Field(default_factory=dict)
    tokens: list[dict[str, Any]] = Field(default_factory=list)


class Status(Record):
    """The state of a video, as its live stream tells it: `done` stages `of` so many."""

    id: str
    state: Literal["waiting", "processing", "ready", "failed", "deleted"]
    title: str | None = None
    error: Failure | None = None
    done: int | None = None
    of: int | None = None
    stages: dict[str, Stage] = Field(default_factory=dict)


class Uploaded(Record):
    """What became of an upload. `outcome`: new, duplicate (nothing changed), updated (with new words), refused."""

    id: str | None = None
    state: str
    outcome: str | None = None
    path: str | None = None
    error: Failure | None = None


class UploadState(Record):
    """How far a resumable upload is; at its end the video, or the error."""

    id: str
    state: Literal["receiving", "received", "taken", "refused"]
    offset: int | None = None
    length: int | None = None
    video: str | None = None
    outcome: str | None = None
    error: Failure | None = None


class Deleted(Record):
    """The proof that a video is gone: what was removed, and what was found after it, which is nothing."""

    video: str
    removed: dict[str, dict[str, int]]
    found: list[str]


class Hit(Record):
    """A video that was found, with its score and the terms that add up to it."""

    video: str
    title: str
    score: float
    terms: dict[str, float]
    match: dict[str, Any] | None = None


class SearchResult(Record):
    """What words find, the best first."""

    query: str
    items: list[Hit]


class SimilarVideos(Record):
    """The videos nearest to one."""

    video: str
    items: list[Hit]


class DuplicateGroup(Record):
    """Videos that show nearly the same pictures."""

    videos: list[dict[str, Any]]
    pairs: list[dict[str, Any]]


class Duplicates(Record):
    """Every group of them."""

    threshold: float
    groups: list[DuplicateGroup]


# --- viewers ---------------------------------------------------------------------------------------------------------


class SetAside(Record):
    """Why an event does not count."""

    reason: str
    detail: str | None = None


class EventTaken(Record):
    """An event as it is stored; `new` is false for one that was there already."""

    event: dict[str, Any]
    new: bool
    set_aside: SetAside | None = None


class EventsTaken(Record):
    """What became of each line of a batch."""

    results: list[dict[str, Any]]


class Recommendation(Record):
    """A video of a feed, and why: terms that add up to the score, reasons for people, rules that moved it, and which
    sources found it."""

    video: str
    title: str
    score: float
    terms: dict[str, float]
    reasons: list[dict[str, Any]]
    rules: list[Any]
    sources: list[Any]


class Feed(Record):
    """A viewer's feed. `left_out`: sources that did not answer in time, with the code that says why."""

    user: str
    items: list[Recommendation]
    left_out: dict[str, str] = Field(default_factory=dict)


class Profile(Record):
    """What is known of a viewer."""

    user: str
    events: int
    as_of: float | None = None
    counts: dict[str, int]
    interest: dict[str, float] = Field(default_factory=dict)
    interests: list[dict[str, Any]]
    dislikes: list[dict[str, Any]]
    history: list[dict[str, Any]]


class Forgotten(Record):
    """The proof that a viewer is forgotten."""

    digest: str
    removed: dict[str, int]
    found: dict[str, int]


# --- administration --------------------------------------------------------------------------------------------------


class Queue(Record):
    """A queue: what waits, since when, how fast it goes."""

    name: str
    depth: int


class Queues(Record):
    """Every queue, and how the broker is (`ok`, or a code)."""

    queues: list[Queue]


class Workers(Record):
    """Every worker."""

    workers: list[dict[str, Any]]
    scaled: dict[str, Any] | None = None


class DeadLetters(Record):
    """Runs that were given up."""

    dead: list[dict[str, Any]]


class Jobs(Record):
    """Jobs and how far they are."""

    jobs: list[dict[str, Any]]


class Models(Record):
    """Encoders, model sets and what was learnt."""

    models: list[dict[str, Any]]
    served: dict[str, Any]
    learnt: dict[str, list[dict[str, Any]]]


class Health(Record):
    """Whether an installation is ready, and its parts."""

    status: str | int
    parts: dict[str, dict[str, Any]] = Field(default_factory=dict)
