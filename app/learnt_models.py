"""What was learnt from the catalogue (its topics, its fusion), version by version: which is served, which comes next,
and how another takes its place. Making a model new beside the served one is `workers.plans`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from store.artifacts import learnt_model_key
from store.errors import InputError, NotFoundError
from workers.plans import LEARNT_MODELS, LearntModel, next_choice

if TYPE_CHECKING:
    from app.administration import Administrator
    from app.operations import ReelSense


def previous_choice(name: LearntModel) -> str:
    """The name under which the catalogue notes what was served before."""
    return f"{name}.previous"


def listed(reelsense: ReelSense) -> dict[str, Any]:
    """Encoders and model sets, the served choice, and every learnt model with its role."""
    from encoders import catalogue

    served = reelsense.served
    return {
        "models": catalogue.describe(reelsense.settings.cache),
        "served": {
            "model_set": served.model_set,
            "encoders": {place: spec.name for place, spec in catalogue.chosen(served).items()},
            "versions": dict(reelsense.graph.versions),
        },
        "learnt": versions(reelsense),
    }


def versions(reelsense: ReelSense) -> dict[str, list[dict[str, Any]]]:
    """The stored versions of each learnt model, with their roles."""
    return {name: _versions(reelsense, name) for name in LEARNT_MODELS}


def _versions(reelsense: ReelSense, name: LearntModel) -> list[dict[str, Any]]:
    """The stored versions of a learnt model; `role`: served, next, previous or kept."""
    choices = reelsense.catalogue.choices()
    roles = {choices.get(previous_choice(name)): "previous", choices.get(next_choice(name)): "next"}
    roles[choices.get(name)] = "served"
    folder = learnt_model_key(name, "")
    return [
        {"version": version, "role": roles.get(version, "kept"), "bytes": item.bytes}
        for item in reelsense.objects.list(folder)
        if not (version := item.key.removeprefix(folder)).endswith(".md")
    ]


def promote(by: Administrator, name: LearntModel, version: str) -> dict[str, Any]:
    """Bring in a stored version of a learnt model: noted as the next one, and served by the sweep as soon as all that
    it makes new is there. Raises `model.unknown`, `request.invalid`."""
    reelsense = by.reelsense
    choices = reelsense.catalogue.choices()
    if version not in {row["version"] for row in _versions(reelsense, name)}:
        raise NotFoundError("model.unknown", f"There is no {name} model of the version {version[:64]!r}.")
    if choices.get(name) == version and next_choice(name) not in choices:
        raise InputError("request.invalid", f"This {name} model is served already.")
    reelsense.catalogue.choose(choice_of(reelsense, name, version))
    reelsense.graph.reconcile()
    by.note("model.promote", name, {"version": version})
    return _document(reelsense, name)


def choice_of(reelsense: ReelSense, name: LearntModel, version: str) -> dict[str, str]:
    """What the catalogue notes when a version is brought in: that it comes next, and what it takes the place of."""
    was = reelsense.catalogue.choices().get(name)
    return {next_choice(name): version} | ({previous_choice(name): was} if was and was != version else {})


def rollback(by: Administrator, name: LearntModel) -> dict[str, Any]:
    """Take back what is in the making; else bring in again what was served before. Raises `model.unknown`."""
    reelsense = by.reelsense
    choices = reelsense.catalogue.choices()
    if next_choice(name) in choices:
        reelsense.catalogue.choose({}, instead_of=[next_choice(name)])
        by.note("model.rollback", name, {"taken_back": choices[next_choice(name)]})
        return _document(reelsense, name)
    before = choices.get(previous_choice(name))
    if before is None:
        raise NotFoundError("model.unknown", f"No other {name} model was served before.")
    return promote(by, name, before)


def _document(reelsense: ReelSense, name: LearntModel) -> dict[str, Any]:
    choices = reelsense.catalogue.choices()
    return {
        "model": name,
        "served": choices.get(name),
        "next": choices.get(next_choice(name)),
        "previous": choices.get(previous_choice(name)),
    }
