"""How right the sound attributes are, and what they cost: `python -m bench.quality_sound`.

*Tempo*: click tracks and drum loops made here, 60 to 180 beats a minute; right within 4 %, and apart from that how many
named twice or half the tempo. *Key*: scales, cadences and progressions made here in all 24 keys. *Segments*: real clips
of known kind one after another, music as loud and quieter; the share of the time named right. Pauses within a reader's
clip (35 dB under its loudest tenth of a second, and the fifth of a second around) are nobody's, and not counted. Speech
over music is counted apart. *Loudness*: against ITU-R BS.1770-4 worked out here, and the levels of EBU Tech 3341.
*Parity*: the features of the shared spectrogram against librosa's own calls. *Cost*: CPU milliseconds for a second of
sound, one thread. Writes bench/results/sound.json.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from numpy.lib.stride_tricks import sliding_window_view

from bench import results
from bench.audio_reference import MEDIA, read
from encoders import music
from encoders.audio import PIECE_FRAMES, AudioConfig, AudioEncoder, sound_frames
from encoders.loudness import integrated_loudness
from store.records import AudioAttributes, Float32, Sound
from store.settings import load_settings

Float64 = npt.NDArray[np.float64]

RATE_HZ = 22050
TEMPI = tuple(range(60, 181, 5))
TEMPO_TOLERANCE = 0.04
STEP_SECONDS = 0.1

# Which drum plays in each sixteenth of a bar: kick, snare, hat.
LOOPS: dict[str, tuple[str, str, str]] = {
    "rock": ("x.......x.......", "....x.......x...", "x.x.x.x.x.x.x.x."),
    "four on the floor": ("x...x...x...x...", "....x.......x...", "..x...x...x...x."),
    "boom bap": ("x.....x...x.....", "....x.......x...", "x.x.x.x.x.x.x.x."),
    "disco": ("x...x...x...x...", "....x.......x...", "x.xxx.xxx.xxx.xx"),
    "halves": ("x.......x.......", "....x.......x...", "x...x...x...x..."),
}
MAJOR_SCALE, MINOR_SCALE = (0, 2, 4, 5, 7, 9, 11, 12), (0, 2, 3, 5, 7, 8, 11, 12)
MAJOR_CADENCE = ((0, 4, 7), (5, 9, 12), (7, 11, 14), (0, 4, 7))
MINOR_CADENCE = ((0, 3, 7), (5, 8, 12), (7, 11, 14), (0, 3, 7))
POP_MAJOR = ((0, 4, 7), (7, 11, 14), (9, 12, 16), (5, 9, 12))
POP_MINOR = ((0, 3, 7), (8, 12, 15), (5, 8, 12), (7, 11, 14))
AEOLIAN = ((0, 3, 7), (8, 12, 15), (3, 7, 10), (10, 14, 17))  # the same chords as POP_MAJOR three semitones up

SPEECH = (
    *("jfk.flac", "ljspeech_0001.wav", "ljspeech_0005.wav", "libri_198-209-0000.ogg", "libri_5703-47212-0000.ogg"),
    *("austen_0870.wav", "voice_es.wav", "voice_fr.wav"),
)
MUSIC = ("music_brahms_strings.ogg", "music_jazz_vibe_ace.ogg", "music_song_fishin.ogg")
NOISE = ("room_tone_no_speech.wav",)


# --- sounds with known answers ---------------------------------------------------------------------------------------


def clicks(tempo: float, seconds: float = 20.0) -> Float32:
    """float32 [1, n]: a short 1 kHz blip on every beat."""
    moment = np.arange(round(0.03 * RATE_HZ)) / RATE_HZ
    blip = 0.5 * np.sin(2 * np.pi * 1000.0 * moment) * np.exp(-moment / 0.006)
    return _placed([(float(beat), blip) for beat in np.arange(0.1, seconds, 60.0 / tempo)], seconds)


def drum_loop(pattern: tuple[str, str, str], tempo: float, seconds: float = 20.0) -> Float32:
    """float32 [1, n]: kick, snare and hat in the sixteenths that `pattern` names, bar after bar."""
    moment = np.arange(round(0.25 * RATE_HZ)) / RATE_HZ
    hiss = np.random.default_rng(5).normal(0, 1, len(moment))
    kick = 0.8 * np.sin(2 * np.pi * (50 * moment + 3 * (1 - np.exp(-moment / 0.03)))) * np.exp(-moment / 0.08)
    snare = (0.25 * hiss + 0.2 * np.sin(2 * np.pi * 190 * moment)) * np.exp(-moment / 0.06)
    hat = 0.12 * np.diff(hiss, prepend=0.0) * np.exp(-moment / 0.02)
    sixteenth = 15.0 / tempo
    hits = [
        (0.1 + index * sixteenth, drum)
        for index in range(int((seconds - 0.1) / sixteenth))
        for drum, line in zip((kick, snare, hat), pattern, strict=True)
        if line[index % len(line)] == "x"
    ]
    return _placed(hits, seconds)


def tone(note: float, seconds: float) -> Float64:
    """float64 [n]: a note (MIDI number) with six harmonics, faded in and out."""
    moment = np.arange(round(seconds * RATE_HZ)) / RATE_HZ
    hertz = 440.0 * 2 ** ((note - 69) / 12)
    fade = np.minimum(1.0, np.minimum(moment / 0.01, (seconds - moment) / 0.05))
    waves = [np.sin(2 * np.pi * hertz * part * moment) / part**1.2 for part in range(1, 7)]
    return np.asarray(0.3 * fade * np.sum(waves, axis=0))


def melody(notes: Sequence[int]) -> Float32:
    """float32 [1, n]: one note after the other, 0.4 s each."""
    return np.concatenate([tone(note, 0.4) for note in notes])[np.newaxis].astype(np.float32)


def chords(root: int, progression: Sequence[Sequence[int]]) -> Float32:
    """float32 [1, n]: each chord over its bass, for 0.8 s, twice around."""
    sounding = [sum(tone(root + step, 0.8) for step in (*chord, chord[0] - 12)) / 4 for chord in progression]
    return np.concatenate([*sounding, *sounding])[np.newaxis].astype(np.float32)


def _placed(hits: Sequence[tuple[float, Float64]], seconds: float) -> Float32:
    samples = np.zeros(round(seconds * RATE_HZ))
    for moment, sound in hits:
        start = round(moment * RATE_HZ)
        samples[start : start + len(sound)] += sound[: max(len(samples) - start, 0)]
    return samples[np.newaxis].astype(np.float32)


# --- tempo and key ---------------------------------------------------------------------------------------------------


def tempo_of(samples: Float32) -> float | None:
    """Beats a minute, as the encoder finds them."""
    frames = sound_frames(samples, RATE_HZ)
    return music.pulse_of(frames.onset, frames.accent, frames.rate_hz).tempo


def measure_tempo() -> dict[str, Any]:
    """Right, an octave off, and wrong otherwise, for clicks and for each loop, over `TEMPI`."""
    found = {"clicks": [(tempo, tempo_of(clicks(tempo))) for tempo in TEMPI]}
    for name, pattern in LOOPS.items():
        found[f"loop: {name}"] = [(tempo, tempo_of(drum_loop(pattern, tempo))) for tempo in TEMPI]
    return {name: _tempo_row(pairs) for name, pairs in found.items()}


def _tempo_row(pairs: Sequence[tuple[int, float | None]]) -> dict[str, Any]:
    right = [tempo for tempo, found in pairs if _near(found, tempo)]
    octave = [tempo for tempo, found in pairs if _near(found, tempo * 2) or _near(found, tempo / 2)]
    return {
        "tracks": len(pairs),
        "right": len(right),
        "octave": octave,
        "wrong": {tempo: found for tempo, found in pairs if tempo not in right and tempo not in octave},
    }


def _near(found: float | None, tempo: float) -> bool:
    return found is not None and abs(found / tempo - 1) <= TEMPO_TOLERANCE


def measure_key() -> dict[str, Any]:
    """Right of 24 keys, for a scale up and down, a cadence, and a popular progression.

    The chords of a minor key without its leading tone are those of its relative major, and no count of pitches tells
    them apart: that row says how many keys are named so.
    """
    found: dict[str, dict[str, str | None]] = {"scales": {}, "cadences": {}, "progressions": {}}
    relative = 0
    for mode, names, scale, cadence, pop in (
        ("major", music.MAJOR_NAMES, MAJOR_SCALE, MAJOR_CADENCE, POP_MAJOR),
        ("minor", music.MINOR_NAMES, MINOR_SCALE, MINOR_CADENCE, POP_MINOR),
    ):
        for tonic, name in enumerate(names):
            root = 60 + tonic - (12 if tonic > 5 else 0)
            key = f"{name} {mode}"
            found["scales"][key] = _key_of(melody([root + step for step in (*scale, *scale[::-1])]))
            found["cadences"][key] = _key_of(chords(root, cadence))
            found["progressions"][key] = _key_of(chords(root, pop))
            if mode == "minor":
                named = _key_of(chords(root, AEOLIAN))
                relative += named in (key, f"{music.MAJOR_NAMES[(tonic + 3) % 12]} major")
    return {
        "minor without its leading tone": {"keys": 12, "right_or_relative_major": relative},
    } | {
        kind: {
            "keys": len(pairs),
            "right": sum(key == name for key, name in pairs.items()),
            "wrong": {key: name for key, name in pairs.items() if key != name},
        }
        for kind, pairs in found.items()
    }


def _key_of(samples: Float32) -> str | None:
    frames = sound_frames(samples, RATE_HZ)
    return music.key_of(frames.chroma, frames.sustained, frames.rate_hz).name


# --- segments --------------------------------------------------------------------------------------------------------


@cache
def clip(media: Path, name: str, start: float = 0.0, seconds: float | None = None) -> Float64:
    """float64 [n]: a part of a clip, as loud as -23 dBFS, or as it is where it is a room."""
    samples = read(media / "audio" / name, RATE_HZ)
    assert samples is not None, name
    mono = samples.mean(axis=0, dtype=np.float64)
    part = mono[round(start * RATE_HZ) :][: None if seconds is None else round(seconds * RATE_HZ)]
    return np.asarray(part if name in NOISE else part * 0.07 / np.sqrt(np.square(part).mean()))


def measure_segments(encoder: AudioEncoder, media: Path) -> dict[str, Any]:
    """Share of the time whose kind is right: by kind and in all, over rows of real clips; and of speech over music."""
    right: dict[str, list[int]] = {kind: [0, 0] for kind in ("speech", "music", "noise", "silence")}
    confused: dict[str, float] = {}
    for number, name in enumerate(SPEECH):
        for place, track in enumerate(MUSIC):
            for gain in (1.0, 0.25):
                row: list[tuple[str, Float64]] = [
                    ("speech", clip(media, name)),
                    ("music", gain * clip(media, track, 15.0 + 2 * number, 10.0)),
                    ("noise", clip(media, NOISE[0], 0.0, 6.0)),
                    ("speech", clip(media, SPEECH[(number + place + 1) % len(SPEECH)])),
                    ("silence", np.zeros(3 * RATE_HZ)),
                    ("music", gain * clip(media, MUSIC[(place + 1) % len(MUSIC)], 5.0 + 2 * number, 8.0)),
                ]
                for said, found in _judged(encoder, row):
                    right[said][0] += found == said
                    right[said][1] += 1
                    if found != said:
                        pair = f"{said} taken for {found}"
                        confused[pair] = confused.get(pair, 0.0) + STEP_SECONDS
    over = {
        f"{snr} dB": round(float(np.mean([_spoken_over(encoder, media, track, snr) for track in MUSIC])), 4)
        for snr in (20, 10, 5, 0)
    }
    total = np.sum(list(right.values()), axis=0)
    return {
        "seconds": round(float(total[1]) * STEP_SECONDS, 1),
        "right": round(float(total[0] / total[1]), 4),
        "right_by_kind": {kind: round(hits / count, 4) for kind, (hits, count) in right.items()},
        "confused_seconds": {pair: round(seconds, 1) for pair, seconds in sorted(confused.items())},
        "speech_over_music_called_speech": over,
    }


def _judged(encoder: AudioEncoder, row: Sequence[tuple[str, Float64]]) -> list[tuple[str, str]]:
    """What each tenth of a second is and what it is taken for, without the pauses of speakers."""
    segments = heard(encoder, np.concatenate([part for _, part in row])[np.newaxis].astype(np.float32)).segments
    pairs: list[tuple[str, str]] = []
    start = 0.0
    for kind, part in row:
        pauses = _pauses(part) if kind == "speech" else np.zeros(len(part) // round(STEP_SECONDS * RATE_HZ), np.bool_)
        for index in np.flatnonzero(~pauses):
            moment = start + (index + 0.5) * STEP_SECONDS
            pairs.append((kind, next(segment.kind for segment in segments if moment < segment.end)))
        start += len(part) / RATE_HZ
    return pairs


def _pauses(speech: Float64) -> npt.NDArray[np.bool_]:
    """[n] for each tenth of a second: 35 dB under the loudest, or within a fifth of a second of such a one."""
    step = round(STEP_SECONDS * RATE_HZ)
    power = np.square(speech[: len(speech) // step * step].reshape(-1, step)).mean(axis=1)
    quiet = power < power.max() * 10**-3.5
    return np.asarray(np.convolve(quiet, np.ones(5), "same") >= 1)


def _spoken_over(encoder: AudioEncoder, media: Path, track: str, snr_db: float) -> float:
    speech = clip(media, "ljspeech_0001.wav")
    behind = clip(media, track, 15.0, len(speech) / RATE_HZ) * 10 ** (-snr_db / 20)
    return heard(encoder, (speech + behind)[np.newaxis].astype(np.float32)).speech_share


def heard(encoder: AudioEncoder, samples: Float32) -> AudioAttributes:
    """What the encoder says of `samples`."""
    attributes = encoder(Sound(np.ascontiguousarray(samples), RATE_HZ, present=True)).attributes
    assert isinstance(attributes, AudioAttributes)
    return attributes


# --- loudness, parity, cost ------------------------------------------------------------------------------------------


def measure_loudness(media: Path) -> dict[str, Any]:
    """Differences in LU: to ITU-R BS.1770-4 worked out here, over real clips, and to EBU Tech 3341's sines."""
    differences = {}
    for name in (*SPEECH, *MUSIC, *NOISE):
        samples = read(media / "audio" / name, RATE_HZ)
        assert samples is not None
        ours, theirs = integrated_loudness(samples, RATE_HZ), loudness_by_bs1770(samples)
        assert ours is not None, name
        differences[name] = round(ours - theirs, 2)
    moment = np.arange(20 * RATE_HZ) / RATE_HZ
    sines = {}
    for level in (-23.0, -33.0):
        sine = (10 ** (level / 20) * np.sin(2 * np.pi * 1000 * moment)).astype(np.float32)
        found = integrated_loudness(np.stack([sine, sine]), RATE_HZ)
        assert found is not None
        sines[f"{level:g} LUFS"] = round(found - level, 2)
    return {
        "largest_difference_to_bs1770_lu": max(map(abs, differences.values())),
        "differences_lu": differences,
        "differences_to_tech_3341_lu": sines,
    }


