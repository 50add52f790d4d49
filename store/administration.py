"""What administrators decide, in tables of their own beside the ledger: pauses, quarantine, priorities, how many
workers there should be, and who decided it when.

The ledger is the truth about what waits and the broker a hint. So a decision is a row here, in one transaction with its
entry in the audit log and with what it changes in the ledger. It holds over a restart of everything and over a broker
that lost every message, and it is the same under every broker. Workers and the stack read these rows now and then
(`workers.following`); a message to them only makes them look sooner.

All times are seconds since the epoch (UTC).
"""

from __future__ import annotations

import json
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import sqlalchemy as sa
from pydantic import BaseModel

from store.catalogue import Catalogue, Run, RunKey, _insert, _is, runs
from store.errors import InputError
from store.own_tables import create_tables, transaction
from store.run_events import RunHistory

tables = sa.MetaData()

pauses = sa.Table(
    "pauses",
    tables,
    sa.Column("name", sa.String(64), primary_key=True),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("who", sa.String(200), nullable=False),
    sa.Column("at", sa.Float, nullable=False),
)

quarantine = sa.Table(
    "quarantine",
    tables,
    sa.Column("video_id", sa.String(32), primary_key=True),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("who", sa.String(200), nullable=False),
    sa.Column("at", sa.Float, nullable=False),
)

priorities = sa.Table(
    "priorities",
    tables,
    sa.Column("video_id", sa.String(32), primary_key=True),
    sa.Column("who", sa.String(200), nullable=False),
    sa.Column("at", sa.Float, nullable=False),
)

# Queued runs whose message was used up for something else: by a pause, or to run a prioritised video first.
unsent = sa.Table(
    "unsent",
    tables,
    sa.Column("video_id", sa.String(32), primary_key=True),
    sa.Column("stage", sa.String(32), primary_key=True),
    sa.Column("version", sa.String(32), primary_key=True),
    sa.Column("revision", sa.String(16), primary_key=True),
    sa.Column("at", sa.Float, nullable=False),
)

wishes = sa.Table(
    "wishes",
    tables,
    sa.Column("name", sa.String(255), primary_key=True),
    sa.Column("value", sa.Text, nullable=False),
    sa.Column("who", sa.String(200), nullable=False),
    sa.Column("at", sa.Float, nullable=False),
)

audit = sa.Table(
    "audit",
    tables,
    sa.Column("sequence", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True, autoincrement=True),
    sa.Column("at", sa.Float, nullable=False, index=True),
    sa.Column("who", sa.String(200), nullable=False),
    sa.Column("via", sa.String(16), nullable=False),
    sa.Column("action", sa.String(64), nullable=False),
    sa.Column("subject", sa.String(255), nullable=False),
    sa.Column("details", sa.Text, nullable=False),
    sqlite_autoincrement=True,
)

WORKERS_WISH = "workers"
LONGEST_REASON = 500
# So many prioritised videos are looked through for each message.
MOST_FIRST = 500
# What waits is asked for all the time: by this index the answer is read without touching the rows.
_WAITING = sa.Index("runs_waiting", runs.c.state, runs.c.stage, runs.c.version, runs.c.queued_at)


@dataclass(frozen=True)
class Actor:
    """Who administers: the name of an OS user or an API key, and `via` which face (`cli`, `http`, `page`)."""

    who: str
    via: Literal["cli", "http", "page"]


class Mark(BaseModel):
    """A pause, a quarantine or a priority: of what (`name`), why, by whom, and since when (`at`)."""

    name: str
    reason: str = ""
    who: str
    at: float

    @property
    def message(self) -> str:
        """The sentence that a video in quarantine carries."""
        return quarantine_message(self.reason, self.who)


class AuditEntry(BaseModel):
    """A row of the audit log."""

    sequence: int
    at: float
    who: str
    via: str
    action: str
    subject: str
    details: dict[str, Any]


class StageLoad(BaseModel):
    """How many runs of a version of a stage are `queued` and `running`; `oldest` is when the first was queued."""

    stage: str
    version: str
    queued: int = 0
    running: int = 0
    oldest: float | None = None


@dataclass(frozen=True)
class Wish:
    """How many workers an embedded stack should run: the same number twice, or the bounds of autoscaling. `at` is when
    it was wished."""

    least: int
    most: int
    at: float


