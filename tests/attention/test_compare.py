"""How far heads are apart in two documents, against sums written out here."""

from __future__ import annotations

import itertools
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import torch
from browser import Layer, random_weights, write_capture
from conftest import Run
from predicted import change, write_predicted

from activations import Document, capture, load
from activations.attention.compare import _divergence
from activations.attention.matching import match
from activations.document.predictions import Predictions
from activations.errors import ToolkitError, UsageError


def longest(a: str, b: str) -> int:
    """The length of the longest common subsequence, by trying all."""
    subsequences = (
        set(itertools.combinations(text, size)) for text in (a, b) for size in range(len(text) + 1)
    )
    found = list(subsequences)
    half = len(found) // 2
    both = set().union(*found[:half]) & set().union(*found[half:])
    return max(map(len, both))


TEXTS = [
    ("abc", "abc"), ("abc", "axc"), ("abc", "abxc"), ("abcab", "bca"), ("aab", "baa"),
    ("xaby", "abxy"), ("abcdabcd", "dacb"), ("a", "b"), ("ab", "xyab"), ("abab", "baba"),
]  # fmt: skip


@pytest.mark.parametrize(("a", "b"), TEXTS)
def test_the_longest_common_subsequence(a: str, b: str) -> None:
    found = match(a, b)
    assert int(found.equal.sum()) == longest(a, b)
    for i, j, equal in zip(found.a, found.b, found.equal, strict=True):
        assert (a[i] == b[j]) == equal
    for side in (found.a, found.b):
        assert (np.diff(side) > 0).all()
    assert sorted([*found.a, *found.unmatched[0]]) == list(range(len(a)))
    assert sorted([*found.b, *found.unmatched[1]]) == list(range(len(b)))


def test_a_name_in_place_of_another_is_matched_by_position() -> None:
    found = match(["one", "day", "Zol", "met", "a"], ["one", "day", "Mir", "met", "a"])
    assert found.a.tolist() == found.b.tolist() == [0, 1, 2, 3, 4]
    assert found.equal.tolist() == [True, True, False, True, True]
    assert match("ab", "axxb").unmatched == ((), (1, 2))


def document(path: Path, weights: list[np.ndarray], **header: Any) -> Document:
    write_capture(path, [Layer(i, layer) for i, layer in enumerate(weights)], **header)
    return load(path)


def test_the_change_is_the_mean_distance_of_the_rows(tmp_path: Path) -> None:
    a, b = ([random_weights(seed + i, 3, 7) for i in range(2)] for seed in (0, 10))
    b[1][2] = a[1][2]  # a head that did not change
    b[0][1, 4] = np.nan  # and a row that is none
    first, second = document(tmp_path / "a.json", a), document(tmp_path / "b.json", b)
    rows = first.compare(second)
    expected = {}
    for layer, head in itertools.product(range(2), range(3)):
        x, y = a[layer][head].astype(float), b[layer][head].astype(float)
        distances = [np.abs(p - q).sum() / 2 for p, q in zip(x, y, strict=True)]
        expected[layer, head] = np.mean([d for d in distances if d == d])
    assert {(row["layer"], row["head"]): row["change"] for row in rows} == pytest.approx(expected)
    assert [row["change"] for row in rows] == sorted(expected.values(), reverse=True)
    assert expected[1, 2] == 0
    assert {row["attention"] for row in rows} == {"self"}
    assert [row["change"] for row in first.compare(first)] == [0] * 6


def test_what_goes_to_unmatched_tokens_counts_as_one(tmp_path: Path) -> None:
    a, b = random_weights(1, 1, 3), random_weights(2, 1, 5)
    first = document(tmp_path / "a.json", [a], tokens=["x", "y", "z"])
    second = document(tmp_path / "b.json", [b], tokens=["x", "n", "y", "m", "z"])
    with pytest.warns(UserWarning, match="0 tokens of A and 2 of B stand for none"):
        (row,) = first.compare(second)
    kept, distances = [0, 2, 4], []
    for i, j in enumerate(kept):
        p, q = [*a[0, i], 0.0], [*b[0, j, kept], b[0, j, [1, 3]].sum()]
        distances.append(np.abs(np.array(p) - q).sum() / 2)
    assert row["change"] == pytest.approx(np.mean(distances), abs=1e-6)


