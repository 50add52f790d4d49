"""What frames show: EfficientNet-Lite0 features for each frame, and ImageNet names for what is seen.

Embeddings. Features after a ReLU6 are never negative, so any two frames share a direction and unrelated clips look
alike. The weights themselves say where a feature's middle lies: before the last activation it has, over ImageNet, mean
`beta` and standard deviation `gamma` (the affine part of the last batch norm). From these follow, in closed form, mean
and standard deviation of min(max(x, 0), 6) for a normal x (see `rectified_moments`); the one is subtracted from the
pooled feature, which is divided by the other. On 30 real clips this brought the mean cosine of unrelated clips from
0.34 to 0.06, while related ones kept 0.34 and near-duplicates 0.92. No statistics of a collection are needed, so a
vector never changes with the company it keeps.

Labels. A clip is called after what the classifier says where it says it loudest: the confidence of a class is its mean
probability over that quarter of the frames in which it is highest (all frames would punish what is seen for three
seconds of thirty). It is the classifier's own probability, not calibrated on videos: unsure labels are suppressed. On
the same clips 11 of the 21 labels above 0.3 were right, and 3 of the 20 between 0.2 and 0.3. What ImageNet has no class
for still goes wrong with confidence: cartoons, toys, and the Earth at night, which is a "bubble". `encoders.imagenet`
says how classes are grouped into everyday words.

Runtime. ONNX Runtime and torch run the same folded network and agree to 1e-5; the former takes less than half the time
of a CPU (`bench/vision_speed.py`). On one machine neither says anything else for another batch size or number of
threads.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, model_validator

from encoders.imagenet import labels, read_classes
from encoders.weights import WEIGHTS, locate
from store.records import Encoded, Float32, Frames, Tokens, VisionAttributes

if TYPE_CHECKING:
    from torch import Tensor

    from encoders.efficientnet_lite import EfficientNetLite

DIM = 1280
_LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601
_LONGEST_SIDE = 4  # of a picture, in units of its shortest, before it is resized: the crop is square anyway


class VisionConfig(BaseModel):
    """What changes the result of the vision encoder.

    `image_size` and `resize` are pixels: the shorter side is resized to `resize`, and a square of `image_size` is cut
    from the middle. `runtime` runs the network. At most `labels` classes of at least `min_confidence` (0..1) are named,
    and everyday words of at least `min_group_confidence` none of whose classes is, each with the seconds of at most
    `label_seconds` frames; `peak_share` is the share of frames over which confidence is taken. A frame is blank where
    its brightness varies by much less than `contrast` (standard deviation, 0..255).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    model: Literal["efficientnet-lite0"] = "efficientnet-lite0"
    runtime: Literal["onnxruntime", "torch"] = "onnxruntime"
    image_size: int = Field(224, ge=32, le=512, multiple_of=32)
    resize: int = Field(256, ge=32, le=1024)
    batch_size: int = Field(4, ge=1, le=256)
    labels: int = Field(8, ge=0, le=1000)
    min_confidence: float = Field(0.3, ge=0, le=1)
    min_group_confidence: float = Field(0.4, ge=0, le=1)
    peak_share: float = Field(0.25, gt=0, le=1)
    label_seconds: int = Field(5, ge=1)
    contrast: float = Field(12.0, gt=0)

    @model_validator(mode="after")
    def _crop_fits(self) -> VisionConfig:
        if self.resize < self.image_size:
            raise ValueError("`resize` must not be smaller than `image_size`")
        return self


