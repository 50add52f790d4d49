"""What a frame costs in each way to run the vision network: `python -m bench.vision_speed`.

Writes `bench/results/vision_speed.json`: for one and two threads, milliseconds of CPU and of wall time for a frame
(median of the runs, all ways taking turns), and what each way loses against float32 torch over real frames: how often
the surest class is the same, the largest difference of a probability, and how many pictures it names right at first
guess. Ways whose package is not installed, or that do not work on the machine, say so instead. Frames are prepared
beforehand: preparation is the same for all, and is a row of its own.
"""

from __future__ import annotations

import argparse
import importlib
import statistics
import tempfile
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from bench import results
from bench.quality_labels import MEDIA, MODELS, Picture, clips, photographs, right_class
from encoders import vision
from encoders.efficientnet_lite import EfficientNetLite, load_efficientnet_lite
from encoders.efficientnet_onnx import efficientnet_onnx, onnx_session
from encoders.imagenet import read_classes
from encoders.weights import locate
from store.errors import ModelError
from store.records import Float32
from store.settings import load_settings

if TYPE_CHECKING:
    from torch import Tensor

FRAMES_OF_A_CLIP = 3
CALIBRATION = 32  # frames that static quantisation sees
Run = Callable[[Float32], Float32]  # images [n, 3, side, side] to probabilities [n, 1000]


class Unavailable(Exception):
    """This way does not work here; the message says why."""


def frames(pictures: list[Picture]) -> tuple[list[npt.NDArray[np.uint8]], list[Picture]]:
    """Up to three frames of each picture, evenly spread, each with the picture it is of."""
    found, owners = [], []
    for picture in pictures:
        places = np.linspace(0, len(picture.pixels) - 1, min(FRAMES_OF_A_CLIP, len(picture.pixels))).round().astype(int)
        for place in places.tolist():
            found.append(picture.pixels[place])
            owners.append(picture)
    return found, owners


def prepared(pixels: list[npt.NDArray[np.uint8]], side: int = 224, resize: int = 256) -> Float32:
    """float32 [n, 3, side, side] in -1..1, as the encoder prepares them."""
    import torch

    prepare = vision.preparation(resize, side)
    rows = [prepare(torch.from_numpy(np.ascontiguousarray(one.transpose(2, 0, 1)[np.newaxis]))) for one in pixels]
    result: Float32 = torch.cat(rows).numpy()
    return result


# --- the ways --------------------------------------------------------------------------------------------------------


def _torch_forward(network: EfficientNetLite) -> Callable[[Tensor], Tensor]:
    def forward(images: Tensor) -> Tensor:
        found = network.stem(images)
        for block, residual in zip(network.blocks, network.residual, strict=True):
            found = block(found) + found if residual else block(found)
        probabilities: Tensor = network.classifier(network.head(found).mean(dim=(2, 3))).softmax(dim=1)
        return probabilities

    return forward


def _torch(network: EfficientNetLite, threads: int, *, channels_last: bool, compiled: bool) -> Run:
    import torch

    memory_format = torch.channels_last if channels_last else torch.contiguous_format
    for module in (network.stem, *network.blocks, network.head):
        module.to(memory_format=memory_format)
    forward = _torch_forward(network)
    if compiled:
        forward = torch.compile(forward)

    def run(images: Float32) -> Float32:
        torch.set_num_threads(threads)
        with torch.inference_mode():
            found: Float32 = forward(torch.from_numpy(images).contiguous(memory_format=memory_format)).numpy()
            return found

    try:
        run(np.zeros((1, 3, network.image_size, network.image_size), np.float32))
    except Exception as error:  # whatever the compiler lacks
        raise Unavailable(f"{type(error).__name__}: {str(error).splitlines()[0][:120]}") from error
    return run


def _onnx(graph: bytes, threads: int) -> Run:
    session = onnx_session(graph, threads)

    def run(images: Float32) -> Float32:
        found: Float32 = session.run(["probabilities"], {"images": images})[0]
        return found

    return run


def _quantised(graph: bytes, calibration: Float32 | None) -> bytes:
    """The graph in int8: weights alone and the ranges of activations at run time, or both by `calibration`."""
    try:
        from onnxruntime import quantization
    except ImportError as error:
        raise Unavailable(f"not installed: {error.name}") from error

    class Reader(quantization.CalibrationDataReader):  # type: ignore[misc]
        def __init__(self, images: Float32) -> None:
            self._rows = iter(images)

        def get_next(self) -> dict[str, Float32] | None:
            row = next(self._rows, None)
            return None if row is None else {"images": row[np.newaxis]}

    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder, "float32.onnx"), Path(folder, "int8.onnx")
        source.write_bytes(graph)
        if calibration is None:
            quantization.quantize_dynamic(source, target, weight_type=quantization.QuantType.QUInt8)
        else:
            quantization.quantize_static(
                source,
                target,
                Reader(calibration),
                quant_format=quantization.QuantFormat.QDQ,
                activation_type=quantization.QuantType.QUInt8,
                weight_type=quantization.QuantType.QInt8,
                per_channel=True,
            )
        return target.read_bytes()


def _openvino(graph: bytes, threads: int) -> Run:
    if find_spec("openvino") is None:
        raise Unavailable("not installed: openvino")
    core = importlib.import_module("openvino").Core()
    options = {"INFERENCE_NUM_THREADS": threads, "NUM_STREAMS": 1, "INFERENCE_PRECISION_HINT": "f32"}
    compiled = core.compile_model(core.read_model(graph), "CPU", options)

    def run(images: Float32) -> Float32:
        found: Float32 = compiled({"images": images})["probabilities"]
        return found

    return run


