"""The pages in a real browser: documents to make them of, and what they have drawn.

Everything a page shows is read back from the picture (coordinates, opacities, texts), never from
the data the page was made of.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from playwright.sync_api import Browser, Frame, Locator, Playwright, Route, expect

import bertviz_head_model_view
from activations.attention.layer import Layer as Weights
from activations.attention.stack import Stack
from activations.document.format import FORMAT
from activations.document.writer import write_document
from activations.outputs.tensor import Tensor
from activations.views.choices import VIEWS

FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
NAMES = ("chromium", "chromium-browser", "google-chrome")
MODEL = "Family/Tiny-1"
TITLE = "#head-detail-title"  # of the head that is open
TIMEOUT = 60_000  # ms; a page that hangs fails, a slow machine does not
BOTH_VIEWS = pytest.mark.parametrize("view", VIEWS)
Lines = dict[tuple[int, ...], float]

expect.set_options(timeout=TIMEOUT)

# ------------------------------------------------------------------------------------- the browser
# bertviz's own pages ask for require.js; this does what they need of it.
REQUIRE = "https://cdnjs.cloudflare.com/ajax/libs/require.js/2.3.6/require.min.js"
STAND_IN = """
window.require = { config() {} };
window.requirejs = (names, draw) => draw(jQuery, d3);
"""


def launch(playwright: Playwright) -> Browser:
    """The installed Chromium, else the one playwright brought. Never none: the tests must run."""
    names = filter(None, (os.environ.get("CHROMIUM"), *NAMES))
    found = next(filter(None, map(shutil.which, names)), None)
    return playwright.chromium.launch(executable_path=found, args=FLAGS)


class Tab:
    """A tab in which pages are opened from files.

    Only the file and what `allowed` and `answers` name is loaded; anything else is refused and
    kept in `requests`. Messages and errors are kept in `complaints`.
    """

    def __init__(self, browser: Browser, **options: Any) -> None:
        self.context = browser.new_context(**options)
        self.context.set_default_timeout(TIMEOUT)
        self.page = self.context.new_page()
        self.complaints: list[str] = []
        self.requests: list[str] = []
        self._allowed: set[str] = set()
        self._answers: dict[str, str] = {}
        self.context.route("**/*", self._route)
        self.page.on("console", lambda it: self.complaints.append(f"{it.type}: {it.text}"))
        self.page.on("pageerror", lambda it: self.complaints.append(f"error: {it}"))

    def open(
        self,
        url: str,
        allowed: Iterable[str] = (),
        answers: dict[str, str] | None = None,
        color_scheme: Literal["dark", "light"] = "light",
    ) -> None:
        """Open `url`. `allowed` are files that may be gone to, `answers` scripts by their URL."""
        self._allowed = {url.partition("#")[0], *allowed}
        self._answers = answers or {}
        self.page.emulate_media(color_scheme=color_scheme)
        self.page.goto(url)

    def _route(self, route: Route) -> None:
        url = route.request.url
        if url.partition("#")[0] in self._allowed and route.request.is_navigation_request():
            route.continue_()
        elif url in self._answers:
            route.fulfill(body=self._answers[url], content_type="text/javascript")
        else:
            self.requests.append(url)
            route.abort()

    def leave(self) -> tuple[list[str], list[str]]:
        """Make ready for the next page; the complaints and requests until now."""
        self.page.mouse.move(0, 0)
        self.page.set_viewport_size({"width": 1280, "height": 720})
        self.page.emulate_media(media="null")
        self.page.goto("about:blank")
        found = self.complaints, self.requests
        self.complaints, self.requests = [], []
        return found

    def drawn(self) -> str:
        """Wait until the drawing is there; the line that tells how much is drawn."""
        self.wait("() => !document.getElementById('status').textContent.startsWith('Drawing')")
        return str(self.page.evaluate("document.getElementById('status').textContent"))

    def wait(self, condition: str) -> None:
        # Not page.wait_for_function: that evaluates strings, which the page's policy refuses.
        held = self.page.evaluate(
            f"""async () => {{
                const end = performance.now() + {TIMEOUT};
                while (!({condition})()) {{
                    if (performance.now() > end) return false;
                    await new Promise(done => setTimeout(done, 5));
                }}
                return true;
            }}"""
        )
        assert held, f"after {TIMEOUT} ms still not: {condition}"

    def choose(self, selector: str, label: str) -> str:
        self.page.select_option(selector, label=label)
        return self.drawn()

    def button(self, name: str) -> Locator:
        """The button of exactly this name: a head, a picture of the model view."""
        return self.page.get_by_role("button", name=name, exact=True)

    def unfold(self) -> None:
        """Show the table of scores."""
        self.page.evaluate("document.getElementById('scores').open = true")

    def options(self) -> None:
        """Unfold the options, where they have no room in the row of controls."""
        button = self.page.locator("#options-button")
        if button.is_visible() and button.get_attribute("aria-expanded") == "false":
            button.click()

    def show_lines(self) -> None:
        """Of the head that is open in the model view, the lines instead of the matrix."""
        self.page.locator("#panel-kind").get_by_role("button", name="Lines").click()
        self.wait("() => document.querySelector('#head-vis .detail title') !== null")

    def row(self, head: str) -> Locator:
        """The link of a head in the table of scores, which is unfolded."""
        self.unfold()
        return self.page.get_by_role("link", name=head, exact=True)

    def read(self, selector: str) -> str:
        """What a person reads there, without empty lines."""
        return re.sub(r"\n+", "\n", self.page.locator(selector).inner_text())

    def reads(self, selector: str, text: str) -> None:
        """Wait until exactly this is read there."""
        expect(self.page.locator(selector)).to_have_text(text)

    def hash(self) -> str:
        return str(self.page.evaluate("location.hash"))

    def follow(self, selector: str, address: str) -> None:
        """Click a link to another page, whose address ends so."""
        self.page.locator(selector).click()
        self.page.wait_for_url(f"**{address}")
        self.drawn()

    def resize(self, width: int, height: int = 900) -> None:
        """Another window; at 640 pixels and less the model view has pictures instead of lines."""
        self.page.set_viewport_size({"width": width, "height": height})
        self.page.evaluate(
            "() => new Promise(done => requestAnimationFrame(() => setTimeout(done)))"
        )
        self.drawn()

    def menu(self, button: str) -> None:
        """Choose from the menu of what can be saved."""
        self.page.locator("#save > summary").click()
        self.button(button).click()

    def saved(self, button: str) -> tuple[str, bytes]:
        """The name and the content of the file that this button saves."""
        with self.page.expect_download() as download:
            self.menu(button)
        return download.value.suggested_filename, Path(download.value.path()).read_bytes()

    def luminance(self, selector: str = "body", style: str = "backgroundColor") -> float:
        """How light a colour is, 0 to 1."""
        colour = self.page.evaluate(
            "([s, p]) => getComputedStyle(document.querySelector(s))[p]", [selector, style]
        )
        return luminance(colour)

    def texts(self, selector: str) -> list[str]:
        """The texts as drawn: without the <title> a text holds for pointing at it."""
        return list(
            self.page.evaluate(
                "s => Array.from(document.querySelectorAll(s), e => e.firstChild?.data ?? '')",
                selector,
            )
        )

    def attributes(self, selector: str, *names: str) -> list[list[str | None]]:
        return list(
            self.page.evaluate(
                "([s, names]) => Array.from(document.querySelectorAll(s),"
                " e => names.map(n => e.getAttribute(n)))",
                [selector, list(names)],
            )
        )

    def pressed(self) -> list[bool]:
        """Which head buttons say that their head is on."""
        return [
            value == "true"
            for (value,) in self.attributes("#heads button[aria-label^='Head ']", "aria-pressed")
        ]


def luminance(colour: str) -> float:
    red, green, blue = (int(number) for number in re.findall(r"\d+", colour)[:3])
    return (0.299 * red + 0.587 * green + 0.114 * blue) / 255


Open = Callable[..., Tab]  # the fixture open_page


# -------------------------------------------------------------------------------- what is captured


@dataclass(frozen=True)
class Layer:
    """The attention weights (heads, rows, columns) of one layer in a document."""

    layer: int
    weights: np.ndarray
    kind: str = "self"


def random_weights(
    seed: int, heads: int, rows: int, columns: int | None = None, causal: bool = True
) -> np.ndarray:
    """Random row-stochastic float32 matrices, unlike each other; some weights are very faint."""
    scores = np.random.default_rng(seed).normal(0, 2.5, (heads, rows, columns or rows))
    if causal and columns is None:
        scores[:, *np.triu_indices(rows, 1)] = -np.inf
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    return (weights / weights.sum(-1, keepdims=True)).astype(np.float32)


def stack_of(
    *weights: np.ndarray,
    rows: Sequence[str] = (),
    columns: Sequence[str] = (),
    split: int | None = None,
) -> Stack:
    """A stack of these layers, each (heads, rows, columns); tokens are named t0, t1, ..."""
    heads, height, width = weights[0].shape
    row_tokens = tuple(rows) or tuple(f"t{i}" for i in range(height))
    column_tokens = tuple(columns) or tuple(f"t{i}" for i in range(width))
    layers = tuple(range(len(weights)))
    return Stack(
        "Self",
        "self",
        layers,
        tuple(range(heads)),
        tuple(map(Weights.of, weights)),
        row_tokens,
        column_tokens,
        split,
    )


def write_capture(path: Path, layers: Sequence[Layer], **header: Any) -> None:
    """A document with these layers, as command 1 would have written it."""
    outputs, places = {}, []
    for layer in layers:
        name = f"model.{layer.kind}.layers.{layer.layer}.attn"
        hidden = np.zeros((1, layer.weights.shape[1], 2), np.float32)
        batch = np.ascontiguousarray(layer.weights[None], np.float32)
        outputs[name] = [Tensor("float32", data.shape, data) for data in (hidden, batch)]
        places.append({"module": name, "element": [1], "layer": layer.layer, "kind": layer.kind})
    tokens = [f"t{i}" for i in range(layers[0].weights.shape[1])]
    known = {"format": FORMAT, "model": MODEL, "prompt": "A prompt.", "tokens": tokens}
    write_document(path, {**known, "attention_weights": places, **header}, {"attention": outputs})


def make_pages(
    folder: Path, layers: Sequence[Layer], *flags: str, **header: Any
) -> dict[str, Path]:
    """The pages of such a document, made by the command: {"head": path, "model": path}."""
    folder.mkdir(exist_ok=True)
    write_capture(folder / "capture.json", layers, **header)
    command = ["--input", str(folder / "capture.json"), "--output-dir", str(folder / "pages")]
    assert bertviz_head_model_view.main([*command, "--quiet", *flags]) == 0
    pages = (folder / "pages").glob("attention_*_view_*.html")
    return {page.name.split("_")[1]: page for page in pages}


def expected_lines(weights: np.ndarray, cut: float = 0.01) -> Lines:
    """(head, row, column) -> weight to 4 decimals, for the weights that are drawn."""
    rounded = {place: round(float(weight), 4) for place, weight in np.ndenumerate(weights)}
    return {place: weight for place, weight in rounded.items() if weight > cut}


# ---------------------------------------------------------------------------------- what is drawn

_HEAD_LINES = """() => Array.from(document.querySelectorAll('#vis .headAttention line'), line => [
    +line.closest('.headAttention').getAttribute('head-index'),
    ...['x1', 'y1', 'x2', 'y2', 'stroke-opacity'].map(n => +line.getAttribute(n))])"""
_PICTURES = """() => Array.from(document.querySelectorAll('#vis > svg > g'))
    .filter(group => group.querySelector('.attn_background'))
    .map(group => ({
        id: group.querySelector('.attn_background').id,
        label: group.lastElementChild.getAttribute('aria-label'),
        top: +group.querySelector('.attn_background').getAttribute('y'),
        lines: Array.from(group.querySelectorAll('line'), line =>
            ['y1', 'y2', 'stroke-opacity'].map(n => +line.getAttribute(n)))}))"""


def _index(y: float, top: float, height: float) -> int:
    """Which row of boxes a line ends in: it must end in the middle of one."""
    index = (y - top) / height - 0.5
    assert abs(index - round(index)) < 1e-6, y
    return round(index)


def head_view_lines(tab: Tab) -> Lines:
    """(head, row, column) -> weight of the lines that can be seen in the head view."""
    active = tab.page.evaluate("HeadView.heads().length")
    found: Lines = {}
    for head, x1, y1, x2, y2, opacity in tab.page.evaluate(_HEAD_LINES):
        # From the right edge of the left box to the left edge of the other.
        assert (x1, x2) == (110, 225)
        place = (head, _index(y1, 30, 22.5), _index(y2, 30, 22.5))
        assert place not in found
        found[place] = round(opacity * active, 4)
    return {place: weight for place, weight in found.items() if weight}


def model_view_lines(tab: Tab) -> dict[tuple[int, int], Lines]:
    """(layer, head) as the page names them -> {(row, column): weight}."""
    pictures = tab.page.evaluate(_PICTURES)
    heads = 1 + max(int(picture["id"].split("_")[-1]) for picture in pictures)
    height = 7 * (12 / max(heads, 2))
    found = {}
    for i, picture in enumerate(pictures):
        # The pictures come in rows, and each says which layer and head it is.
        assert picture["id"] == f"attn_background_{i // heads}_{i % heads}"
        layer, head = (int(word.split()[1]) for word in picture["label"].split(", "))
        top = picture["top"] + 5
        found[layer, head] = {
            (_index(y1, top, height), _index(y2, top, height)): round(opacity, 4)
            for y1, y2, opacity in picture["lines"]
        }
        assert len(found[layer, head]) == len(picture["lines"])
    return found


def expected_pictures(
    layers: Sequence[Layer], cut: float = 0.01, part: tuple[slice, slice] = (slice(None),) * 2
) -> dict[tuple[int, int], Lines]:
    return {
        (layer.layer, head): expected_lines(matrix[part], cut)
        for layer in layers
        for head, matrix in enumerate(layer.weights)
    }


def open_outputs(open_page: Open, path: Path, outputs: Sequence[str]) -> tuple[Tab, list[Frame]]:
    """A page with these outputs of a notebook one below the other; its frames, all drawn."""
    path.write_text(f"<!doctype html><meta charset=utf-8>{''.join(outputs)}", encoding="utf-8")
    tab = open_page(path, quiet=False)
    frames = tab.page.frames[1:]
    for frame in frames:
        frame.frame_element().scroll_into_view_if_needed()  # out of sight it does not draw
        expect(frame.locator("#status")).to_contain_text("are drawn")
    return tab, frames
