"""Speech, music, noise and silence over time: segments that tile a sound, from speech activity and held tones.

Speech activity alone is fooled by jazz, by cartoons and by singing. What tells singing from speaking is what it stands
in: tones that hold their pitch, and no pauses. Both are measured by loudness, since a pause full of hum says nothing of
the voice around it. The bounds were read off some forty real clips (`bench.quality_sound` measures them); between
four evidences that change every tenth of a second, the Viterbi path decides, so that nothing flickers.
"""

from __future__ import annotations

from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt
from numpy.lib.stride_tricks import sliding_window_view

from store.records import Float32, SoundSegment

Float64 = npt.NDArray[np.float64]
Kind = Literal["speech", "music", "noise", "silence"]

SILENCE_DB = -60.0
SUSTAINED_FRAMES = 8
SUSTAINED_BINS = slice(8, 400)  # 86 Hz to 4.3 kHz: above mains hum, below sibilants
FLOOR_POWER = 1e-9  # -90 dB: below it is the noise of any recorder
# A frame is 93 ms and a hop 23 ms, whatever the rate: 2048 and 512 samples at 22,050 Hz.
FRAME_SECONDS, HOP_SECONDS = 2048 / 22050, 512 / 22050
PIECE_FRAMES = 1024

STEP_SECONDS = 0.1
VOICE_SECONDS = 0.5
TONES_SECONDS = 4.0
SINGING_SECONDS = 4.0
EVIDENCE_LEAST = 0.1
SWITCH_COST = 8.0
# Shortest stretch of each kind that is told; a shorter one belongs to what stands around it.
LEAST_SECONDS: dict[Kind, float] = {"speech": 0.3, "music": 3.0, "noise": 0.5, "silence": 0.8}
_KINDS: tuple[Kind, ...] = get_args(Kind)


def sound_segments(
    level_db: Float64,
    sustained: Float64,
    speech: Float32,
    *,
    rate_hz: float,
    speech_window_seconds: float,
    seconds: float,
    beat: Float64 | None = None,
) -> list[SoundSegment]:
    """Segments that tile 0 to `seconds`, neighbours of different kinds.

    `level_db` [n_frames] dBFS and `sustained` [n_frames] 0..1, the share of held tones, come `rate_hz` a second;
    `speech` [n_windows] is the probability of speech in each `speech_window_seconds`. `beat` [n_frames] 0..1 speaks for
    music without tones.
    """
    if seconds <= 0 or len(level_db) == 0:
        return []
    count = max(round(seconds / STEP_SECONDS), 1)
    moments = np.arange(len(level_db)) / rate_hz
    voice = speech[np.minimum((moments / speech_window_seconds).astype(int), len(speech) - 1)] if len(speech) else 0.0
    voice = np.broadcast_to(np.asarray(voice, np.float64), level_db.shape)
    evidence = _evidence(level_db, sustained, voice, beat, rate_hz)
    step = np.minimum((moments / STEP_SECONDS).astype(int), count - 1)
    totals = np.stack([np.bincount(step, column, count) for column in evidence.T], axis=1)
    frames = np.bincount(step, minlength=count)
    filled = np.maximum.accumulate(np.where(frames > 0, np.arange(count), 0))
    means = totals[filled] / np.maximum(frames[filled], 1)[:, None]
    return _segments(_without_scraps(_best_path(np.log(np.maximum(means, EVIDENCE_LEAST)))), seconds)


def shifted(segments: list[SoundSegment], seconds: float) -> list[SoundSegment]:
    """The same segments on a clock on which the sound begins at `seconds`."""
    return [
        segment.model_copy(update={"start": round(segment.start + seconds, 3), "end": round(segment.end + seconds, 3)})
        for segment in segments
    ]


