"""Answers -> patterns -> modules, and what is said of answers that do not fit."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from activations.arguments import describe_numbers, parse_numbers
from activations.errors import UsageError
from activations.selection.answers import format_spec, parse_spec, resolve_answer, select
from activations.selection.catalog import Catalog, build_catalog
from activations.selection.observation import Module, Observation, WeightsSource


def small_catalog() -> Catalog:
    """Two layers, each with an outer and an inner attention that return the same weights."""
    modules = [Module("embed", "Embedding"), Module("m.layers", "ModuleList")]
    weights = []
    for i in range(2):
        layer = f"m.layers.{i}"
        modules += [
            Module(layer, "Layer"),
            Module(f"{layer}.attn", "OuterAttention"),
            Module(f"{layer}.attn.self", "InnerAttention"),
            Module(f"{layer}.attn.self.query", "Linear"),
            Module(f"{layer}.cross.attn", "CrossAttention"),
            Module(f"{layer}.mlp", "MLP"),
            Module(f"{layer}.mlp.up", "Linear"),
        ]
        weights += [
            WeightsSource(f"{layer}.attn.self", 0, (1,), "self", i),
            WeightsSource(f"{layer}.attn", 0, (1,), "self", i),
            WeightsSource(f"{layer}.cross.attn", 0, (1,), "cross", i),
        ]
    return build_catalog(Observation(tuple(modules), weights=tuple(weights)))


CATALOG = small_catalog()
ATTENTION = [pattern.text for pattern in CATALOG.of("attention")]


def test_the_catalogue_the_tests_below_count_on() -> None:
    assert ATTENTION == [
        "m.layers.{layer}.attn",
        "m.layers.{layer}.attn.self",
        "m.layers.{layer}.cross.attn",
        "m.layers.{layer}.attn.self.query",
    ]


@pytest.mark.parametrize(
    ("answer", "chosen"),
    [
        ("", []),
        ("0", [0]),
        (" 3 , 0,0", [0, 3]),
        ("m.layers.{layer}.attn", [0]),
        ("m.{layer}.attn", [0]),  # the list's name left out
        ("m.{layer}.attn.self", [1]),
        ("query", [3]),
        ("cross.attn", [2]),
        ("self.query", [3]),
        ("1-2", [1, 2]),
        ("0, 2 - 3", [0, 2, 3]),
        ("all", [0, 1, 2, 3]),
        ("ALL", [0, 1, 2, 3]),
        ("weights", [0, 2]),  # each tensor once: not the inner attention
        ("weights,query", [0, 2, 3]),
    ],
)
def test_answers(answer: str, chosen: list[int]) -> None:
    found = resolve_answer(answer, "attention", CATALOG)
    assert [pattern.text for pattern in found] == [ATTENTION[i] for i in chosen]


UNKNOWN = "Module not found: no attention pattern is called"
NO_INDEX = "there is no {0} pattern {1}. The indices go from 0 to {2}. --list shows them."
AMBIGUOUS = "'attn' is ambiguous: it fits 2 attention patterns. Write more of the name:"
TWO = "'m.layers.{layer}.attn' or 'm.layers.{layer}.cross.attn'"
LIKE_ATN = "'m.layers.{layer}.attn', 'm.layers.{layer}.cross.attn' or 'm.layers.{layer}.attn.self'"
ONE_MODULE = "It is one module of 'm.layers.{layer}.attn'; select that, with --layers 1."
NO_WEIGHTS = "no mlp pattern of this model returns attention weights, so 'weights' selects nothing."


@pytest.mark.parametrize(
    ("answer", "category", "message"),
    [
        ("atn", "attention", f"{UNKNOWN} 'atn'. Did you mean {LIKE_ATN}?"),
        ("zzzz", "attention", f"{UNKNOWN} 'zzzz'. --list shows what there is."),
        ("attn", "attention", f"{AMBIGUOUS} {TWO}."),
        ("4", "attention", NO_INDEX.format("attention", 4, 3)),
        ("2-4", "attention", NO_INDEX.format("attention", 4, 3)),
        ("2-1", "attention", "'2-1' is an empty range. Write the smaller index first."),
        ("-1", "mlp", NO_INDEX.format("mlp", -1, 1)),
        ("up", "attention", f"{UNKNOWN} 'up'. It is in the category mlp."),
        ("m.layers.1.attn", "attention", f"{UNKNOWN} 'm.layers.1.attn'. {ONE_MODULE}"),
        ("weights", "mlp", f"{NO_WEIGHTS} --list shows what there is."),
    ],
)
def test_bad_answers_say_why(answer: str, category: str, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        resolve_answer(answer, category, CATALOG)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("spec", "answers"),
    [
        ("attn:0;mlp:0;other:", ("0", "0", "")),
        ("attention: weights ", ("weights", "", "")),
        ("MLP:all", ("", "all", "")),
        (";;other:1,2;", ("", "", "1,2")),
    ],
)
def test_spec(spec: str, answers: tuple[str, str, str]) -> None:
    found = parse_spec(spec)
    assert tuple(found.values()) == answers
    assert parse_spec(format_spec(found)) == found


@pytest.mark.parametrize("spec", ["0", "attn", "attn=0", "heads:0", "attn:0;attn:1", ":0"])
def test_spec_that_cannot_be_read(spec: str) -> None:
    with pytest.raises(UsageError, match="--auto-select"):
        parse_spec(spec)


@pytest.mark.parametrize("spec", ["", ";", "attn:;mlp:;other:", "attn: "])
def test_spec_that_selects_nothing(spec: str) -> None:
    with pytest.raises(UsageError, match="nothing selected"):
        parse_spec(spec)


def test_all_layers_or_those_asked_for() -> None:
    answers = {"attention": "0", "mlp": "", "other": "embed"}
    everything = select(CATALOG, answers)
    assert everything.modules["attention"] == ("m.layers.0.attn", "m.layers.1.attn")
    one = select(CATALOG, answers, [1])
    # what has no layer number is kept
    assert one.names == ("m.layers.1.attn", "embed")
    with pytest.raises(UsageError, match="no layer 2. Their layers are 0-1"):
        select(CATALOG, answers, [1, 2])


@pytest.mark.parametrize(
    ("text", "numbers"), [("0", [0]), ("4-7,0", [0, 4, 5, 6, 7]), (" 1 - 2 , 2", [1, 2])]
)
def test_numbers(text: str, numbers: list[int]) -> None:
    assert parse_numbers(text, "--layers") == numbers


@pytest.mark.parametrize("text", ["", "a", "1-", "-1", "3-1", "1,,2", "1.5", "9999999", "²"])
def test_numbers_that_cannot_be_read(text: str) -> None:
    with pytest.raises(UsageError, match="--heads cannot read"):
        parse_numbers(text, "--heads")


@given(st.sets(st.integers(0, 300), min_size=1))
def test_numbers_described_read_back(numbers: set[int]) -> None:
    assert parse_numbers(describe_numbers(numbers), "--layers") == sorted(numbers)


@given(st.text(max_size=40))
def test_any_answer_is_resolved_or_refused(answer: str) -> None:
    try:
        found = resolve_answer(answer, "attention", CATALOG)
    except UsageError as error:
        assert "\n" not in str(error) or "\n" in answer
    else:
        assert set(found) <= set(CATALOG.of("attention"))
