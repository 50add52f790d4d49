"""Which learnt models are served, and which come next.

Models that are learnt from the catalogue (its topics, its fusion) are versioned, and one of each is *served*: the
catalogue notes which (`Catalogue.choice`). Another is brought in beside it: it is noted as the next one, the sweep
computes what it makes new for every video, and only when all of that is there is it served. Until then everybody sees
the old one, whole.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, get_args

from store.settings import Settings
from workers.stages import token_space, versions

LearntModel = Literal["topics", "fusion"]
LEARNT_MODELS: tuple[LearntModel, ...] = get_args(LearntModel)


def next_choice(model: str) -> str:
    """The name under which the catalogue notes the model that comes next."""
    return f"{model}.next"


@dataclass(frozen=True)
class Plan:
    """A choice of learnt models (version by name, those without one left out), and the version of each stage by it."""

    models: Mapping[str, str]
    versions: Mapping[str, str]


def plans(settings: Settings, choices: Mapping[str, str]) -> tuple[Plan, ...]:
    """The served plan, and behind it the next one, if there is another. `choices` are the catalogue's.

    A fusion that was trained on tokens of other encoders (see `token_space`) is passed over: without training is better
    than trained on something else. Raises `model.unknown`, `settings.invalid`.
    """
    space = token_space(settings)
    choices = {
        name: value
        for name, value in choices.items()
        if name not in ("fusion", next_choice("fusion")) or value.partition("-")[2] == space
    }
    served: dict[str, str] = {name: choices[name] for name in LEARNT_MODELS if name in choices}
    coming = served | {name: choices[next_choice(name)] for name in LEARNT_MODELS if next_choice(name) in choices}
    found = [Plan(served, versions(settings, served))]
    if coming != served:
        found.append(Plan(coming, versions(settings, coming)))
    return tuple(found)
