"""Ways to get sampled frames out of a video, in CPU seconds, and how far their pictures are from exact decoding.

    python -m bench.decoding [--runs 5] [--videos FOLDER]

*sequential* is `workers.frame_decoding.read_frames`, the reference of the distances. *skipping* drops non-reference
frames and the loop filter, *keyframes* decodes nothing else, *seeking* asks for each sample, *ffmpeg* is the program
writing raw pictures into a pipe (`ffmpeg-python`). CPU seconds count every thread and the program's own process.
"""

from __future__ import annotations

import argparse
import resource
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from app.clips import fetch
from bench import results
from store.records import Frames
from store.settings import load_settings
from workers.frame_decoding import read_frames
from workers.frame_sampling import FrameSampling

Pictures = npt.NDArray[np.uint8]
INTERVAL_SECONDS = 0.5
SHORT_SIDE = 256


def sequential(file: Path) -> Frames:
    """Exact frames, every half second, as the `vision` stage takes them but without its bound on their number."""
    sampling = FrameSampling(strategy="fps", fps=1 / INTERVAL_SECONDS, max_frames=4096, short_side=SHORT_SIDE)
    return read_frames(file, sampling, load_settings().limits)


def _sampled(file: Path, prepare: Callable[[Any], None]) -> Pictures:
    import av

    kept: list[Pictures] = []
    slot = -1
    with av.open(str(file)) as container:
        stream = container.streams.video[0]
        prepare(stream.codec_context)
        for frame in container.decode(stream):
            now = int((frame.time or 0.0) / INTERVAL_SECONDS + 1e-6)
            if now > slot:
                slot = now
                kept.append(_scaled(frame))
    return np.stack(kept)


def _scaled(frame: Any) -> Pictures:
    scale = min(1.0, SHORT_SIDE / min(frame.width, frame.height))
    width, height = round(frame.width * scale), round(frame.height * scale)
    picture: Pictures = frame.reformat(width=width, height=height, format="rgb24", interpolation="BICUBIC").to_ndarray()
    return picture


def skipping(file: Path) -> Pictures:
    """PyAV without non-reference frames and without the loop filter."""

    def prepare(context: Any) -> None:
        context.thread_count = 1
        context.skip_frame = "NONREF"
        context.options = {"skip_loop_filter": "all"}

    return _sampled(file, prepare)


def keyframes(file: Path) -> Pictures:
    """PyAV, key frames alone: cheap, and as many pictures as the encoder happened to make."""

    def prepare(context: Any) -> None:
        context.thread_count = 1
        context.skip_frame = "NONKEY"

    return _sampled(file, prepare)


def seeking(file: Path) -> Pictures:
    """PyAV, one seek a sample, decoding on from the key frame before it."""
    import av

    kept: list[Pictures] = []
    with av.open(str(file)) as container:
        stream = container.streams.video[0]
        stream.codec_context.thread_count = 1
        seconds = float(stream.duration * stream.time_base) if stream.duration and stream.time_base else 0.0
        for place in range(int(seconds / INTERVAL_SECONDS) + 1):
            wanted = place * INTERVAL_SECONDS
            container.seek(int(wanted * 1_000_000))
            for frame in container.decode(stream):
                if (frame.time or 0.0) >= wanted - 1e-6:
                    kept.append(_scaled(frame))
                    break
    return np.stack(kept)


def ffmpeg(file: Path) -> Pictures:
    """The ffmpeg program: sampled and scaled there, raw pictures through a pipe."""
    import ffmpeg as program
    import imageio_ffmpeg

    exact = sequential_shape(file)
    stream = program.input(str(file)).filter("fps", fps=1 / INTERVAL_SECONDS, round="up")
    stream = stream.filter("scale", exact[1], exact[0], flags="bicubic")
    raw, _ = stream.output("pipe:", format="rawvideo", pix_fmt="rgb24", threads=1, loglevel="error").run(
        cmd=imageio_ffmpeg.get_ffmpeg_exe(), capture_stdout=True
    )
    return np.frombuffer(raw, np.uint8).reshape(-1, *exact, 3)


def sequential_shape(file: Path) -> tuple[int, int]:
    """Height and width of what is kept, from the header."""
    import av

    with av.open(str(file)) as container:
        context = container.streams.video[0].codec_context
        scale = min(1.0, SHORT_SIDE / min(context.width, context.height))
        return round(context.height * scale), round(context.width * scale)


def cpu_seconds() -> float:
    """CPU seconds of this process and of its children that have ended."""
    return sum(
        usage.ru_utime + usage.ru_stime
        for usage in (resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN))
    )


def difference(pictures: Pictures, exact: Pictures) -> float | None:
    """Mean absolute difference of a pixel (0 to 255) where both have as many pictures; else None."""
    if pictures.shape != exact.shape:
        return None
    return round(float(np.abs(pictures.astype(np.int16) - exact.astype(np.int16)).mean()), 2)


WAYS: dict[str, Callable[[Path], Pictures]] = {
    "sequential": lambda file: sequential(file).pixels,
    "skipping": skipping,
    "keyframes": keyframes,
    "seeking": seeking,
    "ffmpeg": ffmpeg,
}


def measure(file: Path, runs: int) -> dict[str, Any]:
    """Every way over one clip, in turn, `runs` times."""
    exact = sequential(file).pixels
    spent: dict[str, list[float]] = {way: [] for way in WAYS}
    found: dict[str, Pictures] = {}
    for _ in range(runs):
        for way, decode in WAYS.items():
            before = cpu_seconds()
            found[way] = decode(file)
            spent[way].append(cpu_seconds() - before)
    return {
        way: {
            "cpu_seconds": round(statistics.median(spent[way]), 3),
            "frames": len(found[way]),
            "difference": difference(found[way], exact),
        }
        for way in WAYS
    }


def main() -> None:
    """Measure and write `bench/results/decoding.json`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5, help="the median is reported")
    parser.add_argument("--videos", type=Path, help="a folder of MP4 files instead of the demo's clips")
    arguments = parser.parse_args()
    clips = sorted(arguments.videos.glob("*.mp4")) if arguments.videos else fetch(load_settings().cache)
    rows = {clip.name: measure(clip, arguments.runs) for clip in clips}
    totals = {way: round(sum(row[way]["cpu_seconds"] for row in rows.values()), 3) for way in WAYS}
    document = {"runs": arguments.runs, "interval_seconds": INTERVAL_SECONDS, "clips": rows, "cpu_seconds": totals}
    path = results.write("decoding", document)
    for way, total in totals.items():
        print(f"{way:12} {total:8.2f} CPU s   {total / totals['sequential']:.2f} of sequential")
    print(f"written: {path}")


if __name__ == "__main__":
    main()
