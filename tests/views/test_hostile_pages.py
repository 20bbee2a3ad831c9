"""Pages from strangers' documents: all is shown as typed, nothing runs, nothing is asked for."""

from __future__ import annotations

import csv
import json
import os
import re
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import numpy as np
import picture_files
import pytest
from browser import (
    BOTH_VIEWS,
    Layer,
    Open,
    Tab,
    make_pages,
    open_outputs,
    random_weights,
    stack_of,
    write_capture,
)
from conftest import Run
from injections import INJECTIONS
from playwright.sync_api import Frame

import bertviz_head_model_view
from activations import load
from activations.attention.spelling import readable
from activations.document.format import FORMAT
from activations.document.writer import write_document
from activations.outputs.tensor import Tensor
from activations.text import printable
from activations.views import page
from activations.views.choices import SUMMARY_FORMATS, VIEWS
from activations.views.content import Caption
from activations.views.names import short_model
from activations.views.page import build_pages

pytestmark = pytest.mark.browser

COUNT = len(INJECTIONS)
EVERYTHING = " ".join(INJECTIONS)
TEXTS = {"text_pair": "second", "target": "target", "image": "image", "audio": "audio"}
TEXTS["written"] = "generated"
LEFT = "#vis #left text > title"


def tensors(seed: int, rows: int, columns: int, nan: bool = False) -> list[Tensor]:
    causal = random_weights(seed, 2, rows, columns, causal=False)
    if nan:
        causal[0, 0, 0] = np.nan
    hidden = np.zeros((1, rows, 2), np.float32)
    arrays = (hidden, np.ascontiguousarray(causal[None]))
    return [Tensor("float32", array.shape, array) for array in arrays]


def write_strange(path: Path) -> None:
    """A document in which every string that reaches a page is hostile.

    Each of its modules has one for a name. Two of a layer are apart, so that their names stand in
    the list; of one the weights have another shape, so that it stands in a note.
    """
    outputs, places = {}, []
    for i, name in enumerate([*INJECTIONS[:6], EVERYTHING[:2000]]):
        module = f"m.{name}.layers.{i % 2}.attn"
        outputs[module] = tensors(i, COUNT, COUNT, nan=i == 3)
        places.append({"module": module, "element": [1], "layer": i % 2, "kind": "encoder"})
    flat = f"m.{INJECTIONS[7]}.{EVERYTHING[:500]}.layers.0"
    outputs[flat] = [outputs[module][0]] * 2
    places.append({"module": flat, "element": [1], "layer": 0, "kind": "encoder"})
    for kind in ("cross", "decoder", "__proto__", "constructor"):
        module = f"{INJECTIONS[8]}.{kind}.0"
        outputs[module] = tensors(1, 5, COUNT if kind == "cross" else 5)
        places.append({"module": module, "element": [1], "layer": 0, "kind": kind})
    header = {
        "format": FORMAT,
        "model": EVERYTHING,
        "prompt": EVERYTHING,
        **dict.fromkeys(TEXTS, EVERYTHING),
        "tokens": INJECTIONS,
        "decoder_tokens": INJECTIONS[-5:],
        "attention_weights": places,
        "pictures": [picture_files.image(np.zeros((4, 8, 3)), (1, 4), 2)],
        "environment": {EVERYTHING: EVERYTHING},
        "__proto__": {"polluted": 1},
        "constructor": {"prototype": {"polluted": 1}},
    }
    write_document(path, header, {"attention": outputs})


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("strange")
    write_strange(folder / "d.json")
    command = ["--input", str(folder / "d.json"), "--output-dir", str(folder / "pages"), "--quiet"]
    assert bertviz_head_model_view.main(command) == 0
    return {path.name.split("_")[1]: path for path in (folder / "pages").iterdir()}


PRISTINE = """() => [Object, Array, String, Map, Function, Element].map(
    each => Object.getOwnPropertyNames(each.prototype).length)"""
OURS = "script:not([type='text/plain']), iframe, object, embed, base, form, link, img, style, "
OURS += "audio, video, [style*=url]"


