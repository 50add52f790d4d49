"""The records that rooms hand to each other: decoded media, tokens, and what each stage says of a video.

Arrays travel in frozen dataclasses that check their shapes and print shapes, not data. What people read travels in
pydantic models that go to JSON and back unchanged.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, StringConstraints

Float32 = npt.NDArray[np.float32]
Modality = Literal["vision", "audio", "text"]
MODALITIES: tuple[Modality, ...] = ("vision", "audio", "text")


# --- decoded media -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Frames:
    """Pictures sampled from one video, in the order of time.

    `pixels` uint8 [n_frames, height, width, 3] RGB, upright (rotation applied), pixels square; `seconds` float64
    [n_frames] presentation time, from the start of the video, of each. `decoded` counts the pictures the decoder gave,
    kept or not; `declared` is what the container promised (None when it promises nothing). `degraded` is true when
    the decoder reported damage or stopped early. `width` and `height` are pixels of the video as a player shows it.
    `shots` cover it one after the other; they are empty, and `motion` (0..1) is None, where not every picture was seen.
    """

    pixels: npt.NDArray[np.uint8]
    seconds: npt.NDArray[np.float64]
    duration_seconds: float
    decoded: int
    declared: int | None
    degraded: bool
    width: int = 0
    height: int = 0
    shots: tuple[Shot, ...] = ()
    motion: float | None = None

    def __post_init__(self) -> None:
        if self.pixels.ndim != 4 or self.pixels.shape[3] != 3 or self.pixels.dtype != np.uint8:
            raise ValueError(f"pixels must be uint8 [n, height, width, 3], got {self.pixels.dtype} {self.pixels.shape}")
        if self.seconds.shape != (self.pixels.shape[0],):
            raise ValueError(f"seconds must be [{self.pixels.shape[0]}], got {self.seconds.shape}")

    def __repr__(self) -> str:
        return f"Frames(pixels={self.pixels.shape}, decoded={self.decoded}/{self.declared}, degraded={self.degraded})"


@dataclass(frozen=True, eq=False)
class Sound:
    """The sound of one video: `samples` float32 [n_channels, n_samples] in -1..1 at `rate_hz`; 1 or 2 channels.

    No sound track at all is `samples` of shape [1, 0] and `present` false. `start_seconds` is where the sound begins on
    the video's clock (0 for most). `declared_seconds` is what the container promised.
    """

    samples: Float32
    rate_hz: int
    present: bool
    start_seconds: float = 0.0
    declared_seconds: float | None = None
    degraded: bool = False

    def __post_init__(self) -> None:
        if self.samples.ndim != 2 or self.samples.dtype != np.float32:
            raise ValueError(f"samples must be float32 [channels, n], got {self.samples.dtype} {self.samples.shape}")

    @property
    def seconds(self) -> float:
        """Length of what was decoded, in seconds."""
        return float(self.samples.shape[1] / self.rate_hz)

    def mono(self) -> Float32:
        """float32 [n_samples]: the mean of the channels."""
        mixed: Float32 = self.samples.mean(axis=0, dtype=np.float32)
        return mixed

    def __repr__(self) -> str:
        return f"Sound(samples={self.samples.shape}, rate_hz={self.rate_hz}, degraded={self.degraded})"


class CaptionSegment(BaseModel):
    """One caption, subtitle or transcript line: when it shows (seconds), and its words."""

    model_config = ConfigDict(frozen=True)
    start: float
    end: float
    text: str


class CaptionTrack(BaseModel):
    """A whole caption track: `origin` is `embedded` or `sidecar`; `language` a BCP 47 tag, or None when not stated."""

    model_config = ConfigDict(frozen=True)
    origin: Literal["embedded", "sidecar"]
    language: str | None = None
    segments: list[CaptionSegment] = Field(default_factory=list)


class MediaInfo(BaseModel):
    """What probing found before any decoding. Sizes in bytes and pixels, times in seconds, rates per second."""

    model_config = ConfigDict(frozen=True)
    container: str
    bytes: int
    duration: float | None
    width: int
    height: int
    rotation: int = 0
    video_codec: str
    declared_frames: int | None = None
    frame_rate: float | None = None
    audio_codec: str | None = None
    audio_rate: int | None = None
    audio_channels: int | None = None
    audio_duration: float | None = None
    subtitle_streams: int = 0


class Metadata(BaseModel):
    """What the uploader says about a video. Its digest is the *revision* of the words of a video. `sound` is what the
    platform calls the music or sound that the video is made with: videos of one sound belong together."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    title: Annotated[str, StringConstraints(max_length=500)] = ""
    description: Annotated[str, StringConstraints(max_length=10_000)] = ""
    tags: tuple[Annotated[str, StringConstraints(min_length=1, max_length=100)], ...] = Field((), max_length=100)
    creator: Annotated[str, StringConstraints(max_length=200)] = ""
    region: Annotated[str, StringConstraints(pattern=r"^([A-Za-z]{2}|[0-9]{3})?$")] = ""
    language: Annotated[str, StringConstraints(pattern=r"^([A-Za-z]{2,8}(-[A-Za-z0-9]{1,8})*)?$")] = ""
    sound: Annotated[str, StringConstraints(max_length=200)] = ""
    captions: tuple[CaptionTrack, ...] = Field((), max_length=50)


