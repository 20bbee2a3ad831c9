"""A tiny configuration of any architecture of transformers, made from its default one.

The default says what there is to shrink: sizes, by what they are called; the layers, of which the
first two of each kind are kept; special tokens, which move into the vocabulary; and further
configurations inside it. What no rule can know is in the table at the end.
"""

from __future__ import annotations

import dataclasses
import re
from typing import Any

from transformers import CONFIG_MAPPING, PretrainedConfig

VOCABULARY = 400
LAYERS = 3
SPECIAL = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 1}
# What a size may be at most, by the first rule that fits its name.
SIZES = {
    r"(.*_)?vocab_size(_.*)?": VOCABULARY,
    r"(.*_)?(kv_heads|kv_n_heads|key_value_heads|num_query_groups)": 2,
    r"(.*_)?(n|topk|num_expert)_groups?|.*_ngroups": 1,
    r"(.*_)?(n|num)_(.*_)?heads?|(.*_)?attention_heads": 4,
    r"(.*_)?(n|num)_(.*_)?layers?|(encoder|decoder)_layers|num_blocks|depth": LAYERS,
    r"(.*_)?(experts?_per_tok(en)?|topk|top_k|moe_k)": 2,
    r"(.*_)?(n|num)_(.*_)?experts|zero_expert_num": 4,
    r"mamba_(d_head|head_?dim)": 16,  # with four heads twice the width
    r"(.*_)?(head_?dim|d_kv|dim_head|d_head|head_size|kv_channels)": 8,
    r"(.*_)?(rank|lowrank|rotary_dim|state_size|d_state|d_rel|embedding_groups)": 8,
    r"(.*_)?(intermediate_size.*|ffn_dim|dim_ff|d_ff|d_inner|hidden_dim|feed_forward_size)": 64,
    r"(ffn|expert_ffn)_hidden_size|mlp_dim": 64,
    r"(.*_)?(hidden_size.*|n_embd|d_model|width|d_latents|output_dim)|adapter_(in|out).*": 32,
    r"(.*_)?(embedding_size|emb_size|embedding_dim|emb_dim|embed_dim|embed_proj_dim)|dim": 32,
    r"(.*_)?(max_position_embeddings|n_positions|max_seq_len|max_.*_positions)": 128,
}
_GENERAL = {field.name for field in dataclasses.fields(PretrainedConfig)}


def tiny_config(family: str, **changes: Any) -> Any:
    """The family's configuration, tiny; `changes` are arguments of its constructor."""
    return shrink(CONFIG_MAPPING[family](), SPECIAL | ADJUSTED.get(family, {}) | changes)


def shrink(known: Any, changes: dict[str, Any] | None = None) -> Any:
    """Build a tiny configuration of `known`'s class, through its constructor.

    So what follows from other values (`layer_types`, `head_dim`) fits. `changes` overrule; a
    dictionary among them is meant for the configuration of that name inside this one.
    """
    changes = dict(changes or {})
    values = {name: _value(known, name) for name in _fields(known)}
    small = _set_up_by_its_owner(known, values) | _sizes(known, values) | _layers(known, values)
    small |= _special_tokens(values)
    for name, inner in values.items():
        if isinstance(inner, PretrainedConfig) and not isinstance(
            changes.get(name), PretrainedConfig
        ):
            small[name] = shrink(inner, changes.pop(name, None))
    return type(known)(**small | changes)


def _fields(config: Any) -> list[str]:
    return [f.name for f in dataclasses.fields(config) if f.init and f.name not in _GENERAL]


def _value(config: Any, name: str) -> Any:
    try:
        return getattr(config, name)
    except Exception:  # unlike in unlike layers, so there is no one value to ask for
        return getattr(type(config), name, None)


def _set_up_by_its_owner(known: Any, values: dict[str, Any]) -> dict[str, Any]:
    """What is not as the class itself would have it: a part of a larger configuration."""
    alone = type(known)()
    return {
        name: value
        for name, value in values.items()
        if not isinstance(value, PretrainedConfig) and value != _value(alone, name)
    }


def _sizes(known: Any, values: dict[str, Any]) -> dict[str, int]:
    found: dict[str, int] = {}
    for name, value in values.items():
        follows = getattr(type(known), name, None) is None and not name.endswith("value_heads")
        rule = next((rule for rule in SIZES if re.fullmatch(rule, name)), None)
        if rule is not None and type(value) is int and not follows:
            found[name] = min(value, SIZES[rule])
    if "vocab_size" in found:  # a byte or a protein model's is smaller, and the texts are the same
        found["vocab_size"] = VOCABULARY
    if "qk_rope_head_dim" in found and "num_key_value_heads" in found:
        found["num_key_value_heads"] = found["num_attention_heads"]  # latent attention shares none
    return found