def assert_harmless(place: Tab | Frame) -> None:
    """Nothing ran, nothing was added to what all objects share, no element is a stranger's."""
    page = place.page if isinstance(place, Tab) else place
    assert page.evaluate("window.hacked") is None
    assert page.evaluate("({}).polluted") is None
    tags = page.evaluate(f"Array.from(document.querySelectorAll({OURS!r}), e => e.localName)")
    assert tags == ["style"] + ["script"] * 5
    handlers = """() => Array.from(document.querySelectorAll('*')).flatMap(
        e => e.getAttributeNames().filter(n => /^on|^(src|srcdoc|action|formaction)$/.test(n)))"""
    assert page.evaluate(handlers) == []
    links = page.evaluate("Array.from(document.links, e => e.getAttribute('href'))")
    assert all(re.match(r"#layer=|attention_(head|model)_view_", link) for link in links)


def as_html(text: str) -> str:
    return text.replace("\0", "\ufffd")


# ------------------------------------------------------------------------------ all that is shown


@BOTH_VIEWS
def test_all_is_shown_as_typed(pages: dict[str, Path], open_page: Open, view: str) -> None:
    tab = open_page(pages[view])
    assert_harmless(tab)
    for place in ("model", "prompt", *TEXTS.values()):
        assert tab.page.locator(f"#{place}").text_content() == as_html(EVERYTHING), place
        assert tab.page.locator(f"#{place} *").count() == 0
    title = tab.page.evaluate("document.querySelector('title').textContent")
    assert title.startswith(f"Attention {view} view: {printable(short_model(EVERYTHING))} – ")
    notes = tab.page.locator("#notes li").all_text_contents()
    assert any(printable(INJECTIONS[7]) in note and "Left out." in note for note in notes)
    assert any("are not finite" in note for note in notes)
    options = tab.page.evaluate("Array.from(filter.options, e => e.textContent)")
    for injection in INJECTIONS[:6]:
        assert sum(printable(f"m.{injection}.layers") in option for option in options) == 1
        assert printable(injection) in str(tab.page.locator("#facts").text_content())
    assert {"  proto  ", "Constructor", "Cross", "Decoder"} <= {
        option.split(",")[0] for option in options
    }
    for option in range(len(options)):  # each of them drawn
        tab.page.select_option("#filter", index=option)
        tab.drawn()
    assert_harmless(tab)


def test_tokens_in_every_part_of_the_page(pages: dict[str, Path], open_page: Open) -> None:
    tab = open_page(pages["head"], "#layer=0&head=1")
    shown = readable(INJECTIONS)
    assert tab.texts(LEFT) == tab.texts("#vis #right text > title") == shown
    tab.options()
    tab.page.locator("#values").check()  # so that there is room for all the names
    assert tab.texts("#heat text > title") == shown * 2
    labels = [label for (label,) in tab.attributes("#vis [role=option]", "aria-label")]
    assert labels == [f"{token}, token {i}" for i, token in enumerate(shown)] * 2
    read = tab.page.evaluate(
        """() => Array.from(document.querySelectorAll('#vis #left [role=option]'), group => {
            group.focus();
            return document.querySelector('#readout .token').textContent;
        })"""
    )
    assert read == shown
    cells = tab.page.evaluate(
        """count => Array.from({ length: count }, () => {
            document.querySelector('#heat svg').focus();
            const tokens = document.querySelectorAll('#cell .token');
            const shown = Array.from(tokens, e => e.textContent);
            const down = new KeyboardEvent('keydown', { key: 'ArrowDown' });
            document.querySelector('#heat svg').dispatchEvent(down);
            return shown;
        })""",
        COUNT,
    )
    assert cells == [[token, shown[0]] for token in shown]
    for box in ("#values", "#without-first", "#average"):  # with the last one no head is on its own
        tab.options()
        tab.page.locator(box).set_checked(not tab.page.locator(box).is_checked())
        tab.drawn()
    assert tab.page.locator("#scores").is_hidden() or tab.page.locator("#scores tbody tr").count()
    assert_harmless(tab)
    tab.page.select_option("#filter", label="Cross")
    tab.drawn()
    assert tab.texts(LEFT) == readable(INJECTIONS[-5:])

    model = open_page(pages["model"], "#layer=0&head=0")
    model.show_lines()
    assert model.texts("#head-vis .detail text.token > title") == shown * 2
    for i in (0, 7, COUNT - 1):
        model.page.locator("#head-vis g.detail [role=option]").nth(i).focus()
        assert model.page.locator("#readout .token").first.text_content() == shown[i]
    assert_harmless(model)


