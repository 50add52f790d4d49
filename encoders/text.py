"""What words mean: sentences as unit vectors, by all-MiniLM-L6-v2.

The model is English; words of other languages are cut into pieces it knows little of, so their vectors tell less.

Torch runs it as it is. Measured (`bench/quality_text.py`): linear layers in int8 halve the time and move vectors to a
cosine of 0.85, so that one text in five gets another nearest neighbour; compiling gains nothing that a worker would not
lose at its start.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from encoders.keywords import content_words
from encoders.weights import WEIGHTS, locate
from store.records import Float32, TextPiece, Tokens

DIM = 384


class TextConfig(BaseModel):
    """What changes the result of the text encoder.

    `max_tokens`: what is longer is cut off. `batch_tokens`: most tokens, padding included, that are computed at once
    (a single longer text is computed alone). `word_salience` (0..1): the salience of a single content word.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    model: Literal["minilm-l6-v2"] = "minilm-l6-v2"
    max_tokens: int = Field(256, ge=8, le=512)
    batch_tokens: int = Field(1024, ge=1)
    word_salience: float = Field(0.2, gt=0, le=1)


class TextEncoder:
    """Texts in, unit vectors out. The same texts give the same bytes."""

    def __init__(self, config: TextConfig, cache: Path, threads: int = 1) -> None:
        """Load the weights. `threads` is what torch may use in this process. Raises ModelError."""
        directory = locate(WEIGHTS[config.model], cache)
        # Read once, when huggingface_hub is imported: it must never look for a newer model.
        os.environ.setdefault("HF_HUB_OFFLINE", "1")
        import torch
        from transformers import AutoModel, AutoTokenizer
        from transformers.utils import logging

        torch.set_num_threads(threads)
        logging.set_verbosity_error()  # type: ignore[no-untyped-call]
        logging.disable_progress_bar()  # type: ignore[no-untyped-call]
        self.config = config
        self._tokenizer = AutoTokenizer.from_pretrained(directory, local_files_only=True)
        model = AutoModel.from_pretrained(directory, local_files_only=True, use_safetensors=True)
        self._model = model.float().eval().requires_grad_(False)

    def embed(self, texts: Sequence[str]) -> Float32:
        """float32 [n, 384], rows of unit length: the mean of the last layer over the tokens of each text (Reimers and
        Gurevych, 2019, arXiv:1908.10084).

        Texts of like length share a batch, so that little is computed for padding; a vector differs by no more than
        rounding (1e-6) with the company that its text keeps.
        """
        import torch

        found = np.zeros((len(texts), DIM), np.float32)
        for batch, ids in self._batches(texts):
            inputs = torch.full((len(ids), len(ids[-1])), self._tokenizer.pad_token_id)
            mask = torch.zeros_like(inputs)
            for row, tokens in enumerate(ids):
                inputs[row, : len(tokens)] = torch.tensor(tokens)
                mask[row, : len(tokens)] = 1
            with torch.inference_mode():
                states = self._model(input_ids=inputs, attention_mask=mask).last_hidden_state
                weights = mask.unsqueeze(-1).to(states.dtype)
                pooled = (states * weights).sum(dim=1) / weights.sum(dim=1)
                found[batch] = torch.nn.functional.normalize(pooled, dim=1).numpy()
        return found

    def embed_query(self, texts: Sequence[str]) -> Float32:
        """What is searched for: this model embeds a query as it does a text."""
        return self.embed(texts)

    def _batches(self, texts: Sequence[str]) -> Iterator[tuple[list[int], list[list[int]]]]:
        """Places in `texts` and their tokens, from short to long, as many together as `batch_tokens` allows."""
        if not texts:
            return
        ids: list[list[int]] = self._tokenizer(
            list(texts), truncation=True, max_length=self.config.max_tokens, verbose=False
        )["input_ids"]
        batch: list[int] = []
        for index in sorted(range(len(ids)), key=lambda place: (len(ids[place]), ids[place])):
            if batch and (len(batch) + 1) * len(ids[index]) > self.config.batch_tokens:
                yield batch, [ids[place] for place in batch]
                batch = []
            batch.append(index)
        yield batch, [ids[place] for place in batch]

    def __call__(
        self, pieces: Sequence[TextPiece], start_seconds: Sequence[float], end_seconds: Sequence[float]
    ) -> Tokens:
        """One token for each piece, with the span given for it.

        `salience` is 1 - (1 - `word_salience`)^n for n distinct content words: each word tells what the ones before it
        left open, in the same proportion. One word is 0.2, three are 0.49, ten are 0.89; function words alone are 0.
        """
        distinct = np.array([len(set(content_words(piece.text))) for piece in pieces], np.float64)
        return Tokens(
            embeddings=self.embed([piece.text for piece in pieces]),
            start_seconds=np.asarray(start_seconds, np.float32),
            end_seconds=np.asarray(end_seconds, np.float32),
            salience=(1.0 - (1.0 - self.config.word_salience) ** distinct).astype(np.float32),
        )
