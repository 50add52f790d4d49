"""What a viewer may be called, wherever somebody names one."""

from __future__ import annotations

from store.errors import InputError

LONGEST_NAME = 200


def check_viewer(name: str) -> None:
    """Raises `request.invalid` for a name that no event could have."""
    if not (0 < len(name) <= LONGEST_NAME and name.strip() and name.isprintable()):
        raise InputError("request.invalid", f"A viewer's name has 1 to {LONGEST_NAME} printable characters.")
