"""Two runtimes of one Whisper: CTranslate2, and the openai-whisper package, behind one small protocol.

Both hold the same weights and decode greedily by the same rules (Radford et al., 2022, and the `whisper.decoding`
module): time stamps, no blank at the start, no symbols that are not speech. What follows from the tokens is shared.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np

from encoders.weights import WEIGHTS, locate
from encoders.whisper_weights import convert, read_variables
from store.records import Float32

RATE_HZ = 16_000
WINDOW_SECONDS = 30.0
FRAMES_PER_SECOND = 100
SECONDS_PER_TIMESTAMP = 0.02
_TINY = 1e-30
TOKENS_AT_MOST = 224  # half of the decoder's context, as in the reference decoder
_MAX_INITIAL_TIMESTAMP = 50  # one second: later than that, a first word is not believed

RuntimeName = Literal["ctranslate2", "openai-whisper"]


@dataclass(frozen=True)
class Generated:
    """What the decoder wrote for one window: `tokens` with time stamps but without the end, the mean natural log
    probability of a token, and how likely the model thinks it that there is no speech at all (0..1)."""

    tokens: tuple[int, ...]
    avg_logprob: float
    no_speech_prob: float


class WhisperRuntime(Protocol):
    """What speech recognition asks of a runtime."""

    def encode(self, mel: Float32) -> Any:
        """Features of `mel` (float32 [80, n_frames], an even number up to 3000), in whatever form the runtime likes."""
        ...

    def detect_language(self, features: Any) -> dict[str, float]:
        """Probability of each language code; they sum to one."""
        ...

    def generate(self, features: Any, language: str, beam_size: int, max_tokens: int) -> Generated:
        """At most `max_tokens` tokens, time stamps included: greedy when `beam_size` is 1, else by beam search."""
        ...

    def logprobs(self, features: Any, language: str, tokens: list[int]) -> list[float]:
        """Log probability of each of `tokens` (text alone, no time stamps) given the sound and the tokens before it."""
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
        self._tokenizer = get_tokenizer(True, num_languages=self._model.num_languages)

    def encode(self, mel: Float32) -> Any:
        """See WhisperRuntime."""
        return self._model.encode(self._storage(mel[np.newaxis]))

    def detect_language(self, features: Any) -> dict[str, float]:
        """See WhisperRuntime."""
        (pairs,) = self._model.detect_language(features)
        return {token.strip("<|>"): float(probability) for token, probability in pairs}

    def generate(self, features: Any, language: str, beam_size: int, max_tokens: int) -> Generated:
        """See WhisperRuntime."""
        (result,) = self._model.generate(
            features,
            [self._prompt(language)],
            beam_size=beam_size,
            max_length=2 * max_tokens,  # CTranslate2 grants half of it to the answer
            max_initial_timestamp_index=_MAX_INITIAL_TIMESTAMP,
            return_scores=True,
            return_no_speech_prob=True,
        )
        return Generated(tuple(result.sequences_ids[0]), float(result.scores[0]), float(result.no_speech_prob))

    def logprobs(self, features: Any, language: str, tokens: list[int]) -> list[float]:
        """See WhisperRuntime."""
        (found,) = self._model.align(features, self._prompt(language), [tokens], features.shape[1] * 2)
        return [float(np.log(max(probability, _TINY))) for probability in found.text_token_probs[: len(tokens)]]

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
        self._positions = self._model.encoder.positional_embedding

    def encode(self, mel: Float32) -> Any:
        """See WhisperRuntime."""
        import torch

        # The package insists on 30 seconds; a shorter window needs just the first of the positions.
        self._resize(mel.shape[1] // 2)
        with torch.inference_mode():
            return self._model.encoder(torch.from_numpy(mel)[None])

    def detect_language(self, features: Any) -> dict[str, float]:
        """See WhisperRuntime."""
        from whisper.decoding import detect_language

        self._resize(features.shape[1])
        _, (found,) = detect_language(self._model, features)
        return {code: float(probability) for code, probability in found.items()}

    def generate(self, features: Any, language: str, beam_size: int, max_tokens: int) -> Generated:
        """See WhisperRuntime."""
        from whisper.decoding import DecodingOptions, DecodingTask

        length = features.shape[1]
        self._resize(length)
        options = DecodingOptions(
            language=language,
            temperature=0.0,
            beam_size=beam_size if beam_size > 1 else None,
            sample_len=max_tokens,
            fp16=False,
            # the package counts it in steps of 30 s / length of the features
            max_initial_timestamp=_MAX_INITIAL_TIMESTAMP * WINDOW_SECONDS / length,
        )
        (result,) = DecodingTask(self._model, options).run(features)
        tokens = tuple(result.tokens)
        # The package divides by one more than there are tokens, for the end that it does not return.
        mean = result.avg_logprob * (len(tokens) + 1) / max(len(tokens), 1)
        return Generated(tokens, float(mean), float(result.no_speech_prob))

    def logprobs(self, features: Any, language: str, tokens: list[int]) -> list[float]:
        """See WhisperRuntime."""
        import torch
        from whisper.tokenizer import get_tokenizer

        tokenizer = get_tokenizer(True, num_languages=self._model.num_languages, language=language, task="transcribe")
        prompt = tokenizer.sot_sequence_including_notimestamps
        with torch.inference_mode():
            logits = self._model.logits(torch.tensor([[*prompt, *tokens]]), features)[0, len(prompt) - 1 : -1]
            found = torch.log_softmax(logits[:, : tokenizer.eot], dim=-1)
        return [float(found[place, token]) for place, token in enumerate(tokens)]

    def _resize(self, length: int) -> None:
        self._model.dims.n_audio_ctx = length
        self._model.encoder.positional_embedding = self._positions[:length]
