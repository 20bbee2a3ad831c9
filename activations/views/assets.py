"""What a page is made of besides its data: this toolkit's template, style and scripts, and d3,
jQuery and bertviz's scripts, which come from installed packages and are used unchanged.

bertviz's Python is not imported, because it would import torch.
"""

from __future__ import annotations

import re
from functools import cache
from importlib import metadata, resources
from pathlib import Path
from string import Template

from activations.errors import ToolkitError

SCRIPTS = (  # each uses only those before it
    "dom.js",
    "theme.js",
    "words.js",
    "weights.js",
    "tints.js",
    "lines.js",
    "bertviz.js",
    "thumbnails.js",
    "row_grid.js",
    "heat_map.js",
    "window.js",
    "zoom_map.js",
    "save.js",
    "predicted.js",
    "tokens.js",
    "row_bars.js",
    "score_table.js",
    "score_list.js",
    "compare.js",
    "head_map.js",
    "jumps.js",
    "head_detail.js",
    "picture_parts.js",
    "image_picture.js",
    "sound_picture.js",
    "picture.js",
    "head_view.js",
    "model_view.js",
    "rank_chart.js",
    "lens_grid.js",
    "predictions.js",
    "sheets.js",
    "main.js",
)

STYLES = ("page.css", "picture.css", "predictions.css", "effect.css", "compare.css")


# -------------------------------------------------------------------------- this toolkit's files


@cache
def page_templates() -> list[Template]:
    """The page up to the overviews, from there up to the heads' weights, and its end.

    With a `$name` in every place that `page.py` fills.
    """
    return [
        Template(piece) for piece in re.split(r"\$overviews|\$heads", _read_static("page.html"))
    ]


@cache
def static_file(name: str) -> str:
    """A file of `static/`, to be put into a page."""
    return checked(_read_static(name), name)


def style() -> str:
    """All of this toolkit's style, as one."""
    return "\n".join(map(static_file, STYLES))


def own_script() -> str:
    """All scripts of this toolkit, as one."""
    return "\n".join(map(static_file, SCRIPTS))


def _read_static(name: str) -> str:
    return (resources.files("activations.views") / "static" / name).read_text(encoding="utf-8")


# --------------------------------------------------------------------------- other people's scripts


def d3() -> str:
    return library_script("mpld3", "mpld3/js/d3.v5.min.js")


def jquery() -> str:
    return library_script("XStatic-jQuery", "xstatic/pkg/jquery/data/jquery.min.js")


def bertviz_script(view: str) -> str:
    return library_script("bertviz", f"bertviz/{view}_view.js")


@cache
def library_script(distribution: str, path: str) -> str:
    """A script out of an installed distribution, read without importing it."""
    try:
        file = Path(str(metadata.distribution(distribution).locate_file(path)))
        script = file.read_text(encoding="utf-8")
    except (metadata.PackageNotFoundError, OSError):
        raise ToolkitError(
            f"the package {distribution} is not installed correctly ({path} is missing). "
            "Run: pip install -r requirements.txt"
        ) from None
    return checked(script, path)


def checked(script: str, name: str) -> str:
    """The script or style as a browser reads it. Raises where it would end its own element."""
    script = script.replace("\r\n", "\n").replace("\r", "\n")  # browsers do so before they hash it
    if re.search(r"</(script|style)|<!--", script, re.IGNORECASE):
        raise ToolkitError(
            f"{name} cannot be put into a page: it contains </script>, </style> or <!--."
        )
    return script
