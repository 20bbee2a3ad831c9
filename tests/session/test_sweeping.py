"""A sweep, against one pass for each head with a hook written by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import torch

from activations import Document, capture
from activations.errors import ToolkitError, UsageError
from activations.forward import sweep as sweeping

TEXT, TARGET = "The cat sat on the mat.", "Ein Satz."


def swept(tmp_path: Path, model: Any, of: str = "heads", **asked: Any) -> Document:
    asked = {"tokenizer": tiny.tokenizer(), "select": "attn:0;mlp:;other:", **asked}
    return capture(model, TEXT, sweep=of, output=tmp_path / "made.json", **asked)


def by_hand(model: Any, document: Document, modules: list[str], mean: bool = False) -> np.ndarray:
    """(layers, heads): the divergence at the last position without each head of four, 8 wide."""
    names = ("input_ids", "decoder_input_ids")
    ids = {name: torch.tensor(document.header[name]) for name in names if name in document.header}
    if "Bert" in type(model).__name__:
        ids["token_type_ids"] = torch.zeros_like(ids["input_ids"])

    def predicted() -> torch.Tensor:
        with torch.no_grad():
            return model(**ids).logits[0, -1].double().log_softmax(-1)

    model.set_attn_implementation("eager")
    before = predicted()
    found = np.zeros((len(modules), 4))
    for layer, module in enumerate(modules):
        for head in range(4):

            def cut(_: Any, args: Any, part: slice = slice(8 * head, 8 * head + 8)) -> Any:
                given = args[0].clone()
                given[..., part] = given[..., part].mean(1, keepdim=True) if mean else 0
                return (given,)

            handle = model.get_submodule(module).register_forward_pre_hook(cut)
            after = predicted()
            handle.remove()
            found[layer, head] = float((before.exp() * (before - after)).sum())
    return found


PROJECTIONS = {
    "llama": [f"model.layers.{i}.self_attn.o_proj" for i in range(3)],
    "bert": [f"bert.encoder.layer.{i}.attention.output.dense" for i in range(3)],
    "t5": [
        *(f"decoder.block.{i}.layer.0.SelfAttention.o" for i in range(3)),
        *(f"decoder.block.{i}.layer.1.EncDecAttention.o" for i in range(3)),
        *(f"encoder.block.{i}.layer.0.SelfAttention.o" for i in range(3)),
    ],
}


@pytest.mark.parametrize("alone", [False, True], ids=["together", "one by one"])
@pytest.mark.parametrize("family", PROJECTIONS)
def test_every_head(
    family: str, alone: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, passes = tiny.model(family), []
    own = sweeping.Sweeper._alone
    monkeypatch.setattr(
        sweeping.Sweeper, "_alone", lambda self, cut: (passes.append(1), own(self, cut))[1]
    )
    if alone:
        monkeypatch.setattr(sweeping.Sweeper, "_together", lambda *given: None)
    target = {"target": TARGET} if family == "t5" else {}
    made = swept(tmp_path, model, **target)
    sweep = made.sweep
    assert sweep is not None
    assert (sweep.of, sweep.way) == ("heads", "zero")
    kinds = ["decoder", "cross", "encoder"] if family == "t5" else ["self"]
    assert sweep.kinds == tuple(kind for kind in kinds for _ in range(3))
    assert sweep.layers == (0, 1, 2) * len(kinds)
    np.testing.assert_allclose(sweep.kl, by_hand(model, made, PROJECTIONS[family]), 1e-3, 1e-7)
    assert len(passes) == (sweep.kl.size if alone else 2)  # two are the proof
    assert made.predictions is not None
    assert sweep.probability == pytest.approx(float(made.predictions.probabilities[-1, 0]), 1e-3)
    assert sweep.top == made.predictions.tokens[-1, 0]
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


def test_each_block_is_what_ablating_it_alone_gives(tmp_path: Path) -> None:
    model = tiny.model("llama")
    sweep = swept(tmp_path, model, "mlps").sweep
    assert sweep is not None
    assert sweep.kl.shape == (3, 1)
    for layer in range(3):
        asked = {"tokenizer": tiny.tokenizer(), "ablate": sweep.name(layer, 0)}
        alone = capture(model, TEXT, output=tmp_path / "alone.json", **asked).effect
        assert alone is not None
        assert sweep.kl[layer, 0] == pytest.approx(alone.kl, rel=1e-3)


def test_the_mean_at_the_last_position(tmp_path: Path) -> None:
    model = tiny.model("llama")
    sweep = swept(tmp_path, model, ablate_with="mean").sweep
    assert sweep is not None
    expected = swept(tmp_path, model)
    np.testing.assert_allclose(
        sweep.kl, by_hand(model, expected, PROJECTIONS["llama"], mean=True), 1e-3, 1e-7
    )
    last = swept(tmp_path, model, at=-1).sweep
    assert last is not None
    for column in (0, 3):
        asked = {"tokenizer": tiny.tokenizer(), "ablate": f"1.{column}", "at": -1}
        alone = capture(model, TEXT, output=tmp_path / "alone.json", **asked).effect
        assert alone is not None
        assert last.kl[1, column] == pytest.approx(alone.kl, rel=1e-3)


def test_the_pass_that_is_captured_is_not_changed(tmp_path: Path) -> None:
    model = tiny.model("llama")
    made = swept(tmp_path, model).path.read_text()
    plain = swept(tmp_path, model, of=None).path.read_text()  # type: ignore[arg-type]
    assert made.split('"captured"')[1] == plain.split('"captured"')[1]


@pytest.mark.parametrize("wrong", ["row", "fails", "edit"])
def test_many_rows_are_believed_only_where_one_pass_gives_the_same(
    wrong: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A model whose rows disturb each other, that takes one row, whose first row is another."""
    model = tiny.model("llama")
    expected = swept(tmp_path, model).sweep
    norm = model.model.norm
    real = type(norm).forward

    def forward(self: Any, hidden: torch.Tensor) -> torch.Tensor:
        if self is norm and hidden.shape[0] > 1:
            if wrong == "fails":
                raise RuntimeError("one row only")
            hidden = hidden.clone()
            hidden[-1 if wrong == "row" else 0] *= 1 + torch.arange(hidden.shape[-1]) % 2
        return real(self, hidden)

    monkeypatch.setattr(type(norm), "forward", forward)
    found = swept(tmp_path, model).sweep
    assert expected is not None
    assert found is not None
    np.testing.assert_allclose(found.kl, expected.kl, 1e-3, 1e-7)


