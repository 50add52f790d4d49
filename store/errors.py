"""Every error that ReelSense raises on purpose.

ReelsenseError
├── InputError      the caller's input is at fault; trying again with the same input fails again
│   ├── MediaError      an upload that cannot be a video here
│   └── NotFoundError   an id that names nothing
├── PassingError    the surroundings are at fault (store, broker, database); trying again may help
├── ModelError      weights are missing, damaged or of another shape
├── SettingsError   a setting has no sense
└── StackError      the embedded stack is missing, already there, or does not start

An error is a stable code, one sentence, and what to do about it. Codes are part of the interface: scripts match on
them, `docs/errors.md` lists them, and a test holds that list to `CODES`.
"""

from __future__ import annotations

CODES: dict[str, str] = {
    "media.missing": "The path does not exist or cannot be read.",
    "media.empty": "The file has no bytes.",
    "media.not_media": "The bytes are not those of a known video container.",
    "media.forbidden_format": "The file is a playlist or a script that would make the decoder open other files.",
    "media.unreadable": "The container is damaged: it does not open, or its index is missing.",
    "media.no_video": "There is no video track (audio only, or cover art only).",
    "media.no_frames": "There is a video track, and not one picture could be decoded from it.",
    "media.zero_duration": "The video lasts 0 seconds.",
    "media.encrypted": "The video is encrypted (DRM).",
    "media.too_large": "The file has more bytes than `limits.bytes`.",
    "media.too_long": "The video is longer than `limits.seconds`.",
    "media.too_many_pixels": "A picture has more pixels than `limits.pixels`.",
    "media.too_many_frames": "The video has more pictures than `limits.frames`.",
    "media.too_many_streams": "The container has more streams than `limits.streams`.",
    "media.too_many_packets": "A track has more packets than `limits.packets`.",
    "media.sound_out_of_range": "The sound has more than `limits.audio_rate_hz` or `limits.audio_channels`.",
    "media.too_slow": "Probing or decoding took longer than it may.",
    "media.decoder_crashed": "The decoder crashed on this file.",
    "caption.missing": "The caption file does not exist or cannot be read.",
    "caption.unreadable": "The caption file is neither SubRip, WebVTT nor ASS, or is too large.",
    "metadata.invalid": "Title, tags, region, language or another field is malformed.",
    "video.unknown": "No video has this id, or the prefix names more than one.",
    "video.not_ready": "What was asked for of this video is not made yet.",
    "video.cancelled": "An administrator cancelled the video; `reelsense videos retry` takes that back.",
    "video.quarantined": "An administrator set the video aside: nothing of it is processed or served.",
    "queue.unknown": "No queue or stage has this name.",
    "queue.busy": "A stage of the queue runs right now, so it is not purged.",
    "worker.unknown": "No worker has this name.",
    "user.unknown": "No event and no pick of this user is known.",
    "event.invalid": "The event's kind, time or watched seconds make no sense.",
    "event.forgotten": "The event lies before its viewer was forgotten (`reelsense forget`), and is not taken.",
    "event.batch_invalid": "A batch of events is no JSON array or JSON Lines, or has too many lines.",
    "event.file_unreadable": "A file of events is damaged, of another format, or lacks a column it must have.",
    "recall.late": "A source of recall did not answer in time; the feed was made without it.",
    "recall.failed": "A source of recall failed unexpectedly; the feed was made without it, and the log says why.",
    "recall.busy": "A source of recall still works on earlier requests, so it was not asked.",
    "request.invalid": "An argument is out of its range.",
    "request.unknown_address": "There is nothing at this address.",
    "request.method": "The address does not know this method.",
    "request.too_many": "The caller sends more requests than it may; the answer says when to come back.",
    "request.key_reused": "The Idempotency-Key was sent with another request before.",
    "request.in_progress": "A request with the same Idempotency-Key is being answered right now.",
    "request.range": "The byte range that was asked for lies outside the video.",
    "request.too_many_streams": "As many live streams are open as may be; the answer says when to come back.",
    "access.key_missing": "The request carries no API key, and keys exist or the API listens beyond this machine.",
    "access.key_invalid": "The API key is malformed, not known, or revoked.",
    "access.key_expired": "The API key's time is over.",
    "access.scope_missing": "The API key does not have the scope that this request needs.",
    "access.key_unknown": "No API key has this id.",
    "request.host_unknown": "The Host header does not name this API (that of a page which rebinds its DNS name).",
    "request.cross_site": "A page of another site sent a request that would change something.",
    "request.too_large": "The request's body is larger than requests of this kind may be.",
    "request.too_slow": "The request's body came too slowly or not at all.",
    "upload.unknown": "No upload has this id, it expired, or it belongs to another key.",
    "upload.malformed": "A header or a part of the upload is missing or makes no sense.",
    "upload.version": "The Tus-Resumable header is missing or names another version than 1.0.0.",
    "upload.offset_mismatch": "The piece does not begin where the upload stands.",
    "upload.checksum_mismatch": "The piece's bytes do not have the checksum that came with them.",
    "upload.busy": "Another request is writing to this upload, or it is being taken in.",
    "upload.finished": "The upload has ended and cannot be changed any more.",
    "intake.too_many_uploads": "As many uploads are in progress as may be; the answer says when to come back.",
    "intake.too_many_bytes": "Uploads under way hold as many bytes as they may; the answer says when to come back.",
    "intake.queue_full": "As many videos wait to be processed as may; the answer says when to come back.",
    "intake.disk_full": "The disk would have less room than `intake.free_bytes` with this upload.",
    "store.unavailable": "The object store does not answer.",
    "store.missing": "The object store has no such object.",
    "store.key_invalid": "The key is empty, absolute, too long, or climbs out of the store.",
    "store.artifact_damaged": "A stored artifact cannot be read back.",
    "database.unavailable": "The catalogue database does not answer.",
    "broker.unavailable": "The message broker does not answer.",
    "notification.refused": "A bucket notification came without the secret that was agreed on.",
    "notification.invalid": "A bucket notification is malformed, too large, or of another bucket.",
    "upload.incomplete": "A direct upload was called complete, and nothing has arrived.",
    "upload.not_presigned": "This object store cannot hand out addresses for direct upload.",
    "model.missing": "The package that carries these weights is not installed.",
    "model.damaged": "The weights' digest is not the one in the model catalogue.",
    "model.unknown": "No encoder or model set has this name.",
    "topics.too_few_videos": "The catalogue has too few videos with words to find topics in.",
    "fusion.no_tokens": "Not one usable modality is left to fuse.",
    "fusion.not_finite": "An embedding holds NaN or infinite numbers.",
    "fusion.bad_checkpoint": "A trained fusion is of another shape, or does not give the vectors it is stored with.",
    "fusion.too_few_videos": "The catalogue holds too few videos to train a fusion on.",
    "fusion.training_failed": "Training a fusion gave numbers that are not finite.",
    "fusion.interrupted": "Training a fusion was stopped before its end; it goes on from its checkpoint.",
    "ranker.no_such_model": "No ranking model has that name.",
    "ranker.too_few_events": "There are too few events (or of one kind only) to learn from.",
    "ranker.not_finite": "Features, or what was learnt from them, are not finite numbers.",
    "ranker.training_failed": "Training a ranking model went wrong; the reason says how.",
    "ranker.bad_model": "A stored ranking model is of another version of this program, or its parts do not fit.",
    "ranker.not_better": "A trained ranker is not better than the one that is served, so it does not take its place.",
    "ranker.bad_checkpoint": "A checkpoint is of another run, or cannot be read.",
    "settings.invalid": "A setting is unknown or out of its range.",
    "ranker.invalid": "The ranker's file is no TOML, or a field of it is unknown or out of its range.",
    "workers.none": "No worker has been heard of in the last minute.",
    "stack.not_running": "No stack runs on this data directory.",
    "stack.already_running": "A stack already runs on this data directory.",
    "stack.start_failed": "A part of the embedded stack did not start.",
    "stage.gave_up": "The stage killed its worker or failed too many times and was set aside.",
    "stage.timeout": "The stage took longer than it may.",
    "dead.unknown": "No dead letter has this id, or the prefix names more than one.",
    "stage.cancelled": "The queue of the stage was purged; `reelsense queue restore` takes that back.",
    "wait.timeout": "The videos were not ready in the time given.",
    "filter.invalid": "A filter of videos is not understood; the message shows where.",
    "job.unknown": "No job has this id, or the prefix names more than one.",
    "job.nothing_to_do": "Nothing would change: every version is the one that is served.",
    "job.overlaps": "An open re-embedding job covers some of the same videos and stages.",
    "job.wrong_state": "The job is not in a state in which this can be done.",
    "job.incomplete": "Some videos are without a vector in the version that is to be served.",
    "job.canary_failed": "The sample that was re-embedded first is worse than what is served; the job has stopped.",
    "job.unsafe": "Collecting garbage could take away what is served.",
    "stage.unknown": "No stage has this name.",
    "engine.missing": "The package of the engine that was asked for is not installed.",
    "internal": "An error nobody expected; the worker's log has the traceback.",
}


