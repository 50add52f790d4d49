"""A voice as a vector: the speaker encoder of Resemblyzer, in our own module.

The model is the LSTM of Wan et al. (2018), "Generalized end-to-end loss for speaker verification", as Resemblyzer
trained and published it. Only its weights are taken from the package, whose own code asks for webrtcvad, which has to
be compiled. What the weights expect: 16 kHz; the power in 40 mel bands of 25 ms windows each 10 ms, not in decibels;
pieces of 1.6 s; a quiet voice raised to -30 dBFS.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from encoders.weights import WEIGHTS, locate
from store.errors import ModelError
from store.records import Float32

RATE_HZ = 16_000
VOICE_DIM = 256
PIECE_FRAMES = 160
PIECE_SECONDS = 1.6
HOP_SAMPLES = 160
_FFT_SAMPLES = 400
_MEL_BANDS = 40
_LAYERS = 3
_LEVEL_DB = -30.0
_BATCH = 8


class VoiceEmbedding:
    """Unit vectors of voices, on one CPU.

    Over 3.2 s of speech, two of one reader had a cosine of 0.75 at least, two of different readers 0.71 at most.
    """

    def __init__(self, cache: Path, threads: int = 1) -> None:
        """Load the model. `cache` is where unpacked weights live. Raises ModelError."""
        import torch

        torch.set_num_threads(threads)
        path = locate(WEIGHTS["resemblyzer-voice"], cache)
        stored = torch.load(path, map_location="cpu", weights_only=True)["model_state"]
        self._lstm = torch.nn.LSTM(_MEL_BANDS, VOICE_DIM, _LAYERS, batch_first=True)
        self._linear = torch.nn.Linear(VOICE_DIM, VOICE_DIM)
        for module, prefix in ((self._lstm, "lstm."), (self._linear, "linear.")):
            named = {name.removeprefix(prefix): value for name, value in stored.items() if name.startswith(prefix)}
            try:
                module.load_state_dict(named)
            except RuntimeError as error:  # pragma: no cover - the digest stands before it
                raise ModelError("model.damaged", f"The voice weights do not fit their model: {error}.") from error
            module.eval().requires_grad_(False)

    def __call__(self, pieces: Float32) -> Float32:
        """float32 [n, 256], unit: the voices in `pieces` (float32 [n, n_frames, 40] from `mel_power`), 160 frames best.

        They go through the model eight at a time, the last ones filled up with silence: a product of eight rows gives
        each row the same bytes whatever stands in the others, and takes half the time of eight of one.
        """
        import torch

        if len(pieces) == 0:
            return np.zeros((0, VOICE_DIM), np.float32)
        padded = np.zeros((-(-len(pieces) // _BATCH) * _BATCH, *pieces.shape[1:]), np.float32)
        padded[: len(pieces)] = pieces
        with torch.inference_mode():
            found = []
            for start in range(0, len(padded), _BATCH):
                _, (hidden, _) = self._lstm(torch.from_numpy(padded[start : start + _BATCH]))
                found.append(torch.relu(self._linear(hidden[-1])).numpy())
        return unit(np.concatenate(found)[: len(pieces)])


def unit(vectors: npt.NDArray[Any]) -> Float32:
    """float32 [n, dim]: each of `vectors` at length 1; what has no length stays zero."""
    wide = vectors.astype(np.float64)
    lengths = np.linalg.norm(wide, axis=1, keepdims=True)
    return np.asarray(wide / np.where(lengths > 0, lengths, 1.0), np.float32)


def mel_power(samples: Float32) -> Float32:
    """float32 [n_frames, 40]: power by mel band of `samples` (float32 [n], 16 kHz), a frame each 10 ms."""
    import librosa

    mel: npt.NDArray[Any] = librosa.feature.melspectrogram(
        y=samples, sr=RATE_HZ, n_fft=_FFT_SAMPLES, hop_length=HOP_SAMPLES, n_mels=_MEL_BANDS
    )
    return np.ascontiguousarray(mel.T, np.float32)


def raising(samples: Float32) -> float:
    """The factor on amplitude that brings `samples` to a root mean square of -30 dBFS; 1 where they are louder."""
    power = float(np.square(samples, dtype=np.float64).mean()) if len(samples) else 0.0
    return max(float(10.0 ** (_LEVEL_DB / 20.0)) / float(np.sqrt(power)), 1.0) if power > 0.0 else 1.0
