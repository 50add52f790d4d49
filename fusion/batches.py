"""Tokens of several videos as one padded batch for the network, and which tokens of too many are kept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import torch

from fusion.network import NetworkConfig, TokenBatch
from store.errors import ModelError
from store.records import Tokens


def check_tokens(tokens: Mapping[str, Tokens], config: NetworkConfig, whose: str = "the video") -> None:
    """Raises `fusion.not_finite`, and `fusion.bad_checkpoint` for tokens that no network of this shape was made for."""
    for modality, part in tokens.items():
        if not len(part):
            continue
        width = part.embeddings.shape[1]
        if config.widths.get(modality) != width:
            known = ", ".join(f"{name} {wide}" for name, wide in config.widths.items())
            raise ModelError(
                "fusion.bad_checkpoint",
                f"The fusion takes tokens of {known}; {whose} has {modality} tokens of width {width}.",
                hint="Train a fusion on the tokens of the encoders that are in use: reelsense train fusion",
            )
        for name in ("embeddings", "salience", "start_seconds", "end_seconds"):
            if not np.isfinite(getattr(part, name)).all():
                raise ModelError(
                    "fusion.not_finite", f"The {name} of {modality} tokens of {whose} hold NaN or infinity."
                )


def kept_places(salience: npt.NDArray[np.float32], limit: int) -> npt.NDArray[np.intp]:
    """Places of the `limit` tokens of the highest salience, in their order; among equals, evenly spread over them."""
    if len(salience) <= limit:
        return np.arange(len(salience))
    # Rows of a van der Corput sequence: each prefix is spread over the whole, so ties never keep the beginning alone.
    bits = max(1, (len(salience) - 1).bit_length())
    places = np.arange(len(salience), dtype=np.uint64)
    turned = np.zeros(len(salience), np.uint64)
    for bit in range(bits):
        turned |= ((places >> np.uint64(bit)) & np.uint64(1)) << np.uint64(bits - 1 - bit)
    chosen = np.lexsort((turned, -salience))[:limit]
    return np.sort(chosen)


def duration_of(tokens: Mapping[str, Tokens]) -> float:
    """The end of the last token of any modality, in seconds."""
    return max((float(part.end_seconds.max()) for part in tokens.values() if len(part)), default=0.0)


def batch_of(
    videos: Sequence[Mapping[str, Tokens]], config: NetworkConfig, durations: Sequence[float] | None = None
) -> TokenBatch:
    """Pad the videos' tokens to the longest of each modality. `durations`: of the videos in seconds, where they are
    parts of longer ones; else the end of the last token."""
    most = {name: max((len(video[name]) for video in videos if name in video), default=0) for name in config.modalities}
    total = sum(most.values())
    embeddings = {name: np.zeros((len(videos), most[name], config.widths[name]), np.float32) for name in most}
    salience, start, end = (np.zeros((len(videos), total), np.float32) for _ in range(3))
    given = np.zeros((len(videos), total), bool)
    for row, video in enumerate(videos):
        first = 0
        for name in config.modalities:
            if name in video and len(video[name]):
                part = video[name]
                embeddings[name][row, : len(part)] = part.embeddings
                places = slice(first, first + len(part))
                salience[row, places], given[row, places] = part.salience, True
                start[row, places], end[row, places] = part.start_seconds, part.end_seconds
            first += most[name]
    lasts = [duration_of(video) for video in videos] if durations is None else list(durations)
    return TokenBatch(
        {name: torch.from_numpy(array) for name, array in embeddings.items()},
        torch.from_numpy(salience),
        torch.from_numpy(given),
        torch.from_numpy(start),
        torch.from_numpy(end),
        torch.tensor(lasts, dtype=torch.float32),
    )
