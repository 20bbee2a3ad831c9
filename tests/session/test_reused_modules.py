"""Layers of models that call one module several times, against the model's own attentions."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from torch import nn

from activations import Document, capture
from activations.cli.questions import show_catalog
from activations.forward.hooks import hooked
from activations.forward.probe import observe
from activations.selection.catalog import build_catalog
from activations.views.content import read_content

ALBERT = {
    "one module for all": {"num_hidden_layers": 12},
    "groups": {"num_hidden_layers": 6, "num_hidden_groups": 2},
    "a module a layer": {"num_hidden_layers": 3, "num_hidden_groups": 3},
    "two modules a layer": {"num_hidden_layers": 4, "num_hidden_groups": 2, "inner_group_num": 2},
}


def captured(model: Any, path: Path, **options: Any) -> Document:
    tokenizer = tiny.tokenizer(bert=True)
    return capture(model, "The cat sat.", tokenizer=tokenizer, output=path / "x.json", **options)


def own_attentions(model: Any, document: Document) -> Sequence[torch.Tensor]:
    ids = torch.tensor(document.header["input_ids"])
    with torch.no_grad():
        found: Sequence[torch.Tensor] = model(input_ids=ids, output_attentions=True).attentions
    return found


def by_layer(document: Document, within: str = "") -> dict[int, list[torch.Tensor]]:
    found: dict[int, list[torch.Tensor]] = {}
    for entry in document.header["attention_weights"]:
        if within in entry["module"]:
            weights = torch.tensor(document.tensor(entry["module"], *entry["element"]))
            found.setdefault(entry["layer"], []).append(weights)
    return found


@pytest.mark.parametrize("backend", ["hooks", "pyvene"])
@pytest.mark.parametrize("shape", ALBERT)
@pytest.mark.parametrize(
    ("layers", "wanted"), [(None, slice(None)), (2, slice(2, 3)), ([0, -1], slice(0, None, -1))]
)
def test_albert(shape: str, layers: Any, wanted: slice, backend: str, tmp_path: Path) -> None:
    model = tiny.model("albert", **ALBERT[shape])
    document = captured(model, tmp_path, layers=layers, backend=backend)
    count, a_layer = model.config.num_hidden_layers, model.config.inner_group_num
    numbers = {0, count - 1} if layers == [0, -1] else set(range(count)[wanted])
    own, found = own_attentions(model, document), by_layer(document)
    assert set(found) == numbers
    for layer, weights in found.items():
        expected = own[layer * a_layer : (layer + 1) * a_layer]
        assert all(torch.equal(a, b) for a, b in zip(weights, expected, strict=True))
    assert len(document.names) == len(numbers) * a_layer  # nothing else is kept
    stacks = read_content(document, lambda *_: [], [-1]).stacks
    assert [stack.layers for stack in stacks] == [(max(numbers),)] * a_layer


class Only(nn.Module):
    """One module where a list of them is expected; it has no number."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.block = module

    def __getitem__(self, index: int) -> nn.Module:
        return self.block

    def __iter__(self) -> Iterator[nn.Module]:
        yield self.block


def test_one_module_without_a_number(tmp_path: Path) -> None:
    model = tiny.model("albert", num_hidden_layers=12)
    (group,) = model.albert.encoder.albert_layer_groups
    group.albert_layers = Only(group.albert_layers[0])
    model.albert.encoder.albert_layer_groups = Only(group)
    document = captured(model, tmp_path, layers=[10, -1])
    name = "albert.encoder.albert_layer_groups.block.albert_layers.block.attention"
    assert document.names == [f"{name}@10", f"{name}@11"]
    own = own_attentions(model, document)
    assert {layer: torch.equal(w, own[layer]) for layer, (w,) in by_layer(document).items()} == {
        10: True,
        11: True,
    }


def test_the_calls_of_one_module_under_their_own_names(tmp_path: Path) -> None:
    model = tiny.model("albert", num_hidden_layers=12)
    name = "albert.encoder.albert_layer_groups.0.albert_layers.0.ffn"
    document = captured(model, tmp_path, select="mlp:ffn;other:predictions", layers=[10, -12])
    assert document.names == [name, f"{name}@10", "predictions"]
    seen: list[torch.Tensor] = []
    ids = torch.tensor(document.header["input_ids"])
    with torch.no_grad(), hooked(model, [name], lambda _, output: seen.append(output)):
        model(input_ids=ids)
    for key, call in ((name, 0), (f"{name}@10", 10)):
        assert torch.equal(torch.tensor(document.tensor(key)), seen[call])


def test_two_lists_of_modules_called_in_turn(tmp_path: Path) -> None:
    """HRM runs its lower layers three times, then its upper ones, and all of that again."""
    model = tiny.model("hrm_text")
    own = own_attentions(model, captured(model, tmp_path))
    stages = [own[i : i + 3] for i in range(0, len(own), 3)]
    of = {"L_module": [0, 1, 2, 4, 5, 6], "H_module": [3, 7]}
    for layers in (None, -1):
        document = captured(model, tmp_path, layers=layers)
        for within, chosen in of.items():
            expected = [weights for stage in chosen for weights in stages[stage]]
            found = by_layer(document, within)
            assert sorted(found) == list(range(len(expected)))[slice(layers, None)]
            for layer, (weights,) in found.items():
                assert torch.equal(weights, expected[layer])
    whole = captured(model, tmp_path)
    stacks = read_content(whole, lambda *_: [], [-1]).stacks
    assert [stack.layers for stack in stacks] == [(17,), (5,)]


def test_the_list_says_how_often_a_module_is_called() -> None:
    file = io.StringIO()
    show_catalog(build_catalog(observe(tiny.model("albert", num_hidden_layers=12))), file)
    assert "  1 x, called 12 times  ([1,T,32], [1,4,T,T])" in file.getvalue()
    shown = io.StringIO()
    show_catalog(build_catalog(observe(tiny.model("albert", **ALBERT["groups"]))), shown)
    assert "2 x, called 3 times each  [1,T,32]" in shown.getvalue()