@dataclass(frozen=True)
class Directions:
    """What a worker must know before it begins a run: whether its stage is `paused`, why its video is in `quarantine`
    (None: it is not), and which run of the stage is to go `first`, where it is not the one at hand."""

    paused: bool
    quarantine: str | None
    first: RunKey | None


class Administration:
    """The decisions of administrators over one catalogue. Every method is one transaction. Errors:
    `database.unavailable`, which may pass."""

    def __init__(self, catalogue: Catalogue) -> None:
        self.catalogue = catalogue
        create_tables(catalogue, tables)
        self.history = RunHistory(catalogue)
        with transaction(catalogue) as connection:
            connection.execute(sa.schema.CreateIndex(_WAITING, if_not_exists=True))

    # --- pauses ------------------------------------------------------------------------------------------------------

    def pause(self, name: str, actor: Actor, reason: str = "") -> bool:
        """Let no run of this queue or stage begin. False when it is paused already; the first reason stays."""
        row = {"name": name, "reason": _reason(reason), "who": actor.who, "at": time.time()}
        with transaction(self.catalogue) as connection:
            new = _add(connection, pauses, row)
            if new:
                _note(connection, actor, "queue.pause", name, {"reason": row["reason"]} if reason else {})
        return new

    def resume(self, name: str, actor: Actor) -> bool:
        """Take a pause back. False when there is none."""
        with transaction(self.catalogue) as connection:
            found = connection.execute(sa.delete(pauses).where(pauses.c.name == name)).rowcount > 0
            if found:
                _note(connection, actor, "queue.resume", name, {})
        return found

    def pauses(self) -> dict[str, Mark]:
        """What is paused, by name of a queue or a stage."""
        with transaction(self.catalogue) as connection:
            rows = connection.execute(sa.select(pauses).order_by(pauses.c.name))
            return {row.name: Mark.model_validate(row._asdict()) for row in rows}

    # --- what waits --------------------------------------------------------------------------------------------------

    def loads(self) -> list[StageLoad]:
        """What is queued and running, by stage and version. Costs a scan of an index over what is under way."""
        found: dict[tuple[str, str], dict[str, Any]] = {}
        query = (
            sa.select(runs.c.state, runs.c.stage, runs.c.version, sa.func.count(), sa.func.min(runs.c.queued_at))
            .where(runs.c.state.in_(["queued", "running"]))
            .group_by(runs.c.state, runs.c.stage, runs.c.version)
        )
        with transaction(self.catalogue) as connection:
            for state, stage, version, count, oldest in connection.execute(query):
                load = found.setdefault((stage, version), {"stage": stage, "version": version})
                load[state] = count
                if state == "queued":
                    load["oldest"] = oldest
        return [StageLoad.model_validate(found[key]) for key in sorted(found)]

    def running(self) -> list[Run]:
        """The runs that workers hold, those begun first first."""
        query = sa.select(runs).where(runs.c.state == "running").order_by(runs.c.started_at)
        with transaction(self.catalogue) as connection:
            return [Run.model_validate(row._asdict()) for row in connection.execute(query)]

    def oldest(self, stages: Collection[str], most: int) -> list[Run]:
        """The runs of these stages that have waited longest."""
        query = sa.select(runs).where(runs.c.state == "queued", runs.c.stage.in_(list(stages)))
        with transaction(self.catalogue) as connection:
            rows = connection.execute(query.order_by(runs.c.queued_at, runs.c.video_id).limit(most))
            return [Run.model_validate(row._asdict()) for row in rows]

    def failures(self) -> list[dict[str, Any]]:
        """Failed and dead runs by `stage` and `code`: `runs`, `latest`, and the `message` of one of them."""
        query = (
            sa.select(
                runs.c.stage,
                runs.c.error_code.label("code"),
                sa.func.count().label("runs"),
                sa.func.max(runs.c.finished_at).label("latest"),
                sa.func.min(runs.c.error_message).label("message"),
            )
            .where(runs.c.state.in_(["failed", "dead"]))
            .group_by(runs.c.stage, runs.c.error_code)
            .order_by(sa.desc("runs"), runs.c.stage)
        )
        with transaction(self.catalogue) as connection:
            return [row._asdict() for row in connection.execute(query)]

    def failed(self, stage: str, code: str, most: int) -> list[RunKey]:
        """At most `most` failed and dead runs of a stage with this code."""
        columns = (runs.c.video_id, runs.c.stage, runs.c.version, runs.c.revision)
        query = sa.select(*columns).where(
            runs.c.state.in_(["failed", "dead"]), runs.c.stage == stage, runs.c.error_code == code
        )
        with transaction(self.catalogue) as connection:
            return [RunKey.model_validate(row._asdict()) for row in connection.execute(query.limit(most))]

    def queued(self, stages: Collection[str], most: int, *, after: RunKey | None = None) -> list[RunKey]:
        """At most `most` queued runs of these stages, in the order of their keys, from behind `after`."""
        columns = (runs.c.video_id, runs.c.stage, runs.c.version, runs.c.revision)
        query = sa.select(*columns).where(runs.c.state == "queued", runs.c.stage.in_(list(stages)))
        if after is not None:
            # Row values would be shorter; SQLite then does not use the key's index.
            query = query.where(runs.c.video_id >= after.video_id, sa.tuple_(*columns) > sa.tuple_(*_values(after)))
        with transaction(self.catalogue) as connection:
            rows = connection.execute(query.order_by(*columns).limit(most))
            return [RunKey.model_validate(row._asdict()) for row in rows]

    # --- purging -----------------------------------------------------------------------------------------------------

    def purge(self, name: str, stages: Collection[str], actor: Actor, *, lease_seconds: float, dry_run: bool) -> int:
        """Cancel the queued runs of these stages: they are `failed` with `stage.cancelled`, so no sweep sends them
        again until they are restored. How many there are; with `dry_run` nothing is changed.

        Raises `queue.busy` while one of them runs.
        """
        which = sa.and_(runs.c.stage.in_(list(stages)), runs.c.state == "queued")
        with transaction(self.catalogue) as connection:
            busy = connection.execute(
                sa.select(sa.func.count())
                .select_from(runs)
                .where(
                    runs.c.stage.in_(list(stages)),
                    runs.c.state == "running",
                    runs.c.heartbeat_at >= time.time() - lease_seconds,
                )
            ).scalar_one()
            if busy:
                raise InputError(
                    "queue.busy",
                    f"{busy} run{'s' if busy > 1 else ''} of {name} {'are' if busy > 1 else 'is'} under way.",
                    hint=f"`reelsense queue pause {name}`, wait until nothing runs, and purge then.",
                )
            if dry_run:
                return int(connection.execute(sa.select(sa.func.count()).select_from(runs).where(which)).scalar_one())
            message = f"Cancelled by {actor.who}: the queue {name} was purged."
            count = connection.execute(
                sa.update(runs).where(which).values(**_cancelled("stage.cancelled", message))
            ).rowcount
            _note(connection, actor, "queue.purge", name, {"runs": count})
        return count

    def restore(self, name: str, stages: Collection[str], actor: Actor) -> int:
        """Take a purge of these stages back: what it cancelled is queued again, as if never tried, and has no message
        yet (`take_unsent`). How many."""
        which = sa.and_(
            runs.c.stage.in_(list(stages)),
            runs.c.state == "failed",
            runs.c.error_code == "stage.cancelled",
            runs.c.video_id.not_in(sa.select(quarantine.c.video_id)),
        )
        names = ["video_id", "stage", "version", "revision"]
        with transaction(self.catalogue) as connection:
            chosen = sa.select(*(runs.c[name] for name in names), sa.literal(time.time())).where(which)
            insert = _insert(connection, unsent).from_select([*names, "at"], chosen)
            connection.execute(insert.on_conflict_do_nothing())
            count = connection.execute(
                sa.update(runs)
                .where(which)
                .values(
                    state="queued",
                    attempts=0,
                    queued_at=time.time(),
                    finished_at=None,
                    error_code=None,
                    error_message=None,
                )
            ).rowcount
            _note(connection, actor, "queue.restore", name, {"runs": count})
        return count

    # --- videos ------------------------------------------------------------------------------------------------------

    def cancel(self, video_id: str, keys: Iterable[RunKey], actor: Actor) -> int:
        """Cancel these runs of a video, those that are not sent yet as well; what runs or has ended stays. How many."""
        with transaction(self.catalogue) as connection:
            message = f"Cancelled by {actor.who}."
            count = sum(_cancel(connection, key, "video.cancelled", message) for key in keys)
            _note(connection, actor, "video.cancel", video_id, {"runs": count})
        return count

    def lift(self, video_id: str) -> None:
        """Forget that runs of a video were cancelled, so that they can be sent anew."""
        with transaction(self.catalogue) as connection:
            connection.execute(
                sa.delete(runs).where(
                    runs.c.video_id == video_id,
                    runs.c.state == "failed",
                    runs.c.error_code.in_(["video.cancelled", "video.quarantined", "stage.cancelled"]),
                )
            )

    def quarantine(self, video_id: str, keys: Iterable[RunKey], actor: Actor, reason: str = "") -> bool:
        """Set a video aside: nothing of it is processed or served. False when it is there already; the first reason
        stays."""
        row = {"video_id": video_id, "reason": _reason(reason), "who": actor.who, "at": time.time()}
        with transaction(self.catalogue) as connection:
            new = _add(connection, quarantine, row)
            if new:
                for key in keys:
                    _cancel(connection, key, "video.quarantined", quarantine_message(reason, actor.who))
                _note(connection, actor, "video.quarantine", video_id, {"reason": row["reason"]} if reason else {})
        return new

    def release(self, video_id: str, actor: Actor) -> bool:
        """Take a video out of quarantine. False when it is not there."""
        with transaction(self.catalogue) as connection:
            found = connection.execute(sa.delete(quarantine).where(quarantine.c.video_id == video_id)).rowcount > 0
            if found:
                _note(connection, actor, "video.release", video_id, {})
        if found:
            self.lift(video_id)
        return found

    def quarantined(self, video_ids: Sequence[str] | None = None) -> dict[str, Mark]:
        """The videos in quarantine, or those of some, by id."""
        query = sa.select(quarantine.c.video_id.label("name"), quarantine.c.reason, quarantine.c.who, quarantine.c.at)
        if video_ids is not None:
            query = query.where(quarantine.c.video_id.in_(list(video_ids)))
        with transaction(self.catalogue) as connection:
            return {row.name: Mark.model_validate(row._asdict()) for row in connection.execute(query)}

    def prioritise(self, video_id: str, actor: Actor, *, off: bool = False) -> bool:
        """Run what waits of a video before all else, or (`off`) in its turn again. Whether that changed anything."""
        with transaction(self.catalogue) as connection:
            if off:
                gone = sa.delete(priorities).where(priorities.c.video_id == video_id)
                changed = connection.execute(gone).rowcount > 0
            else:
                changed = _add(connection, priorities, {"video_id": video_id, "who": actor.who, "at": time.time()})
            if changed:
                _note(connection, actor, "video.deprioritise" if off else "video.prioritise", video_id, {})
        return changed

    def priorities(self) -> dict[str, Mark]:
        """The prioritised videos by id."""
        query = sa.select(priorities.c.video_id.label("name"), priorities.c.who, priorities.c.at)
        with transaction(self.catalogue) as connection:
            return {row.name: Mark.model_validate(row._asdict()) for row in connection.execute(query)}

    def note(self, actor: Actor, action: str, subject: str, details: Mapping[str, Any]) -> None:
        """Record what was done elsewhere, such as a retry, which the graph does."""
        with transaction(self.catalogue) as connection:
            _note(connection, actor, action, subject, details)

    # --- what a worker asks ------------------------------------------------------------------------------------------

    def directions(self, key: RunKey, names: Collection[str]) -> Directions:
        """What holds for a run. `names` are those under which its stage can be paused."""
        with transaction(self.catalogue) as connection:
            paused = connection.execute(sa.select(pauses.c.name).where(pauses.c.name.in_(list(names))).limit(1)).first()
            aside = connection.execute(
                sa.select(quarantine.c.reason, quarantine.c.who).where(quarantine.c.video_id == key.video_id)
            ).one_or_none()
            first = _first(connection, key)
        return Directions(
            paused is not None,
            None if aside is None else quarantine_message(aside.reason, aside.who),
            None if first == key else first,
        )

    def keep_unsent(self, key: RunKey) -> None:
        """Note that a queued run has no message any more."""
        with transaction(self.catalogue) as connection:
            waits = connection.execute(sa.select(runs.c.state).where(_is(key))).scalar_one_or_none() == "queued"
            if waits:
                row = key.model_dump() | {"at": time.time()}
                _add(connection, unsent, row)

    def take_unsent(self, stages: Collection[str], most: int, version: str | None = None) -> list[RunKey]:
        """At most `most` queued runs of these stages that have no message, those without one for longest first. The
        caller sends or runs them: they are not noted any more."""
        with transaction(self.catalogue) as connection:
            query = sa.select(unsent).where(unsent.c.stage.in_(list(stages))).order_by(unsent.c.at).limit(most)
            if version is not None:
                query = query.where(unsent.c.version == version)
            found = []
            for row in connection.execute(query).all():
                key = RunKey(video_id=row.video_id, stage=row.stage, version=row.version, revision=row.revision)
                gone = sa.delete(unsent).where(*(unsent.c[name] == value for name, value in key.model_dump().items()))
                # Under PostgreSQL another worker may have been faster.
                if connection.execute(gone).rowcount:
                    state = connection.execute(sa.select(runs.c.state).where(_is(key))).scalar_one_or_none()
                    if state == "queued":
                        found.append(key)
        return found

    def refuse(self, key: RunKey, message: str) -> None:
        """End a run of a video in quarantine that somebody sent all the same."""
        with transaction(self.catalogue) as connection:
            _cancel(connection, key, "video.quarantined", message)

    # --- workers -----------------------------------------------------------------------------------------------------

    def scale(self, least: int, most: int, actor: Actor) -> None:
        """Wish for a number of workers (`least` is `most`), or for bounds. Drained workers may start again."""
        with transaction(self.catalogue) as connection:
            connection.execute(sa.delete(wishes).where(wishes.c.name.startswith("drain:", autoescape=True)))
            _wish(connection, WORKERS_WISH, {"least": least, "most": most}, actor)
            action = "workers.scale" if least == most else "workers.autoscale"
            _note(connection, actor, action, "workers", {"least": least, "most": most})

    def scale_by_settings(self, actor: Actor) -> None:
        """Take back what was wished about the number of workers."""
        with transaction(self.catalogue) as connection:
            connection.execute(
                sa.delete(wishes).where(
                    sa.or_(wishes.c.name == WORKERS_WISH, wishes.c.name.startswith("drain:", autoescape=True))
                )
            )
            _note(connection, actor, "workers.scale", "workers", {})

    def scaled(self) -> Wish | None:
        """How many workers are wished for; None: what the settings say."""
        with transaction(self.catalogue) as connection:
            row = connection.execute(sa.select(wishes).where(wishes.c.name == WORKERS_WISH)).one_or_none()
        return None if row is None else Wish(**json.loads(row.value), at=row.at)

    def drain(self, worker: str, actor: Actor) -> None:
        """Ask a worker to finish what it runs, take no more, and leave."""
        with transaction(self.catalogue) as connection:
            _wish(connection, f"drain:{worker}", {}, actor)
            _note(connection, actor, "workers.drain", worker, {})

    def drained(self) -> dict[str, float]:
        """The workers that were asked to leave, and when."""
        query = sa.select(wishes.c.name, wishes.c.at).where(wishes.c.name.startswith("drain:", autoescape=True))
        with transaction(self.catalogue) as connection:
            return {row.name.removeprefix("drain:"): row.at for row in connection.execute(query)}

    def set_pool(self, worker: str, processes: int, actor: Actor) -> None:
        """Wish for a number of pool processes of one worker."""
        with transaction(self.catalogue) as connection:
            _wish(connection, f"pool:{worker}", {"processes": processes}, actor)
            _note(connection, actor, "workers.pool", worker, {"processes": processes})

    # --- the audit log -----------------------------------------------------------------------------------------------

    def audit(self, most: int, subject: str | None = None) -> list[AuditEntry]:
        """The latest entries, newest first; those about one subject."""
        query = sa.select(audit).order_by(audit.c.sequence.desc()).limit(most)
        if subject is not None:
            query = query.where(audit.c.subject == subject)
        with transaction(self.catalogue) as connection:
            return [
                AuditEntry(**(row._asdict() | {"details": json.loads(row.details)}))
                for row in connection.execute(query)
            ]

    def prune(self, before: float) -> None:
        """Drop history from before a time, and what is noted of runs and videos that no longer wait. The audit log
        stays."""
        self.history.prune(before)
        waiting = sa.select(runs.c.video_id).where(runs.c.state.in_(["queued", "running"]))
        with transaction(self.catalogue) as connection:
            old = sa.and_(priorities.c.at < before, priorities.c.video_id.not_in(waiting))
            connection.execute(sa.delete(priorities).where(old))
            connection.execute(sa.delete(unsent).where(unsent.c.at < before))