def ways(threads: int, calibration: Float32, model: str = "efficientnet-lite0") -> dict[str, Run | str]:
    """Each way by its name, or why it is not to be had."""
    path = locate(MODELS[model], load_settings().cache)

    def network() -> EfficientNetLite:
        return load_efficientnet_lite(path, model)

    graph = efficientnet_onnx(network())
    makers: dict[str, Callable[[], Run]] = {
        "torch eager": lambda: _torch(network(), threads, channels_last=False, compiled=False),
        "torch channels_last": lambda: _torch(network(), threads, channels_last=True, compiled=False),
        "torch.compile": lambda: _torch(network(), threads, channels_last=True, compiled=True),
        "onnxruntime float32": lambda: _onnx(graph, threads),
        "onnxruntime int8 dynamic": lambda: _onnx(_quantised(graph, None), threads),
        "onnxruntime int8 static": lambda: _onnx(_quantised(graph, calibration), threads),
        "openvino float32": lambda: _openvino(graph, threads),
    }
    found: dict[str, Run | str] = {}
    for name, make in makers.items():
        try:
            found[name] = make()
        except Unavailable as error:
            found[name] = str(error)
    return found


# --- measuring -------------------------------------------------------------------------------------------------------


def timed(runs: dict[str, Run], images: Float32, repeats: int) -> dict[str, dict[str, float]]:
    """Milliseconds of CPU and wall time a frame, one frame at a time, medians over `repeats` turns."""
    spent: dict[str, list[tuple[float, float]]] = {name: [] for name in runs}
    for run in runs.values():
        run(images[:1])
    for _ in range(repeats):
        for name, run in runs.items():
            cpu, wall = time.process_time(), time.perf_counter()
            for place in range(len(images)):
                run(images[place : place + 1])
            spent[name].append(
                ((time.process_time() - cpu) / len(images) * 1e3, (time.perf_counter() - wall) / len(images) * 1e3)
            )
    return {
        name: {
            "cpu_ms": round(statistics.median(cpu for cpu, _ in rows), 2),
            "wall_ms": round(statistics.median(wall for _, wall in rows), 2),
        }
        for name, rows in spent.items()
    }


def lost(found: Float32, reference: Float32, owners: list[Picture]) -> dict[str, float]:
    """How far `found` is from `reference`, both [n, 1000], and how often its first guess is right."""
    classes = read_classes()
    top = found.argmax(axis=1)
    right = [
        right_class(owner.subject, classes.names[index], classes.groups[index])
        for owner, index in zip(owners, top.tolist(), strict=True)
    ]
    return {
        "top1_agreement": round(float((top == reference.argmax(axis=1)).mean()), 4),
        "largest_difference": float(f"{np.abs(found - reference).max():.2g}"),
        "right_at_first_guess": round(sum(right) / len(right), 4),
    }


def run(repeats: int = 7, timing_frames: int = 12, media: Path = MEDIA) -> dict[str, Any]:
    """Everything, for JSON. Static quantisation is calibrated on every other frame and judged on all the rest."""
    pictures = photographs() + (clips(media) if media.is_dir() else [])
    pixels, owners = frames(pictures)
    images = prepared(pixels)
    calibration, held_out = images[::2][:CALIBRATION], images[1::2]
    judged = owners[1::2]
    document: dict[str, Any] = {"repeats": repeats, "frames_timed": timing_frames, "frames_judged": len(judged)}
    reference: Float32 | None = None
    for threads in (1, 2):
        all_ways = ways(threads, calibration)
        runs = {name: way for name, way in all_ways.items() if not isinstance(way, str)}
        times = timed(runs, held_out[:timing_frames], repeats)
        rows: dict[str, Any] = {name: way for name, way in all_ways.items() if isinstance(way, str)}
        for name, way in runs.items():
            found = np.concatenate([way(held_out[place : place + 1]) for place in range(len(held_out))])
            reference = found if reference is None else reference  # torch eager, which stands first
            rows[name] = times[name] | lost(found, reference, judged)
        document[f"threads {threads}"] = {name: rows[name] for name in all_ways}
    document["preparation_cpu_ms"] = _preparation(pixels[:timing_frames], repeats)
    document["larger"] = _larger(pixels, timing_frames, repeats)
    return document


def _preparation(pixels: list[npt.NDArray[np.uint8]], repeats: int) -> float:
    spent = []
    for _ in range(repeats):
        before = time.process_time()
        prepared(pixels)
        spent.append((time.process_time() - before) / len(pixels) * 1e3)
    return round(statistics.median(spent), 2)


def _larger(pixels: list[npt.NDArray[np.uint8]], timing_frames: int, repeats: int) -> dict[str, Any]:
    """The larger networks by ONNX Runtime, one thread."""
    runs: dict[str, Any] = {}
    for model in MODELS:
        try:
            network = load_efficientnet_lite(locate(MODELS[model], load_settings().cache), model)
        except ModelError as error:
            runs[model] = error.hint
            continue
        images = prepared(pixels[:timing_frames], network.image_size, round(network.image_size * 256 / 224))
        runs[model] = timed({model: _onnx(efficientnet_onnx(network), 1)}, images, repeats)[model]
    return runs


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=7)
    parser.add_argument("--media", type=Path, default=MEDIA)
    options = parser.parse_args()
    document = run(options.runs, media=options.media)
    for threads in (1, 2):
        for name, row in document[f"threads {threads}"].items():
            print(f"{threads} {name:26} {row}")
    print(f"preparation {document['preparation_cpu_ms']} ms, larger {document['larger']}")
    print(f"written: {results.write('vision_speed', document)}")


if __name__ == "__main__":
    main()
