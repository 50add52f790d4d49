"""Captions for browsers: what comes out is WebVTT whatever goes in."""

from __future__ import annotations

from typing import Any

import pysubs2

from app.video_view import web_vtt


def segment(start: float, end: float, text: str) -> dict[str, Any]:
    return {"start": start, "end": end, "text": text}


def test_another_reader_reads_the_same_cues() -> None:
    cues = [segment(0.0, 1.9996, "first\nsecond  line"), segment(3661.5, 3662.25, "late")]
    read = pysubs2.SSAFile.from_string(web_vtt(cues), format_="vtt")
    assert [(event.start, event.end, event.plaintext) for event in read] == [
        (0, 2000, "first second line"),
        (3_661_500, 3_662_250, "late"),
    ]


def test_hostile_words_stay_words() -> None:
    text = web_vtt([segment(1.0, 1.1, "<script>alert(1)</script> & -->\n\n00:00:05.000 --> 00:00:09.000\nnext")])
    assert text.count("-->") == 1
    assert "<script>" not in text
    assert "\n\n00:00:05" not in text
    # A cue ends at the first empty line: one head, one cue, the latter ended by the last line's end.
    assert len(text.split("\n\n")) == 2
    assert "00:00:01.000 --> 00:00:01.100\n" in text


def test_without_words_there_are_no_cues() -> None:
    assert web_vtt([]) == "WEBVTT\n"
    assert web_vtt([segment(0, 1, " \n ")]) == "WEBVTT\n"