def quarantine_message(reason: str, who: str) -> str:
    """The sentence that a video in quarantine carries."""
    return f"Set aside by {who}{f': {_reason(reason)}' if reason else ''}."


def _reason(text: str) -> str:
    return " ".join(text.split())[:LONGEST_REASON].rstrip(".")


def _values(key: RunKey) -> tuple[sa.BindParameter[str], ...]:
    return tuple(sa.literal(value) for value in (key.video_id, key.stage, key.version, key.revision))


def _first(connection: sa.Connection, key: RunKey) -> RunKey | None:
    """The queued run of the stage and version of `key` whose video was prioritised first."""
    chosen = connection.execute(
        sa.select(priorities.c.video_id)
        .where(priorities.c.video_id.not_in(sa.select(quarantine.c.video_id)))
        .order_by(priorities.c.at)
        .limit(MOST_FIRST)
    ).scalars()
    order = {video: place for place, video in enumerate(chosen)}
    if not order:
        return None
    # Looked up by key. Asked for those that are queued, SQLite would go through all that are, a million perhaps.
    rows = connection.execute(
        sa.select(runs.c.video_id, runs.c.revision, runs.c.state).where(
            runs.c.video_id.in_(list(order)), runs.c.stage == key.stage, runs.c.version == key.version
        )
    ).all()
    waiting = [row for row in rows if row.state == "queued"]
    if not waiting:
        return None
    best = min(waiting, key=lambda row: (order[row.video_id], row.revision))
    return RunKey(video_id=best.video_id, stage=key.stage, version=key.version, revision=best.revision)


