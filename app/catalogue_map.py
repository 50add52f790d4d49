"""The map of the catalogue: a place and a colour for every video, drawn beside the requests and kept.

Places come from the fused vectors (`ranker/layout.py`), colours from the topics where a model of them was learnt, else
from groups of like vectors, named by the tags that set them apart. Drawing ten thousand videos takes seconds, so a map
is shown until a newer one is ready.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import structlog

from app.operations import ReelSense
from ranker.layout import clusters, components, laid_out
from ranker.video_table import Snapshot
from store.artifacts import digest
from store.catalogue import Video
from store.errors import ReelsenseError
from store.records import Float32, TopicsAttributes

MOST_DRAWN = 12_000
# A map of so few is drawn while one waits for it.
AT_ONCE = 400
GROUPS = 9
OTHER = "other"
SHOWN = 3
# How long a map is good enough, whatever is published meanwhile.
KEPT_SECONDS = 30.0
log = structlog.get_logger()


@dataclass(frozen=True)
class Group:
    """Videos of one colour: what they are about, how many are drawn, and those in their middle."""

    name: str
    count: int
    examples: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class CatalogueMap:
    """A map. `places` int16 [n, 2] in 0..1000, `of` int16 [n] a number into `groups`, for each of `ids`. `published`:
    how many videos there are, of which an even choice is drawn; `by` what gives the colours: `topics` or `likeness`."""

    ids: tuple[str, ...]
    places: npt.NDArray[np.int16]
    of: npt.NDArray[np.int16]
    groups: tuple[Group, ...]
    published: int
    by: str

    @cached_property
    def document(self) -> dict[str, Any]:
        """As the page's script reads it."""
        return {
            "ids": list(self.ids),
            "x": self.places[:, 0].tolist(),
            "y": self.places[:, 1].tolist(),
            "of": self.of.tolist(),
            "groups": [group.name for group in self.groups],
        }

    @cached_property
    def tag(self) -> str:
        """What names this content."""
        return digest(self.document)


class Cartographer:
    """Keeps the map of one installation."""

    def __init__(self, reelsense: ReelSense) -> None:
        self.reelsense = reelsense
        self._map: CatalogueMap | None = None
        self._of: tuple[Any, ...] | None = None
        self._drawn = float("-inf")
        self._drawing = threading.Lock()

    def current(self) -> CatalogueMap | None:
        """The map as it is by now; None while the first one of many videos is drawn."""
        snapshot = self.reelsense.table.snapshot
        wanted = self._identity(snapshot)
        if wanted == self._of:
            return self._map
        if len(snapshot.row_of) <= AT_ONCE:
            with self._drawing:
                if wanted != self._of:
                    self._draw(snapshot, wanted)
            return self._map
        if time.monotonic() - self._drawn > KEPT_SECONDS and self._drawing.acquire(blocking=False):
            threading.Thread(target=self._draw_beside, args=(snapshot, wanted), name="map", daemon=True).start()
        return self._map

    def _identity(self, snapshot: Snapshot) -> tuple[Any, ...]:
        versions = self.reelsense.graph.versions
        return versions["published"], versions["topics"], len(snapshot), len(snapshot.row_of)

    def _draw_beside(self, snapshot: Snapshot, wanted: tuple[Any, ...]) -> None:
        try:
            self._draw(snapshot, wanted)
        except ReelsenseError as error:
            log.warning("the map waits", code=error.code, message=error.message)
        except Exception:
            log.exception("drawing the map failed")
        finally:
            # Also after an error: a map that cannot be drawn is not tried at each request.
            self._drawn = time.monotonic()
            self._drawing.release()

    def _draw(self, snapshot: Snapshot, wanted: tuple[Any, ...]) -> None:
        self._map = drawn(self.reelsense, snapshot)
        self._of = wanted


def drawn(reelsense: ReelSense, snapshot: Snapshot) -> CatalogueMap:
    """Draw the map of a table."""
    rows = np.flatnonzero(snapshot.alive)
    published = len(rows)
    if published > MOST_DRAWN:
        rows = rows[np.linspace(0, published - 1, MOST_DRAWN).astype(np.int64)]
    ids = tuple(snapshot.ids[row] for row in rows.tolist())
    vectors = snapshot.vectors[rows]
    places = np.round(laid_out(vectors) * 1000).astype(np.int16) if ids else np.zeros((0, 2), np.int16)
    topics = _topics(reelsense, ids)
    if any(topics):
        names, by = topics, "topics"
    else:
        names, by = _alike(snapshot, rows, vectors), "likeness"
    of, groups = _grouped(ids, names, vectors)
    return CatalogueMap(ids, places, of, groups, published, by)


def _topics(reelsense: ReelSense, ids: Sequence[str]) -> list[str]:
    """The first topic of each video, empty where there is none; none is read where no topics were learnt."""
    if not reelsense.graph.plans[0].models.get("topics"):
        return [""] * len(ids)
    topic_of = {video.id: _topic(reelsense, video) for video in reelsense.catalogue.videos(ids)}
    return [topic_of.get(video, "") for video in ids]


def _topic(reelsense: ReelSense, video: Video) -> str:
    try:
        artifact = reelsense.artifact(video, "topics")
    except ReelsenseError as error:
        if error.code != "store.artifact_damaged":
            raise
        artifact = None  # its own colour is lost, and nobody else's
    said = TopicsAttributes.model_validate(artifact.attributes).topics if artifact else []
    return said[0].name if said else ""


def _alike(snapshot: Snapshot, rows: npt.NDArray[np.int64], vectors: Float32) -> list[str]:
    """A name for the group of like vectors that each row is in: what its tags say more often than others' do."""
    if len(rows) < 4:
        return [""] * len(rows)
    count = min(GROUPS, max(2, len(rows) // 5))
    of = clusters(components(vectors, 16), count)
    tags = [snapshot.rows[row].tags for row in rows.tolist()]
    overall: Counter[str] = Counter()
    for own in tags:
        overall.update(own.keys())
    names: dict[int, str] = {}
    for group in range(count):
        members = np.flatnonzero(of == group).tolist()
        weights: dict[str, float] = {}
        for place in members:
            for tag, weight in tags[place].items():
                weights[tag] = weights.get(tag, 0.0) + weight
        carried = Counter(tag for place in members for tag in tags[place])
        # A tag that others have as often says nothing of this group.
        said = {
            tag: weight * (carried[tag] / overall[tag] - len(members) / len(rows)) for tag, weight in weights.items()
        }
        best = sorted(said, key=lambda tag: (-said[tag], tag))[:2]
        names[group] = ", ".join(best) or f"group {group + 1}"
    return [names[int(group)] for group in of]


def _grouped(
    ids: Sequence[str], names: Sequence[str], vectors: Float32
) -> tuple[npt.NDArray[np.int16], tuple[Group, ...]]:
    """The colour of each video, and the groups: the largest ones, and all others as one."""
    counts = Counter(name for name in names if name)
    chosen = sorted(counts, key=lambda name: (-counts[name], name))[:GROUPS]
    number: Mapping[str, int] = {name: place for place, name in enumerate(chosen)}
    of = np.array([number.get(name, len(chosen)) for name in names], np.int16)
    groups = []
    for place, name in enumerate([*chosen, OTHER]):
        members = np.flatnonzero(of == place)
        if not len(members):
            continue
        middle = vectors[members].mean(axis=0)
        order = members[np.argsort(-(vectors[members] @ middle), kind="stable")]
        groups.append(Group(name, len(members), tuple(ids[row] for row in order[:SHOWN].tolist())))
    return of, tuple(groups)
