"""`--diagnostic induction`: what the model reads, and its scores beside those of a control."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import torch
from conftest import Run

import activations
from activations import UsageError
from activations.document.reader import Document
from activations.inputs.diagnostic import make_diagnostic
from activations.inputs.request import Diagnostic

TOKENIZER = tiny.tokenizer()


def made_for(family: str, auto: str = "AutoModelForCausalLM", **changes: Any) -> Diagnostic:
    return make_diagnostic(tiny.model(family, auto, **changes), TOKENIZER, "induction")


@pytest.mark.parametrize(
    ("family", "auto"),
    [
        ("llama", "AutoModelForCausalLM"),
        ("bert", "AutoModelForMaskedLM"),
        ("t5", "AutoModelForSeq2SeqLM"),
    ],
)
def test_random_tokens_twice(family: str, auto: str) -> None:
    made = made_for(family, auto)
    start, again = len(made.ids) % 2, made.length
    assert len(made.ids) == len(made.control) == start + 2 * made.length
    first = made.ids[start : start + again]
    assert made.ids[start + again :] == first == made.control[start : start + again]
    assert len({*made.ids}) == start + again
    assert len({*made.control}) == len(made.control)  # nothing repeats
    special = set(TOKENIZER.all_special_ids)
    assert not special & {*made.ids[start:], *made.control[start:]}
    assert made == made_for(family, auto)  # the same each time


def test_a_model_that_takes_few_tokens() -> None:
    made = made_for("llama", max_position_embeddings=21)
    assert made.length == 10
    assert len(made.ids) <= 21
    with pytest.raises(UsageError, match="some ordinary tokens"):
        made_for("llama", max_position_embeddings=3)


def stripe(document: Document, length: int) -> np.ndarray:
    """(layers, heads): the mean attention of the second copy to what followed in the first."""
    found = []
    for entry in document.header["attention_weights"]:
        weights = document.tensor(entry["module"], *entry["element"])[0]
        count = weights.shape[-1]
        rows = np.arange(count - length, count)
        found.append(weights[:, rows, rows - length + 1].mean(axis=1))
    return np.array(found)


@pytest.mark.parametrize("keep_above", [None, 0.01])
@pytest.mark.parametrize("family", ["llama", "gpt2", "bert"])
def test_scores_are_those_of_both_texts(
    family: str, keep_above: float | None, tmp_path: Path
) -> None:
    auto = "AutoModelForMaskedLM" if family == "bert" else "AutoModelForCausalLM"
    model = tiny.model(family, auto)
    made = make_diagnostic(model, TOKENIZER, "induction")
    read: dict[str, Any] = {"tokenizer": TOKENIZER, "output": tmp_path / "x.json"}
    whole = [
        stripe(activations.capture(model, ids=ids, **read), made.length)
        for ids in (made.ids, made.control)
    ]
    found = activations.capture(model, diagnostic="induction", keep_above=keep_above, **read)
    assert found.header["input_ids"] == [list(made.ids)]
    told = {key: found.header["diagnostic"][key] for key in ("name", "seed", "length")}
    assert told == {"name": "induction", "seed": 0, "length": made.length}
    rows = found.scores()
    names = ("induction", "induction_control")
    shown = [np.reshape([row[name] for row in rows], whole[0].shape) for name in names]
    # In the last row of the first copy nothing repeats, so it does not count.
    np.testing.assert_allclose(shown, whole, atol=2e-5)
    assert not any(module._forward_hooks for module in model.modules())


def test_the_demo_models_induction_heads(workplace: Path, capture: Run, view: Run) -> None:
    argv = ("--diagnostic", "induction", "--auto-select", "attn:0", "--quiet")
    assert capture(*argv).code == 0
    lines = view("--summary").out
    head = lines[0].split()
    assert head[head.index("induction") + 1] == "control"
    rows = {tuple(row[1:3]): row for row in (line.split() for line in lines[1:17])}
    at = head.index("induction")
    found = {name for name, row in rows.items() if float(row[at]) > 0.7}
    assert found == {("2", "0"), ("2", "3"), ("3", "0"), ("3", "1"), ("3", "2")}
    assert all(float(row[at + 1]) < 0.05 for row in rows.values())
    assert any(line.startswith("Induction: 3.1 (0.96, control 0.02), ") for line in lines)
    header, *csv_rows = view("--summary", "csv").out
    assert header.endswith(",entropy,induction_control")
    exact = [float(row.split(",")[-1]) for row in csv_rows]
    np.testing.assert_allclose(exact, [float(row[at + 1]) for row in rows.values()], atol=6e-4)
    assert view("--summary", "--layers", "3", "--heads", "1").out[1].split()[at + 1] == "0.023"
    assert view("--quiet").code == 0
    # The same bytes again.
    before = Path("agnostic_activations.json").read_bytes()
    assert capture(*argv).code == 0
    assert Path("agnostic_activations.json").read_bytes() == before


def test_without_attention_there_is_no_control(workplace: Path, capture: Run) -> None:
    assert capture("--diagnostic", "induction", "--auto-select", "mlp:0", "--quiet").code == 0
    found = activations.load("agnostic_activations.json").header["diagnostic"]
    assert found == {"name": "induction", "seed": 0, "length": 50}


def test_from_python() -> None:
    with pytest.raises(UsageError, match="diagnostic takes induction, not 'copying'"):
        activations.capture(diagnostic="copying")
    with pytest.raises(UsageError, match="ids and diagnostic cannot be combined"):
        activations.capture(ids=[1], diagnostic="induction")


@pytest.mark.parametrize(
    "value", ["induction", {"name": 3}, {"name": "induction", "control": [3]}, []]
)
def test_a_damaged_one_is_refused(value: Any, workplace: Path, capture: Run, view: Run) -> None:
    path = Path("agnostic_activations.json")
    assert capture("--prompt", "a fox", "--auto-select", "attn:0", "--quiet").code == 0
    content = json.loads(path.read_text()) | {"diagnostic": value}
    path.write_text(json.dumps(content))
    done = view("--summary")
    assert done.code == 1
    assert "diagnostic" in " ".join(done.err)


def gpt2() -> str | None:
    """The folder of GPT-2 small, where it is on this machine."""
    from huggingface_hub import try_to_load_from_cache

    for name in ("openai-community/gpt2", "gpt2"):
        found = try_to_load_from_cache(name, "model.safetensors")
        if isinstance(found, str):
            return str(Path(found).parent)
    return None


@pytest.mark.skipif(gpt2() is None, reason="GPT-2 small is not on this machine")
def test_what_was_published_of_gpt2(tmp_path: Path) -> None:
    """The recipe and the values of TransformerLens's Main_Demo."""
    generator = torch.Generator().manual_seed(0)
    r = torch.randint(1000, 10000, (20,), generator=generator).tolist()
    read = {"output": tmp_path / "x.json", "attn_implementation": "eager"}
    rows = activations.capture(gpt2(), ids=[50256, *r, *r], **read).scores()
    by_head = {(row["layer"], row["head"]): row for row in rows}
    for head, induction in {(5, 5): 0.884, (7, 10): 0.860, (5, 1): 0.839, (6, 9): 0.815}.items():
        assert by_head[head]["induction"] == pytest.approx(induction, abs=0.05)
    assert by_head[4, 11]["previous_token"] > 0.98
    text = "When Mary and John went to the store, John gave a drink to"
    rows = activations.capture(gpt2(), text, **read).scores()
    firsts = [row["first_token"] for row in rows if not math.isnan(row["first_token"])]
    assert np.mean(firsts) == pytest.approx(0.615, abs=0.02)
