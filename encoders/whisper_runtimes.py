"""Two runtimes of one Whisper: CTranslate2, and the openai-whisper package, behind one small protocol.

Both hold the same weights and decode greedily by the same rules (Radford et al., 2022, and the `whisper.decoding`
module): time stamps, no blank at the start, no symbols that are not speech. What follows from the tokens is shared.
Both take batches of equal length, and align tokens with the sound by the same heads and the same time warping.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np

from encoders.weights import WEIGHTS, locate
from encoders.whisper_warping import token_starts
from encoders.whisper_weights import convert, read_variables
from store.records import Float32

RATE_HZ = 16_000
WINDOW_SECONDS = 30.0
FRAMES_PER_SECOND = 100
SECONDS_PER_TIMESTAMP = 0.02
_TINY = 1e-30
TOKENS_AT_MOST = 224  # half of the decoder's context, as in the reference decoder
_MAX_INITIAL_TIMESTAMP = 50  # one second: later than that, a first word is not believed

SECONDS_PER_FEATURE = 0.02
_MEDIAN_FRAMES = 7  # width of the filter over the attention, as both packages have it

RuntimeName = Literal["ctranslate2", "openai-whisper"]


@dataclass(frozen=True)
class Generated:
    """What the decoder wrote for one window: `tokens` with time stamps but without the end, the mean natural log
    probability of a token, and how likely the model thinks it that there is no speech at all (0..1)."""

    tokens: tuple[int, ...]
    avg_logprob: float
    no_speech_prob: float


@dataclass(frozen=True)
class Alignment:
    """How tokens of text lie in the sound: the natural log probability of each, and n + 1 `starts` in seconds from the
    start of the window: where each token begins, and where the last one ends. They never fall."""

    logprobs: list[float]
    starts: list[float]


class WhisperRuntime(Protocol):
    """What speech recognition asks of a runtime. The sounds of a batch are equally long.

    `mel_bands` is how many bands of sound it hears, `languages` how many it knows (its tokens are numbered by that).
    """

    @property
    def mel_bands(self) -> int: ...

    @property
    def languages(self) -> int: ...

    def encode(self, mels: Float32) -> Float32:
        """Features float32 [batch, n_frames / 2, dim] of `mels` (float32 [batch, `mel_bands`, n_frames]; n_frames is
        even, and at most 3000)."""
        ...

    def detect_language(self, features: Float32) -> list[dict[str, float]]:
        """For each of `features` [batch, length, dim], the probability of each language code; they sum to one."""
        ...

    def generate(self, features: Float32, languages: list[str], beam_size: int, max_tokens: int) -> list[Generated]:
        """For each of `features` [batch, length, dim], at most `max_tokens` tokens, time stamps included: greedy when
        `beam_size` is 1, else by beam search."""
        ...

    def align(self, features: Float32, language: str, tokens: list[int], seconds: float) -> Alignment:
        """Where `tokens` (text alone, no time stamps) lie in the first `seconds` of one sound, whose features are
        [length, dim], and how likely each is given the sound and the tokens before it."""
        ...


def load_runtime(name: RuntimeName, compute_type: str, cache: Path, threads: int) -> WhisperRuntime:
    """The named runtime with Whisper base loaded. Raises ModelError."""
    directory = locate(WEIGHTS["whisper-base"], cache)
    if name == "ctranslate2":
        return CTranslate2Whisper(directory, compute_type, threads)
    return OpenaiWhisper(directory, threads)


def log_mel(samples: Float32, seconds: float, bands: int = 80) -> Float32:
    """float32 [bands, n_frames]: openai-whisper's log-Mel spectrogram of `samples` (float32 [n], 16 kHz), filled up
    with silence to `seconds` (at most 30). It has 80 bands, or 128 for the large models since the third."""
    import torch
    from whisper.audio import N_FRAMES, log_mel_spectrogram

    # The reference pads with silence before it takes the spectrogram's maximum, which sets the floor of the scale.
    padding = max(round(seconds * RATE_HZ) - len(samples), 0)
    with torch.inference_mode():
        mel = log_mel_spectrogram(torch.from_numpy(samples), bands, padding).numpy()
    frames = min(mel.shape[1] // 2 * 2, N_FRAMES)
    return np.ascontiguousarray(mel[:, :frames], dtype=np.float32)


class CTranslate2Whisper:
    """Whisper by CTranslate2, the faster one on a CPU."""

    def __init__(self, directory: Path, compute_type: str, threads: int) -> None:
        import ctranslate2
        from whisper.tokenizer import get_tokenizer

        self._storage = ctranslate2.StorageView.from_array
        self._model = ctranslate2.models.Whisper(
            str(directory), device="cpu", compute_type=compute_type, inter_threads=1, intra_threads=threads
        )
        self.mel_bands = int(self._model.n_mels)
        self.languages = int(self._model.num_languages)
        self._tokenizer = get_tokenizer(True, num_languages=self.languages)

    def encode(self, mels: Float32) -> Float32:
        """See WhisperRuntime."""
        return np.array(self._model.encode(self._storage(mels)))

    def detect_language(self, features: Float32) -> list[dict[str, float]]:
        """See WhisperRuntime."""
        found = self._model.detect_language(self._storage(features))
        return [{token.strip("<|>"): float(probability) for token, probability in pairs} for pairs in found]

    def generate(self, features: Float32, languages: list[str], beam_size: int, max_tokens: int) -> list[Generated]:
        """See WhisperRuntime."""
        results = self._model.generate(
            self._storage(features),
            [self._prompt(language) for language in languages],
            beam_size=beam_size,
            max_length=2 * max_tokens,  # CTranslate2 grants half of it to the answer
            max_initial_timestamp_index=_MAX_INITIAL_TIMESTAMP,
            return_scores=True,
            return_no_speech_prob=True,
        )
        return [
            Generated(tuple(result.sequences_ids[0]), float(result.scores[0]), float(result.no_speech_prob))
            for result in results
        ]

    def align(self, features: Float32, language: str, tokens: list[int], seconds: float) -> Alignment:
        """See WhisperRuntime."""
        # The model's configuration names the heads, and CTranslate2 does the warping.
        (found,) = self._model.align(
            self._storage(features[np.newaxis]),
            self._prompt(language),
            [tokens],
            2 * aligned_length(features, seconds),
            median_filter_width=_MEDIAN_FRAMES,
        )
        starts = [0.0] * (len(tokens) + 1)
        for token, place in reversed(found.alignments):
            starts[token] = place * SECONDS_PER_FEATURE
        return Alignment(
            [float(np.log(max(probability, _TINY))) for probability in found.text_token_probs[: len(tokens)]], starts
        )

    def _prompt(self, language: str) -> list[int]:
        tokenizer = self._tokenizer
        return [tokenizer.sot, tokenizer.to_language_token(language), tokenizer.transcribe]


class OpenaiWhisper:
    """Whisper by the openai-whisper package, on the weights of the CTranslate2 file."""

    def __init__(self, directory: Path, threads: int) -> None:
        import torch
        from whisper.model import ModelDimensions, Whisper

        torch.set_num_threads(threads)
        weights = convert(read_variables(directory / "model.bin"))
        self._model = Whisper(ModelDimensions(**weights.dims))
        state = {name: torch.from_numpy(array.astype(np.float32)) for name, array in weights.parameters.items()}
        self._model.load_state_dict(state)
        self._model.eval()
        self.mel_bands = int(self._model.dims.n_mels)
        self.languages = int(self._model.num_languages)
        self._positions = self._model.encoder.positional_embedding
        self._heads: list[list[int]] = json.loads((directory / "config.json").read_text())["alignment_heads"]

    def encode(self, mels: Float32) -> Float32:
        """See WhisperRuntime."""
        import torch

        # The package insists on 30 seconds; a shorter window needs just the first of the positions.
        self._resize(mels.shape[2] // 2)
        with torch.inference_mode():
            features: Float32 = self._model.encoder(torch.from_numpy(mels)).numpy()
        return features

    def detect_language(self, features: Float32) -> list[dict[str, float]]:
        """See WhisperRuntime."""
        import torch
        from whisper.decoding import detect_language

        self._resize(features.shape[1])
        _, found = detect_language(self._model, torch.from_numpy(features))
        return [{code: float(probability) for code, probability in each.items()} for each in found]

    def generate(self, features: Float32, languages: list[str], beam_size: int, max_tokens: int) -> list[Generated]:
        """See WhisperRuntime."""
        import torch
        from whisper.decoding import DecodingOptions, DecodingTask

        length = features.shape[1]
        self._resize(length)
        found: list[Generated] = []
        for language, sound in zip(languages, features, strict=True):  # the package takes one language at a time
            options = DecodingOptions(
                language=language,
                temperature=0.0,
                beam_size=beam_size if beam_size > 1 else None,
                sample_len=max_tokens,
                fp16=False,
                # the package counts it in steps of 30 s / length of the features
                max_initial_timestamp=_MAX_INITIAL_TIMESTAMP * WINDOW_SECONDS / length,
            )
            (result,) = DecodingTask(self._model, options).run(torch.from_numpy(sound[np.newaxis]))
            tokens = tuple(result.tokens)
            # The package divides by one more than there are tokens, for the end that it does not return.
            mean = result.avg_logprob * (len(tokens) + 1) / max(len(tokens), 1)
            found.append(Generated(tokens, float(mean), float(result.no_speech_prob)))
        return found

    def align(self, features: Float32, language: str, tokens: list[int], seconds: float) -> Alignment:
        """See WhisperRuntime."""
        import torch
        from whisper.model import disable_sdpa
        from whisper.tokenizer import get_tokenizer

        tokenizer = get_tokenizer(True, num_languages=self._model.num_languages, language=language, task="transcribe")
        prompt = tokenizer.sot_sequence_including_notimestamps
        scores: dict[int, Any] = {}

        def keep(layer: int) -> Any:
            return lambda _module, _inputs, outputs: scores.update({layer: outputs[-1][0]})

        layers = {layer for layer, _ in self._heads}
        hooks = [self._model.decoder.blocks[layer].cross_attn.register_forward_hook(keep(layer)) for layer in layers]
        try:
            with torch.inference_mode(), disable_sdpa():  # the fused attention does not give its weights away
                written = torch.tensor([[*prompt, *tokens, tokenizer.eot]])
                logits = self._model.logits(written, torch.from_numpy(features[np.newaxis]))[0, len(prompt) - 1 : -2]
                logprobs = torch.log_softmax(logits[:, : tokenizer.eot], dim=-1)
                attention = torch.stack([scores[layer][head] for layer, head in self._heads])
                attended = attended_places(attention[:, :, : aligned_length(features, seconds)])
        finally:
            for hook in hooks:
                hook.remove()
        # The row of a token is that of the token before it, from which it is foretold.
        starts = token_starts(attended[len(prompt) - 1 : -1].numpy())
        return Alignment(
            [float(logprobs[place, token]) for place, token in enumerate(tokens)],
            [float(start) * SECONDS_PER_FEATURE for start in starts],
        )

    def _resize(self, length: int) -> None:
        self._model.dims.n_audio_ctx = length
        self._model.encoder.positional_embedding = self._positions[:length]


def aligned_length(features: Float32, seconds: float) -> int:
    """How many of the features [length, dim] of one sound are its first `seconds`."""
    return max(min(round(seconds / SECONDS_PER_FEATURE), len(features)), 1)


def attended_places(scores: Any) -> Any:
    """torch float32 [tokens, length]: how much more than other tokens each token attends to a place, smoothed over
    places and averaged over heads, of attention `scores` [heads, tokens, length] before the softmax."""
    import torch
    from whisper.timing import median_filter

    weights = scores.float().softmax(dim=-1)
    spread, mean = torch.std_mean(weights, dim=-2, keepdim=True, unbiased=False)
    return median_filter((weights - mean) / spread, _MEDIAN_FRAMES).mean(dim=0)