def _evidence(level_db: Float64, sustained: Float64, voice: Float64, beat: Float64 | None, rate_hz: float) -> Float64:
    """[n_frames, 4] 0..1 for each of `_KINDS`, which sum to one."""
    amplitude = 10.0 ** (np.maximum(level_db, -90.0) / 20.0)
    silent = _silent(level_db, rate_hz)
    speaks = _around(voice, amplitude, VOICE_SECONDS * rate_hz)
    tones = np.clip((_around(sustained, amplitude, TONES_SECONDS * rate_hz) - 0.04) / 0.06, 0.0, 1.0)
    if beat is not None:
        tones = np.maximum(tones, beat)
    sings = _singing(level_db, sustained, rate_hz)
    spoken = speaks * (1.0 - sings)
    music = (1.0 - speaks) * tones + speaks * sings
    noise = (1.0 - speaks) * (1.0 - tones)
    return np.stack([*((1.0 - silent) * kind for kind in (spoken, music, noise)), silent], axis=1)


def _silent(level_db: Float64, rate_hz: float) -> Float64:
    """[n_frames] 0 or 1: where nothing is heard for long enough; the gaps of a slow beat are no silence."""
    quiet = np.concatenate([[False], level_db <= SILENCE_DB, [False]]).astype(np.int8)
    edges = np.flatnonzero(np.diff(quiet))
    silent = np.zeros(len(level_db))
    for first, last in edges.reshape(-1, 2):
        if last - first >= LEAST_SECONDS["silence"] * rate_hz or last - first == len(level_db):
            silent[first:last] = 1.0
    return silent


def _singing(level_db: Float64, sustained: Float64, rate_hz: float) -> Float64:
    """[n_frames] 0..1: whether a voice would be a singer's, by four seconds before and four after, whichever says less.

    A speaker is silent, or 6 dB under his mean, for a quarter to a half of the time; over music nobody ever is. In a
    song's sung parts the held tones make 0.07 of the power and more, in speech 0.05 and less.
    """
    count = len(level_db)
    length = min(max(round(SINGING_SECONDS * rate_hz), 1), count)
    power = 10.0 ** (np.maximum(level_db, -90.0) / 10.0)
    mean, held = (sliding_window_view(values, length).mean(axis=1) for values in (power, power * sustained))
    low = (sliding_window_view(power, length) < mean[:, None] * 10.0**-0.6).mean(axis=1)
    # By the first frame of the stretch; at an end of the sound a stretch is moved inwards, not cut.
    sings = np.clip((held / mean + 0.2 * (0.2 - low) - 0.03) / 0.05, 0.0, 1.0)
    frames = np.arange(count)
    before, after = sings[np.maximum(frames - length, 0)], sings[np.minimum(frames, count - length)]
    return np.asarray(np.minimum(before, after), np.float64)


def _around(values: Float64, weights: Float64, length: float) -> Float64:
    """Mean of `values` over the `length` frames around each, by `weights`."""
    half = max(round(length / 2), 0)
    totals = np.concatenate([np.zeros((2, 1)), np.cumsum([values * weights, weights], axis=1)], axis=1)
    frames = np.arange(len(values))
    first, last = np.maximum(frames - half, 0), np.minimum(frames + half + 1, len(values))
    summed, weight = totals[:, last] - totals[:, first]
    return np.asarray(summed / np.maximum(weight, 1e-30))


def _best_path(scores: Float64) -> list[int]:
    """The kind of each step: the path of the highest sum of `scores` [n_steps, 4] less what changes cost."""
    best = scores[0]
    came = np.zeros(scores.shape, np.intp)
    for index in range(1, len(scores)):
        other = int(np.argmax(best))
        stays = best >= best[other] - SWITCH_COST
        came[index] = np.where(stays, np.arange(scores.shape[1]), other)
        best = np.where(stays, best, best[other] - SWITCH_COST) + scores[index]
    path = [int(np.argmax(best))]
    for index in range(len(scores) - 1, 0, -1):
        path.append(int(came[index, path[-1]]))
    return path[::-1]


