"""Small models with random weights, of the classes that the hub's models have, saved as the hub has them.

Weights, tokenizers and processors are made here; everything that loads and runs them is the real code.
"""

from __future__ import annotations

import string
from collections.abc import Callable
from pathlib import Path
from typing import Any

LETTERS = string.ascii_lowercase + string.digits + string.punctuation
_SMALL = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}


def _saved(folder: Path, make: Callable[[], tuple[Any, ...]], seed: int = 7) -> Path:
    """The folder, with all that `make` gives saved in it; same seed, same weights."""
    import torch

    from encoders.hub import quiet

    quiet()
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        for part in make():
            part.save_pretrained(folder)
    return folder


def siglip(folder: Path, seed: int = 7) -> Path:
    """SigLIP with SigLIP 2's tokenizer, 32 px in patches of 8, texts of 16 tokens."""
    from transformers import Siglip2Tokenizer, SiglipConfig, SiglipImageProcessor, SiglipModel

    pieces = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", *(f"<0x{byte:02X}>" for byte in range(256)), "▁", *LETTERS]
    vocabulary = {piece: index for index, piece in enumerate(pieces)}

    def make() -> tuple[Any, ...]:
        import torch

        special = {"pad_token_id": 0, "eos_token_id": 1, "bos_token_id": 2}
        model = SiglipModel(
            SiglipConfig(
                text_config=_SMALL | special | {"vocab_size": len(pieces), "max_position_embeddings": 16},
                vision_config=_SMALL | {"image_size": 32, "patch_size": 8},
            )
        )
        with torch.no_grad():
            # As trained ones are in order of magnitude; and the random towers shall tell pictures apart.
            model.logit_scale.fill_(3.0)
            model.logit_bias.fill_(-2.0)
            for parameter in model.parameters():
                if parameter.ndim > 1:
                    parameter.normal_(0, 0.3)
        return model, SiglipImageProcessor(size={"height": 32, "width": 32}), Siglip2Tokenizer(vocabulary, [])

    return _saved(folder, make, seed)


def clip(folder: Path) -> Path:
    """CLIP, 32 px in patches of 8, texts of 20 tokens."""
    from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel, CLIPTokenizer

    pieces = [*LETTERS, *(letter + "</w>" for letter in LETTERS), "<|startoftext|>", "<|endoftext|>"]
    vocabulary = {piece: index for index, piece in enumerate(pieces)}

    def make() -> tuple[Any, ...]:
        special = {"bos_token_id": len(pieces) - 2, "eos_token_id": len(pieces) - 1, "pad_token_id": len(pieces) - 1}
        model = CLIPModel(
            CLIPConfig(
                text_config=_SMALL | special | {"vocab_size": len(pieces), "max_position_embeddings": 20},
                vision_config=_SMALL | {"image_size": 32, "patch_size": 8},
                projection_dim=24,
            )
        )
        processor = CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
        return model, processor, CLIPTokenizer(vocabulary, [])

    return _saved(folder, make)


