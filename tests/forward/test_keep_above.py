"""`--keep-above`: what is kept is exactly what the model computed, and all else is accounted for.

The truth is the same capture with whole weights, read back by `Document.tensor`, and raw hooks.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import torch
from conftest import Run
from torch.utils._python_dispatch import TorchDispatchMode

import activations
from activations import Document, load
from activations.attention.scores import SCORES
from activations.errors import ToolkitError
from activations.forward import attention_rows
from activations.forward.keeping import Keeper
from activations.selection.observation import WeightsSource

ABOVE = 0.03
TEXT = (
    "The cat sat on the mat and looked at the moon. The cat sat on the mat and looked at the sun, "
    "the moon and the cat."
)
WINDOWS = {"sliding_window": 6}
# family, its class, changes to its configuration, the attention that is used by default
MODELS: list[tuple[str, str, dict[str, Any], str]] = [
    *((family, tiny.FAMILIES[family], {}, "sdpa") for family in tiny.FAMILIES),
    ("mistral", "AutoModelForCausalLM", WINDOWS, "sdpa"),
    ("gemma3_text", "AutoModelForCausalLM", WINDOWS, "sdpa"),
    ("gemma2", "AutoModelForCausalLM", {}, "eager"),  # soft caps, which SDPA does not have
    ("gpt_oss", "AutoModelForCausalLM", {}, "eager"),  # sinks: rows sum to less than 1
    ("xlnet", "AutoModelForCausalLM", {}, "eager"),  # (queries, keys, batch, heads)
    ("falcon", "AutoModelForCausalLM", {}, "eager"),  # attention of its own
    ("minimax", "AutoModelForCausalLM", {}, "eager"),  # linear attention returns a state
]
IDS = [f"{family}-{'-'.join(changes)}" for family, _, changes, _ in MODELS]


@pytest.fixture(params=MODELS, ids=IDS)
def peaked(request: pytest.FixtureRequest) -> tuple[Any, dict[str, Any], str]:
    """A model with weights of any size, what it reads, and the attention it has by default."""
    family, auto, changes, default = request.param
    model = tiny.model(family, auto, **changes)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() > 1 and "embed" not in name and "norm" not in name:
                parameter *= 6
    read = {"tokenizer": tiny.tokenizer(), "prompt": TEXT}
    if family in ("t5", "bart"):
        read["target"] = "Ein Satz, und noch ein Satz."
    return model, read, default


def entries(document: Document) -> Iterator[tuple[str, tuple[Any, ...], tuple[int, ...] | None]]:
    for entry in document.header["attention_weights"]:
        axes = entry.get("axes")
        yield entry["module"], tuple(entry["element"]), None if axes is None else tuple(axes)


def check(found: Document, dense: Document, above: float) -> int:
    """That `found` is `dense` with only the weights above; how many were kept."""
    kept = 0
    for module, element, axes in entries(dense):
        expected, sparse = dense.tensor(module, *element), found.sparse(module, *element)
        assert found.shape(module) == dense.shape(module)
        assert found.dtype(module) == dense.dtype(module)
        if sparse is None:  # no attention weights
            assert expected.min() < 0 or expected.max() > 1.001
            np.testing.assert_array_equal(found.tensor(module, *element), expected)
            continue
        large = np.where(expected > above, expected, 0)
        np.testing.assert_array_equal(found.tensor(module, *element), large)
        turned = expected if axes is None else expected.transpose(axes)
        assert sparse.shape == turned.shape
        sums = np.where(turned > above, turned, 0).sum(-1, dtype=np.float64) + sparse.rest
        np.testing.assert_allclose(sums, turned.sum(-1, dtype=np.float64), rtol=0, atol=1e-6)
        assert sparse.dropped == turned.size - np.count_nonzero(large)
        high, wide = sparse.cell
        for row, column in np.ndindex(*sparse.overview.shape[2:]):
            cell = turned[..., row * high :, column * wide :][..., :high, :wide].max((-1, -2))
            np.testing.assert_array_equal(sparse.overview[..., row, column], np.float16(cell))
        kept += np.count_nonzero(large)
    return int(kept)


def scores(document: Document) -> list[list[float]]:
    return [[row[name] for name in SCORES] for row in document.scores()]


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_it_is_the_whole_capture_without_small_weights(
    peaked: tuple[Any, dict[str, Any], str], attention: str, tmp_path: Path
) -> None:
    model, read, default = peaked
    if attention == "sdpa" and default == "eager":
        pytest.skip("this model has no SDPA, or its weights cannot be computed beside it")
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    read |= {"attn_implementation": attention}
    dense = activations.capture(model, output=tmp_path / "dense.json", **read)
    for format in ("json", "safetensors"):
        path = tmp_path / f"{format}.json"
        found = activations.capture(model, output=path, keep_above=ABOVE, format=format, **read)
        assert check(found, dense, ABOVE) > 50
        assert found.header["keep_above"] == ABOVE
        np.testing.assert_allclose(scores(found), scores(dense), rtol=0, atol=1e-6)
    assert all(torch.equal(before[name], t) for name, t in model.state_dict().items())
    assert not any(module._forward_hooks for module in model.modules())


def test_the_attention_that_allows_it(
    peaked: tuple[Any, dict[str, Any], str], tmp_path: Path
) -> None:
    model, read, default = peaked
    found = activations.capture(model, output=tmp_path / "x.json", keep_above=ABOVE, **read)
    assert found.header["environment"]["attn_implementation"] == default


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_in_every_dtype(dtype: torch.dtype, attention: str, tmp_path: Path) -> None:
    model = tiny.model("qwen2").to(dtype)
    read = {"tokenizer": tiny.tokenizer(), "prompt": TEXT, "attn_implementation": attention}
    dense = activations.capture(model, output=tmp_path / "dense.json", **read)
    for format in ("json", "safetensors"):
        path = tmp_path / f"{format}.json"
        found = activations.capture(model, output=path, keep_above=ABOVE, format=format, **read)
        assert check(found, dense, ABOVE) > 50
        # In half precision the same weights make the same scores only as far as they are exact.
        np.testing.assert_allclose(scores(found), scores(dense), rtol=0, atol=1e-6)


def test_both_backends_write_the_same(tmp_path: Path) -> None:
    texts = []
    for backend in ("hooks", "pyvene"):
        path = tmp_path / f"{backend}.json"
        read = {"tokenizer": tiny.tokenizer(), "prompt": TEXT, "backend": backend}
        activations.capture(tiny.model("llama"), output=path, keep_above=ABOVE, **read)
        texts.append(path.read_text().replace(f'"{backend}"', '"..."'))
    assert texts[0] == texts[1]


class _LargestTensor(TorchDispatchMode):  # type: ignore[misc]
    """Notes the most numbers that any operation on the CPU made room for."""

    def __init__(self) -> None:
        super().__init__()
        self.most = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        for tensor in found if isinstance(found, (tuple, list)) else [found]:
            if isinstance(tensor, torch.Tensor):
                self.most = max(self.most, tensor.untyped_storage().nbytes() // 4)
        return found


def test_no_tensor_of_tokens_by_tokens_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attention_rows, "_CHUNK", 2**14)
    tokens = 300
    read = {"tokenizer": tiny.tokenizer(), "ids": [5 + i % 90 for i in range(tokens)]}
    read["predict"] = 0  # the logits are larger
    model = tiny.model("llama", max_position_embeddings=512)
    with _LargestTensor() as made:
        activations.capture(model, output=tmp_path / "x.json", keep_above=ABOVE, **read)
    assert made.most < tokens * tokens  # one head's weights; the model's own largest are below
    with _LargestTensor() as made:
        activations.capture(model, output=tmp_path / "x.json", attn_implementation="sdpa", **read)
    assert made.most >= 2 * tokens * tokens  # all heads of a layer: this test can fail


@pytest.mark.filterwarnings("ignore::UserWarning")  # about the NaN
@pytest.mark.parametrize(("attention", "from_row"), [("eager", 0), ("sdpa", 3)])
def test_rows_that_are_no_numbers_are_kept_as_such(
    attention: str, from_row: int, tmp_path: Path
) -> None:
    model = tiny.model("llama")
    with torch.no_grad():
        model.model.embed_tokens.weight[7] = math.nan
    # Eager attention adds a mask to scores that are NaN; SDPA does not look at later keys.
    read = {"tokenizer": tiny.tokenizer(), "ids": [5, 9, 11, 7, 12, 5, 9]}
    read["attn_implementation"] = attention
    dense = activations.capture(model, output=tmp_path / "dense.json", **read)
    found = activations.capture(model, output=tmp_path / "x.json", keep_above=ABOVE, **read)
    module, element, _ = next(entries(found))
    expected, weights = dense.tensor(module, *element), found.tensor(module, *element)
    is_odd = np.isnan(expected).any(-1)
    assert is_odd[0, 0].tolist() == [row >= from_row for row in range(7)]
    assert np.isnan(weights[is_odd]).all()
    sound = expected[~is_odd]
    np.testing.assert_array_equal(weights[~is_odd], np.where(sound > ABOVE, sound, 0))
    sparse = found.sparse(module, *element)
    assert sparse is not None
    np.testing.assert_array_equal(np.isnan(sparse.rest), is_odd)
    counted = found.header["non_finite"][module][str(element[0])]
    assert counted == {"NaN": int(np.isnan(weights).sum()), "Infinity": 0, "-Infinity": 0}


@pytest.mark.parametrize("sides", [(7, 7), (5, 11), (11, 5), (1, 9)])
@pytest.mark.parametrize("masking", ["causal", "none", "bool", "added", "a head", "window"])
@pytest.mark.parametrize("chunk", [16, 64, 4 * 2**20])
def test_rows_are_those_of_the_formula(
    sides: tuple[int, int], masking: str, chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A few rows at a time, by the usual formula and by the model's own function."""
    from transformers.models.qwen2.modeling_qwen2 import eager_attention_forward

    monkeypatch.setattr(attention_rows, "_CHUNK", chunk)
    monkeypatch.setattr(attention_rows, "_CHUNK_OF_ALL", chunk)
    rows, columns = sides
    torch.manual_seed(0)
    query, key = torch.randn(2, 4, rows, 8) * 2, torch.randn(2, 2, columns, 8) * 2
    seen = torch.rand(2, 1, rows, columns) > 0.4
    seen[0, 0, 0] = False  # a padded row: spread over all
    masks = {
        "bool": seen,
        "added": torch.where(seen, 0.0, torch.finfo(torch.float32).min),
        "a head": torch.randn(1, 4, rows, columns),
    }
    module = torch.nn.Module()
    module.num_key_value_groups, module.is_causal = 2, True
    call = attention_rows.AttentionCall(
        module,
        eager_attention_forward,
        query,
        key,
        key,
        masks.get(masking),
        masking in ("causal", "window"),
        3 if masking == "window" else None,
        (),
        {"scaling": 0.3, "dropout": 0.0},
    )
    expected = call.by_formula(0, rows).numpy()
    assert attention_rows._is_usual(call)
    for way in (attention_rows.by_usual_formula, attention_rows.by_own_formula):
        found = np.zeros_like(expected)

        class Taker:
            def add(self, b: int, h: int, first: int, part: np.ndarray) -> None:
                found[b, h, first : first + len(part), : part.shape[1]] = part  # noqa: B023

        way(call, Taker())
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)


