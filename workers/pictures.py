"""One decoded picture as people would see it: upright, square pixels, whole lines, everyday brightness and colours.

What a file may hold and a picture of sRGB bytes may not: a display matrix (turned or mirrored), pixels that are not
square, two fields woven into one picture, ten bits, a wide range of brightness (PQ, HLG), transparency.
"""

from __future__ import annotations

from fractions import Fraction
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from workers.shots import THUMBNAIL

if TYPE_CHECKING:
    from av.video.frame import VideoFrame

Pixels = npt.NDArray[np.uint8]

# ITU-T H.273: transfer characteristics and colour primaries.
PQ, HLG = 16, 18
BT2020 = 9
# Outside of this, a pixel's aspect ratio is a mistake in the file.
WIDEST_PIXEL = Fraction(4)

REFERENCE_WHITE_NITS = 203.0  # ITU-R BT.2408: what a white page is, in HDR
PEAK_NITS = 1000.0
KNEE = 0.5  # of reference white: darker than this, nothing changes

# ITU-R BT.2087: linear light, BT.2020 to BT.709 primaries.
_TO_BT709 = np.array([[1.6605, -0.5876, -0.0728], [-0.1246, 1.1329, -0.0083], [-0.0182, -0.1006, 1.1187]], np.float32)
_BT2020_LUMA = np.array([0.2627, 0.6780, 0.0593], np.float32)


class PictureReader:
    """Turns the decoded pictures of one video track into pixels. `aspect` is width by height of one of its pixels."""

    def __init__(self, aspect: Fraction | None, short_side: int, long_side: int) -> None:
        from av.video.reformatter import VideoReformatter

        sane = aspect is not None and 1 / WIDEST_PIXEL <= aspect <= WIDEST_PIXEL
        self._aspect = float(aspect) if aspect is not None and sane else 1.0
        self._short, self._long = short_side, long_side
        # One each: a reformatter is set up anew whenever its sizes change.
        self._to_thumbnail, self._to_picture = VideoReformatter(), VideoReformatter()

    def thumbnail(self, frame: VideoFrame) -> Pixels:
        """uint8 [36, 64, 3] RGB, each pixel the mean of its area; as stored: neither turned nor tone-mapped."""
        return self._rgb(self._to_thumbnail, frame, *THUMBNAIL, "AREA")

    def size(self, frame: VideoFrame) -> tuple[int, int]:
        """Width and height at which a player would show it: upright, pixels square, the sharper side as it is."""
        width, height = self._squared(frame)
        size = max(1, round(width)), max(1, round(height))
        return (size[1], size[0]) if orientation(frame)[0] else size

    def picture(self, frame: VideoFrame) -> Pixels:
        """uint8 [height, width, 3] RGB, at most so large as this reader was told."""
        width, height = self._squared(frame)
        scale = min(1.0, self._short / min(width, height), self._long / max(width, height))
        size = max(1, round(width * scale)), max(1, round(height * scale))
        whole = deinterlaced(frame) if frame.interlaced_frame else frame
        if frame.color_trc in (PQ, HLG):
            wide = self._to_picture.reformat(whole, *size, format="rgb48le", interpolation="BICUBIC", threads=1)
            pixels = tone_mapped(
                wide.to_ndarray().astype(np.uint16, copy=False), frame.color_trc, frame.color_primaries
            )
        else:
            pixels = self._rgb(self._to_picture, whole, *size, "BICUBIC")
        transposed, mirrored, flipped = orientation(frame)
        if transposed:
            pixels = pixels.transpose(1, 0, 2)
        return np.ascontiguousarray(pixels[:: -1 if flipped else 1, :: -1 if mirrored else 1])

    def _squared(self, frame: VideoFrame) -> tuple[float, float]:
        """Width and height with square pixels: the side that is stored more coarsely grows."""
        width, height = float(frame.width), float(frame.height)
        return (width * self._aspect, height) if self._aspect >= 1 else (width, height / self._aspect)

    @staticmethod
    def _rgb(reformatter: Any, frame: VideoFrame, width: int, height: int, interpolation: str) -> Pixels:
        alpha = any(component.is_alpha for component in frame.format.components)
        form = "rgba" if alpha else "rgb24"
        found = reformatter.reformat(frame, width, height, format=form, interpolation=interpolation, threads=1)
        pixels: Pixels = found.to_ndarray()
        return _on_black(pixels) if alpha else pixels