def loudness_by_bs1770(samples: Float32) -> float:
    """Integrated loudness in LUFS by ITU-R BS.1770-4: filters of tables 1 and 2, blocks of 0.4 s, two gates.

    One channel counts as two equal ones, as the encoder has it.
    """
    import librosa
    from scipy.signal import lfilter  # type: ignore[import-untyped]

    wide = librosa.resample(samples.astype(np.float64), orig_sr=RATE_HZ, target_sr=48000, res_type="soxr_vhq")
    shelf = lfilter(
        [1.53512485958697, -2.69169618940638, 1.19839281085285], [1.0, -1.69065929318241, 0.73248077421585], wide
    )
    weighted = lfilter([1.0, -2.0, 1.0], [1.0, -1.99004745483398, 0.99007225036621], shelf)
    blocks = sliding_window_view(np.square(weighted), 19200, axis=1)[:, ::4800].mean(axis=2).sum(axis=0)
    blocks = blocks * (2 if len(samples) == 1 else 1)
    heard_at_all = blocks[_lufs(blocks) > -70.0]
    loud = heard_at_all[_lufs(heard_at_all) > _lufs(heard_at_all.mean()) - 10.0]
    return float(_lufs(loud.mean()))


def _lufs(power: npt.ArrayLike) -> Float64:
    return np.asarray(-0.691 + 10.0 * np.log10(np.maximum(power, 1e-15)))


