"""Intake of what was put into the object store, or into a folder, by anyone's tool.

An object is handled once for each time it is written, and at least once: `take` claims it in the ledger, copies it to a
local file with the byte limit held, and hands that file to `workers.intake`. Only when the video is in the catalogue is
the object removed. Whoever dies on the way leaves the object where it was; the next one takes it again, and the same
bytes are the same video. What is refused is set aside for inspection with its code, and not tried again.

A notification is a hint: what it names is looked at, as the scan would.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import re
import shutil
import socket
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import structlog

from store.artifacts import digest, metadata_key, revision_of
from store.catalogue import Catalogue, Video
from store.errors import InputError, MediaError, PassingError, ReelsenseError
from store.foreign_objects import ForeignFiles, ForeignObject, ForeignObjects, copy_bounded, free_bytes, open_foreign
from store.incoming import ENDED, IncomingLedger, PresignedUpload, Seen, State, name_of
from store.objects import ObjectStore
from store.records import WORD_FIELDS, Metadata
from store.settings import Settings
from workers.captions import _LANGUAGE
from workers.graph import Graph, _is_dead
from workers.incoming_words import (
    MOST_SIDECAR_BYTES,
    attached_words,
    base_name,
    folder_of,
    is_passed_over,
    is_words,
    parsed_sidecar,
    sidecars_of,
    stem_of,
    stems_of_words,
)
from workers.intake import metadata_of, take_in

PRESIGNED = "presigned/"
QUARANTINE, DONE, REFUSED = "quarantine/", "done/", "refused/"
PAGE = 500
SPARE_BYTES = 64 * 2**20  # left on the disk that uploads are copied to
MOST_PASSING = 3  # errors of the surroundings in a row, after which a scan ends
_UPLOAD_ID = re.compile(r"[0-9a-f]{32}")
log = structlog.get_logger()

# handled: before now. held: by somebody else. settling: it may still be written. waiting: for its video, or for the
# completion of a direct upload. gone: not there any more. passed_over: nobody means it. words: a sidecar, read.
Outcome = Literal["taken", "refused", "words", "handled", "held", "settling", "waiting", "gone", "passed_over"]


@dataclass(frozen=True)
class Place:
    """Where things come in: a store and a prefix. `label` goes before keys in the ledger. What was taken moves to
    `done` (None: is removed), what was refused to `refused`."""

    foreign: ForeignObjects
    prefix: str
    refused: str
    done: str | None = None
    label: str = ""

    def key_aside(self, item: ForeignObject, folder: str) -> str:
        """Where an object is moved: in a folder under its own name, in a store under a plain one."""
        mark = digest([name_of(item.key), item.stamp])
        if self.done is None:
            return f"{folder}{mark}/object"
        target = folder + item.key.removeprefix(self.prefix)
        if self.foreign.stat(target) is None:
            return target
        return f"{folder_of(target)}{mark}-{base_name(target)[-200:]}"


@dataclass(frozen=True)
class Handled:
    """What became of one key, the video that it is, or why it is none."""

    key: str
    outcome: Outcome
    video_id: str | None = None
    error: ReelsenseError | None = None


@dataclass(frozen=True)
class ScanReport:
    """How often each outcome was in a scan (`passing`: an error of the surroundings), what came to its end in it, and
    the last error of the surroundings."""

    outcomes: Counter[str] = field(default_factory=Counter)
    ended: list[Handled] = field(default_factory=list)
    error: PassingError | None = None


class Incoming:
    """The intake of one place. Several at once, in threads, processes or on machines, do no harm."""

    def __init__(
        self, settings: Settings, objects: ObjectStore, catalogue: Catalogue, graph: Graph, place: Place
    ) -> None:
        self.settings = settings
        self.objects = objects
        self.catalogue = catalogue
        self.graph = graph
        self.place = place
        self.foreign = place.foreign
        self.ledger = IncomingLedger(catalogue)
        self.holder = f"{socket.gethostname()}/{os.getpid()}"

    # --- one object --------------------------------------------------------------------------------------------------

    def take(self, key: str, listed: ForeignObject | None = None) -> Handled:
        """Look at what lies under `key`, and take it in if that is to be done. Raises PassingError, after which it can
        be tried again; never for an object at fault."""
        if not self._is_meant(key):
            return Handled(key, "passed_over")
        try:
            item = self.foreign.stat(key)
        except InputError as error:
            return self._refuse_unreachable(key, listed, error)
        if item is None:
            return Handled(key, "gone")
        direct: PresignedUpload | None = None
        if self._upload_id(key) is not None:
            direct = self.ledger.presigned(self._upload_id(key) or "")
            if direct is None or direct.state == "open":
                return Handled(key, "waiting")
            if direct.state != "completed":
                # Removed once already, or never completed: put there again by an address that is still good.
                self._remove(item)
                return Handled(key, "gone")
        elif is_words(key):
            return self._take_words(item)
        if self._may_change(item):
            return Handled(key, "settling")
        return self._claimed(item, lambda: self._take_video(item, direct))

    def _is_meant(self, key: str) -> bool:
        inner = key.removeprefix(self.place.prefix)
        away = (self.place.refused, self.place.done or self.place.refused)
        return key.startswith(self.place.prefix) and not is_passed_over(inner) and not inner.startswith(away)

    def _upload_id(self, key: str) -> str | None:
        start = self.place.prefix + PRESIGNED
        inner = key.removeprefix(start)
        # A folder of this name that somebody watches is a folder like any other.
        return inner if self.place.done is None and inner != key and _UPLOAD_ID.fullmatch(inner) else None

    def _may_change(self, item: ForeignObject) -> bool:
        """Whether a file was written so lately, or is open for writing, that it may not be whole yet."""
        if item.changed is None:
            return False
        still = abs(time.time() - item.changed)  # a clock that was set back makes it negative: that is not lately
        return still < self.settings.incoming.settle_seconds or self.foreign.is_being_written(item.key)

    def _row(self, item: ForeignObject) -> ForeignObject:
        return replace(item, key=self.place.label + item.key)

    def _claimed(self, item: ForeignObject, work: Callable[[], Handled]) -> Handled:
        """Do `work` as the only one, with the attempt counted before it begins."""
        row = self._row(item)
        stem = stem_of(row.key)
        attempt = self.ledger.claim(row, stem, self.holder, self.settings.lease_seconds)
        if attempt is None:
            seen = self.ledger.seen(row)
            if seen is not None and seen.state in ENDED:
                return self._handled_before(item, seen)
            if seen is None or seen.state != "taking" or not _is_dead(seen.holder):
                return Handled(item.key, "held")
            attempt = self.ledger.claim(row, stem, self.holder, lease_seconds=-1.0)
            if attempt is None:
                return Handled(item.key, "held")
        if attempt > self.settings.limits.attempts:
            return self._refuse(
                item, ReelsenseError("stage.gave_up", f"Taking it in ended in the middle {attempt - 1} times.")
            )
        try:
            with self._heartbeat(row):
                return work()
        except PassingError:
            self.ledger.release(row, counted=False)
            raise
        except Exception as error:
            log.exception("taking in failed", key=shown(item.key))
            self.ledger.release(row, counted=True)
            raise PassingError("internal", f"Taking in failed: {type(error).__name__}.") from error

    def _handled_before(self, item: ForeignObject, seen: Seen) -> Handled:
        """Finish what whoever ended it may have left undone; or it is the same object again, put there in the same
        second."""
        error = InputError(seen.error_code, seen.error_message or "") if seen.error_code else None
        if error is not None:
            self._set_aside(item, error)
        else:
            self._put_away(item, [])
        return Handled(item.key, "handled", seen.video_id, error)

    def _take_video(self, item: ForeignObject, direct: PresignedUpload | None) -> Handled:
        try:
            with self._workplace() as folder:
                path = folder / "upload"
                if not self._copied(item, path):
                    self.ledger.release(self._row(item), counted=False)
                    return Handled(item.key, "settling")
                sidecars: list[ForeignObject] = []
                if direct is not None and direct.metadata is not None:
                    metadata = direct.metadata
                else:
                    metadata, sidecars = self._words_beside(item, path)
                name = direct.file_name if direct is not None else base_name(item.key)
                video = take_in(
                    path, metadata, self.settings, self.objects, self.catalogue, file_name=shown(name)
                ).video
        except InputError as error:
            if error.code == "store.missing":
                self.ledger.release(self._row(item), counted=False)
                return Handled(item.key, "gone")
            return self._refuse(item, error)
        self._send(video)
        self._end(item, "taken", video_id=video.id)
        self._put_away(item, sidecars)
        log.info("taken in", key=shown(item.key), video=video.id)
        return Handled(item.key, "taken", video.id)

    def _copied(self, item: ForeignObject, path: Path) -> bool:
        """Copy an object to a local file; False when it was written again meanwhile. Raises `media.too_large`."""
        most = self.settings.limits.bytes
        if item.bytes > most:
            raise _too_large(most)
        try:
            if free_bytes(path.parent) < item.bytes + SPARE_BYTES:
                raise PassingError("store.unavailable", f"The disk of {path.parent} is nearly full.")
            with contextlib.closing(self.foreign.open(item.key)) as stream, path.open("wb") as target:
                size = copy_bounded(stream, target, most)
        except OSError as error:
            raise PassingError("store.unavailable", f"Copying an object failed: {error.strerror or error}.") from error
        except Exception as error:
            if isinstance(error, ReelsenseError):
                raise
            # The HTTP client's own errors, while the body is read.
            raise PassingError("store.unavailable", f"Reading an object failed: {type(error).__name__}.") from error
        if size is None:
            raise _too_large(most)
        now = self.foreign.stat(item.key)
        return now is not None and now.stamp == item.stamp and size == item.bytes

    def _send(self, video: Video) -> None:
        """Set the processing off. A broker that is away is no reason to hold the video back: the sweep sends it."""
        try:
            self.graph.refresh()
            plans = self.graph.plans
            self.graph.enqueue(list(dict.fromkeys(key for plan in plans for key in self.graph.ready(video, plan=plan))))
        except PassingError as error:
            log.warning("not sent yet", video=video.id, code=error.code)

    def _end(
        self, item: ForeignObject, state: State, *, video_id: str | None = None, error: ReelsenseError | None = None
    ) -> None:
        self.ledger.end(self._row(item), state, video_id=video_id, error=error)
        if (upload := self._upload_id(item.key)) is not None:
            self.ledger.end_presigned(upload, video_id, error)

    # --- what is done with an object afterwards ----------------------------------------------------------------------

    def _put_away(self, item: ForeignObject, sidecars: Sequence[ForeignObject]) -> None:
        """Remove an object that was taken, and those sidecars that were read; or leave all, as the settings say."""
        if not self.settings.incoming.keep or self._upload_id(item.key) is not None:
            for each in (item, *sidecars):
                self._remove(each)
        self.ledger.note_put_away(self._row(item))

    def _remove(self, item: ForeignObject) -> None:
        now = self.foreign.stat(item.key)
        if now is None or now.stamp != item.stamp:
            return  # written again since: that is another object, and will be looked at
        if self.place.done is None:
            self.foreign.delete(item.key)
        else:
            self.foreign.move(item.key, self.place.key_aside(item, self.place.done))

    def _refuse(self, item: ForeignObject, error: ReelsenseError) -> Handled:
        self._end(item, "refused", error=error)
        self._set_aside(item, error)
        log.warning("refused", key=shown(item.key), code=error.code, message=error.message)
        return Handled(item.key, "refused", error=error)

    def _refuse_unreachable(self, key: str, listed: ForeignObject | None, error: InputError) -> Handled:
        """Note a key that can be listed but not asked for (`..` in a bucket): the object stays where it is."""
        if listed is not None and self.ledger.claim(self._row(listed), stem_of(key), self.holder, 0.0) is not None:
            self.ledger.end(self._row(listed), "refused", error=error)
            self.ledger.note_put_away(self._row(listed))
            log.warning("refused", key=shown(key), code=error.code, message=error.message)
        return Handled(key, "refused", error=error)

    def _set_aside(self, item: ForeignObject, error: ReelsenseError) -> None:
        """Move a refused object out of the way, with a note of its name and the reason beside it."""
        target = self.place.key_aside(item, self.place.refused)
        note = target + ".json" if len(os.fsencode(base_name(target))) < 250 else folder_of(target) + "note.json"
        if self.place.done is None:
            note = f"{folder_of(target)}note.json"
        written = {
            "key": shown(item.key, 1024),
            "bytes": item.bytes,
            "code": error.code,
            "message": error.message,
            "hint": error.hint,
            "refused_at": time.time(),
        }
        now = self.foreign.stat(item.key)
        if now is not None and now.stamp == item.stamp:
            self.foreign.put(note, json.dumps(written, indent=2).encode())
            self.foreign.move(item.key, target)
        self.ledger.note_put_away(self._row(item))

    # --- words -------------------------------------------------------------------------------------------------------

    def _words_beside(self, item: ForeignObject, path: Path) -> tuple[Metadata, list[ForeignObject]]:
        """The words that lie beside a video, and the objects they were read from. Raises `metadata.invalid`,
        `caption.unreadable`."""
        beside = self.foreign.beside(stem_of(item.key))
        described, captions = sidecars_of(item.key, beside)
        read: list[ForeignObject] = []
        words = attached_words(item.words)
        if described is not None and (found := self._sidecar(described, MOST_SIDECAR_BYTES)) is not None:
            words |= parsed_sidecar(found[1])
            read.append(found[0])
        files = []
        for number, key in enumerate(captions):
            if (found := self._sidecar(key, self.settings.limits.caption_bytes)) is None:
                continue
            files.append(_caption_file(path.parent, number, key))
            files[-1].write_bytes(found[1])
            read.append(found[0])
        metadata = metadata_of(path, **words, captions=files, limits=self.settings.limits)
        shares = [key for key in beside if key != item.key and not is_words(key) and stem_of(key) == stem_of(item.key)]
        # `clip.json` says it of `clip.mov` as well as of `clip.mp4`: the last of them takes it along.
        return metadata, [it for it in read if not shares or stem_of(it.key) != stem_of(item.key)]

    def _sidecar(self, key: str, most: int) -> tuple[ForeignObject, bytes] | None:
        """A sidecar and its bytes, None when it is gone. Raises `metadata.invalid` when it is too large."""
        item = self.foreign.stat(key)
        if item is None:
            return None
        if item.bytes > most:
            code = "metadata.invalid" if key.lower().endswith(".json") else "caption.unreadable"
            raise InputError(code, f"The file {shown(base_name(key))!r} has more than {most} bytes.")
        try:
            with contextlib.closing(self.foreign.open(key)) as stream:
                return item, stream.read(most + 1)[:most]
        except InputError:
            return None

    def _take_words(self, item: ForeignObject) -> Handled:
        """A sidecar by itself: one that came after its video gives that video its words, others wait for theirs."""
        rows: list[Seen] = []
        for stem in stems_of_words(item.key):
            rows = rows or self.ledger.of_video_file(self.place.label + stem)
        if not rows or rows[0].state in ("free", "taking"):
            return Handled(item.key, "waiting")
        if self._may_change(item):
            return Handled(item.key, "settling")
        return self._claimed(item, lambda: self._reword(item, rows[0]))

    def _reword(self, item: ForeignObject, seen: Seen) -> Handled:
        if seen.video_id is None:
            reason = seen.error_code or "internal"
            return self._refuse(item, InputError(reason, f"Its video was refused: {seen.error_message}"))
        try:
            video = self.catalogue.video(seen.video_id)
            found = self._sidecar(
                item.key,
                MOST_SIDECAR_BYTES if item.key.lower().endswith(".json") else self.settings.limits.caption_bytes,
            )
            if found is None:
                self.ledger.release(self._row(item), counted=False)
                return Handled(item.key, "gone")
            metadata = self._merged(video.metadata, item.key, found[1])
        except InputError as error:
            return self._refuse(item, error)
        if metadata != video.metadata:
            revision = revision_of(metadata)
            self.objects.put(metadata_key(video.id, revision), metadata.model_dump_json().encode())
            self.catalogue.put_video(video.model_copy(update={"metadata": metadata, "revision": revision}))
            self._send(self.catalogue.video(video.id))
        self._end(item, "words", video_id=video.id)
        self._put_away(item, [])
        return Handled(item.key, "words", video.id)

    def _merged(self, old: Metadata, key: str, data: bytes) -> Metadata:
        """A video's words with those of one sidecar more; a caption track takes the place of one in its language."""
        words: dict[str, Any] = {name: getattr(old, name) for name in WORD_FIELDS}
        with self._workplace() as folder:
            files = []
            if key.lower().endswith(".json"):
                words |= parsed_sidecar(data)
            else:
                files.append(_caption_file(folder, 0, key))
                files[0].write_bytes(data)
            new = metadata_of(folder / "upload", **words, captions=files, limits=self.settings.limits)
        languages = {track.language for track in new.captions}
        kept = tuple(track for track in old.captions if track.language not in languages)
        return new.model_copy(update={"captions": (kept + new.captions)[-50:]})

    # --- all objects -------------------------------------------------------------------------------------------------

    def scan(self, stop: Callable[[], bool] = lambda: False) -> ScanReport:
        """Look at every object of the place once. Those dealt with before cost a line of the listing and a look into
        the ledger, 500 at a time. One object's trouble is not another's; when the store or database is away the scan
        ends.
        """
        report = ScanReport()
        sidecars: list[ForeignObject] = []
        in_a_row = 0
        try:
            self.ledger.expire_presigned(self.settings.incoming.presigned_keep_seconds)
            # `sidecars` fills while the videos are gone through, and comes after them.
            for item in itertools.chain(self._videos(sidecars, report.outcomes), sidecars):
                if stop() or in_a_row >= MOST_PASSING:
                    break
                try:
                    handled = self.take(item.key, item)
                except PassingError as error:
                    report = replace(report, error=error)
                    report.outcomes["passing"] += 1
                    in_a_row += 1
                    continue
                in_a_row = 0
                report.outcomes[handled.outcome] += 1
                if handled.outcome in ("taken", "refused", "words"):
                    report.ended.append(handled)
        except PassingError as error:
            report = replace(report, error=error)
        return report

    def _videos(self, sidecars: list[ForeignObject], outcomes: Counter[str]) -> Iterator[ForeignObject]:
        """The objects that may be videos and have not been dealt with; other new ones are appended to `sidecars`."""
        listing = self.foreign.list(self.place.prefix)
        while page := list(itertools.islice(listing, PAGE)):
            known = self.ledger.known([self._row(item) for item in page])
            for item in page:
                state, put_away = known.get((self.place.label + item.key, item.stamp), ("free", False))
                if self.settings.incoming.keep and put_away and state in ("taken", "words"):
                    outcomes["handled"] += 1
                elif is_words(item.key) and self._upload_id(item.key) is None:
                    sidecars.append(item)
                else:
                    yield item

    def look_at_hints(self, stop: Callable[[], bool] = lambda: False) -> list[Handled]:
        """Look at every key that was announced and is due. One that cannot be dealt with yet is looked at again."""
        settle = max(1.0, self.settings.incoming.settle_seconds)
        ended = []
        for key, due_at in self.ledger.due_hints(PAGE):
            if stop():
                break
            try:
                handled = self.take(key)
            except PassingError as error:
                log.warning("hint put off", key=shown(key), code=error.code, message=error.message)
                self.ledger.put_off_hint(key, due_at, settle)
                continue
            if handled.outcome in ("settling", "held"):
                self.ledger.put_off_hint(key, due_at, settle)
            else:
                self.ledger.drop_hint(key, due_at)
                ended.append(handled)
        return ended

    # --- the ground --------------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _workplace(self) -> Iterator[Path]:
        """A private folder for one copy; those that the dead left behind are removed by `clear_workplaces`."""
        root = self.settings.data / "run" / "incoming"
        try:
            root.mkdir(parents=True, exist_ok=True, mode=0o700)
            folder = Path(tempfile.mkdtemp(dir=root, prefix=f"{os.getpid()}-"))
        except OSError as error:
            raise PassingError("store.unavailable", f"No folder can be made in {root}: {error.strerror}.") from error
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    @contextlib.contextmanager
    def _heartbeat(self, row: ForeignObject) -> Iterator[None]:
        """Renew the lease from a thread: copying and probing take as long as they take."""
        stop = threading.Event()

        def beat() -> None:
            while not stop.wait(self.settings.lease_seconds / 4):
                with contextlib.suppress(PassingError):  # the lease outlives three missed beats
                    self.ledger.beat(row, self.holder)

        thread = threading.Thread(target=beat, name="incoming-heartbeat", daemon=True)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()


