"""What words mean in a hundred languages: sentences as unit vectors, by an encoder of the transformers library.

E5 (Wang et al., 2024, arXiv:2402.05672) wants to be told a question from a text that may answer it, by a prefix, and
takes the mean of its tokens; BGE-M3 (Chen et al., 2024, arXiv:2402.03216) wants no prefix and takes the first token.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import Field

from encoders.hub import HubConfig, load_model, load_part, obtain
from encoders.keywords import content_words
from store.records import Float32, TextPiece, Tokens


class SentenceConfig(HubConfig):
    """What changes the result of the sentence encoder.

    `pooling`: what of the last layer is the vector. `passage_prefix` and `query_prefix` go before what is found and
    before what is asked. `max_tokens`: what is longer is cut off. `word_salience` (0..1): of a single content word.
    """

    model: str = "intfloat/multilingual-e5-small"
    pooling: Literal["mean", "cls"] = "mean"
    passage_prefix: str = "passage: "
    query_prefix: str = "query: "
    max_tokens: int = Field(512, ge=8, le=8192)
    word_salience: float = Field(0.2, gt=0, le=1)


class LargeSentenceConfig(SentenceConfig):
    """The same with a larger model."""

    model: str = "intfloat/multilingual-e5-large"


class SentenceEncoder:
    """Texts in, unit vectors out."""

    def __init__(self, config: SentenceConfig, cache: Path, threads: int = 1) -> None:
        """Load the model. `threads` is what torch may use in this process. Raises ModelError."""
        import torch
        from transformers import AutoModel, AutoTokenizer

        torch.set_num_threads(threads)
        self.config = config
        found = obtain(config, cache)
        # The pooler of BERT's kin is of no use here, and many checkpoints are without.
        self._model = load_model(found, AutoModel, config, may_lack=("pooler.",))
        self._tokenizer = load_part(found, AutoTokenizer, config)
        self.dim = int(self._model.config.hidden_size)

    def embed(self, texts: Sequence[str]) -> Float32:
        """float32 [n, dim], rows of unit length: texts as they are found. With the company that a text keeps, its
        vector differs by no more than rounding."""
        return self._embed([self.config.passage_prefix + text for text in texts])

    def embed_query(self, texts: Sequence[str]) -> Float32:
        """float32 [n, dim], rows of unit length: texts as they are asked for, in the space of `embed`."""
        return self._embed([self.config.query_prefix + text for text in texts])

    def encode_many(self, groups: Sequence[Sequence[str]]) -> list[Float32]:
        """What `embed` gives for each group of texts, with batches that go across them."""
        together = self.embed([text for group in groups for text in group])
        ends = np.cumsum([len(group) for group in groups])
        return [together[end - len(group) : end] for group, end in zip(groups, ends.tolist(), strict=True)]

    def __call__(
        self, pieces: Sequence[TextPiece], start_seconds: Sequence[float], end_seconds: Sequence[float]
    ) -> Tokens:
        """One token for each piece, with the span given for it.

        `salience` is 1 - (1 - `word_salience`)^n for n distinct content words, as in `encoders.text`.
        """
        distinct = np.array([len(set(content_words(piece.text))) for piece in pieces], np.float64)
        return Tokens(
            embeddings=self.embed([piece.text for piece in pieces]),
            start_seconds=np.asarray(start_seconds, np.float32),
            end_seconds=np.asarray(end_seconds, np.float32),
            salience=(1.0 - (1.0 - self.config.word_salience) ** distinct).astype(np.float32),
        )

    def _embed(self, texts: Sequence[str]) -> Float32:
        import torch

        found = np.zeros((len(texts), self.dim), np.float32)
        for places, ids in self._batches(texts):
            inputs = torch.full((len(ids), max(map(len, ids))), self._tokenizer.pad_token_id)
            mask = torch.zeros_like(inputs)
            for row, tokens in enumerate(ids):
                inputs[row, : len(tokens)] = torch.tensor(tokens)
                mask[row, : len(tokens)] = 1
            with torch.inference_mode():
                device = self._model.device
                mask = mask.to(device)
                states = self._model(input_ids=inputs.to(device), attention_mask=mask).last_hidden_state.float()
                if self.config.pooling == "mean":
                    weights = mask.unsqueeze(-1).to(states.dtype)
                    pooled = (states * weights).sum(dim=1) / weights.sum(dim=1)
                else:
                    pooled = states[:, 0]
                found[places] = torch.nn.functional.normalize(pooled, dim=1).cpu().numpy()
        return found

    def _batches(self, texts: Sequence[str]) -> Iterator[tuple[list[int], list[list[int]]]]:
        """Places in `texts` and their tokens, from short to long, so that little is computed for padding."""
        if not texts:
            return
        longest = min(self.config.max_tokens, self._tokenizer.model_max_length)
        ids: list[list[int]] = self._tokenizer(list(texts), truncation=True, max_length=longest, verbose=False)[
            "input_ids"
        ]
        order = sorted(range(len(ids)), key=lambda place: (len(ids[place]), ids[place]))
        for first in range(0, len(order), self.config.batch_size):
            places = order[first : first + self.config.batch_size]
            yield places, [ids[place] for place in places]
