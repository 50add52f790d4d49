"""What the ranker is after, in one file that is read again when it changes: named weights for the viewer's, the
creators' and the platform's value, the weights of all terms, diversity, rules of the feed, and safety.

The file is `ranker.toml` in the data directory; every field has a default, so it needs only hold what differs, and
without the file the defaults rule. A file that makes no sense is not taken: the last good one stays in force, the log
says so once, and `reelsense ranker show` until it is mended. Of the last good one a copy is kept beside the file, so
that every process means the same by it, one that starts on a bad file too.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import threading
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from ranker.diversity import DiversityConfig
from ranker.feed_rules import FeedRules, Safety
from ranker.found import QUOTAS
from ranker.scoring import OBJECTIVES, SOURCE_OBJECTIVES, TERMS, RankerConfig, completed
from ranker.section import Section
from store.errors import ReelsenseError, SettingsError

FILE_NAME = "ranker.toml"
GOOD_SUFFIX = ".last-good"
MOST_BYTES = 2**20

_log = logging.getLogger(__name__)


class Objectives(Section):
    """How much the value of each side counts: its terms are multiplied by it."""

    viewer: float = Field(
        1.0, ge=0, le=100, allow_inf_nan=False, description="What this viewer likes, speaks and refused."
    )
    creator: float = Field(
        1.0, ge=0, le=100, allow_inf_nan=False, description="Small creators and videos nobody knows yet."
    )
    platform: float = Field(1.0, ge=0, le=100, allow_inf_nan=False, description="Freshness, and what is popular.")


class Recall(Section):
    """How many candidates each source of recall may bring, and how long all of them may take."""

    seconds: float = Field(0.15, gt=0, le=10, allow_inf_nan=False, description="Whoever is later is left out.")
    quotas: dict[str, Annotated[int, Field(ge=0, le=10_000)]] = Field(
        default_factory=lambda: dict(QUOTAS), description="Candidates by source; 0: it is not asked."
    )

    @field_validator("quotas")
    @classmethod
    def _all_sources(cls, given: dict[str, int]) -> dict[str, int]:
        return completed(given, QUOTAS)


class Ranking(BaseModel):
    """The whole file."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    objectives: Objectives = Field(default_factory=Objectives)
    weights: RankerConfig = Field(default_factory=lambda: RankerConfig())
    diversity: DiversityConfig = Field(default_factory=DiversityConfig)
    recall: Recall = Field(default_factory=Recall)
    rules: FeedRules = Field(default_factory=FeedRules)
    safety: Safety = Field(default_factory=Safety)

    def weighted(self) -> RankerConfig:
        """The weights of all terms, each times that of its objective: every term is linear in its weight."""
        values = self.objectives.model_dump()
        changed: dict[str, Any] = {
            name: getattr(self.weights, name) * values[OBJECTIVES.get(name, "viewer")]
            for name in TERMS
            if name not in ("diversity", "rules")
        }
        changed["sources"] = {
            name: weight * values[SOURCE_OBJECTIVES.get(name, "viewer")]
            for name, weight in self.weights.sources.items()
        }
        return self.weights.model_copy(update=changed)


def parse(content: bytes) -> Ranking:
    """The file's content, checked. Raises `ranker.invalid`, naming the field."""
    try:
        document = tomllib.loads(content.decode())
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise _invalid(f"it is no TOML in UTF-8 ({error})") from None
    try:
        return Ranking.model_validate(document)
    except ValidationError as error:
        first = error.errors()[0]
        raise _invalid(
            f"{'.'.join(str(part) for part in first['loc'])}: {first['msg'].removeprefix('Value error, ')}"
        ) from None


def read(path: Path) -> Ranking:
    """The ranking that a file names. Raises `ranker.invalid`."""
    return parse(_content(path))


