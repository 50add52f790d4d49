"""What can be said of the music in a sound: pulse and tempo, key, how much music there is, and its mood.

Tempo and key are standard estimates. Music presence, energy, valence and mood are *heuristics* of this project: rules
over a few acoustic measures, with bounds read off a few dozen real clips, and no training. They hold for plain cases
(an orchestra, jazz, a song; a reader, a room, a bird). A long steady tone or a mains hum counts as music, a capella
singing may not, and of two moods that lie close the wrong one may win: every mood comes with its confidence.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from store.records import Music

Float64 = npt.NDArray[np.float64]

TEMPO_LOWEST, TEMPO_HIGHEST = 40.0, 240.0
# Among a beat and its multiples the prior decides. Librosa's 120 takes a click track of 180 for 90: the two weigh the
# same at their geometric mean, sqrt(180 * 90) = 127, and the centre must lie above it.
TEMPO_PRIOR, TEMPO_PRIOR_OCTAVES = 135.0, 0.7
# How much the correlation at two and at four beats says beside that at one: three eighths come back too, but not twice.
MULTIPLES = ((1, 1.0), (2, 0.5), (4, 0.5))
MULTIPLES_SECONDS = 3.2
PULSE_SECONDS, PULSE_HOP_SECONDS = 9.0, 1.0
PULSE_CLARITY_LEAST, PULSE_CLARITY_ALONE = 0.2, 0.5
ONSETS_LEAST = 6
ONSET_RISE_DB = 1.0

# Probe-tone ratings of Krumhansl and Kessler (1982, Psychological Review 89), from C.
MAJOR_PROFILE = (6.35, 2.23, 3.48, 2.33, 4.38, 4.09, 2.52, 5.19, 2.39, 3.66, 2.29, 2.88)
MINOR_PROFILE = (6.33, 2.68, 3.52, 5.38, 2.60, 3.53, 2.54, 4.75, 3.98, 2.69, 3.34, 3.17)
MAJOR_NAMES = ("C", "Db", "D", "Eb", "E", "F", "F#", "G", "Ab", "A", "Bb", "B")
MINOR_NAMES = ("C", "C#", "D", "Eb", "E", "F", "F#", "G", "G#", "A", "Bb", "B")
KEY_TONAL_SECONDS = 1.0
KEY_PITCH_CLASSES = 3
KEY_CORRELATION_LEAST = 0.5

MUSIC_SHARE_LEAST = 0.2
MUSIC_SECONDS_LEAST = 2.0
TYPE_CONFIDENCE_LEAST = 0.5


@dataclass(frozen=True)
class Pulse:
    """The beat of a sound: `tempo` in beats a minute (None without a clear one) and `clarity` 0..1."""

    tempo: float | None
    clarity: float


@dataclass(frozen=True)
class Key:
    """The key of a sound, such as "A minor" (None with too little tonal content).

    `confidence` 0..1; `majorness` is the best correlation with a major profile less the best with a minor one.
    """

    name: str | None
    confidence: float | None
    majorness: float

    @property
    def mode(self) -> Literal["major", "minor"] | None:
        """The second word of the name."""
        return None if self.name is None else "major" if self.name.endswith("major") else "minor"


@dataclass(frozen=True)
class TypeCues:
    """What the type of music is told by, over its music: `voice` 0..1 the mean probability of speech, `clarity` of the
    pulse, `onset_strength` in dB a frame, `sustained` 0..1 the share of held tones."""

    voice: float
    clarity: float
    onset_strength: float
    sustained: float


@dataclass(frozen=True)
class MusicCues:
    """What mood is made of, over the audible music: level in dBFS, onset strength in dB a frame, brightness in Hz."""

    share: float
    seconds: float
    level_db: float
    onset_strength: float
    brightness_hz: float
    tempo: float | None
    majorness: float


def ramp(value: npt.ArrayLike, low: float, high: float) -> Float64:
    """0 at `low` and below, 1 at `high` and above, a straight line between."""
    return np.asarray(np.clip((np.asarray(value, np.float64) - low) / (high - low), 0.0, 1.0))


# --- rhythm ----------------------------------------------------------------------------------------------------------


def onset_frames(onset: Float64) -> npt.NDArray[np.intp]:
    """Frames at which a sound starts: peaks of the onset envelope (dB a frame) at least 1 dB above their surroundings.

    Librosa's `onset_detect` scales the envelope by its own peak and so hears onsets in any steady noise; the bound here
    is in decibels.
    """
    import librosa

    if len(onset) < 3:
        return np.zeros(0, np.intp)
    found = librosa.util.peak_pick(onset, pre_max=2, post_max=3, pre_avg=5, post_avg=6, delta=ONSET_RISE_DB, wait=2)
    return np.asarray(found, np.intp)


def pulse_correlation(onset: Float64, rate_hz: float, lag_seconds: float | None = None) -> Float64:
    """Autocorrelation of an onset envelope by lag in frames, 1 at lag 0: a mean over pieces of 9 s, one each second.

    Each lag is divided by the frames that overlap at it, so that slow beats are not at a disadvantage. Lags go up to
    the slowest tempo and half a piece, or to `lag_seconds` and three quarters of a piece.
    """
    import librosa

    length = min(len(onset), round(PULSE_SECONDS * rate_hz))
    if length < 2:
        return np.ones(1)
    pieces = librosa.util.frame(
        onset, frame_length=length, hop_length=max(round(PULSE_HOP_SECONDS * rate_hz), 1), axis=0
    )
    pieces = pieces - pieces.mean(axis=1, keepdims=True)
    if lag_seconds is None:
        lags = min(length // 2 + 1, int(np.ceil(rate_hz * 60.0 / TEMPO_LOWEST)) + 2)
    else:
        lags = max(min(length * 3 // 4, int(lag_seconds * rate_hz)), 1)
    correlation = librosa.autocorrelate(pieces, max_size=lags, axis=1).mean(axis=0)
    if correlation[0] <= 1e-9 * np.square(onset).mean() * length + 1e-30:
        return np.concatenate([np.ones(1), np.zeros(lags - 1)])
    overlapping = (length - np.arange(lags)) / length
    return np.asarray(correlation / correlation[0] / overlapping, np.float64)


def pulse_of(onset: Float64, accent: Float64, rate_hz: float) -> Pulse:
    """The tempo, in two steps: which pulse there is, by the onset envelope, and which of its octaves is the beat, by
    the accents.

    The pulse is the peak of the onset envelope's autocorrelation under a log-normal prior, as in Ellis (2007), "Beat
    tracking by dynamic programming", section 3.2, with the correlation at two and four beats beside it (a comb as in
    Scheirer, 1998), since three eighths of a syncopated bar come back too, but not as regularly; its lag is refined by
    a parabola through three points. `onset` counts decibels, so a hat weighs as much as a drum, and all that can be
    said is that something comes back at this lag. `accent` counts power: among half, the same and twice the tempo, the
    one at which loud strokes fall on loud strokes is the beat.

    `clarity` is how much comes back after one, two or four beats, whichever is most (pulse clarity, Lartillot et al.,
    2008): a bar comes back more exactly than the beats in it. There is no pulse with fewer than six onsets, and no
    tempo where under 0.2 come back after one beat. Over about 190 the prior names half the tempo.
    """
    correlation = pulse_correlation(onset, rate_hz, MULTIPLES_SECONDS)
    lags = np.arange(1, min(len(correlation) - 1, int(np.ceil(rate_hz * 60.0 / TEMPO_LOWEST)) + 1))
    tempi = 60.0 * rate_hz / np.maximum(lags, 1)
    middle = correlation[lags]
    peak = (
        (middle >= correlation[lags - 1])
        & (middle > correlation[lags + 1])
        & (tempi >= TEMPO_LOWEST)
        & (tempi <= TEMPO_HIGHEST)
    )
    if not peak.any() or len(onset_frames(onset)) < ONSETS_LEAST:
        return Pulse(None, 0.0)
    regular = sum(weight * _highest_near(correlation, lags * times) for times, weight in MULTIPLES)
    best = int(np.argmax(np.where(peak, np.maximum(regular, 0.0) * _tempo_prior(tempi), -np.inf)))
    multiples = [_highest_near(correlation, lags[best : best + 1] * times)[0] for times, _ in MULTIPLES]
    clarity = float(np.clip(max(multiples), 0.0, 1.0))
    if middle[best] < PULSE_CLARITY_LEAST:
        return Pulse(None, clarity)
    before, here, after = correlation[lags[best] - 1 : lags[best] + 2]
    bend = before - 2.0 * here + after
    lag = lags[best] + (0.5 * (before - after) / bend if bend < 0 else 0.0)
    return Pulse(_octave_of(60.0 * rate_hz / lag, accent, rate_hz), clarity)


def _octave_of(tempo: float, accent: Float64, rate_hz: float) -> float:
    """Half, the same or twice `tempo`: where accents fall on accents, under the same prior."""
    octaves = np.array([tempo, tempo / 2.0, tempo * 2.0])
    octaves = octaves[(octaves >= TEMPO_LOWEST) & (octaves <= TEMPO_HIGHEST)]
    accents = pulse_correlation(accent, rate_hz, MULTIPLES_SECONDS)
    found = _highest_near(accents, np.round(60.0 * rate_hz / octaves).astype(int))
    return float(octaves[np.argmax(np.maximum(found, 0.0) * _tempo_prior(octaves))])  # the same where none is higher


def _tempo_prior(tempi: Float64) -> Float64:
    return np.asarray(np.exp(-0.5 * (np.log2(tempi / TEMPO_PRIOR) / TEMPO_PRIOR_OCTAVES) ** 2))


def _highest_near(correlation: Float64, lags: npt.NDArray[np.intp]) -> Float64:
    """The correlation at each lag or at the frame beside it, whichever is highest; 0 beyond the last lag."""
    padded = np.concatenate([correlation[:1], correlation, np.zeros(2)])
    inside = np.minimum(lags, len(correlation)) + 1
    return np.where(
        lags < len(correlation),
        np.max([padded[inside - 1], padded[inside], padded[inside + 1]], axis=0),
        0.0,
    )


def tempo_of(pulse: Pulse, music_share: float) -> float | None:
    """The tempo in beats a minute where it can be believed: in music, or with a pulse too clear to be chance.

    A few seconds of speech or of a machine often have a pulse of clarity 0.2 to 0.4; nobody would call that a beat.
    """
    return pulse.tempo if beat_believed(pulse, music_share) else None


def beat_believed(pulse: Pulse, music_share: float) -> bool:
    """Whether the pulse is a beat: in music, or too clear to be chance."""
    return music_share >= MUSIC_SHARE_LEAST or pulse.clarity >= PULSE_CLARITY_ALONE


# --- key -------------------------------------------------------------------------------------------------------------


def key_of(chroma: Float64, tonal: Float64, rate_hz: float) -> Key:
    """The key whose Krumhansl-Kessler profile correlates best with the mean chroma (Krumhansl, 1990, chapter 4).

    `chroma` [n_frames, 12] power by pitch class from C; `tonal` [n_frames] 0..1 says how much of a frame is sustained
    tones, and each frame counts by it, at unit length, so that a loud chord is not the whole piece. Confidence is the
    best correlation, lessened where the second best is near. None with under a second of sustained tones, or with only
    one or two pitch classes in them. Chords in the
    octave below C3 (130 Hz) blur: bins are 10.8 Hz apart, and semitones there less than 8.
    """
    lengths = np.linalg.norm(chroma, axis=1)
    weights = np.where(lengths > 0, tonal, 0.0)
    mean = (chroma / np.maximum(lengths, 1e-30)[:, None] * weights[:, None]).sum(axis=0)
    if weights.sum() / rate_hz < KEY_TONAL_SECONDS or _pitch_classes(mean) < KEY_PITCH_CLASSES:
        return Key(None, None, 0.0)
    profiles = [np.roll(profile, tonic) for profile in (MAJOR_PROFILE, MINOR_PROFILE) for tonic in range(12)]
    correlations = np.array([np.corrcoef(mean, profile)[0, 1] for profile in profiles])
    order = np.argsort(-correlations, kind="stable")
    best, second = correlations[order[0]], correlations[order[1]]
    majorness = float(correlations[:12].max() - correlations[12:].max())
    if best < KEY_CORRELATION_LEAST:
        return Key(None, None, majorness)
    index = int(order[0])
    name = f"{MAJOR_NAMES[index]} major" if index < 12 else f"{MINOR_NAMES[index - 12]} minor"
    confidence = float(best * (0.5 + 0.5 * ramp(best - second, 0.0, 0.2)))
    return Key(name, confidence, majorness)


def key_in_music(key: Key, music_share: float) -> Key:
    """`key` where it can be believed: in music. A voice in a hall has a best key too, and it means nothing."""
    return key if music_share >= MUSIC_SHARE_LEAST else Key(None, None, key.majorness)


def _pitch_classes(chroma: Float64) -> float:
    """How many pitch classes share the power, 1..12: the inverse of the sum of squared shares."""
    return float(chroma.sum() ** 2 / np.square(chroma).sum())


# --- presence and mood -----------------------------------------------------------------------------------------------


def music_presence(sustained: Float64, clarity: Float64, speech: Float64, audible: Float64) -> Float64:
    """How much music there is in each window, 0..1 [n_windows]; a heuristic, see the module.

    `sustained`: share of the power of spectral peaks that has stayed on its frequency for 0.2 s; in our clips 0.1 to
    0.5 in music and under 0.05 in speech, whose pitch glides (0.15 in a reverberant hall). `clarity` of the pulse
    speaks for music without tones (drums). `speech` is the mean probability of speech: where it is high, more sustained
    tones are asked for and the result is lessened; it fires on singing, so it does not veto. `audible` is the share of
    the window above silence.
    """
    tones = ramp(sustained - 0.1 * speech, 0.04, 0.14)
    heard = 1.0 - (1.0 - tones) * (1.0 - beat_presence(clarity))
    return np.asarray(heard * (1.0 - 0.5 * speech) * audible)


def beat_presence(clarity: Float64) -> Float64:
    """How much a pulse of this clarity says that there is music, 0..1."""
    return ramp(clarity, 0.5, 0.8)


def type_of(cues: TypeCues) -> tuple[str | None, float | None]:
    """A plain word for the music and how sure it is, 0..1; None where two words are as near.

    Song: a voice sings. Rhythmic: the beat carries it. Ambient: held tones and hardly a beginning. Orchestral: tones
    that swell and are not struck, without a beat. Instrumental: struck or plucked, and nobody sings. These are rules
    over four measures, not a trained genre: they tell what plays, not what a shop would file it under.
    """
    sung = float(ramp(cues.voice, 0.08, 0.2))
    driven = float(ramp(cues.clarity, 0.5, 0.8))
    struck = float(ramp(cues.onset_strength, 0.8, 1.4))
    held = float(ramp(cues.sustained, 0.4, 0.8))
    loose = (1.0 - sung) * (1.0 - driven)
    scores = {
        "song": sung,
        "rhythmic": (1.0 - sung) * driven,
        "ambient": loose * (1.0 - struck) * held,
        "orchestral": loose * (1.0 - struck) * (1.0 - held),
        "instrumental": loose * struck,
    }
    word = max(scores, key=scores.__getitem__)  # they sum to one
    return (word, scores[word]) if scores[word] >= TYPE_CONFIDENCE_LEAST else (None, None)


def mood_of(energy: float, valence: float) -> tuple[str, float]:
    """The quadrant of Russell's circumplex (1980, "A circumplex model of affect") and how far from its centre, 0..1.

    Energy stands for arousal: happy (high, positive), tense (high, negative), calm (low, positive), sad (low, both).
    """
    high, positive = energy >= 0.5, valence >= 0.5
    word = ("happy" if positive else "tense") if high else ("calm" if positive else "sad")
    return word, float(min(np.hypot(energy - 0.5, valence - 0.5) / 0.5, 1.0))


def music_of(cues: MusicCues) -> Music:
    """Energy, valence and mood where there is enough music (a fifth of the sound and two seconds), else only its share.

    Energy is the mean of level, onset strength, tempo and brightness, each scaled to 0..1; valence leans on the mode
    (major or minor) and on tempo and brightness. These are the cues on which listeners agree most (Juslin and Laukka,
    2004, "Expression, perception, and induction of musical emotions", table 2; Eerola, Friberg and Bresin, 2013).
    """
    if not enough_music(cues.share, cues.seconds):
        return Music(share=cues.share)
    fast = [float(ramp(cues.tempo, 60.0, 160.0))] if cues.tempo is not None else []
    bright = float(ramp(np.log2(max(cues.brightness_hz, 1.0)), np.log2(500.0), np.log2(4000.0)))
    loud = float(ramp(cues.level_db, -40.0, -10.0))
    dense = float(ramp(cues.onset_strength, 0.4, 1.6))
    energy = float(np.mean([loud, dense, bright, *fast]))
    mode = float(ramp(cues.majorness, -0.2, 0.2))
    valence = float(np.average([mode, bright, *fast], weights=[3.0, 1.0, *([2.0] * len(fast))]))
    return with_mood(cues.share, energy, valence, "librosa")


def with_mood(share: float, energy: float, valence: float, source: str) -> Music:
    """The record of music with this energy and valence, its mood named; less sure where under half of it is music."""
    mood, confidence = mood_of(energy, valence)
    sure = confidence * min(2.0 * share, 1.0)
    return Music(
        share=share,
        energy=round(energy, 4),
        valence=round(valence, 4),
        mood=mood,
        mood_confidence=round(sure, 4),
        source=source,
    )


def enough_music(share: float, seconds: float) -> bool:
    """Whether a sound of `seconds`, `share` of it music, has enough of it to speak of a mood."""
    return share >= MUSIC_SHARE_LEAST and share * seconds >= MUSIC_SECONDS_LEAST
