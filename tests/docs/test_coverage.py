"""The benchmark of breadth, on the entries that are odd in a way of their own."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parent.parent.parent / "benchmarks"))

import coverage

ODD = [
    "causal/deepseek_v4",  # keys that are no tokens
    "causal/dots3_note",  # layers with unlike head counts
    "causal/hrm_text",  # modules called many times
    "causal/kimi_linear",  # linear attention under the same name
    "causal/longcat_flash",  # two attentions a layer
    "causal/nemotron_h",  # attention, Mamba, MLP or experts under one name
    "causal/xlnet",  # axes turned on the way out
    "causal/zamba2",  # one block shared by several layers
    "masked/squeezebert",  # weights in a dictionary
    "masked/xlm",  # the layer's number comes last
    "seq2seq/encoder-decoder",
    "seq2seq/longt5",  # blocks, which no view can show
    "seq2seq/pegasus_x",  # weights of two kinds in one dictionary
]


# Rounds without gradients, axes that are turned, blocks of keys: nothing can be proven.
NO_HEADS = ("causal/hrm_text", "causal/xlnet", "seq2seq/longt5", "seq2seq/pegasus_x")
# No way to let a layer pass on what it is given: only the last one's lens is compared.
SEVERAL_MODULES_A_LAYER = ("masked/squeezebert", "masked/xlm")


@pytest.mark.parametrize("entry", ODD)
def test_captured_exactly(entry: str) -> None:
    row = coverage.examined(*entry.split("/"))
    assert row.captured
    assert row.is_exact, row.why
    assert row.is_read
    assert row.read == row.layers or entry in SEVERAL_MODULES_A_LAYER, row.why
    assert row.is_cut == (entry not in NO_HEADS), row.why


def test_why_not() -> None:
    row = coverage.examined("causal", "mamba")
    assert row.captured
    assert row.why == ["returns no attentions"]
    assert not row.is_exact
    row = coverage.examined("causal", "inkling2_text")
    assert row.is_exact
    assert not row.is_read
    assert row.why[-1] == "no lens: this model's layers cannot be read one by one"
    row = coverage.examined("causal", "musicgen")
    assert not row.built
    assert row.why[0].startswith("not built: ")


def test_a_wrong_tensor_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    own = coverage.own_attentions

    def other(*args: object) -> dict[str, list[object]]:
        found = own(*args)
        found["self"][1] = found["self"][0]
        return found

    monkeypatch.setattr(coverage, "own_attentions", other)
    row = coverage.examined("causal", "llama")
    assert (row.exact, row.returned) == (2, 3)
    assert row.why == ["self: 1 of 3 differ", "--keep-above, self: 1 of 3 differ"]


def test_the_page_gets_the_summary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = tmp_path / "models.md"
    page.write_text("before\n<!-- coverage -->old<!-- /coverage -->\nafter\n")
    monkeypatch.setattr(coverage, "PAGE", page)
    monkeypatch.setattr(coverage, "TABLE", tmp_path / "coverage.md")
    good = coverage.Row("causal/a", built=True, captured=True, returned=1, exact=1, shown=1)
    coverage.write([good, replace(good, entry="masked/b", exact=0, shown=0)])
    text = page.read_text()
    assert text.startswith("before\n<!-- coverage -->\nTiny random models of all entries")
    assert "captured bit for bit | 1 of 2 | b |" in text
    assert text.endswith("<!-- /coverage -->\nafter\n")
    assert "old" not in text
    page.write_text("no marks")
    with pytest.raises(SystemExit, match="Put the marks back"):
        coverage.write([good])


def test_the_summary_counts(capsys: pytest.CaptureFixture[str]) -> None:
    assert coverage.main(["--only", "gpt2,mamba"]) == 0
    assert capsys.readouterr().out == (
        "2 entries: 2 built, 2 run on text, 2 probed alike without weights, 2 captured whole, "
        "1 return attentions, 1 captured exactly, 1 viewable, 1 exact with --keep-above, "
        "2 read by the lens, 1 with heads to cut\n"
    )


def test_a_wrong_prediction_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    own = coverage.own_logits
    monkeypatch.setattr(coverage, "own_logits", lambda *args: own(*args).roll(1, -1))
    row = coverage.examined("causal", "llama")
    assert not row.is_read
    assert row.why == ["no lens: ValueError: the predictions are not those of the model's logits"]
