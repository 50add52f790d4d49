"""The sound of a video as tokens of timbre, tone and rhythm, one a window, and what people can read of it.

One spectrogram, from librosa, is shared by all features; it is made piece by piece, so that memory does not grow with
its 1,025 bins a frame. Functions that are slow (chroma_cqt, hpss, pyin) or compile at their first call (beat_track) are
not used.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache as remember
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field

from encoders.loudness import integrated_loudness
from encoders.music import (
    TEMPO_HIGHEST,
    TEMPO_LOWEST,
    MusicCues,
    TypeCues,
    beat_believed,
    beat_presence,
    enough_music,
    key_in_music,
    key_of,
    music_of,
    music_presence,
    onset_frames,
    pulse_correlation,
    pulse_of,
    ramp,
    tempo_of,
    type_of,
)
from encoders.samples import mended, mixed
from encoders.sound_kinds import FLOOR_POWER, SILENCE_DB, held_tones, no_runs, shifted, sound_segments, spectral_peaks
from encoders.speech_activity import RATE_HZ as SPEECH_RATE_HZ
from encoders.speech_activity import WINDOW_SECONDS as SPEECH_WINDOW_SECONDS
from encoders.speech_activity import SpeechActivity
from store.artifacts import digest
from store.records import AudioAttributes, Encoded, Float32, Music, Sound, SoundSegment, Tokens

Float64 = npt.NDArray[np.float64]

FFT_SAMPLES = 2048
HOP_SAMPLES = 512
PIECE_FRAMES = 1024
MEL_BANDS = 40
MFCCS = 13
TEMPO_BANDS = 8
FULL_DB = -30.0
ACCENT_EXPONENT = 0.7
STANDARD_LIMIT = 4.0
REFERENCE_FILE = "audio_reference.json"

# Tonal balance: the bounds in Hz of sub-bass, bass, low middle, middle, presence and brilliance.
BALANCE_HZ = (20.0, 120.0, 250.0, 500.0, 2000.0, 4000.0, 11025.0)

FEATURES: tuple[str, ...] = (
    *(f"mel_shape_{band}" for band in range(MEL_BANDS)),
    *(f"mel_spread_{band}" for band in range(MEL_BANDS)),
    *(f"mfcc_{index}" for index in range(1, MFCCS + 1)),
    *(f"mfcc_spread_{index}" for index in range(1, MFCCS + 1)),
    *(f"mfcc_delta_spread_{index}" for index in range(1, MFCCS + 1)),
    *(f"chroma_{name}" for name in ("c", "cs", "d", "ds", "e", "f", "fs", "g", "gs", "a", "as", "b")),
    "chroma_peak",
    "sustained",
    *(f"contrast_{band}" for band in range(7)),
    *(f"contrast_spread_{band}" for band in range(7)),
    *(f"balance_{band}" for band in range(len(BALANCE_HZ) - 1)),
    *("centroid", "centroid_spread", "bandwidth", "bandwidth_spread", "rolloff", "rolloff_spread"),
    *("flatness", "flatness_spread", "crossings", "crossings_spread"),
    *("level", "level_spread", "level_range", "level_low_share"),
    *("onset", "onset_spread", "onset_rate"),
    *(f"tempogram_{band}" for band in range(TEMPO_BANDS)),
)
AUDIO_DIM = len(FEATURES)


class AudioConfig(BaseModel):
    """What changes an audio artifact, besides the reference (`reference_digest`)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    rate_hz: Literal[22050] = Field(22050, description="Rate at which the sound is decoded, Hz; the features hold it.")
    window_seconds: float = Field(5.0, ge=1, le=60, description="Length of a token, in seconds, about.")
    max_windows: int = Field(64, ge=1, le=1024, description="Most tokens of a video; longer sounds get longer windows.")
    music: Literal["librosa", "vibenet"] = Field("librosa", description="What reads energy and valence of music.")


