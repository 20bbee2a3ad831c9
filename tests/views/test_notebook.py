"""In a notebook: what a document and a view show of themselves, in Jupyter's stead."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from html import escape
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from browser import Layer, Open, make_pages, open_outputs, random_weights, write_capture
from hypothesis import given, settings
from hypothesis import strategies as st
from playwright.sync_api import expect

from activations import Document, ToolkitError, UsageError, load
from activations.document.format import FORMAT
from activations.document.writer import write_document
from activations.model.vocabulary import tokens_of
from activations.outputs.tensor import Tensor
from activations.views import content, notebook
from activations.views.content import read_content
from activations.views.page import build_pages

EXAMPLE = Path(__file__).parent.parent.parent / "examples" / "attention_in_a_notebook.ipynb"
LAYERS = [Layer(i, random_weights(i, heads=3, rows=6)) for i in (0, 2)]


class Parts(HTMLParser):
    """The elements of a piece of HTML, the attributes of its frames, and the text of its cells."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.frames: list[dict[str, str | None]] = []
        self.cells: list[str] = []
        self.text = ""
        self._open: list[str] = []
        self.feed(html)
        self.close()
        assert self._open == []  # well-formed: every element is closed, innermost first

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self._open.append(tag)
        if tag == "iframe":
            self.frames.append(dict(attrs))
        if tag == "td":
            self.cells.append("")

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data
        if "td" in self._open:
            self.cells[-1] += data


def frame_of(html: str) -> dict[str, str | None]:
    """The attributes of the one element there is: a frame."""
    parts = Parts(html)
    assert parts.tags == ["iframe"]
    return parts.frames[0]


@pytest.fixture(scope="module")
def document(tmp_path_factory: pytest.TempPathFactory) -> Document:
    path = tmp_path_factory.mktemp("document") / "capture.json"
    write_capture(path, LAYERS)
    return load(path)


def modules_only(path: Path, names: list[str], model: str = "m", prompt: str = "p") -> Document:
    """A document with these MLP modules and no attention."""
    tensor = Tensor("float32", (1, 2), np.zeros((1, 2), np.float32))
    header = {"format": FORMAT, "model": model, "prompt": prompt, "attention_weights": []}
    write_document(path, header, {"mlp": {name: [tensor, None] for name in names}})
    return load(path)


# ----------------------------------------------------------------------------------- the same page


@pytest.mark.parametrize(
    ("arguments", "flags"),
    [
        ({}, ["--view", "head"]),
        ({"view": "model"}, ["--view", "model"]),
        (
            {"layers": [2], "heads": range(1, 3), "tokens": (1, 5), "min_weight": 0.05},
            ["--view=head", "--layers=2", "--heads=1-2", "--tokens=1:5", "--min-weight=0.05"],
        ),
    ],
)
def test_the_frame_holds_the_page_of_the_command(
    tmp_path: Path, arguments: dict[str, Any], flags: list[str]
) -> None:
    (page,) = make_pages(tmp_path, LAYERS, *flags).values()
    view = load(tmp_path / "capture.json").view(**arguments)
    frame = frame_of(view._repr_html_())
    assert frame["srcdoc"] == page.read_bytes().decode("utf-8")
    assert frame["title"] == f"Attention {arguments.get('view', 'head')} view: Family/Tiny-1"
    view.save(tmp_path / "saved.html")
    assert (tmp_path / "saved.html").read_bytes() == page.read_bytes()


def test_a_document_shows_its_head_view(document: Document) -> None:
    assert document._repr_html_() == document.view()._repr_html_()
    assert repr(document.view("model")).startswith("<View 'Attention model view: Family/Tiny-1', ")


def test_the_frame_is_kept_from_the_notebook(document: Document) -> None:
    frame = frame_of(document.view(height=321)._repr_html_())
    assert frame["sandbox"] == "allow-scripts allow-downloads"  # not allow-same-origin
    assert "src" not in frame
    assert "height:321px" in str(frame["style"])


@settings(max_examples=15, deadline=None)
@given(st.lists(st.text(max_size=20), min_size=3, max_size=3))
def test_any_text_leaves_one_frame(document: Document, texts: list[str]) -> None:
    model, prompt, token = texts
    tokens = [token, *document.header["tokens"][1:]]
    again = load(document.path)
    again.header |= {"model": model, "prompt": prompt, "tokens": tokens}
    shown = read_content(again, tokens_of)
    pages = build_pages(["head"], shown.caption, shown.stacks)
    page = b"".join(pages["head"]).decode("utf-8")
    html = again._repr_html_()
    assert frame_of(html)["srcdoc"] == page
    html.encode("utf-8")


# --------------------------------------------------------------------------------------- arguments