def test_the_divergence_is_at_most_that_over_all_tokens(tmp_path: Path, view: Run) -> None:
    random = np.random.default_rng(0)
    for name in "ab":
        write_predicted(tmp_path / f"{name}.json", tokens=6, most=4, lens=False)
    ids = json.loads((tmp_path / "b.json").read_text())["predictions"]["ids"]
    likely = np.sort(random.dirichlet(np.ones(5), 6)[:, :4])[:, ::-1]
    value = json.loads((tmp_path / "b.json").read_text())["predictions"]
    change(tmp_path / "b.json", predictions={**value, "probabilities": likely.tolist()})
    first, second = (load(tmp_path / f"{name}.json").predictions for name in "ab")
    assert first is not None
    assert second is not None
    divergences = []
    for p, q in zip(
        first.probabilities.astype(float), second.probabilities.astype(float), strict=True
    ):
        p, q = np.append(p, 1 - p.sum()), np.append(q, 1 - q.sum())
        divergences.append(max(float((p * np.log(p / q)).sum()), 0))
    assert ids
    outcome = view(tmp_path / "a.json", "--compare", tmp_path / "b.json", "--summary")
    most = int(np.argmax(divergences))
    assert outcome.out[-1] == (
        f"Predictions: over 6 positions they moved by at least {np.mean(divergences):.3g} nats on "
        f"average (KL divergence), the most at position {most}: {divergences[most]:.3g}."
    )


# What differs, as the second document has it -> the line, or the error
UNLIKE = {
    "layers": (
        lambda a: [a[0]],
        {},
        "the self attention has layers 0-1 in one document and layer 0",
    ),
    "heads": (lambda a: [w[:2] for w in a], {}, "the self attention has heads 0-2 in one document"),
}


@pytest.mark.parametrize("what", UNLIKE)
def test_unlike_models_are_refused_by_name(what: str, tmp_path: Path, view: Run) -> None:
    a = [random_weights(i, 3, 4) for i in range(2)]
    part, header, message = UNLIKE[what]
    first = document(tmp_path / "a.json", a)
    second = document(tmp_path / "b.json", part(a), **header)
    with pytest.raises(ToolkitError) as caught:
        first.compare(second)
    assert str(caught.value).startswith(message)
    only = f"--{what}"
    assert only in str(caught.value)
    chosen = "0" if what == "layers" else "0-1"
    outcome = view(first.path, "--compare", second.path, "--summary", only, chosen)
    assert outcome.code == 0


def test_only_documents_are_compared(tmp_path: Path) -> None:
    first = document(tmp_path / "a.json", [random_weights(0, 2, 4)])
    with pytest.raises(UsageError, match="a document, as load"):
        first.compare(tmp_path / "b.json")  # type: ignore[arg-type]


def captured(folder: Path, name: str, model: Any = None, **asked: Any) -> Document:
    return capture(model, select="attn:0", output=folder / f"{name}.json", **asked)


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Document:
    return captured(tmp_path_factory.mktemp("plain"), "plain")


# The same capture made in another way: what is said, and whether no head changed
WAYS = {
    "sdpa": ({"attn_implementation": "sdpa"}, "attention implementations: eager and sdpa", True),
    "bfloat16": ({"dtype": "bfloat16"}, "dtypes: float32 and bfloat16", True),
    "hooks and pyvene": ({"backend": "pyvene"}, "backends: hooks and pyvene", None),
    "an ablation": (
        {"ablate": "1.2"},
        "in A nothing, in B 1.2 (zero).",
        False,
    ),
}


@pytest.mark.parametrize("way", WAYS)
def test_what_is_only_rounding_is_told(
    way: str, plain: Document, tmp_path: Path, view: Run
) -> None:
    asked, said, is_rounding = WAYS[way]
    other = captured(tmp_path, "other", **asked)
    outcome = view(plain.path, "--compare", other.path, "--summary")
    lines = " ".join(outcome.err)
    assert said in lines
    assert ("No head changed by more than the rounding" in lines) == (is_rounding is True)
    assert [line.endswith("(rounding)") for line in outcome.out[1:17]] == [is_rounding is True] * 16
    most = float(outcome.out[1].split()[1])
    assert (most > 0.1) == (is_rounding is False)