@dataclass(frozen=True, eq=False)
class SoundFrames:
    """What is heard in each hop of 23 ms, [n_frames] or [n_frames, ...], float64; full-scale sine is 0 dB in a band.

    `level_db` is dBFS by mean square over 20 Hz (a full-scale sine is -3), `onset` the mean rise of the bands in dB,
    `accent` the mean rise of their power to 0.7, in which a drum outweighs a hat,
    `chroma` power of the spectral peaks by pitch class from C, tuned to A = 440 Hz, `sustained` 0..1 the share of the
    peaks' power that has stayed in its bin for 0.2 s.
    """

    mel_db: Float64
    chroma: Float64
    contrast: Float64
    balance: Float64
    centroid_hz: Float64
    bandwidth_hz: Float64
    rolloff_hz: Float64
    flatness: Float64
    crossings: Float64
    level_db: Float64
    sustained: Float64
    onset: Float64
    accent: Float64
    rate_hz: float

    def __len__(self) -> int:
        return len(self.level_db)


class AudioEncoder:
    """Hears the sound of a video. Its tokens need no training: they are standard features, standardised."""

    def __init__(self, config: AudioConfig, cache: Path, threads: int = 1) -> None:
        """Load the models. `cache` is where unpacked weights live. Raises ModelError."""
        from threadpoolctl import ThreadpoolController  # type: ignore[import-untyped]

        self.config = config
        self._blas = ThreadpoolController()
        self._activity = SpeechActivity(cache, threads)
        self._mean, self._scale = _reference()
        self._mood_model = None
        if config.music == "vibenet":
            from encoders.music_vibenet import VibenetMusic

            self._mood_model = VibenetMusic()

    def __call__(self, sound: Sound) -> Encoded:
        """Tokens [n_windows, AUDIO_DIM] that tile the sound, times on the video's clock, and `AudioAttributes`.

        `sound` is at `config.rate_hz`. NaN, infinite and absurdly large samples are damage: they are replaced and the
        result says `degraded`. Salience rises from 0 at -60 dBFS to 1 at -30 dBFS.

        A track that is silent throughout has no tokens: there is nothing in it to attend to, and a vector of silence
        would make all silent videos alike. Silent windows of a sound that is not silent stay, with salience 0, so that
        tokens tile the time.
        """
        if sound.rate_hz != self.config.rate_hz:
            raise ValueError(f"sound must be at {self.config.rate_hz} Hz, got {sound.rate_hz}")
        if not sound.present:
            return Encoded(Tokens.none(AUDIO_DIM), AudioAttributes(present=False, degraded=sound.degraded))
        samples, damaged = mended(sound.samples)
        heard = AudioAttributes(
            present=True,
            seconds_decoded=sound.seconds,
            seconds_declared=sound.declared_seconds,
            degraded=sound.degraded or damaged,
            silence_share=1.0,
        )
        if samples.shape[1] == 0:
            return Encoded(Tokens.none(AUDIO_DIM), heard)
        # A matrix product by two threads differs in its last bits from that by one: the same input, the same bytes.
        with self._blas.limit(limits=1, user_api="blas"):
            return self._encode(samples, sound.start_seconds, heard)

    def _encode(self, samples: Float32, start_seconds: float, heard: AudioAttributes) -> Encoded:
        frames = sound_frames(samples, self.config.rate_hz)
        if not (frames.level_db > SILENCE_DB).any():
            silence = SoundSegment(start=0.0, end=round(heard.seconds_decoded, 3), kind="silence")
            quiet = heard.model_copy(update={"segments": shifted([silence], start_seconds)})
            return Encoded(Tokens.none(AUDIO_DIM), quiet)
        bounds = window_bounds(samples.shape[1], self.config.rate_hz, self.config)
        windows = _frame_windows(bounds, len(frames))
        tokens = self._tokens(frames, windows, bounds / self.config.rate_hz + start_seconds)
        return Encoded(tokens, self._attributes(samples, frames, windows, start_seconds, heard))

    def _tokens(self, frames: SoundFrames, windows: list[slice], seconds: Float64) -> Tokens:
        features = np.stack([window_features(frames, window) for window in windows])
        standard = np.clip((features - self._mean) / self._scale, -STANDARD_LIMIT, STANDARD_LIMIT)
        levels = np.array([_power_mean_db(frames.level_db[window]) for window in windows])
        return Tokens(
            standard.astype(np.float32),
            seconds[:-1].astype(np.float32),
            seconds[1:].astype(np.float32),
            ramp(levels, SILENCE_DB, FULL_DB).astype(np.float32),
        )

    def _attributes(
        self,
        samples: Float32,
        frames: SoundFrames,
        windows: list[slice],
        start_seconds: float,
        heard: AudioAttributes,
    ) -> AudioAttributes:
        rate, seconds = self.config.rate_hz, heard.seconds_decoded
        audible = frames.level_db > SILENCE_DB
        speech = self._speech(samples)
        presence, beat = _presence(frames, windows, speech)
        per_frame, beats = (
            np.concatenate([np.full(w.stop - w.start, p) for w, p in zip(windows, values, strict=True)])
            for values in (presence, beat)
        )
        segments = sound_segments(
            frames.level_db,
            frames.sustained,
            speech,
            rate_hz=frames.rate_hz,
            speech_window_seconds=SPEECH_WINDOW_SECONDS,
            seconds=seconds,
            beat=beats,
        )
        spoken = sum(segment.end - segment.start for segment in segments if segment.kind == "speech")
        pulse = pulse_of(frames.onset, frames.accent, frames.rate_hz)
        share = round(float(per_frame.mean()), 4)
        tempo = tempo_of(pulse, share)
        key = key_in_music(key_of(frames.chroma, frames.sustained * audible, frames.rate_hz), share)
        return heard.model_copy(
            update={
                "tempo": None if tempo is None else round(tempo, 2),
                "beat_strength": round(pulse.clarity, 4) if beat_believed(pulse, share) else None,
                "key": key.name,
                "mode": key.mode,
                "key_confidence": None if key.confidence is None else round(key.confidence, 4),
                "loudness": integrated_loudness(samples, rate),
                "onset_rate": round(len(onset_frames(frames.onset)) / max(seconds, 1.0), 3),
                "brightness": round(float(np.median(frames.centroid_hz[audible])), 1),
                "speech_share": round(min(spoken / seconds, 1.0), 4),
                "silence_share": round(1.0 - float(audible.mean()), 4),
                "segments": shifted(segments, start_seconds),
                "music": self._music(samples, frames, per_frame * audible, share, tempo, key.majorness).model_copy(
                    update=_type_of_music(frames, speech, segments, per_frame * audible, share, pulse.clarity)
                ),
            }
        )

    def _music(
        self,
        samples: Float32,
        frames: SoundFrames,
        weights: Float64,
        share: float,
        tempo: float | None,
        majorness: float,
    ) -> Music:
        seconds = samples.shape[1] / self.config.rate_hz
        if self._mood_model is not None and enough_music(share, seconds):
            return self._mood_model(mixed(samples), self.config.rate_hz, share)
        if weights.sum() == 0:
            return Music(share=share)
        return music_of(
            MusicCues(
                share=share,
                seconds=seconds,
                level_db=float(np.average(frames.level_db, weights=weights)),
                onset_strength=float(np.average(frames.onset, weights=weights)),
                brightness_hz=float(np.average(frames.centroid_hz, weights=weights)),
                tempo=tempo,
                majorness=majorness,
            )
        )

    def _speech(self, samples: Float32) -> Float32:
        import librosa

        mono = librosa.resample(
            mixed(samples), orig_sr=self.config.rate_hz, target_sr=SPEECH_RATE_HZ, res_type="soxr_hq"
        )
        return self._activity.probabilities(np.ascontiguousarray(mono, np.float32))


