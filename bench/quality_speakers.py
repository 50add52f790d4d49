"""How well voices are told apart, and what it costs: `python -m bench.quality_speakers`.

*Same or different*: every pair of stretches (1.6, 3.2 s of speech) of clips that are known to hold one reader each;
the error of the encoder's threshold, and the equal error rate. *One reader*: the number of speakers in each such clip.
*Two readers*: one after the other, from every pair of readers; two speakers, and the change within half a second.
*Nobody*: music, rooms and animals. *Conversations*: a talker in each of two channels, and what is said to be several
speakers, whose number and turns nobody wrote down; the result is kept to be looked at, not counted. *Cost*: CPU
milliseconds for a second of sound, one thread. Writes bench/results/speakers.json.
"""

from __future__ import annotations

import sys
import time
from functools import cache
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from bench import results
from bench.audio_reference import MEDIA, read
from encoders.speakers import SpeakersConfig, SpeakersEncoder, piece_bounds
from encoders.speech_activity import RATE_HZ, SpeechActivity, speech_spans
from encoders.voice_embedding import HOP_SAMPLES, PIECE_FRAMES, PIECE_SECONDS, VoiceEmbedding, mel_power, raising, unit
from store.records import Float32, Sound, SpeakersAttributes
from store.settings import load_settings

READERS: dict[str, tuple[str, ...]] = {
    "austen": ("austen_0870.wav", "austen_0880.wav", "austen_0890.wav", "austen_0930.wav"),
    "ljspeech": ("ljspeech_0001.wav", "ljspeech_0003.wav", "ljspeech_0004.wav", "ljspeech_0005.wav"),
    "kennedy": ("jfk.flac",),
    "libri 1272": ("libri_1272-128104-0000.wav",),
    "libri 198": ("libri_198-209-0000.ogg",),
    "libri 5703": ("libri_5703-47212-0000.ogg",),
    "brooklyn": ("brooklyn_bridge.wav",),
    **{f"voice {language}": (f"voice_{language}.wav",) for language in ("de", "es", "fr", "it", "ja", "ko", "pt")},
}
NOBODY = (
    *("audio/music_brahms_strings.ogg", "audio/music_jazz_vibe_ace.ogg", "audio/music_song_fishin.ogg"),
    *("audio/room_tone_no_speech.wav", "audio/bird_robin.ogg", "audio/whale_humpback.ogg", "good/toy_frog.mp4"),
    *("good/cartoon_bunny_20s.mp4", "good/cartoon_bunny_30s.webm", "good/film_scifi_battle.webm"),
    *("good/slides_two_states.mp4", "good/ski_mountain_panorama.mp4", "good/toy_robot_bricks.mp4"),
)
CONVERSATIONS = (
    "audio/conversation_multi_speaker.wav",
    "audio/stereo_two_talkers.wav",
    "audio/phone_commercial_mono.wav",
    "good/office_intro_googlework.mp4",
    "good/talk_art_critic_webcam.mp4",
)
SIDE_SECONDS = 6.0
BOUNDARY_SECONDS = 0.5


@cache
def samples_of(media: Path, name: str) -> Float32:
    """float32 [channels, n] of a clip in the folder, at 16 kHz."""
    samples = read(media / name, RATE_HZ)
    assert samples is not None, name
    return samples


def spoken(samples: Float32, activity: SpeechActivity) -> Float32:
    """float32 [n]: the speech of a clip, from the first word to the last."""
    mono = np.ascontiguousarray(samples.mean(axis=0, dtype=np.float32))
    spans = speech_spans(activity.probabilities(mono), 0.3, seconds=len(mono) / RATE_HZ)
    return mono[round(spans[0][0] * RATE_HZ) : round(spans[-1][1] * RATE_HZ)]


def voice_of(samples: Float32, embedding: VoiceEmbedding) -> Float32:
    """float32 [256], unit: the mean voice of `samples`, by pieces 0.4 s apart."""
    mel, pieces = mel_power(samples), []
    for start, _ in piece_bounds(0.0, len(samples) / RATE_HZ, len(samples) / RATE_HZ, 0.4):
        frame = round(start * RATE_HZ / HOP_SAMPLES)
        gain = raising(samples[frame * HOP_SAMPLES : (frame + PIECE_FRAMES) * HOP_SAMPLES])
        pieces.append(mel[frame : frame + PIECE_FRAMES] * np.float32(gain**2))
    found: Float32 = unit(embedding(np.stack(pieces)).mean(axis=0, keepdims=True))[0]
    return found


def measure_pairs(media: Path, folder: Path, seconds: float, threshold: float) -> dict[str, Any]:
    """Errors of same or different over all pairs of stretches of `seconds`."""
    activity, embedding = SpeechActivity(folder), VoiceEmbedding(folder)
    voices: list[tuple[str, Float32]] = []
    for reader, clips in READERS.items():
        for clip in clips:
            speech, size = spoken(samples_of(media, f"audio/{clip}"), activity), round(seconds * RATE_HZ)
            for start in range(0, len(speech) - size + 1, size):
                voices.append((reader, voice_of(speech[start : start + size], embedding)))
    pairs = [(a == b, float(x @ y)) for (a, x), (b, y) in combinations(voices, 2)]
    same = np.array([cosine for alike, cosine in pairs if alike])
    different = np.array([cosine for alike, cosine in pairs if not alike])
    grid = np.linspace(0.3, 0.98, 681)
    missed = np.array([(same < bound).mean() for bound in grid])
    taken = np.array([(different >= bound).mean() for bound in grid])
    even = int(np.argmin(np.abs(missed - taken)))
    return {
        "seconds": seconds,
        "stretches": len(voices),
        "same": {"pairs": len(same), "lowest": round(float(same.min()), 3), "median": round(float(np.median(same)), 3)},
        "different": {
            "pairs": len(different),
            "highest": round(float(different.max()), 3),
            "median": round(float(np.median(different)), 3),
        },
        "equal_error_rate": round(float((missed[even] + taken[even]) / 2), 4),
        "equal_error_threshold": round(float(grid[even]), 3),
        "threshold": threshold,
        "same_taken_for_different": round(float((same < threshold).mean()), 4),
        "different_taken_for_same": round(float((different >= threshold).mean()), 4),
    }