def _add(connection: sa.Connection, table: sa.Table, row: Mapping[str, Any]) -> bool:
    """Insert a row unless its key is there; whether it was inserted (a row count says that on SQLite alone)."""
    insert = _insert(connection, table).values(row).on_conflict_do_nothing().returning(*table.primary_key.columns)
    return connection.execute(insert).first() is not None


def _cancelled(code: str, message: str) -> dict[str, Any]:
    return {
        "state": "failed",
        "finished_at": time.time(),
        "error_code": code,
        "error_message": message,
        "traceback": None,
    }


def _cancel(connection: sa.Connection, key: RunKey, code: str, message: str) -> int:
    """Cancel one run that waits or is not known yet; 1 when that was so, else 0."""
    values = _cancelled(code, message)
    insert = _insert(connection, runs).values(**key.model_dump(), attempts=0, **values)
    changed = connection.execute(
        insert.on_conflict_do_update(
            index_elements=["video_id", "stage", "version", "revision"], set_=values, where=runs.c.state == "queued"
        ).returning(runs.c.state)
    ).first()
    return int(changed is not None)


def _wish(connection: sa.Connection, name: str, value: Mapping[str, Any], actor: Actor) -> None:
    row = {"name": name, "value": json.dumps(value), "who": actor.who, "at": time.time()}
    insert = _insert(connection, wishes).values(row)
    connection.execute(insert.on_conflict_do_update(index_elements=["name"], set_=row))


def _note(connection: sa.Connection, actor: Actor, action: str, subject: str, details: Mapping[str, Any]) -> None:
    connection.execute(
        sa.insert(audit).values(
            at=time.time(),
            who=actor.who[:200],
            via=actor.via,
            action=action,
            subject=subject,
            details=json.dumps(details),
        )
    )
