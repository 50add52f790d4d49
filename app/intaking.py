"""Finished uploads become videos: in threads of the API's process, and again at its next start if it dies meanwhile.

An upload whose last byte was answered with 2xx is `received` in the ledger, and only an answer ends that: taken in, or
refused for a reason of its own. Storage or database away: tried again, as often as it takes. An upload that takes the
process with it is counted before each try and set aside after `limits.attempts`.
"""

from __future__ import annotations

import json
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import structlog

from app.admission import Admission
from app.operations import Added, ReelSense
from app.upload_files import UploadFiles, new_id
from store.errors import InputError, PassingError, ReelsenseError
from store.upload_ledger import Upload, UploadLedger

LOOK_SECONDS = 2.0
TIDY_SECONDS = 10.0
FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 1.0, 60.0
# A request enters its upload into the ledger, then makes and locks the folder: this long it may take.
OPENING_SECONDS = 10.0

log = structlog.get_logger("intake")


class Intaking:
    """The uploads of one API process. `start` and `stop` belong to the API's life."""

    def __init__(self, reelsense: ReelSense) -> None:
        self.reelsense = reelsense
        self.settings = reelsense.settings
        self.files = UploadFiles(self.settings.data)
        self._ledger: UploadLedger | None = None
        self._admission: Admission | None = None
        self._threads = ThreadPoolExecutor(self.settings.intake.at_once, thread_name_prefix="intake")
        self._busy: dict[str, Future[Added | None]] = {}
        self._guard = threading.Lock()
        self._later: dict[str, tuple[float, float]] = {}
        self._stop = threading.Event()
        self._keeper = threading.Thread(target=self._keep, name="intake-keeper", daemon=True)

    @property
    def ledger(self) -> UploadLedger:
        """The ledger; the database is opened at the first use."""
        if self._ledger is None:
            self._ledger = UploadLedger(self.reelsense.catalogue)
        return self._ledger

    @property
    def admission(self) -> Admission:
        """The gate."""
        if self._admission is None:
            self._admission = Admission(self.settings, self.ledger, self.files.root)
        return self._admission

    def start(self) -> None:
        """Take in what an earlier process left, and look after uploads until `stop`."""
        self._keeper.start()

    def stop(self) -> None:
        """Finish the tries that run; the others wait for the next start."""
        self._stop.set()
        self._keeper.join()
        self._threads.shutdown(wait=True, cancel_futures=True)

    # --- an upload's beginning and end -------------------------------------------------------------------------------

    def open(self, upload: Upload) -> int:
        """Admit the upload and make its folder: the lock that holds it. Raises BusyError."""
        self.admission.admit(upload)
        try:
            self.files.make(upload.id)
            lock = self.files.lock(upload.id)
            assert lock is not None
            return lock
        except BaseException:
            self.discard(upload.id)
            raise

    def discard(self, upload_id: str) -> None:
        """Forget an upload; the caller holds it, or nobody does."""
        self.files.remove(upload_id)
        self.ledger.forget(upload_id)

    def submit(self, upload_id: str) -> Future[Added | None]:
        """Take a received upload in, soon. None: another process does."""
        with self._guard:
            running = self._busy.get(upload_id)
            if running is None:
                running = self._busy[upload_id] = self._threads.submit(self._take, upload_id)
            return running

    def _take(self, upload_id: str) -> Added | None:
        try:
            with self.files.locked(upload_id) as held:
                upload = self.ledger.find(upload_id) if held else None
                if upload is None or upload.state != "received":
                    return None
                with structlog.contextvars.bound_contextvars(upload=upload_id):
                    added = self._added(upload)
                self.ledger.finish(upload_id, added.id, added.outcome, added.error if added.id is None else None)
            self._later.pop(upload_id, None)
            if added.id is not None:
                self.files.remove(upload_id)
            return added
        except PassingError as error:
            self._try_later(upload_id)
            log.warning("an upload waits", upload=upload_id, code=error.code, message=error.message)
            raise
        finally:
            with self._guard:
                self._busy.pop(upload_id, None)

    def _added(self, upload: Upload) -> Added:
        """The answer that ends the upload. Raises PassingError when there is none yet."""
        attempt = self.ledger.attempt(upload.id)
        if attempt > self.settings.limits.attempts:
            return _refused(
                upload, ReelsenseError("stage.gave_up", "Taking this upload in ended its process too often.")
            )
        try:
            captions = self.files.captions(upload.id)
            return self.reelsense.add(
                self.files.data(upload.id), file_name=upload.file_name, captions=captions, **json.loads(upload.words)
            )
        except PassingError:
            self.ledger.attempt_did_not_count(upload.id)
            raise
        except Exception as error:
            log.exception("taking in an upload failed", upload=upload.id, attempt=attempt)
            if attempt < self.settings.limits.attempts:
                raise PassingError("internal", "Taking the upload in failed; it is tried again.") from error
            return _refused(
                upload, ReelsenseError("internal", "An error nobody expected; the API's log has the traceback.")
            )

    def _try_later(self, upload_id: str) -> None:
        pause = min(2 * self._later.get(upload_id, (0.0, FIRST_PAUSE_SECONDS / 2))[1], LONGEST_PAUSE_SECONDS)
        self._later[upload_id] = (time.monotonic() + pause, pause)

    # --- looking after -----------------------------------------------------------------------------------------------

    def _keep(self) -> None:
        tidied = -TIDY_SECONDS
        while True:
            try:
                if time.monotonic() - tidied >= TIDY_SECONDS:
                    self.tidy(time.time())
                    tidied = time.monotonic()
                self.look()
            except PassingError as error:
                log.warning("uploads cannot be looked after", code=error.code, message=error.message)
            except Exception:
                log.exception("looking after uploads failed")
            if self._stop.wait(LOOK_SECONDS):
                return

    def look(self) -> None:
        """Submit every received upload that nobody is at."""
        now = time.monotonic()
        for upload in self.ledger.all("received"):
            if self._later.get(upload.id, (0.0, 0.0))[0] <= now and self.files.here(upload.id):
                self.submit(upload.id)

    def tidy(self, now: float) -> None:
        """Drop what expired or was left behind, and give back what it counted for."""
        intake = self.settings.intake
        kept = 0
        for upload in reversed(self.ledger.all("receiving", "received", "refused")):
            if upload.state == "receiving":
                self._tidy_receiving(upload, now)
            elif upload.state == "received":
                if now - upload.touched_at > intake.expiry_seconds and not self.files.here(upload.id):
                    gone = ReelsenseError("internal", "The file of this upload is gone from the machine that had it.")
                    self.ledger.finish(upload.id, None, "refused", gone)
            elif self.files.here(upload.id):
                kept += self.files.data(upload.id).stat().st_size
                if kept > intake.quarantine_bytes:
                    self.files.remove(upload.id)
        for upload in self.ledger.ended_before(now - intake.kept_seconds):
            self.discard(upload.id)
        for folder, changed in self.files.folders().items():
            row = self.ledger.find(folder)
            if (row is None and now - changed > intake.expiry_seconds) or (row is not None and row.state == "taken"):
                self.files.remove(folder)

    def _tidy_receiving(self, upload: Upload, now: float) -> None:
        if now - upload.created_at < OPENING_SECONDS and not self.files.here(upload.id):
            return
        if not self.files.here(upload.id):
            # On another machine, or its process died before it made the file.
            if now - upload.touched_at > self.settings.intake.expiry_seconds:
                self.ledger.forget(upload.id)
            return
        with self.files.locked(upload.id) as held:
            if not held:
                return
            current = self.ledger.find(upload.id)
            if current is None or current.state != "receiving":
                return
            if upload.kind == "form" and now - upload.created_at >= OPENING_SECONDS:
                self.discard(upload.id)  # its request died with its process, and nobody can go on with it
            elif (
                upload.kind == "tus"
                and current.unverified_from is None
                and self.files.offset(current) == current.length
            ):
                # The last byte was written, and the process died before it said so.
                self.ledger.received(upload.id, current.length or 0)
            elif now - current.touched_at > self.settings.intake.expiry_seconds:
                self.discard(upload.id)


def _refused(upload: Upload, error: ReelsenseError) -> Added:
    return Added(upload.id, None, "failed", "refused", error)


def began(user: str, kind: str, length: int | None, largest: int) -> Upload:
    """A new upload. Raises `media.too_large`."""
    if length is not None and length > largest:
        raise InputError(
            "media.too_large",
            f"The file has {length} bytes, at most {largest} are allowed.",
            hint="Raise REELSENSE_LIMITS__BYTES.",
        )
    now = time.time()
    values: dict[str, Any] = {"id": new_id(), "user_id": user, "kind": kind, "created_at": now, "touched_at": now}
    return Upload(**values, length=length, reserved=largest if length is None else length)