class VisionEncoder:
    """Frames in, a token for each frame and the names of what is seen out. The same frames give the same bytes."""

    def __init__(self, config: VisionConfig, cache: Path, threads: int = 1) -> None:
        """Load the weights. `threads` is what torch and ONNX Runtime may use in this process. Raises ModelError."""
        import torch

        from encoders.efficientnet_lite import load_efficientnet_lite

        torch.set_num_threads(threads)
        self.config = config
        network = load_efficientnet_lite(locate(WEIGHTS[config.model], cache), config.model, config.image_size)
        self._classify = runner(network, config.runtime, threads)
        self._classes = len(read_classes().names)
        self._prepare = preparation(config.resize, config.image_size)
        mean, deviation = rectified_moments(
            network.beta.numpy().astype(np.float64), np.abs(network.gamma.numpy()).astype(np.float64)
        )
        self._mean, self._deviation = mean.astype(np.float32), deviation.astype(np.float32)

    def __call__(self, frames: Frames) -> Encoded:
        """Tokens `embeddings` [n_frames, 1280], each of unit length, and VisionAttributes.

        A token spans the time to which its frame is the nearest one. `salience` is contrast times (1 + certainty) / 2:
        contrast is 1 - exp(-(s / `contrast`)^2) for the standard deviation s of brightness, certainty is one minus the
        entropy of the classes over its maximum. A blank frame has salience 0 and no say in the labels.
        """
        features, probabilities, deviation = self._encode(frames.pixels)
        contrast = visibility(deviation, self.config.contrast)
        start, end = _spans(frames.seconds, frames.duration_seconds)
        tokens = Tokens(
            embeddings=self.standardised(features),
            start_seconds=start,
            end_seconds=end,
            salience=(contrast * (1.0 + _certainty(probabilities)) / 2.0).astype(np.float32),
        )
        attributes = VisionAttributes(
            labels=labels(
                probabilities * contrast[:, np.newaxis],
                frames.seconds,
                count=self.config.labels,
                min_confidence=self.config.min_confidence,
                min_group_confidence=self.config.min_group_confidence,
                peak_share=self.config.peak_share,
                label_seconds=self.config.label_seconds,
            ),
        )
        return Encoded(tokens, attributes)

    def features(self, pixels: npt.NDArray[np.uint8]) -> Float32:
        """float32 [n, 1280] in 0..6: the network's pooled features of `pixels` uint8 [n, height, width, 3] RGB."""
        return self._encode(pixels)[0]

    def standardised(self, features: Float32) -> Float32:
        """float32 [n, 1280], unit length: `features` around the mean that the weights expect, in their deviations."""
        centred = (features - self._mean) / self._deviation
        lengths = np.linalg.norm(centred, axis=1, keepdims=True)
        result: Float32 = (centred / np.maximum(lengths, 1e-12)).astype(np.float32)
        return result

    def _encode(self, pixels: npt.NDArray[np.uint8]) -> tuple[Float32, Float32, Float32]:
        """Features [n, 1280], probabilities [n, 1000], and deviation of brightness [n] in 0..255."""
        count, size = len(pixels), self.config.batch_size
        features = np.zeros((count, DIM), np.float32)
        probabilities = np.zeros((count, self._classes), np.float32)
        deviation = np.zeros(count, np.float32)
        for first in range(0, count, size):
            batch = slice(first, min(first + size, count))
            images = self._images(pixels[batch])
            features[batch], probabilities[batch] = self._classify(images)
            deviation[batch] = brightness_deviation(images)
        return features, probabilities, deviation

    def _images(self, pixels: npt.NDArray[np.uint8]) -> Tensor:
        """float32 [n, 3, image_size, image_size] in -1..1."""
        import torch

        _, height, width, _ = pixels.shape
        longest = min(height, width) * _LONGEST_SIDE
        top, left = max(height - longest, 0) // 2, max(width - longest, 0) // 2
        cut = pixels[:, top : top + longest, left : left + longest]
        images: Tensor = self._prepare(torch.from_numpy(np.ascontiguousarray(cut.transpose(0, 3, 1, 2))))
        return images


def preparation(resize: int, image_size: int) -> Callable[[Tensor], Tensor]:
    """What brings uint8 [n, 3, height, width] RGB to float32 [n, 3, image_size, image_size] in -1..1: the shorter side
    to `resize`, bicubic, and the middle cut out, as in the weights' own evaluation."""
    import torch
    from torchvision.transforms import v2

    steps: Callable[[Tensor], Tensor] = v2.Compose(
        [
            v2.Resize(resize, interpolation=v2.InterpolationMode.BICUBIC, antialias=True),
            v2.CenterCrop(image_size),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize([0.5] * 3, [0.5] * 3),
        ]
    )
    return steps


