"""Music attributes by VibeNet, a small EfficientNet trained on the Free Music Archive; an optional extra.

The package `vibenet` is GPL-3.0-or-later, so it is never part of the default install, and nothing here runs unless the
setting asks for it. Its weights are inside its wheel: it downloads nothing at run time. Its metadata asks for an old
typer, which only its command line uses, so it is installed without its dependencies; of those that we do not have
anyway, only pydub is imported.
"""

from __future__ import annotations

import numpy as np

from encoders.music import with_mood
from store.errors import ModelError
from store.records import Float32, Music


class VibenetMusic:
    """Reads energy and valence of music off its samples."""

    def __init__(self) -> None:
        """Load the model. Raises ModelError (`model.missing`) where the package or pydub is absent."""
        try:
            from vibenet import load_model

            self._model = load_model()
        except ImportError as error:
            raise ModelError(
                "model.missing",
                f'The package vibenet, which reads music when `music` is "vibenet", cannot be imported: {error}.',
                hint="pip install --no-deps vibenet pydub (GPL-3.0-or-later), or set `music` to librosa.",
            ) from error

    def __call__(self, samples: Float32, rate_hz: int, share: float) -> Music:
        """`Music` of `samples` (float32 [n], one channel, at `rate_hz`), `share` 0..1 of which is music.

        VibeNet was trained on music and gives numbers for anything: call it only where there is enough music. Its
        `energy` and `valence` are 0..1, after the scale of the Echo Nest; the mood is the quadrant they fall in.
        """
        found = self._model.predict(np.ascontiguousarray(samples, np.float32), sr=rate_hz)[0]
        return with_mood(share, float(found.energy), float(found.valence), "vibenet")