def test_another_formula_is_noticed_and_used() -> None:
    def with_sink(module: Any, query: Any, key: Any, *rest: Any, **options: Any) -> Any:
        scores = query @ key.transpose(2, 3) * options["scaling"]
        sink = torch.ones(*scores.shape[:3], 1)
        weights = torch.cat([scores, sink], -1).softmax(-1)[..., :-1]
        return None, weights

    torch.manual_seed(0)
    query, key = torch.randn(1, 2, 6, 4), torch.randn(1, 2, 6, 4)
    call = attention_rows.AttentionCall(
        torch.nn.Module(), with_sink, query, key, key, None, False, None, (), {"scaling": 0.5}
    )
    assert not attention_rows._is_usual(call)
    source = WeightsSource("m", 0, (), "self", 0)
    keeper = Keeper(0.2, [source])
    sparse = keeper.leaf("m", 0, (), keeper.stand_in(call, "self"))
    assert sparse is not None
    expected = with_sink(None, query, key, scaling=0.5)[1].numpy()
    np.testing.assert_array_equal(sparse.dense(), np.where(expected > 0.2, expected, 0))
    assert (sparse.dense().sum(-1) + sparse.rest < 0.99).all()


def test_an_error_in_a_thread_is_raised_and_the_threads_are_put_back() -> None:
    from transformers.models.qwen2.modeling_qwen2 import eager_attention_forward

    class Taker:
        def add(self, *arguments: Any) -> None:
            raise ZeroDivisionError

    module = torch.nn.Module()
    module.num_key_value_groups = 1
    query = torch.randn(1, 2, 6, 4)
    options = {"scaling": 0.5, "dropout": 0.0}
    call = attention_rows.AttentionCall(
        module, eager_attention_forward, query, query, query, None, True, None, (), options
    )
    threads = torch.get_num_threads()
    with pytest.raises(ZeroDivisionError):
        attention_rows.each_rows(call, Taker())
    assert torch.get_num_threads() == threads