def brightness_deviation(images: Tensor) -> Float32:
    """[n] in 0..255: the standard deviation of brightness in float32 [n, 3, side, side] in -1..1."""
    brightness = (images * images.new_tensor(_LUMA)[:, None, None]).sum(dim=1)
    deviation: Float32 = (brightness.std(dim=(1, 2), correction=0) * 127.5).numpy()
    return deviation


def visibility(deviation: Float32, contrast: float) -> Float32:
    """[n] in 0..1: how far each frame is from blank, by its deviation of brightness."""
    visible: Float32 = (1.0 - np.exp(-np.square(deviation / contrast))).astype(np.float32)
    return visible


def runner(network: EfficientNetLite, runtime: str, threads: int) -> Callable[[Tensor], tuple[Float32, Float32]]:
    """What takes float32 [n, 3, side, side] in -1..1 to features [n, 1280] and probabilities [n, 1000] by `runtime`."""
    if runtime == "onnxruntime":
        from encoders.efficientnet_onnx import efficientnet_onnx, onnx_session

        session = onnx_session(efficientnet_onnx(network), threads)

        def run(images: Tensor) -> tuple[Float32, Float32]:
            features, probabilities = session.run(["features", "probabilities"], {"images": images.numpy()})
            return features, probabilities

        return run

    def run_torch(images: Tensor) -> tuple[Float32, Float32]:
        # One by one: in a batch torch rounds otherwise, and larger batches are no faster on a CPU.
        features = [network.features(images[place : place + 1]) for place in range(len(images))]
        probabilities = [network.probabilities(found) for found in features]
        return np.concatenate([f.numpy() for f in features]), np.concatenate([p.numpy() for p in probabilities])

    return run_torch


def rectified_moments(
    mean: npt.NDArray[np.float64], deviation: npt.NDArray[np.float64], ceiling: float = 6.0
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Mean and standard deviation of min(max(x, 0), `ceiling`) for normal x of `mean` [n] and `deviation` [n] > 0.

    With a = -mean / deviation, c = (ceiling - mean) / deviation, phi and Phi the standard normal density and
    distribution, and P = Phi(c) - Phi(a): E[y] = mean P + deviation (phi(a) - phi(c)) + ceiling (1 - Phi(c)) and
    E[y^2] = mean^2 P + 2 mean deviation (phi(a) - phi(c)) + deviation^2 (P + a phi(a) - c phi(c)) + ceiling^2
    (1 - Phi(c)), the moments of a normal distribution censored on both sides.
    """
    low, high = -mean / deviation, (ceiling - mean) / deviation
    inside = _normal_distribution(high) - _normal_distribution(low)
    above = 1.0 - _normal_distribution(high)
    step = _normal_density(low) - _normal_density(high)
    first = mean * inside + deviation * step + ceiling * above
    tails = low * _normal_density(low) - high * _normal_density(high)
    second = mean**2 * inside + 2 * mean * deviation * step + deviation**2 * (inside + tails) + ceiling**2 * above
    return first, np.sqrt(np.maximum(second - first**2, 1e-12))


def _normal_density(x: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    density: npt.NDArray[np.float64] = np.exp(-0.5 * x**2) / math.sqrt(2.0 * math.pi)
    return density


def _normal_distribution(x: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return np.array([0.5 * math.erfc(-value / math.sqrt(2.0)) for value in x])


def _certainty(probabilities: Float32) -> Float32:
    """[n] in 0..1: one minus the entropy of each row over its maximum."""
    entropy = -(probabilities * np.log(np.maximum(probabilities, 1e-12))).sum(axis=1)
    result: Float32 = np.clip(1.0 - entropy / math.log(probabilities.shape[1]), 0.0, 1.0).astype(np.float32)
    return result


def _spans(seconds: npt.NDArray[np.float64], duration: float) -> tuple[Float32, Float32]:
    """Start and end [n] of the time to which each frame is the nearest one, from 0 to the end of the video."""
    middles = (seconds[:-1] + seconds[1:]) / 2.0
    if not len(seconds):
        return np.zeros(0, np.float32), np.zeros(0, np.float32)
    start = np.concatenate([[min(0.0, seconds[0])], middles])
    end = np.concatenate([middles, [max(duration, seconds[-1])]])
    return start.astype(np.float32), end.astype(np.float32)
