"""Settings: one typed record, filled from the command line, `REELSENSE_*` variables, a TOML file, then defaults.

The TOML file is the one named by `REELSENSE_CONFIG`, else `reelsense.toml` in the data directory. Nested settings are
written `REELSENSE_LIMITS__BYTES=1000000`, or in TOML as `[limits]` and `bytes = 1000000`.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import platformdirs
from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from store.errors import SettingsError
from store.incoming_settings import IncomingSettings

PREFIX = "REELSENSE_"
CONFIG_VARIABLE = "REELSENSE_CONFIG"
_PASSWORD = re.compile(r"(://[^/@:]*:)[^/@]*@")


class Limits(BaseModel):
    """What an upload may be at the most, checked before and while it is decoded."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    bytes: int = Field(512 * 2**20, gt=0, description="Largest upload, in bytes.")
    seconds: float = Field(600.0, gt=0, description="Longest video, in seconds.")
    pixels: int = Field(4096 * 2304, gt=0, description="Most pixels in one picture.")
    frames: int = Field(72_000, gt=0, description="Most pictures in one video.")
    streams: int = Field(32, gt=0, description="Most streams in one container.")
    packets: int = Field(1_000_000, gt=0, description="Most packets in one track.")
    audio_rate_hz: int = Field(384_000, gt=0, description="Highest rate of a sound track, in samples a second.")
    audio_channels: int = Field(32, gt=0, description="Most channels of a sound track.")
    caption_bytes: int = Field(2 * 2**20, gt=0, description="Largest caption file or embedded track, in bytes.")
    probe_seconds: float = Field(20.0, gt=0, description="Longest time to probe one upload, in seconds.")
    probe_cpu_seconds: float = Field(20.0, gt=0, description="Most CPU time to probe one upload, in seconds.")
    probe_files: int = Field(64, ge=16, description="Most files that the probing child may hold open.")
    memory_bytes: int = Field(2 * 2**30, gt=0, description="Address space of the probing child, in bytes.")
    attempts: int = Field(3, ge=1, le=100, description="Tries of one stage before it goes to the dead letters.")
    stage_seconds: float = Field(900.0, gt=0, description="Hard limit on one stage of one video, in seconds.")


class Intake(BaseModel):
    """What the HTTP intake takes at once, and how long it waits: beyond it answers 429, or 507 for the disk."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    uploads: int = Field(64, gt=0, description="Most uploads in progress, of all users together.")
    user_uploads: int = Field(16, gt=0, description="Most uploads in progress of one user (one API key).")
    bytes: int = Field(
        16 * 2**30, gt=0, description="Most bytes of uploads that are under way and not yet taken in, as announced."
    )
    user_bytes: int = Field(4 * 2**30, gt=0, description="The same of one user.")
    waiting: int = Field(1000, gt=0, description="Most videos waiting or in processing before no more are taken.")
    user_waiting: int = Field(500, gt=0, description="The same of one user.")
    free_bytes: int = Field(2 * 2**30, ge=0, description="Disk space that uploads leave free.")
    quarantine_bytes: int = Field(
        2**30, ge=0, description="Bytes of refused uploads kept for inspection; the oldest go first."
    )
    expiry_seconds: float = Field(86_400.0, gt=0, description="Silence after which an unfinished upload is dropped.")
    kept_seconds: float = Field(604_800.0, gt=0, description="How long an upload's result can be read.")
    silence_seconds: float = Field(30.0, gt=0, description="Longest silence inside a request's body.")
    least_rate: int = Field(
        1000, ge=0, description="Least bytes a second of a request's body, averaged after the first `silence_seconds`."
    )
    request_bytes: int = Field(2**20, gt=0, description="Largest body of a request that is no upload.")
    at_once: int = Field(
        2, ge=1, le=64, description="Finished uploads that one API process checks and stores at a time."
    )
    retry_seconds: int = Field(10, ge=1, description="What a refused client is told to wait at the least.")


class Rates(BaseModel):
    """How many requests a caller (a key, or an address without one) may send in a minute; 0: as many as it likes."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    reads: int = Field(12_000, ge=0, description="Most reads of the API a minute of one caller; 0: no limit.")
    writes: int = Field(6_000, ge=0, description="Most other requests a minute of one caller; 0: no limit.")
    refused: int = Field(60, ge=0, description="Most refused keys a minute from one address; 0: no limit.")


