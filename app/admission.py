"""Back-pressure: whether one more upload may begin, decided before its first byte, and when to come back.

Counted are rows of `store/upload_ledger.py`, so the counts survive a restart and hold over several API processes; a
client that vanishes gives its share back (`app/upload_files.py` tidies up). Limits: the settings `intake.*`.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from store.errors import PassingError
from store.settings import Settings
from store.upload_ledger import Load, Upload, UploadLedger

# A queue of videos drains in minutes, a full disk when somebody acts.
QUEUE_FACTOR, DISK_FACTOR = 3, 6


class BusyError(PassingError):
    """No more for now; the client is told to come back after `retry_seconds`."""

    def __init__(self, code: str, message: str, *, hint: str = "", retry_seconds: int) -> None:
        super().__init__(code, message, hint=hint)
        self.retry_seconds = retry_seconds


class Admission:
    """The gate before the uploads of one installation."""

    def __init__(self, settings: Settings, ledger: UploadLedger, folder: Path) -> None:
        self.settings = settings
        self.ledger = ledger
        self.folder = folder

    def admit(self, upload: Upload) -> None:
        """Enter the upload into the ledger. Raises BusyError `intake.*`."""
        self.check_disk(upload.reserved)
        limits, retry = self.settings.intake, self.settings.intake.retry_seconds

        def check(total: Load, user: Load) -> None:
            for load, uploads, size, waiting, whose in (
                (user, limits.user_uploads, limits.user_bytes, limits.user_waiting, "You have"),
                (total, limits.uploads, limits.bytes, limits.waiting, "There are"),
            ):
                if load.uploads >= uploads:
                    raise BusyError(
                        "intake.too_many_uploads",
                        f"{whose} {load.uploads} uploads in progress, at most {uploads} are allowed.",
                        hint="Finish or delete one of them.",
                        retry_seconds=retry,
                    )
                if load.bytes + upload.reserved > size:
                    raise BusyError(
                        "intake.too_many_bytes",
                        f"{whose} {load.bytes} bytes of uploads under way; with {upload.reserved} more they would be "
                        f"above the {size} allowed.",
                        retry_seconds=retry,
                    )
                if load.waiting >= waiting:
                    raise BusyError(
                        "intake.queue_full",
                        f"{whose} {load.waiting} videos waiting to be processed, at most {waiting} are allowed.",
                        retry_seconds=retry * QUEUE_FACTOR,
                    )

        self.ledger.open(upload, check)

    def check_disk(self, reserved: int) -> None:
        """Raises `intake.disk_full` when the disk would be too full with `reserved` bytes more.

        What other uploads announced and have not sent yet counts as used; and where objects are files on this disk,
        every upload counts twice, for it is copied there before its own file goes.
        """
        copies = 1 if self.settings.objects.startswith("s3://") else 2
        promised = 0
        for upload in self.ledger.all("receiving", "received"):
            file = self.folder / upload.id / "upload"
            arrived = file.stat().st_size if file.is_file() else 0
            promised += max(0, copies * upload.reserved - arrived)
        free = shutil.disk_usage(self.folder).free - promised - copies * reserved
        if free < self.settings.intake.free_bytes:
            raise BusyError(
                "intake.disk_full",
                "The disk of this machine is too full to take this upload.",
                hint="The operator can free space, or set REELSENSE_INTAKE__FREE_BYTES.",
                retry_seconds=self.settings.intake.retry_seconds * DISK_FACTOR,
            )
