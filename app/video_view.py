"""What a video's page shows, made ready to be drawn: everything that has a time on one line of time.

Along that line, lengths are in thousandths of the video (0..1000), so that a picture needs to know no duration. Pure
functions of the document that `ReelSense.show` gives; what is not there yet is empty.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from store.catalogue import Run
from store.records import MODALITIES

LENGTH = 1000.0
# So little attention is still seen; less would look like a hole in the time line.
LEAST_HEAT = 0.06
MOMENTS = 4
TICKS = 5
# What a text token is made of that belongs to no moment.
UNTIMED = ("title", "description", "tags")


@dataclass(frozen=True)
class Bar:
    """A stretch of the line: where, how long, what it is, how strong (0..1), and the second where it begins."""

    x: float
    width: float
    kind: str
    heat: float
    seconds: float
    label: str


@dataclass(frozen=True)
class Strip:
    """Bars of one subject; `share` of the whole attention where it is about attention; `whole`: what belongs to no
    moment, with its weight."""

    name: str
    bars: list[Bar]
    share: float | None = None
    whole: tuple[tuple[str, float], ...] = ()
    moments: tuple[Bar, ...] = ()


@dataclass(frozen=True)
class KeyFrame:
    """A picture that was kept, and what is seen on it."""

    seconds: float
    labels: tuple[str, ...]


@dataclass(frozen=True)
class StageRow:
    """One stage of the processing. `wait` and `run` are stretches of the time from the first stage's beginning to the
    last one's end, in thousandths."""

    name: str
    state: str
    attempts: int
    worker: str | None
    seconds: float | None
    waited: float | None
    error: Mapping[str, str] | None
    wait: tuple[float, float] | None
    run: tuple[float, float] | None


def bar(start: float, end: float, duration: float, kind: str, label: str, heat: float = 1.0) -> Bar:
    """A stretch from `start` to `end` seconds, kept inside the video, and never too thin to be seen."""
    first = min(max(start / duration, 0.0), 1.0) * LENGTH
    last = min(max(end / duration, 0.0), 1.0) * LENGTH
    width = max(last - first, 2.0)
    return Bar(round(min(first, LENGTH - width), 1), round(width, 1), kind, round(heat, 3), round(start, 2), label)


def attention_strips(shown: Mapping[str, Any]) -> list[Strip]:
    """One strip for each modality that the vector was made from: the weight of each token, relative to the strongest of
    its own, for how the modalities compare is said by their shares."""
    duration = shown["duration"]
    tokens = shown["tokens"]
    if not tokens or not duration:
        return []
    strips = []
    for modality in MODALITIES:
        if modality not in shown["attention"]:
            continue
        own = [token for token in tokens if token["modality"] == modality]
        timed = [token for token in own if token["source"] not in UNTIMED]
        strongest = max((token["weight"] for token in timed), default=0.0) or 1.0
        bars = [
            bar(
                token["start"],
                token["end"],
                duration,
                modality,
                f"{token['source']}: {100 * token['weight']:.1f} %",
                LEAST_HEAT + (1 - LEAST_HEAT) * token["weight"] / strongest,
            )
            for token in timed
        ]
        whole = tuple((token["source"], token["weight"]) for token in own if token["source"] in UNTIMED)
        moments = sorted(bars, key=lambda item: (-item.heat, item.x))[:MOMENTS]
        strips.append(Strip(modality, bars, shown["attention"][modality], whole, tuple(moments)))
    return strips


def sound_strip(shown: Mapping[str, Any]) -> Strip | None:
    """What is heard when: speech, music, noise, silence."""
    audio, duration = shown["audio"], shown["duration"]
    if not audio or not audio["present"] or not duration:
        return None
    bars = [bar(part["start"], part["end"], duration, part["kind"], part["kind"]) for part in audio["segments"]]
    return Strip("sound", bars)


