"""A document -> stacks of attention: what goes together, what it is called, what is left out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from activations import load
from activations.attention.scores import SCORES, with_scores
from activations.attention.stack import Stack, take
from activations.attention.weights import find_weights, read_attention
from activations.document import json_arrays
from activations.document.format import FORMAT
from activations.document.writer import write_document
from activations.errors import ToolkitError, UsageError
from activations.outputs.tensor import Tensor
from activations.views.page import facts_of

TOKENS = list("abcdef")


def weights(*shape: int) -> np.ndarray:
    made = np.random.default_rng(sum(shape)).random(shape, dtype=np.float32)
    return made / made.sum(-1, keepdims=True)


def read(
    folder: Path, *places: tuple[str, int, str, np.ndarray], **header: Any
) -> tuple[list[Stack], list[str]]:
    """Stacks and warnings of a document with (module, layer, kind, weights) at element 1 each."""
    outputs: dict[str, Any] = {
        module: [None, Tensor("float32", array.shape, array)] for module, _, _, array in places
    }
    noted = [
        {"module": module, "element": [1], "layer": layer, "kind": kind}
        for module, layer, kind, _ in places
    ]
    known = {"format": FORMAT, "model": "m", "prompt": "p", "tokens": TOKENS}
    write_document(
        folder / "x.json", {**known, "attention_weights": noted, **header}, {"attention": outputs}
    )
    warnings: list[str] = []
    return read_attention(load(folder / "x.json"), warnings.append), warnings


def test_layers_of_a_hybrid_keep_their_numbers(tmp_path: Path) -> None:
    places = [(f"m.layers.{i}.attn", i, "self", weights(1, 2, 6, 6)) for i in (3, 7, 31)]
    (stack,), warnings = read(tmp_path, *places)
    assert (stack.name, stack.layers, warnings) == ("Self", (3, 7, 31), [])
    assert stack.rows == stack.columns == tuple(TOKENS)


def test_two_attentions_in_a_layer_are_called_by_their_modules(tmp_path: Path) -> None:
    names = [f"m.layers.{i}.self_attn.{j}" for i in range(2) for j in range(2)]
    places = [(name, int(name[9]), "self", weights(1, 2, 6, 6)) for name in names]
    stacks, _ = read(tmp_path, *places)
    assert [(s.name, s.layers) for s in stacks] == [
        ("Self, m.layers.{layer}.self_attn.0", (0, 1)),
        ("Self, m.layers.{layer}.self_attn.1", (0, 1)),
    ]
    assert facts_of(stacks).startswith(
        "Self (m.layers.{layer}.self_attn.0): layers 0-1, 2 heads, 6 tokens; Self (m.layers.{layer}"
    )


def test_a_layer_noted_twice_is_shown_twice(tmp_path: Path) -> None:
    places = [(name, 0, "self", weights(1, 2, 6, 6)) for name in ("m.0.attn", "m.0.attn@1")]
    stacks, _ = read(tmp_path, *places)
    assert [s.name for s in stacks] == ["Self, m.{layer}.attn", "Self, m.{layer}.attn (2)"]


def test_pooled_layers_are_shown_by_position(tmp_path: Path) -> None:
    stacks, warnings = read(
        tmp_path,
        ("m.0.attn", 0, "self", weights(1, 2, 6, 6)),
        ("m.1.attn", 1, "self", weights(1, 2, 3, 3)),
    )
    assert [s.name for s in stacks] == [
        "Self, layer 0, 2 heads of 6 x 6",
        "Self, layer 1, 2 heads of 3 x 3",
    ]
    assert stacks[1].rows == ("#0", "#1", "#2")
    assert set(warnings) == {
        "the document has 6 tokens for 3 positions; positions are shown by number."
    }


def test_the_state_of_linear_attention_is_no_attention(tmp_path: Path) -> None:
    state = np.linspace(-3, 3, 2 * 8 * 8, dtype=np.float32).reshape(1, 2, 8, 8)
    places = [
        ("m.0.attn", 0, "self", weights(1, 2, 6, 6)),
        ("m.1.attn", 1, "self", state),
        ("m.2.attn", 2, "self", state),
    ]
    (stack,), warnings = read(tmp_path, *places)
    assert stack.layers == (0,)
    assert warnings == [
        "m.1.attn, element 1 (and 1 more) has the shape (1, 2, 8, 8) for 6 tokens, and its values "
        "are not attention weights. Left out."
    ]
    with pytest.raises(ToolkitError, match=r"not attention weights\. Choose other --layers\.$"):
        read(tmp_path, *places[1:])
    # Raw scores of the tokens themselves are shown (squeezebert).
    (stack,), warnings = read(tmp_path, places[1], tokens=list("abcdefgh"))
    assert (stack.layers, warnings) == ((1,), [])


@pytest.mark.parametrize("shape", [(1, 2, 9, 6), (1, 2, 6, 9), (1, 2, 3, 2, 6), (1, 6, 32), (6,)])
def test_what_no_view_can_show_is_named_once(shape: tuple[int, ...], tmp_path: Path) -> None:
    odd = [(f"m.{i}.attn", i, "self", np.zeros(shape, np.float32)) for i in (1, 2, 3)]
    line = (
        "Attention tensor does not have correct dimensions: m.1.attn, element 1 (and 2 more) has "
        f"the shape {shape}, expected (batch, heads, seq_len, seq_len). Left out."
    )
    (stack,), warnings = read(tmp_path, ("m.0.attn", 0, "self", weights(1, 2, 6, 6)), *odd)
    assert (stack.layers, warnings) == ((0,), [line])
    with pytest.raises(ToolkitError) as caught:
        read(tmp_path, *odd)
    assert str(caught.value) == line.replace(" (and 2 more)", "").replace(
        "Left out.",
        "Choose other --layers, or capture modules that return attention weights.",
    )


PREFIXED = ("prefix 0", "prefix 1", "prefix 2", *TOKENS)
POOLED = {"environment": {"toolkit": "1.0"}}  # it reads a whole text in one pass


@pytest.mark.parametrize(
    ("sizes", "header", "expected"),  # of the first layer: rows, columns, first column, offset
    [
        ([(6, 9)], {}, (tuple(TOKENS), PREFIXED, -3, 3)),
        ([(2, 6)], {}, (("e", "f"), tuple(TOKENS), 0, 4)),
        ([(2, 6), (2, 4)], {}, (("e", "f"), tuple(TOKENS), 0, 4)),  # a sliding window
        # Funnel's pooled rows are not the last tokens; nor is anything that no side fits.
        ([(3, 6), (6, 6)], {}, (("#0", "#1", "#2"), tuple(f"#{i}" for i in range(6)), 0, None)),
        ([(2, 6)], POOLED, (("#0", "#1"), tuple(f"#{i}" for i in range(6)), 0, None)),
        ([(2, 5)], {}, (("#0", "#1"), tuple(f"#{i}" for i in range(5)), 0, None)),
        ([(2, 5)], {"tokens": None}, (("#3", "#4"), tuple(f"#{i}" for i in range(5)), 0, 3)),
    ],
)
@pytest.mark.parametrize("kind", ["self", "encoder", "decoder"])
def test_fewer_rows_than_columns(
    sizes: list[tuple[int, int]], header: dict[str, Any], expected: Any, kind: str, tmp_path: Path
) -> None:
    places = [(f"m.{i}.attn", i, kind, weights(1, 2, *size)) for i, size in enumerate(sizes)]
    named = {f"{kind}_tokens": header.get("tokens", TOKENS)} if kind == "decoder" else {}
    stacks, warnings = read(tmp_path, *places, **header, **named)
    (stack,) = (stack for stack in stacks if 0 in stack.layers)
    assert (stack.rows, stack.columns, stack.start, stack.offset) == expected
    is_known = stack.rows[0][0] != "#"
    assert stack.knows_tokens == is_known
    said = f"the document has 6 tokens for {sizes[0][0]} x {sizes[0][1]} positions"
    assert any(line.startswith(said) for line in warnings) != (is_known or "tokens" in header)


def test_one_step_of_a_decoder_has_its_last_tokens_in_cross_attention_too(tmp_path: Path) -> None:
    stacks, warnings = read(
        tmp_path,
        ("d.0.attn", 0, "decoder", weights(1, 2, 1, 3)),
        ("d.0.cross", 0, "cross", weights(1, 2, 1, 6)),
        decoder_tokens=list("xyz"),
    )
    assert [stack.rows for stack in stacks] == [("z",), ("z",)]
    assert [stack.columns for stack in stacks] == [("x", "y", "z"), tuple(TOKENS)]
    assert warnings == []


@pytest.mark.parametrize(
    ("shape", "marks"),  # the columns where the second text and the generated one begin
    [((6, 6), (2, 4)), ((6, 9), (5, 7)), ((2, 6), (2, 4)), ((3, 3), (None, None))],
)
def test_where_texts_begin(shape: tuple[int, int], marks: Any, tmp_path: Path) -> None:
    place = ("m.0.attn", 0, "self", weights(1, 2, *shape))
    (stack,), _ = read(tmp_path, place, sentence_b_start=2, continuation_start=4)
    assert (stack.split, stack.written) == marks


@pytest.mark.parametrize(
    ("shape", "tokens", "rows", "columns", "marks"),
    [
        ((6, 9), (1, 4), "bcd", "bcd", (1, None)),
        ((6, 9), (3, 6), "def", "def", (None, 1)),
        ((2, 6), (3, 6), "ef", "def", (None, 1)),
        ((2, 6), (0, 5), "e", "abcde", (2, 4)),
        ((2, 6), (0, 4), "", "", None),
    ],
)
def test_parts_of_fewer_rows_than_columns(
    shape: tuple[int, int], tokens: Any, rows: str, columns: str, marks: Any, tmp_path: Path
) -> None:
    whole = weights(1, 2, *shape)
    place = ("m.0.attn", 0, "self", whole)
    stacks, _ = read(tmp_path, place, sentence_b_start=2, continuation_start=4)
    parts = take(stacks, tokens=tokens)
    if not rows:
        assert parts == []
        return
    (part,) = parts
    assert ("".join(part.rows), "".join(part.columns)) == (rows, columns)
    assert (part.split, part.written) == marks
    assert part.row_start == TOKENS.index(rows[0])
    assert part.start == TOKENS.index(columns[0])
    first, column = TOKENS.index(rows[0]) - 6 + shape[0], TOKENS.index(columns[0]) - 6 + shape[1]
    np.testing.assert_array_equal(
        part.weights[0].dense(),
        whole[0, :, first:, column:][:, : len(rows), : len(columns)],
    )
    assert not part.has_whole_rows
    with pytest.raises(UsageError, match="there are tokens 0:6"):
        take(stacks, tokens=(0, 7))


def test_cross_attention_is_not_square(tmp_path: Path) -> None:
    (stack,), warnings = read(
        tmp_path,
        ("d.0.cross", 0, "cross", weights(1, 2, 3, 6)),
        decoder_tokens=["x", "y", "z"],
    )
    assert (stack.rows, stack.columns) == (("x", "y", "z"), tuple(TOKENS))
    assert warnings == []


@pytest.mark.parametrize(
    ("header", "known"),  # whether the tokens of encoder, decoder and cross attention are known
    [
        ({"decoder_tokens": list("xyz")}, (True, True, True)),
        ({"decoder_tokens": list("xy")}, (True, False, False)),
        ({"tokens": [], "decoder_tokens": list("xyz")}, (False, True, False)),
        ({"tokens": []}, (False, False, False)),
    ],
)
def test_tokens_that_the_document_does_not_name(
    header: dict[str, Any], known: tuple[bool, ...], tmp_path: Path
) -> None:
    stacks, _ = read(
        tmp_path,
        ("e.0.attn", 0, "encoder", weights(1, 2, 6, 6)),
        ("d.0.attn", 0, "decoder", weights(1, 2, 3, 3)),
        ("d.0.cross", 0, "cross", weights(1, 2, 3, 6)),
        **{"tokens": [*TOKENS[:-1], "."], **header},
    )
    assert [s.name for s in stacks] == ["Encoder", "Decoder", "Cross"]
    assert tuple(stack.knows_tokens for stack in stacks) == known
    assert stacks[2].rows == (("x", "y", "z") if known[1] else ("#0", "#1", "#2"))
    # Nor do equal positions of two texts tell anything.
    named = {s.name: s.scores[..., SCORES.index("punctuation")] for s in with_scores(stacks)}
    assert np.isnan(named["Encoder"]).any() != known[0]
    assert np.isnan(named["Cross"]).any() != known[2]


def test_sinks_take_a_part_of_every_row(tmp_path: Path) -> None:
    (stack,), warnings = read(tmp_path, ("m.0.attn", 0, "self", weights(1, 2, 6, 6) / 2))
    assert (stack.layers, warnings) == ((0,), [])
    np.testing.assert_allclose(stack.weights[0].dense().sum(-1), 0.5, atol=1e-6)


# ------------------------------------------------------------------ where nothing says what is what

WEIGHTS = weights(1, 4, 4, 4)
HIDDEN = weights(1, 4, 8)
KEYS, VALUES = weights(2, 1, 4, 4, 6)


@pytest.mark.parametrize(
    ("output", "element"),
    [
        ([HIDDEN, WEIGHTS], (1,)),
        ({"hidden": HIDDEN, "attentions": WEIGHTS}, ("attentions",)),
        ({"attentions": WEIGHTS, "hidden": HIDDEN}, ("attentions",)),
        ({"hidden": HIDDEN, "of": {"more": [None, WEIGHTS]}}, ("of", "more", 1)),
        ([HIDDEN, [None, WEIGHTS]], (1, 1)),
        ([HIDDEN, [KEYS, VALUES], WEIGHTS], (2,)),
        ([HIDDEN, [HIDDEN, {"attentions": WEIGHTS}]], (1, 1, "attentions")),
        ([HIDDEN, [WEIGHTS, WEIGHTS]], (1, 0)),
        ([[WEIGHTS, 1 - WEIGHTS], WEIGHTS], (1,)),  # element 1 first
        ({"a": [None, [HIDDEN, [None, WEIGHTS]]]}, ("a", 1, 1, 1)),
        (WEIGHTS, ()),
        # Fewer rows than columns, where nothing is square; the rows of keys do not sum to 1.
        ([HIDDEN, WEIGHTS[..., 2:, :]], (1,)),
        ([WEIGHTS[..., 1:, :] * 9, [KEYS, VALUES], WEIGHTS[..., 1:, :]], (2,)),
        ({"of": [[HIDDEN[:, :2], KEYS[:, :, :2] * 9], WEIGHTS[..., 2:, :]]}, ("of", 1)),
        ([WEIGHTS[..., 2:, :], WEIGHTS], (1,)),
    ],
)
@pytest.mark.parametrize("indent", [None, 1])
def test_weights_are_looked_for_in_what_other_programs_wrote(
    output: Any, element: tuple[int | str, ...], indent: int | None, tmp_path: Path
) -> None:
    text = json.dumps(
        {"captured": {"attention_outputs": {"m.3.attn": {"output": output}}}},
        indent=indent,
        default=np.ndarray.tolist,
    )
    (tmp_path / "x.json").write_text(text)
    with load(tmp_path / "x.json") as document:
        (place,) = find_weights(document)
        assert (place.element, place.layer) == (element, 3)
        (stack,) = read_attention(document)
        rows = len(stack.rows)
        assert document.element_shapes("m.3.attn")[element] == (1, 4, rows, 4)
        found = stack.weights[0].dense()
    np.testing.assert_array_equal(found, WEIGHTS[0, :, 4 - rows :])


def test_the_search_is_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    looked: list[Any] = []
    monkeypatch.setattr(json_arrays, "members", lambda node: looked.append(node))
    rows = [[0.5] * 17 for _ in range(100_000)]
    sizes = json_arrays.guessed_shapes(rows)
    assert sizes[()] == (100_000, 17)
    assert sizes[5,] == (17,)
    assert len(looked) <= 1000
    # No number of a tensor is, but the first of its rows.
    looked.clear()
    assert json_arrays.guessed_shapes([HIDDEN.tolist(), WEIGHTS.tolist()])[1,] == (1, 4, 4, 4)
    assert sum(isinstance(node, float) for node in looked) == 0


# --------------------------------------------------------------------------- parts of what there is


HEADS = ["Decoder', which has heads 0-1.", "Cross', which has heads 0-1."]
SIZES = ["Decoder', which has 3 tokens.", "Cross', which has 3 x 6 tokens."]


@pytest.mark.parametrize(
    ("part", "shown", "warnings"),
    [
        ({"heads": [3]}, ["Encoder"], [f"--heads leaves out '{line}" for line in HEADS]),
        ({"tokens": (4, 6)}, ["Encoder"], [f"--tokens leaves out '{line}" for line in SIZES]),
        ({"heads": [0, 2], "tokens": (2, 6), "layers": [1]}, ["Encoder", "Decoder", "Cross"], []),
        ({"layers": [5]}, ["Encoder"], []),  # a layer is shown, whichever kinds have it
        ({"layers": [5], "heads": [3]}, ["Encoder"], []),  # nothing else has this layer
        ({"layers": [5], "heads": [0], "tokens": (6, 6)}, UsageError, []),
    ],
)
def test_parts_and_what_they_leave_out(
    part: dict[str, Any], shown: Any, warnings: list[str], tmp_path: Path
) -> None:
    places = [(f"e.{i}.attn", i, "encoder", weights(1, 4, 6, 6)) for i in (1, 5)]
    places += [("d.1.attn", 1, "decoder", weights(1, 2, 3, 3))]
    places += [("d.1.cross", 1, "cross", weights(1, 2, 3, 6))]
    stacks, _ = read(tmp_path, *places, decoder_tokens=list("xyz"))
    told: list[str] = []
    if shown is UsageError:
        with pytest.raises(UsageError, match="--tokens 6:6 is outside the text: there are tokens"):
            take(stacks, **part)
    else:
        assert [stack.name for stack in take(stacks, **part, warn=told.append)] == shown
    assert told == warnings


@pytest.mark.parametrize(
    ("layers", "shown"),
    [
        ([-1], [("encoder", (7,)), ("decoder", (3,)), ("cross", (3,))]),  # each has its own last
        ([-2, 5], [("encoder", (5,)), ("decoder", (1,))]),
        ([-3], [("encoder", (1,))]),
        ([0, -4], "there is no layer 0 in the document. It has layers 1,3,5,7"),
        ([-4], "there is no layer -4 in the document. It has layers 1,3,5,7"),
    ],
)
def test_layers_from_the_end(layers: list[int], shown: Any, tmp_path: Path) -> None:
    places = [(f"e.{i}.attn", i, "encoder", weights(1, 4, 6, 6)) for i in (1, 7)]
    places += [
        ("e.5.attn", 5, "encoder", weights(1, 2, 6, 6))
    ]  # of the same list, in its own shape
    places += [(f"d.{i}.attn", i, "decoder", weights(1, 2, 3, 3)) for i in (1, 3)]
    places += [("d.3.cross", 3, "cross", weights(1, 2, 3, 6))]
    stacks, _ = read(tmp_path, *places, decoder_tokens=list("xyz"))
    if isinstance(shown, str):
        with pytest.raises(UsageError, match=shown):
            take(stacks, layers)
    else:
        assert [(stack.kind, stack.layers) for stack in take(stacks, layers)] == shown


def test_lists_with_the_same_layers_each_have_their_last(tmp_path: Path) -> None:
    both = [(name, i) for name, count in (("a", 3), ("b", 5)) for i in range(count)]
    places = [(f"{i}.{name}", i, "self", weights(1, 2, 6, 6)) for name, i in both]
    stacks, _ = read(tmp_path, *places)
    last = [(stack.name, stack.layers) for stack in take(stacks, [-1])]
    assert last == [("Self, {layer}.a", (2,)), ("Self, {layer}.b", (4,))]


def test_what_leaves_nothing_at_all_is_only_an_error(tmp_path: Path) -> None:
    places = [
        ("e.5.attn", 5, "encoder", weights(1, 2, 6, 6)),
        ("d.1.attn", 1, "decoder", weights(1, 4, 3, 3)),
    ]
    stacks, _ = read(tmp_path, *places, decoder_tokens=list("xyz"))
    told: list[str] = []
    assert take(stacks, layers=[5], heads=[3], tokens=(0, 2), warn=told.append) == []
    assert told == []
