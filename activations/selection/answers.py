"""Answers (index, name, suffix, `all`, `weights`) -> patterns -> module names. Pure functions."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from activations.arguments import describe_numbers
from activations.errors import UsageError, nearest, quoted_list
from activations.selection.catalog import CATEGORIES, Catalog, Pattern
from activations.selection.observation import Observation, WeightsSource, weights_sources

_ALIASES = {"attn": "attention"}
_ANOTHER = re.compile(r"(^|[\s,])(attn|attention|mlp|other)\s*:", re.IGNORECASE)  # in an answer
SPEC_EXAMPLE = "attn:0;mlp:0;other:"
NOTHING = (
    f'nothing selected. Choose at least one pattern, as in --auto-select "{SPEC_EXAMPLE}"; '
    "--list shows what there is."
)


class AnswerError(UsageError):
    """An answer that names nothing: `what` is wrong; on the command line, --list is the help."""

    def __init__(self, what: str, listed: str = "--list shows what there is.") -> None:
        super().__init__(f"{what} {listed}")
        self.what = what


@dataclass(frozen=True)
class Selection:
    """What the user chose: patterns and module names by category, in the catalogue's order.

    `calls` has the calls to keep of those modules of which not every call is. `to_the_end` is False
    where the user left out the last layer, so that the pass may end early.
    """

    patterns: dict[str, tuple[Pattern, ...]]
    modules: dict[str, tuple[str, ...]]
    calls: dict[str, frozenset[int]] = field(default_factory=dict)
    to_the_end: bool = True

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(name for names in self.modules.values() for name in names)

    @property
    def wants_attention(self) -> bool:
        return bool(self.modules["attention"])

    def weights(self, observation: Observation) -> tuple[WeightsSource, ...]:
        """Where the attention weights among it are returned, each tensor once."""
        kept = [s for s in observation.weights if s.call in self.calls.get(s.module, (s.call,))]
        return weights_sources(kept, self.names)

    def counts(self, observation: Observation) -> dict[str, int]:
        """How many calls of each module are kept; one where only the data decides that."""
        return {
            name: len(self.calls[name]) if name in self.calls else _count(name, observation)
            for name in self.names
        }


def _count(name: str, observation: Observation) -> int:
    return 1 if name in observation.unsure else observation.calls.get(name, 0)


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


def names_category(answer: str) -> str | None:
    """The `attn:` of an answer that is written as for `--auto-select`."""
    found = _ANOTHER.search(answer)
    return found[0].strip(" ,") if found else None


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
    if item.lower() == "none":
        return ()
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
        raise AnswerError(
            f"there is no {category} pattern {item}. The indices go from 0 to "
            f"{len(available) - 1}.",
            "--list shows them.",
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
        raise AnswerError(
            f"no {category} pattern of this model returns attention weights, so 'weights' selects "
            "nothing."
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
    raise _unknown(item, category, catalog)


def _unknown(item: str, category: str, catalog: Catalog) -> UsageError:
    message = f"Module not found: no {category} pattern is called '{item}'."
    owner = next((pattern for pattern in catalog.patterns if item in pattern.names), None)
    if owner is not None:
        layers = [layer for layer in catalog.layers_of(item) if layer is not None]
        hint = f"; select that, with --layers {describe_numbers(layers)}" if layers else ""
        return UsageError(f"{message} It is one module of '{owner.text}'{hint}.")
    for other in CATEGORIES:
        if other != category and any(
            item in (p.text, p.short) or p.text.endswith(f".{item}") for p in catalog.of(other)
        ):
            return UsageError(f"{message} It is in the category {other}.")
    close = nearest(item, (pattern.text for pattern in catalog.of(category)))
    if close:
        return UsageError(f"{message} Did you mean {quoted_list(close)}?")
    return AnswerError(message)


def select(
    catalog: Catalog, answers: dict[str, str], layers: Sequence[int] | None = None
) -> Selection:
    """All answers (category -> answer) and an optional layer filter -> a `Selection`.

    A negative layer counts from the end of the list that a pattern counts. Modules without a layer
    number (embeddings, final norm, head) are always kept.
    Raises `UsageError` when nothing is selected or a layer is not there.
    """
    patterns = {c: resolve_answer(answers.get(c, ""), c, catalog) for c in CATEGORIES}
    if not any(patterns.values()):
        raise UsageError(NOTHING)
    if layers is None:
        return Selection(patterns, {c: _names(found) for c, found in patterns.items()})
    counted = [pattern for found in patterns.values() for pattern in found if pattern.depth]
    deepest = max((pattern.depth for pattern in counted), default=0)  # of an encoder and a decoder
    to_the_end = not counted or any(
        _from_the_start(layer, p) == deepest - 1 for p in counted for layer in layers
    )
    _check_layers(layers, [p for found in patterns.values() for p in found])
    modules: dict[str, tuple[str, ...]] = {}
    calls: dict[str, frozenset[int]] = {}
    for category, found in patterns.items():
        kept = {name: some for pattern in found for name, some in _kept(pattern, layers).items()}
        modules[category] = tuple(kept)
        calls |= {name: some for name, some in kept.items() if some is not None}
    if not any(modules.values()):
        raise UsageError("nothing selected: --layers names no layer. Leave it out for all.")
    return Selection(patterns, modules, calls, to_the_end)


def _names(patterns: Iterable[Pattern]) -> tuple[str, ...]:
    return tuple(name for pattern in patterns for name in pattern.names)


def _kept(pattern: Pattern, layers: Sequence[int]) -> dict[str, frozenset[int] | None]:
    """The pattern's modules that run in these layers, each with its calls there; None: all."""
    wanted = {None, *(_from_the_start(layer, pattern) for layer in layers)}
    found: dict[str, frozenset[int] | None] = {}
    for name, by_call in zip(pattern.names, pattern.layers, strict=True):
        calls = frozenset(call for call, layer in enumerate(by_call) if layer in wanted)
        if calls:
            found[name] = None if len(calls) == len(by_call) else calls
    return found


def _from_the_start(layer: int, pattern: Pattern) -> int:
    """-1 is the last layer of the list that the pattern counts."""
    return layer if layer >= 0 else pattern.depth + layer


def _check_layers(layers: Sequence[int], patterns: Sequence[Pattern]) -> None:
    """Raise `UsageError` where none of the patterns has one of these layers."""
    there = {p: {n for calls in p.layers for n in calls if n is not None} for p in patterns}
    known = set().union(*there.values())
    for layer in layers if known else ():
        if not any(_from_the_start(layer, pattern) in found for pattern, found in there.items()):
            raise UsageError(
                f"--layers: the selected patterns have no layer {_named(layer, patterns)}. "
                f"Their layers are {describe_numbers(known)}."
            )


def _named(layer: int, patterns: Iterable[Pattern]) -> str:
    """`7`; `-1 (7)`, where a model has that layer and the patterns have not."""
    meant = {_from_the_start(layer, pattern) for pattern in patterns if pattern.depth}
    number = meant.pop()
    return str(layer) if meant or number < 0 or number == layer else f"{layer} ({number})"
