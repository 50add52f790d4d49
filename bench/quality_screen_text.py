"""Character error rates, false text and cost of reading the screen: `python -m bench.quality_screen_text`.

*Known frames* are real frames whose text a person wrote down (`screen_text_truth.json`). Frames come at a short side of
480 pixels and through JPEG at quality 90, as the pipeline keeps them. *Error rate*: edited characters over the
characters that stand there, spaces counted once, case kept, lines in reading order; lines that are cut off or tiny may
be read or not. *Drawn frames* are texts drawn by Pillow in several sizes, colours and places, over real frames without
text. *False text*: phrases found in whole clips that show none, a minute. *Cost*: CPU seconds.
Writes bench/results/screen_text.json.
"""

from __future__ import annotations

import io
import json
import sys
import time
from collections.abc import Sequence
from difflib import SequenceMatcher
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from bench import results
from encoders.screen_text import ScreenTextConfig, ScreenTextEncoder
from store.records import Frames
from store.settings import Limits, load_settings

MEDIA = Path(__file__).parents[2] / "shared" / "media"
TRUTH = Path(__file__).parent / "screen_text_truth.json"
SHORT_SIDE = 480
JPEG_QUALITY = 90
SIDES = (320, 480, 640, 832)
CONFIDENCES = (0.5, 0.7, 0.8, 0.85, 0.9, 0.95)
SAME_LINE = 0.6  # similarity from which on a line that was read is taken for a given one that need not be

# Text, height of the letters in pixels, colour, and place (0..1 of the room that is left).
DRAWN = (
    ("Subscribe for more recipes", 32, (255, 255, 255), (0.5, 0.9)),
    ("Episode 12: The lighthouse", 40, (255, 220, 0), (0.1, 0.1)),
    ("50% OFF TODAY ONLY", 56, (255, 40, 40), (0.5, 0.5)),
    ("www.example.org/garden", 20, (255, 255, 255), (0.95, 0.95)),
    ("Zubereitung: 20 Minuten für 4 Äpfel", 28, (20, 20, 20), (0.5, 0.3)),
    ("¿Dónde está la estación?", 28, (240, 240, 240), (0.2, 0.8)),
)


def jpeg(pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """The picture after JPEG at quality 90."""
    from PIL import Image

    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "JPEG", quality=JPEG_QUALITY)
    return np.asarray(Image.open(stream))


def read_clip(path: Path, frames: int = 24) -> Frames:
    """Frames of a clip as the pipeline hands them on: every half second or more thinly, through JPEG."""
    from workers.frame_decoding import read_frames
    from workers.frame_sampling import FrameSampling

    sampled = read_frames(path, FrameSampling(interval_seconds=0.5, max_frames=frames, short_side=SHORT_SIDE), Limits())
    return Frames(
        pixels=np.stack([jpeg(picture) for picture in sampled.pixels]),
        seconds=sampled.seconds,
        duration_seconds=sampled.duration_seconds,
        decoded=sampled.decoded,
        declared=sampled.declared,
        degraded=sampled.degraded,
    )


def drawn(background: npt.NDArray[np.uint8], text: str, height: int, colour: Any, place: Any) -> Any:
    """uint8, like `background`: the text over it, with an outline of the opposite brightness."""
    from PIL import Image, ImageDraw, ImageFont

    picture = Image.fromarray(background)
    pen = ImageDraw.Draw(picture)
    font = ImageFont.load_default(height)
    left, top, right, bottom = pen.textbbox((0, 0), text, font=font, stroke_width=2)
    at = ((picture.width - (right - left)) * place[0] - left, (picture.height - (bottom - top)) * place[1] - top)
    outline = (0, 0, 0) if sum(colour) > 300 else (255, 255, 255)
    pen.text(at, text, fill=colour, font=font, stroke_width=2, stroke_fill=outline)
    return np.asarray(picture)


def errors(lines: Sequence[str], small: Sequence[str], read: Sequence[str]) -> tuple[int, int]:
    """Edited characters, and characters of `lines`; what was read of `small` is left aside."""
    import jiwer

    kept = [line for line in read if _closest(line, small) < max(SAME_LINE, _closest(line, lines))]
    said = " ".join(" ".join(lines).split())
    found = jiwer.process_characters(said, " ".join(" ".join(kept).split()))
    return found.substitutions + found.deletions + found.insertions, len(said)


def _closest(line: str, lines: Sequence[str]) -> float:
    return max((SequenceMatcher(None, line, other, autojunk=False).ratio() for other in lines), default=0.0)


def measure(media: Path, folder: Path) -> dict[str, Any]:
    """All of it for the default, the error rate and cost of other sizes, and what a lower bar would let in."""
    truth = json.loads(TRUTH.read_text(encoding="utf-8"))
    known = [(entry, _frame(media, entry)) for entry in truth["frames"]]
    sides = {
        str(side): _known(ScreenTextEncoder(ScreenTextConfig(side=side), folder), known, f"side {side}")
        for side in SIDES
    }
    encoder = ScreenTextEncoder(ScreenTextConfig(), folder)
    clean = {name: read_clip(media / "good" / name) for name in truth["clips_without"]}
    return {
        "short_side": SHORT_SIDE,
        "jpeg_quality": JPEG_QUALITY,
        "default": ScreenTextConfig().model_dump(mode="json"),
        "known_frames_by_side": sides,
        "drawn": _drawn(encoder, [frames.pixels[0] for frames in clean.values()]),
        "false_text": _false_text(encoder, clean),
        "by_confidence": _by_confidence(folder, known, clean),
        "whole_clips": _whole(encoder, media, sorted({entry["clip"] for entry, _ in known})),
    }


