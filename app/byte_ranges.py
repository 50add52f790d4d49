"""The Range header of HTTP (RFC 9110, section 14): which bytes of a whole a client asks for."""

from __future__ import annotations

import re
from dataclasses import dataclass

from store.errors import InputError

_ONE = re.compile(r"bytes=\s*(\d{0,19})\s*-\s*(\d{0,19})\s*", re.ASCII | re.IGNORECASE)


class RangeError(InputError):
    """`request.range`; `bytes` is how many there are."""

    def __init__(self, size: int) -> None:
        super().__init__("request.range", f"The video has {size} bytes, and none of them is in this range.")
        self.bytes = size


@dataclass(frozen=True)
class ByteRange:
    """The bytes `first` to `last`, both in it."""

    first: int
    last: int

    @property
    def length(self) -> int:
        """How many bytes."""
        return self.last - self.first + 1


def byte_range(header: str | None, size: int) -> ByteRange | None:
    """What of `size` bytes is asked for; None: all of it.

    A header that is malformed, or that asks for several ranges, counts as none, as the RFC allows. Raises RangeError
    where not one byte lies in the range.
    """
    found = _ONE.fullmatch(header) if header else None
    if found is None or not (found[1] or found[2]):
        return None
    if not found[1]:  # the last so many
        length = min(int(found[2]), size)
        if length == 0:
            raise RangeError(size)
        return ByteRange(size - length, size - 1)
    first = int(found[1])
    last = int(found[2]) if found[2] else size - 1
    if last < first and found[2]:
        return None
    if first >= size:
        raise RangeError(size)
    return ByteRange(first, min(last, size - 1))
