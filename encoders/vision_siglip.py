"""What frames show, by an image-text model: SigLIP, SigLIP 2 or CLIP through the transformers library.

Pictures and words share a space, so that names need no training: a label's confidence is what the model itself says of
the pair. SigLIP gives each pair a probability of its own, sigmoid(scale * cosine + bias) (Zhai et al., 2023,
arXiv:2303.15343); CLIP shares one among all names, softmax(scale * cosine) (Radford et al., 2021, arXiv:2103.00020).

SigLIP was trained on lower-case texts without punctuation, filled up to a fixed length on the right, and reads the
filling as well; the library leaves that to its caller (a difference of 12 points on ImageNet, as the authors of
NVlabs/RADIO found: github.com/NVlabs/RADIO/pull/142).
"""

from __future__ import annotations

import string
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field, field_validator

from encoders.everyday_names import EVERYDAY_NAMES
from encoders.frame_tokens import LabelRules, batches_of, contrast_of, labels_over_time, spans_of
from encoders.hub import HubConfig, load_model, load_part, obtain
from store.records import Encoded, Float32, Frames, Tokens, VisionAttributes

_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)


class ImageTextConfig(HubConfig):
    """What changes the result of the image-text encoder; size, crop and colours are those of the model's own processor.

    `names` are what is looked for, EVERYDAY_NAMES when None, each put into `prompt`. At most `labels` of at least
    `min_confidence` (0..1) are named, each with the seconds of at most `label_seconds` frames; `peak_share` is the
    share of frames over which confidence is taken. A frame is blank where its brightness varies by much less than
    `contrast` (standard deviation, 0..255).
    """

    model: str = "google/siglip2-base-patch16-224"
    names: tuple[str, ...] | None = None
    prompt: str = "a photo of {}."
    labels: int = Field(8, ge=0, le=1000)
    min_confidence: float = Field(0.1, ge=0, le=1)
    peak_share: float = Field(0.25, gt=0, le=1)
    label_seconds: int = Field(5, ge=1)
    contrast: float = Field(12.0, gt=0)

    @field_validator("prompt")
    @classmethod
    def _has_a_place(cls, prompt: str) -> str:
        if prompt.count("{}") != 1:
            raise ValueError("`prompt` needs one {} for the name")
        return prompt


class LargeImageTextConfig(ImageTextConfig):
    """The same with a larger model."""

    model: str = "google/siglip2-so400m-patch14-384"


