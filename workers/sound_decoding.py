"""The sound of a video in one pass, at the rate that an encoder wants."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from store.errors import MediaError
from store.records import Float32, Sound
from store.settings import Limits
from workers.containers import audio_stream, declared_seconds, opened, video_stream
from workers.decoder_limits import bound_sound, check_sound
from workers.decoding import Damage, falls_short, frames_of

if TYPE_CHECKING:
    from av.container import InputContainer


def read_sound(source: BinaryIO | Path, rate_hz: int, limits: Limits) -> Sound:
    """Decode the main sound track at `rate_hz`: one channel stays one, two stay two, more are mixed down to two.

    The sound is never cut to the picture: it may begin and end before or after it. No track gives `present` false.
    Damage never raises: what could be decoded is returned as `degraded`, and so is a track that no decoder knows (with
    no samples). At most `limits.seconds` are read. Raises `media.sound_out_of_range`, `media.too_many_packets`.
    """
    with opened(source, limits) as container:
        stream = audio_stream(container)
        if stream is None:
            unknown = len(container.streams.audio) > 0
            return Sound(np.zeros((1, 0), np.float32), rate_hz, present=unknown, degraded=unknown)
        declared = declared_seconds(container, stream)
        context: Any = stream.codec_context
        bound_sound(context, limits)
        channels = min(2, context.channels or 1)
        damage = Damage()
        resampler = _Resampler("mono" if channels == 1 else "stereo", rate_hz, damage)
        start, most = None, int(limits.seconds * rate_hz)
        for frame in frames_of(container, stream, damage, limits):
            if start is None:
                start = frame.time or 0.0
            check_sound(frame, limits)
            room = most - resampler.count
            # At an absurd rate, one frame may last for weeks: it is not resampled to see how long it is.
            fits = frame.samples * rate_hz <= 2 * room * frame.sample_rate
            if fits:
                resampler.take(frame)
            if not fits or resampler.count >= most:
                damage.seen = True  # the rest is left out: more sound than a video may have
                break
        else:
            resampler.flush()
        offset = (start or 0.0) - _video_start(container)
    samples = np.concatenate(resampler.chunks, axis=1) if resampler.chunks else np.zeros((channels, 0), np.float32)
    samples = samples[:, :most]
    if not np.isfinite(samples).all():
        # Float tracks may hold anything at all.
        damage.seen = True
        samples = np.nan_to_num(samples, nan=0.0, posinf=0.0, neginf=0.0)
    return Sound(
        samples=np.ascontiguousarray(np.clip(samples, -1.0, 1.0), np.float32),
        rate_hz=rate_hz,
        present=True,
        start_seconds=offset,
        declared_seconds=declared,
        degraded=damage.seen or falls_short(samples.shape[1] / rate_hz, declared),
    )


@dataclass
class _Resampler:
    """Collects sound as float32 [channels, n] chunks of one rate and layout, though the track may change its own."""

    layout: str
    rate_hz: int
    damage: Damage
    chunks: list[Float32] = field(default_factory=list)
    count: int = 0
    _inner: Any = None
    _form: tuple[str, str, int] | None = None

    def take(self, frame: Any) -> None:
        import av

        form = (frame.format.name, frame.layout.name, frame.sample_rate)
        if form != self._form:
            self.flush()
            self._inner = av.AudioResampler(format="fltp", layout=self.layout, rate=self.rate_hz)
            self._form = form
        self._push(frame)

    def flush(self) -> None:
        """What the filter still holds back."""
        if self._inner is not None:
            self._push(None)
            self._inner = None

    def _push(self, frame: Any) -> None:
        import av

        try:
            converted = self._inner.resample(frame)
        except (av.FFmpegError, ValueError):
            self.damage.seen = True
            return
        self.chunks += [item.to_ndarray() for item in converted]
        self.count += sum(item.samples for item in converted)


def _video_start(container: InputContainer) -> float:
    try:
        stream = video_stream(container)
    except MediaError:
        return 0.0
    if stream.start_time is None or stream.time_base is None:
        return 0.0
    return float(stream.start_time * stream.time_base)
