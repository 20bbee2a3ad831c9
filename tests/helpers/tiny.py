"""Tiny random checkpoints of many families, built in a fraction of a second, no network."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import transformers
from shrink import VOCABULARY, tiny_config
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from tokenizers.processors import TemplateProcessing
from transformers import CONFIG_MAPPING, PreTrainedTokenizerFast

WORDS = [
    "The cat sat on the mat and looked at the moon.",
    "Ein Satz, noch ein Satz; naïve café, 東京 and emoji 🙂🙃.",
    "one two three four five six seven eight nine ten",
]
# What a family is to do -> the auto class that builds it for that.
TASKS = {
    "causal": "AutoModelForCausalLM",
    "masked": "AutoModelForMaskedLM",
    "seq2seq": "AutoModelForSeq2SeqLM",
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


def tokenizer(
    bert: bool = False, template: str | None = None, size: int = 400
) -> PreTrainedTokenizerFast:
    """A byte-level tokenizer; with `bert`, sentences stand between [CLS] and [SEP].

    `template` puts other special tokens around a text, as in "$A </s>". Up to a `size` of 261
    every token is a byte.
    """
    inner = Tokenizer(models.BPE())
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    special = ["<pad>", "<s>", "</s>", "[CLS]", "[SEP]"]
    trainer = trainers.BpeTrainer(
        vocab_size=size,
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


def entries() -> list[tuple[str, str]]:
    """Every (task, family) that transformers can build a language model for."""
    return [
        (task, family)
        for task, auto_class in TASKS.items()
        for family in sorted(getattr(transformers, auto_class)._model_mapping._model_mapping)
    ]


def config(family: str, auto_class: str | None = None, **changes: Any) -> Any:
    """The family's configuration, tiny; `changes` are arguments of its constructor.

    What `auto_class` builds from it (by default what the family is for): a BERT that is to write
    is a decoder, and Reformer insists that its configuration says so.
    """
    fields = CONFIG_MAPPING[family].__dataclass_fields__
    if _auto_class(family, auto_class) == TASKS["causal"] and "is_decoder" in fields:
        changes = {"is_decoder": True} | changes
    return tiny_config(family, **changes)


def _auto_class(family: str, wanted: str | None) -> str:
    known = FAMILIES | ODD_FAMILIES
    first = next((TASKS[task] for task, name in reversed(entries()) if name == family), "")
    return wanted or known.get(family, first)


def model(
    family: str, auto_class: str | None = None, dtype: str = "float32", **changes: Any
) -> Any:
    """A random model with eager attention, in eval mode; the same weights every time."""
    torch.manual_seed(0)
    auto = getattr(transformers, _auto_class(family, auto_class))
    tiny = config(family, auto_class, **changes)
    made = auto.from_config(tiny, attn_implementation="eager")
    return sharpened(made).to(getattr(torch, dtype)).eval()


def sharpened(made: Any) -> Any:
    """Initial weights are so small that all attention is nearly uniform: give it larger ones."""
    for name, parameter in made.named_parameters():
        if parameter.dim() > 1 and "norm" not in name.lower():
            torch.nn.init.normal_(parameter, std=0.2)
    return made


def checkpoint(folder: Path, family: str, **kwargs: Any) -> Path:
    """Save a tiny model with its tokenizer as a checkpoint folder."""
    made = model(family, **kwargs)
    made.save_pretrained(folder)
    size = getattr(made.config, "vocab_size", None) or VOCABULARY  # of BLT: bytes
    tokenizer(bert=family == "bert", size=size).save_pretrained(folder)
    return folder
