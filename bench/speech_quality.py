"""Word error rates, invented words, cost and agreement of the runtimes of Whisper: `python -m bench.speech_quality`.

The clips are the real ones in ../shared/media. *Error rate*: substituted, deleted and inserted words over the words
that were said, on the clips whose words are known in full; micro averages (all errors over all words). Japanese and
Korean are counted in characters, which is usual where spaces say little. Both sides go through Whisper's own normaliser
(case, punctuation, numbers, titles). *Invented words*: what is written for clips in which nobody speaks or sings.
*Agreement*: the same text, and how far apart its words are in time, against CTranslate2 at float32. *Two talkers*: the
error rate of each channel's own line. *Onsets*: where the first word of each of several clips with silence between
them starts, against where the clip's sound does. *Noisy*: words found of clips mixed with noise, room tone and music,
or narrowed to a telephone's and a radio's band, with our gate and with speech activity at its usual threshold of 0.5.
Writes bench/results/speech.json. About five CPU minutes.
"""

from __future__ import annotations

import csv
import json
import re
import sys
import time
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from bench import results
from encoders.speech import SpeechConfig, SpeechEncoder
from encoders.speech_guards import token_cap
from encoders.whisper_runtimes import RATE_HZ, TOKENS_AT_MOST, WhisperRuntime, log_mel
from store.records import Float32, Sound, TranscriptAttributes, Word
from store.settings import Limits, load_settings

MEDIA = Path(__file__).parents[2] / "shared" / "media"
RUNTIMES = {
    "ctranslate2 float32": SpeechConfig(),
    "ctranslate2 int8": SpeechConfig(compute_type="int8"),
    "openai-whisper": SpeechConfig(runtime="openai-whisper"),
}
REFERENCE = "ctranslate2 float32"
LETTERS = ("ja", "ko")  # languages counted in characters
PIECE_SECONDS = 29.0
TWO_TALKERS = "audio/stereo_two_talkers.wav"
IN_SILENCE = (
    "audio/austen_0880.wav",
    "audio/brooklyn_bridge.wav",
    "audio/ljspeech_0004.wav",
    "audio/libri_1272-128104-0000.wav",
    "audio/voice_de.wav",
    "audio/voice_pt.wav",
)
NOISY = ("audio/austen_0890.wav", "audio/libri_1272-128104-0000.wav")
NOISES = {
    "white noise": None,
    "room tone": "audio/room_tone_no_speech.wav",
    "jazz": "audio/music_jazz_vibe_ace.ogg",
}
DECIBELS = (10, 5, 0, -5)
BANDS_HZ = {"telephone": (300.0, 3400.0), "radio": (500.0, 2500.0)}
USUAL_GATE = 0.5  # Silero's own threshold, at which whoever gates by speech activity alone lets sound through


@dataclass(frozen=True)
class Known:
    """What is said in a clip, word for word, and in which language."""

    text: str
    language: str


@dataclass(frozen=True)
class Errors:
    """Edits that turn what was said into what was written, and how many words (or characters) were said."""

    edits: int
    said: int

    @property
    def rate(self) -> float:
        """Edits per word; above 1 when more is inserted than was said."""
        return self.edits / self.said

    def __add__(self, other: Errors) -> Errors:
        return Errors(self.edits + other.edits, self.said + other.said)


def known_words(media: Path) -> dict[str, Known]:
    """The clips whose words are known in full, by file name. Silence is not one of them."""
    truth = json.loads((media / "ground_truth.json").read_text(encoding="utf-8"))
    return {
        name: Known(entry["text"], entry["language"])
        for name, entry in truth.items()
        if entry["text"] and not entry.get("partial")
    }


def without_speech(media: Path) -> list[str]:
    """The good clips and sound files that have a sound track in which nobody speaks or sings."""
    with (media / "index.csv").open(newline="", encoding="utf-8") as stream:
        return [
            row["file"]
            for row in csv.DictReader(stream)
            if row["file"].startswith(("audio/", "good/"))
            and row["has_audio"] == "yes"
            and row["has_speech"].split(" ")[0] == "no"
        ]


def sound_files(media: Path) -> list[str]:
    """Every sound file, whatever is to be heard."""
    return sorted(f"audio/{path.name}" for path in (media / "audio").iterdir())


