"""`make demo`: real videos in, what is understood of each, and two viewers' feeds with their reasons. Then all stops.

With `--videos FOLDER` it does the same on files of one's own. The results stay in the data directory.
"""

from __future__ import annotations

import argparse
import itertools
import sys
import time
from pathlib import Path
from typing import Any

from app.adding import add_all
from app.clips import CLIPS, fetch
from app.operations import Added, ReelSense
from app.stack import connected, ensure, running
from app.tables import console, show_added, show_feed, show_video
from store.errors import ReelsenseError
from store.settings import Settings, load_settings

VIEWERS = ("ana", "ben")


def add_clips(settings: Settings) -> list[Added]:
    """The demo's own clips, each with its title and tags; then wait for all of them."""
    files = fetch(settings.cache)
    for clip, file in zip(CLIPS, files, strict=True):
        add_all(settings, [file], {"title": clip.title, "tags": clip.tags}, wait=False)
    return add_all(settings, files, {}, wait=True)


def tastes(reelsense: ReelSense, ids: list[str]) -> tuple[str, str]:
    """The two videos that are least alike: one for each viewer to love. Raises ValueError for fewer than two."""
    table = reelsense.table
    pairs = itertools.combinations(sorted(ids), 2)
    return min(pairs, key=lambda pair: float(table.get(pair[0]).vector @ table.get(pair[1]).vector))


def watch(reelsense: ReelSense, loved: tuple[str, str]) -> None:
    """Each viewer finishes and likes the video that the other one skips."""
    for viewer, mine, other in ((VIEWERS[0], *loved), (VIEWERS[1], *reversed(loved))):
        length = reelsense.table.get(mine).attributes.duration
        reelsense.event(viewer, mine, "view", length)
        reelsense.event(viewer, mine, "like", None)
        reelsense.event(viewer, other, "skip", 0.3)


def run(settings: Settings, videos: Path | None) -> int:
    """The whole demo; the exit status."""
    out = console()
    started = time.monotonic()
    with ensure(settings) as live:
        added = add_all(live, [videos], {}, wait=True) if videos else add_clips(live)
        took = time.monotonic() - started
        reelsense = ReelSense(live)
        show_added(added)
        ready = list(dict.fromkeys(item.id for item in added if item.id is not None and item.state == "ready"))
        out.print(f"\n{len(ready)} videos ready after {took:.0f} seconds. What was understood of each:\n", markup=False)
        for video in ready:
            show_video(reelsense.show(video))
            out.print()
        if len(ready) >= 3:
            _feeds(reelsense, ready, out)
        else:
            out.print("Two feeds need at least three videos; add more to see them.", markup=False)
    data = settings.data
    out.print(f"\nEverything is stopped; the results are in {data}. Look again with, for instance:", markup=False)
    out.print(f"  .venv/bin/reelsense status --data {data}", markup=False)
    out.print(f"  .venv/bin/reelsense search 'a person on a bicycle' --data {data}", markup=False)
    return 0 if ready and not any(item.error for item in added) else 1


def _feeds(reelsense: ReelSense, ready: list[str], out: Any) -> None:
    loved = tastes(reelsense, ready)
    watch(reelsense, loved)
    for viewer, video in zip(VIEWERS, loved, strict=True):
        title = reelsense.status(video)["videos"][0]["title"]
        out.print(f"[bold]The feed of {viewer}[/], who finished and liked “{title}”:\n", markup=True)
        show_feed(reelsense.recommend(viewer, 5))
        out.print()


def main() -> None:
    """Read the arguments and run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--videos", type=Path, help="a folder of videos of your own")
    parser.add_argument("--data", type=Path, default=Path("demo-data"))
    arguments = parser.parse_args()
    try:
        settings = load_settings(data=arguments.data)
        if (info := running(settings)) is not None:
            settings = connected(settings, info)
        sys.exit(run(settings, arguments.videos))
    except ReelsenseError as error:
        sys.exit(f"{error.code}: {error.message} {error.hint}")


if __name__ == "__main__":
    main()