def measure_parity(media: Path) -> dict[str, float]:
    """Largest difference of each feature to librosa's own call, over the largest value of that feature.

    Librosa gets a whole spectrogram, scaled alike and without what lies under 20 Hz; the encoder makes it in pieces.
    Contrast alone is asked for in the same pieces, since librosa cuts it 80 dB under the highest of what it is given.
    Two frames at each end are left out of the zero crossings, which librosa pads by the last sample there.
    """
    import librosa

    worst: dict[str, float] = {}
    for name in ("ljspeech_0001.wav", "music_jazz_vibe_ace.ogg"):
        samples = read(media / "audio" / name, RATE_HZ)
        assert samples is not None
        frames = sound_frames(samples[:1], RATE_HZ)
        window = librosa.filters.get_window("hann", 2048)
        magnitude = np.abs(librosa.stft(samples[0], n_fft=2048, hop_length=512)) * np.float32(2.0 / window.sum())
        magnitude[librosa.fft_frequencies(sr=RATE_HZ, n_fft=2048) < 20.0] = 0.0
        mel = librosa.feature.melspectrogram(S=magnitude**2, sr=RATE_HZ, n_mels=40, norm=None)
        expected = {
            "mel_db": 10 * np.log10(np.maximum(mel, 1e-9)).T,
            "contrast": np.concatenate(
                [
                    librosa.feature.spectral_contrast(S=magnitude[:, start : start + PIECE_FRAMES], sr=RATE_HZ).T
                    for start in range(0, magnitude.shape[1], PIECE_FRAMES)
                ]
            ),
            "centroid_hz": librosa.feature.spectral_centroid(S=magnitude, sr=RATE_HZ)[0],
            "bandwidth_hz": librosa.feature.spectral_bandwidth(S=magnitude, sr=RATE_HZ)[0],
            "rolloff_hz": librosa.feature.spectral_rolloff(S=magnitude, sr=RATE_HZ)[0],
            "flatness": librosa.feature.spectral_flatness(S=magnitude)[0],
            "crossings": librosa.feature.zero_crossing_rate(samples[0], frame_length=2048, hop_length=512)[0],
        }
        for feature, values in expected.items():
            inside = slice(2, -2) if feature == "crossings" else slice(None)
            found = getattr(frames, feature)
            off = float(np.abs(found[inside] - values[inside]).max() / np.abs(values).max())
            worst[feature] = max(worst.get(feature, 0.0), off)
    return {feature: float(f"{value:.2g}") for feature, value in worst.items()}


