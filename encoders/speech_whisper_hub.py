"""Whisper by the transformers library: the large models of the hub, on a GPU, in the precision it likes.

The network is transformers' WhisperForConditionalGeneration; the search for tokens is openai-whisper's own, so that the
rules are those of the other runtimes (`encoders.whisper_runtimes`) and greedy tokens are the same. Large models since
the third hear 128 Mel bands instead of 80 and know one language more, Cantonese.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from encoders.hub import HubConfig, load_model, obtain
from encoders.speech import SpeechConfig, SpeechEncoder
from encoders.whisper_runtimes import (
    RATE_HZ,
    SECONDS_PER_FEATURE,
    WINDOW_SECONDS,
    Alignment,
    Generated,
    aligned_length,
    attended_places,
)
from encoders.whisper_warping import token_starts
from store.errors import ModelError
from store.records import Float32, Sound, TranscriptAttributes

_MAX_INITIAL_TIMESTAMP = 50  # one second, in steps of 0.02 s: later than that, a first word is not believed
_TOKENS_BESIDE_LANGUAGES = 51_766  # of a multilingual vocabulary: text, time stamps, and what steers the model


class HubWhisperConfig(HubConfig):
    """Which Whisper; any multilingual one of the hub's. `batch_size` is how many windows are heard at once."""

    model: str = "openai/whisper-large-v3-turbo"


class HubSpeechConfig(HubWhisperConfig):
    """Which Whisper, and the gate and the guards around it (of which `runtime` and `compute_type` say nothing here)."""

    guards: SpeechConfig = SpeechConfig()


class LargeHubSpeechConfig(HubSpeechConfig):
    """The same with all decoder layers: turbo has four of the 32."""

    model: str = "openai/whisper-large-v3"


class HubSpeechEncoder:
    """Transcribes the sound of videos with a Whisper of the hub, gated and guarded as `encoders.speech` does it."""

    rate_hz = RATE_HZ

    def __init__(self, config: HubSpeechConfig, cache: Path, threads: int = 1) -> None:
        """Load the models. `threads` is what torch may use in this process. Raises ModelError."""
        self.config = config
        runtime = HubWhisper(config, cache, threads)
        self._speech = SpeechEncoder(
            config.guards,
            cache,
            threads,
            encoder_batch=config.batch_size,
            decoder_batch=config.batch_size,
            runtime=runtime,
        )

    def __call__(self, sound: Sound) -> TranscriptAttributes:
        """The words of `sound` (16 kHz), times in seconds on the video's clock. No sound and no words are no error."""
        return self._speech(sound)

    def transcribe_many(self, sounds: Sequence[Sound]) -> list[TranscriptAttributes]:
        """The words of each of `sounds`, as if it were the only one."""
        return self._speech.transcribe_many(sounds)


