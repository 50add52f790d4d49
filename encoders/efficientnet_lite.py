"""EfficientNet-Lite out of torchvision's blocks, with its batch norms folded away.

The network of Tan and Le (2019, arXiv:1905.11946) without squeeze-and-excite and with ReLU6, as Google released it for
edge devices in 2020 ("EfficientNet-lite"). Convolutions of stride 2 pad as TensorFlow's "SAME" does: where the side is
even, more on the right and at the bottom. Of the family, Lite0 is the encoder's; Lite1 and Lite2 are here to be
measured against it (`bench.vision_speed`).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

from store.errors import ModelError

if TYPE_CHECKING:
    from torch import Tensor, nn

FEATURES = 1280
CLASSES = 1000

_BATCH_NORM_EPSILON = 1e-3  # TensorFlow's value for this family; torch's default is 1e-5
_STEM_CHANNELS = 32
# Expansion, kernel, stride of the first block, output channels, number of blocks: Lite0's, which the others scale.
_STAGES = (
    (1, 3, 1, 16, 1),
    (6, 3, 2, 24, 2),
    (6, 5, 2, 40, 2),
    (6, 3, 2, 80, 3),
    (6, 5, 1, 112, 3),
    (6, 5, 2, 192, 4),
    (6, 3, 1, 320, 1),
)


@dataclass(frozen=True)
class Variant:
    """One of the family: how much wider and deeper than Lite0 it is, and the side in pixels that it was trained at."""

    width: float
    depth: float
    image_size: int

    def stages(self) -> tuple[tuple[int, int, int, int, int], ...]:
        """`_STAGES`, scaled: channels to the nearest multiple of 8, never by more than a tenth down. Stem, head and the
        number of blocks in the first and the last stage are the same for all."""
        last = len(_STAGES) - 1
        return tuple(
            (expansion, kernel, stride, self._channels(out), count if place in (0, last) else self._blocks(count))
            for place, (expansion, kernel, stride, out, count) in enumerate(_STAGES)
        )

    def _channels(self, channels: int) -> int:
        scaled = channels * self.width
        rounded = max(8, int(scaled + 4) // 8 * 8)
        return rounded + 8 if rounded < 0.9 * scaled else rounded

    def _blocks(self, count: int) -> int:
        return math.ceil(count * self.depth)


VARIANTS = {
    "efficientnet-lite0": Variant(1.0, 1.0, 224),
    "efficientnet-lite1": Variant(1.0, 1.1, 240),
    "efficientnet-lite2": Variant(1.1, 1.2, 260),
}


@dataclass(frozen=True, eq=False, repr=False)
class EfficientNetLite:
    """The network for pictures of `image_size`, ready to run.

    `residual` says of each block whether its input is added to its output. `gamma` and `beta`, [1280] each, are scale
    and shift of its last batch norm: over ImageNet a feature before its ReLU6 has the mean `beta` and the standard
    deviation `|gamma|`.
    """

    image_size: int
    stem: nn.Sequential
    blocks: tuple[nn.Sequential, ...]
    residual: tuple[bool, ...]
    head: nn.Sequential
    classifier: nn.Linear
    gamma: Tensor
    beta: Tensor

    def features(self, images: Tensor) -> Tensor:
        """[n, 1280] in 0..6, averaged over space, of `images` float32 [n, 3, image_size, image_size] in
        -1..1."""
        import torch

        with torch.inference_mode():
            found = self.stem(images.contiguous(memory_format=torch.channels_last))
            for block, residual in zip(self.blocks, self.residual, strict=True):
                added = block(found)
                found = added.add_(found) if residual else added
            pooled: Tensor = self.head(found).mean(dim=(2, 3))
            return pooled

    def probabilities(self, features: Tensor) -> Tensor:
        """[n, 1000]: the probability of each ImageNet class, from what `features` returns."""
        import torch

        with torch.inference_mode():
            found: Tensor = self.classifier(features).softmax(dim=1)
            return found


def load_efficientnet_lite(
    path: Path, name: str = "efficientnet-lite0", image_size: int | None = None
) -> EfficientNetLite:
    """The network `name` of `VARIANTS` with the weights of `path`, for pictures of `image_size` (where None, the size
    it was trained at). Raises `model.damaged` unless the file holds exactly those weights."""
    import torch
    from torch import nn

    variant = VARIANTS[name]
    side = image_size or variant.image_size
    stages = variant.stages()
    stem = _convolution(3, _STEM_CHANNELS, kernel=3, stride=2, side=side)
    blocks, residual = zip(*_blocks(stages, _halved(side)), strict=True)
    head = _convolution(stages[-1][3], FEATURES, kernel=1)
    classifier = nn.Linear(FEATURES, CLASSES)
    whole = nn.Sequential(stem, *blocks, head, classifier)

    stored = torch.load(path, map_location="cpu", weights_only=True)
    leaves = [module for module in whole.modules() if next(module.parameters(recurse=False), None) is not None]
    try:
        used = set()
        for prefix, module in zip(_stored_names(stages), leaves, strict=True):
            own = {name: stored[f"{prefix}.{name}"] for name in module.state_dict()}
            module.load_state_dict(own, strict=True)
            used |= {f"{prefix}.{name}" for name in own}
        if used != set(stored):
            raise KeyError(min(set(stored) - used))
    except (KeyError, RuntimeError) as error:
        raise ModelError("model.damaged", f"{path.name} does not hold {name}: {error}.") from error

    last = leaves[-2]
    if not isinstance(last, nn.BatchNorm2d):
        raise AssertionError("the last layer before the classifier must be a batch norm")
    gamma, beta = last.weight.detach().clone(), last.bias.detach().clone()
    whole.eval().requires_grad_(False)
    for module in list(whole.modules()):
        _fold(module)
    whole.to(memory_format=torch.channels_last)
    return EfficientNetLite(side, stem, blocks, residual, head, classifier, gamma, beta)


def _stored_names(stages: tuple[tuple[int, int, int, int, int], ...]) -> Iterator[str]:
    """The weights' names in the file (those of the efficientnet_lite_pytorch package), in the order of the layers."""
    yield from ("_conv_stem", "_bn0")
    expansions = [expansion for expansion, *_, count in stages for _ in range(count)]
    for index, expansion in enumerate(expansions):
        if expansion > 1:
            yield from (f"_blocks.{index}._expand_conv", f"_blocks.{index}._bn0")
        yield from (f"_blocks.{index}._depthwise_conv", f"_blocks.{index}._bn1")
        yield from (f"_blocks.{index}._project_conv", f"_blocks.{index}._bn2")
    yield from ("_conv_head", "_bn1", "_fc")