class EncoderChoice(BaseModel):
    """Encoders by name, each in place of the one that the model set takes. Empty: the model set's own."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    vision: str = Field("", description="Encoder of frames.")
    objects: str = Field("", description="Detector of objects in frames.")
    appearance: str = Field("", description="What reads colours, light and sharpness off frames.")
    faces: str = Field("", description="What counts faces.")
    screen: str = Field("", description="What reads words in the picture.")
    audio: str = Field("", description="Encoder of sound.")
    speech: str = Field("", description="What transcribes speech.")
    speakers: str = Field("", description="What tells speakers apart.")
    text: str = Field("", description="Encoder of sentences.")


class Reembedding(BaseModel):
    """How re-embedding jobs run, and how good what they make must be beside what is served (docs/reembedding.md)."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    concurrency: int = Field(16, ge=1, le=10_000, description="Videos of a re-embedding job under way at once.")
    starve_seconds: float = Field(60.0, ge=0, description="Wait behind uploads after which a job may begin one run.")
    canary_videos: int = Field(20, ge=1, le=1000, description="Videos that a job makes first, to be compared.")
    validation_videos: int = Field(200, ge=1, le=5000, description="Videos that are compared when a job is complete.")
    most_failed: float = Field(0.1, ge=0, le=1, description="Largest share of compared videos that may newly fail.")
    least_neighbours: float = Field(
        0.1, ge=-1, le=1, description="Least share of nearest neighbours kept; 0 is chance, 1 is all of them."
    )
    least_same_video: float = Field(
        0.75, ge=0, le=1, description="Least recall of a video's halves by each other, as a share of the served one's."
    )
    least_spread: float = Field(
        0.1, ge=0, le=1, description="Least spread of the vectors, as a share of the served ones' spread."
    )


class Settings(BaseSettings):
    """All settings. See `reelsense settings` for their values and where each came from."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        env_nested_delimiter="__",
        extra="forbid",
        frozen=True,
        nested_model_default_partial_update=True,
    )

    data: Path = Field(
        default_factory=lambda: platformdirs.user_data_path("reelsense"),
        description="Directory that holds everything of one installation.",
    )
    cache: Path = Field(
        default_factory=lambda: platformdirs.user_cache_path("reelsense"),
        description="Directory for what can be made again: unpacked model weights, demo clips.",
    )
    objects: str = Field("", description="Object storage: a directory, or s3://BUCKET. Empty: DATA/objects.")
    database: str = Field("", description="Catalogue database as an SQLAlchemy URL. Empty: SQLite in DATA.")
    broker: str = Field(
        "", description="Broker URL (redis:// or amqp://). Empty: the embedded Valkey of `reelsense up`."
    )
    s3_endpoint: str = Field("", description="URL of the S3 server, such as http://127.0.0.1:8333.")
    s3_region: str = Field("us-east-1", description="Region name sent to the S3 server.")
    s3_access_key: str = Field("", description="S3 access key.")
    s3_secret_key: SecretStr = Field(SecretStr(""), description="S3 secret key.")
    model_set: str = Field("starter", description="Which encoders and fusion read a video.")
    speech_runtime: Literal["ctranslate2", "openai-whisper"] = Field(
        "ctranslate2", description="What runs Whisper. Both hold the same weights; ctranslate2 is the faster."
    )
    music: Literal["librosa", "vibenet"] = Field(
        "librosa", description="What reads the mood of music. vibenet needs the GPL-3 extra of that name."
    )
    encoders: EncoderChoice = Field(default_factory=EncoderChoice)
    options: dict[str, dict[str, Any]] = Field(
        default_factory=dict, description="Options of encoders by name, such as [options.siglip2-base] model = DIR."
    )
    device: str = Field("auto", description="Where models run that can choose: auto, cpu, cuda, cuda:1, mps.")
    precision: Literal["float32", "float16", "bfloat16"] = Field(
        "float32", description="Arithmetic of models that can choose."
    )
    batch_videos: int = Field(1, ge=1, le=256, description="Videos whose frames are encoded at once, if many wait.")
    frame_strategy: Literal["shots", "uniform", "fps", "keyframes"] = Field(
        "shots", description="Which frames are kept."
    )
    frames: int = Field(24, ge=1, le=512, description="Most frames kept of a video.")
    caption_languages: str = Field(
        "", description="Languages of captions to read, best first, such as en,de. Empty: the video's own."
    )
    workers: int = Field(2, ge=1, le=256, description="Worker processes that `reelsense up` starts.")
    threads: int = Field(1, ge=1, le=256, description="Threads of each worker's arithmetic.")
    host: str = Field("127.0.0.1", description="Address the HTTP API listens on.")
    port: int = Field(8787, ge=0, le=65535, description="Port of the HTTP API; 0 takes a free one.")
    trusted_network: bool = Field(
        False, description="Let the API listen beyond loopback without keys: only where nobody else can reach it."
    )
    api_hosts: str = Field(
        "", description="Host names the API answers to, such as api.example,10.0.0.5. Empty: any, on loopback its own."
    )
    lease_seconds: float = Field(30.0, gt=0, description="Silence after which a running stage counts as abandoned.")
    sweep_seconds: float = Field(10.0, gt=0, description="Time between two reconciling sweeps.")
    visibility_seconds: int = Field(3600, gt=0, description="Redis brokers: when an unacknowledged task comes back.")
    log: Literal["json", "console"] = Field("json", description="Log lines: JSON, one an event, or text for people.")
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="Least level that is logged.")
    traces: str = Field(
        "", description="Where OpenTelemetry traces go: URL of an OTLP/HTTP collector, or a file. Empty: nowhere."
    )
    incoming: IncomingSettings = Field(default_factory=IncomingSettings)
    history_days: float = Field(14.0, gt=0, description="How long the timelines of videos and past rates are kept.")
    event_retention_days: float = Field(
        0.0, ge=0, description="How long events of viewers are kept, in days; 0 keeps them for ever."
    )
    limits: Limits = Field(default_factory=Limits)
    intake: Intake = Field(default_factory=Intake)
    rates: Rates = Field(default_factory=Rates)
    reembed: Reembedding = Field(default_factory=Reembedding)

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Command line, then environment, then TOML."""
        return init_settings, env_settings, TomlConfigSettingsSource(settings_cls)

    def objects_directory(self) -> Path:
        """Where local objects lie."""
        return Path(self.objects) if self.objects else self.data / "objects"

    def database_url(self) -> str:
        """SQLAlchemy URL of the catalogue."""
        return self.database or f"sqlite:///{self.data / 'catalogue.sqlite3'}"

    def environment(self) -> dict[str, str]:
        """`REELSENSE_*` variables that make a child process load these same settings. Holds secrets: never print it."""
        variables: dict[str, str] = {CONFIG_VARIABLE: os.devnull}
        for name, value in _flat(self):
            plain = value.get_secret_value() if isinstance(value, SecretStr) else value
            text = json.dumps(plain) if isinstance(plain, dict) else str(plain)
            variables[PREFIX + name.replace(".", "__").upper()] = text
        return variables


