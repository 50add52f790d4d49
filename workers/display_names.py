"""What people called an upload, made fit to be shown: in a terminal, on a page, in a log, in a database.

The name is shown and never opened: objects are kept under the digest of their content.
"""

from __future__ import annotations

import re
import unicodedata

LONGEST = 255
NAMELESS = "unnamed"
# Joiners shape words of Persian and of Indian languages, and emoji; nothing else that is invisible stays.
_JOINERS = "\N{ZERO WIDTH NON-JOINER}\N{ZERO WIDTH JOINER}"
_PATH = re.compile(r"[/\\]+")
_SPACES = ("Zs", "Zl", "Zp")
_UNSHOWN = ("Cs", "Co", "Cn")  # lone surrogates, private and unassigned characters


def display_name(name: str) -> str:
    """The last part of a path as one line of at most 255 characters, never empty, in Unicode's composed form (NFC).

    Control characters and those that turn the direction of writing (`gpj.mp4` shown as `4pm.jpg`) are dropped; what
    stands for no character becomes U+FFFD. A long name loses of its stem and keeps its ending. Twice is once.
    """
    shown = unicodedata.normalize("NFC", "".join(_shown(letter) for letter in name))
    parts = [part for part in _PATH.split(shown) if part.strip(" ." + _JOINERS)]
    last = re.sub(" +", " ", parts[-1]).strip(" ") if parts else NAMELESS
    if len(last) <= LONGEST:
        return last
    stem, dot, ending = last.rpartition(".")
    tail = dot + ending if stem and len(ending) <= 16 else ""
    return (last[: LONGEST - len(tail)].rstrip(" ") + tail).strip(" ")


def _shown(letter: str) -> str:
    kind = unicodedata.category(letter)
    if kind in _SPACES:
        return " "
    if kind in _UNSHOWN:
        return "\N{REPLACEMENT CHARACTER}"
    return "" if kind in ("Cc", "Cf") and letter not in _JOINERS else letter
