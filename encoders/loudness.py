"""How loud a sound is for people: integrated loudness by EBU R128, in LUFS, measured by ffmpeg's `ebur128` filter."""

from __future__ import annotations

import re
import subprocess

import numpy as np

from store.errors import PassingError
from store.records import Float32

BLOCK_SECONDS = 0.4
SILENCE_LUFS = -70.0
TIMEOUT_SECONDS = 60.0
# The summary stands at the end of ffmpeg's log; the filter's own per-frame lines have no line that starts with "I:".
_INTEGRATED = re.compile(r"^\s*I:\s*(-?\d+(?:\.\d+)?|-inf|nan)\s+LUFS", re.MULTILINE)


def integrated_loudness(samples: Float32, rate_hz: int, timeout_seconds: float = TIMEOUT_SECONDS) -> float | None:
    """Integrated loudness in LUFS of `samples` (float32 [1 or 2 channels, n] at `rate_hz`), in steps of 0.1.

    None where EBU R128 has no value: shorter than one gating block (0.4 s), or nothing above its absolute gate of
    -70 LUFS. By ITU-R BS.1770-4 the power of the channels is added up, so that a sine of 1 kHz at -23 dBFS in both
    channels is -23.0 LUFS (EBU Tech 3341, test case 1) and in a single channel -26.0. A mono sound is played by both
    loudspeakers all the same; it is measured as it is heard, as two equal channels ("dual mono"), and is -23.0 too.

    ffmpeg sees nothing but our own raw samples on its standard input, and may read nothing else. Raises PassingError
    (`stage.timeout` after `timeout_seconds`, `internal` when ffmpeg fails).
    """
    import ffmpeg
    import imageio_ffmpeg

    channels, count = samples.shape
    if channels not in (1, 2):
        raise ValueError(f"samples must have 1 or 2 channels, got {channels}")
    if count < BLOCK_SECONDS * rate_hz:
        return None
    sound = ffmpeg.input("pipe:0", format="f32le", ac=channels, ar=rate_hz, protocol_whitelist="pipe")
    measured = sound.filter("ebur128", framelog="quiet", dualmono="true" if channels == 1 else "false")
    command = ffmpeg.compile(
        measured.output("-", format="null"), cmd=[imageio_ffmpeg.get_ffmpeg_exe(), "-hide_banner", "-nostats"]
    )
    interleaved = np.ascontiguousarray(samples.T, dtype="<f4")
    try:
        done = subprocess.run(
            command, input=interleaved.data.cast("B"), capture_output=True, timeout=timeout_seconds, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise PassingError(
            "stage.timeout",
            f"Measuring the loudness of {count / rate_hz:.0f} s of sound took longer than {timeout_seconds:g} s.",
            hint="The machine is overloaded; the stage will be tried again.",
        ) from error
    log = done.stderr.decode("utf-8", "replace")
    found = _INTEGRATED.findall(log)
    if done.returncode != 0 or not found:
        last = log.strip().splitlines()[-1] if log.strip() else "no message"
        raise PassingError("internal", f"ffmpeg could not measure loudness (exit status {done.returncode}): {last}")
    loudness = float(found[-1])
    return loudness if np.isfinite(loudness) and loudness > SILENCE_LUFS else None
