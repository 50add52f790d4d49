"""What a viewer picked to begin with: changed, and shown with what it still weighs."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from app.viewer_names import check_viewer
from store.errors import InputError
from store.picks import LONGEST_PICK, PickLog

if TYPE_CHECKING:
    from app.operations import ReelSense
    from ranker.profiles import Profile


def change_picks(reelsense: ReelSense, user: str, add: Sequence[str], remove: Sequence[str]) -> dict[str, Any]:
    """Take picks back, then add others; all there are then. Each is a topic, in whatever case, or the id of a video;
    one that nothing is about adds nothing until something is. Raises `request.invalid`, `event.forgotten`."""
    check_viewer(user)
    PickLog(reelsense.catalogue).change(user, _plain(add), _plain(remove), time.time())
    return {"user": user, "picks": shown_picks(reelsense, user, reelsense.profiles.get(user, reelsense.table))}


def shown_picks(reelsense: ReelSense, user: str, profile: Profile) -> list[dict[str, Any]]:
    """The viewer's picks as JSON, the oldest first: `title` where it is a video, `known` where anything is about it,
    and `mass`, what it weighs beside what the viewer does (in finished views)."""
    from ranker.newcomers import PICK_MASS, share_of_start

    snapshot, share = reelsense.table.snapshot, share_of_start(profile)
    shown = []
    for picked in PickLog(reelsense.catalogue).of(user):
        row = snapshot.row(picked.pick)
        known = row is not None or bool(snapshot.tags.matches({picked.pick: 1.0}, len(snapshot)).any())
        title = "" if row is None else row.title
        shown.append(
            {
                "pick": picked.pick,
                "title": title,
                "at": picked.at,
                "known": known,
                "mass": round(PICK_MASS * share, 6) if known else 0.0,
            }
        )
    return shown


def _plain(picks: Sequence[str]) -> list[str]:
    # As tags are written, and ids.
    plain = [" ".join(pick.casefold().split()) for pick in picks]
    if not all(0 < len(pick) <= LONGEST_PICK and pick.isprintable() for pick in plain):
        raise InputError("request.invalid", f"A pick has 1 to {LONGEST_PICK} printable characters.")
    return plain
