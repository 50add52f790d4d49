"""The hybrid's part of the learning bench: it is blended from the models that other fits left in the work folder."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from bench.learning_data import Dataset
from bench.learning_fit import NEW_VIDEOS, Fit, finish, tested, tested_new
from bench.new_videos import judge_of_new, new_video_tasks
from ranker.models import model_file
from ranker.models.hybrid import ColdCheck, Hybrid
from ranker.models.model import Model


def blend(fit: Fit, dataset: Dataset, work: Path) -> None:
    """Find the weights on validation, measure test once, write as other fits do. The seconds are those of all members
    and of the blending."""
    members, spent = _members(fit, work, "model")
    hybrid = Hybrid(**fit.settings, **({} if "seed" in fit.settings else {"seed": fit.seed}))
    facts: dict[str, Any] = {
        "mark": fit.mark(),
        "model": fit.model,
        "settings": {**fit.settings, "members": list(fit.members)},
        "seed": fit.seed,
        "history": "training and validation" if fit.later else "training",
    }
    if fit.split == NEW_VIDEOS:
        asked, opened = new_video_tasks(dataset)
        before, _ = _members(fit, work, "validation")
        candidates = np.zeros(dataset.data.log.n_videos, bool)
        candidates[asked.candidates] = True
        check = ColdCheck(before, asked.data.log, asked.held.binary, candidates)
        # Nothing but new videos is ranked, so the weights of known ones are never asked: they are content's too.
        said = hybrid.blend(before, asked.data, asked.held.binary, check)
        facts["validation_ndcg@10"] = said.get("cold_validation", said["validation"])
        made = hybrid.with_members(members, opened.data)
        facts["validation_in_sample"] = round(judge_of_new(asked)(hybrid), 4)
        figures, each = tested_new(opened, made)
    else:
        said = hybrid.blend(members, dataset.data, dataset.valid.binary, _check(fit, dataset, work))
        facts["validation_ndcg@10"] = said["validation"]
        made = hybrid
        figures, each = tested(dataset, hybrid, fit.later)
    facts |= {
        "said": said,
        "fit_seconds": round(spent["wall"] + said["blend_cpu_seconds"], 1),
        "fit_cpu_seconds": round(spent["cpu"] + said["blend_cpu_seconds"], 1),
        "blend_cpu_seconds": said["blend_cpu_seconds"],
    }
    finish(work / fit.folder, facts | figures, each, {"model": made})


def _check(fit: Fit, dataset: Dataset, work: Path) -> ColdCheck | None:
    """Content members as they were fitted for validation's new videos of the same data set, where they were."""
    asked, _ = new_video_tasks(dataset)
    if dataset.split not in ("random", "given"):
        return None
    found: dict[str, Model] = {}
    for label in fit.members:
        path = _folder(work, fit.dataset, NEW_VIDEOS, label) / "validation.safetensors"
        if path.is_file():
            found[label] = model_file.from_bytes(path.read_bytes())
    candidates = np.zeros(dataset.data.log.n_videos, bool)
    candidates[asked.candidates] = True
    return ColdCheck(found, asked.data.log, asked.held.binary, candidates) if found else None


def _members(fit: Fit, work: Path, part: str) -> tuple[dict[str, Model], Mapping[str, float]]:
    """Fitted models by label, and the seconds that they took together."""
    found: dict[str, Model] = {}
    spent = {"wall": 0.0, "cpu": 0.0}
    for label in fit.members:
        own = _folder(work, fit.dataset, fit.split, label)
        facts = json.loads((own / "facts.json").read_text())
        spent["wall"] += facts["fit_seconds"]
        spent["cpu"] += facts["fit_cpu_seconds"]
        found[label] = model_file.from_bytes((own / f"{part}.safetensors").read_bytes())
    return found, spent


def _folder(work: Path, dataset: str, split: str, label: str) -> Path:
    """Where a member was left: ROW, or ROW@SEED."""
    row, _, seed = label.partition("@")
    return work / dataset / split / row / (seed or "0")
