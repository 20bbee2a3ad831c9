"""Any tensor torch has, through the document and back: every number, bit for bit, in both formats.

What is expected is torch's own: `.to(torch.float32)` for halves and 8-bit floats, `view_as_real`
for complex numbers, `dequantize` and `to_dense`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import Run
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from packed import unpack

from activations import load
from activations.attention.scores import SCORES
from activations.document.format import FORMAT
from activations.document.writer import count_non_finite, write_document
from activations.forward.snapshots import snapshot
from activations.model.vocabulary import tokens_of
from activations.views.content import read_content
from activations.views.packing import pack

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # of what torch calls experimental
patient = settings(
    deadline=None, max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
FORMATS = pytest.mark.parametrize("format", ["json", "safetensors"])

FLOATS = [torch.float64, torch.float32, torch.float16, torch.bfloat16]
SMALL_FLOATS = [
    torch.float8_e4m3fn,
    torch.float8_e5m2,
    torch.float8_e4m3fnuz,
    torch.float8_e5m2fnuz,
    torch.float8_e8m0fnu,
]
INTEGERS = [torch.int8, torch.int16, torch.int32, torch.int64]
INTEGERS += [torch.uint8, torch.uint16, torch.uint32, torch.uint64, torch.bool]
COMPLEX = [torch.complex32, torch.complex64, torch.complex128]
QUANTISED = {torch.qint8: torch.int8, torch.quint8: torch.uint8, torch.qint32: torch.int32}
DTYPES = [*FLOATS, *SMALL_FLOATS, *INTEGERS, *COMPLEX, *QUANTISED]

SHAPES = hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4)


def made(dtype: torch.dtype, shape: tuple[int, ...], raw: bytes) -> torch.Tensor:
    """A tensor of whatever these bytes are in that dtype, repeated to fill it."""
    count = math.prod(shape)
    if dtype in QUANTISED:
        scale = 2.0**-3  # exact in every step
        whole = made(QUANTISED[dtype], shape, raw)
        return torch._make_per_tensor_quantized_tensor(whole, scale, 3)
    if dtype == torch.bool:
        return made(torch.uint8, shape, raw) > 127
    if not count:
        return torch.empty(shape, dtype=dtype)
    filled = np.resize(np.frombuffer(raw, np.uint8), count * dtype.itemsize)
    return torch.from_numpy(filled.copy()).view(dtype).reshape(shape)


def expected(tensor: torch.Tensor) -> np.ndarray:
    """The same numbers by torch itself."""
    plain = tensor.detach()
    if plain.is_quantized:
        plain = plain.dequantize()
    if plain.is_sparse:
        plain = plain.to_dense()
    if plain.is_complex():
        plain = torch.view_as_real(plain.resolve_conj())
    if plain.is_floating_point() and plain.dtype != torch.float64:
        plain = plain.to(torch.float32)
    return plain.resolve_neg().contiguous().numpy()


def assert_same_bits(found: np.ndarray, wanted: np.ndarray, format: str = "safetensors") -> None:
    """NaNs may differ in what they carry; in JSON infinities have become NaN as well."""
    assert found.shape == wanted.shape
    assert found.dtype == wanted.dtype
    known = np.ones(wanted.shape, bool)
    if wanted.dtype.kind == "f":
        known = np.isfinite(wanted) if format == "json" else ~np.isnan(wanted)
        assert np.isnan(found[~known]).all()
    bits = np.dtype(f"u{wanted.dtype.itemsize}")
    np.testing.assert_array_equal(
        np.ascontiguousarray(found)[known].view(bits),
        np.ascontiguousarray(wanted)[known].view(bits),
    )


def through(folder: Path, format: str, output: Any) -> Any:
    """What a module returned, captured, written and opened again."""
    path = folder / "x.json"
    write_document(path, {"format": FORMAT}, {"attention": {"m": snapshot(output)}}, format=format)
    return load(path)


@FORMATS
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@patient
@given(shape=SHAPES, raw=st.binary(min_size=1, max_size=64))
@example(shape=(2, 2), raw=b"\x00\x00\x00\x80")  # -0.0 among others
@example(shape=(3,), raw=b"\xff")  # NaN, -1, the largest unsigned integer
@example(shape=(1, 8), raw=b"\x01\x00\x00\x00\x00\x00\x00\x00")  # the smallest there is
@example(shape=(1, 2), raw=b"\x00\x00\x00\x00\x00\x00\x00\x80")  # the least 64-bit integer
@example(shape=(1, 2), raw=b"\xff\xff\xff\xff\xff\xff\x7f\x7f")  # the largest 32-bit floats
@example(shape=(1, 2), raw=b"\xff\xff\xff\xff\xff\xff\xef\x7f")  # the largest 64-bit float
def test_any_bits_of_any_dtype(
    tmp_path: Path, format: str, dtype: torch.dtype, shape: tuple[int, ...], raw: bytes
) -> None:
    tensor = made(dtype, shape, raw)
    wanted = expected(tensor)
    document = through(tmp_path, format, (tensor, None, {"again": [tensor]}))
    assert document.shape("m") == [list(shape), None, {"again": [list(shape)]}]
    name = str(dtype).removeprefix("torch.")
    assert document.dtype("m") == [name, None, {"again": [name]}]
    whole = document["m"]
    assert whole[1] is None
    for found in (
        document.tensor("m", 0),
        document.tensor("m", 2, "again", 0),
        whole[0],
        whole[2]["again"][0],
    ):
        assert_same_bits(found, wanted, format)
    alone = through(tmp_path, format, tensor)
    assert_same_bits(alone.tensor("m"), wanted, format)
    assert_same_bits(alone["m"], wanted, format)


LAYOUTS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "transposed": lambda t: t.mT,
    "turned": lambda t: t.permute(2, 0, 1),
    "every second": lambda t: t[:, ::2],
    "a column": lambda t: t[..., 1],
    "expanded": lambda t: t[:1].expand(5, -1, -1),
    "repeated": lambda t: t[0, 0, 0].expand(2, 3),
    "overlapping": lambda t: t.flatten().unfold(0, 3, 1),
    "part of a storage": lambda t: t[1:, 1:, 1:],
    "nothing of it": lambda t: t[:0],
    "single": lambda t: t[0, 0, 0],
}


@FORMATS
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", [d for d in DTYPES if d not in QUANTISED], ids=str)
def test_tensors_that_do_not_lie_in_a_row(
    tmp_path: Path, format: str, layout: str, dtype: torch.dtype
) -> None:
    rng = np.random.default_rng(0)
    whole = made(dtype, (2, 3, 4), rng.bytes(64))
    if dtype in (torch.uint16, torch.uint32, torch.uint64) and layout == "overlapping":
        pytest.skip("torch has no unfold for these")
    part = LAYOUTS[layout](whole)
    document = through(tmp_path, format, [part, whole, part])  # one storage three times
    for i, tensor in enumerate([part, whole, part]):
        assert_same_bits(document.tensor("m", i), expected(tensor), format)


@FORMATS
@pytest.mark.parametrize("dtype", COMPLEX, ids=str)
def test_conjugated_views(tmp_path: Path, format: str, dtype: torch.dtype) -> None:
    raw = np.random.default_rng(1).normal(size=8)
    tensor = torch.from_numpy(raw.view(np.complex128)).to(dtype).conj()
    assert tensor.is_conj()
    # torch cannot negate these halves
    negated = tensor if dtype == torch.complex32 else torch._neg_view(tensor)
    document = through(tmp_path, format, (tensor, tensor.imag, negated))
    assert tensor.imag.is_neg()
    parts = torch.view_as_real(tensor.resolve_conj())
    halves = torch.float64 if dtype == torch.complex128 else torch.float32
    assert_same_bits(document.tensor("m", 0), parts.to(halves).numpy())
    assert_same_bits(document.tensor("m", 1), parts[:, 1].to(halves).numpy())
    wanted = parts if negated is tensor else -parts
    assert_same_bits(document.tensor("m", 2), wanted.to(halves).numpy())


@FORMATS
@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_negated_views(tmp_path: Path, format: str, dtype: torch.dtype) -> None:
    tensor = torch.tensor([0.0, 1.5, -2.0]).to(dtype)
    found = through(tmp_path, format, torch._neg_view(tensor)).tensor("m")
    assert_same_bits(found, expected(-tensor), format)


@FORMATS
@pytest.mark.parametrize("dtype", [*FLOATS, *COMPLEX[1:], torch.int64, torch.bool], ids=str)
def test_sparse_tensors(tmp_path: Path, format: str, dtype: torch.dtype) -> None:
    tensor = torch.tensor([[0, 1.5, 0], [0, 0, -2]]).to(dtype)
    kinds = [tensor.to_sparse(), tensor.to_sparse_csr(), tensor.to_sparse_csc()]
    document = through(tmp_path, format, kinds)
    for i in range(len(kinds)):
        assert document.shape("m")[i] == [2, 3]
        assert_same_bits(document.tensor("m", i), expected(tensor))
    twice = torch.sparse_coo_tensor(torch.tensor([[1, 1]]), torch.tensor([1.0, 2.0]), (3,))
    assert through(tmp_path, format, twice).tensor("m").tolist() == [0, 3, 0]


@FORMATS
def test_a_nested_tensor_is_a_list(tmp_path: Path, format: str) -> None:
    parts = [torch.ones(2, 3), torch.zeros(1, 3)]
    for layout in (torch.strided, torch.jagged):
        nested = torch.nested.nested_tensor(parts, layout=layout)
        document = through(tmp_path, format, (nested, None))
        assert document.shape("m") == [[[2, 3], [1, 3]], None]
        assert_same_bits(document.tensor("m", 0, 0), parts[0].numpy())


def test_quantised_by_channel() -> None:
    tensor = torch.tensor([[1.0, -1.0], [0.25, 0.5]])
    scales, zeros = torch.tensor([0.5, 0.25]), torch.tensor([0, 1])
    quantised = torch.quantize_per_channel(tensor, scales, zeros, 0, torch.qint8)
    found = snapshot(quantised)
    assert found.dtype == "qint8"
    assert_same_bits(found.numbers(), tensor.numpy())


@pytest.mark.parametrize("dtype", [torch.int4, torch.uint2, torch.bits8, torch.float4_e2m1fn_x2])
def test_bits_that_torch_does_not_compute_with_are_named(
    tmp_path: Path, dtype: torch.dtype
) -> None:
    tensor = torch.empty(4, dtype=dtype)
    name = str(dtype).removeprefix("torch.")
    document = through(tmp_path, "json", (tensor, torch.tensor([1.0])))
    assert document["m"][0] == f"Tensor of {name}"
    assert document.tensor("m", 1).tolist() == [1]


# ------------------------------------------------------------------------------ no finite numbers


@pytest.mark.parametrize("dtype", [*FLOATS, *SMALL_FLOATS, *COMPLEX], ids=str)
@patient
@given(shape=SHAPES, raw=st.binary(min_size=1, max_size=32))
@example(shape=(2,), raw=b"\x80\x7f\x80\xff")  # infinities of bfloat16
@example(shape=(2,), raw=b"\x00\x7c\x00\xfc")  # of float16
@example(shape=(2,), raw=b"\x00\x00\x80\x7f\x00\x00\x80\xff")  # of float32
@example(shape=(1,), raw=b"\x00\x00\x00\x00\x00\x00\xf0\x7f")  # of float64
def test_what_is_not_finite_is_counted(
    dtype: torch.dtype, shape: tuple[int, ...], raw: bytes
) -> None:
    tensor = made(dtype, shape, raw)
    values = torch.from_numpy(expected(tensor))
    wanted = {
        "NaN": int(values.isnan().sum()),
        "Infinity": int((values == math.inf).sum()),
        "-Infinity": int((values == -math.inf).sum()),
    }
    found = count_non_finite({"mlp": {"m": snapshot([None, tensor])}})
    assert found == ({"m": {"1": wanted}} if any(wanted.values()) else {})


def attention(format: str, folder: Path, dtype: torch.dtype = torch.float32) -> Path:
    weights = torch.full((1, 2, 3, 3), 0.25)
    weights[0, 0, 0] = torch.tensor([math.nan, math.inf, -math.inf])
    path = folder / "x.json"
    note = {"module": "m", "element": [1], "layer": 0, "kind": "self"}
    header = {
        "format": FORMAT,
        "model": "m",
        "tokens": ["a", "b", "a"],
        "attention_weights": [note],
    }
    captured = {"attention": {"m": snapshot((None, weights.to(dtype)))}}
    write_document(path, header, captured, format=format)
    return path


@FORMATS
@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_weights_that_are_not_finite(tmp_path: Path, format: str, dtype: torch.dtype) -> None:
    told: list[str] = []
    with load(attention(format, tmp_path, dtype)) as document:
        shown = read_content(document, tokens_of, warn=told.append)
        packed = pack(shown.stacks)
        (stack,) = shown.stacks
        assert not np.isfinite(stack.weights[0].dense()[0, 0]).any()
    assert told == ["3 attention weights are not finite: neither drawn nor scored."]
    assert stack.scores is not None
    scores = dict(zip(SCORES, stack.scores[0, 0], strict=True))
    for name in ("previous_token", "self", "duplicate_token", "first_token"):
        np.testing.assert_allclose(scores[name], 0.25)  # the first row is out
    np.testing.assert_allclose(scores["entropy"], math.log(3), rtol=1e-6)  # rows with weights
    (described,) = packed.stacks
    assert described["probabilities"]
    ((weights,),) = unpack(packed)
    assert np.isnan(weights[0, 0]).all()
    assert (weights.ravel()[3:] == 0.25).all()


@FORMATS
def test_pages_summary_and_figure_of_weights_that_are_not_finite(
    workplace: Path, view: Run, format: str
) -> None:
    attention(format, workplace)
    warning = "warning: 3 attention weights are not finite: neither drawn nor scored."
    pages = view("--input", "x.json", "--output-dir", ".")
    assert (pages.code, pages.err) == (0, [warning])
    assert "3 attention weights are not finite" in Path(pages.out[0]).read_text()
    summary = view("--input", "x.json", "--summary", "csv")
    assert (summary.code, summary.err) == (0, [warning])
    header, *rows = (line.split(",") for line in summary.out)
    assert [row[:3] for row in rows] == [["Self", "0", "0"], ["Self", "0", "1"]]
    for row in rows:
        known = {name: cell for name, cell in zip(header[3:], row[3:], strict=True) if cell}
        assert known.pop("entropy") == "1.098612"
        assert set(known.values()) == {"0.250000"}
    figure = view("--input", "x.json", "--figure", "0.0")
    assert figure.code == 0