def _content(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            content = file.read(MOST_BYTES + 1)
    except OSError as error:
        raise _invalid(f"{path.name} cannot be read ({error.strerror})") from None
    if len(content) > MOST_BYTES:
        raise _invalid(f"it has more than {MOST_BYTES} bytes")
    return content


def _invalid(what: str) -> SettingsError:
    return SettingsError(
        "ranker.invalid",
        f"The ranker's file makes no sense: {what}.",
        hint="`reelsense ranker check FILE` tries a file; `reelsense ranker show` prints what is in force.",
    )


@dataclass(frozen=True)
class Status:
    """What is in force: the `digest` of the file it came from (empty: the defaults), and what is wrong with the file as
    it stands now, if anything: then `digest` is that of the last good one."""

    ranking: Ranking
    digest: str
    problem: ReelsenseError | None


class RankerFile:
    """The ranker's file as it stands, read again when its time, size or place on disk change."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.good = path.with_name(path.name + GOOD_SUFFIX)
        self._lock = threading.Lock()
        self._seen: tuple[int, int, int] | None = None
        self._looked = False
        self._copied = True
        self._status = Status(Ranking(), "", None)

    def current(self) -> Ranking:
        """What is in force now. Never fails: a file that makes no sense leaves the last good one."""
        return self.status().ranking

    def status(self) -> Status:
        """What is in force now, and whether the file as it stands is."""
        with self._lock:
            stamp = self._stamp()
            if stamp != self._seen or not self._looked:
                self._seen, self._looked = stamp, True
                self._status = self._follow(stamp)
            return self._status

    def _stamp(self) -> tuple[int, int, int] | None:
        try:
            found = self.path.stat()
        except OSError:
            return None
        return found.st_mtime_ns, found.st_size, found.st_ino

    def _follow(self, stamp: tuple[int, int, int] | None) -> Status:
        if stamp is None:
            self._copy(None)
            return Status(Ranking(), "", None)
        try:
            content = _content(self.path)
            ranking = parse(content)
        except ReelsenseError as problem:
            _log.warning("%s The last good one stays in force.", problem.message, extra={"code": problem.code})
            last = self._last_good()
            return Status(last.ranking, last.digest, problem)
        self._copy(content)
        digest = _digest(content)
        _log.info("ranker file %s is in force", digest)
        return Status(ranking, digest, None)

    def _last_good(self) -> Status:
        """The last good file that any process read; what this one had where there is no copy of it."""
        if not self._copied or not self.good.exists():
            return self._status
        try:
            content = _content(self.good)
            return Status(parse(content), _digest(content), None)
        except ReelsenseError as problem:
            # Of an older version, or meddled with.
            _log.warning("%s: %s", self.good.name, problem.message, extra={"code": problem.code})
            return self._status

    def _copy(self, content: bytes | None) -> None:
        """Keep the content as the last good one; None: there is no file, and the defaults rule."""
        try:
            if content is None:
                self.good.unlink(missing_ok=True)
            elif not self.good.exists() or self.good.read_bytes() != content:
                aside = self.good.with_name(f"{self.good.name}.{os.getpid()}.aside")
                aside.write_bytes(content)
                aside.replace(self.good)
            self._copied = True
        except OSError as error:
            # A data directory that may only be read: each process then has its own last good one.
            self._copied = False
            _log.warning("the last good ranker file is not kept: %s", error.strerror)


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]


def render(ranking: Ranking) -> str:
    """The whole ranking as TOML, with what each field means: a file to begin from."""
    lines = ["# The ranker's weights and rules. Every field may be left out. See docs/feed.md."]
    for name in type(ranking).model_fields:
        lines += ["", f"[{name}]", *_table(getattr(ranking, name), name)]
    return "\n".join(lines) + "\n"


def _table(section: BaseModel, name: str) -> list[str]:
    lines, below = [], []
    for key, about in type(section).model_fields.items():
        value = getattr(section, key)
        if isinstance(value, dict):
            below += ["", f"# {about.description}", f"[{name}.{key}]"]
            below += [f"{json.dumps(inner)} = {json.dumps(number)}" for inner, number in value.items()]
            continue
        said = f"  # {about.description}" if about.description else ""
        lines.append(f"{key} = {json.dumps(value, ensure_ascii=False)}{said}")
    return lines + below
