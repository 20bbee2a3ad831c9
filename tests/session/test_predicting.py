"""What models predict, against their own logits and their own `generate`."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import tiny
import torch
import transformers

from activations import capture, load
from activations.errors import UsageError
from activations.inputs.request import Request
from activations.model.head import Head, head_of
from activations.selection.answers import select
from activations.selection.catalog import CATEGORIES
from activations.session.opening import open_loaded
from activations.session.options import Options
from activations.session.run import run

TEXT = "The cat sat on the mat."
MOON = " and looked at the moon."


def of_class(name: str, family: str, **changes: Any) -> Any:
    torch.manual_seed(0)
    made = getattr(transformers, name)._from_config(tiny.config(family, **changes))
    return tiny.sharpened(made).eval()


def predicted(model: Any, tokenizer: Any = None, **request: Any) -> dict[str, Any]:
    opened = open_loaded(model, tokenizer or tiny.tokenizer(), request=Request(TEXT, **request))
    category = next(c for c in CATEGORIES if opened.catalog.of(c))
    return run(opened, select(opened.catalog, {category: "0"})).header


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("family", ["gpt2", "llama", "gemma2", "bloom", "mamba", "t5"])
def test_the_first_is_what_generate_takes(family: str, dtype: str) -> None:
    model, tokenizer = tiny.model(family, dtype=dtype), tiny.tokenizer()
    model.generation_config = transformers.GenerationConfig(
        max_new_tokens=4, do_sample=False, pad_token_id=0, decoder_start_token_id=0
    )
    ids = tokenizer(TEXT, return_tensors="pt")["input_ids"]
    written = model.generate(ids, attention_mask=torch.ones_like(ids))[0].tolist()
    header = predicted(model, max_new_tokens=4)
    first = header["predictions"]["ids"][:, 0].tolist()
    if family == "t5":
        read = header["decoder_input_ids"][0]
        assert first[: len(written) - 1] == written[1 : 1 + len(read)][: len(first)]
        return
    start = ids.shape[1]
    read = header["input_ids"][0]
    assert read == written[: len(read)]
    assert first[start - 1 : start + 2] == written[start : start + 3]


def test_what_followed() -> None:
    model = tiny.model("llama")
    found = predicted(model)
    ids = torch.tensor(found["input_ids"])
    with torch.no_grad():
        likely = model(ids).logits[0].softmax(-1)
    actual = found["predictions"]["actual"]
    for place, id in enumerate(ids[0, 1:].tolist()):
        assert actual["probability"][place] == pytest.approx(float(likely[place, id]), rel=1e-4)
        assert actual["rank"][place] == int((likely[place] > likely[place, id]).sum()) + 1
    assert actual["rank"][-1] is None
    assert np.isnan(actual["probability"][-1])
    assert found["predictions"]["text"] == "tokens"


def test_masked_words() -> None:
    tokenizer = tiny.tokenizer(bert=True)
    tokenizer.mask_token = "mat"  # a token of its vocabulary, for this test
    model = tiny.model("bert")
    found = predicted(model, tokenizer)
    ids = torch.tensor(found["input_ids"])
    with torch.no_grad():
        logits = model(ids, token_type_ids=torch.zeros_like(ids)).logits[0]
    predictions = found["predictions"]
    assert (predictions["of"], predictions["text"]) == ("masked_token", "tokens")
    np.testing.assert_array_equal(predictions["ids"], logits.topk(5).indices)
    for place, id in enumerate(ids[0].tolist()):
        rank = int((logits[place] > logits[place, id]).sum()) + 1
        is_mask = id == tokenizer.mask_token_id
        assert predictions["actual"]["rank"][place] == (None if is_mask else rank)


# class, family, changes -> the shape of the predictions, and the text that they are of
LABELS = {
    "of a text": ("BertForSequenceClassification", "bert", {}, (1, 3), None),
    "of each token": ("BertForTokenClassification", "bert", {}, (9, 3), "tokens"),
    "of a decoder": ("LlamaForSequenceClassification", "llama", {"pad_token_id": 0}, (1, 3), None),
    "of an encoder and decoder": (
        "BartForSequenceClassification",
        "bart",
        {"eos_token_id": 4},
        (1, 3),
        None,
    ),
}


@pytest.mark.parametrize("what", LABELS)
def test_labels_by_their_names(what: str) -> None:
    name, family, changes, shape, text = LABELS[what]
    names = {0: "good", 1: "bad", 2: "neither"}
    model = of_class(name, family, id2label=names, **changes)
    tokenizer = tiny.tokenizer(bert=True)  # ends in [SEP], 4
    opened = open_loaded(model, tokenizer, request=Request(TEXT))
    category = next(c for c in CATEGORIES if opened.catalog.of(c))
    header = run(opened, select(opened.catalog, {category: "0"}), Options(lens="logit")).header
    found = header["predictions"]
    encoded = tokenizer(TEXT, return_tensors="pt")
    encoded = {k: v for k, v in encoded.items() if family == "bert" or k != "token_type_ids"}
    with torch.no_grad():
        likely = model(**encoded).logits.softmax(-1).reshape(shape).sort(-1, descending=True)
    assert (found["of"], found["text"]) == ("label", text)
    assert "actual" not in found
    assert found["tokens"] == [[names[i] for i in row] for row in likely.indices.tolist()]
    np.testing.assert_allclose(found["probabilities"], likely.values, rtol=1e-4)
    assert header["lens"]["tokens"][-1] == found["tokens"]


def test_several_labels_at_once() -> None:
    changes = {"num_labels": 3, "problem_type": "multi_label_classification"}
    model = of_class("BertForSequenceClassification", "bert", **changes)
    tokenizer = tiny.tokenizer(bert=True)
    found = predicted(model, tokenizer)["predictions"]
    with torch.no_grad():
        likely = model(**tokenizer(TEXT, return_tensors="pt")).logits.sigmoid()
    np.testing.assert_allclose(found["probabilities"], likely.sort(descending=True).values, 1e-4)


@pytest.mark.parametrize(
    ("name", "family", "changes"),
    [
        ("BertModel", "bert", {}),
        ("BertForSequenceClassification", "bert", {"num_labels": 1}),  # a number
        ("BertForQuestionAnswering", "bert", {}),
        ("ElectraForPreTraining", "electra", {}),
    ],
)
def test_models_that_predict_nothing(name: str, family: str, changes: dict[str, Any]) -> None:
    model, tokenizer = of_class(name, family, **changes), tiny.tokenizer(bert=True)
    assert "predictions" not in predicted(model, tokenizer)
    opened = open_loaded(model, tokenizer, request=Request(TEXT))
    for options in (Options(predict=3), Options(lens="logit")):
        with pytest.raises(UsageError, match="predicts neither tokens nor labels"):
            run(opened, select(opened.catalog, {"attention": "0"}), options)


def test_where_the_last_layer_is_left_out_the_pass_ends_early(tmp_path: Any) -> None:
    model, tokenizer = tiny.model("llama"), tiny.tokenizer()
    ran: list[str] = []
    model.lm_head.register_forward_hook(lambda *_: ran.append("head"))
    asked = {"model": model, "tokenizer": tokenizer, "output": tmp_path / "x.json"}

    def made(**options: Any) -> Any:
        ran.clear()
        return capture(prompt=TEXT, **asked, **options).predictions

    trials = 2  # of the probe
    assert made(layers=[0, 1]) is None
    assert len(ran) == trials
    for options in ({"layers": [0, -1]}, {"layers": 0, "predict": 2}, {}):
        assert made(**options) is not None
        assert len(ran) == trials + 1
    assert made(predict=0) is None
    assert made(layers=0, lens="logit").ids.shape[1] == 5


def test_as_arrays(tmp_path: Any) -> None:
    model, tokenizer = tiny.model("gpt2"), tiny.tokenizer()
    made = capture(
        model, TEXT, tokenizer=tokenizer, output=tmp_path / "x.json", predict=3, lens="logit", at=-1
    )
    for document in (made, load(tmp_path / "x.json")):
        predictions, lens = document.predictions, document.lens
        count = len(document.header["tokens"])
        assert predictions.ids.shape == predictions.tokens.shape == (count, 3)
        assert predictions.probabilities.dtype == np.float32
        assert predictions.tokens[0, 0] == tokenizer.convert_ids_to_tokens(
            int(predictions.ids[0, 0])
        )
        assert lens.ids.shape == lens.tokens.shape == lens.predicted.rank.shape == (3, 1, 3)
        assert lens.layers == ("transformer.h.0", "transformer.h.1", "transformer.h.2")
        assert lens.positions.tolist() == [count - 1]
        assert predictions.surprise.shape == (count,)
        likely = predictions.actual.probability[:-1]
        np.testing.assert_allclose(predictions.surprise[:-1], -np.log2(likely), rtol=1e-6)
        stays = lens.stays_from[0]
        first = lens.ids[:, 0, 0]
        assert (first[stays:] == first[-1]).all()
        assert stays == 0 or first[stays - 1] != first[-1]


@pytest.mark.parametrize("family", ["llama", "t5"])
def test_the_same_with_pyvene(family: str) -> None:
    model, tokenizer = tiny.model(family), tiny.tokenizer()
    target = MOON if family == "t5" else None
    opened = open_loaded(model, tokenizer, request=Request(TEXT, target=target))
    selection = select(opened.catalog, {"attention": "0"})
    hooks, pyvene = (
        run(opened, selection, Options(backend=backend, lens="logit")).header
        for backend in ("hooks", "pyvene")
    )
    for key in ("predictions", "lens"):
        for name in ("ids", "probabilities"):
            np.testing.assert_array_equal(hooks[key][name], pyvene[key][name])


def test_what_logits_are_of() -> None:
    """Where the model sees the token it predicts, and where they are pixels."""
    assert predicted(tiny.model("xlnet"))["predictions"]["of"] == "masked_token"
    painter = transformers.ViTMAEForPreTraining(tiny.config("vit_mae"))
    assert head_of(painter, (1, 9, 12)) is None
    assert head_of(of_class("BertForPreTraining", "bert"), (1, 9, 400)) == Head("masked_token")


def test_a_decoder_deeper_than_its_encoder() -> None:
    model = tiny.model("bart", encoder_layers=2, decoder_layers=4)
    opened = open_loaded(model, tiny.tokenizer(), request=Request(TEXT, target=MOON))
    for layers, made in (([1], False), ([3], True), ([-1], True)):
        selection = select(opened.catalog, {"attention": "weights"}, layers)
        assert ("predictions" in run(opened, selection).header) == made
