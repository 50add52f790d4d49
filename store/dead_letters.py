"""Dead letters: runs that ended in failure, with all that tells why.

They are a view: a run of the ledger that is `failed` (its input is at fault) or `dead` (given up) is a dead letter
until it is tried again. Beside the ledger lies what a worker notes while it runs, so that it outlives the worker: the
last log lines of the run, and where its code was at the last heartbeat.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Sequence

import sqlalchemy as sa
from pydantic import BaseModel

from store.artifacts import digest
from store.catalogue import Catalogue, Run, RunKey, _create_tables, _insert, runs, tables
from store.errors import NotFoundError

SHORTEST_ID = 4
_KEY = ("video_id", "stage", "version", "revision")

notes = sa.Table(
    "run_notes",
    tables,
    sa.Column("video_id", sa.String(32), primary_key=True),
    sa.Column("stage", sa.String(32), primary_key=True),
    sa.Column("version", sa.String(32), primary_key=True),
    sa.Column("revision", sa.String(16), primary_key=True),
    sa.Column("lines", sa.Text, nullable=False, default="[]"),
    sa.Column("place", sa.Text, nullable=False, default=""),
    sa.Column("dropped_at", sa.Float),
)


class DeadLetter(BaseModel):
    """A run that failed. `id` is 16 hex digits that name the run; `at` seconds since the epoch; `lines` the last log
    lines of its last attempt, oldest first; `place` where the code was at the last heartbeat, for workers that died."""

    id: str
    video_id: str
    stage: str
    version: str
    revision: str
    state: str
    attempts: int
    code: str
    message: str
    traceback: str
    worker: str
    at: float
    lines: list[str]
    place: str

    def key(self) -> RunKey:
        """What names the run."""
        return RunKey(video_id=self.video_id, stage=self.stage, version=self.version, revision=self.revision)


class Notes(BaseModel):
    """What the worker of a run has noted."""

    lines: list[str] = []
    place: str = ""


class DeadLetters:
    """The dead letters of a catalogue. Errors: `database.unavailable`, which may pass."""

    def __init__(self, catalogue: Catalogue) -> None:
        self.catalogue = catalogue
        with catalogue._database():
            _create_tables(catalogue.engine)

    def note(self, keys: Iterable[RunKey], lines: Sequence[str], place: str) -> None:
        """Keep the last log lines of runs that are under way, and where their code is: in place of what was noted."""
        with self.catalogue._begin() as connection:
            for key in keys:
                row = key.model_dump() | {"lines": json.dumps(list(lines)), "place": place}
                insert = _insert(connection, notes).values(row)
                connection.execute(
                    insert.on_conflict_do_update(
                        index_elements=_KEY, set_={"lines": insert.excluded.lines, "place": insert.excluded.place}
                    )
                )

    def noted(self, key: RunKey) -> Notes:
        """What is noted of a run."""
        with self.catalogue._begin() as connection:
            row = connection.execute(sa.select(notes).where(_is(key))).one_or_none()
        return Notes() if row is None else Notes(lines=json.loads(row.lines), place=row.place)

    def clear(self, keys: Iterable[RunKey]) -> None:
        """Forget what is noted of runs."""
        with self.catalogue._begin() as connection:
            for key in keys:
                connection.execute(sa.delete(notes).where(_is(key)))

    def letters(self, stage: str | None = None, code: str | None = None, video: str | None = None) -> list[DeadLetter]:
        """The dead letters of a stage, of an error code, of the videos whose id begins so: the latest first."""
        query = (
            sa.select(runs, notes.c.lines, notes.c.place)
            .select_from(runs.outerjoin(notes, sa.and_(*(runs.c[name] == notes.c[name] for name in _KEY))))
            .where(runs.c.state.in_(["failed", "dead"]))
            # One that was dropped stays out of sight until it is tried again and fails anew.
            .where(sa.or_(notes.c.dropped_at.is_(None), notes.c.dropped_at < runs.c.finished_at))
            .order_by(runs.c.finished_at.desc(), runs.c.video_id, runs.c.stage)
        )
        if stage is not None:
            query = query.where(runs.c.stage == stage)
        if code is not None:
            query = query.where(runs.c.error_code == code)
        if video is not None:
            query = query.where(runs.c.video_id.startswith(video, autoescape=True))
        with self.catalogue._begin() as connection:
            return [_letter(row) for row in connection.execute(query)]

    def letter(self, letter_id: str) -> DeadLetter:
        """The letter whose id is, or begins with, `letter_id` (at least 4 characters). Raises `dead.unknown`."""
        found = [letter for letter in self.letters() if letter.id.startswith(letter_id)]
        if len(letter_id) < SHORTEST_ID or len(found) != 1:
            raise NotFoundError(
                "dead.unknown",
                f"There is no dead letter {letter_id[:64]!r}."
                if len(letter_id) < SHORTEST_ID or not found
                else f"More than one dead letter begins with {letter_id[:64]!r}.",
                hint="`reelsense dead ls` lists them.",
            )
        return found[0]

    def drop(self, dropped: Iterable[DeadLetter]) -> None:
        """Take letters out of sight. The runs stay what they are, so that no sweep tries them again."""
        with self.catalogue._begin() as connection:
            for letter in dropped:
                row = letter.key().model_dump() | {"lines": "[]", "place": "", "dropped_at": time.time()}
                insert = _insert(connection, notes).values(row)
                connection.execute(insert.on_conflict_do_update(index_elements=_KEY, set_=row))


def _is(key: RunKey) -> sa.ColumnElement[bool]:
    return sa.and_(*(notes.c[name] == value for name, value in key.model_dump().items()))


def _letter(row: sa.Row[tuple[object, ...]]) -> DeadLetter:
    found = row._asdict()
    run = Run.model_validate({name: found[name] for name in Run.model_fields})
    key = {name: found[name] for name in _KEY}
    return DeadLetter(
        **key,
        id=digest(key),
        state=run.state,
        attempts=run.attempts,
        code=run.error_code or "internal",
        message=run.error_message or "",
        traceback=run.traceback or "",
        worker=run.worker or "",
        at=run.finished_at or 0.0,
        lines=json.loads(found["lines"] or "[]"),
        place=found["place"] or "",
    )
