"""What an encoder declares of itself, and what a model set is. An encoder has a place: `vision` reads frames, `audio`
sound, and so on (`Place`). Whatever fills a place is called in the same way, so that one can stand for another:

| place | called with | gives |
|---|---|---|
| vision | Frames | Encoded: tokens and VisionAttributes |
| objects | Frames | list of Label |
| appearance | Frames | AppearanceAttributes, without shots, motion and faces |
| faces | Frames | Faces |
| screen | Frames | ScreenAttributes |
| audio | Sound at `rate_hz` | Encoded: tokens and AudioAttributes |
| speech | Sound at `rate_hz` | TranscriptAttributes |
| speakers | Sound at `rate_hz` | SpeakersAttributes, and their voices float32 [count, dim] |
| text | pieces, starts, ends; `embed(texts)`, `embed_query(texts)` | Tokens; float32 [n, dim] of unit length |

An encoder is made by `encoder(config, cache, threads)`. Others are added by packages: an entry point of the group
`reelsense.encoders` that names an `EncoderSpec` (docs/encoders.md shows one).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, get_args

Place = Literal["vision", "objects", "appearance", "faces", "screen", "audio", "speech", "speakers", "text"]
PLACES: tuple[Place, ...] = get_args(Place)


@dataclass(frozen=True)
class EncoderSpec:
    """One encoder.

    `modality` is its place. `dim` is the length of its token embeddings, None when it gives none. `weights` are names
    in `WEIGHTS`, `modules` the dotted modules whose code makes the result, and `data` the files beside the first of
    them that they read. `package` carries the algorithm where no weights do. `config` and `encoder` are `module:Class`.
    `rate_hz` is the rate at which an encoder of sound wants it. `digests` is `module:function`, called with the
    configuration and the cache, for weights that are not in `WEIGHTS`: what they are, by name. `hub` is the id of the
    model on its hub, where its weights come from there.
    """

    name: str
    modality: Place
    dim: int | None
    weights: tuple[str, ...]
    modules: tuple[str, ...]
    preprocessing: str
    licence: str
    config: str
    encoder: str
    data: tuple[str, ...] = ()
    package: str | None = None
    rate_hz: int | None = None
    hub: str | None = None
    digests: str | None = None


@dataclass(frozen=True)
class ModelSet:
    """A named choice of encoders: for each place the name of one."""

    name: str
    encoders: Mapping[Place, str] = field(default_factory=dict)