def open_incoming(settings: Settings, objects: ObjectStore, catalogue: Catalogue, graph: Graph) -> Incoming:
    """The intake of `incoming.prefix` of the object store. Where that is a directory, its folder is made, so that there
    is something to put files into. Raises `store.unavailable` when it cannot be."""
    foreign = open_foreign(objects)
    if isinstance(foreign, ForeignFiles):
        _make_folder(foreign.root / settings.incoming.prefix)
    return Incoming(settings, objects, catalogue, graph, Place(foreign, settings.incoming.prefix, QUARANTINE))


def open_watched(settings: Settings, objects: ObjectStore, catalogue: Catalogue, graph: Graph) -> Incoming:
    """The intake of `incoming.watched_folder`. Raises `store.unavailable` when it cannot be made."""
    folder = Path(settings.incoming.watched_folder).expanduser().absolute()
    _make_folder(folder)
    place = Place(ForeignFiles(folder), "", REFUSED, done=DONE, label=f"folder:{folder}/")
    return Incoming(settings, objects, catalogue, graph, place)


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise PassingError("store.unavailable", f"The folder {folder} cannot be made: {error.strerror}.") from error


def clear_workplaces(settings: Settings) -> None:
    """Remove the copies of processes that are gone. Call it where no other machine works in the same data directory."""
    for folder in (settings.data / "run" / "incoming").glob("*-*"):
        if _is_dead(f"{socket.gethostname()}/{folder.name.partition('-')[0]}"):
            shutil.rmtree(folder, ignore_errors=True)


def shown(key: str, most: int = 255) -> str:
    """A key or name fit for display and for a database: no control characters, no lone surrogates, bounded."""
    return "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in key)[:most]


def _caption_file(folder: Path, number: int, key: str) -> Path:
    """A name of our own for a copy of a caption file, which keeps the language in its name and its kind."""
    stem, _, suffix = base_name(key).rpartition(".")
    language = stem.rpartition(".")[2]
    mark = f".{language}" if "." in stem and _LANGUAGE.fullmatch(language) else ""
    return folder / f"captions-{number}{mark}.{suffix.lower()}"


def _too_large(most: int) -> MediaError:
    return MediaError(
        "media.too_large",
        f"The object has more than the {most} bytes that are allowed.",
        hint="Raise REELSENSE_LIMITS__BYTES.",
    )
