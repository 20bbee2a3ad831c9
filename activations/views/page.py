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
from collections.abc import Mapping, Sequence
from functools import cache
from importlib import metadata, resources
from pathlib import Path
from string import Template
from typing import Any

import orjson

from activations.arguments import describe_numbers
from activations.attention.scores import SCORES
from activations.attention.stack import Stack
from activations.errors import ToolkitError
from activations.system.files import safe_name
from activations.text import html_text, printable
from activations.views.colours import DARK, LIGHT, STRONG
from activations.views.content import Caption
from activations.views.packing import NOT_A_NUMBER, pack_weights

VIEWS = {"head": "Attention head view", "model": "Attention model view"}
SCRIPTS = (  # each knows those before it
    "dom.js",
    "theme.js",
    "weights.js",
    "lines.js",
    "bertviz.js",
    "thumbnails.js",
    "heat_map.js",
    "save.js",
    "tokens.js",
    "score_table.js",
    "head_detail.js",
    "head_view.js",
    "model_view.js",
    "main.js",
)
_TITLE_TEXT = 40  # characters
_LONG_TEXT = 400  # characters; a longer one is folded
_LARGEST_PAGE = 400_000_000  # bytes; V8 drops a script beyond 512 M characters without a word


def page_name(view: str, model: str) -> str:
    """`attention_head_view_Qwen_Qwen2.5-0.5B.html`."""
    return f"attention_{view}_view_{safe_name(model)}.html"


def build_pages(
    views: Sequence[str], caption: Caption, stacks: Sequence[Stack], min_weight: float = 0.01
) -> dict[str, bytes]:
    """The whole HTML page, as UTF-8, for each of `views` ("head", "model").

    `stacks` is what `activations.attention.weights.read_attention` returns; lines with a weight at
    or below `min_weight` are not drawn (the numbers stay in the page). Two pages made together link
    heads to each other: they are to lie in one folder. Raises `ToolkitError` when a page would be
    too large for a browser.
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
        name, *rest = stack.title.split(", ")
        if rest and "{layer}" in rest[-1]:  # one of several modules in a layer
            name += f" ({rest[-1]})"
        parts.append(
            f"{name}: {layers} {describe_numbers(stack.layers)}, {len(stack.heads)} {heads}, "
            f"{stack.size} tokens"
        )
    return "; ".join(parts)


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
    text = (resources.files("activations.views") / "static" / name).read_text(encoding="utf-8")
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
    return (resources.files("activations.views") / "static" / "page.html").read_text(
        encoding="utf-8"
    )
