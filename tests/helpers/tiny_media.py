"""Tiny random checkpoints that read images and audio, with their processors; files to read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import soundfile
import tiny
import torch
import transformers

LAYERS = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4}
LAYERS |= {"intermediate_size": 64}
VISION = {**LAYERS, "image_size": 30, "patch_size": 10}  # 3 x 3 patches
TEXT = {**LAYERS, "vocab_size": 400, "max_position_embeddings": 40}
IDS = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
RATE = 16_000


def image(path: Path, seed: int = 0, size: tuple[int, int] = (30, 30)) -> Path:
    """A picture of noise, (height, width)."""
    pixels = np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)
    PIL.Image.fromarray(pixels).save(path)
    return path


def audio(path: Path, seconds: float = 0.8, rate: int = RATE, channels: int = 1) -> Path:
    noise = np.random.default_rng(0).normal(0, 0.1, (int(seconds * rate), channels))
    soundfile.write(path, noise, rate)
    return path


def _square() -> Any:
    return transformers.ViTImageProcessor(size={"height": 30, "width": 30})


def _cropped() -> Any:
    size = {"height": 30, "width": 30}
    return transformers.CLIPImageProcessor(size={"shortest_edge": 30}, crop_size=size)


def _vit() -> tuple[Any, ...]:
    return transformers.ViTForImageClassification(transformers.ViTConfig(**VISION)), _square()


def _deit() -> tuple[Any, ...]:
    return transformers.DeiTModel(transformers.DeiTConfig(**VISION)), _square()


def _dinov2() -> tuple[Any, ...]:
    return transformers.Dinov2Model(transformers.Dinov2Config(**VISION)), _square()


def _registers() -> tuple[Any, ...]:
    config = transformers.Dinov2WithRegistersConfig(**VISION, num_register_tokens=2)
    return transformers.Dinov2WithRegistersModel(config), _square()


def _yolos() -> tuple[Any, ...]:
    config = transformers.YolosConfig(**VISION | {"image_size": [30, 30]}, num_detection_tokens=5)
    return transformers.YolosModel(config), _square()


def _clip() -> tuple[Any, ...]:
    towers = {"text_config": TEXT | IDS, "vision_config": VISION | {"num_hidden_layers": 2}}
    words = tiny.tokenizer(template="<s> $A </s>")
    model = transformers.CLIPModel(transformers.CLIPConfig(**towers))
    return model, transformers.CLIPProcessor(_cropped(), words)


def _blip() -> tuple[Any, ...]:
    """Reads an image first of all, text beside it, and returns the attention of the image alone."""
    text = TEXT | IDS | {"sep_token_id": 2, "encoder_hidden_size": 32}
    config = transformers.BlipConfig(text_config=text, vision_config=VISION)
    sees = transformers.BlipImageProcessor(size={"height": 30, "width": 30})
    processor = transformers.BlipProcessor(sees, tiny.tokenizer(bert=True))
    return transformers.BlipForConditionalGeneration(config), processor


def _whisper() -> tuple[Any, ...]:
    """Reads a second at once, as 100 frames of which the encoder makes 50."""
    config = transformers.WhisperConfig(
        d_model=32,
        **dict.fromkeys(("encoder_layers", "decoder_layers"), 2),
        **dict.fromkeys(("encoder_attention_heads", "decoder_attention_heads"), 4),
        **dict.fromkeys(("encoder_ffn_dim", "decoder_ffn_dim"), 64),
        **IDS,
        vocab_size=400,
        num_mel_bins=8,
        max_source_positions=50,
        max_target_positions=40,
        decoder_start_token_id=1,
        suppress_tokens=None,
        begin_suppress_tokens=None,
    )
    hears = transformers.WhisperFeatureExtractor(feature_size=8, chunk_length=1)
    model = transformers.WhisperForConditionalGeneration(config)
    return model, transformers.WhisperProcessor(hears, tiny.tokenizer())


def _wav2vec2() -> tuple[Any, ...]:
    config = transformers.Wav2Vec2Config(
        **LAYERS,
        vocab_size=400,
        conv_dim=[8] * 7,
        feat_extract_norm="layer",  # so that a sound is seen where it is heard
        num_conv_pos_embeddings=4,
        num_conv_pos_embedding_groups=2,
    )
    hears = transformers.Wav2Vec2FeatureExtractor(do_normalize=False)
    return transformers.Wav2Vec2ForCTC(config), hears


def _llava() -> tuple[Any, ...]:
    words = tiny.tokenizer().backend_tokenizer
    words.add_special_tokens(["<image>"])
    names = {"pad_token": "<pad>", "bos_token": "<s>", "eos_token": "</s>"}
    words = transformers.PreTrainedTokenizerFast(
        tokenizer_object=words, extra_special_tokens={"image_token": "<image>"}, **names
    )
    text = TEXT | IDS | {"model_type": "llama", "num_key_value_heads": 2, "head_dim": 8}
    config = transformers.LlavaConfig(
        vision_config=VISION | {"model_type": "clip_vision_model"},
        text_config=text,
        image_token_index=words.convert_tokens_to_ids("<image>"),
    )
    template = (
        "{% for m in messages %}{% for c in m.content %}"
        "{% if c.type == 'image' %}<image>{% else %}{{ c.text }}{% endif %}"
        "{% endfor %}{% endfor %}: "
    )
    processor = transformers.LlavaProcessor(
        _cropped(),
        words,
        patch_size=10,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=template,
    )
    return transformers.LlavaForConditionalGeneration(config), processor


FAMILIES = {
    "vit": _vit,
    "deit": _deit,
    "dinov2": _dinov2,
    "dinov2_with_registers": _registers,
    "yolos": _yolos,
    "clip": _clip,
    "blip": _blip,
    "whisper": _whisper,
    "wav2vec2": _wav2vec2,
    "llava": _llava,
}


def build(family: str) -> tuple[Any, Any]:
    """A random model in eval mode and its processor; the same weights every time."""
    torch.manual_seed(0)
    model, processor = FAMILIES[family]()
    for name, parameter in model.named_parameters():
        if parameter.dim() > 1 and "norm" not in name.lower():
            torch.nn.init.normal_(parameter, std=0.2)  # or all attention would be nearly uniform
    return model.eval(), processor


def checkpoint(folder: Path, family: str) -> Path:
    for part in build(family):
        part.save_pretrained(folder)
    return folder