def read_clip(path: Path) -> Sound:
    """The sound of a video, or of a sound file, which no upload is and `read_sound` refuses: decoded the same way."""
    import av

    from workers.sound_decoding import read_sound

    if path.parent.name != "audio":
        return read_sound(path, RATE_HZ, Limits())
    with av.open(str(path)) as container:
        stream = container.streams.audio[0]
        layout = "mono" if stream.codec_context.channels == 1 else "stereo"
        resampler = av.AudioResampler(format="fltp", layout=layout, rate=RATE_HZ)
        frames = [found for frame in (*container.decode(stream), None) for found in resampler.resample(frame)]
    samples = np.concatenate([frame.to_ndarray() for frame in frames], axis=1)
    return Sound(np.ascontiguousarray(samples, np.float32), RATE_HZ, present=True)


def spoken_text(transcript: TranscriptAttributes) -> str:
    """All lines in one."""
    return " ".join(line.text for line in transcript.segments)


def normalised(text: str, language: str) -> str:
    """Words apart by single spaces, as Whisper's own evaluation compares them; single characters in LETTERS.

    Digits stand alone and one is 1, because Whisper's normaliser makes "123" of "one two three" but "one 2 3" of
    "1, 2, 3".
    """
    digits_apart = re.sub(r"(?<=\d)(?=\d)", " ", _normaliser(language)(text))
    return " ".join("1" if word == "one" and language == "en" else word for word in digits_apart.split())


def count_errors(said: str, written: str, language: str) -> Errors:
    """The fewest edits between the normalised texts."""
    import jiwer

    found = jiwer.process_words(normalised(said, language), normalised(written, language))
    edits = found.substitutions + found.deletions + found.insertions
    return Errors(edits, found.substitutions + found.deletions + found.hits)


def word_count(transcript: TranscriptAttributes) -> int:
    """Words of a transcript, as far as they are apart by spaces."""
    return len(spoken_text(transcript).split())


def greedy_tokens(runtime: WhisperRuntime, samples: Float32) -> list[tuple[int, ...]]:
    """What the decoder writes for each 29 s of `samples` (16 kHz) in the likeliest language; silence included."""
    config, length = SpeechConfig(), round(PIECE_SECONDS * RATE_HZ)
    found = []
    for start in range(0, len(samples), length):
        piece = samples[start : start + length]
        features = runtime.encode(log_mel(piece, len(piece) / RATE_HZ + config.tail_seconds)[np.newaxis])
        (languages,) = runtime.detect_language(features)
        cap = token_cap(len(piece) / RATE_HZ, config.max_tokens_per_second, TOKENS_AT_MOST)
        (written,) = runtime.generate(features, [max(sorted(languages), key=languages.__getitem__)], 1, cap)
        found.append(written.tokens)
    return found


