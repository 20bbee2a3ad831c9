"""Which layer a call belongs to, on made-up passes."""

from __future__ import annotations

from dataclasses import replace

import pytest

from activations.errors import UsageError
from activations.selection.answers import Selection, select
from activations.selection.catalog import build_catalog
from activations.selection.observation import Module, Observation, WeightsSource

Calls = str  # "layers.0(layers.0.attn layers.0.mlp) layers.0(...)": who calls whom, in order


def observed(calls: Calls, *never_called: str) -> Observation:
    """What the probe sees of a pass with these calls."""
    spans: dict[str, list[tuple[int, int]]] = {}
    running: list[tuple[str, int]] = []
    for time, word in enumerate(calls.replace("(", " ( ").replace(")", " ) ").split()):
        if word == ")":
            name, began = running.pop()
            spans.setdefault(name, []).append((began, time))
        elif word != "(":
            running.append((word, time))
    names = sorted({*spans, *never_called})
    counts = {name: len(spans.get(name, ())) for name in names}
    return Observation(tuple(Module(n, "Linear") for n in names), calls=counts, spans=spans)


@pytest.mark.parametrize(
    ("calls", "layers"),
    [
        ("h.0(h.0.a()) h.1(h.1.a())", {"h.0.a": (0,), "h.1.a": (1,)}),
        # one module for three layers, and what is inside it
        (
            "h.0(h.0.a()) h.0(h.0.a()) h.0(h.0.a())",
            {"h.0": (0, 1, 2), "h.0.a": (0, 1, 2)},
        ),
        # two, in turn or one after the other
        ("h.0() h.1() h.0() h.1()", {"h.0": (0, 2), "h.1": (1, 3)}),
        ("h.0() h.0() h.1()", {"h.0": (0, 1), "h.1": (2,)}),
        # an expert, or a chunk: called again in the same layer
        ("h.0(h.0.a() h.0.a()) h.1(h.1.a())", {"h.0.a": (0,), "h.1.a": (1,)}),
        ("h.0(h.0.a() h.0.a()) h.0(h.0.a() h.0.a())", {"h.0.a": (0, 0, 1, 1)}),
        # a part of layer 0 that the others use too
        ("h.0(h.0.act()) h.1(h.0.act()) h.2(h.0.act())", {"h.0.act": (0, 1, 2)}),
        # called outside of its layer
        ("h.0.a() h.0()", {"h.0.a": (0,)}),
        ("h.0.a() h.0(h.0.a()) h.0(h.0.a()) h.0.a()", {"h.0.a": (None, 0, 1, None)}),
        # layers that are only lists are not called themselves
        ("h.0.a() h.0.a() h.1.a()", {"h.0.a": (0,), "h.1.a": (1,)}),
        # two lists have their own layers
        ("x.h.0() x.h.0() y.h.0()", {"x.h.0": (0, 1), "y.h.0": (0,)}),
        ("norm() norm()", {"norm": (None,)}),
    ],
)
def test_the_layer_of_each_call(calls: Calls, layers: dict[str, tuple[int | None, ...]]) -> None:
    catalog = build_catalog(observed(calls))
    assert {name: catalog.layers_of(name) for name in layers} == layers


@pytest.mark.parametrize(
    ("calls", "attention", "layers"),
    [
        (
            "m(m.block(m.block.a()) m.block(m.block.a())) m.norm() m.norm()",
            ["m.block.a"],
            {"m": (None,), "m.block": (0, 1), "m.block.a": (0, 1), "m.norm": (None,)},
        ),
        (  # two, in turn
            "x(x.a()) y(y.a()) x(x.a()) y(y.a())",
            ["x.a", "y.a"],
            {"x": (0, 2), "x.a": (0, 2), "y.a": (1, 3)},
        ),
        ("m(m.a() m.a())", ["m.a"], {"m": (None,), "m.a": (0, 1)}),
        ("m(m.a())", ["m.a"], {"m.a": (None,)}),
    ],
)
def test_blocks_of_attention_without_a_number(
    calls: Calls, attention: list[str], layers: dict[str, tuple[int | None, ...]]
) -> None:
    sources = tuple(WeightsSource(name, 0, (1,), "self", i) for i, name in enumerate(attention))
    catalog = build_catalog(replace(observed(calls), weights=sources))
    assert {name: catalog.layers_of(name) for name in layers} == layers


def test_what_is_never_called() -> None:
    catalog = build_catalog(observed("h.0() h.1(h.1.a())", "h.0.a"))
    assert catalog.layers_of("h.0.a") == (0,)
    catalog = build_catalog(observed("h.0() h.0()", "h.0.a"))
    assert catalog.layers_of("h.0.a") == ()
    unprobed = Observation((Module("h.3", "Linear"),), probed=False)
    assert build_catalog(unprobed).layers_of("h.3") == (3,)


REUSED = observed("h.0(h.0.a()) h.0(h.0.a()) h.0(h.0.a()) norm()")
HYBRID = observed("h.0(h.0.a()) h.1(h.1.b()) h.2(h.2.a()) h.3(h.3.b()) norm()")
PAIR = observed("x.0(x.0.a()) x.1(x.1.a()) y.0(y.0.a()) y.1(y.1.a()) y.2(y.2.a())")


@pytest.mark.parametrize(
    ("seen", "layers", "kept"),
    [
        (REUSED, None, {"h.0.a": None, "norm": None}),
        (REUSED, [0, 1, 2], {"h.0.a": None, "norm": None}),
        (REUSED, [1], {"h.0.a": {1}, "norm": None}),
        (REUSED, [0, -1], {"h.0.a": {0, 2}, "norm": None}),
        (HYBRID, [-2], {"h.2.a": None, "norm": None}),
        (PAIR, [-1], {"x.1.a": None, "y.2.a": None}),  # each has its own last layer
        (PAIR, [-3], {"y.0.a": None}),
        (PAIR, [2], {"y.2.a": None}),
    ],
)
def test_layers_chosen(
    seen: Observation, layers: list[int] | None, kept: dict[str, set[int] | None]
) -> None:
    names = [p.text for p in build_catalog(seen).patterns if p.text.endswith((".a", "norm"))]
    selection: Selection = select(build_catalog(seen), {"other": ",".join(names)}, layers)
    assert {name: selection.calls.get(name) for name in selection.names} == kept
    counts = selection.counts(seen)
    assert counts == {n: seen.calls[n] if c is None else len(c) for n, c in kept.items()}


@pytest.mark.parametrize(
    ("seen", "layer", "message"),
    [
        (REUSED, 3, "no layer 3. Their layers are 0-2."),
        (REUSED, -4, "no layer -4. Their layers are 0-2."),
        (HYBRID, -1, "no layer -1 (3). Their layers are 0,2."),  # the last one has no such module
        (HYBRID, -5, "no layer -5. Their layers are 0,2."),
        (PAIR, -4, "no layer -4. Their layers are 0-2."),
    ],
)
def test_layers_that_are_not_there(seen: Observation, layer: int, message: str) -> None:
    names = [p.text for p in build_catalog(seen).patterns if p.text.endswith(".a")]
    with pytest.raises(UsageError) as caught:
        select(build_catalog(seen), {"other": ",".join(names)}, [0, layer])
    assert str(caught.value) == f"--layers: the selected patterns have {message}"
