"""The catalogue's videos page by page, by when they were uploaded: a page costs its own rows, wherever it stands."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import sqlalchemy as sa

from store.administration import quarantine
from store.catalogue import Catalogue, Video, _video, publications, runs, videos
from store.filters import Node, to_sql
from store.own_tables import transaction

# `unfinished`: not published, or something of it waits or runs; `troubled`: something failed, or it is in quarantine.
# Both may hold a few videos more than a look at each one's own runs would find, and never one less.
Among = Literal["all", "unfinished", "troubled"]


@dataclass(frozen=True)
class Place:
    """Where a page ends: behind this video."""

    uploaded_at: float
    id: str


def videos_from(
    catalogue: Catalogue,
    most: int,
    *,
    after: Place | None = None,
    oldest_first: bool = False,
    among: Among = "all",
    version: str = "",
    ids: Sequence[str] | None = None,
    where: Node | None = None,
) -> list[Video]:
    """The next `most` videos behind `after`, latest upload first unless `oldest_first`; of `ids` alone where given, and
    those that pass `where`. `version` is the served one of `published`, by which a video counts as published."""
    query = sa.select(videos)
    if after is not None:
        at, name = videos.c.uploaded_at, videos.c.id
        same = at == after.uploaded_at
        query = query.where(
            sa.or_(at > after.uploaded_at, sa.and_(same, name > after.id))
            if oldest_first
            else sa.or_(at < after.uploaded_at, sa.and_(same, name < after.id))
        )
    if among == "unfinished":
        published = sa.select(publications.c.video_id).where(publications.c.version == version)
        busy = sa.select(runs.c.video_id).where(runs.c.state.in_(("queued", "running")))
        query = query.where(sa.or_(videos.c.id.not_in(published), videos.c.id.in_(busy)))
    elif among == "troubled":
        broken = sa.select(runs.c.video_id).where(runs.c.state.in_(("failed", "dead")))
        query = query.where(sa.or_(videos.c.id.in_(broken), videos.c.id.in_(sa.select(quarantine.c.video_id))))
    if ids is not None:
        query = query.where(videos.c.id.in_(list(ids)))
    if where is not None:
        query = query.where(to_sql(where, catalogue.engine.dialect.name))
    columns = (videos.c.uploaded_at, videos.c.id)
    query = query.order_by(*(column if oldest_first else column.desc() for column in columns)).limit(most)
    with transaction(catalogue) as connection:
        return [_video(row) for row in connection.execute(query)]


def count_videos(catalogue: Catalogue) -> int:
    """How many videos there are."""
    with transaction(catalogue) as connection:
        return int(connection.execute(sa.select(sa.func.count()).select_from(videos)).scalar_one())