@pytest.mark.parametrize(
    "arguments",
    [
        {"view": "both"},
        {"view": ["head"]},
        {"layers": [1]},
        {"layers": "0,2"},
        {"layers": 2.5},
        {"layers": []},
        {"heads": [3]},
        {"heads": [True, False, True]},
        {"tokens": (0, 7)},
        {"tokens": (-1, 3)},
        {"tokens": (3, 3)},
        {"tokens": (3,)},
        {"tokens": "0:3"},
        {"min_weight": 1},
        {"min_weight": -0.1},
        {"min_weight": float("nan")},
        {"min_weight": "a lot"},
        {"height": 0},
        {"height": "tall"},
        {"height": True},
    ],
)
def test_a_wrong_argument_raises_at_once(document: Document, arguments: dict[str, Any]) -> None:
    with pytest.raises(UsageError) as raised:
        document.view(**arguments)
    assert "\n" not in str(raised.value)


def test_numbers_are_taken_as_people_write_them(document: Document) -> None:
    page = document.view(layers=[2], heads=[0, 1]).page
    assert document.view(layers=2, heads=range(2)).page == page
    assert document.view(layers=-1, heads=range(2)).page == page
    assert document.view(layers=np.array([2]), heads=(1, 0)).page == page
    assert document.view(min_weight=np.float32(0.25)).page == document.view(min_weight=0.25).page


def test_a_view_of_no_attention_raises(tmp_path: Path) -> None:
    with pytest.raises(ToolkitError, match="no attention weights"):
        modules_only(tmp_path / "mlp.json", ["mlp"]).view()


def test_saving_where_nothing_can_be_saved(document: Document, tmp_path: Path) -> None:
    with pytest.raises(ToolkitError, match="does not exist"):
        document.view().save(tmp_path / "nowhere" / "page.html")


# ---------------------------------------------------------------- where the attention is not shown


def test_without_attention_a_table_of_the_modules(tmp_path: Path) -> None:
    parts = Parts(modules_only(tmp_path / "mlp.json", ["a.mlp", "b.mlp"])._repr_html_())
    assert "no attention weights in" in parts.text
    sizes = "[[1, 2], null]"
    assert parts.cells == ["a.mlp", sizes, "float32", "b.mlp", sizes, "float32"]


def test_long_tables_and_shapes_are_folded(tmp_path: Path) -> None:
    few = modules_only(tmp_path / "few.json", ["a"])._repr_html_()
    many = modules_only(tmp_path / "many.json", [f"m{i}" for i in range(1200)])._repr_html_()
    assert "<details open>" in few
    assert "<details open>" not in many
    parts = Parts(many)
    assert "mlp, 1,200 modules" in parts.text
    assert "and 200 more; document.names lists them." in parts.text
    assert len(parts.cells) == 3 * 1000

    tensor = Tensor("float32", (1, 2), np.zeros((1, 2), np.float32))
    write_document(tmp_path / "long.json", {"format": FORMAT}, {"other": {"cache": [tensor] * 30}})
    parts = Parts(load(tmp_path / "long.json")._repr_html_())
    assert parts.cells[1].startswith("[[1, 2], ")
    assert parts.cells[1].endswith("[1, 2]]")  # after the summary, all of it
    assert parts.tags.count("details") == 2


def test_a_document_of_another_program(tmp_path: Path) -> None:
    """Pretty-printed, and nothing stated of shapes or types."""
    path = tmp_path / "other.json"
    path.write_text(
        json.dumps({"captured": {"mlp_outputs": {"mlp": {"output": [1, 2]}}}}, indent=2)
    )
    parts = Parts(load(path)._repr_html_())
    assert parts.cells == ["mlp", "not stated", ""]


@settings(max_examples=15, deadline=None)
@given(texts=st.lists(st.text(max_size=20), min_size=3, max_size=3, unique=True))
def test_any_text_stays_text_in_the_table(
    tmp_path_factory: pytest.TempPathFactory, texts: list[str]
) -> None:
    name, model, prompt = texts
    path = tmp_path_factory.mktemp("table") / "document.json"
    parts = Parts(modules_only(path, [name], model, prompt)._repr_html_())
    assert set(parts.tags) <= {"p", "b", "details", "summary", "table", "tr", "th", "td"}
    assert parts.cells[0] == name.replace("\0", "\ufffd")  # which HTML does not know
    assert f"{model} {prompt}".replace("\0", "\ufffd") in parts.text


