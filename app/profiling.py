"""What is known of a viewer, as one JSON document for every face."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from store.errors import InputError

if TYPE_CHECKING:
    from app.operations import ReelSense


def profile(reelsense: ReelSense, user: str, points: int | None = None) -> dict[str, Any]:
    """The viewer's profile; with `points`, under `over_time`, how each interest grew and faded at so many moments.

    Raises `user.unknown`, `request.invalid`.
    """
    from app.picking import shown_picks
    from ranker.interests_over_time import profile_over_time
    from ranker.profile_view import describe

    table = reelsense.table
    known = reelsense.profiles.get(user, table)
    picks = shown_picks(reelsense, user, known)
    if not known.events and not picks:
        raise InputError("user.unknown", f"No event and no pick of the viewer {user!r} is known.")
    document = {"user": user, **describe(known, table), "picks": picks}
    if points is not None:
        document["over_time"] = profile_over_time(reelsense.event_log.of(user), table, points, known)
    return document