NO_XML = re.compile("[^\t\n\r -\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
SPACE = "{http://www.w3.org/2000/svg}"
DRAWN = {"svg", "g", "title", "rect", "line", "text", "tspan", "path", "image"}


def assert_asks_nothing(root: ET.Element) -> None:
    for element in root.iter():
        assert element.tag not in (f"{SPACE}script", f"{SPACE}foreignObject", f"{SPACE}a")
        for name, value in element.attrib.items():
            assert not name.lower().startswith("on")
            assert not re.search(r"url\((?!#)", value)
            assert not name.endswith("href") or value.startswith(("data:image/png;base64,", "#"))


def assert_plain_picture(svg: bytes) -> list[str]:
    """Well-formed, of nothing but shapes and words; the titles of its texts."""
    root = ET.fromstring(svg)
    assert {element.tag.removeprefix(SPACE) for element in root.iter()} <= DRAWN
    assert_asks_nothing(root)
    (title, *_) = root.findall(f"{SPACE}title")
    assert str(title.text).startswith("Attention ")
    return [str(text.findtext(f"{SPACE}title")) for text in root.iter(f"{SPACE}text")]


@BOTH_VIEWS
def test_what_is_saved(pages: dict[str, Path], open_page: Open, tmp_path: Path, view: str) -> None:
    tab = open_page(pages[view], "#layer=0&head=1")
    tab.options()
    tab.page.locator("#values").check()  # so that there is room for all the names
    tab.page.locator("#heat text > title").nth(2 * COUNT - 1).wait_for(state="attached")
    expected = [NO_XML.sub("\ufffd", token) for token in readable(INJECTIONS)]
    for button in ("Save the picture as SVG", "Save matrix as SVG"):
        name, picture = tab.saved(button)
        assert re.fullmatch(rf"attention_{view}_view_[A-Za-z0-9._-]+\.svg", name)
        titles = [title for title in assert_plain_picture(picture) if title in expected]
        if view == "head" or "matrix" in button:  # else they are the pictures of all heads
            assert titles[: 2 * COUNT] == expected * 2
        path = tmp_path / f"{len(button)}.svg"
        path.write_bytes(picture)
        alone = open_page(path, quiet=False)
        assert alone.page.evaluate("window.hacked") is None
        assert alone.page.evaluate("document.documentElement.localName") == "svg"
        assert alone.complaints == []
    assert tab.saved("Save the picture as PNG")[1].startswith(b"\x89PNG")
    assert_harmless(tab)


ADDRESSES = [
    "#layer=__proto__&head=constructor&attention=__proto__&theme=__proto__",
    "#__proto__[polluted]=1&__proto__.polluted=1&constructor[prototype][polluted]=1",
    "#attention=-1&layer=1e400&head=NaN&theme=javascript:window.hacked=1",
    "#attention=length&layer=%00&head=%ff%fe&theme=%F0%9F",
    "#%3Cscript%3Ewindow.hacked=1%3C/script%3E",
    "#layer=0&layer=1&head=0&head=average&attention=0.5",
    "#layer='\"><img src=x onerror=window.hacked=1>",
    '#theme=dark"onload=window.hacked=1&layer=0x0&head=+0',
    "#:~:text=script&layer=0",
    "#" + "layer=0&" * 5000,
    "#main",
    "#page-data",
    "#layer=0&head=99999999999999999999",
]


@BOTH_VIEWS
def test_addresses(pages: dict[str, Path], open_page: Open, tmp_path: Path, view: str) -> None:
    blank = tmp_path / "blank.html"
    blank.write_text("<!doctype html><title>x</title>")
    pristine = open_page(blank, quiet=False).page.evaluate(PRISTINE)
    tab = open_page(pages[view], ADDRESSES[0])
    for address in ADDRESSES[1:]:
        tab.page.evaluate("address => { location.hash = address; return painted(); }", address)
        tab.drawn()
        assert tab.page.evaluate(PRISTINE) == pristine  # what all objects share is left alone
        assert tab.page.evaluate("document.documentElement.dataset.theme") in ("system", "dark")
    assert_harmless(tab)
    assert re.match(r"$|#layer=|#attention=", tab.hash())


def test_in_a_notebook(pages: dict[str, Path], open_page: Open, tmp_path: Path) -> None:
    document = load(pages["head"].parent.parent / "d.json")
    small = Tensor("float32", (1, 2), np.zeros((1, 2), np.float32))
    names = [name for name in INJECTIONS if name]
    header = {"format": FORMAT, "model": EVERYTHING, "prompt": EVERYTHING}
    output = {INJECTIONS[7]: small, "dtype": None}
    write_document(tmp_path / "t.json", header, {"mlp": dict.fromkeys(names, output)})
    outputs = [document._repr_html_(), load(tmp_path / "t.json")._repr_html_()]
    tab, (frame,) = open_outputs(open_page, tmp_path / "notebook.html", outputs)
    assert frame.locator("#prompt").text_content() == as_html(EVERYTHING)
    frame.locator("#heat svg").wait_for()
    assert_harmless(frame)
    assert frame.evaluate("origin") == "null"
    assert tab.page.evaluate("window.hacked") is None
    strange = "script, img, svg, link, base, form, style, object, embed, meta:not([charset])"
    assert tab.page.locator(strange).count() == 0
    assert tab.page.locator("iframe").count() == 1
    cells = tab.page.locator("td:first-child").all_text_contents()
    assert cells == [name.replace("\0", "\ufffd") for name in names]
    assert tab.complaints == []


# ------------------------------------------------------------------- with escaping switched off

OUT = "http://127.0.0.1:9"
RUNS = {  # what would run: {name it sets: HTML}
    "inline": "<script>window.inline=1</script>",
    "module": "<script type=module>window.module=1</script>",
    "data": "<script src='data:text/javascript,window.data=1'></script>",
    "onerror": f"<img src={OUT}/a onerror=window.onerror_=1>",
    "onload": "<svg onload=window.onload_=1></svg>",
    "svg": "<svg><script>window.svg=1</script></svg>",
    "ontoggle": "<details open ontoggle=window.ontoggle_=1>x</details>",
    "onfocus": "<input autofocus onfocus=window.onfocus_=1>",
    "onbegin": "<svg><animate onbegin=window.onbegin_=1 attributeName=x dur=1s></svg>",
    "frame": "<iframe src='javascript:parent.frame=1'></iframe>",
    "srcdoc": "<iframe srcdoc='<script>parent.srcdoc=1</script>'></iframe>",
}
ASKS = {  # what would be asked for: {name in the address: HTML}
    "script": f"<script src={OUT}/script></script>",
    "img": f"<img src={OUT}/img>",
    "srcset": f"<img srcset='{OUT}/srcset 1x'>",
    "input": f"<input type=image src={OUT}/input>",
    "video": f"<video src={OUT}/video poster={OUT}/poster></video>",
    "audio": f"<audio src={OUT}/audio preload=auto></audio>",
    "frames": f"<iframe src={OUT}/frames></iframe>",
    "object": f"<object data={OUT}/object></object>",
    "embed": f"<embed src={OUT}/embed>",
    "css": f"<link rel=stylesheet href={OUT}/css>",
    "preload": f"<link rel=preload as=image href={OUT}/preload>",
    "modulepreload": f"<link rel=modulepreload href={OUT}/modulepreload>",
    "prefetch": f"<link rel=prefetch href={OUT}/prefetch>",
    "style": f"<p style='background:url({OUT}/style)'>x</p>",
    "import": f"<style>@import '{OUT}/import';</style>",
    "rule": f"<style>p{{background:url({OUT}/rule)}}</style>",
    "use": f"<svg><image href={OUT}/use /></svg>",
    "background": f"<table background={OUT}/background><tr><td>x</table>",
}
LINKS = {  # what is only tried when it is clicked
    "href": "<a id=try href='javascript:window.href=1'>x</a>",
    "animated": "<svg width=50 height=20><a id=try><animate attributeName=href "
    "values='javascript:window.animated=1' dur=9s /><text y=15>xxxx</text></a></svg>",
    "form": f"<form action={OUT}/form><button id=try>x</button></form>",
    "formaction": "<form><button id=try formaction='javascript:window.formaction=1'>x</button>",
}


@pytest.fixture
def unescaped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page, "html_text", str)
    monkeypatch.setattr(page, "_json_in_html", lambda data: json.dumps(data, ensure_ascii=False))