def _without_scraps(path: list[int]) -> list[tuple[Kind, int]]:
    """Runs (kind, steps) of `path`, those that are too short given to their longer neighbour, the shortest first."""
    runs: list[list[int]] = []
    for kind in path:
        if runs and runs[-1][0] == kind:
            runs[-1][1] += 1
        else:
            runs.append([kind, 1])
    while len(runs) > 1:
        short = [
            (length, index)
            for index, (kind, length) in enumerate(runs)
            if length * STEP_SECONDS < LEAST_SECONDS[_KINDS[kind]] - 1e-9
        ]
        if not short:
            break
        index = min(short)[1]
        beside = [place for place in (index - 1, index + 1) if 0 <= place < len(runs)]
        runs[index][0] = runs[max(beside, key=lambda place: runs[place][1])][0]
        joined: list[list[int]] = []
        for kind, steps in runs:
            if joined and joined[-1][0] == kind:
                joined[-1][1] += steps
            else:
                joined.append([kind, steps])
        runs = joined
    return [(_KINDS[kind], length) for kind, length in runs]


def _segments(runs: list[tuple[Kind, int]], seconds: float) -> list[SoundSegment]:
    ends = np.cumsum([length for _, length in runs]) * STEP_SECONDS
    bounds = [0.0, *(round(float(end), 2) for end in ends[:-1]), round(seconds, 3)]
    return [
        SoundSegment(start=start, end=end, kind=kind)
        for (kind, _), start, end in zip(runs, bounds[:-1], bounds[1:], strict=True)
    ]


# --- held tones ------------------------------------------------------------------------------------------------------


def spectral_peaks(power: npt.NDArray[np.floating[Any]]) -> npt.NDArray[np.bool_]:
    """Where a bin [n_bins, n_frames] is above both its neighbours."""
    peaks = np.zeros(power.shape, np.bool_)
    peaks[1:-1] = (power[1:-1] > power[:-2]) & (power[1:-1] > power[2:])
    return peaks


def no_runs() -> npt.NDArray[np.int64]:
    """The `runs` of `held_tones` before the first frame."""
    return np.zeros(SUSTAINED_BINS.stop - SUSTAINED_BINS.start, np.int64)


def held_tones(
    power: npt.NDArray[np.floating[Any]], peaks: npt.NDArray[np.bool_], runs: npt.NDArray[np.int64]
) -> tuple[Float64, npt.NDArray[np.int64]]:
    """Share of the peaks' power, per frame, in peaks that stand in their bin for the ninth frame or longer.

    Tones hold their frequency, the pitch of a voice glides. Peaks 40 dB below the frame's highest are not looked at.
    `runs` [n_bins] counts the frames for which each peak has stood, and goes on from piece to piece.
    """
    middle = power[SUSTAINED_BINS]
    loud = peaks[SUSTAINED_BINS] & (middle > 1e-4 * power.max(axis=0)) & (middle > FLOOR_POWER)
    shares = np.zeros(power.shape[1])
    for index in range(power.shape[1]):
        runs = (runs + 1) * loud[:, index]
        column = middle[:, index].astype(np.float64)
        total = column[loud[:, index]].sum()
        if total > 0:
            shares[index] = column[runs > SUSTAINED_FRAMES].sum() / total
    return shares, runs


def levels_and_tones(samples: Float32, rate_hz: int) -> tuple[Float64, Float64, float]:
    """`level_db` and `sustained` [n_frames] of `samples` (float32 [n]), and frames a second, for who needs no more.

    Frames last as long as those of the audio encoder at its own rate, and mean the same.
    """
    import librosa

    hop = round(HOP_SECONDS * rate_hz)
    size = 2 * round(FRAME_SECONDS * rate_hz / 2)
    window = librosa.filters.get_window("hann", size)
    padded = np.pad(samples, size // 2)
    count = 1 + len(samples) // hop
    runs, levels, tones = no_runs(), [], []
    for start in range(0, count, PIECE_FRAMES):
        stop = min(start + PIECE_FRAMES, count)
        piece = padded[start * hop : (stop - 1) * hop + size]
        spectrum = librosa.stft(piece, n_fft=size, hop_length=hop, center=False, window=window)
        power = np.square(np.abs(spectrum)) * np.float32((2.0 / window.sum()) ** 2)
        power[: int(np.ceil(20.0 * size / rate_hz))] = 0.0
        share, runs = held_tones(power, spectral_peaks(power), runs)
        levels.append(10.0 * np.log10(np.maximum(power.sum(axis=0, dtype=np.float64) / 3.0, 1e-12)))
        tones.append(share)
    return np.concatenate(levels), np.concatenate(tones), rate_hz / hop
