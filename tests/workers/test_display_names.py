"""Names of uploads as they are shown: whatever they hold, one short line without tricks; done twice, the same."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workers.display_names import LONGEST, NAMELESS, display_name


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("clip.mp4", "clip.mp4"),
        ("../../etc/passwd", "passwd"),
        ("C:\\Users\\me\\clip.mp4", "clip.mp4"),
        ("a/b/", "b"),
        ("..", NAMELESS),
        ("", NAMELESS),
        (" \t\n. ", NAMELESS),
        ("holiday\u202e4pm.exe", "holiday4pm.exe"),
        ("red\x1b[31m\x07.mp4", "red[31m.mp4"),
        ("two\nlines\u2028x.mp4", "twolines x.mp4"),
        ("a  b\u00a0c.mp4", "a b c.mp4"),
        ("cafe\u0301.mp4", "caf\u00e9.mp4"),
        ("lone\ud800.mp4", "lone\ufffd.mp4"),
        ("\U0001f468\u200d\U0001f469.mp4", "\U0001f468\u200d\U0001f469.mp4"),
        (
            "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645.mp4",
            "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645.mp4",
        ),
        ("x" * 300 + ".mp4", "x" * (LONGEST - 4) + ".mp4"),
        ("." + "x" * 300, "." + "x" * (LONGEST - 1)),
        ("\x00", NAMELESS),
    ],
)
def test_names(name: str, shown: str) -> None:
    assert display_name(name) == shown


@given(st.text(st.characters(exclude_categories=()), max_size=400))
def test_any_name_is_one_line_without_tricks(name: str) -> None:
    shown = display_name(name)
    assert 1 <= len(shown) <= LONGEST
    assert shown == unicodedata.normalize("NFC", shown) == shown.strip()
    assert not set("/\\\n\r\t\x00") & set(shown)
    assert shown not in (".", "..")
    assert all(letter.isprintable() or letter in "\u200c\u200d" for letter in shown)
    assert not any(unicodedata.bidirectional(letter) in ("RLO", "LRO", "RLE", "LRE", "RLI", "LRI") for letter in shown)
    shown.encode()
    assert display_name(shown) == shown