def _on_black(rgba: Pixels) -> Pixels:
    """What a player shows of a transparent picture; the colours stored below transparency are arbitrary."""
    weight = rgba[..., 3:].astype(np.uint16)
    shown: Pixels = ((rgba[..., :3] * weight + 127) // 255).astype(np.uint8)
    return shown


def orientation(frame: VideoFrame) -> tuple[bool, bool, bool]:
    """How the stored picture becomes upright: rows and columns exchanged, then mirrored (left-right), then flipped.

    From the display matrix of ISO/IEC 14496-12 (nine 32-bit numbers a b u c d v x y w; a point of column p and row q
    goes to column a p + c q, row b p + d q), to the nearest quarter turn.
    """
    side = frame.side_data.get("DISPLAYMATRIX")
    if side is None:
        return False, False, False
    matrix = np.frombuffer(memoryview(side), np.int32)  # type: ignore[arg-type]
    if matrix.size < 9:
        return False, False, False
    a, b, _, c, d = (int(number) for number in matrix[:5])
    if abs(a) + abs(d) >= abs(b) + abs(c):
        return False, a < 0, d < 0
    return True, c < 0, b < 0


def deinterlaced(frame: VideoFrame) -> VideoFrame:
    """The first field of a picture of two, its missing lines interpolated along edges from the field itself.

    The pictures before and after are not asked: only what is kept pays, which is a few of thousands.
    """
    import av
    from av.filter import Graph

    graph = Graph()
    graph.threads = 1
    source = graph.add_buffer(
        width=frame.width, height=frame.height, format=frame.format, time_base=frame.time_base or Fraction(1, 1000)
    )
    graph.link_nodes(source, graph.add("estdif", "mode=frame:parity=auto:deint=all"), graph.add("buffersink"))
    try:
        graph.configure()
        graph.vpush(frame)
        graph.vpush(None)
        return graph.vpull()
    except (av.FFmpegError, ValueError):
        return frame  # a format that the filter does not take: both fields are better than none


def tone_mapped(wide: npt.NDArray[np.uint16], transfer: int, primaries: int) -> Pixels:
    """uint8 sRGB [height, width, 3] of a `wide` picture uint16 [height, width, 3] in PQ or HLG.

    Light in nits by SMPTE ST 2084 or ITU-R BT.2100 (HLG at a peak of 1000 nits, system gamma 1.2), BT.2020 primaries
    to BT.709; up to half of reference white (203 nits, BT.2408) as it is, above it the brightest channel x of a pixel
    becomes k + (1 - k) z (1 + z / z_peak^2) / (1 + z) with z = (x - k) / (1 - k): a curve that leaves the knee k with
    slope one and reaches white at the peak. The other channels follow in proportion, so that the hue stays.
    """
    signal = wide.astype(np.float32) / 65535.0
    nits = _pq_nits(signal) if transfer == PQ else _hlg_nits(signal)
    light = nits / REFERENCE_WHITE_NITS
    if primaries in (BT2020, 2):  # 2: not said, and no other is in use with these transfers
        light = np.maximum(light @ _TO_BT709.T, 0.0)
    peak = (PEAK_NITS / REFERENCE_WHITE_NITS - KNEE) / (1 - KNEE)
    brightest = np.maximum(light.max(axis=2, keepdims=True), 1e-6)
    over = np.maximum(brightest - KNEE, 0.0) / (1 - KNEE)
    rolled = KNEE + (1 - KNEE) * over * (1 + over / peak**2) / (1 + over)
    light = np.clip(light * np.where(brightest > KNEE, rolled / brightest, 1.0), 0.0, 1.0)
    encoded = np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)  # IEC 61966-2-1
    pixels: Pixels = np.round(encoded * 255).astype(np.uint8)
    return pixels


def _pq_nits(signal: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """SMPTE ST 2084: light in nits of a signal in 0..1."""
    m1, m2 = 2610 / 16384, 2523 / 32
    c1, c2, c3 = 3424 / 4096, 2413 / 128, 2392 / 128
    root = signal ** np.float32(1 / m2)
    light: npt.NDArray[np.float32] = 10_000 * (np.maximum(root - c1, 0) / (c2 - c3 * root)) ** np.float32(1 / m1)
    return light


def _hlg_nits(signal: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """ITU-R BT.2100: light in nits, on a display of 1000, of a signal in 0..1."""
    a = 0.17883277
    b, c = 1 - 4 * a, 0.5 - a * np.log(4 * a)
    scene = np.where(signal <= 0.5, signal**2 / 3, (np.exp((signal - c) / a) + b) / 12).astype(np.float32)
    luminance = np.maximum(scene @ _BT2020_LUMA, 1e-6)[..., np.newaxis]
    light: npt.NDArray[np.float32] = (PEAK_NITS * luminance ** np.float32(0.2) * scene).astype(np.float32)
    return light
