"""What a document will take, told before the run, against what it takes then."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import tiny
import tiny_media
import torch

from activations.document.format import document_size
from activations.document.writer import estimated_size
from activations.errors import ToolkitError, UsageError
from activations.forward.probe import observe
from activations.inputs.media import read_audio, read_image
from activations.inputs.request import Request
from activations.outputs.shapes import Count, Lengths, Shape, in_words
from activations.selection.answers import select
from activations.selection.catalog import CATEGORIES
from activations.selection.observation import Module, Observation
from activations.session.estimate import Estimate, _check_memory, expected_size, forecast
from activations.session.opening import OpenedModel, open_loaded, open_model
from activations.session.options import Options
from activations.session.run import Capture, run

TEXT = " ".join(tiny.WORDS)
ANSWERS = [{"attention": "weights"}, {"mlp": "all"}, dict.fromkeys(CATEGORIES, "all")]
Checkpoints = Callable[[str], Path]


def told_and_taken(
    opened: OpenedModel,
    answers: dict[str, str],
    path: Path,
    options: Options | None = None,
    format: str = "json",
) -> tuple[Estimate, Capture, int]:
    """What is expected, and how many bytes the document has in the end."""
    options = options or Options()
    selection = select(opened.catalog, answers)
    counts = selection.counts(opened.catalog.observation)
    expected = expected_size(
        opened.catalog.observation, counts, opened.lengths, format, options.keep_above
    )
    made = run(opened, selection, options)
    made.save(path, format=format)
    return expected, made, document_size(path, format)


@pytest.mark.parametrize("format", ["json", "safetensors"])
@pytest.mark.parametrize("answers", ANSWERS, ids=str)
@pytest.mark.parametrize("family", [*tiny.FAMILIES, "albert", "deberta-v2", "falcon", "mixtral"])
def test_within_a_third_of_what_it_takes(
    family: str, answers: dict[str, str], format: str, checkpoints: Checkpoints, tmp_path: Path
) -> None:
    target = TEXT if family in ("t5", "bart") else None
    opened = open_model(str(checkpoints(family)), request=Request(TEXT, target=target))
    expected, made, taken = told_and_taken(opened, answers, tmp_path / "x.json", format=format)
    if family == "mixtral" and "mlp" in answers:
        # the activation inside its experts gets the rows picked for each of them
        assert expected.bound == "at least"
    else:
        assert expected.bound == "about"
        assert 3 / 4 < expected.bytes / taken < 4 / 3
    assert opened.lengths.text == len(made.header["tokens"])
    if target is not None:
        assert opened.lengths.target == len(made.header["decoder_tokens"])


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32"])
def test_in_the_dtype_that_is_asked_for(
    dtype: str, checkpoints: Checkpoints, tmp_path: Path
) -> None:
    options = Options(dtype=dtype)
    opened = open_model(str(checkpoints("qwen2")), options, Request(TEXT))
    expected, made, taken = told_and_taken(
        opened, ANSWERS[2], tmp_path / "x.json", options, "safetensors"
    )
    assert 0.9 < expected.bytes / taken < 1.1
    outlined = opened.catalog.observation.outputs["model.layers.0.mlp"]
    assert outlined.dtype == made.captured["mlp"]["model.layers.0.mlp"].dtype == dtype


@pytest.mark.parametrize("family", ["llama", "t5"])
def test_the_most_when_the_model_writes(
    family: str, checkpoints: Checkpoints, tmp_path: Path
) -> None:
    request = Request("The cat sat", max_new_tokens=20)
    opened = open_model(str(checkpoints(family)), request=request)
    answers = {"attention": "weights", "mlp": "0"}
    expected, made, taken = told_and_taken(opened, answers, tmp_path / "x.json")
    written = len(made.header.get("decoder_tokens", made.header["tokens"]))
    most = opened.lengths.target or opened.lengths.text
    assert expected.bound == "up to"
    assert most is not None
    assert written <= most == (21 if family == "t5" else 20 + made.header["continuation_start"])
    assert taken < expected.bytes * 4 / 3


@pytest.mark.parametrize("family", ["vit", "wav2vec2", "whisper", "clip", "llava"])
def test_of_images_and_audio(family: str, checkpoints: Checkpoints, tmp_path: Path) -> None:
    image = read_image(str(tiny_media.image(tmp_path / "a.png", size=(44, 60))))
    audio = read_audio(str(tiny_media.audio(tmp_path / "a.wav")))
    media: dict[str, Any] = {"audio": audio} if family[0] == "w" else {"image": image}
    prompt = {"clip": "a cat on a mat", "llava": "<image> a cat on a mat"}.get(family)
    target = "one two" if family == "whisper" else None
    request = Request(prompt, target=target, **media)
    opened = open_model(str(checkpoints(family)), request=request)
    answers = dict.fromkeys(CATEGORIES, "all")
    expected, made, taken = told_and_taken(opened, answers, tmp_path / "x.json")
    assert 3 / 4 < expected.bytes / taken < 4 / 3
    assert expected.bound in ("about", "at least")  # CLIP picks the end of its text
    if prompt is not None:
        assert opened.lengths.text == len(made.header["tokens"])


@pytest.mark.parametrize("format", ["json", "safetensors"])
@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_what_is_captured_is_sized_by_the_same_rule(
    family: str, format: str, tmp_path: Path
) -> None:
    opened = open_loaded(tiny.model(family), tiny.tokenizer(), request=Request(TEXT))
    _, made, taken = told_and_taken(
        opened, {"attention": "all"}, tmp_path / "x.json", format=format
    )
    assert 0.85 < estimated_size(made.captured, format) / taken < 1.2


def test_masked_zeros_are_short(tmp_path: Path) -> None:
    """A causal attention's upper half is zeros, and an encoder's is not."""
    sizes = {}
    for family in ("llama", "bert"):
        opened = open_loaded(tiny.model(family), tiny.tokenizer())
        weights = opened.catalog.observation.weights[0]
        outlined = opened.catalog.observation.outputs[weights.module][1]
        assert outlined.causal == (family == "llama")
        sizes[family] = outlined.numbers({"T": 10})
    assert sizes == {"llama": (400, 4 * 45), "bert": (400, 0)}


def test_several_calls_and_none() -> None:
    modules = (Module("a", "A"), Module("b", "B"), Module("c", "C"))
    shape = Shape((1, Count("T"), 1000), "float32")
    seen = Observation(modules, calls={"a": 1, "b": 3, "c": 0}, outputs={"a": shape, "b": [shape]})
    once, thrice, never = (
        expected_size(seen, {name: count}, Lengths(10)).bytes
        - expected_size(seen, {}, Lengths(10)).bytes
        for name, count in seen.calls.items()
    )
    assert once == pytest.approx(120_000, rel=0.01)
    assert thrice == 3 * once
    assert never == 0


@pytest.mark.parametrize(
    ("lengths", "changes", "bound"),
    [
        (Lengths(10), {}, "about"),
        (Lengths(10, at_most=True), {}, "up to"),
        (Lengths(10), {"unsure": frozenset("a")}, "at least"),
        (Lengths(10), {"probed": False, "calls": {}, "outputs": {}}, "at least"),
        (Lengths(None), {}, "at least"),
        (Lengths(10, at_most=True), {"unsure": frozenset("a")}, "roughly"),
    ],
)
def test_how_sure_it_is(lengths: Lengths, changes: dict[str, Any], bound: str) -> None:
    known: dict[str, Any] = {"calls": {"a": 1}, "outputs": {"a": Shape((Count("T"),), "float32")}}
    seen = Observation((Module("a", "A"),), **(known | changes))
    found = expected_size(seen, {"a": 1}, lengths)
    assert found.bound == bound
    assert str(found).startswith(f"{bound} ")


def test_rows_picked_by_the_data_are_not_foretold() -> None:
    """Each expert of Switch gets the tokens that are routed to it; what is around them all."""
    unsure = observe(tiny.model("switch_transformers")).unsure
    assert unsure
    assert all(".experts." in name for name in unsure)
    assert observe(tiny.model("llama")).unsure == frozenset()


def test_a_width_is_not_taken_for_the_number_of_tokens() -> None:
    """Not even one of 11 or 7, as many as the probe's tokens."""
    seen = observe(tiny.model("bert", hidden_size=44, num_attention_heads=11))
    words = in_words(seen.outputs["bert.encoder.layer.0.attention"])
    assert words == "([1,T,44], [1,11,T,T])"
    seen = observe(tiny.model("t5", num_heads=7))
    words = in_words(seen.outputs["decoder.block.0.layer.1.EncDecAttention"])
    assert words == "([1,T,32], [1,7,T,S], [1,7,T,S])"