def test_a_page_too_large_is_a_line(
    document: Document, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(notebook, "LARGEST", 100_000)
    view = document.view("model")
    parts = Parts(view._repr_html_())
    assert parts.tags == ["p"]
    assert "and a notebook shows at most 100 kB" in parts.text
    assert "document.view(layers=[0, 1])" in parts.text
    view.save(tmp_path / "page.html")  # as the line advises
    assert (tmp_path / "page.html").read_bytes() == view.page
    parts = Parts(document._repr_html_())
    assert "at most 100 kB" in parts.text
    assert "iframe" not in parts.tags
    assert parts.cells[0] == "model.self.layers.0.attn"


def test_too_many_weights_are_not_even_read(
    document: Document, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(notebook, "MOST_WEIGHTS", 2 * 3 * 36)
    assert "iframe" in document._repr_html_()
    monkeypatch.setattr(notebook, "MOST_WEIGHTS", 2 * 3 * 36 - 1)
    monkeypatch.setattr(content, "read_content", None)
    parts = Parts(document._repr_html_())
    assert "The document holds 216 attention weights, too many" in parts.text
    assert parts.cells


@pytest.mark.parametrize("failing", [("make_view",), ("make_view", "_table"), ("_too_many",)])
def test_what_is_shown_never_raises(
    document: Document, monkeypatch: pytest.MonkeyPatch, failing: tuple[str, ...]
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("<b>out of luck")

    for name in failing:
        monkeypatch.setattr(notebook, name, fail)
    parts = Parts(document._repr_html_())
    assert "RuntimeError: <b>out of luck" in parts.text
    assert bool(parts.cells) == ("_table" not in failing)


def test_a_closed_document_says_so(tmp_path: Path) -> None:
    write_capture(tmp_path / "capture.json", LAYERS)
    with load(tmp_path / "capture.json") as closed:
        pass
    parts = Parts(closed._repr_html_())
    assert parts.tags == ["p"]
    assert "cannot be shown" in parts.text


def test_showing_needs_neither_torch_nor_jupyter(document: Document) -> None:
    code = (
        "import sys; from activations import load; load(sys.argv[1])._repr_html_();"
        "print([n for n in ('torch', 'transformers', 'IPython') if n in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(document.path)],
        cwd=EXAMPLE.parent.parent,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "[]\n"


# ------------------------------------------------------------------------------------ the example


def run_notebook(path: Path) -> tuple[list[str], dict[str, Any]]:
    """Execute the code cells in order, in this process. The HTML shown, and the names left."""
    shown: list[str] = []
    names: dict[str, Any] = {}
    for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
        if cell["cell_type"] != "code":
            continue
        tree = ast.parse("".join(cell["source"]))
        last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
        exec(compile(tree, path.name, "exec"), names)
        if last is not None:
            value = eval(compile(ast.Expression(last.value), path.name, "eval"), names)
            if hasattr(value, "_repr_html_"):
                shown.append(value._repr_html_())
    return shown, names


@pytest.mark.browser
def test_the_example_notebook_runs_and_draws(
    workplace: Path, open_page: Open, capsys: pytest.CaptureFixture[str]
) -> None:
    shown, names = run_notebook(EXAMPLE)
    assert capsys.readouterr().out.splitlines()[0] == "layer 3, head 1: 0.66"
    assert names["tokens"][names["second"]] == "·Z"
    assert (workplace / "story.html").read_bytes() == names["document"].view("model").page
    tab, (whole, head, model) = open_outputs(open_page, workplace / "notebook.html", shown)
    assert whole.locator("#layer option").all_inner_texts() == ["0", "1", "2", "3"]
    assert whole.locator("#vis line").count() > 200
    assert head.locator("#heads button").all_inner_texts() == ["1"]
    assert model.locator("#vis [role=button]").count() == 8
    assert tab.page.locator("td").first.inner_text() == "model.layers.0.mlp"
    assert tab.complaints == []


def test_the_example_notebook_is_clean() -> None:
    found = json.loads(EXAMPLE.read_text(encoding="utf-8"))
    assert found["metadata"]["kernelspec"]["name"] == "python3"
    for cell in found["cells"]:
        assert isinstance(cell["source"], list)
        if cell["cell_type"] == "code":
            assert cell["outputs"] == []
            assert cell["execution_count"] is None


@pytest.mark.browser
def test_frames_are_strangers_to_each_other(
    document: Document, open_page: Open, tmp_path: Path
) -> None:
    outputs = [document.view()._repr_html_()] * 2
    tab, (one, two) = open_outputs(open_page, tmp_path / "notebook.html", outputs)
    pressed = "#heads button[aria-pressed=true]"
    expect(two.locator(pressed)).to_have_count(1)
    before = two.input_value("#layer")
    one.select_option("#layer", label="2" if before == "0" else "0")
    one.get_by_role("button", name="All", exact=True).click()
    expect(one.locator(pressed)).to_have_count(3)
    expect(two.locator(pressed)).to_have_count(1)
    assert two.input_value("#layer") == before
    for reach in ("parent.document", "parent[1].document", "localStorage"):
        found = one.evaluate(f"() => {{ try {{ {reach}; }} catch (e) {{ return e.name; }} }}")
        assert found == "SecurityError", reach
    assert one.evaluate("origin") == "null"
    assert tab.complaints == []


def test_where_frames_are_taken_out_a_line_is_left(document: Document) -> None:
    """Jupyter does so with a notebook from elsewhere until it is trusted, and keeps the text."""
    html = document._repr_html_()
    assert html.endswith(f">{escape(notebook._INSTEAD)}</iframe>")
