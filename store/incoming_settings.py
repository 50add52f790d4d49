"""Settings of the intake from object storage and from a folder. See docs/incoming.md."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator

OURS = ("artifacts/", "models/", "quarantine/", "sources/")


class IncomingSettings(BaseModel):
    """What is picked up by itself, from where, and how one is told of it."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    prefix: str = Field(
        "incoming/",
        pattern=r"^([A-Za-z0-9][A-Za-z0-9._-]{0,199}/)+$",
        description="Objects below this prefix are picked up.",
    )
    keep: bool = Field(False, description="Leave objects and files where they are after they have been taken in.")
    poll_seconds: float = Field(15.0, ge=0, description="Time between two looks for new objects; 0: never.")
    settle_seconds: float = Field(
        2.0, ge=0, description="How long a file must have been still: a directory store, the watched folder."
    )
    notification_secret: SecretStr = Field(
        SecretStr(""), description="What bucket notifications by webhook must carry. Empty: none are taken."
    )
    queue_url: str = Field("", description="Broker of bucket notifications (amqp:// or redis://). Empty: none.")
    queue: str = Field("reelsense-incoming", min_length=1, description="Queue, or Redis list, they wait in.")
    watched_folder: str = Field("", description="Folder whose files are picked up. Empty: none.")
    presigned_seconds: int = Field(900, ge=1, le=604_800, description="How long a presigned address may be used.")
    presigned_keep_seconds: int = Field(
        86_400, ge=1, description="When a direct upload that was never completed is removed."
    )
    presigned_endpoint: str = Field(
        "", description="URL under which uploaders reach the S3 server. Empty: s3_endpoint."
    )

    @field_validator("prefix")
    @classmethod
    def _not_ours(cls, value: str) -> str:
        if value.startswith(OURS):
            raise ValueError("this prefix holds what ReelSense itself stores")
        return value