def other_strips(shown: Mapping[str, Any]) -> list[Strip]:
    """Shots, faces, and who speaks, as far as they are known."""
    duration = shown["duration"]
    if not duration:
        return []
    shots = [
        bar(shot["start"], shot["end"], duration, f"shot-{place % 2}", f"shot {place + 1}")
        for place, shot in enumerate(shown["shots"])
    ]
    spoken = [
        bar(part["start"], part["end"], duration, f"speaker-{part['speaker'] % 4}", f"speaker {part['speaker'] + 1}")
        for part in shown["speakers"]["segments"]
    ]
    strips = [Strip("shots", shots), Strip("speakers", spoken)]
    return [strip for strip in strips if strip.bars]


def key_frames(shown: Mapping[str, Any]) -> list[KeyFrame]:
    """The pictures that were kept, and the labels that were seen on each."""
    found: dict[float, list[str]] = {at: [] for at in shown["frame_seconds"]}
    if not found:
        return []
    for label in [*shown["labels"], *shown["objects"]]:
        for at in label["seconds"]:
            nearest = min(found, key=lambda frame: abs(frame - at))
            if label["name"] not in found[nearest]:
                found[nearest].append(label["name"])
    return [KeyFrame(at, tuple(names)) for at, names in found.items()]


def ticks(duration: float | None) -> list[float]:
    """Seconds to write below the line."""
    return [duration * place / (TICKS - 1) for place in range(TICKS)] if duration else []


def texts(shown: Mapping[str, Any]) -> list[tuple[str, str | None, Sequence[Mapping[str, Any]]]]:
    """Every timed text: what it is, its language, its lines."""
    found: list[tuple[str, str | None, Sequence[Mapping[str, Any]]]] = []
    if shown["transcript"]["segments"]:
        found.append(("Transcript", shown["transcript"]["language"], shown["transcript"]["segments"]))
    for track in shown["captions"]:
        if track["segments"]:
            found.append(("Captions", track["language"], track["segments"]))
    if shown["screen_text"]:
        found.append(("On the screen", None, shown["screen_text"]))
    return found


def web_vtt(lines: Iterable[Mapping[str, Any]]) -> str:
    """Timed lines as WebVTT. Nothing in a line can end it, begin another, or be markup."""
    parts = ["WEBVTT\n"]
    for line in lines:
        words = " ".join(line["text"].split()).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
        if words and line["end"] > line["start"]:
            parts.append(f"{_stamp(line['start'])} --> {_stamp(line['end'])}\n{words}\n")
    return "\n".join(parts)


def stage_rows(shown: Mapping[str, Any], runs: Sequence[Run]) -> list[StageRow]:
    """The stages in their order, and when each waited and ran."""
    by_stage = {run.stage: run for run in runs if shown["stages"].get(run.stage, {}).get("version") == run.version}
    began = [run.queued_at for run in by_stage.values() if run.queued_at is not None]
    ended = [at for run in by_stage.values() for at in (run.finished_at, run.started_at) if at is not None]
    first, last = min(began, default=0.0), max(ended, default=0.0)

    def stretch(start: float | None, end: float | None) -> tuple[float, float] | None:
        if start is None or end is None or end < start or last <= first:
            return None
        x = LENGTH * max(start - first, 0.0) / (last - first)
        return round(x, 1), round(max(LENGTH * (end - max(start, first)) / (last - first), 2.0), 1)

    rows = []
    for name, stage in shown["stages"].items():
        run = by_stage.get(name)
        queued, started, finished = (run.queued_at, run.started_at, run.finished_at) if run else (None, None, None)
        waited = started - queued if started is not None and queued is not None and started >= queued else None
        rows.append(
            StageRow(
                name,
                stage["state"],
                stage["attempts"],
                stage["worker"],
                stage["seconds"],
                waited,
                stage["error"],
                stretch(queued, started),
                stretch(started, finished),
            )
        )
    return rows


def _stamp(seconds: float) -> str:
    milliseconds = round(max(seconds, 0.0) * 1000)
    return (
        f"{milliseconds // 3_600_000:02d}:{milliseconds // 60_000 % 60:02d}:"
        f"{milliseconds // 1000 % 60:02d}.{milliseconds % 1000:03d}"
    )