def test_sizes_that_follow_the_tokens_otherwise() -> None:
    """Every token goes to two experts; the text is filled up to whole chunks of four."""
    seen = observe(tiny.model("mixtral"))
    assert in_words(seen.outputs["model.layers.0.mlp.experts.act_fn"]) == "[2T,64]"
    assert str(Count("T", 2, -1)) == "2T-1"
    assert Count("T", 2, -1).of({"T": 5}) == 9
    seen = observe(tiny.model("reformer"))
    assert {"reformer.encoder.layers.0.attention", "reformer.encoder"} <= seen.unsure
    assert "lm_head" not in seen.unsure


@pytest.mark.parametrize("format", ["json", "safetensors"])
def test_what_is_kept_of_a_long_text(format: str, tmp_path: Path) -> None:
    """Some 12 weights a row, of a model whose attention is peaked as that of trained ones."""
    model = tiny.model("llama", max_position_embeddings=1024)
    with torch.no_grad():
        for layer in model.model.layers:
            layer.self_attn.q_proj.weight *= 30
            layer.self_attn.k_proj.weight *= 30
    request = Request(ids=tuple(5 + i * i % 80 for i in range(900)))
    opened = open_loaded(model, tiny.tokenizer(), request=request)
    options = Options(keep_above=0.01)
    path = tmp_path / "x.json"
    expected, _, taken = told_and_taken(opened, ANSWERS[0], path, options, format)
    assert taken / 3 < expected.bytes < 3 * taken
    whole = told_and_taken(opened, ANSWERS[0], tmp_path / "y.json", Options(), format)[0]
    assert whole.weights == pytest.approx(3 * 4 * 900 * 900 * 4, rel=0.01)
    assert expected.bytes < whole.bytes / 8
    assert whole.kept < whole.weights / 20


