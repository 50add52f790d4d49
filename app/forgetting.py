"""`reelsense forget`: a viewer's events and picks are deleted everywhere, and what was done is proved.

In this order, so that a crash between two steps leaves the viewer refused and the rest to be done again:
tombstone and rows of the database (one transaction), tombstone in object storage, segments of the journal,
trained rankers. Then all is read again, and the proof says what was found: nothing. The proof names the viewer by the
keyed hash alone.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from app.ranker_models import forget_checkpoints, forget_in_rankers, held_in_rankers
from app.viewer_names import check_viewer
from store.errors import PassingError
from store.event_log import VIEWER_TABLES
from store.journal import Journal

if TYPE_CHECKING:
    from app.operations import ReelSense


def forget(reelsense: ReelSense, user: str) -> dict[str, Any]:
    """Forget a viewer. The proof: `digest`, `until` (acts up to then are never taken again), `removed` rows by place,
    and `found` rows by place after it, which is empty. May be run again. Raises `request.invalid`, and
    `store.unavailable` or `database.unavailable`, after which it has to be run again."""
    check_viewer(user)
    log, objects = reelsense.event_log, reelsense.objects
    journal = Journal(objects, reelsense.catalogue)
    began = time.time()
    log.tombstones.prepare(objects)
    removed = {f"database/{name}": count for name, count in log.remove_viewer(user, began).items()}
    emptied = log.empty_write_ahead_log()
    tombstone = log.tombstones.save(objects, user)
    until = log.tombstones.until_of(user)
    assert until is not None
    removed |= journal.remove_viewer(user, until)
    rankers = forget_in_rankers(reelsense, [user])
    removed["checkpoints"] = forget_checkpoints(reelsense)
    removed |= {f"rankers/{title}": 1 for title in rankers}
    found = {f"database/{name}": count for name, count in log.held_of(user, until).items() if count}
    found |= journal.held_of(user, until)
    found |= held_in_rankers(reelsense, user)
    if found:
        raise PassingError(
            "store.unavailable",
            f"The viewer is still found in {sorted(found)[0]}.",
            hint="Run `reelsense forget` again.",
        )
    return {
        "digest": tombstone.rpartition("/")[2].removesuffix(".json"),
        "tombstone": tombstone,
        "forgotten_at": began,
        "until": until,
        "removed": {place: count for place, count in removed.items() if count},
        "found": found,
        "rankers": rankers,
        "write_ahead_log_emptied": emptied,
        "scanned": {"tables": len(VIEWER_TABLES), "segments": journal.segments()},
    }
