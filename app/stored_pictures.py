"""One kept picture of a video, read out of its `frames` artifact without the others: a few kilobytes of some megabytes.

An artifact is a safetensors object: the length of its header, the header (JSON), then the arrays. Nothing of it is
believed: every length is checked before it is used, and the picture is decoded before it is shown to anybody.
"""

from __future__ import annotations

import io
import json
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from store.errors import PassingError, ReelsenseError
from store.objects import ObjectStore
from workers.stored_frames import MOST_FRAMES, MOST_SIDE

WIDEST = 1024
QUALITY = 80
# Where in a video its picture is taken, unless somebody asks for another moment.
SHARE = 1 / 3
_MOST_HEADER = 16 * 2**20
_MOST_PICTURE = 32 * 2**20
_KEPT_PICTURES = 256
_KEPT_PLACES = 1024
_TYPES = {"I64": np.int64, "F64": np.float64}


class StoredPictures:
    """The pictures of one installation; those asked for last are kept, small as they are."""

    def __init__(self, objects: ObjectStore) -> None:
        self.objects = objects
        # A key names exactly what made its content, so what was read once stays true.
        self._places = lru_cache(_KEPT_PLACES)(self._read_places)
        self.picture = lru_cache(_KEPT_PICTURES)(self._picture)

    def _picture(self, key: str, seconds: float | None, width: int) -> bytes:
        """JPEG of the picture nearest to `seconds` (None: a third of the way in), at most `width` pixels wide.

        Raises `store.missing`, `store.artifact_damaged`.
        """
        try:
            start, offsets, times = self._places(key)
            wanted = times[0] + (times[-1] - times[0]) * SHARE if seconds is None else seconds
            place = int(np.argmin(np.abs(times - wanted)))
            length = int(offsets[place + 1] - offsets[place])
            if not 0 < length <= _MOST_PICTURE:
                raise ValueError("a picture of that size")
            with self.objects.open_part(key, start + int(offsets[place]), length) as stream:
                return _resized(stream.read(), width)
        except ReelsenseError:
            raise
        except Exception as error:
            raise PassingError(
                "store.artifact_damaged",
                f"The pictures of {key} cannot be read: {type(error).__name__}.",
                hint="`reelsense reconcile --verify` makes damaged artifacts again.",
            ) from error

    def _read_places(self, key: str) -> tuple[int, npt.NDArray[np.int64], npt.NDArray[np.float64]]:
        """Where in the object the pictures begin, where among them each begins, and the second of each."""
        header_length = int.from_bytes(self._bytes(key, 0, 8), "little")
        if not 0 < header_length <= _MOST_HEADER:
            raise ValueError("a header of that size")
        header = json.loads(self._bytes(key, 8, header_length))
        after = 8 + header_length
        offsets = self._array(key, after, header["offsets"])
        times = self._array(key, after, header["seconds"])
        begin, end = header["jpeg"]["data_offsets"]
        if not 0 < len(times) <= MOST_FRAMES or offsets.shape != (len(times) + 1,):
            raise ValueError("an array is of another shape")
        if offsets[0] != 0 or offsets[-1] != end - begin or not np.all(np.diff(offsets) > 0):
            raise ValueError("the offsets are out of order")
        if not np.isfinite(times).all():
            raise ValueError("a time is not finite")
        return after + int(begin), offsets, times

    def _array(self, key: str, after: int, said: dict[str, Any]) -> npt.NDArray[Any]:
        begin, end = said["data_offsets"]
        if not 0 <= begin < end <= begin + 8 * (MOST_FRAMES + 1):
            raise ValueError("an array of that size")
        return np.frombuffer(self._bytes(key, after + begin, end - begin), _TYPES[said["dtype"]])

    def _bytes(self, key: str, first: int, length: int) -> bytes:
        with self.objects.open_part(key, first, length) as stream:
            data = stream.read()
        if len(data) != length:
            raise ValueError("the object ends too early")
        return data


def _resized(data: bytes, width: int) -> bytes:
    from PIL import Image

    # No other decoder than this one is asked, whatever the bytes begin with.
    with Image.open(io.BytesIO(data), formats=["JPEG"]) as image:
        if max(image.size) > MOST_SIDE or image.mode != "RGB":
            raise ValueError("a picture of another size or kind than are kept")
        if image.width > width:
            height = max(1, round(image.height * width / image.width))
            image.draft("RGB", (width, height))  # JPEG decodes at half or a quarter of the size for next to nothing
            small = image.resize((width, height), Image.Resampling.LANCZOS)
        else:
            small = image.copy()
    target = io.BytesIO()
    small.save(target, "JPEG", quality=QUALITY)
    return target.getvalue()