class HubWhisper:
    """One Whisper, as a runtime (see `encoders.whisper_runtimes`). Sounds of a batch are equally long; features are
    float32, whatever the model computes in."""

    def __init__(self, config: HubWhisperConfig, cache: Path, threads: int = 1) -> None:
        """Load the model. `threads` is what torch may use in this process. Raises ModelError."""
        import torch
        from transformers import WhisperForConditionalGeneration

        torch.set_num_threads(threads)
        self.config = config
        found = obtain(config, cache)
        self._model = load_model(found, WhisperForConditionalGeneration, config, may_lack=("proj_out.",))
        self.languages = int(self._model.config.vocab_size) - _TOKENS_BESIDE_LANGUAGES
        if self.languages not in (99, 100):
            raise ModelError(
                "model.damaged",
                f"The model {config.model} is not a multilingual Whisper: its vocabulary has "
                f"{self._model.config.vocab_size} tokens.",
                hint="Take one whose name does not end in .en.",
            )
        self.mel_bands = int(self._model.config.num_mel_bins)
        self._positions = self._model.model.encoder.embed_positions.weight
        self._heads = _alignment_heads(found.directory, self._model.config)

    def encode(self, mels: Float32) -> Float32:
        """Features float32 [n, n_frames / 2, dim] of `mels` float32 [n, `mel_bands`, n_frames]; n_frames is even, and
        at most 3000."""
        size = self.config.batch_size
        return np.concatenate([self._encode(mels[first : first + size]) for first in range(0, len(mels), size)])

    def detect_language(self, features: Float32) -> list[dict[str, float]]:
        """For each of `features` [n, length, dim], the probability of each language code; they sum to one."""
        from whisper.decoding import detect_language

        found: list[dict[str, float]] = []
        for batch in self._batches(features):
            _, probabilities = detect_language(self._network(features.shape[1]), batch)
            found += [{code: float(value) for code, value in each.items()} for each in probabilities]
        return found

    def generate(self, features: Float32, languages: Sequence[str], beam_size: int, max_tokens: int) -> list[Generated]:
        """For each of `features` [n, length, dim], at most `max_tokens` tokens, time stamps included: greedy when
        `beam_size` is 1, else by beam search."""
        found: dict[int, Generated] = {}
        for language in sorted(set(languages)):  # the search takes one language at a time
            places = [place for place, code in enumerate(languages) if code == language]
            size = self.config.batch_size if beam_size == 1 else 1
            for first in range(0, len(places), size):
                chosen = places[first : first + size]
                found.update(zip(chosen, self._search(features[chosen], language, beam_size, max_tokens), strict=True))
        return [found[place] for place in range(len(languages))]

    def align(self, features: Float32, language: str, tokens: list[int], seconds: float) -> Alignment:
        """Where `tokens` (text alone, no time stamps) lie in the first `seconds` of one sound, whose features are
        [length, dim], and how likely each is given the sound and the tokens before it."""
        import torch

        tokenizer = self._tokenizer(language)
        prompt = list(tokenizer.sot_sequence_including_notimestamps)
        written = torch.tensor([[*prompt, *tokens, tokenizer.eot]], device=self._model.device)
        decoder, kept = self._model.model.decoder, self._model.config._attn_implementation
        self._model.set_attn_implementation("eager")  # the fused attention does not give its weights away
        try:
            with torch.inference_mode():
                sound = torch.from_numpy(features[np.newaxis]).to(self._model.device, self._model.dtype)
                states = decoder(
                    input_ids=written, encoder_hidden_states=sound, output_attentions=True, use_cache=False
                )
                logits = self._model.proj_out(states.last_hidden_state)[0, len(prompt) - 1 : -2].float()
                logprobs = torch.log_softmax(logits[:, : tokenizer.eot], dim=-1).cpu()
                weights = torch.stack([states.cross_attentions[layer][0, head] for layer, head in self._heads])
                # The logarithm of a share stands for the score that it was made of: a softmax gives the share again.
                scores = weights[:, :, : aligned_length(features, seconds)].float().clamp_min(1e-30).log().cpu()
                attended = attended_places(scores)
        finally:
            self._model.set_attn_implementation(kept)
        # The row of a token is that of the token before it, from which it is foretold.
        starts = token_starts(attended[len(prompt) - 1 : -1].numpy())
        return Alignment(
            [float(logprobs[place, token]) for place, token in enumerate(tokens)],
            [float(start) * SECONDS_PER_FEATURE for start in starts],
        )

    def _encode(self, mels: Float32) -> Float32:
        """As the library's encoder computes, which insists on 30 seconds: a shorter window needs the first
        positions."""
        import torch

        encoder = self._model.model.encoder
        with torch.inference_mode():
            states = torch.from_numpy(mels).to(self._model.device, self._model.dtype)
            states = torch.nn.functional.gelu(encoder.conv1(states))
            states = torch.nn.functional.gelu(encoder.conv2(states)).permute(0, 2, 1)
            states = states + self._positions[: states.shape[1]]
            for layer in encoder.layers:
                found = layer(states, None)
                states = found[0] if isinstance(found, tuple) else found
            features: Float32 = encoder.layer_norm(states).float().cpu().numpy()
        return features

    def _search(self, features: Float32, language: str, beam_size: int, max_tokens: int) -> list[Generated]:
        from whisper.decoding import DecodingOptions, DecodingTask

        (batch,) = self._batches(features)
        network = self._network(features.shape[1])
        options = DecodingOptions(
            language=language,
            temperature=0.0,
            beam_size=beam_size if beam_size > 1 else None,
            sample_len=max_tokens,
            fp16=False,  # of the features that go in; the network has its own precision
            # the package counts it in steps of 30 s / length of the features
            max_initial_timestamp=_MAX_INITIAL_TIMESTAMP * WINDOW_SECONDS / features.shape[1],
        )
        task = DecodingTask(network, options)
        task.inference = network
        if beam_size > 1:
            task.decoder.inference = network
        found = []
        for result in task.run(batch):
            tokens = tuple(result.tokens)
            # The package divides by one more than there are tokens, for the end that it does not return.
            mean = result.avg_logprob * (len(tokens) + 1) / max(len(tokens), 1)
            found.append(Generated(tokens, float(mean), float(result.no_speech_prob)))
        return found

    def _batches(self, features: Float32) -> list[Any]:
        import torch

        size = self.config.batch_size
        return [
            torch.from_numpy(np.ascontiguousarray(features[first : first + size])).to(self._model.device)
            for first in range(0, len(features), size)
        ]

    def _network(self, length: int) -> _Network:
        return _Network(self._model, length, self.languages)

    def _tokenizer(self, language: str) -> Any:
        from whisper.tokenizer import get_tokenizer

        return get_tokenizer(True, num_languages=self.languages, language=language, task="transcribe")


