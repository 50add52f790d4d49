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
    "media.too_slow": "Probing or decoding took longer than it may.",
    "media.decoder_crashed": "The decoder crashed on this file.",
    "caption.missing": "The caption file does not exist or cannot be read.",
    "caption.unreadable": "The caption file is neither SubRip, WebVTT nor ASS, or is too large.",
    "metadata.invalid": "Title, tags, region, language or another field is malformed.",
    "video.unknown": "No video has this id, or the prefix names more than one.",
    "user.unknown": "No event of this user is known.",
    "event.invalid": "The event's kind, time or watched seconds make no sense.",
    "request.invalid": "An argument is out of its range.",
    "store.unavailable": "The object store does not answer.",
    "store.missing": "The object store has no such object.",
    "store.key_invalid": "The key is empty, absolute, too long, or climbs out of the store.",
    "store.artifact_damaged": "A stored artifact cannot be read back.",
    "database.unavailable": "The catalogue database does not answer.",
    "broker.unavailable": "The message broker does not answer.",
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
    "settings.invalid": "A setting is unknown or out of its range.",
    "stack.not_running": "No stack runs on this data directory.",
    "stack.already_running": "A stack already runs on this data directory.",
    "stack.start_failed": "A part of the embedded stack did not start.",
    "stage.gave_up": "The stage killed its worker or failed too many times and was set aside.",
    "stage.timeout": "The stage took longer than its hard limit.",
    "wait.timeout": "The videos were not ready in the time given.",
    "filter.invalid": "A filter of videos is not understood; the message shows where.",
    "job.unknown": "No re-embedding job has this id, or the prefix names more than one.",
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
