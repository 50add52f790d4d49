"""By which settings and learnt models videos are read: what is served, what comes next, and what jobs bring in.

What is served is a choice that the catalogue notes (`Catalogue.choice`): one of each of the models that are learnt from
the catalogue (its topics, its fusion), and an *encoding*, the settings that differ from those of the installation
(`store.jobs`). Others are brought in beside them: everybody sees the old one, whole, until the new one is whole.

- A learnt model is noted as the next one, the sweep computes what it makes new, and serves it when all is there.
- An encoding is brought in by a re-embedding job (`workers.reembedding`), which is fed piece by piece, behind uploads,
  and served when somebody switches to it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import structlog

from store.errors import ReelsenseError
from store.jobs import Target
from store.overrides import overridden
from store.settings import Settings
from workers.stages import BY_NAME, STAGES, token_space, versions

LearntModel = Literal["topics", "fusion"]
LEARNT_MODELS: tuple[LearntModel, ...] = get_args(LearntModel)
log = structlog.get_logger()


def next_choice(model: str) -> str:
    """The name under which the catalogue notes the model that comes next."""
    return f"{model}.next"


@dataclass(frozen=True)
class JobEncoding:
    """What a job brings in: its overrides of the settings. `complete`: everything is there, and uploads are read by it
    too, so that it stays so."""

    id: str
    overrides: Mapping[str, Any]
    complete: bool


@dataclass(frozen=True)
class Plan:
    """A choice of learnt models (version by name, those without one left out) and of settings, and the version of each
    stage by them. `job` is the re-embedding job that brings it in, or empty; `followed`: whether uploads and sweeps
    make what it asks for, which for a job's plan is so when the job is complete."""

    models: Mapping[str, str]
    versions: Mapping[str, str]
    settings: Settings
    job: str = ""
    followed: bool = True


def plans(
    settings: Settings,
    choices: Mapping[str, str],
    served: Mapping[str, Any] | None = None,
    jobs: Sequence[JobEncoding] = (),
) -> tuple[Plan, ...]:
    """The served plan, behind it the next one, if there is another, and behind that one for each open job. `choices`
    are the catalogue's, `served` the overrides of the served encoding.

    A fusion that was trained on tokens of other encoders (see `token_space`) is passed over: without training is better
    than trained on something else. A job that asks for what is not on this machine is passed over too, aloud: uploads
    do not wait for it. Raises `model.unknown`, `settings.invalid`.
    """
    base = overridden(settings, served or {})
    found = list(_learnt_plans(base, choices))
    for job in jobs:
        try:
            own = overridden(settings, job.overrides)
            models = _fitting(token_space(own), _now(choices))
            found.append(Plan(models, versions(own, models), own, job.id, job.complete))
        except ReelsenseError as error:
            log.warning("job passed over", job=job.id, code=error.code, message=error.message)
    return tuple(found)


def _learnt_plans(settings: Settings, choices: Mapping[str, str]) -> tuple[Plan, ...]:
    space = token_space(settings)
    served = _fitting(space, _now(choices))
    noted = {str(name): choices[next_choice(name)] for name in LEARNT_MODELS if next_choice(name) in choices}
    coming = served | _fitting(space, noted)
    found = [Plan(served, versions(settings, served), settings)]
    if coming != served:
        found.append(Plan(coming, versions(settings, coming), settings))
    return tuple(found)


def _now(choices: Mapping[str, str]) -> dict[str, str]:
    return {str(name): choices[name] for name in LEARNT_MODELS if name in choices}


def _fitting(space: str, models: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in models.items() if name != "fusion" or value.partition("-")[2] == space}


def changed_stages(served: Plan, other: Plan) -> list[str]:
    """The stages that have another version by the other plan, in the order of the graph."""
    return [stage.name for stage in STAGES if served.versions[stage.name] != other.versions[stage.name]]


def target_of(plan: Plan, changed: Sequence[str]) -> Target:
    """What the plan makes, where these stages changed: done is what has those that no other changed stage needs."""
    needed = {need for name in changed for need in BY_NAME[name].needs}
    ends = {name: BY_NAME[name].reads_words for name in changed if name not in needed}
    return Target(versions=dict(plan.versions), ends=ends)