# --- windows --------------------------------------------------------------------------------------------------------


def window_bounds(count: int, rate_hz: int, config: AudioConfig) -> Float64:
    """Sample bounds [n_windows + 1] of windows of equal length that tile `count` samples."""
    windows = min(max(round(count / rate_hz / config.window_seconds), 1), config.max_windows)
    return np.round(np.linspace(0.0, count, windows + 1))


def _frame_windows(bounds: Float64, frame_count: int) -> list[slice]:
    """The frames of each window; the last window takes the frames at the very end too."""
    first = np.ceil(bounds / HOP_SAMPLES).astype(int)
    first[-1] = frame_count
    return [slice(int(start), int(stop)) for start, stop in pairwise(first)]


# --- the shared spectrogram ------------------------------------------------------------------------------------------


def sound_frames(samples: Float32, rate_hz: int) -> SoundFrames:
    """All frames of `samples` (float32 [channels, n]); frame i is centred on sample 512 i.

    Channels are averaged in power, not in samples: opposite phases must not cancel out.
    """
    count = 1 + samples.shape[1] // HOP_SAMPLES
    pieces: list[dict[str, Float64]] = []
    runs = no_runs()
    for start in range(0, count, PIECE_FRAMES):
        stop = min(start + PIECE_FRAMES, count)
        padded = _between(samples, start * HOP_SAMPLES - FFT_SAMPLES // 2, (stop - 1) * HOP_SAMPLES + FFT_SAMPLES // 2)
        piece, runs = _piece_features(padded, rate_hz, runs)
        pieces.append(piece)
    joined = {name: np.concatenate([piece[name] for piece in pieces]) for name in pieces[0]}
    rises = np.maximum(np.diff(joined["mel_db"], axis=0, prepend=joined["mel_db"][:1]), 0.0)
    strength = 10.0 ** (ACCENT_EXPONENT * joined["mel_db"] / 10.0)
    strokes = np.maximum(np.diff(strength, axis=0, prepend=strength[:1]), 0.0)
    return SoundFrames(**joined, onset=rises.mean(axis=1), accent=strokes.mean(axis=1), rate_hz=rate_hz / HOP_SAMPLES)


def _between(samples: Float32, start: int, stop: int) -> Float32:
    """Samples `start` to `stop`, zeros where there are none."""
    inside = samples[:, max(start, 0) : max(stop, 0)]
    before = max(-start, 0)
    return np.pad(inside, ((0, 0), (before, stop - start - before - inside.shape[1])))


def _piece_features(padded: Float32, rate_hz: int, runs: npt.NDArray[np.int64]) -> tuple[dict[str, Float64], Any]:
    import librosa

    window = librosa.filters.get_window("hann", FFT_SAMPLES)
    power = np.mean(
        [
            np.square(np.abs(librosa.stft(channel, n_fft=FFT_SAMPLES, hop_length=HOP_SAMPLES, center=False)))
            for channel in padded
        ],
        axis=0,
    )
    # Frame by frame in memory, as librosa lays it: sums over bins are then pairwise, and exact to 1e-6 in float32.
    power = np.asfortranarray(power * np.float32((2.0 / window.sum()) ** 2))
    hertz = librosa.fft_frequencies(sr=rate_hz, n_fft=FFT_SAMPLES)
    power[hertz < 20.0] = 0.0  # a DC offset is no sound
    magnitude = np.sqrt(power)
    peaks = spectral_peaks(power)
    mel = librosa.feature.melspectrogram(S=power, sr=rate_hz, n_mels=MEL_BANDS, norm=None)
    centroid = librosa.feature.spectral_centroid(S=magnitude, sr=rate_hz)
    sustained, runs = held_tones(power, peaks, runs)
    bands = [(hertz >= low) & (hertz < high) for low, high in pairwise(BALANCE_HZ)]
    features = {
        "mel_db": _db(mel).T,
        "chroma": librosa.feature.chroma_stft(S=np.where(peaks, power, 0.0), sr=rate_hz, tuning=0.0, norm=None).T,
        "contrast": librosa.feature.spectral_contrast(S=magnitude, sr=rate_hz).T,
        "balance": np.stack([_db(power[band].sum(axis=0)) for band in bands], axis=1),
        "centroid_hz": centroid[0],
        "bandwidth_hz": librosa.feature.spectral_bandwidth(S=magnitude, sr=rate_hz, centroid=centroid)[0],
        "rolloff_hz": librosa.feature.spectral_rolloff(S=magnitude, sr=rate_hz)[0],
        "flatness": librosa.feature.spectral_flatness(S=magnitude)[0],
        "crossings": librosa.feature.zero_crossing_rate(
            padded, frame_length=FFT_SAMPLES, hop_length=HOP_SAMPLES, center=False
        ).mean(axis=0)[0],
        # By Parseval, a Hann window and the scale above give three times the mean square.
        "level_db": 10.0 * np.log10(np.maximum(power.sum(axis=0, dtype=np.float64) / 3.0, 1e-12)),
        "sustained": sustained,
    }
    return {name: np.asarray(values, np.float64) for name, values in features.items()}, runs


def _db(power: npt.NDArray[np.floating[Any]]) -> Float64:
    return np.asarray(10.0 * np.log10(np.maximum(power, FLOOR_POWER)), np.float64)


# --- tokens and windows ----------------------------------------------------------------------------------------------


def window_features(frames: SoundFrames, window: slice) -> Float64:
    """float64 [AUDIO_DIM], in the order of `FEATURES`, not standardised, over the audible frames of `window`.

    The mean of the bands is taken off the spectrum, so that level is one feature and not forty.
    """
    import librosa

    level = frames.level_db[window]
    audible = level > SILENCE_DB
    chosen = np.flatnonzero(audible if audible.any() else np.ones(len(level), np.bool_)) + window.start
    mel = frames.mel_db[chosen]
    shape = mel.mean(axis=0)
    mfcc = librosa.feature.mfcc(S=mel.T, n_mfcc=MFCCS + 1)[1:]
    delta = librosa.feature.delta(mfcc, width=9, mode="nearest")
    chroma = frames.chroma[chosen]
    tones = (chroma / np.maximum(np.linalg.norm(chroma, axis=1, keepdims=True), 1e-30)).mean(axis=0)
    tones = tones / max(tones.sum(), 1e-30)
    contrast = frames.contrast[chosen]
    balance = frames.balance[chosen].mean(axis=0)
    onset = frames.onset[window]
    curves = [np.log2(np.maximum(hertz[chosen], 20.0)) for hertz in (frames.centroid_hz, frames.bandwidth_hz)]
    curves += [np.log2(np.maximum(frames.rolloff_hz[chosen], 20.0)), np.log10(frames.flatness[chosen] + 1e-6)]
    curves += [frames.crossings[chosen], np.maximum(level[chosen - window.start], SILENCE_DB)]
    summary = [value for curve in curves for value in (curve.mean(), curve.std())]
    heard = np.maximum(level, SILENCE_DB)
    summary += [np.ptp(np.percentile(heard, (5, 95))), (heard < _power_mean_db(heard) - 6.0).mean()]
    summary += [onset.mean(), onset.std(), len(onset_frames(onset)) * frames.rate_hz / len(onset)]
    parts = (
        shape - shape.mean(),
        mel.std(axis=0),
        mfcc.mean(axis=1),
        mfcc.std(axis=1),
        delta.std(axis=1),
        tones,
        [tones.max(), frames.sustained[chosen].mean()],
        contrast.mean(axis=0),
        contrast.std(axis=0),
        balance - balance.mean(),
        summary,
        _tempogram(onset, frames.rate_hz),
    )
    return np.concatenate([np.asarray(part, np.float64) for part in parts])


def audible_windows(samples: Float32, config: AudioConfig) -> Float64:
    """float64 [n, AUDIO_DIM]: raw features of the windows of `samples` that are not silent (for the reference)."""
    frames = sound_frames(samples, config.rate_hz)
    windows = _frame_windows(window_bounds(samples.shape[1], config.rate_hz, config), len(frames))
    heard = [window for window in windows if (frames.level_db[window] > SILENCE_DB).any()]
    return np.array([window_features(frames, window) for window in heard]).reshape(len(heard), AUDIO_DIM)


def _tempogram(onset: Float64, rate_hz: float) -> Float64:
    """[TEMPO_BANDS]: the highest pulse correlation in each band of tempo, equal in octaves, of 40 to 240 a minute."""
    correlation = pulse_correlation(onset, rate_hz)
    tempi = 60.0 * rate_hz / np.maximum(np.arange(len(correlation)), 1)
    edges = np.geomspace(TEMPO_LOWEST, TEMPO_HIGHEST, TEMPO_BANDS + 1)
    within = [(tempi >= low) & (tempi < high) for low, high in pairwise(edges)]
    return np.array([correlation[band].max(initial=0.0) for band in within])


def _power_mean_db(level_db: Float64) -> float:
    return float(10.0 * np.log10(np.mean(10.0 ** (level_db / 10.0))))


def _presence(frames: SoundFrames, windows: list[slice], speech: Float32) -> tuple[Float64, Float64]:
    """How much music there is in each window, 0..1, and how much of it the beat alone says."""
    sustained, clarity, spoken, audible = [], [], [], []
    for window in windows:
        heard = frames.level_db[window] > SILENCE_DB
        sustained.append(frames.sustained[window][heard].mean() if heard.any() else 0.0)
        clarity.append(pulse_of(frames.onset[window], frames.accent[window], frames.rate_hz).clarity)
        seconds = np.array([window.start, window.stop]) / frames.rate_hz
        first, last = (seconds / SPEECH_WINDOW_SECONDS).astype(int)
        spoken.append(speech[first : max(last, first + 1)].mean() if first < len(speech) else 0.0)
        audible.append(heard.mean())
    beat = np.array(clarity)
    return music_presence(np.array(sustained), beat, np.array(spoken), np.array(audible)), beat_presence(beat)


def _type_of_music(
    frames: SoundFrames, speech: Float32, segments: list[SoundSegment], weights: Float64, share: float, clarity: float
) -> dict[str, str | float | None]:
    """`type` and `type_confidence` of `Music`, by the segments of music; both None where there is too little."""
    moments = np.arange(len(frames)) / frames.rate_hz
    playing = np.zeros(len(frames), np.bool_)
    for segment in segments:
        if segment.kind == "music":
            playing |= (moments >= segment.start) & (moments < segment.end)
    if not enough_music(share, len(frames) / frames.rate_hz) or not enough_music(
        float(playing.mean()), len(frames) / frames.rate_hz
    ):
        return {"type": None, "type_confidence": None}
    voice = speech[np.minimum((moments / SPEECH_WINDOW_SECONDS).astype(int), len(speech) - 1)]
    heard = weights * playing if (weights * playing).any() else playing.astype(np.float64)
    word, sure = type_of(
        TypeCues(
            voice=float(voice[playing].mean()),
            clarity=clarity,
            onset_strength=float(np.average(frames.onset, weights=heard)),
            sustained=float(np.average(frames.sustained, weights=heard)),
        )
    )
    return {"type": word, "type_confidence": None if sure is None else round(sure, 4)}


# --- the reference ---------------------------------------------------------------------------------------------------


def reference_digest() -> str:
    """Digest of the constants by which features are standardised: part of what identifies this encoder."""
    return digest(json.loads(_reference_path().read_text(encoding="utf-8")))


def _reference_path() -> Path:
    return Path(__file__).with_name(REFERENCE_FILE)


@remember
def _reference() -> tuple[Float64, Float64]:
    """Mean and standard deviation, float64 [AUDIO_DIM], of each feature over real sounds."""
    stored = json.loads(_reference_path().read_text(encoding="utf-8"))
    if tuple(stored["features"]) != FEATURES:
        raise AssertionError(f"{REFERENCE_FILE} holds other features; run `python -m bench.audio_reference`")
    return np.array(stored["mean"]), np.array(stored["scale"])
