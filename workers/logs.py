"""Log lines of every process: one an event, as JSON (`REELSENSE_LOG=json`) or for people (`console`), on stderr.

A line carries what its process and its work bind: `service` and `worker`; `task`, `video`, `stage`, `version` and
`attempt` while a stage runs; `request` while the API answers; `upload` while an upload is taken in. What libraries
say through `logging` is written the same way. Secrets of the settings, passwords in URLs and API keys are struck out of
every line, tracebacks included, before anything else sees it: the run log that a dead letter keeps, too.
"""

from __future__ import annotations

import contextlib
import logging
import re
import sys
from collections.abc import MutableMapping
from typing import Any, TextIO, cast

import structlog
from pydantic import SecretStr

from store.settings import Settings

HIDDEN = "***"
# Shorter ones would strike out innocent words.
SHORTEST_SECRET = 4
_IN_URL = re.compile(r"(://[^/@\s:]*:)[^/@\s]+@")
_API_KEY = re.compile(r"rsk_([0-9a-f]{12})_[A-Za-z0-9_-]{43}")
_BEARER = re.compile(r"(?i)\b(bearer\s+)(?!rsk_)[A-Za-z0-9._~+/=-]{8,}")


class _Stderr:
    """Stderr that loses a line rather than a stage: it may be a file on a full disk."""

    def __init__(self) -> None:
        self.stream = sys.stderr  # the real one: Celery puts something else in its place later

    def write(self, text: str) -> None:
        """Write, if it can be written."""
        with contextlib.suppress(OSError):
            self.stream.write(text)

    def flush(self) -> None:
        """Flush, if it can be flushed."""
        with contextlib.suppress(OSError):
            self.stream.flush()


class HideSecrets:
    """A structlog processor that strikes secrets out of every text of a line, however deep."""

    def __init__(self, secrets: tuple[str, ...]) -> None:
        # The longest first: one secret may be a part of another.
        self.secrets = sorted({item for item in secrets if len(item) >= SHORTEST_SECRET}, key=len, reverse=True)

    def __call__(self, _logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        """The line without secrets."""
        return {name: self._hidden(value) for name, value in event.items()}

    def _hidden(self, value: Any) -> Any:
        if isinstance(value, SecretStr):
            return HIDDEN
        if isinstance(value, str):
            for secret in self.secrets:
                value = value.replace(secret, HIDDEN)
            value = _API_KEY.sub(rf"rsk_\1_{HIDDEN}", _IN_URL.sub(rf"\1{HIDDEN}@", value))
            return _BEARER.sub(rf"\1{HIDDEN}", value)
        if isinstance(value, dict):
            return {name: self._hidden(inner) for name, inner in value.items()}
        if isinstance(value, list | tuple):
            return [self._hidden(inner) for inner in value]
        if value is None or isinstance(value, bool | int | float):
            return value
        return self._hidden(str(value))


def secrets_of(settings: Settings) -> tuple[str, ...]:
    """Every value of these settings that must not be seen: secrets, and passwords inside URLs."""
    found = [settings.s3_secret_key.get_secret_value()]
    for name in type(settings.incoming).model_fields:
        value = getattr(settings.incoming, name)
        if isinstance(value, SecretStr):
            found.append(value.get_secret_value())
    for url in (settings.broker, settings.database):
        password = re.search(r"://[^/@:]*:([^/@]*)@", url)
        if password:
            found.append(password.group(1))
    return tuple(found)


def configure(settings: Settings | None = None, **bound: str) -> None:
    """Write this process's lines as the settings say; `bound` (service, worker) stands on each of them."""
    from workers import run_log

    level = logging.getLevelName((settings.log_level if settings else "info").upper())
    hide = HideSecrets(secrets_of(settings) if settings else ())
    stream = cast(TextIO, _Stderr())
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        _Bound(bound),
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
        hide,
    ]
    as_console = settings is not None and settings.log == "console"
    last: Any = (
        structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), sort_keys=False)
        if as_console
        else structlog.processors.JSONRenderer(default=str)
    )
    structlog.configure(
        processors=[*shared, run_log.keep_event, last],
        logger_factory=structlog.PrintLoggerFactory(stream),
        wrapper_class=structlog.make_filtering_bound_logger(level),
    )
    handler = logging.StreamHandler(stream)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[
                *shared[:2],
                structlog.stdlib.add_log_level,
                structlog.stdlib.add_logger_name,
                *shared[3:],
            ],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, last],
        )
    )
    root = logging.getLogger()
    root.handlers = [handler, run_log.KeepWarnings(logging.WARNING)]
    # Libraries below a warning say nothing that an operator asked for.
    root.setLevel(max(level, logging.WARNING))


class _Bound:
    """A structlog processor: what this process is."""

    def __init__(self, bound: dict[str, str]) -> None:
        self.bound = bound

    def __call__(self, _logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        """The line with it; what the line says itself stays."""
        for name, value in self.bound.items():
            event.setdefault(name, value)
        return event
