"""Tiny random checkpoints of many families, built in a fraction of a second, no network."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from tokenizers.processors import TemplateProcessing
from transformers import CONFIG_MAPPING, PreTrainedTokenizerFast

WORDS = [
    "The cat sat on the mat and looked at the moon.",
    "Ein Satz, noch ein Satz; naïve café, 東京 and emoji 🙂🙃.",
    "one two three four five six seven eight nine ten",
]
SIZES = {
    **dict.fromkeys(("hidden_size", "n_embd", "d_model", "word_embed_proj_dim"), 32),
    **dict.fromkeys(("num_hidden_layers", "n_layer", "num_layers", "num_decoder_layers"), 3),
    **dict.fromkeys(("encoder_layers", "decoder_layers"), 3),
    **dict.fromkeys(("num_attention_heads", "n_head", "num_heads"), 4),
    **dict.fromkeys(("encoder_attention_heads", "decoder_attention_heads"), 4),
    **dict.fromkeys(("intermediate_size", "d_ff", "ffn_dim"), 64),
    **dict.fromkeys(("encoder_ffn_dim", "decoder_ffn_dim"), 64),
    "num_key_value_heads": 2,
    "d_kv": 8,
    "head_dim": 8,
    "max_position_embeddings": 128,
    "n_positions": 128,
}
FAMILIES = {
    "llama": "AutoModelForCausalLM",
    "qwen2": "AutoModelForCausalLM",
    "gpt2": "AutoModelForCausalLM",
    "gpt_neox": "AutoModelForCausalLM",
    "opt": "AutoModelForCausalLM",
    "bert": "AutoModelForMaskedLM",
    "t5": "AutoModelForSeq2SeqLM",
    "bart": "AutoModelForSeq2SeqLM",
}
# Found by the same means, and odd in one way each: one layer called three times, weights only on
# request, modules replaced in the first pass, nothing to run without weights, an
# attention class for each implementation.
ODD_FAMILIES = {
    "albert": "AutoModelForMaskedLM",
    "deberta-v2": "AutoModelForMaskedLM",
    "big_bird": "AutoModelForMaskedLM",
    "switch_transformers": "AutoModelForSeq2SeqLM",
    "distilbert": "AutoModelForMaskedLM",
    "falcon": "AutoModelForCausalLM",
}


def tokenizer(bert: bool = False, template: str | None = None) -> PreTrainedTokenizerFast:
    """A byte-level tokenizer; with `bert`, sentences stand between [CLS] and [SEP].

    `template` puts other special tokens around a text, as in "$A </s>".
    """
    inner = Tokenizer(models.BPE())
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    special = ["<pad>", "<s>", "</s>", "[CLS]", "[SEP]"]
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    inner.train_from_iterator(WORDS * 3, trainer)
    if template is not None:
        ids = [(token, inner.token_to_id(token)) for token in special]
        inner.post_processor = TemplateProcessing(single=template, special_tokens=ids)
    names = {"pad_token": "<pad>", "bos_token": "<s>", "eos_token": "</s>"}
    if bert:
        ids = [(token, inner.token_to_id(token)) for token in ("[CLS]", "[SEP]")]
        inner.post_processor = TemplateProcessing(
            single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=ids
        )
    if bert or template:
        names |= {"cls_token": "[CLS]", "sep_token": "[SEP]"}
    inputs = ["input_ids", "attention_mask", *(["token_type_ids"] if bert else [])]
    return PreTrainedTokenizerFast(tokenizer_object=inner, model_input_names=inputs, **names)


def config(family: str, **changes: Any) -> Any:
    known = CONFIG_MAPPING[family]()
    ids = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 1}
    sizes = {**SIZES, **ids, "vocab_size": 400}
    return type(known)(
        **{k: v for k, v in sizes.items() if _settable(known, k) or k in ids} | changes
    )


def _settable(known: Any, key: str) -> bool:
    return hasattr(known, key) and not isinstance(getattr(type(known), key, None), property)


def model(
    family: str, auto_class: str | None = None, dtype: str = "float32", **changes: Any
) -> Any:
    """A random model with eager attention, in eval mode; the same weights every time."""
    torch.manual_seed(0)
    auto = getattr(transformers, auto_class or (FAMILIES | ODD_FAMILIES)[family])
    made = auto.from_config(config(family, **changes), attn_implementation="eager")
    for name, parameter in made.named_parameters():
        # Initial weights are so small that all attention is nearly uniform: sharpen it.
        if parameter.dim() > 1 and "norm" not in name.lower():
            torch.nn.init.normal_(parameter, std=0.2)
    return made.to(getattr(torch, dtype)).eval()


def checkpoint(folder: Path, family: str, **kwargs: Any) -> Path:
    """Save a tiny model with its tokenizer as a checkpoint folder."""
    model(family, **kwargs).save_pretrained(folder)
    tokenizer(bert=family == "bert").save_pretrained(folder)
    return folder
