"""What a decoder is told before it opens a hostile file, and what is counted while it decodes.

Kept out of the versions of the stages (`workers.stages`): a limit ends in an error or in nothing at all, so that no
artifact differs by it.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, BinaryIO, NoReturn

from store.errors import MediaError
from store.settings import Limits

if TYPE_CHECKING:
    from av.container import InputContainer

# In one frame of sound: twelve minutes at 48 kHz are 2 ** 25. Sound decoders give some thousands at once; PCM gives
# what its packet holds.
MOST_SAMPLES = 2**22
# In a picture decoded while a container is opened. Above what a header check can still refuse by name: with a picture
# above this bound the decoder forgets the size, and says no more than that it cannot decode.
OPENING_PIXELS = 2**27
# AVI may carry a track of text in a file of its own kind within.
_INNER = {"avi": "avi,srt,ass"}


class NamelessFile:
    """A stream without what tells where it lies: a decoder that is given a name may look for files beside it."""

    def __init__(self, stream: BinaryIO) -> None:
        self.read = stream.read
        self.seek = stream.seek
        self.tell = stream.tell


def open_options(name: str, limits: Limits) -> dict[str, str]:
    """Options for a container of the format `name` and for its streams, in ffmpeg's own words."""
    return {
        # `pipe` is the protocol of what is read through a file object; no other may be opened from within.
        "protocol_whitelist": "pipe",
        "format_whitelist": _INNER.get(name, name),
        # MP4 may say that its samples lie in another file. Both are the defaults; they are held here, not hoped for.
        "enable_drefs": "0",
        "use_absolute_path": "0",
        # Opening may decode the first pictures of each track, before anybody has seen what the header says.
        "max_pixels": str(max(OPENING_PIXELS, 4 * limits.pixels)),
        "max_samples": str(MOST_SAMPLES),
        "threads": "1",
    }


def most_pixels(limits: Limits) -> str:
    """The bound of the decoder itself, as an option. It counts a margin of 128 pixels on each side, so that it lies
    above ours, which is checked on what the decoder gives."""
    return str(4 * limits.pixels + 2**16)


def refuse_to_open(url: str, flags: int, options: dict[str, str]) -> NoReturn:  # noqa: ARG001
    """In place of the decoder's own way of opening what a file names inside itself. Raises what decoders raise."""
    import av

    raise av.error.PermissionError(errno.EACCES, "a video may not open another file")


def bound_sound(context: Any, limits: Limits) -> None:
    """Before a sound track is decoded: one thread, no endless frame, and what `check_sound` raises."""
    check_sound(context, limits)
    context.options = {"max_samples": str(MOST_SAMPLES)}
    context.thread_count = 1


def check_sound(context: Any, limits: Limits) -> None:
    """Raises `media.sound_out_of_range` by the header of a sound track (a codec context) or by a frame of it."""
    channels = context.layout.nb_channels
    if context.sample_rate > limits.audio_rate_hz or channels > limits.audio_channels:
        raise MediaError(
            "media.sound_out_of_range",
            f"The sound has {channels} channels at {context.sample_rate} Hz, at most {limits.audio_channels} channels "
            f"at {limits.audio_rate_hz} Hz are allowed.",
            hint="Try to re-export the video with ordinary sound.",
        )


def packets_of(container: InputContainer, streams: Any, limits: Limits) -> Iterator[Any]:
    """The packets of one stream or of several. Raises `media.too_many_packets`, and what the container raises."""
    for count, packet in enumerate(container.demux(streams)):
        if count > limits.packets:
            raise MediaError("media.too_many_packets", f"A track has more than {limits.packets} packets.")
        yield packet