def test_the_command(workplace: Path, capture: Run, view: Run) -> None:
    argv = ("--auto-select", "attn:0;mlp:;other:", "--quiet", "--output")
    assert capture(*argv, "whole.json").code == 0
    done = capture(*argv, "kept.json", "--keep-above", "0.02")
    assert (done.code, done.out, done.err) == (0, ["kept.json"], [])
    whole, kept = load("whole.json"), load("kept.json")
    assert kept.header["environment"]["attn_implementation"] == "sdpa"
    for module, element, _ in entries(whole):
        dense, found = (document.tensor(module, *element) for document in (whole, kept))
        np.testing.assert_allclose(found, np.where(dense > 0.02, dense, 0), atol=1e-5)
    with pytest.raises(ToolkitError, match="is not a tensor"):
        kept.sparse(module, 5)
    assert whole.sparse(module, *element) is None
    written = json.loads(Path("kept.json").read_text())
    form = written["captured"]["attention_outputs"][module]["output"][1]["sparse"]
    assert list(form) == [
        "above", "shape", "dropped", "row_starts", "columns", "weights", "rest", "overview",
    ]  # fmt: skip
    again = capture(*argv, "again.json", "--keep-above", "0.02")
    assert again.code == 0
    assert Path("again.json").read_bytes() == Path("kept.json").read_bytes()
    shown = view("kept.json", "--summary", "csv")
    expected = view("whole.json", "--summary", "csv")
    for ours, theirs in zip(shown.out[1:], expected.out[1:], strict=True):
        ours_, theirs_ = ([float(x or 0) for x in row.split(",")[1:]] for row in (ours, theirs))
        np.testing.assert_allclose(ours_, theirs_, atol=2e-4)  # SDPA and eager drift apart
    pages = view("kept.json", "--figure", "3.1", "--view", "head,model")
    assert (pages.code, len(pages.out)) == (0, 3)
