"""What the questions suggest, and what stands under the tables."""

from __future__ import annotations

import re

import pytest
import tiny
import torch

from activations.cli.questions import HELP, INTRODUCTION, shapes_legend, usual_answer, usual_line
from activations.forward.probe import list_modules, observe, probe_inputs
from activations.selection.answers import select
from activations.selection.catalog import CATEGORIES, build_catalog
from activations.selection.observation import Observation


@pytest.mark.parametrize(
    ("family", "usual"),
    [
        ("llama", ["0", "0", ""]),
        ("bert", ["weights", "0", ""]),
        ("t5", ["weights", "0", ""]),
        ("longformer", ["0", "0", ""]),  # none of its modules returns weights
        ("mamba", ["", "", ""]),
    ],
)
def test_the_usual_answers(family: str, usual: list[str]) -> None:
    catalog = build_catalog(observe(tiny.model(family)))
    assert [usual_answer(catalog, category) for category in CATEGORIES] == usual
    assert usual_line(catalog, "other") == "Usual answer: none (Enter)."


@pytest.mark.parametrize(("family", "indices"), [("bert", "0"), ("t5", "0,2,4"), ("bart", "0-2")])
def test_what_weights_selects_is_every_tensor_once(family: str, indices: str) -> None:
    model = tiny.model(family)
    catalog = build_catalog(observe(model))
    line = f"Usual answer: weights, which is {indices} here: every attention tensor once."
    assert usual_line(catalog, "attention") == line
    with torch.no_grad():
        returned = model(**probe_inputs(model, {}), output_attentions=True)
    own = sum(len(tensors) for key, tensors in returned.items() if key.endswith("attentions"))
    for answer in ("weights", indices):
        selection = select(catalog, {"attention": answer})
        assert len(selection.names) == own == len(selection.weights(catalog.observation))


@pytest.mark.parametrize(
    ("family", "legend"),
    [
        ("llama", "In shapes, T is the number of tokens."),
        ("t5", "In shapes, S is the number of the encoder's tokens, T that of the decoder's."),
    ],
)
def test_the_legend_of_the_shapes(family: str, legend: str) -> None:
    model = tiny.model(family)
    assert shapes_legend(build_catalog(observe(model))) == legend
    unseen = Observation(list_modules(model), probed=False)
    assert shapes_legend(build_catalog(unseen)) == ""


def test_the_help_fits_a_terminal() -> None:
    assert max(map(len, HELP.splitlines())) <= 80
    for said in ("0-2", "weights", "all", "<", "--layers", "2T"):
        assert said in HELP
    assert re.search(r"\?.*<", INTRODUCTION)
