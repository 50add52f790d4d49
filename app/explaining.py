"""One recommendation taken apart for people: reasons, tags, the watched video that matched, what each modality did, the
moment on the time line, and the terms that add up to the score."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ranker.explanations import ACTS, SOURCE_TEXTS
from ranker.found import PREFIX
from ranker.moments import WHOLE_VIDEO_SOURCES, by_modality, clock, contributions
from ranker.video_table import PublishedVideo, VideoTable
from store.records import MODALITIES, Modality

SHOWN_TAGS = 12
# Marks on a time line; more of them would be thinner than a line.
MOST_MARKS = 200
MODALITY_WORDS: Mapping[Modality, str] = {"vision": "Pictures", "audio": "Sound", "text": "Words"}
TERM_WORDS: Mapping[str, str] = {
    "interest_long": "Like what you watch, over weeks",
    "interest_recent": "Like what you watched in the last hours",
    "interest": "Suits one of your interests",
    "negative_interest": "Like what you skipped or refused",
    "tags": "About what you watch",
    "negative_tags": "About what you skip",
    "followed_creator": "You follow its creator",
    "region": "From where you are",
    "language": "In your language",
    "refusal": "Near something you are not interested in",
    "small_creator": "Its creator has few videos",
    "freshness": "New",
    "diversity": "Too like what stands before it",
    "rules": "Waits behind what the rules placed before it",
}


def explained(table: VideoTable, item: Mapping[str, Any]) -> dict[str, Any]:
    """What a page shows of one item of a feed (`ReelSense.recommend`), as JSON.

    `terms` are those that are not 0, largest first, each with `words`, `value` and its `share` of the largest; they add
    up to `score`. `attention` and, where there is a watched video, `likeness` are per modality. `lanes` are the time
    lines of the two videos: marks with `start` and `width` as shares of the length, and `strength` 0..1.
    """
    row = table.snapshot.row(item["video"])
    reasons = {reason["kind"]: reason for reason in reversed(item["reasons"])}
    return {
        "reasons": [{"text": reason["text"], "kind": reason["kind"]} for reason in item["reasons"]],
        "score": item["score"],
        "terms": _terms(item["terms"]),
        "tags": _tags({} if row is None else row.tags, reasons.get("tags", {}).get("tags", {})),
        "attention": _bars({} if row is None else row.attention),
        "match": _match(table, item["video"], reasons.get("watched_video"), reasons.get("moment")),
        "rules": [rule["text"] for rule in item["rules"]],
        "sources": [
            {"name": found["source"], "text": SOURCE_TEXTS.get(found["source"], f"Found by {found['source']}.")}
            for found in item["sources"]
        ],
    }


def _terms(terms: Mapping[str, float]) -> list[dict[str, Any]]:
    shown = sorted(((name, value) for name, value in terms.items() if value), key=lambda term: (-abs(term[1]), term[0]))
    largest = abs(shown[0][1]) if shown else 1.0
    return [
        {"name": name, "words": _words(name), "value": value, "share": abs(value) / largest} for name, value in shown
    ]


def _words(name: str) -> str:
    if name.startswith(PREFIX):
        source = name.removeprefix(PREFIX)
        return SOURCE_TEXTS.get(source, f"Found by {source}.").removesuffix(".")
    return TERM_WORDS.get(name, name)


def _tags(tags: Mapping[str, float], adding: Mapping[str, float]) -> list[dict[str, Any]]:
    """The video's tags, first those that the viewer shares, each with what it adds to the score."""
    order = sorted(tags, key=lambda tag: (-adding.get(tag, 0.0), -tags[tag], tag))[:SHOWN_TAGS]
    largest = max(tags.values(), default=1.0) or 1.0
    return [{"tag": tag, "share": tags[tag] / largest, "adds": adding.get(tag)} for tag in order]


def _bars(values: Mapping[Modality, float]) -> list[dict[str, Any]]:
    """One for each modality that is there; `share` of the largest."""
    largest = max((abs(value) for value in values.values()), default=0.0) or 1.0
    return [
        {"name": name, "words": MODALITY_WORDS[name], "value": values[name], "share": abs(values[name]) / largest}
        for name in MODALITIES
        if name in values
    ]


def _match(
    table: VideoTable, video_id: str, watched: Mapping[str, Any] | None, moment: Mapping[str, Any] | None
) -> dict[str, Any] | None:
    """The watched video that matched; None where none is named, or one of the two is gone by now."""
    if watched is None:
        return None
    video, other = table.find(video_id), table.find(watched["video"])
    if video is None or other is None:
        return None
    added, there = contributions(video, other), contributions(other, video)
    return {
        "video": other.id,
        "title": other.attributes.title,
        "act": ACTS.get(watched["act"], "you watched").capitalize(),
        "text": watched["text"],
        "similarity": watched["similarity"],
        "effect": watched["effect"],
        "likeness": _bars(by_modality(video, added)),
        "moment": None if moment is None else _moment(moment, video, other),
        "lanes": {"here": _lanes(video, added), "there": _lanes(other, there)},
    }


def _moment(moment: Mapping[str, Any], video: PublishedVideo, other: PublishedVideo) -> dict[str, Any]:
    """Where on the two time lines the matching moment lies; a title or a description has no moment."""
    there = moment.get("there")
    timed = moment["source"] not in WHOLE_VIDEO_SOURCES
    there_timed = there is not None and there["source"] not in WHOLE_VIDEO_SOURCES
    return {
        "text": moment["text"],
        "modality": moment["modality"],
        "start": moment["start"] if timed else None,
        "at": clock(moment["start"]) if timed else "",
        "here": _span(moment["start"], moment["end"], video.attributes.duration) if timed else None,
        "there": _span(there["start"], there["end"], other.attributes.duration) if there and there_timed else None,
    }


def _lanes(video: PublishedVideo, added: Sequence[float] | np.ndarray[Any, Any]) -> list[dict[str, Any]]:
    """For each modality what its moments add to the likeness, the strongest mark 1 over all lanes."""
    marks = [
        (float(value), token)
        for value, token in zip(added, video.attributes.tokens, strict=True)
        if token.source not in WHOLE_VIDEO_SOURCES and value > 0
    ]
    marks = sorted(marks, key=lambda mark: -mark[0])[:MOST_MARKS]
    largest = marks[0][0] if marks else 1.0
    lanes = []
    for modality in MODALITIES:
        own = [
            _span(token.start, token.end, video.attributes.duration) | {"strength": value / largest}
            for value, token in marks
            if token.modality == modality
        ]
        if own:
            lanes.append({"name": modality, "words": MODALITY_WORDS[modality], "marks": own})
    return lanes


def _span(start: float, end: float, duration: float) -> dict[str, float]:
    """A stretch as shares of the length, at least a hundredth wide so that it can be seen."""
    length = duration if duration > 0 else max(end, 1.0)
    first = min(max(start / length, 0.0), 0.99)
    return {"start": first, "width": min(max(end / length - first, 0.01), 1.0 - first)}