def onset_seconds(samples: Float32) -> tuple[float, float]:
    """Where the sound of a clip begins and where it ends: its first and last 10 ms within 25 dB of its loudest."""
    size = RATE_HZ // 100
    power = np.square(samples[: len(samples) // size * size].reshape(-1, size)).mean(axis=1)
    loud = np.flatnonzero(power > power.max() * 10**-2.5)
    return float(loud[0]) / 100, float(loud[-1] + 1) / 100


def in_silence(clips: list[Float32], pause_seconds: float) -> tuple[Float32, list[tuple[float, float]]]:
    """The clips one after another with digital silence around them, and the seconds in which each of them sounds."""
    silence = np.zeros(round(pause_seconds * RATE_HZ), np.float32)
    parts, bounds, at = [silence], [], pause_seconds
    for samples in clips:
        start, end = onset_seconds(samples)
        piece = samples[round(start * RATE_HZ) : round(end * RATE_HZ)]
        parts += [piece, silence]
        bounds.append((at, at + len(piece) / RATE_HZ))
        at += len(piece) / RATE_HZ + pause_seconds
    return np.concatenate(parts), bounds


def onset_errors(transcript: TranscriptAttributes, bounds: list[tuple[float, float]]) -> list[float | None]:
    """For each of `bounds` (seconds), how much later than its start the first word in it starts; None without words."""
    words = [word for line in transcript.segments for word in line.words]
    found: list[float | None] = []
    for start, end in bounds:
        inside = [word.start for word in words if start - 0.5 < (word.start + word.end) / 2 < end + 0.5]
        found.append(round(inside[0] - start, 3) if inside else None)
    return found


def mixed(speech: Float32, noise: Float32, decibels: float) -> Float32:
    """`speech` with `noise` (repeated or cut to its length) so much weaker than it, without clipping."""
    noise = np.resize(noise, len(speech))
    gain = np.sqrt(np.square(speech).mean() / np.square(noise).mean()) * 10 ** (-decibels / 20)
    both = speech + gain * noise
    return np.asarray(both / max(1.0, float(np.abs(both).max())), np.float32)


def narrowed(samples: Float32, low_hz: float, high_hz: float) -> Float32:
    """`samples` (16 kHz) without anything below `low_hz` and above `high_hz`."""
    spectrum = np.fft.rfft(samples)
    frequencies = np.fft.rfftfreq(len(samples), 1 / RATE_HZ)
    spectrum[(frequencies < low_hz) | (frequencies > high_hz)] = 0
    return np.asarray(np.fft.irfft(spectrum, len(samples)), np.float32)


def over_radio(speech: Float32, decibels: float, band: str) -> Float32:
    """`speech` in one of BANDS_HZ with noise; the radio also overdrives it, which levels loud and soft."""
    voice = narrowed(speech, *BANDS_HZ[band])
    if band == "radio":
        voice = np.tanh(6 * voice / np.abs(voice).max())
    return mixed(0.2 * voice / np.abs(voice).max(), narrowed(_white(len(speech)), *BANDS_HZ["telephone"]), decibels)


def noisy(speech: Float32, media: Path) -> dict[str, Float32]:
    """`speech` (16 kHz) in every kind of bad company, by name."""
    found: dict[str, Float32] = {}
    for name, file in NOISES.items():
        noise = read_clip(media / file).mono() if file else _white(len(speech))
        found |= {f"{name} {decibels} dB": mixed(speech, noise, decibels) for decibels in DECIBELS}
    return found | {
        f"{band} {decibels} dB": over_radio(speech, decibels, band)
        for band, decibels in (("telephone", 10), ("radio", 5), ("radio", 0))
    }


def _white(length: int) -> Float32:
    return np.random.default_rng(7).normal(0, 1, length).astype(np.float32)


@cache
def _normaliser(language: str) -> Any:
    from whisper.normalizers import BasicTextNormalizer, EnglishTextNormalizer

    return EnglishTextNormalizer() if language == "en" else BasicTextNormalizer(split_letters=language in LETTERS)


def _measure(encoder: SpeechEncoder, media: Path) -> tuple[dict[str, Any], dict[str, TranscriptAttributes]]:
    """The row of a runtime, and its transcript of each clip of known words."""
    known, clips, transcripts = known_words(media), {}, {}
    words, letters = Errors(0, 0), Errors(0, 0)
    heard = cpu = 0.0
    for name, truth in known.items():
        transcript, seconds = _timed(encoder, sound := read_clip(media / name))
        transcripts[name] = transcript
        errors = count_errors(truth.text, spoken_text(transcript), truth.language)
        heard, cpu = heard + sound.seconds, cpu + seconds
        clips[name] = {
            "error_rate": round(errors.rate, 4),
            "edits": errors.edits,
            "said": errors.said,
            "language": transcript.language,
            "text": spoken_text(transcript),
        }
        if truth.language in LETTERS:
            letters += errors
        else:
            words += errors
    invented, quiet, quiet_cpu = {}, 0.0, 0.0
    for name in without_speech(media):
        transcript, seconds = _timed(encoder, sound := read_clip(media / name))
        quiet, quiet_cpu = quiet + sound.seconds, quiet_cpu + seconds
        if transcript.segments:
            invented[name] = spoken_text(transcript)
    row = {
        "word_error_rate": round(words.rate, 4),
        "words_said": words.said,
        "character_error_rate": round(letters.rate, 4),
        "characters_said": letters.said,
        "wrong_languages": sum(clips[name]["language"] != truth.language for name, truth in known.items()),
        "cpu_seconds_per_second_of_speech": round(cpu / heard, 3),
        "invented_words_per_minute": round(sum(len(text.split()) for text in invented.values()) / (quiet / 60), 3),
        "minutes_without_speech": round(quiet / 60, 2),
        "cpu_seconds_per_second_without_speech": round(quiet_cpu / quiet, 3),
        "two_talkers": two_talkers(encoder(read_clip(media / TWO_TALKERS)), media),
        "invented": invented,
        "clips": clips,
    }
    return row, transcripts


def two_talkers(transcript: TranscriptAttributes, media: Path) -> dict[str, float]:
    """For each channel of TWO_TALKERS, the error rate of the line that is nearest to what is said in it."""
    truth = json.loads((media / "ground_truth.json").read_text(encoding="utf-8"))
    return {
        side: min(
            (round(count_errors(truth[f"{TWO_TALKERS}#{side}"]["text"], line.text, "en").rate, 4))
            for line in transcript.segments
        )
        for side in ("left", "right")
    }


def _timed(encoder: SpeechEncoder, sound: Sound) -> tuple[TranscriptAttributes, float]:
    started = time.process_time()
    transcript = encoder(sound)
    return transcript, time.process_time() - started


def _agreement(found: dict[str, TranscriptAttributes], reference: dict[str, TranscriptAttributes]) -> dict[str, Any]:
    """In how many clips the texts are the same, and the mean and largest distance of their words' starts, seconds."""
    same = [name for name in reference if spoken_text(found[name]) == spoken_text(reference[name])]
    distances = [
        abs(ours.start - theirs.start)
        for name in same
        for ours, theirs in zip(_words(found[name]), _words(reference[name]), strict=True)
    ]
    return {
        "clips": len(reference),
        "clips_with_the_same_text": len(same),
        "word_start_distance_mean": round(float(np.mean(distances)), 4),
        "word_start_distance_most": round(max(distances), 3),
        "differ": sorted(set(reference) - set(same)),
    }


def _words(transcript: TranscriptAttributes) -> list[Word]:
    return [word for line in transcript.segments for word in line.words]


def _onsets(encoder: SpeechEncoder, media: Path) -> dict[str, Any]:
    samples, bounds = in_silence([read_clip(media / name).mono() for name in IN_SILENCE], 2.0)
    errors = onset_errors(encoder(Sound(samples[np.newaxis], RATE_HZ, present=True)), bounds)
    found = [abs(error) for error in errors if error is not None]
    return {
        "clips": len(bounds),
        "heard": len(found),
        "error_seconds_mean": round(float(np.mean(found)), 3),
        "error_seconds_most": max(found),
        "errors": dict(zip(IN_SILENCE, errors, strict=True)),
    }


def _noisy(encoder: SpeechEncoder, usual: SpeechEncoder, media: Path) -> dict[str, Any]:
    """Words found, and words written that were not said, of all that were said: with our gate, and the usual one."""
    import jiwer

    known = known_words(media)
    rows: dict[str, dict[str, dict[str, int]]] = {}
    for name in NOISY:
        said = normalised(known[name].text, "en")
        for kind, samples in noisy(read_clip(media / name).mono(), media).items():
            row = rows.setdefault(kind, {})
            for label, each in (("gate", encoder), ("usual_gate", usual)):
                written = spoken_text(each(Sound(samples[np.newaxis], RATE_HZ, present=True)))
                found = jiwer.process_words(said, normalised(written, "en"))
                counts = row.setdefault(label, {"said": 0, "found": 0, "wrong": 0})
                counts["said"] += found.hits + found.substitutions + found.deletions
                counts["found"] += found.hits
                counts["wrong"] += found.substitutions + found.insertions
    recall = {
        label: round(
            sum(row[label]["found"] for row in rows.values()) / sum(row[label]["said"] for row in rows.values()), 4
        )
        for label in ("gate", "usual_gate")
    }
    return {
        "thresholds": {"gate": encoder.config.gate, "usual_gate": usual.config.gate},
        "recall": recall,
        "kinds": rows,
    }


def measure(media: Path, folder: Path) -> dict[str, Any]:
    """The whole document, which goes to JSON. `folder` is where unpacked weights live. Prints a line a runtime."""
    document: dict[str, Any] = {"threads": 1, "runtimes": {}}
    reference: dict[str, TranscriptAttributes] = {}
    for name, config in RUNTIMES.items():
        encoder = SpeechEncoder(config, folder, threads=1)
        row, transcripts = _measure(encoder, media)
        reference = reference or transcripts
        agreement = _agreement(transcripts, reference)
        document["runtimes"][name] = {"agreement": agreement} | row
        print(
            f"{name}: WER {row['word_error_rate']}, CER {row['character_error_rate']}, "
            f"{row['invented_words_per_minute']} invented words a minute, "
            f"{row['cpu_seconds_per_second_of_speech']} CPU s per s of speech, same text in "
            f"{agreement['clips_with_the_same_text']} of {agreement['clips']} clips",
            flush=True,
        )
    encoder = SpeechEncoder(RUNTIMES[REFERENCE], folder, threads=1)
    document["onsets"] = _onsets(encoder, media)
    usual = SpeechEncoder(RUNTIMES[REFERENCE].model_copy(update={"gate": USUAL_GATE}), folder, threads=1)
    document["noisy"] = _noisy(encoder, usual, media)
    return document


def main() -> int:
    """Measure every runtime, write the results, and print where they are."""
    if not (MEDIA / "ground_truth.json").is_file():
        print("The real clips in ../shared/media are not beside this checkout, so there is nothing to measure.")
        return 1
    started = time.process_time()
    document = measure(MEDIA, load_settings().cache)
    print(
        f"{document['onsets']['error_seconds_mean']} s from onset to first word, recall {document['noisy']['recall']}"
    )
    print(f"{results.write('speech', document)}, {time.process_time() - started:.0f} CPU s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
