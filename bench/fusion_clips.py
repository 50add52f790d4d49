"""Tokens of real clips for `bench.fusion`: each clip in two halves, and the same again as other recordings of it.

A clip is decoded and encoded once, by the encoders of the model set; tokens are kept under the cache directory, named
by what made them, so a second run reads them back in a second. Per clip:

- *pictures*: a token each half second, and again mirrored left to right and darkened;
- *sound* of either half: as it is, slower and lower (6 %), faster and higher (6 %), at a quarter of its amplitude, and
  with a room's tone mixed in at -12 dB of the clip's own level;
- *words*: what Whisper hears in the half, and every second clause of the clip's description, as an uploader would have
  written it (so the two halves never share a sentence). Clauses on codecs and missing sound are left out.

Time crops and other frame rates are subsets of these tokens: pictures are encoded one by one.
"""

from __future__ import annotations

import csv
import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file, save_file

from app.clips import fetch
from encoders.catalogue import chosen, config_of, load
from encoders.identity import code_digest, identity
from encoders.specs import Place
from store.artifacts import digest
from store.records import Float32, Frames, Modality, Sound, TextPiece, Tokens
from store.settings import Limits, Settings
from workers.frame_decoding import read_frames
from workers.frame_sampling import FrameSampling
from workers.sound_decoding import read_sound

MOST_SECONDS = 60.0
LEAST_SECONDS = 2.0
SOUNDS = ("plain", "slow", "fast", "quiet", "mixed")
PICTURES = ("plain", "mirrored")
ROOM = "audio/room_tone_no_speech.wav"
PLACES: tuple[Place, ...] = ("vision", "audio", "speech", "text")