class _Network:
    """A transformers Whisper as openai-whisper's search sees its own model and its cache (`whisper.decoding`)."""

    is_multilingual = True

    def __init__(self, model: Any, length: int, languages: int) -> None:
        self.num_languages = languages
        self.device = model.device
        self.dims = SimpleNamespace(
            n_audio_ctx=length, n_audio_state=model.config.d_model, n_text_ctx=model.config.max_target_positions
        )
        self.decoder = SimpleNamespace(blocks=())  # nothing for the package's own cache to hook into
        self._model = model
        self._cache: Any = None

    def logits(self, tokens: Any, features: Any) -> Any:
        """float32 [n, n_tokens or 1, vocabulary] of `tokens` [n, n_tokens], by `features` [1 or n, length, dim]."""
        import torch
        from transformers import DynamicCache, EncoderDecoderCache

        if self._cache is None:
            self._cache = EncoderDecoderCache(DynamicCache(), DynamicCache())
        else:
            tokens = tokens[:, -1:]
        if len(features) != len(tokens):
            features = features.repeat_interleave(len(tokens) // len(features), dim=0)
        with torch.inference_mode():
            states = self._model.model.decoder(
                input_ids=tokens,
                encoder_hidden_states=features.to(self._model.dtype),
                use_cache=True,
                **{_cache_keyword(self._model.model.decoder): self._cache},
            ).last_hidden_state
            logits = self._model.proj_out(states).float()
        return logits.clone()  # the search writes into it

    def rearrange_kv_cache(self, source_indices: list[int]) -> None:
        """Keep the cache of the hypotheses that the search goes on with."""
        import torch

        if source_indices != list(range(len(source_indices))):
            self._cache.reorder_cache(torch.tensor(source_indices, device=self.device))

    def cleanup_caching(self) -> None:
        """Forget the last sound."""
        self._cache = None


def _cache_keyword(decoder: Any) -> str:
    """The library has renamed it."""
    import inspect

    return "cache" if "cache" in inspect.signature(decoder.forward).parameters else "past_key_values"


def _alignment_heads(directory: Path, config: Any) -> list[tuple[int, int]]:
    """The heads (layer and number) of the decoder that follow the sound: those that generation_config.json names, else
    all of the upper half of the layers, as in openai-whisper.

    The file is read here: the library passes over what it takes for a copy of the model's own configuration.
    """
    layers, heads = int(config.decoder_layers), int(config.decoder_attention_heads)
    try:
        named = json.loads((directory / "generation_config.json").read_text(encoding="utf-8"))["alignment_heads"]
        found = [(int(layer), int(head)) for layer, head in named]
    except (OSError, ValueError, KeyError, TypeError):
        found = []
    if found and all(0 <= layer < layers and 0 <= head < heads for layer, head in found):
        return found
    return [(layer, head) for layer in range(layers // 2, layers) for head in range(heads)]