# What can be said of a video in words; captions are files.
WORD_FIELDS: tuple[str, ...] = tuple(name for name in Metadata.model_fields if name != "captions")


# --- tokens and what stages say --------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Tokens:
    """A modality as a sequence: `embeddings` float32 [n_tokens, dim], its span in seconds, and its salience.

    `salience` float32 [n_tokens] in 0..1: how much there is in the token by its encoder's own measure (a blank frame,
    a silent window or a one-word caption are near 0). Fusion attends by it. A missing modality has no tokens.
    """

    embeddings: Float32
    start_seconds: Float32
    end_seconds: Float32
    salience: Float32

    def __post_init__(self) -> None:
        if self.embeddings.ndim != 2 or self.embeddings.dtype != np.float32:
            raise ValueError(f"embeddings: float32 [n, dim], got {self.embeddings.dtype} {self.embeddings.shape}")
        for name in ("start_seconds", "end_seconds", "salience"):
            array = getattr(self, name)
            if array.shape != (len(self.embeddings),) or array.dtype != np.float32:
                raise ValueError(f"{name}: float32 [{len(self.embeddings)}], got {array.dtype} {array.shape}")

    def __len__(self) -> int:
        return int(self.embeddings.shape[0])

    def __repr__(self) -> str:
        return f"Tokens(embeddings={self.embeddings.shape})"

    @classmethod
    def none(cls, dim: int) -> Tokens:
        """No tokens: the modality is missing."""
        empty = np.zeros(0, np.float32)
        return cls(np.zeros((0, dim), np.float32), empty, empty, empty)


class Label(BaseModel):
    """What is seen: a name for people, confidence 0..1 aggregated over the video, and the seconds where it is seen.

    `group` is the everyday word that the name falls under ("dog" for "Staffordshire bullterrier"), None for a name that
    is such a word itself.
    """

    model_config = ConfigDict(frozen=True)
    name: str
    confidence: float
    seconds: list[float] = Field(default_factory=list)
    group: str | None = None


class VisionAttributes(BaseModel):
    """What the frames show. `objects` are found by a detector, where the model set has one."""

    labels: list[Label] = Field(default_factory=list)
    objects: list[Label] = Field(default_factory=list)


class Shot(BaseModel):
    """A stretch between two cuts, in seconds."""

    model_config = ConfigDict(frozen=True)
    start: float
    end: float


class FramesAttributes(BaseModel):
    """What decoding found beside the frames: `duration` in seconds, `cut_rate` in cuts a minute, `motion` 0..1, `width`
    and `height` in pixels as a player shows the video. Without `shots`, `cut_rate` and `motion` are unknown (None)."""

    frames_decoded: int
    frames_declared: int | None
    duration: float
    degraded: bool
    width: int
    height: int
    shots: list[Shot] = Field(default_factory=list)
    cut_rate: float | None = None
    motion: float | None = None


class Colour(BaseModel):
    """A dominant colour: the everyday name, sRGB as `#rrggbb`, and its share of the pixels, 0..1."""

    model_config = ConfigDict(frozen=True)
    name: str
    hex: str
    share: float


class Faces(BaseModel):
    """How many faces there are: `count` most at one time, `share` of the frames looked at that hold any, and when.

    Nothing is kept that could tell whose they are.
    """

    count: int = 0
    share: float = 0.0
    seconds: list[float] = Field(default_factory=list)


class AppearanceAttributes(BaseModel):
    """How the pictures look. `brightness`, `contrast`, `sharpness` and `blank_share` 0..1; `histogram` the share of
    the pixels in each named colour."""

    colours: list[Colour] = Field(default_factory=list)
    histogram: dict[str, float] = Field(default_factory=dict)
    brightness: float = 0.0
    contrast: float = 0.0
    sharpness: float = 0.0
    blank_share: float = 0.0
    faces: Faces = Field(default_factory=Faces)


class ScreenPhrase(CaptionSegment):
    """Words that stand in the picture for a while; `confidence` 0..1 is the reader's own."""

    confidence: float = 0.0


class ScreenAttributes(BaseModel):
    """The words in the picture, in the order of their time, and how many frames were read for them."""

    phrases: list[ScreenPhrase] = Field(default_factory=list)
    frames_read: int = 0


class SoundSegment(BaseModel):
    """A stretch of sound of one kind, in seconds."""

    model_config = ConfigDict(frozen=True)
    start: float
    end: float
    kind: Literal["speech", "music", "noise", "silence"]


class Music(BaseModel):
    """Background music: all 0..1 but the words. `type` and `mood` are None when there is too little music to say."""

    share: float = 0.0
    type: str | None = None
    type_confidence: float | None = None
    energy: float | None = None
    valence: float | None = None
    mood: str | None = None
    mood_confidence: float | None = None
    source: str = "librosa"


