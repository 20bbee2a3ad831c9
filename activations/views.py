"""Attention -> a self-contained page around bertviz's own drawing code.

A page is one file: it makes no request, so it draws with the network off and can be mailed. d3 and
jQuery come from installed packages, bertviz's head_view.js and model_view.js from bertviz; they
run unchanged. bertviz's Python is not imported (it would import torch).

The weights travel once: rounded to 4 decimals as 16-bit integers, deflated, base64. All text is
escaped for where it stands, and a Content-Security-Policy names the page's scripts by hash, so
that nothing else can run.
"""

from __future__ import annotations

import base64
import hashlib
import re
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import metadata, resources
from pathlib import Path
from string import Template
from typing import Any

import numpy as np
import orjson

from activations.colours import DARK, LIGHT, STRONG
from activations.errors import ToolkitError
from activations.files import safe_name
from activations.scores import SCORES
from activations.selection import describe_numbers
from activations.stacks import Stack, are_weights
from activations.tokens import encodable, html_text, printable, readable

VIEWS = {"head": "Attention head view", "model": "Attention model view"}
SCRIPTS = (  # each knows those before it
    "dom.js",
    "theme.js",
    "weights.js",
    "lines.js",
    "drawing.js",
    "summary.js",
    "heat.js",
    "save.js",
    "tokens.js",
    "scores.js",
    "closer.js",
    "headview.js",
    "modelview.js",
    "page.js",
)
NOT_A_NUMBER = 65535  # stands for NaN and infinities among the 16-bit weights
_STEPS = 10_000  # 4 decimals
_MASKED = -1e4  # raw scores lie far above; masks are the least number of float16 or below
_TITLE_TEXT = 40  # characters
_LONG_TEXT = 400  # characters; a longer one is folded
_LARGEST_PAGE = 400_000_000  # bytes; V8 drops a script beyond 512 M characters without a word


@dataclass(frozen=True)
class Caption:
    """What a page says it shows: the model, what it read, and what was left out and why.

    `texts` are further texts by their names: a second sentence, the decoder's target, an image's
    file. `capture` is an id of what was captured: a page tells by it that a link came from another.
    """

    model: str
    prompt: str
    notes: tuple[str, ...] = ()
    texts: tuple[tuple[str, str], ...] = ()
    capture: str = ""

    @property
    def read(self) -> tuple[tuple[str, str], ...]:
        """All that the model read; a model of images or audio reads no prompt."""
        prompt = (("Prompt", self.prompt),)
        return prompt + self.texts if self.prompt or not self.texts else self.texts


def page_name(view: str, model: str) -> str:
    """`attention_head_view_Qwen_Qwen2.5-0.5B.html`."""
    return f"attention_{view}_view_{safe_name(model)}.html"


def build_pages(
    views: Sequence[str], caption: Caption, stacks: Sequence[Stack], min_weight: float = 0.01
) -> dict[str, bytes]:
    """The whole HTML page, as UTF-8, for each of `views` ("head", "model").

    `stacks` is what `activations.attention.read_attention` gives; lines with a weight at or below
    `min_weight` are not drawn (the numbers stay in the page). Two pages made together link heads
    to each other: they are to lie in one folder. Raises `ToolkitError` when a page would be too
    large for a browser.
    """
    packed, blob = pack_weights(stacks)
    if len(blob) > _LARGEST_PAGE:
        raise ToolkitError(
            f"the page would be too large to open ({len(blob) // 1_000_000} MB). Take a part of "
            "it with --layers, --heads or --tokens."
        )
    facts = _facts(stacks)
    linked = len(views) > 1
    return {view: _page(view, caption, facts, packed, blob, min_weight, linked) for view in views}


def _page(
    view: str,
    caption: Caption,
    facts: str,
    packed: list[dict[str, Any]],
    blob: bytes,
    min_weight: float,
    linked: bool,
) -> bytes:
    other = "model" if view == "head" else "head"
    data = {
        "view": view,
        "name": page_name(view, caption.model).removesuffix(".html"),
        "capture": caption.capture,
        "minWeight": min_weight,
        "otherPage": page_name(other, caption.model) if linked else None,
        "notANumber": NOT_A_NUMBER,
        "scores": SCORES,
        "colours": {"light": LIGHT, "dark": DARK, "strong": STRONG},
        "stacks": packed,
    }
    ours = "\n".join(_our(name) for name in SCRIPTS)
    scripts = [_d3(), _jquery(), ours, _bertviz(f"{view}_view.js")]
    style = _our("page.css")
    page = _template().substitute(
        policy=_policy(scripts, style),
        view=view,
        title=html_text(_title(view, caption)),
        heading=VIEWS[view],
        model=html_text(caption.model),
        facts=html_text(facts),
        texts="".join(_text_row(name, text) for name, text in caption.read),
        notes="".join(f"<li>{html_text(note)}</li>" for note in caption.notes),
        how=_our(f"how_{view}.html"),
        closer=_our(f"closer_{view}.html"),
        scores=_our("scores.html"),
        data=_json_in_html(data),
        weights=blob.decode("ascii"),
        style=style,
        d3=scripts[0],
        jquery=scripts[1],
        page_script=scripts[2],
        drawing=scripts[3],
    )
    return page.encode("utf-8")


