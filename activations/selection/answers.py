"""Answers (index, name, suffix, `all`, `weights`) -> patterns -> module names. Pure functions."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from activations.arguments import describe_numbers
from activations.errors import UsageError, nearest, quoted_list
from activations.selection.catalog import CATEGORIES, Catalog, Pattern
from activations.selection.observation import weights_sources

_ALIASES = {"attn": "attention"}
_ANOTHER = re.compile(r"(^|[\s,])(attn|attention|mlp|other)\s*:", re.IGNORECASE)  # in an answer
SPEC_EXAMPLE = "attn:0;mlp:0;other:"
NOTHING = (
    f'nothing selected. Choose at least one pattern, as in --auto-select "{SPEC_EXAMPLE}"; '
    "--list shows what there is."
)


@dataclass(frozen=True)
class Selection:
    """What the user chose: patterns and module names by category, in the catalogue's order."""

    patterns: dict[str, tuple[Pattern, ...]]
    modules: dict[str, tuple[str, ...]]

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(name for names in self.modules.values() for name in names)

    @property
    def wants_attention(self) -> bool:
        return bool(self.modules["attention"])


def parse_spec(spec: str) -> dict[str, str]:
    """`"attn:0;mlp:0;other:"` -> {"attention": "0", "mlp": "0", "other": ""}.

    Raises `UsageError` for any other form. Needs no model, so that a mistake on the command line is
    reported at once.
    """
    answers: dict[str, str] = {}
    for part in spec.split(";"):
        if not part.strip():
            continue
        name, colon, answer = part.partition(":")
        category = _ALIASES.get(name.strip().lower(), name.strip().lower())
        if not colon or category not in CATEGORIES or _ANOTHER.search(answer):
            raise UsageError(
                f"--auto-select cannot read '{part.strip()}'. Write category:answer pairs with the "
                f'categories attn, mlp and other and a ; between them, as in "{SPEC_EXAMPLE}".'
            )
        if category in answers:
            raise UsageError(
                f"--auto-select names {category} twice. Separate several answers for one category "
                'by commas, as in "attn:0,2".'
            )
        answers[category] = answer.strip()
    if not any(answers.values()):
        raise UsageError(NOTHING)
    return {category: answers.get(category, "") for category in CATEGORIES}


def format_spec(answers: dict[str, str]) -> str:
    """The `--auto-select` value that gives these answers again."""
    return ";".join(
        f"{'attn' if category == 'attention' else category}:{answers.get(category, '')}"
        for category in CATEGORIES
    )


def resolve_answer(answer: str, category: str, catalog: Catalog) -> tuple[Pattern, ...]:
    """One category's answer -> its patterns, in the catalogue's order, each once.

    Raises `UsageError` with the nearest names where a name matches nothing, and with the
    candidates where it matches several.
    """
    items = filter(None, map(str.strip, answer.split(",")))
    chosen = {pattern.text for item in items for pattern in _resolve_item(item, category, catalog)}
    return tuple(pattern for pattern in catalog.of(category) if pattern.text in chosen)


def _resolve_item(item: str, category: str, catalog: Catalog) -> Sequence[Pattern]:
    available = catalog.of(category)
    if item.lower() == "all":
        return available  # even if there is none: one script for every model
    if not available:
        raise UsageError(f"this model has no {category} modules. Leave {category} empty.")
    if item.lower() == "weights":
        return _patterns_with_weights(category, catalog)
    if re.fullmatch(r"[+-]?\d+", item):
        return [_by_index(item, category, available)]
    if span := re.fullmatch(r"(\d{1,6})\s*-\s*(\d{1,6})", item):
        first, last = int(span[1]), int(span[2])
        if last < first:
            raise UsageError(f"'{item}' is an empty range. Write the smaller index first.")
        ends = [_by_index(str(number), category, available) for number in (first, last)]
        return available[available.index(ends[0]) : available.index(ends[1]) + 1]
    return [_by_name(item, category, catalog)]