def _layers(known: Any, values: dict[str, Any]) -> dict[str, Any]:
    """The lists that say what each layer is, cut to the first two layers of each kind."""
    count = _value(known, "num_hidden_layers")
    lists = {n: list(v) for n, v in values.items() if _one_for_each(v, count)}
    kinds = [v for v in lists.values() if all(isinstance(kind, str) for kind in v)]
    if not kinds:
        return {}
    kept: list[int] = []
    for i in range(len(kinds[0])):
        if any([v[k] for k in kept].count(v[i]) < 2 for v in kinds):
            kept.append(i)
    more = [i for i in range(len(kinds[0])) if i not in kept][: max(LAYERS - len(kept), 0)]
    kept = sorted(kept + more)
    found: dict[str, Any] = {n: [v[i] for i in kept] for n, v in lists.items()}
    counts = {n: len(kept) for n in ("num_hidden_layers", "num_layers") if n in values}
    return found | counts


def _one_for_each(value: Any, count: Any) -> bool:
    return isinstance(value, (list, tuple)) and len(value) == count


def _special_tokens(values: dict[str, Any]) -> dict[str, int]:
    """Inside the vocabulary; the further ones at its end, out of the text's way."""
    names = [n for n in values if re.fullmatch(r".*_(id|index)", n)]
    large = [n for n in names if type(values[n]) is int and values[n] >= VOCABULARY - 30]
    found = {name: VOCABULARY - 1 - i for i, name in enumerate(large)}
    return found | {name: i for name, i in SPECIAL.items() if name in values}


_BY_KIND = {"layer_types": ["linear_attention", "full_attention"] * 2, "num_hidden_layers": 4}
_SPEECH = {"num_filters": 2, "depths": [1] * 7}
_DOTS3 = {"swa_num_attention_heads": 2, "swa_num_key_value_heads": 2, "swa_head_dim": 16}
_DOTS3 |= {"swa_q_lora_rank": 8, "swa_kv_lora_rank": 8, "swa_qk_nope_head_dim": 8}
_GEMMA3N = {"layer_types": ["sliding_attention", "full_attention"] * 2, "num_hidden_layers": 4}
_GEMMA3N |= {"intermediate_size": 64, "activation_sparsity_pattern": [0.95, 0.95, 0.0, 0.0]}
_GEMMA3N |= {"num_kv_shared_layers": 2}
_QWEN4 = {"indexer_n_heads": 2, "indexer_kv_heads": 1, "indexer_head_dim": 8}
_QWEN4 |= {"indexer_budget": 8, "indexer_compress_ratio": 2, "ngram_vocab_size_base": 50}
# Arguments of a family's constructor: what its default lacks to run at all, what its layers' kinds
# follow from, and sizes that no name gives away.
ADJUSTED: dict[str, dict[str, Any]] = {
    "bamba": {"attn_layer_indices": [1, 3], "num_hidden_layers": 4},
    "blt": {"encoder_hash_byte_group_vocab": 50},
    "cohere_compass_text": {
        "rope_parameters": {
            "full_attention": {
                "rope_type": "default",
                "rope_theta": 1e4,
                "mrope_section": [2, 1, 1],
            }
        }
    },
    "dbrx": {"attn_config": {"rope_theta": 1e4, "clip_qkv": 8.0}},
    "deepseek_v2": {"num_experts_per_tok": 2},
    "dots1": {"n_routed_experts": 4, "n_shared_experts": 1, "num_experts_per_tok": 2},
    "dots3_note": {"text_config": _DOTS3},
    "dots3_note_text": _DOTS3,
    "esm": {"vocab_size": VOCABULARY, "mask_token_id": 3},
    "esmc": {"num_key_value_heads": 4},
    "falcon_h1": {"mamba_d_ssm": 32},
    "gemma3n": {"text_config": _GEMMA3N},
    "gemma3n_text": _GEMMA3N,
    "gpt_neo": {"attention_types": [[["global", "local"], 2]], "num_layers": 4},
    "granitemoehybrid": _BY_KIND,
    "hunyuan_v1_dense": {"head_dim": 8},
    "hunyuan_v1_moe": {"head_dim": 8, "num_experts": 4, "moe_topk": 2},
    "jamba": {"attn_layer_period": 2, "attn_layer_offset": 1, "num_hidden_layers": 4},
    "lfm2_moe": {"layer_types": ["conv", "full_attention"] * 2, "num_hidden_layers": 4},
    "longt5": {"local_radius": 3},
    "mamba2": {"head_dim": 16},
    "ministral": {"head_dim": 8},
    "nemotron": {"num_key_value_heads": 2},
    "nemotron_h": {"layers_block_type": ["linear_attention", "moe", "full_attention", "mlp"] * 2},
    "neomme": {"head_dim": 16},
    "qwen4_exp": {"text_config": _QWEN4},
    "qwen4_exp_text": _QWEN4,
    "perceiver": {"num_latents": 16, "num_self_attends_per_block": 3},
    "recurrent_gemma": {"num_hidden_layers": 6},
    "reformer": {
        "axial_pos_embds": False,
        "local_attn_chunk_length": 4,
        "lsh_attn_chunk_length": 4,
    },
    "vibevoice_asr": {
        "acoustic_tokenizer_encoder_config": _SPEECH,
        "semantic_tokenizer_encoder_config": _SPEECH,
    },
    "xmod": {"default_language": "en_XX"},
}
