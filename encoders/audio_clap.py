"""What the sound is, by CLAP (Wu et al., 2023, arXiv:2211.06687) through the transformers library: tokens that share a
space with words. What people read of the sound comes from `encoders.audio`, whose tokens are put aside.

The library's feature extractor draws at random what it hears of a sound longer than the model's ten seconds, and which
sound of a batch counts as long: so it is never given a longer one, and none counts as long.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from pydantic import Field

from encoders.audio import FULL_DB, AudioConfig, AudioEncoder
from encoders.hub import HubConfig, load_model, load_part, obtain
from encoders.music import ramp
from encoders.samples import mended
from encoders.sound_kinds import SILENCE_DB
from store.records import AudioAttributes, Encoded, Float32, Sound, Tokens


class ClapConfig(HubConfig):
    """What changes an audio artifact made with CLAP.

    Tokens are windows of equal length, as near to `window_seconds` below it as their number allows; more than
    `max_windows` are never made: in a longer sound each token stands for more time and hears the middle of it.
    `attributes` is what the features for people are made with.
    """

    model: str = "laion/clap-htsat-unfused"
    window_seconds: float = Field(10.0, ge=1, le=10)
    max_windows: int = Field(64, ge=1, le=1024)
    attributes: AudioConfig = AudioConfig()


class ClapEncoder:
    """Hears the sound of a video: a unit vector for each window, and AudioAttributes."""

    def __init__(self, config: ClapConfig, cache: Path, threads: int = 1) -> None:
        """Load the models. `threads` is what torch may use in this process. Raises ModelError."""
        import torch
        from transformers import AutoFeatureExtractor, AutoTokenizer, ClapModel

        torch.set_num_threads(threads)
        self.config = config
        found = obtain(config, cache)
        self._model = load_model(found, ClapModel, config)
        self._extractor = load_part(found, AutoFeatureExtractor, config)
        self._tokenizer = load_part(found, AutoTokenizer, config)
        self._attributes = AudioEncoder(config.attributes, cache, threads)
        self.dim = int(self._model.config.projection_dim)

    @property
    def rate_hz(self) -> int:
        """The rate at which sound is best decoded for it (48 kHz); other rates are resampled."""
        return int(self._extractor.sampling_rate)

    def __call__(self, sound: Sound) -> Encoded:
        """Tokens [n_windows, dim] of unit length that tile the sound, on the video's clock, and AudioAttributes.

        Salience rises from 0 at -60 dBFS to 1 at -30 dBFS. A track that is silent throughout has no tokens.
        """
        return self.encode_many([sound])[0]

    def encode_many(self, sounds: Sequence[Sound]) -> list[Encoded]:
        """What `__call__` gives for each of them, with batches that go across them."""
        whole = [_mended(sound) for sound in sounds]
        described = [self._attributes(_at_rate(sound, self.config.attributes.rate_hz)) for sound in whole]
        cut = [
            self._windows(sound) if len(encoded.tokens) else [] for sound, encoded in zip(whole, described, strict=True)
        ]
        vectors = self._embed([samples for windows in cut for samples, _, _ in windows])
        result = []
        for sound, encoded, windows in zip(whole, described, cut, strict=True):
            own, vectors = vectors[: len(windows)], vectors[len(windows) :]
            attributes = encoded.attributes
            if isinstance(attributes, AudioAttributes):  # lengths are those of the sound, not of its resampled copy
                attributes = attributes.model_copy(update={"seconds_decoded": sound.seconds if sound.present else 0.0})
            result.append(Encoded(self._tokens(own, windows, sound.start_seconds), attributes))
        return result

    def embed_text(self, texts: Sequence[str]) -> Float32:
        """float32 [n, dim], rows of unit length: texts in the space of the sounds."""
        found = []
        for first in range(0, len(texts), self.config.batch_size):
            batch = list(texts[first : first + self.config.batch_size])
            inputs = self._tokenizer(batch, padding="max_length", truncation=True, max_length=77, return_tensors="pt")
            found.append(self._vectors(self._model.get_text_features, inputs))
        return np.concatenate(found) if found else np.zeros((0, self.dim), np.float32)

    def _windows(self, sound: Sound) -> list[tuple[Float32, float, float]]:
        """What is heard for each token (float32 [n] at `rate_hz`), and the bounds of its span in seconds."""
        at_rate = _at_rate(sound, self.rate_hz)
        samples = _mixed(at_rate.samples)
        longest = round(self.config.window_seconds * self.rate_hz)
        count = min(math.ceil(len(samples) / longest), self.config.max_windows)
        bounds = np.round(np.linspace(0, len(samples), count + 1)).astype(int)
        windows = []
        for first, last in zip(bounds[:-1].tolist(), bounds[1:].tolist(), strict=True):
            aside = max(last - first - longest, 0) // 2
            heard = samples[first + aside : first + aside + min(last - first, longest)]
            windows.append((heard, first / self.rate_hz, last / self.rate_hz))
        return windows

    def _tokens(self, vectors: Float32, windows: list[tuple[Float32, float, float]], shift: float) -> Tokens:
        levels = np.array([_level_db(samples) for samples, _, _ in windows])
        return Tokens(
            vectors,
            np.array([start + shift for _, start, _ in windows], np.float32),
            np.array([end + shift for _, _, end in windows], np.float32),
            np.asarray(ramp(levels, SILENCE_DB, FULL_DB), np.float32),
        )

    def _embed(self, windows: Sequence[Float32]) -> Float32:
        import torch

        found = []
        for first in range(0, len(windows), self.config.batch_size):
            batch = list(windows[first : first + self.config.batch_size])
            inputs = self._extractor(batch, sampling_rate=self.rate_hz, return_tensors="pt")
            inputs["is_longer"] = torch.zeros((len(batch), 1), dtype=torch.bool)
            found.append(self._vectors(self._model.get_audio_features, inputs))
        return np.concatenate(found) if found else np.zeros((0, self.dim), np.float32)

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


def _mended(sound: Sound) -> Sound:
    """`sound` without samples that are no sound; where there were any it says `degraded`."""
    samples, damaged = mended(sound.samples)
    return replace(sound, samples=samples, degraded=True) if damaged else sound


def _at_rate(sound: Sound, rate_hz: int) -> Sound:
    if sound.rate_hz == rate_hz:
        return sound
    samples = sound.samples
    if samples.shape[1]:
        import librosa

        samples = librosa.resample(samples, orig_sr=sound.rate_hz, target_sr=rate_hz, res_type="soxr_hq")
    return Sound(
        np.ascontiguousarray(samples, np.float32),
        rate_hz,
        sound.present,
        sound.start_seconds,
        sound.declared_seconds,
        sound.degraded,
    )


def _mixed(samples: Float32) -> Float32:
    """float32 [n]: the mean of the channels, or the louder one where they cancel out."""
    mixed: Float32 = samples.mean(axis=0, dtype=np.float32)
    powers = np.square(samples, dtype=np.float64).mean(axis=1)
    if float(np.square(mixed, dtype=np.float64).mean()) < 0.1 * float(powers.max()):
        return np.ascontiguousarray(samples[int(powers.argmax())])
    return mixed


def _level_db(samples: npt.NDArray[np.float32]) -> float:
    """Mean square in dBFS; -120 at the least."""
    return 10.0 * math.log10(max(float(np.square(samples, dtype=np.float64).mean()), 1e-12))