def strange_page(path: Path, note: str, token: str = "a") -> Path:
    tokens = [token, "b", "c"]
    stack = stack_of(random_weights(0, 1, 3), rows=tokens, columns=tokens)
    pages = build_pages(["head"], Caption("model", "prompt", (note,)), [stack])
    path.write_bytes(b"".join(pages["head"]))
    return path


def settle(tab: Tab) -> tuple[set[str], set[str]]:
    """What has run and what was asked for, half a second after the page has loaded."""
    tab.page.wait_for_load_state()
    tab.page.evaluate("() => new Promise(done => setTimeout(done, 500))")
    names = [f"{name}_" if name.startswith("on") else name for name in [*RUNS, "token"]]
    ran = tab.page.evaluate("names => names.filter(n => window[n] === 1)", names)
    asked = {url.rpartition("/")[2] for url in tab.requests if url.startswith(OUT)}
    return {name.rstrip("_") for name in ran}, asked


@pytest.mark.usefixtures("unescaped")
@pytest.mark.parametrize("with_policy", [True, False])
def test_the_policy_holds_where_nothing_is_escaped(
    tmp_path: Path, open_page: Open, monkeypatch: pytest.MonkeyPatch, with_policy: bool
) -> None:
    if not with_policy:  # or this test would hold whatever happens
        monkeypatch.setattr(page, "_policy", lambda *_: "base-uri 'none'")
    every = "".join([*RUNS.values(), *ASKS.values(), f"<base href={OUT}/base/>"])
    token = "</script><script>window.token=1</script>"
    tab = open_page(strange_page(tmp_path / "page.html", every, token), quiet=False)
    ran, asked = settle(tab)
    assert tab.page.locator("#notes script").count() > 0  # it is an element, not text
    assert tab.page.evaluate("document.baseURI").startswith("file:")
    if with_policy:
        assert (ran, asked, tab.requests) == (set(), set(), [])
    else:
        assert ran == {*RUNS, "token"}
        assert asked >= set(ASKS) - {"prefetch"}
        tab.requests.clear()