def test_base_and_fine_tuned(checkpoints: Any, tmp_path: Path, view: Run) -> None:
    """Other keys of two heads: these change, and what comes after them."""
    base, tuned = checkpoints("llama"), tmp_path / "tuned"
    shutil.copytree(base, tuned)
    model = tiny.model("llama")
    with torch.no_grad():
        model.model.layers[1].self_attn.k_proj.weight[8:16] *= 3  # of the heads 2 and 3
    model.save_pretrained(tuned)
    first, second = (
        captured(tmp_path, name, str(folder), prompt="The cat sat on the mat.")
        for name, folder in (("base", base), ("tuned", tuned))
    )
    with pytest.warns(UserWarning, match="other models"):
        rows = first.compare(second)
    changed = {(row["layer"], row["head"]) for row in rows if row["change"] > 1e-6}
    assert {place for place in changed if place[0] < 2} == {(1, 2), (1, 3)}
    outcome = view(first.path, "--compare", second.path, "--summary", "csv")
    assert outcome.out[0] == "attention,layer,head,change"
    for line, row in zip(outcome.out[1:], rows, strict=True):
        assert line == f"self,{row['layer']},{row['head']},{row['change']:.6f}"


@pytest.mark.parametrize(("most", "code"), [(1, 0), (0.3, 1), (0, 1)])
def test_fail_above(most: float, code: int, plain: Document, tmp_path: Path, view: Run) -> None:
    other = captured(tmp_path, "other", ablate="1.2")
    outcome = view(plain.path, "--compare", other.path, "--summary", "--fail-above", most)
    assert outcome.code == code
    assert outcome.out[0].startswith("Head")  # it is printed in any case
    failed = [line for line in outcome.err if line.startswith("error: ")]
    assert len(failed) == code
    assert all("changed by 0.44" in line and f"--fail-above {most}" in line for line in failed)
    same = view(plain.path, "--compare", plain.path, "--summary", "--fail-above", 0)
    assert same.code == 0


def test_weights_that_were_left_out_are_no_rounding(
    plain: Document, tmp_path: Path, view: Run
) -> None:
    other = captured(tmp_path, "other", keep_above=0.05)
    outcome = view(plain.path, "--compare", other.path, "--summary")
    lines = " ".join(outcome.err)
    assert "A holds all weights, B those above 0.05: what was left out counts as changed." in lines
    assert "rounding" not in lines


def test_what_was_changed_in_another_way_is_told(tmp_path: Path, view: Run) -> None:
    first = captured(tmp_path, "first", ablate="1.2,mlp:3", at=[0, 2, 3])
    second = captured(tmp_path, "second", ablate="1.2", ablate_with="mean")
    outcome = view(first.path, "--compare", second.path, "--summary")
    assert outcome.err[0] == (
        "Changed in the pass: in A 1.2 (zero, at 0,2-3), mlp:3 (zero, at 0,2-3), in B 1.2 (mean)."
    )


def test_labels_that_hold_together_have_no_divergence(tmp_path: Path, view: Run) -> None:
    for name in "ab":
        write_predicted(tmp_path / f"{name}.json", tokens=6, most=4, lens=False, of="label")
    alike = view(tmp_path / "a.json", "--compare", tmp_path / "b.json", "--summary")
    assert alike.out[-1].startswith("Predictions: ")
    value = json.loads((tmp_path / "b.json").read_text())["predictions"]
    change(tmp_path / "b.json", predictions={**value, "probabilities": [[0.9] * 4] * 6})
    outcome = view(tmp_path / "a.json", "--compare", tmp_path / "b.json", "--summary")
    assert not any("Predictions" in line for line in outcome.out)


def test_the_divergence_is_a_lower_bound_that_sees_other_tokens() -> None:
    """Of random distributions over 12 tokens, of which documents hold 4."""
    random = np.random.default_rng(0)
    for sharpness in (0.1, 0.3, 1, 3):
        for _ in range(50):
            p, q = (random.dirichlet(np.full(12, sharpness)) for _ in range(2))
            a, b = (top(of) for of in (p, q))
            true = float((p * np.log(p / q)).sum())
            assert 0 <= _divergence(a, 0, b, 0) <= true + 1e-5
            assert _divergence(a, 0, a, 0) < 1e-9
    sure, other = (np.roll(np.array([0.9, 0.05, 0.02, 0.01, *[0.0025] * 8]), k) for k in (0, 6))
    found = _divergence(top(sure), 0, top(other), 0)
    assert 3 < found <= float((sure * np.log(sure / other)).sum())


def top(probabilities: np.ndarray) -> Predictions:
    """The four likeliest at one position."""
    ids = np.argsort(-probabilities, kind="stable")[None, :4]
    names = ids.astype(str).astype(object)
    return Predictions("next_token", None, ids, names, probabilities[ids].astype(np.float32))
