"""Videos that were deleted: their rows go in one transaction, and a row here tells who follows publications.

A follower (`ranker.video_table`) reads publications by rising sequence and would never learn that some are gone. So a
deletion leaves its own numbered row: the video, and the highest publication there was at that moment. What was
published of the video up to then is gone; what comes after, when the same bytes are uploaded again, is another life.

What viewers did stays: it is theirs, and goes with them (`app.forgetting`).
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass

import sqlalchemy as sa
from pydantic import BaseModel

from store import administration, dead_letters, run_events, upload_ledger
from store import catalogue as ledger
from store.catalogue import Catalogue, Publication, RunKey, publications, runs, videos
from store.own_tables import create_tables, transaction

tables = sa.MetaData()
deletions = sa.Table(
    "deletions",
    tables,
    # AUTOINCREMENT: a follower that has read up to n must never miss a reused number.
    sa.Column("number", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True, autoincrement=True),
    sa.Column("video_id", sa.String(32), nullable=False),
    sa.Column("up_to", sa.BigInteger, nullable=False),
    sa.Column("who", sa.String(200), nullable=False),
    sa.Column("at", sa.Float, nullable=False),
    sqlite_autoincrement=True,
)

# The rows of a video, by table. The history of runs comes last: removing runs writes into it.
_OF_VIDEOS: tuple[tuple[sa.Table, str], ...] = (
    (publications, "video_id"),
    (runs, "video_id"),
    (dead_letters.notes, "video_id"),
    (administration.unsent, "video_id"),
    (administration.priorities, "video_id"),
    (administration.quarantine, "video_id"),
    (upload_ledger.uploads, "video_id"),
    (videos, "id"),
    (run_events.run_events, "video_id"),
)
_OWN_TABLES = (
    tables, administration.tables, ledger.tables, upload_ledger.tables, run_events.tables,
)  # fmt: skip


class Deletion(BaseModel):
    """A row: publications of the video up to the sequence `up_to` are gone."""

    number: int
    video_id: str
    up_to: int
    who: str
    at: float


@dataclass(frozen=True)
class Removed:
    """What the database knew of a video: its runs, its publications, and how many rows went, by table."""

    keys: tuple[RunKey, ...]
    publications: tuple[Publication, ...]
    rows: Mapping[str, int]


class Deletions:
    """The deletions of one catalogue. Every method is one transaction. Errors: `database.unavailable`."""

    def __init__(self, catalogue: Catalogue) -> None:
        self.catalogue = catalogue
        for metadata in _OWN_TABLES:
            create_tables(catalogue, metadata)

    def remove(self, video_id: str, who: str) -> Removed:
        """Take every row of a video away, and tell followers. May be run again, also of what is not there."""
        with transaction(self.catalogue) as connection:
            keys = connection.execute(
                sa.select(runs.c.video_id, runs.c.stage, runs.c.version, runs.c.revision).where(
                    runs.c.video_id == video_id
                )
            ).all()
            out = connection.execute(sa.select(publications).where(publications.c.video_id == video_id)).all()
            up_to = connection.execute(sa.select(sa.func.max(publications.c.sequence))).scalar() or 0
            removed = {
                table.name: connection.execute(sa.delete(table).where(table.c[name] == video_id)).rowcount
                for table, name in _OF_VIDEOS
            }
            connection.execute(sa.insert(deletions).values(video_id=video_id, up_to=up_to, who=who, at=time.time()))
        return Removed(
            tuple(RunKey.model_validate(row._asdict()) for row in keys),
            tuple(Publication.model_validate(row._asdict()) for row in out),
            {name: count for name, count in removed.items() if count},
        )

    def highest(self) -> int:
        """The number of the latest deletion, 0 before the first."""
        with transaction(self.catalogue) as connection:
            return connection.execute(sa.select(sa.func.max(deletions.c.number))).scalar() or 0

    def after(self, number: int) -> list[Deletion]:
        """Deletions with a higher number, in order."""
        query = sa.select(deletions).where(deletions.c.number > number).order_by(deletions.c.number)
        with transaction(self.catalogue) as connection:
            return [Deletion.model_validate(row._asdict()) for row in connection.execute(query)]

    def is_there(self, video_id: str) -> bool:
        """Whether there is such a video now."""
        with transaction(self.catalogue) as connection:
            return connection.execute(sa.select(videos.c.id).where(videos.c.id == video_id)).first() is not None
