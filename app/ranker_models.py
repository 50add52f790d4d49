"""Trained rankers side by side: which there are, which is served, how another takes its place and how it goes back.

The catalogue's choice `ranker` names the champion (`NAME/VERSION`), `ranker.previous` what was served before it
(`none`: nothing). Without a champion no feed asks a model.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from ranker.champion import CHAMPION, NONE
from ranker.evaluation import difference
from ranker.models.validation import METRIC, Split, split_again
from ranker.stored_rankers import (
    StoredRanker,
    card_of,
    cards,
    find,
    load,
    remove,
    save,
    titles,
    viewers_of,
    without,
)
from store.errors import InputError

if TYPE_CHECKING:
    from app.operations import ReelSense
    from app.ranker_training import CatalogueData

PREVIOUS = "ranker.previous"
# What a first champion has to beat: the number of viewers who liked each video.
FLOOR = "popularity"


def listed(reelsense: ReelSense) -> dict[str, Any]:
    """Every stored ranker, newest first, with what it is (`champion`, `previous` or `challenger`)."""
    choices = reelsense.catalogue.choices()
    roles = {choices.get(PREVIOUS, NONE): "previous", choices.get(CHAMPION, NONE): "champion"}
    found = [
        {
            "ranker": f"{card['model']}/{card['version']}",
            "role": roles.get(f"{card['model']}/{card['version']}", "challenger"),
            **{name: card[name] for name in ("trained_at", "data", "validation", "forgotten_viewers", "promotions")},
        }
        for card in cards(reelsense.objects)
    ]
    found.sort(key=lambda row: (row["trained_at"], row["ranker"]), reverse=True)
    return {"champion": champion_of(reelsense), "models": found}


def champion_of(reelsense: ReelSense) -> str | None:
    """`NAME/VERSION` of what is served, None without."""
    title = reelsense.catalogue.choices().get(CHAMPION, NONE)
    return None if title == NONE else title


def promote(reelsense: ReelSense, wanted: str, *, margin: float = 0.0, force: bool = False) -> dict[str, Any]:
    """Make a challenger the champion if it is better by more than `margin` in NDCG@10, both asked the same about the
    same viewers: what was held back from the challenger. A first champion has to beat popularity. With `force` it is
    served all the same, and its card says so.

    `rival_may_have_seen`: whether the champion may have been trained on some of that, which favours it.

    Raises `ranker.no_such_model`, `ranker.not_better`, and what loading raises.
    """
    objects = reelsense.objects
    card = find(objects, wanted)
    challenger = load(objects, f"{card['model']}/{card['version']}")
    rival = champion_of(reelsense)
    if rival == challenger.title:
        raise InputError("request.invalid", f"{rival} is the champion already.")
    result = compared(reelsense, challenger, card, rival)
    better = result["difference"]["mean"] > margin
    if not better and not force:
        raise InputError(
            "ranker.not_better",
            f"{challenger.title} scores {result['score']:.4f} ({METRIC}) and {result['rival']} "
            f"{result['rival_score']:.4f} on the same {result['viewers']} viewers: not better by more than {margin:g}.",
            hint="What is served stays; `--force` serves the challenger all the same.",
        )
    note = result | {"at": time.time(), "margin": margin, "forced": not better}
    _rewrite(reelsense, challenger, card | {"promotions": [*card["promotions"], note]})
    reelsense.catalogue.choose({CHAMPION: challenger.title, PREVIOUS: rival or NONE})
    return {"champion": challenger.title, "previous": rival, **note}


def rollback(reelsense: ReelSense) -> dict[str, Any]:
    """Serve what was served before the last switch, which may be no model at all; once more goes forward again. Raises
    `ranker.no_such_model` where there was no switch, or what was served is gone."""
    choices = reelsense.catalogue.choices()
    if PREVIOUS not in choices:
        raise InputError("ranker.no_such_model", "No ranker was served before.", hint="`reelsense ranker models`.")
    back, now = choices[PREVIOUS], choices.get(CHAMPION, NONE)
    if back != NONE:
        card_of(reelsense.objects, back)
    reelsense.catalogue.choose({CHAMPION: back, PREVIOUS: now})
    return {"champion": None if back == NONE else back, "previous": None if now == NONE else now}


def compared(
    reelsense: ReelSense, challenger: StoredRanker, card: Mapping[str, Any], rival: str | None
) -> dict[str, Any]:
    """Challenger and rival (None: popularity) on what was held back from the challenger: the mean NDCG@10 of each over
    the same viewers, and their difference with a bootstrap interval of 95 %."""
    from app.ranker_training import training_data_of

    # No viewer is called as those are that were forgotten.
    viewers = [f"\0{n}" if name is None else name for n, name in enumerate(challenger.viewers)]
    found = training_data_of(
        reelsense, content=False, until=card["data"]["until"], video_ids=challenger.videos, viewer_ids=viewers
    )
    judged = card["validation"]
    split = split_again(found.data.log, judged["held_back"], judged["cut"])
    ours = _figures(split, found, challenger)
    if rival is None:
        counts = np.asarray(split.train.binary.sum(axis=0), np.float64).ravel()
        theirs = split.measured(lambda rows: np.tile(counts, (len(rows), 1))).each[METRIC]
        seen = False
    else:
        theirs = _figures(split, found, load(reelsense.objects, rival))
        seen = _may_have_seen(split, card["data"]["until"], card_of(reelsense.objects, rival))
    return {
        "challenger": challenger.title,
        "rival": rival or FLOOR,
        "viewers": split.viewers,
        "held_back": split.how,
        "score": round(float(ours.mean()), 6),
        "rival_score": round(float(theirs.mean()), 6),
        "difference": difference(ours, theirs) | {"mean": float((ours - theirs).mean())},
        "rival_may_have_seen": seen,
    }


def _figures(split: Split, found: CatalogueData, ranker: StoredRanker) -> Any:
    return split.measured(lambda rows: ranker.scores(split.train, found.viewer_ids, found.video_ids, rows)).each[METRIC]


def _may_have_seen(split: Split, until: int, card: Mapping[str, Any]) -> bool:
    own = card["validation"]
    if own["held_back"] == split.how and card["data"]["until"] == until:
        return False
    return own["cut"] is None or split.cut is None or own["cut"] > split.cut


def _rewrite(reelsense: ReelSense, ranker: StoredRanker, card: Mapping[str, Any]) -> None:
    from app.ranker_training import markdown

    save(reelsense.objects, ranker, card, markdown(card))


# --- forgetting ------------------------------------------------------------------------------------------------------


def forget_in_rankers(reelsense: ReelSense, users: Collection[str]) -> dict[str, str]:
    """Take viewers out of every stored ranker that was trained with them: what became of each, `cleaned` as another
    version without their names and rows, or `withdrawn`, as it cannot be told which numbers are theirs. One that cannot
    be read is withdrawn as well. What is served follows. May be run again."""
    from store.errors import ModelError

    objects = reelsense.objects
    changed: dict[str, str] = {}
    for title in titles(objects):
        try:
            if not set(users) & {name for name in viewers_of(objects, title) if name is not None}:
                continue
            ranker = load(objects, title)
            left = without(ranker, users)
            card = card_of(objects, title)
        except (ModelError, InputError) as error:
            if error.code == "store.missing" and not _still_there(reelsense, title):
                continue
            left = None
        replaced = NONE
        if left is not None:
            lost = sum(name is None for name in left.viewers)
            card |= {"version": left.version, "forgotten_viewers": lost, "cleaned_from": ranker.version}
            _rewrite(reelsense, left, card)
            replaced = left.title
        choices = reelsense.catalogue.choices()
        moved = {name: replaced for name in (CHAMPION, PREVIOUS) if choices.get(name) == title}
        if moved:
            reelsense.catalogue.choose(moved)
        remove(objects, title)
        changed[title] = "withdrawn" if left is None else "cleaned"
    return changed


def forget_tombstoned(reelsense: ReelSense) -> dict[str, str]:
    """The same for everybody who was ever forgotten, by the tombstones."""
    from store.own_tables import transaction

    found = {name for title in titles(reelsense.objects) for name in viewers_of(reelsense.objects, title) if name}
    with transaction(reelsense.catalogue) as connection:
        gone = reelsense.event_log.tombstones.until(connection, found)
    return forget_in_rankers(reelsense, gone.keys()) if gone else {}


def forget_checkpoints(reelsense: ReelSense) -> int:
    """Delete what unfinished runs of this machine have learnt: how many files. Such a run begins anew."""
    found = list((reelsense.settings.data / "training").glob("ranker-*"))
    for file in found:
        file.unlink(missing_ok=True)
    return len(found)


def _still_there(reelsense: ReelSense, title: str) -> bool:
    return title in titles(reelsense.objects)


def held_in_rankers(reelsense: ReelSense, user: str) -> dict[str, int]:
    """How often each stored ranker names a viewer, for those that do."""
    found = {
        f"rankers/{title}": viewers_of(reelsense.objects, title).count(user) for title in titles(reelsense.objects)
    }
    return {place: count for place, count in found.items() if count}