class AudioAttributes(BaseModel):
    """What the sound is like. Times in seconds, tempo in beats a minute, loudness in LUFS (EBU R128), shares 0..1."""

    present: bool
    seconds_decoded: float = 0.0
    seconds_declared: float | None = None
    degraded: bool = False
    tempo: float | None = None
    beat_strength: float | None = None
    key: str | None = None
    mode: Literal["major", "minor"] | None = None
    key_confidence: float | None = None
    loudness: float | None = None
    onset_rate: float | None = None
    brightness: float | None = None
    speech_share: float = 0.0
    silence_share: float = 0.0
    segments: list[SoundSegment] = Field(default_factory=list)
    music: Music = Field(default_factory=Music)


class SpokenSegment(BaseModel):
    """A stretch in which one speaker talks, in seconds; speakers are numbered from 0 by when they first speak."""

    model_config = ConfigDict(frozen=True)
    start: float
    end: float
    speaker: int


class SpeakersAttributes(BaseModel):
    """How many people speak, and when each does. The artifact's array `voices` float32 [count, dim] holds their unit
    voice embeddings."""

    count: int = 0
    segments: list[SpokenSegment] = Field(default_factory=list)


class Word(CaptionSegment):
    """One spoken word; `confidence` 0..1."""

    confidence: float = 0.0


class TranscriptSegment(CaptionSegment):
    """A spoken line; `confidence` 0..1 is the geometric mean probability of its tokens, `language` its own."""

    confidence: float = 0.0
    language: str | None = None
    words: list[Word] = Field(default_factory=list)


class TranscriptAttributes(BaseModel):
    """What is said. No speech is no segments and no language: nothing is invented."""

    language: str | None = None
    language_confidence: float | None = None
    segments: list[TranscriptSegment] = Field(default_factory=list)
    speech_seconds: float = 0.0
    seconds_decoded: float = 0.0
    degraded: bool = False


TextSource = Literal["title", "description", "tags", "caption", "transcript", "screen"]


class TextPiece(BaseModel):
    """One text token: where the words come from, and the words."""

    source: TextSource
    text: str


class TextAttributes(BaseModel):
    """The words of a video, one piece per token in the order of the embeddings, and the captions as they were read."""

    pieces: list[TextPiece] = Field(default_factory=list)
    captions: list[CaptionTrack] = Field(default_factory=list)
    keywords: list[str] = Field(default_factory=list)


class Topic(BaseModel):
    """A topic of the catalogue that a video is about: its number in its model, its naming words, its share 0..1."""

    model_config = ConfigDict(frozen=True)
    number: int
    name: str
    words: list[str]
    share: float


class TopicsAttributes(BaseModel):
    """The topics of a video, the largest share first. `model` is the version of the topic model, None while the
    catalogue has none."""

    model: str | None = None
    topics: list[Topic] = Field(default_factory=list)


class AttendedToken(BaseModel):
    """A token as fusion saw it; its weight is in the artifact's `weights` at the same place."""

    modality: Modality
    source: str
    start: float
    end: float


class FusedAttributes(BaseModel):
    """The attention that made the vector: a weight per modality (they sum to one) and the tokens it was paid to."""

    attention: dict[Modality, float]
    tokens: list[AttendedToken]


class Phrase(BaseModel):
    """Words by which a video can be found: said, written or seen, and when."""

    source: str
    text: str
    start: float
    end: float
    weight: float = 1.0


class PublishedAttributes(BaseModel):
    """All that the ranker knows of a video: no other room is asked while a feed is made."""

    title: str
    creator: str
    region: str
    language: str | None
    duration: float
    tags: dict[str, float]
    attention: dict[Modality, float]
    tokens: list[AttendedToken]
    phrases: list[Phrase]
    sound: str = ""


@dataclass(frozen=True, eq=False)
class Encoded:
    """What an encoder gives back: tokens for models, attributes for people."""

    tokens: Tokens
    attributes: BaseModel


@dataclass(frozen=True, eq=False)
class Artifact:
    """The one object that a stage writes: who made it, attributes (JSON) and named arrays.

    `stage`, `version`, `video_id` and `revision` are the parts of its key. `arrays` are float32,
    uint8 (pictures, signatures) or integers, and may be empty.
    """

    stage: str
    version: str
    video_id: str
    revision: str
    attributes: dict[str, Any]
    arrays: dict[str, npt.NDArray[Any]] = field(default_factory=dict)

    def tokens(self) -> Tokens:
        """The token arrays of a modality artifact."""
        return Tokens(
            self.arrays["embeddings"],
            self.arrays["start_seconds"],
            self.arrays["end_seconds"],
            self.arrays["salience"],
        )

    def __repr__(self) -> str:
        shapes = {name: array.shape for name, array in sorted(self.arrays.items())}
        return f"Artifact({self.stage}/{self.version}/{self.video_id}, {shapes})"