class ReelsenseError(Exception):
    """An error with a stable `code` of `CODES`, one sentence (`message`), and what to do (`hint`, may be empty)."""

    def __init__(self, code: str, message: str, *, hint: str = "") -> None:
        if code not in CODES:
            raise AssertionError(f"error code {code!r} is not declared in store/errors.py")
        super().__init__(message)
        self.code = code
        self.message = message
        self.hint = hint

    def __reduce__(self) -> tuple[object, ...]:
        """Rebuild with its code, so that an error survives the way out of a child process."""
        return (_rebuild, (type(self), self.code, self.message, self.hint))


def _rebuild(kind: type[ReelsenseError], code: str, message: str, hint: str) -> ReelsenseError:
    return kind(code, message, hint=hint)


class InputError(ReelsenseError):
    """The caller's input is at fault."""


class MediaError(InputError):
    """An upload that cannot be a video here."""


class NotFoundError(InputError):
    """An id that names nothing."""


class PassingError(ReelsenseError):
    """The surroundings are at fault; trying again may help."""


class ModelError(ReelsenseError):
    """Weights are missing, damaged or of another shape."""


class SettingsError(ReelsenseError):
    """A setting has no sense."""


class StackError(ReelsenseError):
    """The embedded stack is missing, already there, or does not start."""
