"""Whisper by transformers writes what openai-whisper writes on the same weights, and hears 128 bands."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from bench.speech_quality import read_clip
from encoders.speech import SpeechConfig, SpeechEncoder
from encoders.speech_whisper_hub import HubSpeechConfig, HubSpeechEncoder, HubWhisper, HubWhisperConfig
from encoders.weights import WEIGHTS, locate
from encoders.whisper_runtimes import RATE_HZ, OpenaiWhisper, log_mel
from encoders.whisper_weights import WhisperWeights, convert, read_variables
from store.errors import ModelError
from store.records import Float32
from tests.encoders import tiny_models

# A part of a layer in openai-whisper, and in transformers.
PARTS = {
    "attn_ln": "self_attn_layer_norm",
    "attn.query": "self_attn.q_proj",
    "attn.key": "self_attn.k_proj",
    "attn.value": "self_attn.v_proj",
    "attn.out": "self_attn.out_proj",
    "cross_attn_ln": "encoder_attn_layer_norm",
    "cross_attn.query": "encoder_attn.q_proj",
    "cross_attn.key": "encoder_attn.k_proj",
    "cross_attn.value": "encoder_attn.v_proj",
    "cross_attn.out": "encoder_attn.out_proj",
    "mlp_ln": "final_layer_norm",
    "mlp.0": "fc1",
    "mlp.2": "fc2",
}
WHOLE = {
    "positional_embedding": "embed_positions.weight",
    "token_embedding.weight": "embed_tokens.weight",
    "ln_post.weight": "layer_norm.weight",
    "ln_post.bias": "layer_norm.bias",
    "ln.weight": "layer_norm.weight",
    "ln.bias": "layer_norm.bias",
}


def name_in_transformers(name: str) -> str:
    side, first, *rest = name.split(".")
    if first == "blocks":
        return f"model.{side}.layers.{rest[0]}.{PARTS['.'.join(rest[1:-1])]}.{rest[-1]}"
    inside = ".".join([first, *rest])
    return f"model.{side}.{WHOLE.get(inside, inside)}"


def saved(weights: WhisperWeights, alignment_heads: list[list[int]], folder: Path) -> Path:
    """The weights as the hub has Whisper."""
    import torch
    from transformers import WhisperConfig, WhisperForConditionalGeneration

    from encoders.hub import quiet

    quiet()
    dims = weights.dims
    config = WhisperConfig(
        vocab_size=dims["n_vocab"],
        num_mel_bins=dims["n_mels"],
        d_model=dims["n_audio_state"],
        encoder_layers=dims["n_audio_layer"],
        decoder_layers=dims["n_text_layer"],
        encoder_attention_heads=dims["n_audio_head"],
        decoder_attention_heads=dims["n_text_head"],
        encoder_ffn_dim=4 * dims["n_audio_state"],
        decoder_ffn_dim=4 * dims["n_text_state"],
    )
    model = WhisperForConditionalGeneration(config)
    state = {
        name_in_transformers(name): torch.from_numpy(array.astype(np.float32))
        for name, array in weights.parameters.items()
    }
    told = model.load_state_dict(state, strict=False)
    assert (told.missing_keys, told.unexpected_keys) == (["proj_out.weight"], [])  # it is the token embedding
    model.tie_weights()
    model.generation_config.alignment_heads = alignment_heads
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def directory(cache: Path) -> Path:
    return locate(WEIGHTS["whisper-base"], cache)


@pytest.fixture(scope="module")
def base(directory: Path, cache: Path, tmp_path_factory: pytest.TempPathFactory) -> HubWhisper:
    weights = convert(read_variables(directory / "model.bin"))
    heads = json.loads((directory / "config.json").read_text())["alignment_heads"]
    folder = saved(weights, heads, tmp_path_factory.mktemp("models") / "base")
    return HubWhisper(HubWhisperConfig(model=str(folder), batch_size=2), cache)


@pytest.fixture(scope="module")
def reference(directory: Path) -> OpenaiWhisper:
    return OpenaiWhisper(directory, 1)


@pytest.fixture(scope="module")
def turbo(cache: Path, tmp_path_factory: pytest.TempPathFactory) -> HubWhisper:
    folder = tiny_models.whisper_turbo(tmp_path_factory.mktemp("models") / "turbo")
    return HubWhisper(HubWhisperConfig(model=str(folder), batch_size=3), cache)


def network_of(reference: OpenaiWhisper) -> Any:
    return reference._model


def expected_tokens(network: Any, mel: Float32, language: str, beam_size: int) -> tuple[list[int], float, float]:
    """What the openai-whisper package itself writes for 30 seconds."""
    import torch
    from whisper.decoding import DecodingOptions, decode

    beam = beam_size if beam_size > 1 else None
    options = DecodingOptions(language=language, temperature=0.0, beam_size=beam, fp16=False, sample_len=60)
    network.dims.n_audio_ctx = 1500
    found = decode(network, torch.from_numpy(mel), options)
    mean = found.avg_logprob * (len(found.tokens) + 1) / len(found.tokens)
    return list(found.tokens), mean, found.no_speech_prob


@pytest.mark.models
@pytest.mark.parametrize(
    ("name", "language", "beam_size"),
    [
        ("audio/jfk.flac", "en", 1),
        ("audio/voice_fr.wav", "fr", 1),
        pytest.param("audio/jfk.flac", "en", 3, marks=pytest.mark.slow),
    ],
)
def test_tokens_are_those_of_openai_whisper(
    base: HubWhisper, reference: OpenaiWhisper, shared_media: Path, name: str, language: str, beam_size: int
) -> None:
    mel = log_mel(read_clip(shared_media / name).mono(), 30.0)
    features = base.encode(mel[np.newaxis])
    (found,) = base.generate(features, [language], beam_size, 60)
    tokens, logprob, no_speech = expected_tokens(network_of(reference), mel, language, beam_size)
    assert len(tokens) > 15
    assert list(found.tokens) == tokens
    assert found.avg_logprob == pytest.approx(logprob, abs=1e-4)
    assert found.no_speech_prob == pytest.approx(no_speech, abs=1e-4)


@pytest.mark.models
def test_features_languages_and_probabilities_are_those_of_openai_whisper(
    base: HubWhisper, reference: OpenaiWhisper, shared_media: Path
) -> None:
    import torch
    from whisper.decoding import detect_language

    mel = log_mel(read_clip(shared_media / "audio" / "austen_0930.wav").mono(), 30.0)
    network = network_of(reference)
    network.dims.n_audio_ctx = 1500
    with torch.inference_mode():
        expected = network.encoder(torch.from_numpy(mel)[None])
        _, (languages,) = detect_language(network, expected)
    features = base.encode(mel[np.newaxis])
    np.testing.assert_allclose(features, expected.numpy(), atol=1e-4)
    (found,) = base.detect_language(features)
    assert len(found) == 99
    assert found == pytest.approx(languages, abs=1e-5)


@pytest.mark.models
def test_a_short_window_is_heard_by_the_first_positions(
    base: HubWhisper, reference: OpenaiWhisper, shared_media: Path
) -> None:
    import torch

    mel = log_mel(read_clip(shared_media / "audio" / "austen_0930.wav").mono(), 4.3)
    network = network_of(reference)
    positions = network.encoder.positional_embedding
    network.encoder.positional_embedding = positions[: mel.shape[1] // 2]
    try:
        with torch.inference_mode():
            expected = network.encoder(torch.from_numpy(mel)[None]).numpy()
    finally:
        network.encoder.positional_embedding = positions
    np.testing.assert_allclose(base.encode(mel[np.newaxis]), expected, atol=1e-4)


@pytest.mark.models
def test_words_lie_where_openai_whisper_finds_them(
    base: HubWhisper, reference: OpenaiWhisper, shared_media: Path
) -> None:
    mel = log_mel(read_clip(shared_media / "audio" / "jfk.flac").mono(), 12.0)
    features = base.encode(mel[np.newaxis])
    (said,) = base.generate(features, ["en"], 1, 60)
    words = [token for token in said.tokens if token < 50_257]
    found = base.align(features[0], "en", words, 11.0)
    expected = reference.align(reference.encode(mel[np.newaxis])[0], "en", words, 11.0)
    assert found.logprobs == pytest.approx(expected.logprobs, abs=1e-3)
    assert found.starts == pytest.approx(expected.starts, abs=0.021)  # one step, for a tie
    assert found.starts[-1] > 9
    assert base.generate(features, ["en"], 1, 60) == [said]  # aligning has left nothing behind


@pytest.mark.models
def test_gate_and_guards_are_those_of_the_other_runtimes(base: HubWhisper, cache: Path, shared_media: Path) -> None:
    speech = HubSpeechEncoder(HubSpeechConfig(model=base.config.model), cache)
    voice = read_clip(shared_media / "audio" / "ljspeech_0004.wav")
    room = read_clip(shared_media / "audio" / "room_tone_no_speech.wav")
    said, silent = speech.transcribe_many([voice, room])
    guards = SpeechConfig(runtime="openai-whisper")
    expected = SpeechEncoder(guards, cache)(voice)
    assert [line.text for line in said.segments] == [line.text for line in expected.segments]
    assert [line.text for line in said.segments] != []
    for ours, theirs in zip(said.segments, expected.segments, strict=True):
        assert [word.text for word in ours.words] == [word.text for word in theirs.words]
        assert [word.start for word in ours.words] == pytest.approx([word.start for word in theirs.words], abs=0.03)
    assert said.language == "en"
    assert silent.segments == []


@pytest.mark.models
def test_windows_heard_together_are_heard_as_alone(base: HubWhisper, shared_media: Path) -> None:
    samples = read_clip(shared_media / "audio" / "jfk.flac").mono()
    pieces = [samples[: 5 * RATE_HZ], samples[3 * RATE_HZ : 8 * RATE_HZ], samples[6 * RATE_HZ :]]
    mels = np.stack([log_mel(piece, 6.0)[:, :600] for piece in pieces])
    together = base.encode(mels)
    languages = ["en", "de", "en"]
    many, spoken = base.generate(together, languages, 1, 30), base.detect_language(together)
    for place, mel in enumerate(mels):
        features = base.encode(mel[np.newaxis])
        cosine = float((features * together[place]).sum() / np.linalg.norm(features) / np.linalg.norm(together[place]))
        assert cosine >= 1 - 1e-5
        (alone,) = base.generate(features, languages[place : place + 1], 1, 30)
        assert alone.tokens == many[place].tokens
        assert alone.avg_logprob == pytest.approx(many[place].avg_logprob, abs=1e-3)
        assert base.detect_language(features)[0] == pytest.approx(spoken[place], abs=1e-4)
    assert len({said.tokens for said in many}) == 3


# --- large models ----------------------------------------------------------------------------------------------------


def noise(seconds: float, count: int, bands: int) -> npt.NDArray[np.float32]:
    samples = np.random.default_rng(7).normal(0, 0.1, (count, round(seconds * RATE_HZ))).astype(np.float32)
    return np.stack([log_mel(each, seconds, bands) for each in samples])


@pytest.mark.models
def test_a_turbo_passes_the_gate_and_is_stopped_by_the_guard(
    turbo: HubWhisper, cache: Path, shared_media: Path
) -> None:
    """Random weights say things that no guard believes; what matters is that 128 bands and its tokens get there."""
    speech = HubSpeechEncoder(HubSpeechConfig(model=turbo.config.model), cache)
    found = speech(read_clip(shared_media / "audio" / "ljspeech_0004.wav"))
    assert found.segments == []
    assert found.seconds_decoded > 3


def test_a_turbo_hears_128_bands_and_knows_cantonese(turbo: HubWhisper) -> None:
    assert (turbo.mel_bands, turbo.languages) == (128, 100)
    features = turbo.encode(noise(3.0, 4, turbo.mel_bands))
    assert features.shape == (4, 150, 16)
    found = turbo.detect_language(features)
    assert all(len(each) == 100 and "yue" in each for each in found)
    for beam_size in (1, 3):
        said = turbo.generate(features, ["en", "yue", "en", "fr"], beam_size, 12)
        assert len(said) == 4
        assert all(0 < len(each.tokens) <= 12 for each in said)
        assert all(max(each.tokens) < 51_866 for each in said)
        assert all(each.tokens[0] > 50_364 for each in said)  # a time stamp, which is one higher than in older models
    with pytest.raises(RuntimeError, match="128"):
        turbo.encode(noise(3.0, 1, 80))


@pytest.mark.parametrize("precision", ["float16", "bfloat16"])
def test_half_precision_is_near(turbo: HubWhisper, cache: Path, precision: str) -> None:
    config = HubWhisperConfig(model=turbo.config.model, precision=precision)  # type: ignore[arg-type]
    half = HubWhisper(config, cache)
    mels = noise(2.0, 1, 128)
    whole, found = turbo.encode(mels), half.encode(mels)
    assert found.dtype == np.float32
    assert float((whole * found).sum() / np.linalg.norm(whole) / np.linalg.norm(found)) > 0.99
    assert len(half.generate(found, ["en"], 1, 5)[0].tokens) > 0
    assert len(half.align(found[0], "en", [1, 2, 3], 2.0).starts) == 4


def test_an_english_whisper_is_refused(cache: Path, tmp_path: Path) -> None:
    from transformers import WhisperConfig, WhisperForConditionalGeneration

    sizes = dict.fromkeys(("encoder_layers", "decoder_layers", "encoder_attention_heads", "decoder_attention_heads"), 1)
    config = WhisperConfig(vocab_size=51_864, d_model=8, encoder_ffn_dim=8, decoder_ffn_dim=8, **sizes)
    WhisperForConditionalGeneration(config).save_pretrained(tmp_path / "english")
    with pytest.raises(ModelError, match="not a multilingual Whisper") as caught:
        HubWhisper(HubWhisperConfig(model=str(tmp_path / "english")), cache)
    assert caught.value.code == "model.damaged"
