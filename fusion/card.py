"""The model card of a trained fusion (Mitchell et al. 2019): what it was made of, how, and how well it does."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from importlib.metadata import version
from typing import Any

PACKAGES = ("numpy", "safetensors", "torch")


def card_of(facts: Mapping[str, Any], *, date: str, metrics: Mapping[str, float] | None = None) -> dict[str, Any]:
    """A card, for JSON, from the facts that training gives. `date` as it shall stand there, such as 2026-11-24;
    `metrics` are measured by the caller, by name."""
    return {
        "name": f"reelsense fusion {facts['version']}",
        "date": date,
        "intended_use": "One vector for each video of the catalogue it was trained on, and of others like it.",
        "limits": (
            "It was trained on the videos counted below, without labels, and knows nothing of others. It holds for the "
            "encoders whose tokens it was trained on. Vectors of different versions cannot be compared."
        ),
        **facts,
        "metrics": dict(metrics or {}),
        "software": {"python": platform.python_version()} | {name: version(name) for name in PACKAGES},
    }


def markdown(card: Mapping[str, Any]) -> str:
    """The card for people."""
    lines = [f"# {card['name']}", "", f"Trained on {card['date']}. {card['intended_use']}", "", card["limits"], ""]
    lines += ["| | |", "|---|---|"]
    recordings = f" (and {card['recordings']} other recordings of them)" if "recordings" in card else ""
    lines += [f"| videos trained on | {card['videos']}{recordings} |"]
    if "held_out_videos" in card:
        lines += [f"| videos held out | {card['held_out_videos']} |"]
    lines += [f"| videos with {name} | {count} |" for name, count in card["videos_with"].items()]
    if "people" in card:
        lines += [f"| people | {card['people']}, who finished {card['interactions']} videos in all |"]
    else:
        lines += [f"| pairs by engagement | {card['engaged_pairs']} |"]
    early = ", stopped early" if card["stopped_early"] else ""
    lines += [f"| steps | {card['steps']} in {card.get('processes', 1)} process(es){early} |"]
    if "held_out_loss" in card:
        before, after = card["held_out_loss_before"], card["held_out_loss"]
        lines += [f"| held-out loss | {before:.4f} before training, {after:.4f} after |"]
    lines += [f"| seed | {card['training']['seed']} |"]
    lines += [f"| {name} | {value:.4f} |" for name, value in card["metrics"].items()]
    lines += [f"| {name} | {number} |" for name, number in card["software"].items()]
    for title in ("network", "training"):
        lines += ["", f"## Configuration: {title}", "", "| setting | value |", "|---|---|"]
        lines += [f"| {name} | {value} |" for name, value in _flat(card[title])]
    return "\n".join(lines) + "\n"


def _flat(value: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = []
    for name, inner in value.items():
        if isinstance(inner, Mapping):
            found += _flat(inner, f"{prefix}{name}.")
        else:
            found.append((prefix + name, inner))
    return found