def absurd(memory: int, weights: int, bound: str = "about") -> list[str]:
    told: list[str] = []
    _check_memory(Estimate(memory, bound, memory, weights, 132_000_000), told.append)
    return told


def test_what_is_absurd_is_told_before_it_is_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("activations.session.estimate.free_memory", lambda: 8_000_000_000)
    assert absurd(900_000_000, 900_000_000) == []
    assert absurd(2_000_000_000, 100_000_000) == []
    assert absurd(2_000_000_000, 2_000_000_000) == [
        "the attention weights take about 2 GB. Keep only large weights (--keep-above 0.01: about "
        "130 MB), or choose fewer --layers."
    ]
    with pytest.raises(ToolkitError) as error:
        absurd(22_000_000_000, 22_000_000_000)
    assert str(error.value) == (
        "this capture needs about 22 GB of memory, and 8 GB are free. Keep only large weights "
        "(--keep-above 0.01: about 130 MB), or choose fewer --layers."
    )
    with pytest.raises(ToolkitError, match=r"free\. Choose fewer --layers or modules\."):
        absurd(22_000_000_000, 1_000_000_000, "at least")
    assert len(absurd(22_000_000_000, 22_000_000_000, "up to")) == 1  # it may take less
    monkeypatch.setattr("activations.session.estimate.free_memory", lambda: None)
    assert len(absurd(22_000_000_000, 22_000_000_000)) == 1


@pytest.mark.parametrize("family", ["llama", "t5", "bert"])
@pytest.mark.parametrize("asked", [{}, {"predict": 50}, {"lens": "logit"}, {"predict": 0}], ids=str)
def test_predictions_and_lens(
    family: str, asked: dict[str, Any], checkpoints: Checkpoints, tmp_path: Path
) -> None:
    target = TEXT if family == "t5" else None
    opened = open_model(str(checkpoints(family)), request=Request(TEXT, target=target))
    selection, options = select(opened.catalog, {"mlp": "0"}), Options(**asked)
    told = forecast(opened, selection, options, "json", pytest.fail)
    run(opened, selection, options).save(tmp_path / "d.json")
    assert told.bytes == pytest.approx(document_size(tmp_path / "d.json", "json"), rel=1 / 3)


def test_a_lens_that_takes_long_is_told(checkpoints: Checkpoints) -> None:
    opened = open_model(str(checkpoints("llama")), request=Request(TEXT))
    observation = replace(opened.catalog.observation, head=10**11)
    opened.catalog = replace(opened.catalog, observation=observation)
    selection, told = select(opened.catalog, {"mlp": "0"}), list[str]()
    forecast(opened, selection, Options(lens="logit"), "json", told.append)
    rows = 3 * (opened.lengths.text or 0)
    assert [f"{rows} times 400 logits, which may take minutes" in line for line in told] == [True]
    forecast(opened, selection, Options(lens="logit", at=(-1,)), "json", pytest.fail)
    with pytest.raises(UsageError, match="there is no position 1000"):
        forecast(opened, selection, Options(lens="logit", at=(0, 1000)), "json", pytest.fail)