def side_of(media: Path, reader: str, activity: SpeechActivity) -> Float32:
    """float32 [n]: up to six seconds of speech of a reader, at -26 dBFS."""
    pieces = [spoken(samples_of(media, f"audio/{clip}"), activity) for clip in READERS[reader]]
    speech = np.concatenate(pieces)[: round(SIDE_SECONDS * RATE_HZ)]
    return np.asarray(speech * np.float32(0.05 / np.sqrt(np.square(speech, dtype=np.float64).mean())), np.float32)


def measure_two(encoder: SpeakersEncoder, media: Path, folder: Path, pause: float) -> dict[str, Any]:
    """Two readers one after the other, with a pause of digital silence between (or none)."""
    activity = SpeechActivity(folder)
    sides = {reader: side_of(media, reader, activity) for reader in READERS}
    gap = np.zeros(round(pause * RATE_HZ), np.float32)
    counts: dict[int, int] = {}
    near, off, wrong = 0, [], []
    for first, second in combinations(READERS, 2):
        joined = np.concatenate([sides[first], gap, sides[second]])
        found, _ = encoder(Sound(joined[np.newaxis], RATE_HZ, present=True))
        counts[found.count] = counts.get(found.count, 0) + 1
        if found.count != 2:
            wrong.append(f"{first} / {second}: {found.count}")
            continue
        changes = changes_of(found)
        middle = (len(sides[first]) + len(gap) / 2) / RATE_HZ
        error = min(abs(change - middle) for change in changes)
        off.append(error)
        near += len(changes) == 1 and error <= BOUNDARY_SECONDS + pause / 2
    total = sum(counts.values())
    return {
        "pause_seconds": pause,
        "pairs": total,
        "speakers_found": dict(sorted(counts.items())),
        "two_found": round(counts.get(2, 0) / total, 4),
        "two_found_and_one_change_within_half_a_second": round(near / total, 4),
        "median_error_of_the_change_seconds": round(float(np.median(off)), 3),
        "wrong": wrong,
    }


def changes_of(found: SpeakersAttributes) -> list[float]:
    """Where the speaker changes, in seconds: halfway between two turns."""
    pairs = zip(found.segments, found.segments[1:], strict=False)
    return [(one.end + two.start) / 2 for one, two in pairs if one.speaker != two.speaker]


def heard(encoder: SpeakersEncoder, media: Path, name: str) -> tuple[SpeakersAttributes, float, float]:
    """What the encoder says of a clip, its CPU seconds, and the clip's length."""
    sound = Sound(samples_of(media, name), RATE_HZ, present=True)
    started = time.process_time()
    found, _ = encoder(sound)
    return found, time.process_time() - started, sound.seconds


def measure(media: Path = MEDIA) -> dict[str, Any]:
    """Everything, as a document."""
    folder, config = load_settings().cache, SpeakersConfig()
    encoder = SpeakersEncoder(config, folder, threads=1)
    encoder(Sound(samples_of(media, "audio/brooklyn_bridge.wav"), RATE_HZ, present=True))  # what loads late, loads here
    single = {clip: heard(encoder, media, f"audio/{clip}") for clips in READERS.values() for clip in clips}
    nobody = {name: heard(encoder, media, name) for name in NOBODY}
    several = {name: heard(encoder, media, name)[0] for name in CONVERSATIONS}

    def cost(rows: dict[str, tuple[SpeakersAttributes, float, float]]) -> float:
        return round(1000 * sum(row[1] for row in rows.values()) / sum(row[2] for row in rows.values()), 2)

    return {
        "config": config.model_dump(),
        "pairs": [measure_pairs(media, folder, seconds, config.voice_likeness) for seconds in (PIECE_SECONDS, 3.2)],
        "one_reader": {
            "clips": len(single),
            "one_found": sum(row[0].count == 1 for row in single.values()),
            "others": {name: row[0].count for name, row in single.items() if row[0].count != 1},
        },
        "two_readers": [measure_two(encoder, media, folder, pause) for pause in (0.0, 0.4)],
        "nobody": {
            "clips": len(nobody),
            "none_found": sum(row[0].count == 0 for row in nobody.values()),
            "others": {name: row[0].count for name, row in nobody.items() if row[0].count},
        },
        "conversations": {
            name: [f"{one.speaker}: {one.start:.1f}-{one.end:.1f}" for one in found.segments]
            for name, found in several.items()
        },
        "cpu_ms_per_second_of_speech": cost(single),
        "cpu_ms_per_second_without_speech": cost(nobody),
    }


def main() -> int:
    """Measure, write, and print a line for each part."""
    if not (MEDIA / "index.csv").is_file():
        print("The real clips in ../shared/media are not beside this checkout, so there is nothing to measure.")
        return 1
    document = measure()
    path = results.write("speakers", document)
    for row in document["pairs"]:
        print(f"same or different, {row['seconds']} s: equal error rate {row['equal_error_rate']}")
    for row in document["two_readers"]:
        print(f"two readers, pause {row['pause_seconds']} s: two found in {row['two_found']}, {row['wrong']}")
    print(f"one reader: {document['one_reader']}; nobody: {document['nobody']}")
    print(f"{document['cpu_ms_per_second_of_speech']} CPU ms for a second of speech; written to {path.name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