def _by_index(item: str, category: str, available: Sequence[Pattern]) -> Pattern:
    index = int(item)
    if not 0 <= index < len(available):
        raise UsageError(
            f"there is no {category} pattern {item}. The indices go from 0 to "
            f"{len(available) - 1}; --list shows them."
        )
    return available[index]


def _patterns_with_weights(category: str, catalog: Catalog) -> Sequence[Pattern]:
    """The fewest patterns that return every attention tensor of the model, each tensor once."""
    available = catalog.of(category)
    names = {name for pattern in available if pattern.weights for name in pattern.names}
    sources = weights_sources(catalog.observation.weights, names)
    used = {source.module for source in sources}
    found = [pattern for pattern in available if used.intersection(pattern.names)]
    if not found:
        raise UsageError(
            f"no {category} pattern of this model returns attention weights, so 'weights' selects "
            "nothing. --list shows what there is."
        )
    return found


def _by_name(item: str, category: str, catalog: Catalog) -> Pattern:
    available = catalog.of(category)
    for spelling in ("text", "short"):
        exact = [pattern for pattern in available if getattr(pattern, spelling) == item]
        if len(exact) == 1:
            return exact[0]
    matches = [
        pattern
        for pattern in available
        if any(f".{name}".endswith(f".{item}") for name in (pattern.text, pattern.short))
    ]
    if len(matches) == 1:
        return matches[0]
    if matches:
        shown = quoted_list(pattern.text for pattern in matches[:6])
        more = f" (and {len(matches) - 6} more)" if len(matches) > 6 else ""
        raise UsageError(
            f"'{item}' is ambiguous: it fits {len(matches)} {category} patterns. "
            f"Write more of the name: {shown}{more}."
        )
    raise UsageError(_unknown(item, category, catalog))


def _unknown(item: str, category: str, catalog: Catalog) -> str:
    message = f"Module not found: no {category} pattern is called '{item}'."
    owner = next((pattern for pattern in catalog.patterns if item in pattern.names), None)
    if owner is not None:
        layer = catalog.layer_of(item)
        hint = "" if layer is None else f"; select that, with --layers {layer}"
        return message + f" It is one module of '{owner.text}'{hint}."
    for other in CATEGORIES:
        if other != category and any(
            item in (p.text, p.short) or p.text.endswith(f".{item}") for p in catalog.of(other)
        ):
            return message + f" It is in the category {other}."
    close = nearest(item, (pattern.text for pattern in catalog.of(category)))
    if close:
        return message + f" Did you mean {quoted_list(close)}?"
    return message + " --list shows what there is."


def select(
    catalog: Catalog, answers: dict[str, str], layers: Sequence[int] | None = None
) -> Selection:
    """All answers (category -> answer) and an optional layer filter -> a `Selection`.

    Modules without a layer number (embeddings, final norm, head) are always kept.
    Raises `UsageError` when nothing is selected or a layer is not there.
    """
    patterns = {c: resolve_answer(answers.get(c, ""), c, catalog) for c in CATEGORIES}
    if not any(patterns.values()):
        raise UsageError(NOTHING)
    if layers is not None:
        _check_layers(layers, [p for found in patterns.values() for p in found])
    modules = {
        category: tuple(
            name
            for pattern in found
            for name, layer in zip(pattern.names, pattern.layers, strict=True)
            if layers is None or layer is None or layer in layers
        )
        for category, found in patterns.items()
    }
    if not any(modules.values()):
        raise UsageError("nothing selected: --layers names no layer. Leave it out for all.")
    return Selection(patterns, modules)


def _check_layers(layers: Sequence[int], patterns: Sequence[Pattern]) -> None:
    known = {layer for pattern in patterns for layer in pattern.layers if layer is not None}
    missing = [layer for layer in layers if layer not in known]
    if known and missing:
        raise UsageError(
            f"--layers: the selected patterns have no layer {missing[0]}. "
            f"Their layers are {describe_numbers(known)}."
        )