class ImageTextEncoder:
    """Frames in, a token for each frame and the names of what is seen out; texts in, vectors of the same space out."""

    def __init__(self, config: ImageTextConfig, cache: Path, threads: int = 1) -> None:
        """Load the model and read all names. `threads` is what torch may use in this process. Raises ModelError."""
        import torch
        from transformers import AutoImageProcessor, AutoModel, AutoTokenizer

        torch.set_num_threads(threads)
        self.config = config
        found = obtain(config, cache)
        self._model = load_model(found, AutoModel, config)
        self._images = load_part(found, AutoImageProcessor, config, backend="torchvision")
        self._tokenizer = load_part(found, AutoTokenizer, config)
        self._pairwise = hasattr(self._model, "logit_bias")  # of all such models, SigLIP alone has it
        self._names = EVERYDAY_NAMES if config.names is None else config.names
        self.dim = int(self.embed_text([""]).shape[1])
        self._name_vectors = self.embed_text([config.prompt.format(name) for name in self._names])

    def __call__(self, frames: Frames) -> Encoded:
        """Tokens `embeddings` [n_frames, dim], each of unit length, and VisionAttributes.

        A token spans the time to which its frame is the nearest one. `salience` is the frame's contrast (see
        `contrast_of`) times (1 + certainty) / 2, where certainty is one minus the entropy of the softmax over the
        names, over its maximum. A blank frame has salience 0 and no say in the labels.
        """
        return self.encode_many([frames])[0]

    def encode_many(self, videos: Sequence[Frames]) -> list[Encoded]:
        """What `__call__` gives for each of them, with batches that go across them."""
        vectors = [np.zeros((len(frames.pixels), self.dim), np.float32) for frames in videos]
        for places, pixels in batches_of(videos, self.config.batch_size):
            for (video, frame), vector in zip(places, self._embed_images(pixels), strict=True):
                vectors[video][frame] = vector
        return [self._encoded(frames, found) for frames, found in zip(videos, vectors, strict=True)]

    def embed_text(self, texts: Sequence[str]) -> Float32:
        """float32 [n, dim], rows of unit length, in the space of the frames. Longer texts than the model reads are
        cut."""
        found: list[Float32] = []
        length = self._model.config.text_config.max_position_embeddings
        for first in range(0, len(texts), self.config.batch_size):
            batch = [self._canonical(text) for text in texts[first : first + self.config.batch_size]]
            # Always the full length: what SigLIP was trained on, and a vector does not depend on its neighbours.
            inputs = self._tokenizer(
                batch,
                padding="max_length",
                padding_side="right",
                truncation=True,
                max_length=length,
                return_tensors="pt",
                return_attention_mask=not self._pairwise,
            )
            found.append(self._vectors(self._model.get_text_features, inputs))
        return np.concatenate(found) if found else np.zeros((0, self.dim), np.float32)

    def _embed_images(self, pixels: Any) -> Float32:
        inputs = self._images(list(pixels), return_tensors="pt", input_data_format="channels_last")
        return self._vectors(self._model.get_image_features, inputs)

    def _vectors(self, features: Any, inputs: Any) -> Float32:
        import torch

        with torch.inference_mode():
            moved = {
                name: value.to(self._model.device, self._model.dtype if value.is_floating_point() else None)
                for name, value in inputs.items()
            }
            found = features(**moved)
            found = getattr(found, "pooler_output", found).float()
            unit: Float32 = torch.nn.functional.normalize(found, dim=-1).cpu().numpy()
        return unit

    def _canonical(self, text: str) -> str:
        if not self._pairwise:
            return text
        return " ".join(text.lower().translate(_NO_PUNCTUATION).split())

    def _encoded(self, frames: Frames, vectors: Float32) -> Encoded:
        contrast = contrast_of(frames.pixels, self.config.contrast)
        logits = vectors.astype(np.float64) @ self._name_vectors.T.astype(np.float64) * self._scale
        shares = _softmax(logits)
        if self._pairwise:
            confidence = 1.0 / (1.0 + np.exp(-(logits + float(self._model.logit_bias))))
        else:
            confidence = shares
        start, end = spans_of(frames)
        config = self.config
        return Encoded(
            Tokens(vectors, start, end, (contrast * (1.0 + _certainty(shares)) / 2.0).astype(np.float32)),
            VisionAttributes(
                labels=labels_over_time(
                    self._names,
                    (confidence * contrast[:, np.newaxis]).astype(np.float32),
                    frames.seconds,
                    LabelRules(config.labels, config.min_confidence, config.peak_share, config.label_seconds),
                ),
            ),
        )

    @property
    def _scale(self) -> float:
        return float(self._model.logit_scale.float().exp())


def _softmax(logits: Any) -> Any:
    if logits.shape[1] == 0:
        return logits
    raised = np.exp(logits - logits.max(axis=1, keepdims=True))
    return raised / raised.sum(axis=1, keepdims=True)


def _certainty(shares: Any) -> Any:
    """[n] in 0..1: one minus the entropy of each row over its maximum; 0 where there is nothing to choose from."""
    if shares.shape[1] < 2:
        return np.zeros(len(shares))
    entropy = -(shares * np.log(np.maximum(shares, 1e-12))).sum(axis=1)
    return np.clip(1.0 - entropy / np.log(shares.shape[1]), 0.0, 1.0)