def _frame(media: Path, entry: dict[str, Any]) -> npt.NDArray[np.uint8]:
    frames = read_clip(media / "good" / entry["clip"])
    pixels: npt.NDArray[np.uint8] = frames.pixels[int(np.argmin(np.abs(frames.seconds - entry["second"])))]
    return pixels


def _known(encoder: ScreenTextEncoder, known: Sequence[tuple[dict[str, Any], Any]], note: str) -> dict[str, Any]:
    clips: dict[str, list[int]] = {}
    cpu = 0.0
    for entry, pixels in known:
        started = time.process_time()
        read = [line.text for line in encoder.read(pixels)]
        cpu += time.process_time() - started
        edits, said = errors(entry["lines"], entry["small"], read)
        counts = clips.setdefault(entry["clip"], [0, 0])
        counts[0], counts[1] = counts[0] + edits, counts[1] + said
    print(note, {name: round(counts[0] / counts[1], 4) for name, counts in clips.items()}, flush=True)
    return {
        "character_error_rate": round(sum(c[0] for c in clips.values()) / sum(c[1] for c in clips.values()), 4),
        "characters": sum(counts[1] for counts in clips.values()),
        "cpu_seconds_a_frame": round(cpu / len(known), 3),
        "clips": {name: round(counts[0] / counts[1], 4) for name, counts in clips.items()},
    }


def _drawn(encoder: ScreenTextEncoder, backgrounds: Sequence[npt.NDArray[np.uint8]]) -> dict[str, Any]:
    rows: dict[str, list[int]] = {}
    for text, height, colour, place in DRAWN:
        for background in backgrounds:
            read = [line.text for line in encoder.read(jpeg(drawn(background, text, height, colour, place)))]
            edits, said = errors([text], [], read)
            counts = rows.setdefault(text, [0, 0])
            counts[0], counts[1] = counts[0] + edits, counts[1] + said
    total = [sum(counts[part] for counts in rows.values()) for part in (0, 1)]
    return {
        "character_error_rate": round(total[0] / total[1], 4),
        "pictures": len(DRAWN) * len(backgrounds),
        "texts": {text: round(counts[0] / counts[1], 4) for text, counts in rows.items()},
    }


def _false_text(encoder: ScreenTextEncoder, clean: dict[str, Frames]) -> dict[str, Any]:
    found, minutes, cpu = {}, 0.0, 0.0
    for name, frames in clean.items():
        started = time.process_time()
        phrases = encoder(frames).phrases
        cpu += time.process_time() - started
        minutes += frames.duration_seconds / 60
        if phrases:
            found[name] = [phrase.text for phrase in phrases]
    return {
        "phrases": sum(len(texts) for texts in found.values()),
        "clips": len(clean),
        "a_minute": round(sum(len(texts) for texts in found.values()) / minutes, 3),
        "cpu_seconds_a_clip": round(cpu / len(clean), 3),
        "found": found,
    }


def _by_confidence(
    folder: Path, known: Sequence[tuple[dict[str, Any], Any]], clean: dict[str, Frames]
) -> dict[str, dict[str, float]]:
    """For each bar the error rate on the known frames, and how many lines the frames without text would give."""
    encoder = ScreenTextEncoder(ScreenTextConfig(min_confidence=0), folder)
    read = [(entry, encoder.read(pixels)) for entry, pixels in known]
    false = [
        line.confidence
        for frames in clean.values()
        for pixels in frames.pixels[::2]
        if encoder.has_lines(pixels)
        for line in encoder.read(pixels)
    ]
    rows = {}
    for bar in CONFIDENCES:
        counts = [
            errors(entry["lines"], entry["small"], [line.text for line in lines if line.confidence >= bar])
            for entry, lines in read
        ]
        rows[str(bar)] = {
            "character_error_rate": round(sum(edits for edits, _ in counts) / sum(said for _, said in counts), 4),
            "false_lines": sum(confidence >= bar for confidence in false),
        }
    return rows


def _whole(encoder: ScreenTextEncoder, media: Path, names: Sequence[str]) -> dict[str, Any]:
    rows = {}
    for name in names:
        frames = read_clip(media / "good" / name)
        started = time.process_time()
        found = encoder(frames)
        rows[name] = {
            "frames": len(frames.pixels),
            "frames_read": found.frames_read,
            "phrases": len(found.phrases),
            "cpu_seconds": round(time.process_time() - started, 2),
        }
    return rows


def main() -> int:
    """Measure, write the results, print the main ones."""
    if not (MEDIA / "index.csv").is_file():
        print("The real clips in ../shared/media are not beside this checkout, so there is nothing to measure.")
        return 1
    document = measure(MEDIA, load_settings().cache)
    for side, row in document["known_frames_by_side"].items():
        print(f"side {side}: CER {row['character_error_rate']}, {row['cpu_seconds_a_frame']} CPU s a frame")
    print(f"drawn: CER {document['drawn']['character_error_rate']}; false text: {document['false_text']['found']}")
    print(results.write("screen_text", document))
    return 0


if __name__ == "__main__":
    sys.exit(main())