_NESTED: Mapping[str, type[BaseModel]] = {
    "encoders": EncoderChoice,
    "incoming": IncomingSettings,
    "limits": Limits,
    "intake": Intake,
    "rates": Rates,
    "reembed": Reembedding,
}


def load_settings(**flags: Any) -> Settings:
    """Settings from `flags` (those not None), the environment, and the TOML file. Raises `settings.invalid`."""
    given = {name: value for name, value in flags.items() if value is not None}
    if "data" in given:
        given["data"] = Path(given["data"]).absolute()
    file = _config_file(given)

    class Loaded(Settings):
        model_config = SettingsConfigDict(toml_file=file)

    try:
        loaded = Loaded(**given)
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(str(part) for part in first["loc"])
        raise SettingsError(
            "settings.invalid",
            f"The setting {name or '?'} is not valid: {first['msg']}.",
            hint="`reelsense settings` lists every setting; see docs/settings.md.",
        ) from None  # the chain would print the value, which may be a secret
    except (ValueError, OSError) as error:
        raise SettingsError("settings.invalid", f"The settings cannot be read from {file}: {error}.") from None
    unknown = sorted(_unknown_variables())
    if unknown:
        raise SettingsError(
            "settings.invalid", f"There is no setting {unknown[0]}.", hint="`reelsense settings` lists them."
        )
    return loaded.model_copy(update={"data": loaded.data.absolute(), "cache": loaded.cache.absolute()})


def origins(settings: Settings, **flags: Any) -> list[tuple[str, str, str, str]]:
    """(name, value as text with secrets hidden, origin, description) of every setting, in the order of declaration."""
    given = {name for name, value in flags.items() if value is not None}
    file = _config_file({name: value for name, value in flags.items() if value is not None})
    toml = _toml_names(file)
    rows = []
    for name, value in _flat(settings):
        variable = PREFIX + name.replace(".", "__").upper()
        if name in given:
            origin = "command line"
        elif variable in os.environ:
            origin = variable
        elif name in toml:
            origin = str(file)
        else:
            origin = "default"
        text = json.dumps(value) if isinstance(value, dict) else str(value)
        rows.append((name, _PASSWORD.sub(r"\1***@", text), origin, _description(name)))
    return rows


def _config_file(given: dict[str, Any]) -> Path:
    if CONFIG_VARIABLE in os.environ:
        return Path(os.environ[CONFIG_VARIABLE])
    data = given.get("data") or os.environ.get(PREFIX + "DATA") or platformdirs.user_data_path("reelsense")
    return Path(data) / "reelsense.toml"


def _flat(settings: Settings) -> list[tuple[str, Any]]:
    rows: list[tuple[str, Any]] = []
    for name in Settings.model_fields:
        value = getattr(settings, name)
        if name in _NESTED:
            rows.extend((f"{name}.{inner}", getattr(value, inner)) for inner in _NESTED[name].model_fields)
        else:
            rows.append((name, value))
    return rows


def _description(name: str) -> str:
    outer, _, inner = name.partition(".")
    field = _NESTED[outer].model_fields[inner] if inner else Settings.model_fields[outer]
    return field.description or ""


def _toml_names(file: Path) -> set[str]:
    import tomllib

    if not file.is_file():
        return set()
    content = tomllib.loads(file.read_text())
    names = {name for name in content if name not in _NESTED}
    return names | {f"{outer}.{inner}" for outer in _NESTED for inner in content.get(outer, {})}


def _unknown_variables() -> set[str]:
    known = {PREFIX + name.upper() for name in Settings.model_fields} | {CONFIG_VARIABLE}
    for outer, model in _NESTED.items():
        known |= {f"{PREFIX}{outer.upper()}__{inner.upper()}" for inner in model.model_fields}
    return {name for name in os.environ if name.startswith(PREFIX) and name not in known}
