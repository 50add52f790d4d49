"""How well each modality is read, in one command: `python -m bench.quality [--only PART ...] [--table]`.

Every part is a module of its own that measures on the real clips in ../shared/media and writes its file into
bench/results; each runs in a process of its own, so that none inherits another's threads or memory. Then the table for
people is written from those files: docs/quality.md. `--table` writes the table alone.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from bench.results import RESULTS

PAGE = Path(__file__).parents[1] / "docs" / "quality.md"
Row = tuple[str, str, str]

# Name of the part, which is that of its file in bench/results, and the module that measures it.
PARTS: Mapping[str, str] = MappingProxyType(
    {
        "speech": "bench.speech_quality",
        "labels": "bench.quality_labels",
        "vision_speed": "bench.vision_speed",
        "screen_text": "bench.quality_screen_text",
        "sound": "bench.quality_sound",
        "speakers": "bench.quality_speakers",
        "topics": "bench.quality_topics",
        "text": "bench.quality_text",
        "duplicates_speed": "bench.duplicates_speed",
    }
)


def percent(share: float) -> str:
    """A share as people read it."""
    return f"{100 * share:.1f} %"


def _speech(found: dict[str, Any]) -> list[Row]:
    rows = []
    for name, row in found["runtimes"].items():
        said = f"{row['words_said']} words said, {row['minutes_without_speech']} minutes without speech"
        rows.append((f"transcripts, {name}: word errors", percent(row["word_error_rate"]), said))
        invented = f"{row['invented_words_per_minute']:g} a minute"
        cost = f"{row['cpu_seconds_per_second_of_speech']:g} CPU s a second of speech"
        rows.append((f"transcripts, {name}: invented words", invented, cost))
        above = sum(clip["error_rate"] > 0.15 for clip in row["clips"].values())
        clips = f"{len(row['clips']) - above} of {len(row['clips'])}"
        rows.append((f"transcripts, {name}: clips within 15 % errors", clips, "Japanese and Korean in characters"))
    talkers = found["runtimes"]["ctranslate2 float32"]["two_talkers"]
    heard = ", ".join(f"{side} {percent(rate)}" for side, rate in talkers.items())
    rows.append(("two talkers in two channels: word errors", heard, "of the words known of each"))
    noisy, onsets = found["noisy"], found["onsets"]
    rows.append(
        (
            "noisy speech: words found behind our gate",
            percent(noisy["recall"]["gate"]),
            f"{percent(noisy['recall']['usual_gate'])} behind the usual gate; {len(noisy['kinds'])} kinds of noise",
        )
    )
    rows.append(
        (
            "first word against the true onset",
            f"{onsets['error_seconds_mean']:g} s",
            f"mean over {onsets['clips']} clips set in silence; at most {onsets['error_seconds_most']:g} s",
        )
    )
    return rows


def _labels(found: dict[str, Any]) -> list[Row]:
    rows = []
    for model, by_kind in found["compared"].items():
        for kind, row in by_kind.items():
            shown = row["shown"]
            value = f"{percent(row['class_top5'])} (everyday words {percent(row['word_top5'])})"
            how = f"{row['pictures']} subjects; of {shown['labels']} labels shown {shown['right']} are right"
            rows.append((f"labels, {model}, {kind}: subject among the first five", value, how))
    return rows


def _vision_speed(found: dict[str, Any]) -> list[Row]:
    return [
        (
            f"frames, {name}",
            f"{row['cpu_ms']:g} CPU ms",
            f"one thread; first guess as in torch {percent(row['top1_agreement'])}, "
            f"right {percent(row['right_at_first_guess'])}",
        )
        for name, row in found["threads 1"].items()
        if isinstance(row, dict)
    ]


def _screen_text(found: dict[str, Any]) -> list[Row]:
    rows = [
        (
            f"on-screen text, lines looked for at {side} px: character errors",
            percent(row["character_error_rate"]),
            f"{row['characters']} characters on real frames; {row['cpu_seconds_a_frame']:g} CPU s a frame read",
        )
        for side, row in found["known_frames_by_side"].items()
    ]
    drawn, false = found["drawn"], found["false_text"]
    rows.append(
        ("on-screen text, drawn", percent(drawn["character_error_rate"]), f"{drawn['pictures']} pictures of known text")
    )
    rows.append(
        ("on-screen text where there is none", f"{false['phrases']} phrases", f"{false['clips']} clips without text")
    )
    return rows


def _sound(found: dict[str, Any]) -> list[Row]:
    rows: list[Row] = []
    for name, row in found["tempo"].items():
        octave = f"; an octave off: {len(row['octave'])}" if row["octave"] else ""
        rows.append((f"tempo within 4 %, {name}", f"{row['right']} of {row['tracks']}", f"60 to 180 a minute{octave}"))
    for name, row in found["key"].items():
        right = row["right"] if "right" in row else row["right_or_relative_major"]
        how = "all major and minor keys" if "right" in row else "or the relative major, which has the same chords"
        rows.append((f"key, {name}", f"{right} of {row['keys']}", how))
    segments = found["segments"]
    kinds = ", ".join(f"{kind} {percent(share)}" for kind, share in segments["right_by_kind"].items())
    rows.append(("speech, music, noise, silence: time told right", percent(segments["right"]), kinds))
    loudness = found["loudness"]
    rows.append(
        (
            "loudness, largest difference to BS.1770-4 worked out by itself",
            f"{loudness['largest_difference_to_bs1770_lu']:g} LU",
            f"test tones of EBU Tech 3341: {max(loudness['differences_to_tech_3341_lu'].values()):g} LU",
        )
    )
    worst = max(found["parity"].values())
    rows.append(
        ("shared spectrogram against plain librosa", f"{worst:.1e}", "largest relative difference of a feature")
    )
    rows.append(("sound", f"{found['cpu_ms_per_second']['all']:g} CPU ms", "a second of sound, all features"))
    return rows


def _speakers(found: dict[str, Any]) -> list[Row]:
    rows = [
        (
            f"same or other speaker, {row['seconds']:g} s each: equal error rate",
            percent(row["equal_error_rate"]),
            f"{row['same']['pairs']} same and {row['different']['pairs']} other pairs; at our threshold "
            f"{percent(row['same_taken_for_different'])} and {percent(row['different_taken_for_same'])} wrong",
        )
        for row in found["pairs"]
    ]
    one, nobody = found["one_reader"], found["nobody"]
    rows.append(("one reader: one speaker found", f"{one['one_found']} of {one['clips']}", "clips of one reader"))
    rows.append(("music, noise, silence: none found", f"{nobody['none_found']} of {nobody['clips']}", "clips"))
    for row in found["two_readers"]:
        value = percent(row["two_found_and_one_change_within_half_a_second"])
        how = f"{row['pairs']} pairs joined, {row['pause_seconds']:g} s apart"
        rows.append(("two readers: both found, change within 0.5 s", value, how))
    return rows


def _topics(found: dict[str, Any]) -> list[Row]:
    packages, planted = found["packages"], found["planted"]
    return [
        ("topics of the texts of packages: purity", percent(packages["purity"]), f"{packages['documents']} texts"),
        ("the same, texts inferred later", percent(packages["purity_of_new"]), f"{packages['new_documents']} texts"),
        ("planted topics: purity", percent(planted["purity"]), f"{planted['documents']} texts"),
    ]


def _text(found: dict[str, Any]) -> list[Row]:
    return [
        (
            f"sentences, {name}",
            f"{row['ms_a_sentence']:g} CPU ms",
            f"same nearest {percent(row['same_nearest'])}, largest difference {row['largest_difference']:.1e}",
        )
        for name, row in found["runtimes"].items()
    ]


def _duplicates(found: dict[str, Any]) -> list[Row]:
    return [
        (
            f"near-duplicates among {row['videos']:,} signatures",
            f"{row['cpu_seconds']:g} CPU s",
            f"{row['found']} of {row['copies']} copies found, {row['false_pairs']} false pairs, {row['peak_mb']} MB",
        )
        for row in found["sizes"]
    ]


ROWS: Mapping[str, Callable[[dict[str, Any]], list[Row]]] = MappingProxyType(
    {
        "speech": _speech,
        "labels": _labels,
        "vision_speed": _vision_speed,
        "screen_text": _screen_text,
        "sound": _sound,
        "speakers": _speakers,
        "topics": _topics,
        "text": _text,
        "duplicates_speed": _duplicates,
    }
)


def table() -> str:
    """The page for people, from what stands in bench/results."""
    lines = [
        "# Quality",
        "",
        "Made by `python -m bench.quality` from `bench/results/`; every part says there on which machine, with which",
        "versions, and what was found clip by clip. [encoders.md](encoders.md) says which defaults follow from it.",
        "",
        "| what | measured | on what, at what cost |",
        "|---|---|---|",
    ]
    for part in PARTS:
        file = RESULTS / f"{part}.json"
        if file.is_file():
            lines += [f"| {' | '.join(row)} |" for row in ROWS[part](json.loads(file.read_text()))]
    return "\n".join(lines) + "\n"


def main() -> int:
    """Measure what is asked for, then write the page; exit status 1 when a part failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=sorted(PARTS), default=list(PARTS), help="these parts alone")
    parser.add_argument("--table", action="store_true", help="measure nothing, write the table")
    arguments = parser.parse_args()
    failed = []
    for part in [] if arguments.table else arguments.only:
        print(f"== {part}", flush=True)
        if subprocess.run([sys.executable, "-m", PARTS[part]], check=False).returncode != 0:
            failed.append(part)
    PAGE.write_text(table(), encoding="utf-8")
    print(f"written: {PAGE}" + (f"; failed: {', '.join(failed)}" if failed else ""))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