# Damaged files whose pictures decode, and the demo's clips: what they show, which index.csv does not say as a subject.
MORE: Mapping[str, tuple[str, str]] = {
    "bad/cockatoo_444_seek_green.mp4": ("animals", "A white cockatoo turns to the camera, close-up of beak and eye"),
    "bad/mouse_seek_green.mp4": ("animals", "A dark mouse seen from above, running in a bright empty arena"),
    "bad/made_bitflips.mp4": ("people", "A young man in a blue shirt juggles a football, park with trees behind him"),
    "bad/made_rot90.mp4": ("toys", "Hand-held push-in on a small pink toy pig, brown wooden table"),
    "bad/made_av_offset_1500ms.mp4": ("film", "Black and white film, a man in a hat talks to two women in an office"),
    "bad/mediabunny_missing_keyflags.ts": ("cartoon", "Big Buck Bunny title, pink clouds over a hill"),
    "bad/moviepy_failing_audio.mp4": ("vehicles", "A propeller aeroplane in a grey sky, spectators on a green field"),
    "bad/mediabunny_cursed_vfr.mp4": ("screen", "Screen recording of a video editor, time line with clips"),
    "demo/bigbuckbunny.mp4": ("cartoon", "A fat grey rabbit comes out of his burrow, green meadow"),
    "demo/bikes.mp4": ("vehicles", "Street with cyclists and cars, houses of a city"),
    "demo/carphone_pristine.mp4": ("people", "A man in a suit talks in a moving car, trees pass the window"),
    "demo/obama_speech.mp4": ("talk", "The president at a lectern, statement on a deal with Iran"),
}
# Clips that show the same: on one side of every split, and never counted as a wrong answer for each other.
SAME: Mapping[str, str] = {
    "good/flower_timelapse.mp4": "flower",
    "good/flower_timelapse.webm": "flower",
    "good/cartoon_bunny_20s.mp4": "bunny",
    "good/cartoon_bunny_30s.webm": "bunny",
    "bad/mediabunny_missing_keyflags.ts": "bunny",
    "demo/bigbuckbunny.mp4": "bunny",
}
# Recordings by one voice from one book: different clips, but on one side of every split.
SERIES = ("audio/austen", "audio/ljspeech")
# Subjects of index.csv, gathered so that each has several clips.
SUBJECTS: Mapping[str, str] = {
    "cartoon": "cartoon",
    "cartoon/advert": "cartoon",
    "animals": "nature",
    "nature": "nature",
    "travel/sports": "nature",
    "space": "space",
    "objects": "toys",
    "objects/games": "toys",
    "toys": "toys",
    "text/toys": "toys",
    "people": "people",
    "people/children": "people",
    "people/city": "people",
    "people/sign language": "people",
    "people talking": "people",
    "education/talk": "screen",
    "education/text": "screen",
    "text/mixed": "screen",
    "screen recording": "screen",
    "screen": "screen",
    "talk": "people",
    "corporate/talk": "people",
    "film/action": "film",
    "film": "film",
    "vehicles": "vehicles",
    "speech": "speech",
    "music": "music",
    "music with vocals": "music",
}
_TECHNICAL = re.compile(
    r"\b(audio|aac|silent|sound|duplicate|dedupe|encoded|codec|track|footage|one shot|vp8|shots?|cuts|wobble|clip|"
    r"screen text|only|db|mp4|mov|aspect|length|photoprism.*|\d+ s)\b",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Source:
    """A clip before it is read: its name, its file, what it shows, and its description."""

    name: str
    path: Path
    subject: str
    description: str

    @property
    def group(self) -> str:
        """What stays on one side of a split."""
        series = next((prefix for prefix in SERIES if self.name.startswith(prefix)), None)
        return SAME.get(self.name) or series or self.name


@dataclass(frozen=True, eq=False)
class Clip:
    """One clip's tokens. `pictures` by variant over the whole clip; `sounds` by variant for each half; `words` for each
    half. `middle` is where the halves meet, in seconds."""

    source: Source
    middle: float
    pictures: Mapping[str, Tokens]
    sounds: Mapping[str, tuple[Tokens, Tokens]]
    words: tuple[Tokens, Tokens]

    def half(self, number: int, picture: str = "plain", sound: str = "plain") -> dict[Modality, Tokens]:
        """The tokens of half 0 or 1, in one recording of it; modalities without tokens are left out."""
        seen = self.pictures[picture]
        middles = (seen.start_seconds + seen.end_seconds) / 2
        inside = middles < self.middle if number == 0 else middles >= self.middle
        found: dict[Modality, Tokens] = {
            "vision": taken(seen, np.flatnonzero(inside)),
            "audio": self.sounds[sound][number],
            "text": self.words[number],
        }
        return {modality: tokens for modality, tokens in found.items() if len(tokens)}

    def whole(self, picture: str = "plain", sound: str = "plain") -> dict[Modality, Tokens]:
        """Both halves as one video."""
        halves = self.half(0, picture, sound), self.half(1, picture, sound)
        return {
            modality: joined([half[modality] for half in halves if modality in half])
            for modality in ("vision", "audio", "text")
            if any(modality in half for half in halves)
        }


def taken(tokens: Tokens, places: np.ndarray[Any, Any]) -> Tokens:
    """The tokens at these places."""
    return Tokens(
        tokens.embeddings[places], tokens.start_seconds[places], tokens.end_seconds[places], tokens.salience[places]
    )


def joined(parts: list[Tokens]) -> Tokens:
    """Tokens one after the other."""
    return Tokens(*(np.concatenate([getattr(part, name) for part in parts]) for name in _ARRAYS))


_ARRAYS = ("embeddings", "start_seconds", "end_seconds", "salience")


def sources(media: Path, cache: Path) -> list[Source]:
    """Every clip of the bench, by name. The demo's clips come along where they can be fetched."""
    found = []
    with (media / "index.csv").open(newline="") as stream:
        for row in csv.DictReader(stream):
            if row["file"] in MORE:
                subject, description = MORE[row["file"]]
                found.append(Source(row["file"], media / row["file"], SUBJECTS[subject], description))
            elif row["file"].startswith("good/"):
                found.append(
                    Source(row["file"], media / row["file"], SUBJECTS.get(row["topic"], ""), row["description"])
                )
            elif row["file"].startswith("audio/"):
                found.append(Source(row["file"], media / row["file"], SUBJECTS.get(row["topic"], ""), ""))
    for path in fetch(cache):
        name = f"demo/{path.name}"
        if name in MORE:
            found.append(Source(name, path, SUBJECTS[MORE[name][0]], MORE[name][1]))
    return sorted(found, key=lambda source: source.name)


def clips(media: Path, settings: Settings) -> list[Clip]:
    """All clips that last at least two seconds, from the cache or read now (minutes of CPU, once)."""
    specs = chosen(settings)
    made_by = digest(
        {place: identity(specs[place], config_of(specs[place], settings), settings.cache) for place in PLACES}
        | {
            "code": code_digest(
                "bench.fusion_clips:_Reader", "bench.fusion_clips:clauses", "workers.decoding", "workers.frame_decoding"
            )
        }
    )
    folder = settings.cache / "bench" / f"fusion-{made_by}"
    folder.mkdir(parents=True, exist_ok=True)
    reader = _Reader(settings, media)
    found = []
    for source in sources(media, settings.cache):
        file = folder / (hashlib.sha256(source.name.encode()).hexdigest()[:24] + ".safetensors")
        if not file.is_file():
            print(f"reading {source.name}", flush=True)
            arrays, middle = reader.read(source)
            aside = file.with_suffix(".part")
            save_file(arrays, str(aside), metadata={"clip": json.dumps({"middle": middle})})
            aside.replace(file)
        clip = _loaded(source, file)
        if clip is not None:
            found.append(clip)
    return found


def _loaded(source: Source, file: Path) -> Clip | None:
    from safetensors import safe_open

    arrays: dict[str, Float32] = load_file(str(file))
    with safe_open(str(file), framework="numpy") as stream:
        middle = float(json.loads(stream.metadata()["clip"])["middle"])
    if middle * 2 < LEAST_SECONDS:
        return None

    def tokens(name: str) -> Tokens:
        return Tokens(*(arrays[f"{name}.{part}"] for part in _ARRAYS))

    return Clip(
        source=source,
        middle=middle,
        pictures={name: tokens(f"vision.{name}") for name in PICTURES},
        sounds={name: (tokens(f"audio.{name}.0"), tokens(f"audio.{name}.1")) for name in SOUNDS},
        words=(tokens("text.0"), tokens("text.1")),
    )


class _Reader:
    """Decodes and encodes; encoders are loaded at their first use."""

    def __init__(self, settings: Settings, media: Path) -> None:
        self._settings = settings
        self._media = media
        self._specs = chosen(settings)
        self._encoders: dict[Place, Any] = {}
        self._room: Float32 | None = None

    def _encoder(self, place: Place) -> Any:
        if place not in self._encoders:
            spec = self._specs[place]
            self._encoders[place] = load(spec, config_of(spec, self._settings), self._settings.cache, 1)
        return self._encoders[place]

    def _sound(self, path: Path, place: Place) -> Sound:
        rate_hz = self._specs[place].rate_hz
        assert rate_hz is not None
        read = sound_alone if path.parent.name == "audio" else read_sound
        sound = read(path, rate_hz, self._settings.limits)
        return Sound(sound.samples[:, : int(MOST_SECONDS * rate_hz)], rate_hz, sound.present, sound.start_seconds)

    def read(self, source: Source) -> tuple[dict[str, Float32], float]:
        """All arrays of a clip's tokens, and where its halves meet."""
        frames = None
        if not source.name.startswith("audio/"):
            frames = read_frames(source.path, FrameSampling(interval_seconds=0.5, max_frames=48), self._settings.limits)
        sound = self._sound(source.path, "audio")
        seconds = min(frames.duration_seconds if frames else sound.seconds, MOST_SECONDS)
        arrays: dict[str, Float32] = {}
        for name, tokens in self._tokens(source, frames, sound, seconds / 2):
            arrays |= {f"{name}.{part}": np.ascontiguousarray(getattr(tokens, part)) for part in _ARRAYS}
        return arrays, seconds / 2

    def _tokens(
        self, source: Source, frames: Frames | None, sound: Sound, middle: float
    ) -> Iterator[tuple[str, Tokens]]:
        for name in PICTURES:
            yield f"vision.{name}", self._seen(frames, name)
        for name in SOUNDS:
            for number in (0, 1):
                yield f"audio.{name}.{number}", self._heard(sound, name, middle, number)
        for number in (0, 1):
            yield f"text.{number}", self._said(source, middle, number)

    def _seen(self, frames: Frames | None, name: str) -> Tokens:
        if frames is None:
            return Tokens.none(self._specs["vision"].dim or 1)
        pixels = frames.pixels
        if name == "mirrored":
            pixels = np.ascontiguousarray(pixels[:, :, ::-1] * np.float32(0.7)).astype(np.uint8)
        inside = frames.seconds < MOST_SECONDS
        shown = Frames(
            pixels[inside], frames.seconds[inside], min(frames.duration_seconds, MOST_SECONDS), 1, None, False
        )
        tokens: Tokens = self._encoder("vision")(shown).tokens
        return tokens

    def _heard(self, sound: Sound, name: str, middle: float, number: int) -> Tokens:
        cut = max(0, int((middle - sound.start_seconds) * sound.rate_hz))
        samples = sound.samples[:, :cut] if number == 0 else sound.samples[:, cut:]
        start = sound.start_seconds if number == 0 else max(middle, sound.start_seconds)
        if samples.shape[1] < sound.rate_hz // 2:
            return Tokens.none(self._specs["audio"].dim or 1)
        changed = self._changed(samples, name)
        tokens: Tokens = self._encoder("audio")(Sound(changed, sound.rate_hz, sound.present, start)).tokens
        return tokens

    def _changed(self, samples: Float32, name: str) -> Float32:
        if name in ("slow", "fast"):
            speed = 0.94 if name == "slow" else 1.06
            places = np.arange(0, samples.shape[1] - 1, speed)
            known = np.arange(samples.shape[1])
            return np.stack([np.interp(places, known, channel) for channel in samples]).astype(np.float32)
        if name == "quiet":
            return (samples * np.float32(0.25)).astype(np.float32)
        if name == "mixed":
            if self._room is None:
                self._room = self._sound(self._media / ROOM, "audio").mono()
            level = float(np.sqrt(np.mean(np.square(samples))))
            room = np.resize(self._room, samples.shape[1])
            gain = level * 10 ** (-12 / 20) / max(float(np.sqrt(np.mean(np.square(room)))), 1e-9)
            return (samples + gain * room).astype(np.float32)
        return samples

    def _said(self, source: Source, middle: float, number: int) -> Tokens:
        pieces: list[TextPiece] = []
        spans: list[tuple[float, float]] = []
        for clause in clauses(source.description)[number::2]:
            pieces.append(TextPiece(source="description", text=clause))
            spans.append((0.0, middle) if number == 0 else (middle, 2 * middle))
        for segment in self._transcript(source):
            if (
                (segment.start + segment.end) / 2 < middle
                if number == 0
                else (segment.start + segment.end) / 2 >= middle
            ):
                pieces.append(TextPiece(source="transcript", text=segment.text.strip()))
                spans.append((segment.start, segment.end))
        if not pieces:
            return Tokens.none(self._specs["text"].dim or 1)
        tokens: Tokens = self._encoder("text")(pieces, [start for start, _ in spans], [end for _, end in spans])
        return tokens

    def _transcript(self, source: Source) -> list[Any]:
        if self._heard_last[0] != source.name:
            sound = self._sound(source.path, "speech")
            self._heard_last = (source.name, list(self._encoder("speech")(sound).segments))
        return self._heard_last[1]

    _heard_last: tuple[str, list[Any]] = ("", [])


def sound_alone(path: Path, rate_hz: int, limits: Limits) -> Sound:
    """The sound of a file without pictures, which no upload may be: `workers.decoding.read_sound` refuses it."""
    import av

    resampler = av.AudioResampler(format="fltp", layout="stereo", rate=rate_hz)
    with av.open(str(path)) as container:
        decoded = container.decode(container.streams.audio[0])
        chunks = [part.to_ndarray() for frame in decoded for part in resampler.resample(frame)]
        chunks += [part.to_ndarray() for part in resampler.resample(None)]
    samples = np.concatenate(chunks, axis=1)[:, : int(limits.seconds * rate_hz)].astype(np.float32)
    return Sound(np.ascontiguousarray(samples), rate_hz, present=True)


def clauses(description: str) -> list[str]:
    """The clauses of a description, without those on codecs and on what is not there."""
    parts = [part.strip(" .\"'()") for part in re.split(r"[,;:.()]| and | then ", description)]
    return [part for part in parts if len(part) > 2 and not _TECHNICAL.search(part)]