def _blocks(stages: tuple[tuple[int, int, int, int, int], ...], side: int) -> Iterator[tuple[nn.Sequential, bool]]:
    """Inverted residuals over a picture of `side`: widen, filter each channel, narrow without activation. With each,
    whether it keeps the shape, and so is a residual one (Sandler et al., 2018, arXiv:1801.04381)."""
    from torch import nn

    channels = _STEM_CHANNELS
    for expansion, kernel, first_stride, out, count in stages:
        for index in range(count):
            wide = channels * expansion
            stride = first_stride if index == 0 else 1
            block = nn.Sequential(
                *([_convolution(channels, wide, kernel=1)] if expansion > 1 else []),
                _convolution(wide, wide, kernel=kernel, stride=stride, groups=wide, side=side),
                _convolution(wide, out, kernel=1, active=False),
            )
            yield block, stride == 1 and channels == out
            channels = out
            side = side if stride == 1 else _halved(side)


def _halved(side: int) -> int:
    return -(-side // 2)


def _convolution(
    channels: int, out: int, *, kernel: int, stride: int = 1, side: int = 0, groups: int = 1, active: bool = True
) -> nn.Sequential:
    """Convolution, batch norm and ReLU6, padded as TensorFlow's "SAME" pads. One of stride 2 must know the `side` of
    its input."""
    from torch import nn
    from torchvision.ops import Conv2dNormActivation

    layers: nn.Sequential = Conv2dNormActivation(
        channels,
        out,
        kernel_size=kernel,
        stride=stride,
        padding=0 if stride > 1 else None,
        groups=groups,
        norm_layer=partial(nn.BatchNorm2d, eps=_BATCH_NORM_EPSILON),
        activation_layer=nn.ReLU6 if active else None,
    )
    if stride > 1:
        padding = (_halved(side) - 1) * stride + kernel - side
        before = padding // 2
        after = padding - before
        return nn.Sequential(nn.ZeroPad2d((before, after, before, after)), layers)
    return layers


def _fold(sequence: nn.Module) -> None:
    """Multiply each batch norm in `sequence` into the convolution before it: the same function with less to do."""
    from torch import nn
    from torch.nn.utils.fusion import fuse_conv_bn_eval

    for (name, module), (following, norm) in pairwise(list(sequence.named_children())):
        if isinstance(module, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
            setattr(sequence, name, fuse_conv_bn_eval(module, norm))
            setattr(sequence, following, nn.Identity())
