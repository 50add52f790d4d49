"""Decoding a track from its start to its end, and telling damage from an end.

Never by seeking: on some real files a seek returns green garbage without an error. Nor is the declared duration
believed: a truncated file ends early, again without an error, so what was decoded is counted against what was declared.

PyAV was chosen by measurement (`bench/results/decoding.json`, `python -m bench.decoding`): the ffmpeg program pays for
carrying pictures through a pipe, and gives neither time stamps nor damage flags.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from store.settings import Limits
from workers.decoder_limits import packets_of

if TYPE_CHECKING:
    from av.container import InputContainer

# Less than this share of what was declared is damage; edit lists and rounding stay well above it.
WHOLE_SHARE = 0.9
WHOLE_SLACK_SECONDS = 0.5
MOST_ERRORS = 1000


@dataclass
class Damage:
    """Whether the decoder has met damage; and where the last packet ends, in seconds of the container's clock."""

    seen: bool = False
    errors: int = 0
    packets_end: float | None = None


def frames_of(container: InputContainer, stream: Any, damage: Damage, limits: Limits) -> Iterator[Any]:
    """Every frame that the decoder can give, in order; an error costs its packet and is noted, not raised.

    Raises `media.too_many_packets`.
    """
    import av

    packets = packets_of(container, stream, limits)
    while True:
        try:
            packet = next(packets, None)
        except av.FFmpegError:
            damage.seen = True  # the container itself ends here
            return
        if packet is None:
            return
        if packet.pts is not None and packet.time_base:
            end = float((packet.pts + (packet.duration or 0)) * packet.time_base)
            damage.packets_end = max(end, damage.packets_end or end)
        try:
            frames = packet.decode()
        except av.FFmpegError:
            damage.seen = True
            damage.errors += 1
            if damage.errors > MOST_ERRORS:
                return
            continue
        damage.seen = damage.seen or packet.is_corrupt
        yield from frames


def falls_short(decoded_seconds: float, declared_seconds: float | None) -> bool:
    """Whether clearly less was decoded than was declared."""
    if declared_seconds is None:
        return False
    return decoded_seconds < WHOLE_SHARE * declared_seconds - WHOLE_SLACK_SECONDS
