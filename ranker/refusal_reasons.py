"""Why a video stands lower than its score would have it: the refusal that took it down, in words."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from ranker.explanations import MATTERS, Reason
from ranker.moments import called
from ranker.refusals import KINDS, Refused, kind_names, kinships
from ranker.row_facts import facts_of
from ranker.scoring import RankerConfig, Rows
from ranker.video_table import Snapshot

Float64 = npt.NDArray[np.float64]

# By the words of `ranker.refusals.kind_names`.
KINSHIP_TEXTS: dict[str, str] = {
    "topic": "its topic is like that of {}",
    "creator": "by the same creator as {}",
    "look": "it looks like {}",
    "sound": "it sounds like {}",
    "words": "its words are close in meaning to those of {}",
}


def lowered(
    snapshot: Snapshot,
    rows: Rows,
    terms: Mapping[str, Float64],
    config: RankerConfig,
    refused: Refused,
) -> list[Reason | None]:
    """For each row which refusal took it down, and through what, where one did."""
    if not len(refused) or not config.refusal:
        return [None] * len(rows)
    kinship = kinships(refused, snapshot, rows, config, facts_of(snapshot)) * refused.strengths
    found: list[Reason | None] = []
    for place in range(len(rows)):
        effect = float(terms["refusal"][place])
        if effect > -MATTERS:
            found.append(None)
            continue
        nearest = int(np.argmax(kinship[:, place].max(axis=0)))
        felt = kinship[:, place, nearest]
        kinds = kind_names(sorted((kind for kind in range(len(KINDS)) if felt[kind] > 0), key=lambda kind: -felt[kind]))
        video = snapshot.rows[refused.rows[nearest]]
        text = f"Lowered: {KINSHIP_TEXTS[kinds[0]].format(called(video))}, which you refused."
        found.append({"rule": "refusal", "text": text, "video": video.id, "through": kinds, "effect": effect})
    return found