def measure_cost(encoder: AudioEncoder, media: Path) -> dict[str, float]:
    """CPU milliseconds for a second of sound: of the whole encoder, and of its parts on their own."""
    sounds = [read(media / "audio" / name, RATE_HZ) for name in ("ljspeech_0001.wav", "music_jazz_vibe_ace.ogg")]
    seconds = sum(sound.shape[1] for sound in sounds if sound is not None) / RATE_HZ
    parts: dict[str, Callable[[Float32], object]] = {
        "all": lambda samples: heard(encoder, samples),
        "spectrogram_and_features_of_frames": lambda samples: sound_frames(samples, RATE_HZ),
        "loudness": lambda samples: integrated_loudness(samples, RATE_HZ),
    }
    costs = {}
    for name, part in parts.items():
        started = _cpu_seconds()
        for sound in sounds:
            assert sound is not None
            part(sound)
        costs[name] = round(1000 * (_cpu_seconds() - started) / seconds, 2)
    return costs


def _cpu_seconds() -> float:
    """Of this process and of those it has waited for: ffmpeg measures the loudness."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def measure(media: Path = MEDIA) -> dict[str, Any]:
    """Everything, as a document."""
    encoder = AudioEncoder(AudioConfig(), load_settings().cache, threads=1)
    heard(encoder, chords(60, MAJOR_CADENCE))  # what loads late, loads here
    return {
        "tempo": measure_tempo(),
        "key": measure_key(),
        "segments": measure_segments(encoder, media),
        "loudness": measure_loudness(media),
        "parity": measure_parity(media),
        "cpu_ms_per_second": measure_cost(encoder, media),
    }


def main() -> int:
    """Measure, write, and print a line for each part."""
    if not (MEDIA / "index.csv").is_file():
        print("The real clips in ../shared/media are not beside this checkout, so there is nothing to measure.")
        return 1
    document = measure()
    path = results.write("sound", document)
    for name, row in document["tempo"].items():
        print(f"tempo, {name}: {row['right']} of {row['tracks']}, an octave off {row['octave']}, wrong {row['wrong']}")
    for name, row in document["key"].items():
        print(f"key, {name}: {row}")
    segments = document["segments"]
    print(f"segments: {segments['right']} of {segments['seconds']} s, {segments['right_by_kind']}")
    print(f"loudness: {document['loudness']['largest_difference_to_bs1770_lu']} LU at most from BS.1770")
    print(f"parity: {document['parity']}; CPU ms a second: {document['cpu_ms_per_second']}; written to {path.name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
