"""Attention -> a self-contained page around bertviz's own drawing code.

A page is one file: it makes no request, so it draws with the network off and can be mailed. What
it is made of besides its data is in `assets.py`.

The weights are in the page once, head by head, behind its scripts: so it shows its first picture
before the rest of the file is read (see `packing.py`). All text is escaped for the place it is put
in, and a Content-Security-Policy names the page's scripts by hash, so that nothing else can run.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import orjson

from activations.arguments import numbered
from activations.attention.scores import SCORES
from activations.attention.stack import Stack
from activations.document.interventions import Sweep
from activations.text import html_text, printable
from activations.views import assets
from activations.views.choices import VIEWS
from activations.views.colours import (
    DARK,
    DIFFERENCE_DARK,
    DIFFERENCE_LIGHT,
    HEADS_DARK,
    HEADS_LIGHT,
    LIGHT,
    STRONG,
    STRONG_DARK,
)
from activations.views.content import Caption
from activations.views.names import capture_name
from activations.views.packing import BUDGET, NOT_A_NUMBER, SHADES, FirstReading, Packed, pack
from activations.views.pictures import page_pictures
from activations.views.sweep_scores import EFFECT, with_effect

_TITLE_TEXT = 40  # characters
_SUMMARY = 160  # characters; the page cuts them where the line ends
_LONG_TEXT = 400  # characters; a longer one is folded


def page_name(view: str, model: str, document: str = "") -> str:
    """`attention_head_view_Qwen_Qwen2.5-0.5B.html`; see `activations.views.names.capture_name`."""
    return f"attention_{view}_view_{capture_name(model, document)}.html"


def heading(view: str) -> str:
    return f"Attention {view} view"


def build_pages(
    views: Sequence[str],
    caption: Caption,
    stacks: Sequence[Stack],
    min_weight: float = 0.01,
    budget: int = BUDGET,
    first: FirstReading | None = None,
    words: bool = False,
    predictions: Mapping[str, Any] | None = None,
    effect: str = "",
    sweep: Sweep | None = None,
) -> dict[str, list[bytes]]:
    """The HTML page, as pieces of UTF-8, for each of `views` (see `choices.VIEWS`).

    `stacks` is what `activations.attention.weights.read_attention` returns; lines with a weight at
    or below `min_weight` are not drawn (the numbers stay in the page). Two pages made together link
    heads to each other, so they belong in one folder, and share the pieces that hold the weights.
    Small weights are left out where they would take more than `budget` bytes; the page says which.
    `first` has heads that were packed while they were read, if any were. `words`: whether the page
    opens with tokens merged to words. `predictions` is what `views.predictions` makes of them,
    `effect` the HTML of `views.effect_section`, `sweep` what each head does to the prediction.
    Raises `ToolkitError` when a page would be too large for a browser.
    """
    packed = pack(stacks, budget, first)
    pictures, places = page_pictures(stacks)
    data = base_data(caption.capture, min_weight, words)
    data["scores"] = [*SCORES, EFFECT] if sweep and sweep.of == "heads" else SCORES
    data["pictures"] = pictures
    data["stacks"] = [
        {
            **entry,
            "picture": places[entry["id"]],
            "scores": with_effect(entry, stacks[entry["id"]], sweep),
        }
        for entry in packed.stacks
    ]
    if predictions is not None:
        data["predictions"] = predictions
    fields = _caption_fields(caption, stacks)
    fields["effect"] = effect
    fields["how_predictions"] = assets.static_file("how_predictions.html") if predictions else ""
    names = {view: page_name(view, caption.model, caption.document) for view in VIEWS}
    titles = {view: _title(view, caption) for view in views}
    return filled_pages(names, titles, data, fields, packed)


def base_data(capture: str, min_weight: float, words: bool) -> dict[str, Any]:
    """What the page's script knows of every page: colours, and how weights are packed."""
    return {
        "capture": capture,
        "minWeight": min_weight,
        "words": words,
        "notANumber": NOT_A_NUMBER,
        "shades": SHADES,
        "scores": SCORES,
        "colours": {
            "light": LIGHT,
            "dark": DARK,
            "strong": [STRONG, STRONG_DARK],
            "difference": [DIFFERENCE_LIGHT, DIFFERENCE_DARK],
        },
        "headColours": {"light": HEADS_LIGHT, "dark": HEADS_DARK},
        "pictures": [],
    }


