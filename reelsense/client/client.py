"""The client: one method for each thing that the API does, in typed records."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import quote

import httpx2

from reelsense.client import records, uploads
from reelsense.client.connection import PREFIX, Connection, Retries, problem_of, retry_after
from reelsense.client.errors import Unreachable, error_of
from reelsense.client.uploads import PIECE_BYTES, Progress

DEFAULT_ADDRESS = "http://127.0.0.1:8787"
TIMEOUT_SECONDS = 60.0
PART_BYTES = 256 * 1024


class Client:
    """One ReelSense over HTTP. Methods raise ClientError. Close it, or use it as a context manager.

        with Client(key="rsk_...") as reelsense:
            video = reelsense.upload("clip.mp4", title="A dog")
            for status in reelsense.watch(video.video):
                print(status.state, status.done, "of", status.of)
            for item in reelsense.recommend("ana").items:
                print(item.title, item.score, item.reasons)

    `http` may be any `httpx2.Client` whose base is the API's address; then `address` and `key` are not looked at.
    """

    def __init__(
        self,
        address: str = DEFAULT_ADDRESS,
        key: str | None = None,
        *,
        retries: Retries | None = None,
        http: httpx2.Client | None = None,
    ) -> None:
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        self._http = http or httpx2.Client(base_url=address, headers=headers, timeout=TIMEOUT_SECONDS)
        self._connection = Connection(self._http, retries or Retries())

    def __enter__(self) -> Client:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Close its connections."""
        self._http.close()

    # --- videos ------------------------------------------------------------------------------------------------------

    def upload(
        self,
        path: Path | str,
        *,
        title: str = "",
        description: str = "",
        tags: Sequence[str] = (),
        creator: str = "",
        region: str = "",
        language: str = "",
        sound: str = "",
        address: str | None = None,
        piece_bytes: int = PIECE_BYTES,
        on_progress: Callable[[Progress], None] | None = None,
        timeout_seconds: float = 120.0,
    ) -> records.UploadState:
        """Upload a file, resumably, and wait until it is taken in (not until it is processed: see `watch`). Where it
        broke off, `address` of the last progress goes on from there. A refused file raises ApiError with its code."""
        words = {
            "title": title, "description": description, "tags": ",".join(tags), "creator": creator, "region": region,
            "language": language, "sound": sound,
        }  # fmt: skip
        where = uploads.send_file(
            self._connection, Path(path), words, address=address, piece_bytes=piece_bytes, on_progress=on_progress
        )
        state = uploads.ended(self._connection, where, timeout_seconds)
        if state.error is not None:
            raise error_of(_problem(state.error), 0.0)
        return state

    def video_pages(self, *, limit: int = 100, **wish: str) -> Iterator[records.VideoPage]:
        """The pages of the list, each read when it is asked for; `wish` as in `videos`."""
        cursor: str | None = None
        while True:
            page = self._connection.get(records.VideoPage, f"{PREFIX}/videos", limit=limit, cursor=cursor, **wish)
            yield page
            cursor = page.next
            if cursor is None:
                return

    def videos(
        self, *, q: str = "", state: str = "", tag: str = "", where: str = "", order: str = "newest", limit: int = 100
    ) -> Iterator[records.VideoSummary]:
        """Every video that fits, however many pages that takes."""
        for page in self.video_pages(limit=limit, q=q, state=state, tag=tag, where=where, order=order):
            yield from page.videos

    def video(self, video: str) -> records.Video:
        """All that is understood of a video."""
        return self._connection.get(records.Video, _video(video))

    def delete_video(self, video: str) -> records.Deleted:
        """Delete a video everywhere, for good; the proof."""
        return records.Deleted.model_validate_json(self._connection.send("DELETE", _video(video)).content)

    def thumbnail(self, video: str, *, seconds: float | None = None, width: int = 320) -> bytes:
        """A picture of the video (JPEG)."""
        given: dict[str, Any] = {"width": width} | ({} if seconds is None else {"seconds": seconds})
        return self._connection.send("GET", f"{_video(video)}/thumbnail", params=given).content

    def media(self, video: str, first: int = 0, last: int | None = None) -> bytes:
        """Bytes `first` to `last` (in it; None: to the end) of the video."""
        headers = {"Range": f"bytes={first}-{'' if last is None else last}"}
        return self._connection.send("GET", f"{_video(video)}/media", headers=headers).content

    def download(self, video: str, path: Path | str) -> int:
        """Write the video to a file, part by part; how many bytes."""
        written = 0
        with self._http.stream("GET", f"{_video(video)}/media") as answer, Path(path).open("wb") as target:
            _require(answer)
            for part in answer.iter_bytes(PART_BYTES):
                written += target.write(part)
        return written

    def watch(self, video: str) -> Iterator[records.Status]:
        """The state of a video now and at each change, until it is ready, failed or deleted. A connection that breaks
        is made again."""
        path, last, failures = f"{_video(video)}/events", "", 0
        while True:
            try:
                headers = {"Last-Event-ID": last} if last else {}
                with self._http.stream("GET", path, headers=headers) as answer:
                    _require(answer)
                    for event in _events(answer.iter_lines()):
                        failures = 0
                        last = event.get("id", last)
                        if event.get("event") == "status":
                            yield records.Status.model_validate_json(event["data"])
                        elif event.get("event") == "end":
                            end = records.Status.model_validate_json(event["data"])
                            if end.state == "deleted":
                                yield end
                            return
                    if answer.status_code == 204:
                        return
            except httpx2.TransportError as error:
                failures += 1
                if failures > self._connection.retries.times:
                    raise Unreachable(f"The state of {video} cannot be followed: {error}") from error
            self._connection.sleep(self._connection.retries.wait(failures, None))

    def search(self, words: str, k: int = 10) -> records.SearchResult:
        """Videos that say or show what the words ask for."""
        return self._connection.get(records.SearchResult, f"{PREFIX}/search", q=words, k=k)

    def similar(self, video: str, k: int = 10) -> records.SimilarVideos:
        """The videos most like one."""
        return self._connection.get(records.SimilarVideos, f"{_video(video)}/similar", k=k)

    def duplicates(self, threshold: float | None = None) -> records.Duplicates:
        """Groups of videos that show nearly the same pictures."""
        return self._connection.get(records.Duplicates, f"{PREFIX}/duplicates", threshold=threshold)

    # --- viewers -----------------------------------------------------------------------------------------------------

    def event(
        self, user: str, video: str, kind: str, *, watched_seconds: float | None = None, **more: Any
    ) -> records.EventTaken:
        """Record what a viewer did; it counts in the next feed."""
        act = {"user": user, "video": video, "kind": kind, "watched_seconds": watched_seconds, **more}
        return self._connection.post(records.EventTaken, f"{PREFIX}/events", once=True, json=act)

    def events(self, acts: Iterable[Mapping[str, Any]]) -> records.EventsTaken:
        """Record many acts at once."""
        return self._connection.post(records.EventsTaken, f"{PREFIX}/events/batch", once=True, json=list(acts))

    def recommend(
        self, user: str, k: int = 10, *, region: str = "", language: str = "", device: str = "",
        picks: Sequence[str] = (),
    ) -> records.Feed:  # fmt: skip
        """A viewer's feed, each video with its score, terms and reasons."""
        return self._connection.get(
            records.Feed,
            f"{_viewer(user)}/recommend",
            k=k, region=region, language=language, device=device, pick=list(picks) or None,
        )  # fmt: skip

    def profile(self, user: str, points: int | None = None) -> records.Profile:
        """What is known of a viewer."""
        return self._connection.get(records.Profile, f"{_viewer(user)}/profile", points=points)

    def forget(self, user: str) -> records.Forgotten:
        """Delete a viewer everywhere; the proof."""
        return records.Forgotten.model_validate_json(self._connection.send("DELETE", _viewer(user)).content)

    # --- administration ----------------------------------------------------------------------------------------------

    def queues(self) -> records.Queues:
        """Every queue."""
        return self._connection.get(records.Queues, f"{PREFIX}/queues")

    def pause_queue(self, name: str, reason: str = "") -> dict[str, Any]:
        """Let no run of a queue begin until it is resumed."""
        return self._act(f"{PREFIX}/queues/{_segment(name)}/pause", {"reason": reason})

    def resume_queue(self, name: str) -> dict[str, Any]:
        """Take a pause back."""
        return self._act(f"{PREFIX}/queues/{_segment(name)}/resume")

    def workers(self) -> records.Workers:
        """Every worker."""
        return self._connection.get(records.Workers, f"{PREFIX}/workers")

    def dead_letters(
        self, *, stage: str | None = None, code: str | None = None, video: str | None = None
    ) -> records.DeadLetters:
        """Runs that were given up, the latest first."""
        return self._connection.get(records.DeadLetters, f"{PREFIX}/dead", stage=stage, code=code, video=video)

    def replay_dead_letters(self, ids: Sequence[str] = (), **chosen: Any) -> dict[str, Any]:
        """Try dead letters again: by id, or by `stage`, `code`, `video`, `every`."""
        return self._act(f"{PREFIX}/dead/replay", {"ids": list(ids), **chosen})

    def jobs(self) -> records.Jobs:
        """Re-embedding jobs."""
        return self._connection.get(records.Jobs, f"{PREFIX}/jobs")

    def training_jobs(self) -> records.Jobs:
        """Jobs that train rankers."""
        return self._connection.get(records.Jobs, f"{PREFIX}/training")

    def models(self) -> records.Models:
        """Encoders, what is served, and what was learnt."""
        return self._connection.get(records.Models, f"{PREFIX}/models")

    def health(self) -> records.Health:
        """Whether the installation is ready; what is not stands in `parts`."""
        answer = self._http.get("/health/ready")
        return records.Health.model_validate_json(answer.content)

    def _act(self, path: str, body: Mapping[str, Any] | None = None) -> dict[str, Any]:
        answer: dict[str, Any] = self._connection.send("POST", path, json=dict(body or {})).json()
        return answer


def _segment(text: str) -> str:
    return quote(text, safe="")


def _video(video: str) -> str:
    return f"{PREFIX}/videos/{_segment(video)}"


def _viewer(user: str) -> str:
    return f"{PREFIX}/viewers/{_segment(user)}"


def _problem(failure: records.Failure) -> records.Problem:
    return records.Problem(
        type=f"urn:reelsense:{failure.code}",
        title=failure.message or failure.code,
        status=422,
        code=failure.code,
        detail=failure.hint,
    )


def _require(answer: httpx2.Response) -> None:
    if not answer.is_success:
        answer.read()
        raise error_of(problem_of(answer), retry_after(answer) or 0.0)


def _events(lines: Iterable[str]) -> Iterator[dict[str, str]]:
    """Server-sent events as fields; comments are passed over."""
    fields: dict[str, str] = {}
    for line in lines:
        name, _, value = line.partition(":")
        if not line:
            if "data" in fields:
                yield fields
            fields = {}
        elif name:
            fields[name] = fields.get(name, "") + value.removeprefix(" ")