def _title(view: str, caption: Caption) -> str:
    """What a tab is told apart by: the view, the model, and how what it read begins."""
    start = " ".join(caption.read[0][1][:_LONG_TEXT].split())
    if len(start) > _TITLE_TEXT:
        start = start[:_TITLE_TEXT].rstrip() + "…"
    return printable(f"{VIEWS[view]}: {caption.model}" + (f" – {start}" if start else ""))


def _text_row(name: str, text: str) -> str:
    whole = (
        f'<div id="{html_text(name.lower())}" class="text" tabindex="0" '
        f'role="region" aria-label="{html_text(name)}">{html_text(text)}</div>'
    )
    if len(text) > _LONG_TEXT or text.count("\n") > _LONG_TEXT // 40:
        start = " ".join(text[:_LONG_TEXT].split())[: _LONG_TEXT // 4]
        label = f"<bdi>{html_text(start)}</bdi>… ({len(text):,} characters)"
        whole = f"<details><summary>{label}</summary>{whole}</details>"
    return f"<div><dt>{html_text(name)}</dt><dd>{whole}</dd></div>\n"


def _facts(stacks: Sequence[Stack]) -> str:
    """`Self: layers 0-3, 4 heads, 24 tokens`, for each kind of attention."""
    parts = []
    for stack in stacks:
        layers = "layer" if len(stack.layers) == 1 else "layers"
        heads = "head" if len(stack.heads) == 1 else "heads"
        name, *rest = printable(stack.name).split(", ")
        if rest and "{layer}" in rest[-1]:  # one of several modules in a layer
            name += f" ({rest[-1]})"
        parts.append(
            f"{name}: {layers} {describe_numbers(stack.layers)}, {len(stack.heads)} {heads}, "
            f"{stack.size} tokens"
        )
    return "; ".join(parts)


# --------------------------------------------------------------------------------------- weights


def pack_weights(stacks: Sequence[Stack]) -> tuple[list[dict[str, Any]], bytes]:
    """Stacks -> what the page's script knows of each, and the weights of all as base64 text.

    The weights are little-endian 16-bit integers q, layer by layer, (heads, rows, columns) each; a
    weight is `base + q / steps`. Ordinarily base is 0 and steps 10,000 (4 decimals); scores that
    are not probabilities get a base and a step that fit their range. `NOT_A_NUMBER` is left out.
    """
    squeeze = zlib.compressobj(1)
    packed, pieces, first = [], [], 0
    for stack in stacks:
        base, steps = _scale(stack.weights)
        for weights in stack.weights:
            pieces.append(squeeze.compress(_quantised(weights, base, steps).tobytes()))
        rows, columns = len(stack.rows), len(stack.columns)
        described = {
            "layers": stack.layers,
            "heads": stack.heads,
            "rowTokens": readable(stack.rows),
            "columnTokens": readable(stack.columns),
            "second": stack.split,
            "written": stack.written,
            "start": stack.start,
            "wholeRows": stack.has_whole_rows,
            "cross": stack.is_cross,
            "probabilities": all(map(are_weights, stack.weights)),
            "scores": _score_list(stack),
            "first": first,
            "base": base,
            "steps": steps,
        }
        parts = _sentence_parts(stack, len(stacks) > 1)
        packed += [
            {**described, "name": encodable(n), "rows": r, "columns": c} for n, r, c in parts
        ]
        first += len(stack.layers) * len(stack.heads) * rows * columns
    pieces.append(squeeze.flush())
    return packed, base64.b64encode(b"".join(pieces))


def _score_list(stack: Stack) -> Any:
    """Scores as JSON takes them: 6 decimals, None where one is not defined."""
    if stack.scores is None:
        return None
    scores = stack.scores.round(6).astype(object)
    scores[np.isnan(stack.scores)] = None
    return scores.tolist()


def _sentence_parts(
    stack: Stack, is_one_of_several: bool
) -> list[tuple[str, tuple[int, int], tuple[int, int]]]:
    """The filters bertviz offers for a pair of sentences: (name, rows, columns)."""
    rows, columns = (0, len(stack.rows)), (0, len(stack.columns))
    name = printable(stack.name)  # of modules, whose names are anyone's
    if stack.split is None:
        return [(name, rows, columns)]
    sides = {"A": (0, stack.split), "B": (stack.split, len(stack.rows))}
    arrows = [("A", "A"), ("B", "B"), ("A", "B"), ("B", "A")]
    parts = [("All", rows, columns)] + [
        (f"Sentence {a} -> Sentence {b}", sides[a], sides[b]) for a, b in arrows
    ]
    return [(f"{name}: {part}", r, c) for part, r, c in parts] if is_one_of_several else parts


def _scale(layers: Sequence[np.ndarray]) -> tuple[float, float]:
    shown = [weights[showable(weights)] for weights in layers]
    low = min((float(w.min()) for w in shown if w.size), default=0.0)
    high = max((float(w.max()) for w in shown if w.size), default=0.0)
    largest = NOT_A_NUMBER - 1
    if low >= 0 and high <= largest / _STEPS:
        return 0.0, float(_STEPS)
    return low, min(float(_STEPS), largest / max(high - low, 1e-30))


def _quantised(weights: np.ndarray, base: float, steps: float) -> np.ndarray:
    shown = showable(weights)
    # float64: in float32 0.00005 could round to either side.
    q = np.rint((np.where(shown, weights, base).astype(np.float64) - base) * steps)
    return np.where(shown, q, NOT_A_NUMBER).astype("<u2")


def showable(weights: np.ndarray) -> np.ndarray:
    """Finite, and not the huge negative number that masks a raw score (squeezebert)."""
    shown: np.ndarray = np.isfinite(weights) & (weights > _MASKED)
    return shown


# ------------------------------------------------------------------------------ text in the page


def _json_in_html(data: Mapping[str, Any]) -> str:
    """JSON that cannot end the script element it stands in, whatever its strings hold."""
    found = orjson.dumps(data).decode("utf-8")
    for character in "<>&\u2028\u2029":
        found = found.replace(character, f"\\u{ord(character):04x}")
    return found


def _policy(scripts: Sequence[str], style: str) -> str:
    def source(text: str) -> str:
        digest = hashlib.sha256(text.encode("utf-8")).digest()
        return f"'sha256-{base64.b64encode(digest).decode('ascii')}'"

    return "; ".join(
        [
            "default-src 'none'",
            "script-src " + " ".join(source(script) for script in scripts),
            "style-src " + source(style),
            "img-src blob: data:",  # pictures of its own, on their way to a file
            "base-uri 'none'",
            "form-action 'none'",
        ]
    )


# ---------------------------------------------------------------------------------- other people's


def _d3() -> str:
    return _inline("mpld3", "mpld3/js/d3.v5.min.js")


def _jquery() -> str:
    return _inline("XStatic-jQuery", "xstatic/pkg/jquery/data/jquery.min.js")


def _bertviz(name: str) -> str:
    return _inline("bertviz", f"bertviz/{name}")


@cache
def _inline(distribution: str, path: str) -> str:
    """A script out of an installed distribution, read without importing it."""
    try:
        file = Path(str(metadata.distribution(distribution).locate_file(path)))
        script = file.read_text(encoding="utf-8")
    except (metadata.PackageNotFoundError, OSError):
        raise ToolkitError(
            f"the package {distribution} is not installed as it should be ({path} is missing). "
            "Run: pip install -r requirements.txt"
        ) from None
    return _safe(script, path)


@cache
def _our(name: str) -> str:
    text = (resources.files("activations") / "page" / name).read_text(encoding="utf-8")
    return _safe(text, name)


def _safe(script: str, name: str) -> str:
    # Browsers hash a script after turning line ends into \n.
    script = script.replace("\r\n", "\n").replace("\r", "\n")
    if re.search(r"</(script|style)|<!--", script, re.IGNORECASE):
        raise ToolkitError(f"{name} cannot stand in a page: it ends its own element.")
    return script


@cache
def _template() -> Template:
    return Template(_our_template())


def _our_template() -> str:
    return (resources.files("activations") / "page" / "page.html").read_text(encoding="utf-8")