@pytest.mark.usefixtures("unescaped")
@pytest.mark.parametrize("kind", LINKS)
def test_the_policy_holds_when_one_clicks(tmp_path: Path, open_page: Open, kind: str) -> None:
    tab = open_page(strange_page(tmp_path / "page.html", LINKS[kind]), quiet=False)
    tab.page.wait_for_load_state()
    before = tab.page.url.partition("#")[0]
    tab.page.locator("#try").scroll_into_view_if_needed()
    box = tab.page.locator("#try").bounding_box()
    assert box
    tab.page.mouse.click(box["x"] + 4, box["y"] + box["height"] / 2)
    settle(tab)
    assert tab.page.evaluate(f"window.{kind}") is None
    assert re.split("[?#]", tab.page.url)[0] == before
    assert tab.requests == []


def test_the_policy_names_nothing_from_elsewhere(pages: dict[str, Path]) -> None:
    for path in pages.values():
        page = path.read_text()
        (policy,) = re.findall(r'http-equiv="Content-Security-Policy" content="([^"]*)"', page)
        parts = (rule.partition(" ") for rule in policy.split("; "))
        rules = {name: values.split() for name, _, values in parts}
        hashed = r"'sha256-[A-Za-z0-9+/]{43}='"
        assert rules.pop("default-src") == rules.pop("base-uri") == ["'none'"]
        assert rules.pop("form-action") == ["'none'"]
        assert rules.pop("img-src") == ["blob:", "data:"]
        for name in ("script-src", "style-src"):
            assert all(re.fullmatch(hashed, value) for value in rules.pop(name))
        assert rules == {}  # connections, fonts, frames, media, workers: default-src
        assert page.index("Content-Security-Policy") < page.index("<title>")  # before any text


# ------------------------------------------------------------------------ where they are written


