"""Word error rates, invented words, cost and agreement of the runtimes of Whisper: `python -m bench.speech_quality`.

The clips are the real ones in ../shared/media. *Error rate*: substituted, deleted and inserted words over the words
that were said, on the clips whose words are known in full; micro averages (all errors over all words). Japanese and
Korean are counted in characters, which is usual where spaces say little. Both sides go through Whisper's own normaliser
(case, punctuation, numbers, titles). *Invented words*: what is written for clips in which nobody speaks or sings.
*Agreement*: greedy tokens for every 29 s of every sound file, without gate and guards, against CTranslate2 at float32.
Writes bench/results/speech.json.
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
from encoders.whisper_runtimes import RATE_HZ, TOKENS_AT_MOST, WhisperRuntime, load_runtime, log_mel
from store.records import Float32, Sound, TranscriptAttributes
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


@cache
def _normaliser(language: str) -> Any:
    from whisper.normalizers import BasicTextNormalizer, EnglishTextNormalizer

    return EnglishTextNormalizer() if language == "en" else BasicTextNormalizer(split_letters=language in LETTERS)


def _measure(config: SpeechConfig, folder: Path, media: Path) -> dict[str, Any]:
    encoder = SpeechEncoder(config, folder, threads=1)
    known, clips = known_words(media), {}
    words, letters = Errors(0, 0), Errors(0, 0)
    heard = cpu = 0.0
    for name, truth in known.items():
        transcript, seconds = _timed(encoder, sound := read_clip(media / name))
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
    return {
        "word_error_rate": round(words.rate, 4),
        "words_said": words.said,
        "character_error_rate": round(letters.rate, 4),
        "characters_said": letters.said,
        "wrong_languages": sum(clips[name]["language"] != truth.language for name, truth in known.items()),
        "cpu_seconds_per_second_of_speech": round(cpu / heard, 3),
        "invented_words_per_minute": round(sum(len(text.split()) for text in invented.values()) / (quiet / 60), 3),
        "minutes_without_speech": round(quiet / 60, 2),
        "cpu_seconds_per_second_without_speech": round(quiet_cpu / quiet, 3),
        "invented": invented,
        "clips": clips,
    }


def _timed(encoder: SpeechEncoder, sound: Sound) -> tuple[TranscriptAttributes, float]:
    started = time.process_time()
    transcript = encoder(sound)
    return transcript, time.process_time() - started


def _tokens(config: SpeechConfig, folder: Path, media: Path) -> dict[str, list[tuple[int, ...]]]:
    runtime = load_runtime(config.runtime, config.compute_type, folder, 1)
    return {name: greedy_tokens(runtime, read_clip(media / name).mono()) for name in sound_files(media)}


def _agreement(tokens: dict[str, list[tuple[int, ...]]], reference: dict[str, list[tuple[int, ...]]]) -> dict[str, Any]:
    same = [name for name in reference if tokens[name] == reference[name]]
    return {
        "files": len(reference),
        "files_with_the_same_tokens": len(same),
        "differ": sorted(set(reference) - set(same)),
    }


def main() -> int:
    """Measure every runtime, write the results, print a line for each."""
    if not (MEDIA / "ground_truth.json").is_file():
        print("The real clips in ../shared/media are not beside this checkout, so there is nothing to measure.")
        return 1
    folder = load_settings().cache
    document: dict[str, Any] = {"threads": 1, "runtimes": {}}
    reference = _tokens(RUNTIMES[REFERENCE], folder, MEDIA)
    for name, config in RUNTIMES.items():
        tokens = reference if name == REFERENCE else _tokens(config, folder, MEDIA)
        row = {"agreement": _agreement(tokens, reference)} | _measure(config, folder, MEDIA)
        document["runtimes"][name] = row
        print(
            f"{name}: WER {row['word_error_rate']}, CER {row['character_error_rate']}, "
            f"{row['invented_words_per_minute']} invented words a minute, "
            f"{row['cpu_seconds_per_second_of_speech']} CPU s per s of speech, same tokens in "
            f"{row['agreement']['files_with_the_same_tokens']} of {row['agreement']['files']} files",
            flush=True,
        )
    print(results.write("speech", document))
    return 0


if __name__ == "__main__":
    sys.exit(main())