def filled_pages(
    names: Mapping[str, str],
    titles: Mapping[str, str],
    data: dict[str, Any],
    fields: Mapping[str, str],
    packed: Packed,
) -> dict[str, list[bytes]]:
    """The page of each view that has a title. `names` are those of the files of all views, `fields`
    are escaped.
    """
    overviews, heads = _blobs(packed.overviews), _blobs(packed.heads)
    pages = {}
    for view, title in titles.items():
        (other,) = set(VIEWS) - {view}
        data["view"] = view
        data["name"] = names[view].removesuffix(".html")
        data["otherPage"] = names[other] if len(titles) > 1 else None
        filled = {**fields, "title": html_text(title), "data": _json_in_html(data)}
        start, scripts, end = _filled_template(view, filled)
        pages[view] = [start, *overviews, scripts, *heads, end]
    return pages


def _blobs(texts: Mapping[str, bytes]) -> list[bytes]:
    """Elements of base64 text, which no policy has to name: browsers do not run them."""
    return [
        b'<script type="text/plain" id="%s">%s</script>\n' % (id.encode("ascii"), text)
        for id, text in texts.items()
    ]


def _filled_template(view: str, fields: Mapping[str, str]) -> list[bytes]:
    """The page: these fields, which are escaped, and the parts that are the same in all pages.

    In three pieces, between which the overviews and the heads belong.
    """
    style = assets.style()
    scripts = {
        "d3": assets.d3(),
        "jquery": assets.jquery(),
        "own_script": assets.own_script(),
        "bertviz_script": assets.bertviz_script(view),
    }
    parts = dict(
        fields,
        view=view,
        heading=heading(view),
        how=assets.static_file(f"how_{view}.html"),
        head_detail=assets.static_file(f"head_detail_{view}.html"),
        score_help=assets.static_file("score_table.html"),
        style=style,
        policy=_policy([*scripts.values()], style),
        **scripts,
    )
    return [piece.substitute(parts).encode("utf-8") for piece in assets.page_templates()]


# -------------------------------------------------------------------------- the words of a caption


def _caption_fields(caption: Caption, stacks: Sequence[Stack]) -> dict[str, str]:
    return {
        "model": html_text(caption.model),
        "start": html_text(" ⟩ ".join(filter(None, _starts(caption, _SUMMARY))) or "Shown"),
        "facts": html_text(facts_of(stacks)),
        "texts": "".join(text_row(name, text) for name, text in caption.read),
        "notes": "".join(f"<li>{html_text(note)}</li>" for note in caption.notes),
    }


def _title(view: str, caption: Caption) -> str:
    """What names a browser's tab: the view, the model, and the start of what it read."""
    start = next(_starts(caption, _TITLE_TEXT), "")
    return printable(f"{heading(view)}: {caption.title}" + (f" – {start}" if start else ""))


def _starts(caption: Caption, length: int) -> Iterator[str]:
    """The start of each text that the model read or wrote, in a line of so many characters."""
    for _, text in caption.read:
        start = " ".join(text[:_LONG_TEXT].split())
        yield start if len(start) <= length else start[:length].rstrip() + "…"


def text_row(name: str, text: str) -> str:
    whole = (
        f'<div id="{html_text(name.lower())}" class="text" dir="auto" tabindex="0" '
        f'role="region" aria-label="{html_text(name)}">{html_text(text)}</div>'
    )
    if len(text) > _LONG_TEXT or text.count("\n") > _LONG_TEXT // 40:
        start = " ".join(text[:_LONG_TEXT].split())[: _LONG_TEXT // 4]
        label = f"<bdi>{html_text(start)}</bdi>… ({len(text):,} characters)"
        whole = f"<details><summary>{label}</summary>{whole}</details>"
    return f"<div><dt>{html_text(name)}</dt><dd>{whole}</dd></div>\n"


def facts_of(stacks: Sequence[Stack]) -> str:
    """`Self: layers 0-3, 4 heads, 24 tokens`, for each kind of attention."""
    parts = []
    for stack in stacks:
        heads = "head" if len(stack.heads) == 1 else "heads"
        name, *rest = stack.title.split(", ")
        if rest and "{layer}" in rest[-1]:  # one of several modules in a layer
            name += f" ({rest[-1]})"
        parts.append(
            f"{name}: {numbered('layer', stack.layers)}, {len(stack.heads)} {heads}, {stack.size}"
        )
    return "; ".join(parts)


# ------------------------------------------------------------------------------ text in the page


def _json_in_html(data: Mapping[str, Any]) -> str:
    """JSON none of whose strings can end the script element that it is put into."""
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
