"""Trained rankers in object storage: what was learnt, whose numbers it is about, and a card.

    models/rankers/NAME/VERSION.safetensors    the model (`ranker.models.model_file`), which knows numbers alone
    models/rankers/NAME/VERSION.ids.json       the ids of its videos and the names of its tags, by number
    models/rankers/NAME/VERSION.viewers.json   the ids of its viewers, by number, apart from all else: null where one
                                               was forgotten
    models/rankers/NAME/VERSION.json, .md      the card, for programs and for people; it names nobody

A version is the digest of the first three, so a key names exactly what lies under it, and a ranker without somebody who
was forgotten is another version.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from ranker.models import model_file
from ranker.models.histories import packed, unpacked
from ranker.models.model import Model, model_class
from ranker.models.training_data import ActLog, Integers
from store.artifacts import RANKERS, digest, ranker_key
from store.errors import InputError, ModelError, NotFoundError
from store.objects import ObjectStore

# Of each model the arrays that have a row for each viewer, and the sparse matrices (`histories.packed`) that do; both
# empty where it holds sums over viewers alone. Of a model that is not named here nobody knows, so it cannot be cleaned.
# Those of the models that a model is made of (`MEMBERS`) are not repeated.
VIEWER_ARRAYS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "popularity": ((), ()),
    "item_knn": ((), ()),
    "p3alpha": ((), ()),
    "als": ((), ()),
    "ease": ((), ()),
    "content": ((), ()),
    "content_map": ((), ()),
    "gru": ((), ()),
    "sasrec": ((), ()),
    "sasrec_content": ((), ()),
    "two_tower": ((), ()),
    "hybrid": ((), ()),
    "bpr": (("own",), ()),
    "lightgcn": (("own",), ()),
    "svdpp": (("own", "viewer_bias"), ()),
    "fm": (("own",), ()),
    "multitask": (("known_viewers", "network.viewer.weight"), ()),
    "walk": ((), ("cells",)),
    "knowledge_graph": ((), ("cells",)),
}
# What stands before the names of the arrays of a member, by its label, in models that have `members`.
MEMBERS = {"hybrid": "{}/", "multitask": "input.{}."}
PARTS = ("safetensors", "ids.json", "viewers.json", "md", "json")


@dataclass(frozen=True, eq=False)
class StoredRanker:
    """A model and whose its numbers are: `videos[n]` is the video n, `viewers[n]` the viewer n, None for one who was
    forgotten; `tags[n]` the name of the tag n."""

    model: Model
    videos: tuple[str, ...]
    viewers: tuple[str | None, ...]
    tags: tuple[str, ...] = ()

    def __repr__(self) -> str:
        return f"StoredRanker({self.title}, viewers={len(self.viewers)}, videos={len(self.videos)})"

    @cached_property
    def version(self) -> str:
        """16 hexadecimal digits that name what was learnt, and about whom."""
        return digest([model_file.version_of(self.model), self.videos, self.tags, self.viewers])

    @property
    def title(self) -> str:
        """`NAME/VERSION`, as the catalogue and people call it."""
        return f"{self.model.name}/{self.version}"

    @cached_property
    def video_numbers(self) -> dict[str, int]:
        """The number of each video."""
        return {name: number for number, name in enumerate(self.videos)}

    @cached_property
    def viewer_numbers(self) -> dict[str, int]:
        """The number of each viewer who was not forgotten."""
        return {name: number for number, name in enumerate(self.viewers) if name is not None}

    def scores(self, log: ActLog, viewer_ids: Sequence[str], video_ids: Sequence[str], viewers: Integers) -> Any:
        """float64 [len(viewers), len(video_ids)] for the rows of a log whose numbers are others: `viewer_ids[n]` is its
        viewer n, `video_ids[n]` its video n. Minus infinity for videos that the model does not know."""
        columns = np.array([self.video_numbers.get(name, -1) for name in video_ids], np.int64)
        rows = np.array([self.viewer_numbers.get(name, -1) for name in viewer_ids], np.int64)
        new = np.flatnonzero(rows < 0)
        rows[new] = len(self.viewers) + np.arange(len(new))
        known = columns[log.videos] >= 0
        own = ActLog.of(
            rows[log.viewers[known]],
            columns[log.videos[known]],
            len(self.viewers) + len(new),
            len(self.videos),
            at=log.at[known],
            values=log.values[known],
            watched=log.watched[known],
            kinds=log.kinds[known],
            ratings=log.ratings[known],
        )
        found = np.full((len(viewers), len(video_ids)), -np.inf)
        there = np.flatnonzero(columns >= 0)
        found[:, there] = self.model.score(own, rows[viewers])[:, columns[there]]
        return found


def save(objects: ObjectStore, ranker: StoredRanker, card: Mapping[str, Any], page: str) -> None:
    """Store all parts; the card, by which a ranker is found, last. Raises `ranker.not_finite`, `store.unavailable`."""
    name, version = ranker.model.name, ranker.version
    ids = {"videos": ranker.videos, "tags": ranker.tags}
    objects.put(ranker_key(name, version, "safetensors"), model_file.to_bytes(ranker.model))
    objects.put(ranker_key(name, version, "ids.json"), _json(ids))
    objects.put(ranker_key(name, version, "viewers.json"), _json(ranker.viewers))
    objects.put(ranker_key(name, version, "md"), page.encode())
    objects.put(ranker_key(name, version, "json"), _json(card))


def load(objects: ObjectStore, title: str) -> StoredRanker:
    """The ranker `NAME/VERSION`. Raises `store.missing`, `model.damaged` for parts that are not what the version says,
    `ranker.bad_model` for one that this program cannot serve, `store.unavailable`."""
    name, version = parsed(title)
    model = model_file.from_bytes(objects.get(ranker_key(name, version, "safetensors")))
    try:
        ids = json.loads(objects.get(ranker_key(name, version, "ids.json")))
        viewers = viewers_of(objects, title)
        found = StoredRanker(model, tuple(ids["videos"]), tuple(viewers), tuple(ids["tags"]))
        whole = found.version == version and model.name == name
    except (ValueError, KeyError, TypeError):
        whole = False
    if not whole:
        raise ModelError(
            "model.damaged", f"The parts of the ranker {title} are not what its version says.", hint="Train it again."
        )
    return found


def viewers_of(objects: ObjectStore, title: str) -> list[str | None]:
    """The viewers of a stored ranker by number, without its model. Raises as `load`."""
    name, version = parsed(title)
    try:
        found: list[str | None] = json.loads(objects.get(ranker_key(name, version, "viewers.json")))
    except ValueError as error:
        raise ModelError("model.damaged", f"The viewers of the ranker {title} cannot be read.") from error
    return found


def cards(objects: ObjectStore) -> Iterator[dict[str, Any]]:
    """The cards of all stored rankers, by name and version."""
    for item in objects.list(RANKERS):
        if item.key.endswith(".json") and not item.key.endswith((".ids.json", ".viewers.json")):
            try:
                yield dict(json.loads(objects.get(item.key)))
            except InputError as error:
                if error.code != "store.missing":  # deleted since it was listed
                    raise


def titles(objects: ObjectStore) -> list[str]:
    """`NAME/VERSION` of everything of which a list of viewers is stored, whole or not."""
    end = ".viewers.json"
    return [item.key[len(RANKERS) : -len(end)] for item in objects.list(RANKERS) if item.key.endswith(end)]


def card_of(objects: ObjectStore, title: str) -> dict[str, Any]:
    """The card of a ranker. Raises `ranker.no_such_model`."""
    name, version = parsed(title)
    try:
        return dict(json.loads(objects.get(ranker_key(name, version, "json"))))
    except InputError as error:
        if error.code != "store.missing":
            raise
        raise _unknown(title) from None


def find(objects: ObjectStore, wanted: str) -> dict[str, Any]:
    """The card of the ranker that `wanted` names: `NAME/VERSION`, the beginning of that, or NAME for the newest of that
    name. Raises `ranker.no_such_model`."""
    known = list(cards(objects))
    named = [card for card in known if card["model"] == wanted]
    if named:
        return max(named, key=lambda card: (card["trained_at"], card["version"]))
    found = [card for card in known if f"{card['model']}/{card['version']}".startswith(wanted) and "/" in wanted]
    if len(found) != 1:
        raise _unknown(wanted)
    return found[0]


def remove(objects: ObjectStore, title: str) -> None:
    """Delete all parts of a ranker; the card last, so that what was half deleted is found again."""
    name, version = parsed(title)
    for part in PARTS:
        objects.delete(ranker_key(name, version, part))


def parsed(title: str) -> tuple[str, str]:
    """(name, version) of `NAME/VERSION`. Raises `ranker.no_such_model`."""
    name, _, version = title.partition("/")
    if not name or not version:
        raise _unknown(title)
    return name, version


def without(ranker: StoredRanker, users: Collection[str]) -> StoredRanker | None:
    """The ranker without what it holds of these viewers: their names, and their rows in what was learnt, as zeros.
    None where it cannot be told which numbers are theirs: then the whole model has to go."""
    rows = sorted(ranker.viewer_numbers[user] for user in users if user in ranker.viewer_numbers)
    arrays = dict(ranker.model.arrays())
    own = viewer_arrays(ranker.model)
    if own is None:
        return None
    for name in own[0]:
        cleaned = np.array(arrays[name])
        cleaned[rows] = 0
        arrays[name] = cleaned
    for name in own[1]:
        cells = unpacked(name, arrays)
        cells.data[np.isin(np.repeat(np.arange(cells.shape[0]), np.diff(cells.indptr)), rows)] = 0
        # Where a row had something is told by the cells themselves: they go, and do not only hold 0.
        cells.eliminate_zeros()
        arrays |= packed(name, cells)
    model = model_class(ranker.model.name).from_arrays(ranker.model.config.model_dump(mode="json"), arrays)
    gone = set(rows)
    left = tuple(None if number in gone else name for number, name in enumerate(ranker.viewers))
    return replace(ranker, model=model, viewers=left)


def viewer_arrays(model: Model) -> tuple[list[str], list[str]] | None:
    """The names of the arrays, and of the sparse matrices, in which each viewer has a row, those of its members among
    them; None where that is not known."""
    if model.name not in VIEWER_ARRAYS:
        return None
    rows, cells = VIEWER_ARRAYS[model.name]
    found = list(rows), list(cells)
    for label, member in getattr(model, "members", {}).items():
        own = viewer_arrays(member)
        if own is None:
            return None
        for names, more in zip(found, own, strict=True):
            names += [MEMBERS[model.name].format(label) + name for name in more]
    return found


def _json(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"), sort_keys=True).encode()


def _unknown(title: str) -> NotFoundError:
    return NotFoundError(
        "ranker.no_such_model",
        f"There is no trained ranker {title[:60]!r}.",
        hint="`reelsense ranker models` lists them.",
    )
