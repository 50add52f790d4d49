"""Which things are in the picture, by a detector: DETR and its kin through transformers, Faster R-CNN by torchvision.

Boxes are not kept: what is seen in a video and when is all that search and recommendation ask for.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt
from pydantic import Field, field_validator, model_validator

from encoders.downloads import download
from encoders.frame_tokens import LabelRules, batches_of, labels_over_time
from encoders.hub import HubConfig, device_of, load_model, load_part, obtain
from encoders.weights import file_sha256
from store.errors import ModelError
from store.records import Float32, Frames, Label

TorchvisionName = Literal["fasterrcnn_mobilenet_v3_large_320_fpn", "fasterrcnn_resnet50_fpn_v2"]
TORCHVISION: tuple[str, ...] = get_args(TorchvisionName)
_NO_CLASS = ("__background__", "N/A")  # places in COCO's numbering that no thing has

Scores = Callable[[npt.NDArray[np.uint8]], Float32]


class DetectorConfig(HubConfig):
    """What changes the result of the detector; size and colours are those of the model's own processor.

    `model` is a model of the hub for AutoModelForObjectDetection, or one of TORCHVISION; these need `weights`, a file
    of torchvision's state dict (.pth or .safetensors) or its address, and the file's `sha256` where it is an address. A
    detection below `min_score` (0..1) is none. At most `labels` of at least `min_confidence` are named, each with the
    seconds of at most `label_seconds` frames; `peak_share` is the share of frames over which confidence is taken.
    """

    model: str = "PekingU/rtdetr_v2_r18vd"
    weights: str = ""
    sha256: str = Field("", pattern=r"^([0-9a-fA-F]{64})?$")
    min_score: float = Field(0.5, ge=0, le=1)
    labels: int = Field(12, ge=0, le=1000)
    min_confidence: float = Field(0.3, ge=0, le=1)
    peak_share: float = Field(0.25, gt=0, le=1)
    label_seconds: int = Field(5, ge=1)

    @field_validator("model")
    @classmethod
    def _names_a_model(cls, model: str) -> str:
        return model if model in TORCHVISION else HubConfig._names_a_model(model)

    @model_validator(mode="after")
    def _weights_belong_to_torchvision(self) -> DetectorConfig:
        if bool(self.weights) != (self.model in TORCHVISION):
            raise ValueError("`weights` goes with a `model` of torchvision's, and such a model needs it")
        if _is_address(self.weights) and not self.sha256:
            raise ValueError("an address in `weights` needs the `sha256` of what is there")
        return self


class LargeDetectorConfig(DetectorConfig):
    """The same with a larger model."""

    model: str = "PekingU/rtdetr_v2_r101vd"


class ObjectsDetector:
    """Frames in, the names of the things in them out."""

    def __init__(self, config: DetectorConfig, cache: Path, threads: int = 1) -> None:
        """Load the model. `threads` is what torch may use in this process. Raises ModelError."""
        import torch

        torch.set_num_threads(threads)
        self.config = config
        self.names, self._scores = (
            _torchvision(config, cache) if config.model in TORCHVISION else _transformers(config, cache)
        )
        self._known = np.array([name not in _NO_CLASS for name in self.names])

    def __call__(self, frames: Frames) -> list[Label]:
        """The things seen, surest first: confidence 0..1 over the video, and up to `label_seconds` times of each."""
        return self.encode_many([frames])[0]

    def encode_many(self, videos: Sequence[Frames]) -> list[list[Label]]:
        """What `__call__` gives for each of them, with batches that go across them."""
        config = self.config
        scores = [np.zeros((len(frames.pixels), len(self.names)), np.float32) for frames in videos]
        for places, pixels in batches_of(videos, config.batch_size):
            for (video, frame), row in zip(places, self._scores(pixels), strict=True):
                scores[video][frame] = row
        rules = LabelRules(config.labels, config.min_confidence, config.peak_share, config.label_seconds)
        kept = [np.where((found >= config.min_score) & self._known, found, np.float32(0)) for found in scores]
        return [
            labels_over_time(self.names, found, frames.seconds, rules)
            for frames, found in zip(videos, kept, strict=True)
        ]

    def scores(self, pixels: npt.NDArray[np.uint8]) -> Float32:
        """float32 [n, n_names] in 0..1: the best score of each class in each picture of uint8 [n, height, width, 3]."""
        return self._scores(pixels)


def digests(config: DetectorConfig, cache: Path) -> dict[str, str]:
    """What the weights are, for a version; see `encoders.hub.digests`. Raises ModelError."""
    if config.model not in TORCHVISION:
        from encoders import hub

        return hub.digests(config, cache)
    return {config.model: config.sha256.lower() or file_sha256(_weights_file(config, cache))}


def _transformers(config: DetectorConfig, cache: Path) -> tuple[tuple[str, ...], Scores]:
    import torch
    from transformers import AutoImageProcessor, AutoModelForObjectDetection

    found = obtain(config, cache)
    model = load_model(found, AutoModelForObjectDetection, config)
    processor = load_part(found, AutoImageProcessor, config, backend="torchvision")
    by_index: dict[int, str] = model.config.id2label
    count = max(by_index) + 1
    names = tuple(str(by_index.get(index, "N/A")) for index in range(count))

    def scores(pixels: npt.NDArray[np.uint8]) -> Float32:
        with torch.inference_mode():
            inputs = processor(images=list(pixels), return_tensors="pt", input_data_format="channels_last")
            moved = {
                name: value.to(model.device, model.dtype if value.is_floating_point() else None)
                for name, value in inputs.items()
            }
            outputs = model(**moved)
            outputs.logits, outputs.pred_boxes = outputs.logits.float(), outputs.pred_boxes.float()
            detections = processor.post_process_object_detection(outputs, threshold=0.0)
        return _best(detections, count)

    return names, scores


def _torchvision(config: DetectorConfig, cache: Path) -> tuple[tuple[str, ...], Scores]:
    import torch
    from torchvision.models import detection
    from torchvision.models._meta import _COCO_CATEGORIES

    path = _weights_file(config, cache)
    network = getattr(detection, config.model)(weights=None, weights_backbone=None, box_score_thresh=0.01)
    try:
        network.load_state_dict(_state(path), strict=True)
    except Exception as error:  # RuntimeError, SafetensorError, UnpicklingError: all say that it is something else
        raise ModelError(
            "model.damaged", f"{path.name} does not hold {config.model}: {error}".splitlines()[0]
        ) from error
    device, precision = device_of(config.device), getattr(torch, config.precision)
    network = network.to(device, precision).eval().requires_grad_(False)
    names: tuple[str, ...] = tuple(_COCO_CATEGORIES)

    def scores(pixels: npt.NDArray[np.uint8]) -> Float32:
        images = torch.from_numpy(np.ascontiguousarray(pixels.transpose(0, 3, 1, 2))).to(device)
        with torch.inference_mode():
            detections = network(list(images.to(precision) / 255))
        return _best(detections, len(names))

    return names, scores


def _best(detections: Any, count: int) -> Float32:
    """float32 [n, count]: the best score of each class among the detections of each of n pictures."""
    best = np.zeros((len(detections), count), np.float32)
    for row, found in zip(best, detections, strict=True):
        np.maximum.at(row, found["labels"].cpu().numpy(), found["scores"].float().cpu().numpy())
    return best


def _weights_file(config: DetectorConfig, cache: Path) -> Path:
    if _is_address(config.weights):
        return download(config.weights, config.sha256, cache)
    path = Path(config.weights).expanduser()
    if not path.is_file():
        raise ModelError(
            "model.missing",
            f"The weights of {config.model} are not at {path}.",
            hint="Name the file, or its address and SHA-256, in the detector's `weights` and `sha256`.",
        )
    if config.sha256 and file_sha256(path) != config.sha256.lower():
        raise ModelError("model.damaged", f"{path} does not have the SHA-256 {config.sha256}.")
    return path


def _state(path: Path) -> Any:
    import torch

    if path.suffix == ".safetensors":
        from safetensors.torch import load_file

        return load_file(path)
    return torch.load(path, map_location="cpu", weights_only=True)


def _is_address(weights: str) -> bool:
    return weights.startswith(("http://", "https://"))
