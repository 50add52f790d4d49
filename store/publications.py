"""Reading the publications of a version by sequence, for what follows them while they come in."""

from __future__ import annotations

import sqlalchemy as sa

from store.catalogue import Catalogue, Publication, publications
from store.own_tables import transaction


def published_sequences(catalogue: Catalogue, version: str, after: int) -> list[int]:
    """The sequences above `after` of a version's publications, in order: numbers alone, for this is asked at every
    request."""
    query = sa.select(publications.c.sequence).where(publications.c.version == version, publications.c.sequence > after)
    with transaction(catalogue) as connection:
        return sorted(connection.execute(query).scalars())


def published_between(
    catalogue: Catalogue, version: str, after: int, last: int | None = None, *, before: float | None = None,
    most: int | None = None,
) -> list[Publication]:  # fmt: skip
    """Publications of a version with a sequence above `after`, up to `last`, published before the time `before`, at
    most so many; in order. Without the checks of pydantic, for there may be a million."""
    query = sa.select(publications).where(publications.c.version == version, publications.c.sequence > after)
    if last is not None:
        query = query.where(publications.c.sequence <= last)
    if before is not None:
        query = query.where(publications.c.published_at < before)
    with transaction(catalogue) as connection:
        rows = connection.execute(query.order_by(publications.c.sequence).limit(most))
        return [
            Publication.model_construct(
                sequence=row.sequence,
                video_id=row.video_id,
                version=row.version,
                revision=row.revision,
                published_at=row.published_at,
            )
            for row in rows
        ]
