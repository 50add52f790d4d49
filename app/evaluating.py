"""How good rankers are for this installation's own viewers: acts that were held back, against what models trained on
the rest would have shown.

Nothing that is evaluated is stored or served, and nothing that is served is asked: every model is fitted anew to the
training part, stops early by validation, and is measured on test once.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from store.errors import InputError, ReelsenseError

if TYPE_CHECKING:
    from app.operations import ReelSense
    from ranker.models.model import Model
    from ranker.models.training_data import TrainingData
    from ranker.splits import Parted

# What no model that learns may be asked without: the floor, and what is hard to beat.
USUAL = ("popularity", "item_knn", "walk", "als", "ease", "content_map", "hybrid")
HYBRID = "hybrid"
Told = Callable[[int, int, str], None]


def evaluate(
    reelsense: ReelSense,
    models: Sequence[str] = (),
    *,
    split: str = "global_time",
    seed: int = 0,
    on_progress: Told | None = None,
) -> dict[str, Any]:
    """Of each model (none named: `USUAL`) every figure of `ranker.assessing`, the best by validation, and what fell
    back. `hybrid` is blended from the other models that were asked for, or from its usual ones when it is alone.

    A model that cannot be fitted to these acts has a row with its error, and costs the others nothing. Raises
    `ranker.no_such_model`, `request.invalid` for an unknown split, `ranker.too_few_events` where nothing can be held
    back.
    """
    from app.ranker_training import training_data_of
    from ranker.models.model import model_class
    from ranker.splits import split as parted_by

    names = list(dict.fromkeys(models or USUAL))
    for name in names:
        model_class(name)
    # The hybrid comes last: it is blended from the others.
    names.sort(key=lambda name: name == HYBRID)
    catalogue = training_data_of(reelsense)
    parts = parted_by(split, catalogue.data.log, seed)
    data = replace(catalogue.data, log=parts.train)
    fitted: dict[str, Model] = {}
    rows: dict[str, Any] = {}
    for place, name in enumerate(names):
        if on_progress is not None:
            on_progress(place, len(names), name)
        try:
            rows[name] = _row(name, data, parts, seed, fitted)
        except ReelsenseError as error:
            rows[name] = {"error": {"code": error.code, "message": error.message, "hint": error.hint}}
    good = [name for name in names if "error" not in rows[name]]
    if not good:
        first = rows[names[0]]["error"]
        raise InputError(first["code"], first["message"], hint=first["hint"])
    best = max(good, key=lambda name: float(rows[name]["validation_ndcg@10"]))
    return {
        "videos": len(catalogue.video_ids),
        "viewers": len(catalogue.viewer_ids),
        **parts.facts(),
        "seed": seed,
        "models": rows,
        "best_by_validation": best,
    }


def _row(name: str, data: TrainingData, parts: Parted, seed: int, fitted: dict[str, Model]) -> dict[str, Any]:
    """Fit one model, and say how good it is. `fitted`: those before it, of which the hybrid is made; it is added."""
    from ranker.assessing import assessed, heads, stars
    from ranker.evaluation import measure
    from ranker.models.hybrid import Hybrid
    from ranker.models.model import Run, make_model

    def judge(model: Model) -> float:
        found = measure(lambda viewers: model.score(parts.train, viewers), parts.valid.binary, seen, (10,))
        return float(found.each["ndcg@10"].mean())

    seen, started = parts.train.binary, time.process_time()
    model = make_model(name)
    if "seed" in type(model.config).model_fields:
        model = make_model(name, {"seed": seed})
    others = {label: one for label, one in fitted.items() if label != "multitask"}
    if isinstance(model, Hybrid) and len(others) > 1:
        said = model.blend(others, data, parts.valid.binary)
    else:
        said = model.fit(data, Run(judge=judge))
    seconds = time.process_time() - started
    fitted[name] = model
    later = parts.later
    found = assessed(model, data, parts.test, seen=later.binary, history=later).row()
    # The hybrid's own figure is of viewers who were left out when its weights were found.
    validation = float(said["validation"]) if isinstance(model, Hybrid) and "validation" in said else judge(model)
    found |= {"validation_ndcg@10": round(validation, 4), "fit_cpu_seconds": round(seconds, 2)}
    found |= stars(model, later, parts.test)
    if told := heads(model, later, parts.acts):
        found["heads"] = told
    if isinstance(model, Hybrid):
        found["weights"] = said["weights"]
    return found
