"""Measures the constants by which audio features are standardised, over real sounds, and writes them.

    python -m bench.audio_reference [--media FOLDER] [--out FILE]

The sounds are all tracks of `good/` and `audio/` in the folder of shared clips (53 with a track, 7 of them silent and
left out): speech in nine languages, songs, an orchestra, jazz, film and cartoon sound, animals, rooms and toys. Each
clip counts once, however long, and its windows share its weight; silent windows are left out. The same clips give the
same file: names in order, no time stamps, six significant digits. The file is a part of the encoder's identity
(`encoders.audio.reference_digest`), so another measurement is another version of the audio stage.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import av
import numpy as np
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from encoders import audio
from store.records import Float32

MEDIA = Path(__file__).parent.parent.parent / "shared" / "media"
OUT = Path(audio.__file__).with_name(audio.REFERENCE_FILE)


def read(path: Path, rate_hz: int) -> Float32 | None:
    """float32 [channels, n] of the first audio track of `path`, None where there is none.

    As `workers.sound_decoding.read_sound`, which takes no file that is sound alone, as most of these are.
    """
    with av.open(str(path)) as container:
        if not container.streams.audio:
            return None
        stream = container.streams.audio[0]
        resampler = av.AudioResampler("fltp", "stereo" if stream.codec_context.channels > 1 else "mono", rate_hz)
        pieces = [piece.to_ndarray() for frame in container.decode(stream) for piece in resampler.resample(frame)]
        pieces += [piece.to_ndarray() for piece in resampler.resample(None)]
    return np.concatenate(pieces, axis=1).astype(np.float32) if pieces else None


def measure(media: Path) -> dict[str, object]:
    """The reference: the clips, the features, and of each the mean and scale (standard deviation, 1e-3 at least)."""
    config = audio.AudioConfig()
    clips, rows, weights = [], [], []
    for path in sorted(path for folder in ("audio", "good") for path in (media / folder).iterdir()):
        samples = read(path, config.rate_hz)
        if samples is None:
            continue
        features = audio.audible_windows(samples, config)
        if not len(features):
            continue
        clips.append(f"{path.parent.name}/{path.name}")
        rows.append(features)
        weights.append(np.full(len(features), 1.0 / len(features)))
    stacked, weight = np.concatenate(rows), np.concatenate(weights)
    mean = np.average(stacked, axis=0, weights=weight)
    scale = np.maximum(np.sqrt(np.average((stacked - mean) ** 2, axis=0, weights=weight)), 1e-3)
    return {
        "clips": clips,
        "features": list(audio.FEATURES),
        "mean": [float(f"{value:.6g}") for value in mean],
        "scale": [float(f"{value:.6g}") for value in scale],
    }


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--media", type=Path, default=MEDIA)
    parser.add_argument("--out", type=Path, default=OUT)
    options = parser.parse_args()
    with threadpool_limits(1):
        reference = measure(options.media)
    options.out.write_text(json.dumps(reference, indent=1) + "\n", encoding="utf-8")
    print(f"{len(audio.FEATURES)} features over the clips of {options.media}: {options.out.name}")


if __name__ == "__main__":
    main()
