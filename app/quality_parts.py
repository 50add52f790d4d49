"""What is shown of each file of `bench/results`: tables of text, and plots. Each function takes the file's document and
raises KeyError, TypeError or ValueError for one of another form."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from app.plots import Bar, Line, bars, lines

# The row that each comparison is about.
OURS = frozenset({"hybrid", "together", "trained", "thompson", "ease + trained"})
SPLITS = {
    "random": "a tenth of each viewer's acts, at random",
    "leave_last_out": "the last act of each viewer",
    "global_time": "everything after one moment",
    "given": "the split that came with it",
    "new_videos": "new videos, ranked among themselves",
}


@dataclass(frozen=True)
class Table:
    """A table: its first column names the rows. `strong`: the rows that it is about; `numbers`: whether the other
    columns are figures."""

    title: str
    head: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]
    strong: frozenset[str] = frozenset()
    numbers: bool = True

    def as_json(self) -> dict[str, Any]:
        """Rows as objects by column."""
        return {"title": self.title, "rows": [dict(zip(self.head, row, strict=True)) for row in self.rows]}


@dataclass(frozen=True)
class Picture:
    """A plot and its caption."""

    title: str
    svg: Markup


Shown = Table | Picture


def learning(document: Mapping[str, Any]) -> list[Shown]:
    """{dataset: {split: {model: row}}}, a row with `ndcg@10`, its interval `low` to `high`, `recall@10` and cost."""
    shown: list[Shown] = []
    for dataset, split, rows in _splits(document):
        if not rows or "ndcg@10" not in next(iter(rows.values())):
            continue
        title = f"{dataset}: {SPLITS.get(split, split)}"
        best_first = sorted(rows.items(), key=lambda item: item[1]["ndcg@10"], reverse=True)
        drawn = [
            Bar(name, row["ndcg@10"], _four(row["ndcg@10"]), row.get("low"), row.get("high"), name in OURS)
            for name, row in best_first
        ]
        shown.append(Picture(f"{title}: NDCG@10", bars(_sentence(f"NDCG@10 on {title}", drawn), drawn)))
        table = [
            (
                name,
                _four(row["ndcg@10"]),
                f"{_four(row['low'])} to {_four(row['high'])}" if "low" in row else "-",
                *(_four(row.get(key)) for key in ("recall@10", "ndcg@20", "recall@20")),
                _plain(row.get("fit_cpu_seconds", row.get("fit_seconds")), 1),
            )
            for name, row in best_first
        ]
        head = ("Model", "NDCG@10", "95 %", "Recall@10", "NDCG@20", "Recall@20", "Fit, s")
        shown.append(Table(title, head, table, OURS))
    return _some(shown)


def recall(document: Mapping[str, Any]) -> list[Shown]:
    """{dataset: {split: {"viewers", "rows": {source: row}}}}."""
    shown: list[Shown] = []
    for dataset, split, found in _splits(document):
        title = f"{dataset}: {SPLITS.get(split, split)} ({found['viewers']:,} viewers)"
        best_first = sorted(found["rows"].items(), key=lambda item: item[1]["recall@20"], reverse=True)
        drawn = [
            Bar(_words(name), row["recall@20"], _four(row["recall@20"]), strong=name in OURS)
            for name, row in best_first
        ]
        shown.append(Picture(f"{title}: recall@20", bars(_sentence(f"Recall@20 on {title}", drawn), drawn)))
        columns = {
            "Recall@10": "recall@10",
            "NDCG@10": "ndcg@10",
            "Recall@20": "recall@20",
            "NDCG@20": "ndcg@20",
            "Coverage@20": "coverage@20",
        }
        shown.append(_table(title, "Source", columns, dict(best_first)))
    return _some(shown)


def fusion(document: Mapping[str, Any]) -> list[Shown]:
    """`full` and `missing`: a row a way of fusing; `faithfulness`: what is lost when the weightiest tokens go."""
    shown: list[Shown] = []
    columns = {"First found": "r1", "Among five": "r5", "Mean reciprocal rank": "mrr"}
    for key, title in (("full", "All modalities there"), ("missing", "Modalities missing")):
        rows = dict(sorted(document[key].items(), key=lambda item: item[1]["mrr"], reverse=True))
        drawn = [Bar(name, row["mrr"], _four(row["mrr"]), strong=name in OURS) for name, row in rows.items()]
        sentence = _sentence(f"Mean reciprocal rank, {title.lower()}", drawn)
        shown += [Picture(f"{title}: mean reciprocal rank", bars(sentence, drawn))]
        shown += [_table(title, "Fused by", columns, rows)]
    faithful = document["faithfulness"]
    series = [
        Line(label, tuple(zip(faithful["shares"], faithful[key], strict=True)))
        for key, label in (("by_weight", "weightiest first"), ("at_random", "at random"))
    ]
    sentence = (
        "How far the vector moves when tokens are taken away: more when the weightiest go first than at random, so "
        "attention points at what matters."
    )
    title = "How far the vector moves when tokens are taken away"
    shown.append(Picture(title, lines(sentence, series, "share of tokens taken", "moved")))
    return shown


def behaviour(document: Mapping[str, Any]) -> list[Shown]:
    """{data set: {"ranked", "rows": {vectors: row}}}."""
    shown: list[Shown] = []
    names = {
        "lastfm2k": "Last.fm: known items",
        "lastfm2k_new": "Last.fm: new items",
        "tiktok_new": "TikTok: new videos",
    }
    columns = {"Recall@10": "recall10", "NDCG@10": "ndcg10", "Recall@20": "recall20", "NDCG@20": "ndcg20"}
    for key, name in names.items():
        if key not in document:
            continue
        rows = dict(document[key]["rows"])
        rows |= document[key].get("hybrid", {}).get("rows", {})
        rows = dict(sorted(rows.items(), key=lambda item: item[1]["recall20"], reverse=True))
        drawn = [
            Bar(label, row["recall20"], _four(row["recall20"]), strong=label in OURS) for label, row in rows.items()
        ]
        shown.append(Picture(f"{name}: recall@20", bars(_sentence(f"Recall@20, {name}", drawn), drawn)))
        shown.append(_table(name, "Ranked by", columns, rows))
    return _some(shown)


def feeds(document: Mapping[str, Any]) -> list[Shown]:
    """`recommend`: {number of videos: row}."""
    rows = sorted((int(videos), row) for videos, row in document["recommend"].items())
    series = [
        Line(label, tuple((videos, row[key]) for videos, row in rows))
        for key, label in (("p50_ms", "half are faster"), ("p99_ms", "99 of 100 are faster"))
    ]
    last, row = rows[-1]
    sentence = (
        f"Milliseconds for a feed by videos in the catalogue: at {last:,} half take {row['p50_ms']:.0f} and "
        f"99 of 100 take {row['p99_ms']:.0f} at most."
    )
    table = [
        (
            f"{videos:,}",
            _plain(row["p50_ms"], 0),
            _plain(row["p99_ms"], 0),
            _plain(row["p50_cpu_ms"], 0),
            _plain(row["ann_recall_at_100"], 3),
            _plain(row["freshness"]["publication_to_feed_ms"], 0),
            _plain(row["freshness"]["event_to_changed_feed_ms"], 0),
            f"{row['peak_memory_mb']:,}",
        )
        for videos, row in rows
    ]
    head = ("Videos", "p50, ms", "p99, ms", "CPU p50, ms", "Recall@100", "New video, ms", "After an event, ms", "MB")
    return [
        Picture("Milliseconds for a feed", lines(sentence, series, "videos in the catalogue", "ms", logarithmic=True)),
        Table("Feeds by the size of the catalogue", head, table),
    ]


def vectors(document: Mapping[str, Any]) -> list[Shown]:
    """`sizes`: a row a number of vectors, `hnsw` the same of another index."""
    sizes = document["sizes"]
    series = [
        Line("all compared", tuple((row["rows"], row["exact_cpu_ms"]["p50"]) for row in sizes)),
        Line("our cells", tuple((row["rows"], row["cpu_ms"]["p50"]) for row in sizes)),
    ]
    sentence = "CPU milliseconds of a search by number of vectors: comparing all grows with them, our cells hardly do."
    found = [("our cells", row) for row in sizes] + [("HNSW", row) for row in document.get("hnsw", [])]
    table = [
        (
            name,
            f"{row['rows']:,}",
            _four(row["recall_at_100"]),
            _plain(row["cpu_ms"]["p50"], 2),
            _plain(row["cpu_ms"]["p95"], 2),
            _plain(row.get("build_cpu_seconds"), 1),
        )
        for name, row in found
    ]
    head = ("Index", "Vectors", "Recall@100", "CPU p50, ms", "CPU p95, ms", "Built in, CPU s")
    return [
        Picture("CPU milliseconds of a search", lines(sentence, series, "vectors", "CPU ms", logarithmic=True)),
        Table("Indexes of vectors", head, table),
    ]


def exploration(document: Mapping[str, Any]) -> list[Shown]:
    """`rows`: {way of choosing: row}, with `spread` over the runs."""
    key = "impressions_until_half_were_found"
    rows = sorted(document["rows"].items(), key=lambda item: item[1][key])
    drawn = [
        Bar(
            name,
            row[key],
            f"{row[key]:,.0f}",
            row[key] - row["spread"][key],
            row[key] + row["spread"][key],
            name in OURS,
        )
        for name, row in rows
    ]
    table = [
        (name, f"{row[key]:,.0f}", _plain(row["median_impressions"], 1), f"{100 * row['found']:.1f} %")
        for name, row in rows
    ]
    title = "Impressions until half of the new videos were found"
    return [
        Picture(title, bars(_sentence(title, drawn), drawn)),
        Table(title, ("Shown by", "Impressions", "Median a video", "Found at all"), table, OURS),
    ]


def chaos(document: Mapping[str, Any]) -> list[Shown]:
    """`variants`: {broker and store: row}."""
    columns = {
        "Uploads": "uploads",
        "Kills": "kills",
        "Published": "published",
        "Refused for what they are": "dead",
        "Lost": "lost",
        "Twice": "doubled",
        "Unequal": "unequal",
    }
    rows = {
        name.replace("+", ", "): {key: row[key] for key in columns.values()}
        for name, row in document["variants"].items()
    }
    return [
        Table("Broker and store", ("On", *columns), [(name, *map(_count, row.values())) for name, row in rows.items()])
    ]


def memory(document: Mapping[str, Any]) -> list[Shown]:
    """`curve`: [seconds, videos, child, megabytes]."""
    series: list[Line] = []
    for child in dict.fromkeys(point[2] for point in document["curve"]):
        points = tuple((point[1], point[3]) for point in document["curve"] if point[2] == child)
        series.append(Line(f"child {child}", points))
    sentence = (
        f"Megabytes held by a worker over {document['videos']:,} videos: {document['most_megabytes']:,.0f} at most, "
        "and flat within the life of each child."
    )
    return [Picture("Megabytes by videos done", lines(sentence, series, "videos done", "MB"))]


def page_weight(document: Mapping[str, Any]) -> list[Shown]:
    """`pages`: {path: {width: row}}."""
    rows = [
        (
            path,
            width,
            _plain(row["bytes"] / 1024, 0),
            _count(row["requests"]),
            _plain(row["first_paint_ms"], 0),
            _plain(row["again_bytes"] / 1024, 0),
        )
        for path, widths in document["pages"].items()
        for width, row in widths.items()
    ]
    head = ("Page", "Width", "First visit, KiB", "Requests", "First paint, ms", "Next visit, KiB")
    return [Table("Pages", head, rows)]


def _splits(document: Mapping[str, Any]) -> Iterable[tuple[str, str, Any]]:
    for dataset, splits in document.items():
        if dataset != "machine" and isinstance(splits, Mapping):
            for split, found in splits.items():
                if isinstance(found, Mapping):
                    yield dataset, split, found


def _table(title: str, first: str, columns: Mapping[str, str], rows: Mapping[str, Mapping[str, Any]]) -> Table:
    cells = [(_words(name), *(_four(row.get(key)) for key in columns.values())) for name, row in rows.items()]
    return Table(title, (first, *columns), cells, OURS)


def _some(shown: list[Shown]) -> list[Shown]:
    if not shown:
        raise ValueError("it holds no figures")
    return shown


def _sentence(about: str, drawn: Sequence[Bar]) -> str:
    """What a bar plot says, to whom cannot see it; the table has every figure."""
    first, last = drawn[0], drawn[-1]
    return f"{about}: from {first.shown} ({first.label}) to {last.shown} ({last.label}), {len(drawn)} bars."


def _words(name: str) -> str:
    return name.replace("_", " ")


def _four(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def _plain(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:,.{digits}f}"


def _count(value: Any) -> str:
    return f"{value:,}"
