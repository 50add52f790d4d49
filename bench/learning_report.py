"""The learning bench's table and plot: docs/learning.md between its markers, and docs/learning.svg."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bench.learning_fit import HYBRID, NEW_VIDEOS

DOCS = Path(__file__).resolve().parents[1] / "docs"
PAGE, PLOT = DOCS / "learning.md", DOCS / "learning.svg"
BEGIN, END = "<!-- figures: begin -->", "<!-- figures: end -->"
PEER_METRICS = ("ndcg@10", "recall@10", "recall@20", "rmse")
TITLES = {
    "random": "random 8:1:1 of each viewer",
    "leave_last_out": "leave last out",
    "global_time": "global time",
    "given": "the split that came with it",
    NEW_VIDEOS: "new videos, ranked among themselves",
}


def write_table(document: Mapping[str, Any]) -> Path:
    """Put the tables between the markers of the page, which says the rest."""
    return put(tables(document), BEGIN, END)


def put(text: str, begin: str, end: str) -> Path:
    """Put `text` between two markers of the page, in the place of what stands there."""
    before, _, rest = PAGE.read_text().partition(begin)
    _, found, after = rest.partition(end)
    if not found:
        raise ValueError(f"{PAGE} lacks its markers {begin} and {end}")
    PAGE.write_text(f"{before}{begin}\n\n{text}\n{end}{after}")
    return PAGE


def tables(document: Mapping[str, Any]) -> str:
    """One table a data set and split, the best last; then what the hybrid is made of."""
    parts = []
    for dataset, splits in document.items():
        for split, rows in splits.items():
            first = next(iter(rows.values()))
            parts.append(f"### {dataset}: {TITLES[split]} ({first['viewers']} viewers)\n")
            parts.append(
                "| model | NDCG@10 (95 %) | Recall@10 | NDCG@20 | Recall@20 | coverage@10 | fit, CPU s | peer |"
            )
            parts.append("|---|---|---|---|---|---|---|---|")
            parts += [_line(name, row) for name, row in rows.items()]
            parts.append("")
            if HYBRID in rows:
                parts += [_of_hybrid(rows[HYBRID]), ""]
            if told := _of_sequences(rows):
                parts += [told, ""]
            if any("groups" in row for row in rows.values()):
                parts += [_groups(rows), ""]
    return "\n".join(parts)


def _line(name: str, row: Mapping[str, Any]) -> str:
    shown = f"**{name}**" if name == HYBRID else name
    if row["history"] != "training":
        shown += " *"
    cells = [
        shown,
        f"{row['ndcg@10']:.4f} ({row['low']:.4f} to {row['high']:.4f})",
        *(f"{row[key]:.4f}" for key in ("recall@10", "ndcg@20", "recall@20")),
        f"{row['beyond']['coverage@10']:.2f}",
        f"{row['fit_cpu_seconds']:.1f}",
        _peer(row),
    ]
    return f"| {' | '.join(cells)} |"


def _of_hybrid(row: Mapping[str, Any]) -> str:
    """Its weights (of all viewers, or light / heavy ones), and the gain over the best single model."""
    weights: dict[str, list[float]] = {}
    for label, values in row.get("weights", [{}])[0].items():
        name = label.partition("@")[0]
        weights[name] = [old + new for old, new in zip(weights.get(name, [0.0] * len(values)), values, strict=True)]
    named = ", ".join(
        f"{name} {' / '.join(f'{value:.2f}' for value in values)}"
        for name, values in sorted(weights.items(), key=lambda item: -max(item[1]))
        if max(values) > 0
    )
    told = f"The hybrid is {named}. Ahead in NDCG@10, viewer by viewer, of {_ahead(row, row['best_single'])}, which"
    told += " validation likes best of the single ones"
    gains = {name: gain["ndcg@10"] for name, gain in row["ahead_of"].items()}
    unclear = sorted(name for name, gain in gains.items() if gain["interval95"][0] <= 0)
    return f"{told}; not clearly ahead of {', '.join(unclear)}." if unclear else f"{told}; clearly ahead of every one."


def _of_sequences(rows: Mapping[str, Any]) -> str:
    """How far the models of sequences are ahead of what they have to beat."""
    told = [
        f"{name} of {_ahead(row, other)}"
        for name, row in rows.items()
        if name != HYBRID
        for other in row.get("ahead_of", {})
    ]
    return f"Ahead in NDCG@10, viewer by viewer: {'; '.join(told)}." if told else ""


def _ahead(row: Mapping[str, Any], other: str) -> str:
    gain = row["ahead_of"][other]["ndcg@10"]
    low, high = gain["interval95"]
    return f"{other} by {gain['mean']:+.4f} ({low:+.4f} to {high:+.4f})"


def _peer(row: Mapping[str, Any]) -> str:
    """What others reached, whether we did, and their CPU seconds where they are known."""
    peer = row.get("peer")
    if peer is None:
        return ""
    metric = next(name for name in PEER_METRICS if name in peer)
    cost = f", {peer['cpu_seconds']:g} CPU s" if "cpu_seconds" in peer else ""
    own = f" (ours {row[metric]:.4f})" if metric == "rmse" else ""
    return f"{'reached' if peer['reached'] else '**missed**'}: {metric} {peer[metric]:.4f}{own}, {peer['of']}{cost}"


def _groups(rows: Mapping[str, Any]) -> str:
    """NDCG@10 of the parts of the viewers."""
    names = list(dict.fromkeys(name for row in rows.values() for name in row.get("groups", {})))
    counts = {
        name: next(row["groups"][name]["viewers"] for row in rows.values() if name in row["groups"]) for name in names
    }
    lines = ["| NDCG@10 | " + " | ".join(f"{name.replace('_', ' ')} ({counts[name]:.0f})" for name in names) + " |"]
    lines.append("|" + "---|" * (len(names) + 1))
    for name, row in rows.items():
        cells = [f"{row['groups'][part]['ndcg@10']:.4f}" if part in row["groups"] else "" for part in names]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def draw(document: Mapping[str, Any]) -> Path | None:
    """NDCG@10 of every model with its interval, a panel a data set and split. None without matplotlib."""
    try:
        import matplotlib  # type: ignore[import-not-found, unused-ignore]
    except ModuleNotFoundError:
        print("The plot is skipped: matplotlib is not installed (pip install matplotlib)", flush=True)
        return None
    matplotlib.use("svg")
    from matplotlib import pyplot  # type: ignore[import-not-found, unused-ignore]

    # The same figures make the same file.
    matplotlib.rcParams.update({"svg.hashsalt": "learning", "font.size": 8})
    panels = [(dataset, split, rows) for dataset, splits in document.items() for split, rows in splits.items()]
    columns = min(3, len(panels))
    lines = -(-len(panels) // columns)
    figure, axes = pyplot.subplots(lines, columns, figsize=(4.2 * columns, 3.4 * lines), squeeze=False)
    for axis in axes.ravel()[len(panels) :]:
        axis.set_visible(False)
    for axis, (dataset, split, rows) in zip(axes.ravel(), panels, strict=False):
        names = list(rows)
        values = [rows[name]["ndcg@10"] for name in names]
        below = [max(rows[name]["ndcg@10"] - rows[name]["low"], 0) for name in names]
        above = [max(rows[name]["high"] - rows[name]["ndcg@10"], 0) for name in names]
        colours = ["#c0392b" if name == HYBRID else "#4c78a8" for name in names]
        axis.barh(names, values, xerr=[below, above], color=colours, error_kw={"elinewidth": 0.8, "capsize": 2})
        axis.set_title(f"{dataset}: {split.replace('_', ' ')}")
        axis.set_xlabel("NDCG@10, interval of 95 %")
        axis.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    figure.savefig(PLOT, metadata={"Date": None})
    pyplot.close(figure)
    return PLOT
