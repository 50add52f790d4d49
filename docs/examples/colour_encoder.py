"""An encoder of one's own, in one file: colour moments of the frames (Stricker and Orengo, 1995).

Each frame is cut into 4 x 4 cells; a cell's three colours (light, red against green, blue against yellow) tell their
mean, deviation and skewness. 144 numbers say where which colours are, and nothing of what is shown: enough to tell a
sunset from a snow field, and a start for whoever wants to write a better one.

`pyproject.toml` beside this file makes it known with one line:

    [project.entry-points."reelsense.encoders"]
    colour-moments = "colour_encoder:SPEC"
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from encoders.specs import EncoderSpec
from store.records import Encoded, Float32, Frames, Tokens, VisionAttributes

CELLS = 4
DIM = CELLS * CELLS * 3 * 3

SPEC = EncoderSpec(
    name="colour-moments",
    modality="vision",
    dim=DIM,
    weights=(),
    modules=("colour_encoder",),
    preprocessing="4 x 4 cells, opponent colours, three moments of each",
    licence="Apache-2.0",
    config="colour_encoder:ColourConfig",
    encoder="colour_encoder:ColourEncoder",
)


class ColourConfig(BaseModel):
    """What changes the result; it is part of the version, so that another value is another artifact.

    `contrast` (0..1): the deviation of a frame's colours at which its salience is 0.63.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    contrast: float = Field(0.05, gt=0, le=1)


class ColourEncoder:
    """Frames in, a token for each frame out. The same frames give the same bytes."""

    def __init__(self, config: ColourConfig, cache: Path, threads: int = 1) -> None:  # noqa: ARG002
        """Weights would be loaded here; `cache` is where downloads may be kept, `threads` what the process may use."""
        self.config = config

    def __call__(self, frames: Frames) -> Encoded:
        """Tokens `embeddings` [n_frames, 144] of unit length, each for the time to which its frame is the nearest."""
        count = len(frames.pixels)
        embeddings, salience = np.zeros((count, DIM), np.float32), np.zeros(count, np.float32)
        for index, pixels in enumerate(frames.pixels):
            colours = opponent_colours(pixels)
            embeddings[index] = moments(colours)
            salience[index] = 1.0 - np.exp(-((colours.std(axis=(0, 1)).max() / self.config.contrast) ** 2))
        middles = (frames.seconds[:-1] + frames.seconds[1:]) / 2.0
        bounds = np.concatenate([[0.0], middles, [frames.duration_seconds]]) if count else np.zeros(1)
        return Encoded(
            Tokens(embeddings, bounds[:-1].astype(np.float32), bounds[1:].astype(np.float32), salience),
            VisionAttributes(),
        )


def opponent_colours(pixels: np.ndarray) -> Float32:
    """float32 [height, width, 3] in -1..1 of uint8 RGB: light, red against green, blue against yellow."""
    red, green, blue = np.moveaxis(pixels.astype(np.float32) / 255.0, -1, 0)
    light = (red + green + blue) * (2.0 / 3.0) - 1.0
    return np.stack([light, red - green, blue - (red + green) / 2.0], axis=-1)


def moments(colours: Float32) -> Float32:
    """float32 [144], unit length: mean, deviation and cube root of the third moment of each colour in each cell."""
    height, width, _ = colours.shape
    found = []
    for row in range(CELLS):
        for column in range(CELLS):
            # A picture smaller than the grid gives some pixels to more than one cell.
            top, left = row * height // CELLS, column * width // CELLS
            bottom, right = (row + 1) * height // CELLS, (column + 1) * width // CELLS
            cell = colours[top : max(bottom, top + 1), left : max(right, left + 1)].reshape(-1, 3).astype(np.float64)
            mean = cell.mean(axis=0)
            found += [mean, cell.std(axis=0), np.cbrt(((cell - mean) ** 3).mean(axis=0))]
    vector = np.concatenate(found)
    return (vector / max(float(np.linalg.norm(vector)), 1e-12)).astype(np.float32)