@pytest.mark.parametrize("folder", ["pages", "link", "odd\nname 'x' $HOME;é", "new"])
@pytest.mark.parametrize(
    "model", ["../../precious", "/etc/passwd", "up/../up/precious", "é" * 100_000, EVERYTHING]
)
def test_pages_stay_in_their_folder(workplace: Path, view: Run, model: str, folder: str) -> None:
    Path("link").symlink_to("pages")
    for name in ("pages", "odd\nname 'x' $HOME;é"):
        Path(name).mkdir()
        Path(name, "up").symlink_to("..")
    for name in ("precious", "pages/precious"):
        Path(name).write_text("precious")
    write_capture(Path("d.json"), [Layer(0, random_weights(0, 1, 2))], model=model)
    before = {*workplace.rglob("*"), workplace / folder}
    assert view("--input", "d.json", "--output-dir", folder).code == 0
    new = sorted(set(workplace.rglob("*")) - before)
    assert {path.parent for path in new} == {(workplace / folder).resolve()}
    for name, path in zip(VIEWS, new, strict=True):
        assert re.fullmatch(rf"attention_{name}_view_[\w.-]*\.html", path.name, re.A)
    assert Path("precious").read_text() == Path("pages/precious").read_text() == "precious"


def test_a_link_that_leads_out_is_not_followed(workplace: Path, view: Run) -> None:
    """As an archive may hold one beside its document."""
    make_pages(workplace / "made", [Layer(0, random_weights(0, 1, 2))])
    Path("precious").write_text("precious")
    Path("bertviz").mkdir()
    link = Path("bertviz/attention_head_view_Family_Tiny-1_capture.html")
    link.symlink_to(workplace / "precious")
    done = view("--input", "made/capture.json")
    assert done.code == 1
    assert done.err == [
        f"error: '{link}' is a link that leads out of its folder. Remove it, or name another "
        "--output-dir."
    ]
    assert Path("precious").read_text() == "precious"
    assert os.listdir("bertviz") == [link.name]
    link.unlink()
    Path("bertviz/page.html").touch()
    link.symlink_to("page.html")  # one that stays is what its owner wants
    assert view("--input", "made/capture.json").code == 0
    assert link.is_symlink()


# ------------------------------------------------------------------------------------- odd strings

HALVES = {
    "model": "\ud800",
    "prompt": "\udfff",
    "text_pair": "\ud800x",
    "tokens": ["\ud83d", "\ude00"],
}


def test_halves_of_characters(workplace: Path, view: Run) -> None:
    """JSON may hold them, UTF-8 not. Of two modules in a layer the names are shown."""
    output = [[[[0.0]]], [[[[0.5, 0.5], [0.25, 0.75]]]]]
    turned = [[[[0.0]]], [[[[0.25, 0.75], [0.5, 0.5]]]]]
    outputs: dict[str, Any] = {"m.0.\ud800a": {"output": output}, "m.0.b": {"output": turned}}
    Path("d.json").write_text(
        json.dumps({"captured": {"attention_outputs": outputs}, "format": FORMAT, **HALVES})
    )
    done = view("--input", "d.json")
    assert done.code == 0, done.err
    page = Path(done.out[0]).read_text(encoding="utf-8")
    assert r"m.{layer}.\ud800a" in page
    assert load("d.json")._repr_html_().startswith("<iframe")


def test_figures_and_summary(pages: dict[str, Path], workplace: Path, view: Run) -> None:
    """Well-formed, of shapes and words; on the terminal no escape code, in a table no formula."""
    document = pages["head"].parent.parent / "d.json"
    for head, form in (("cross:0.0", "svg"), ("decoder:0.1", "png"), ("decoder:0.1", "pdf")):
        done = view("--input", document, "--figure", head, "--output-format", form)
        assert done.code == 0, done.err
        (path,) = map(Path, done.out)
        assert path.parent == Path("bertviz")
        assert re.fullmatch(rf"attention_figure_[\w.-]+\.{form}", path.name, re.A)
        if form == "svg":
            assert_asks_nothing(ET.fromstring(path.read_bytes()))
    for form in SUMMARY_FORMATS:
        done = view("--input", document, "--summary", form)
        assert done.code == 0
        assert all(line.isprintable() for line in done.out)
        for row in csv.reader(done.out):
            assert not any(cell[:1] in tuple("=+@\t\r") for cell in row)
