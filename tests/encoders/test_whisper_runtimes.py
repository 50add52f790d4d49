"""Whisper's weights are converted bit for bit, damage is told by its code, and both runtimes write the same tokens."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bench.speech_quality import greedy_tokens, read_clip, sound_files
from encoders.weights import WEIGHTS, locate
from encoders.whisper_runtimes import RATE_HZ, CTranslate2Whisper, OpenaiWhisper, WhisperRuntime, log_mel
from encoders.whisper_weights import WhisperWeights, convert, read_variables
from store.errors import ModelError

Array = npt.NDArray[Any]
TYPES = [np.float32, np.int8, np.int16, np.int32, np.float16]


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return locate(WEIGHTS["whisper-base"], tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="module")
def variables(directory: Path) -> dict[str, Array]:
    return read_variables(directory / "model.bin")


@pytest.fixture(scope="module")
def weights(variables: dict[str, Array]) -> WhisperWeights:
    return convert(variables)


@pytest.fixture(scope="module")
def runtimes(directory: Path) -> tuple[WhisperRuntime, WhisperRuntime]:
    return CTranslate2Whisper(directory, "float32", 1), OpenaiWhisper(directory, 1)


def packed(variables: dict[str, Array], aliases: dict[str, str] | None = None, version: int = 6) -> bytes:
    """The bytes of a CTranslate2 model that holds `variables`."""

    def text(value: str) -> bytes:
        return struct.pack("<H", len(value) + 1) + value.encode() + b"\0"

    parts = [struct.pack("<I", version), text("WhisperSpec"), struct.pack("<II", 3, len(variables))]
    for name, array in variables.items():
        head = struct.pack("<B", array.ndim) + struct.pack(f"<{array.ndim}I", *array.shape)
        parts += [text(name), head, struct.pack("<BI", TYPES.index(array.dtype.type), array.nbytes), array.tobytes()]
    parts.append(struct.pack("<I", len(aliases or {})))
    parts += [text(alias) + text(name) for alias, name in (aliases or {}).items()]
    return b"".join(parts)


SMALL: dict[str, Array] = {
    "encoder/num_heads": np.array(8, np.int16),
    "encoder/conv1/weight": np.arange(24, dtype=np.float16).reshape(2, 4, 3),
    "decoder/alignment_heads": np.array([[1, 2]], np.int32),
}


# --- weights ---------------------------------------------------------------------------------------------------------


@pytest.mark.models
def test_conversion_fills_the_whole_state_dict(weights: WhisperWeights) -> None:
    from whisper.model import ModelDimensions, Whisper

    expected = Whisper(ModelDimensions(**weights.dims)).state_dict()
    assert {name: array.shape for name, array in weights.parameters.items()} == {
        name: tuple(tensor.shape) for name, tensor in expected.items()
    }
    # As openai-whisper publishes `base`.
    assert weights.dims == {
        "n_mels": 80,
        "n_audio_ctx": 1500,
        "n_audio_state": 512,
        "n_audio_head": 8,
        "n_audio_layer": 6,
        "n_vocab": 51865,
        "n_text_ctx": 448,
        "n_text_state": 512,
        "n_text_head": 8,
        "n_text_layer": 6,
    }


@pytest.mark.models
def test_values_are_the_halves_of_the_file_bit_for_bit(directory: Path, weights: WhisperWeights) -> None:
    content = (directory / "model.bin").read_bytes()

    def stored(name: str) -> Array:
        """The values behind a name, found in the bytes without the reader."""
        key = struct.pack("<H", len(name) + 1) + name.encode() + b"\0"
        place = content.index(key) + len(key)  # the list of aliases, which names it again, is at the end
        rank = content[place]
        shape = struct.unpack_from(f"<{rank}I", content, place + 1)
        kind, size = struct.unpack_from("<BI", content, place + 1 + 4 * rank)
        assert kind == 4  # float16
        return np.frombuffer(content, np.uint16, size // 2, place + 6 + 4 * rank).reshape(shape)

    def bits(name: str) -> Array:
        array = weights.parameters[name]
        assert array.dtype == np.float16
        return array.view(np.uint16)

    for theirs, ours in {
        "decoder/embeddings/weight": "decoder.token_embedding.weight",
        "encoder/conv2/bias": "encoder.conv2.bias",
        "encoder/position_encodings/encodings": "encoder.positional_embedding",
        "encoder/layer_norm/gamma": "encoder.ln_post.weight",
        "decoder/layer_5/ffn/linear_1/weight": "decoder.blocks.5.mlp.2.weight",
        "decoder/layer_0/attention/linear_0/bias": "decoder.blocks.0.cross_attn.query.bias",
    }.items():
        np.testing.assert_array_equal(bits(ours), stored(theirs))
    for side, layer in (("encoder", 0), ("encoder", 5), ("decoder", 3)):
        parts = [bits(f"{side}.blocks.{layer}.attn.{part}.weight") for part in ("query", "key", "value")]
        np.testing.assert_array_equal(
            np.concatenate(parts), stored(f"{side}/layer_{layer}/self_attention/linear_0/weight")
        )
    keys = [bits(f"decoder.blocks.2.cross_attn.{part}.weight") for part in ("key", "value")]
    np.testing.assert_array_equal(np.concatenate(keys), stored("decoder/layer_2/attention/linear_1/weight"))


def test_a_small_file_is_read_back(tmp_path: Path) -> None:
    (tmp_path / "model.bin").write_bytes(packed(SMALL, {"decoder/projection": "encoder/num_heads"}))
    found = read_variables(tmp_path / "model.bin")
    assert list(found) == list(SMALL)
    for name, array in SMALL.items():
        assert found[name].dtype == array.dtype
        np.testing.assert_array_equal(found[name], array)


@given(length=st.integers(0, len(packed(SMALL)) - 1))
@settings(
    deadline=None, derandomize=True, max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_a_file_cut_anywhere_is_damaged(tmp_path: Path, length: int) -> None:
    path = tmp_path / "model.bin"
    path.write_bytes(packed(SMALL)[:length])
    with pytest.raises(ModelError) as caught:
        read_variables(path)
    assert caught.value.code == "model.damaged"


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "cannot|can be read"),
        (packed(SMALL, version=5), "format version 5"),
        (packed(SMALL) + b"\0\0", "2 bytes are left over"),
        (packed(SMALL, {"a": "nowhere"}), "nowhere"),
        (b"\x7fELF" + bytes(400), "format version"),
    ],
    ids=["empty", "version", "tail", "alias", "another format"],
)
def test_damage_is_told(tmp_path: Path, content: bytes, says: str) -> None:
    path = tmp_path / "model.bin"
    path.write_bytes(content)
    with pytest.raises(ModelError, match=says) as caught:
        read_variables(path)
    assert caught.value.code == "model.damaged"


@pytest.mark.models
def test_the_real_file_cut_in_half_is_damaged(directory: Path, tmp_path: Path) -> None:
    path = tmp_path / "model.bin"
    content = (directory / "model.bin").read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(ModelError) as caught:
        read_variables(path)
    assert caught.value.code == "model.damaged"


@pytest.mark.models
@pytest.mark.parametrize(
    ("name", "change", "says"),
    [
        ("decoder/layer_norm/extra", np.zeros(3, np.float16), "decoder/layer_norm/extra"),
        ("encoder/layer_0/self_attention/linear_0/bias", np.ones(1536, np.float16), "key bias"),
        ("encoder/layer_0/self_attention/linear_0/bias", np.zeros(1535, np.float16), "linear_0/bias"),
        ("encoder/layer_0/self_attention/linear_0/bias", np.array(0, np.float16), "linear_0/bias"),
        ("encoder/position_encodings/encodings", np.zeros(1500, np.float16), "shape"),
        ("encoder/position_encodings/encodings", None, "encoder.positional_embedding"),
        ("decoder/num_heads", None, "decoder/num_heads"),
    ],
    ids=["unknown", "key bias", "not in three", "scalar", "rank", "missing weight", "missing switch"],
)
def test_weights_that_are_not_whispers_are_damaged(
    variables: dict[str, Array], name: str, change: Array | None, says: str
) -> None:
    changed = {key: array for key, array in variables.items() if key != name}
    if change is not None:
        changed[name] = change
    with pytest.raises(ModelError, match=says) as caught:
        convert(changed)
    assert caught.value.code == "model.damaged"


# --- spectrogram -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seconds", [0.5, 11.0, 30.0])
def test_log_mel_is_whispers_own(seconds: float) -> None:
    from whisper.audio import log_mel_spectrogram, pad_or_trim

    samples = np.random.default_rng(7).normal(0, 0.1, round(seconds * RATE_HZ)).astype(np.float32)
    expected = log_mel_spectrogram(pad_or_trim(samples)).numpy()
    found = log_mel(samples, 30.0)
    assert (found.shape, found.dtype, found.flags.c_contiguous) == ((80, 3000), np.float32, True)
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(
    ("count", "seconds", "frames"), [(16000, 2.0, 200), (16000, 1.0, 100), (4000, 0.253, 24), (17_000, 1.07, 106)]
)
def test_log_mel_has_an_even_number_of_frames(count: int, seconds: float, frames: int) -> None:
    assert log_mel(np.zeros(count, np.float32), seconds).shape == (80, frames)


# --- runtimes --------------------------------------------------------------------------------------------------------


@pytest.mark.models
@pytest.mark.parametrize("name", ["audio/jfk.flac", "audio/voice_fr.wav"])
def test_both_runtimes_write_the_same_tokens(
    runtimes: tuple[WhisperRuntime, WhisperRuntime], shared_media: Path, name: str
) -> None:
    samples = read_clip(shared_media / name).mono()
    first, second = (greedy_tokens(runtime, samples) for runtime in runtimes)
    assert len(first[0]) > 20
    assert first == second


@pytest.mark.models
def test_both_runtimes_believe_the_same(runtimes: tuple[WhisperRuntime, WhisperRuntime], shared_media: Path) -> None:
    mel = log_mel(read_clip(shared_media / "audio" / "austen_0930.wav").mono(), 4.3)
    ours, theirs = (runtime.encode(mel[np.newaxis]) for runtime in runtimes)
    np.testing.assert_allclose(ours, theirs, atol=2e-3)
    pairs = list(zip(runtimes, (ours, theirs), strict=True))
    languages = [runtime.detect_language(features)[0] for runtime, features in pairs]
    assert len(languages[0]) == len(languages[1]) == 99
    assert languages[0] == pytest.approx(languages[1], abs=1e-4)
    assert sum(languages[0].values()) == pytest.approx(1.0, abs=1e-4)
    said = [runtime.generate(features, ["en"], 1, 60)[0] for runtime, features in pairs]
    assert said[0].tokens == said[1].tokens
    assert said[0].avg_logprob == pytest.approx(said[1].avg_logprob, abs=1e-3)
    assert said[0].no_speech_prob == pytest.approx(said[1].no_speech_prob, abs=1e-4)
    words = [token for token in said[0].tokens if token < 50257]
    found = [runtime.align(features[0], "en", words, 3.3) for runtime, features in pairs]
    assert len(found[0].logprobs) == len(words)
    assert found[0].logprobs == pytest.approx(found[1].logprobs, abs=5e-3)


@pytest.mark.models
@pytest.mark.parametrize("name", ["audio/jfk.flac", "audio/voice_fr.wav", "audio/voice_ja.wav"])
def test_both_runtimes_lay_the_tokens_at_the_same_times(
    runtimes: tuple[WhisperRuntime, WhisperRuntime], shared_media: Path, name: str
) -> None:
    samples = read_clip(shared_media / name).mono()
    seconds = len(samples) / RATE_HZ
    mels = log_mel(samples, seconds + 1)[np.newaxis]
    features = runtimes[0].encode(mels)
    (languages,) = runtimes[0].detect_language(features)
    language = max(languages, key=languages.__getitem__)
    words = [token for token in runtimes[0].generate(features, [language], 1, 200)[0].tokens if token < 50257]
    ours, theirs = (runtime.align(runtime.encode(mels)[0], language, words, seconds).starts for runtime in runtimes)
    assert len(ours) == len(theirs) == len(words) + 1
    assert ours == sorted(ours)
    assert 0 <= ours[0] < ours[-1] <= seconds
    # The same heads and the same warping: at most a step of the clock apart, and seldom that.
    assert theirs == pytest.approx(ours, abs=0.0201)


@pytest.mark.models
def test_a_batch_gives_what_its_members_give(
    runtimes: tuple[WhisperRuntime, WhisperRuntime], shared_media: Path
) -> None:
    """The same to 1e-5: sums of another size of matrix round elsewhere."""
    clips = [read_clip(shared_media / "audio" / name).mono() for name in ("jfk.flac", "voice_de.wav", "voice_fr.wav")]
    mels = np.stack([log_mel(samples[: 5 * RATE_HZ], 6.0) for samples in clips])
    languages = ["en", "de", "fr"]
    for runtime in runtimes:
        together = runtime.encode(mels)
        alone = [runtime.encode(mels[place : place + 1]) for place in range(3)]
        np.testing.assert_allclose(together, np.concatenate(alone), atol=1e-4)
        written = runtime.generate(together, languages, 1, 80)
        for place in range(3):
            (single,) = runtime.generate(alone[place], languages[place : place + 1], 1, 80)
            assert single.tokens == written[place].tokens
            assert single.avg_logprob == pytest.approx(written[place].avg_logprob, abs=1e-5)
            (codes,) = runtime.detect_language(alone[place])
            assert codes == pytest.approx(runtime.detect_language(together)[place], abs=1e-5)


@pytest.mark.models
def test_no_more_tokens_than_allowed(runtimes: tuple[WhisperRuntime, WhisperRuntime], shared_media: Path) -> None:
    mels = log_mel(read_clip(shared_media / "audio" / "jfk.flac").mono(), 12.0)[np.newaxis]
    for runtime in runtimes:
        (said,) = runtime.generate(runtime.encode(mels), ["en"], 1, 9)
        assert 7 <= len(said.tokens) <= 9


@pytest.mark.slow
@pytest.mark.models
@pytest.mark.timeout(1800)
def test_both_runtimes_write_the_same_tokens_for_every_sound_file(
    runtimes: tuple[WhisperRuntime, WhisperRuntime], shared_media: Path
) -> None:
    names = sound_files(shared_media)
    assert len(names) > 30
    for name in names:
        samples = read_clip(shared_media / name).mono()
        first, second = (greedy_tokens(runtime, samples) for runtime in runtimes)
        assert first == second, name
