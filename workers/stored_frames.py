"""Frames as an artifact: JPEG bytes and seconds in arrays, the rest in attributes; and back.

Whatever looks at pictures reads this instead of decoding the video again, so a new vision model re-embeds without one
frame being decoded. JPEG at quality 95 with whole colour (4:4:4). The same frames give the same bytes.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from store.errors import PassingError
from store.records import Frames, FramesAttributes

QUALITY = 95
# More than any configuration makes; an artifact that claims more is damaged.
MOST_FRAMES = 4096
MOST_SIDE = 8192
MOST_BYTES = 2 * 2**30  # of all pictures, decoded

Arrays = Mapping[str, npt.NDArray[Any]]


def frames_attributes(frames: Frames) -> FramesAttributes:
    """What of `frames` is not an array."""
    cuts = len(frames.shots) - 1
    return FramesAttributes(
        frames_decoded=frames.decoded,
        frames_declared=frames.declared,
        duration=frames.duration_seconds,
        degraded=frames.degraded,
        width=frames.width,
        height=frames.height,
        shots=list(frames.shots),
        cut_rate=cuts * 60.0 / frames.duration_seconds if cuts >= 0 and frames.duration_seconds > 0 else None,
        motion=frames.motion,
    )


def frames_to_arrays(frames: Frames) -> dict[str, npt.NDArray[Any]]:
    """`jpeg` uint8 [total]: all pictures one after the other; `offsets` int64 [n + 1]: where each begins, and the end;
    `seconds` float64 [n]."""
    from PIL import Image

    encoded = []
    for picture in frames.pixels:
        buffer = io.BytesIO()
        Image.fromarray(picture).save(buffer, "JPEG", quality=QUALITY, subsampling=0, optimize=False, progressive=False)
        encoded.append(buffer.getvalue())
    return {
        "jpeg": np.frombuffer(b"".join(encoded), np.uint8).copy(),
        "offsets": np.cumsum([0, *(len(item) for item in encoded)], dtype=np.int64),
        "seconds": frames.seconds.astype(np.float64),
    }


def frames_from_arrays(attributes: FramesAttributes, arrays: Arrays) -> Frames:
    """The frames of an artifact, `pixels` uint8 [n, height, width, 3]. Raises `store.artifact_damaged`.

    Nothing is believed: not the offsets, not the sizes that a JPEG claims, not that it is one.
    """
    try:
        pixels, seconds = _read(arrays)
    except Exception as error:
        raise PassingError(
            "store.artifact_damaged",
            f"Stored frames cannot be read back: {type(error).__name__}.",
            hint="`reelsense reconcile --verify` makes damaged artifacts again.",
        ) from error
    return Frames(
        pixels=pixels,
        seconds=seconds,
        duration_seconds=attributes.duration,
        decoded=attributes.frames_decoded,
        declared=attributes.frames_declared,
        degraded=attributes.degraded,
        width=attributes.width,
        height=attributes.height,
        shots=tuple(attributes.shots),
        motion=attributes.motion,
    )


def _read(arrays: Arrays) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.float64]]:
    """Pixels [n, height, width, 3] and seconds [n]; raises ValueError or what the JPEG decoder raises."""
    from PIL import Image

    jpeg, offsets, seconds = arrays["jpeg"], arrays["offsets"], arrays["seconds"]
    if jpeg.dtype != np.uint8 or offsets.dtype != np.int64 or seconds.dtype != np.float64:
        raise ValueError("an array is of another type")
    if jpeg.ndim != 1 or seconds.ndim != 1 or offsets.shape != (len(seconds) + 1,):
        raise ValueError("an array is of another shape")
    count = len(seconds)
    if not 0 < count <= MOST_FRAMES:
        raise ValueError("there are no frames, or too many")
    if offsets[0] != 0 or offsets[-1] != len(jpeg) or not np.all(np.diff(offsets) > 0):
        raise ValueError("the offsets are out of order")
    if not np.isfinite(seconds).all() or not np.all(np.diff(seconds) >= 0):
        raise ValueError("the times are out of order")
    pixels: npt.NDArray[np.uint8] | None = None
    for place in range(count):
        data = jpeg[offsets[place] : offsets[place + 1]].tobytes()
        # No other decoder than this one is asked, whatever the bytes begin with.
        with Image.open(io.BytesIO(data), formats=["JPEG"]) as image:
            width, height = image.size
            if pixels is None:
                if not (0 < width <= MOST_SIDE and 0 < height <= MOST_SIDE) or width * height * 3 * count > MOST_BYTES:
                    raise ValueError("a picture is too large")
                pixels = np.zeros((count, height, width, 3), np.uint8)
            if pixels.shape[1:3] != (height, width) or image.mode != "RGB":
                raise ValueError("a picture is of another size or kind than the first")
            pixels[place] = np.asarray(image)
    if pixels is None:
        raise ValueError("there are no frames")
    return pixels, seconds.copy()