def detr(folder: Path, kind: str = "rt_detr_v2") -> Path:
    """RT-DETR v2 or DETR with a ResNet of a few channels, for five classes, one of them without a name."""
    from transformers import (
        DetrConfig,
        DetrForObjectDetection,
        DetrImageProcessor,
        ResNetConfig,
        RTDetrImageProcessor,
        RTDetrResNetConfig,
        RTDetrV2Config,
        RTDetrV2ForObjectDetection,
    )

    names = {0: "person", 1: "dog", 2: "N/A", 3: "bicycle", 4: "cup"}

    def make() -> tuple[Any, ...]:
        if kind == "detr":
            backbone = ResNetConfig(
                embedding_size=8, hidden_sizes=[8, 8, 8, 16], depths=[1, 1, 1, 1], out_features=["stage4"]
            )
            plain = DetrConfig(
                backbone_config=backbone,
                use_timm_backbone=False,
                use_pretrained_backbone=False,
                id2label=names,
                d_model=16,
                encoder_layers=1,
                decoder_layers=1,
                encoder_ffn_dim=32,
                decoder_ffn_dim=32,
                encoder_attention_heads=2,
                decoder_attention_heads=2,
                num_queries=8,
            )
            return DetrForObjectDetection(plain), DetrImageProcessor(size={"shortest_edge": 64, "longest_edge": 128})
        config = RTDetrV2Config(
            backbone_config=RTDetrResNetConfig(
                embedding_size=8,
                hidden_sizes=[8, 8, 16, 16],
                depths=[1, 1, 1, 1],
                layer_type="basic",
                out_features=["stage2", "stage3", "stage4"],
            ),
            id2label=names,
            encoder_hidden_dim=16,
            encoder_in_channels=[8, 16, 16],
            encoder_ffn_dim=32,
            encoder_attention_heads=2,
            encode_proj_layers=[2],
            d_model=16,
            num_queries=10,
            decoder_in_channels=[16, 16, 16],
            decoder_ffn_dim=32,
            decoder_layers=2,
            decoder_attention_heads=2,
            decoder_n_points=2,
            num_denoising=0,
            anchor_image_size=None,
        )
        processor = RTDetrImageProcessor(size={"height": 64, "width": 64})
        return RTDetrV2ForObjectDetection(config), processor

    return _saved(folder, make)


def clap(folder: Path, fused: bool = False) -> Path:
    """CLAP with a small HTSAT, at 48 kHz and for ten seconds, as the real ones are."""
    from transformers import ClapConfig, ClapFeatureExtractor, ClapModel, RobertaTokenizer

    pieces = ["<s>", "<pad>", "</s>", "<unk>", "<mask>", "Ġ", *LETTERS]
    vocabulary = {piece: index for index, piece in enumerate(pieces)}

    def make() -> tuple[Any, ...]:
        config = ClapConfig(
            text_config=_SMALL | {"vocab_size": len(pieces), "max_position_embeddings": 90, "pad_token_id": 1},
            audio_config={
                "patch_embeds_hidden_size": 16,
                "hidden_size": 32,
                "depths": [1, 1],
                "num_attention_heads": [2, 2],
                "window_size": 8,
                "patch_size": 4,
                "patch_stride": [4, 4],
                "enable_fusion": fused,
            },
            projection_dim=24,
        )
        extractor = ClapFeatureExtractor(truncation="fusion" if fused else "rand_trunc")
        return ClapModel(config), extractor, RobertaTokenizer(vocabulary, [])

    return _saved(folder, make)


def sentences(folder: Path, pooler: bool = True) -> Path:
    """XLM-RoBERTa, as multilingual E5 and BGE-M3 are; at most 40 tokens."""
    from transformers import XLMRobertaConfig, XLMRobertaModel, XLMRobertaTokenizer

    pieces = [("<s>", 0.0), ("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -2.0)]
    pieces += [(letter, -4.0 - place / 100) for place, letter in enumerate(LETTERS)] + [("<mask>", 0.0)]

    def make() -> tuple[Any, ...]:
        config = XLMRobertaConfig(**_SMALL, vocab_size=len(pieces), max_position_embeddings=42, pad_token_id=1)
        model = XLMRobertaModel(config, add_pooling_layer=pooler)
        return model, XLMRobertaTokenizer(pieces, model_max_length=40)

    return _saved(folder, make)


def whisper_turbo(folder: Path) -> Path:
    """Whisper with the vocabulary and the 128 bands of large-v3-turbo, narrow and two layers deep."""
    from transformers import WhisperConfig, WhisperForConditionalGeneration

    def make() -> tuple[Any, ...]:
        config = WhisperConfig(
            vocab_size=51_866,
            num_mel_bins=128,
            d_model=16,
            encoder_layers=2,
            decoder_layers=2,
            encoder_attention_heads=2,
            decoder_attention_heads=2,
            encoder_ffn_dim=32,
            decoder_ffn_dim=32,
        )
        return (WhisperForConditionalGeneration(config),)

    return _saved(folder, make)
