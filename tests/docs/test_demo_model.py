"""The bundled model shows what it is there for: measured from captured documents."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
from conftest import Run
from tokenizers import Tokenizer
from transformers import AutoModelForCausalLM, AutoTokenizer

from activations import load
from activations.session.options import DEMO_MODEL

DOCUMENT = "agnostic_activations.json"


def captured(capture: Run, *argv: str) -> tuple[list[int], np.ndarray]:
    """Token ids and attention weights (layers, heads, tokens, tokens) of one capture."""
    assert capture("--auto-select", "attn:0", "--quiet", *argv).code == 0
    document = load(DOCUMENT)
    assert document.attention_weights is not None
    weights = [document.tensor(e["module"], *e["element"])[0] for e in document.attention_weights]
    return document.header["input_ids"][0], np.stack(weights)


def previous_token_scores(weights: np.ndarray) -> np.ndarray:
    """Mean attention from each token to the one before it, (layers, heads)."""
    return weights.diagonal(offset=-1, axis1=-2, axis2=-1).mean(axis=-1)


def induction_scores(weights: np.ndarray) -> np.ndarray:
    """Mean attention from the second copy to the token after the first occurrence."""
    half = weights.shape[-1] // 2
    return weights.diagonal(offset=-(half - 1), axis1=-2, axis2=-1)[..., 1:].mean(axis=-1)


def test_it_is_a_small_standard_checkpoint() -> None:
    assert sum(file.stat().st_size for file in DEMO_MODEL.iterdir()) <= 5_000_000
    model = AutoModelForCausalLM.from_pretrained(DEMO_MODEL)
    tokenizer = AutoTokenizer.from_pretrained(DEMO_MODEL)
    assert type(model).__name__ == "LlamaForCausalLM"
    assert isinstance(tokenizer.backend_tokenizer, Tokenizer)  # the fast kind
    for text in ("Once there was a fox.", "naïve 🙂\n</script>", "  two spaces "):
        assert tokenizer.decode(tokenizer(text)["input_ids"]) == text


def test_the_default_prompt_shows_a_previous_token_and_an_induction_head(
    workplace: Path, capture: Run
) -> None:
    ids, weights = captured(capture)
    assert previous_token_scores(weights).max() >= 0.9
    # "Zolimar" comes twice: from its second copy to what followed each piece of the first
    repeated = [
        (at, ids.index(token) + 1)
        for at, token in enumerate(ids)
        if token in ids[:at] and ids[at - 1] == ids[ids.index(token) - 1] and at > 0
    ]
    assert len(repeated) >= 3
    scores = np.mean([weights[:, :, row, column] for row, column in repeated], axis=0)
    assert scores.max() >= 0.7


@pytest.mark.parametrize("half", [12, 40])
def test_heads_on_random_sequences_repeated_twice(half: int, workplace: Path, capture: Run) -> None:
    tokenizer = AutoTokenizer.from_pretrained(DEMO_MODEL)
    words = [token[1:] for token in tokenizer.get_vocab() if token.startswith("Ġ")]
    words = sorted(word for word in words if word.isalpha() and word.isascii() and len(word) > 2)
    rng = random.Random(20261123)
    previous, induction = [], []
    for _ in range(5):
        copy = " ".join(rng.sample(words, half))
        ids, weights = captured(capture, "--prompt", f"{copy} {copy}")
        assert ids[: len(ids) // 2] == ids[len(ids) // 2 :]
        previous.append(previous_token_scores(weights))
        induction.append(induction_scores(weights))
    assert np.mean(previous, axis=0).max() >= 0.6
    assert np.mean(induction, axis=0).max() >= 0.5