def test_on_the_demo_model_the_induction_circuit_comes_out_on_top(tmp_path: Path) -> None:
    """On a repeated text: the previous-token head that all its induction heads read is first; of
    cuts at the last position, where the prediction is made, induction heads are.

    The induction heads stand in for each other: cut together, the prediction is gone, cut alone it
    stays.
    """
    asked = {"diagnostic": "induction", "output": tmp_path / "made.json"}
    last = capture(**asked, sweep="heads", at=-1)
    assert last.sweep is not None
    strongest = {last.sweep.name(*place) for place in last.sweep.strongest[:2]}
    by_score = last.scores(by="induction")[:2]
    assert strongest == {f"{row['layer']}.{row['head']}" for row in by_score}
    made = capture(**asked, sweep="heads")
    assert made.sweep is not None
    best = made.scores(by="previous_token")[0]
    assert made.sweep.name(*made.sweep.strongest[0]) == f"{best['layer']}.{best['head']}"
    induction = [f"{row['layer']}.{row['head']}" for row in made.scores(by="induction")[:4]]
    together = capture(**asked, ablate=induction).effect
    assert together is not None
    alone = dict(zip(map(str, induction), [0.0] * 4, strict=True))
    for row, column in made.sweep.strongest:
        alone[made.sweep.name(row, column)] = made.sweep.kl[row, column]
    assert max(alone[name] for name in induction) < 0.1 * together.kl
    assert together.kl > 3


def test_what_cannot_be_swept(tmp_path: Path) -> None:
    with pytest.raises(ToolkitError, match="--sweep heads: no place in this model"):
        swept(tmp_path, tiny.model("bitnet"))
    with pytest.raises(UsageError, match="predicts neither"):
        swept(tmp_path, tiny.model("llama").model)
    with pytest.raises(UsageError, match="cannot be combined"):
        swept(tmp_path, tiny.model("llama"), ablate="1.2")
