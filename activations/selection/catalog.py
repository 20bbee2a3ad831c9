"""A model's modules -> categories (attention, mlp, other) and `{layer}` patterns.

Pure functions of module names, class names and what the probe saw. There is no table of
architectures. A class name is the best single sign of what a module is; what the probe saw
overrules it; module names are the last resort. Modules inside an attention or MLP module get its
category.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from itertools import takewhile

from activations.outputs.shapes import in_words
from activations.selection.layers import Layers, Numbered, Spans, find_layers, reused_blocks
from activations.selection.observation import Module, Observation

CATEGORIES = ("attention", "mlp", "other")
_CONTAINERS = ("ModuleList", "ModuleDict", "ParameterList", "ParameterDict")
_ATTENTION_CLASS = re.compile(r"attention|attn", re.IGNORECASE)
_MLP_CLASS = re.compile(
    r"(?i:mlp|feed_?forward|ffn|dense(relu|gated)?(act)?dense)"
    r"|LayerFF|Intermediate|Experts?($|[A-Z])|MoE$|Moe$|SparseMoe|MoeBlock|Mo[eE]Layer"
)
# A part's name says "feed-forward" only where the class is a general one (Linear, Conv1D, ...).
_MLP_NAME = re.compile(
    r"mlps?|ffns?(_output)?|ff[12]?|fc[12]|feed_?forward|dense_(h_to_4h|4h_to_h)|(shared_)?(experts?|mlp)"
    r"|block_sparse_moe|moe|intermediate"
)
_NOT_A_BLOCK = re.compile(r"(norm\d*|dropout|embeddings?|mask|bias|residual)$", re.IGNORECASE)


@dataclass(frozen=True)
class Pattern:
    """One row of the catalogue: a full module name with its numbers replaced.

    `text` is the pattern (`model.layers.{layer}.self_attn`), `names` the modules it stands for in
    the model's order, `placeholders` the names of the numbers replaced. `layers` has for each
    module the layer of each of its calls (a single one is that of every call; None where there is
    none), `depth` is how many layers there are. `calls` counts each module's calls in the probe,
    and is empty where the data decides how many there are.
    `weights` says whether these modules return attention weights; `outputs` describes what one of
    them returned to the probe.
    """

    text: str
    category: str
    names: tuple[str, ...]
    layers: tuple[tuple[int | None, ...], ...]
    placeholders: tuple[str, ...]
    class_name: str
    depth: int = 0
    calls: tuple[int, ...] = ()
    weights: bool = False
    outputs: str = ""

    @property
    def short(self) -> str:
        """The spelling without the list's name: `model.{layer}.self_attn`."""
        return re.sub(r"(^|(?<=\.))[^.{}]+\.(?=\{)", "", self.text)


@dataclass(frozen=True)
class Catalog:
    """A model's patterns by category, in the order in which their indices count."""

    patterns: tuple[Pattern, ...]
    observation: Observation = field(repr=False)

    def of(self, category: str) -> tuple[Pattern, ...]:
        return tuple(pattern for pattern in self.patterns if pattern.category == category)

    def layers_of(self, module: str) -> tuple[int | None, ...]:
        """The layer of each call of this module; a single one is that of every call."""
        return self._layers[module]

    def layer_of_call(self, module: str, call: int) -> int | None:
        """The layer that this call belongs to, where it is known."""
        layers = self._layers[module]
        if len(layers) == 1:
            return layers[0]
        return layers[call] if call < len(layers) else None

    @cached_property
    def _layers(self) -> dict[str, tuple[int | None, ...]]:
        return {n: found for p in self.patterns for n, found in zip(p.names, p.layers, strict=True)}


def build_catalog(observation: Observation) -> Catalog:
    """Sort the modules the probe saw into categories and patterns.

    Within a category, patterns that return attention weights come first, the rest in the model's
    order, outer before inner.
    """
    categories = categorise(observation)
    holders = {source.module for source in observation.weights}
    grouped: dict[tuple[str, str], list[tuple[Module, dict[str, int]]]] = defaultdict(list)
    numbering = _Numbering(observation.modules)
    listed = [module for module in observation.modules if module.class_name not in _CONTAINERS]
    named = {module.name: numbering.pattern(module.name) for module in listed}
    for module in listed:
        text, numbers = named[module.name]
        grouped[categories[module.name], text].append((module, numbers))
    layers = find_layers(_numbered(named, holders, observation.spans), observation.spans)
    patterns = [
        _pattern(category, text, members, holders, layers, observation)
        for (category, text), members in grouped.items()
    ]
    order = {category: i for i, category in enumerate(CATEGORIES)}
    patterns.sort(key=lambda p: (order[p.category], not p.weights))  # stable: the model's order
    return Catalog(tuple(patterns), observation)


def _pattern(
    category: str,
    text: str,
    members: list[tuple[Module, dict[str, int]]],
    holders: set[str],
    layers: dict[str, Layers],
    observation: Observation,
) -> Pattern:
    names = tuple(module.name for module, _ in members)
    found = [layers.get(name, Layers()) for name in names]
    shown = next((name for name in names if name in observation.outputs), None)
    unseen = "not called" if observation.probed else ""
    return Pattern(
        text=text,
        category=category,
        names=names,
        layers=tuple(layer.calls for layer in found),
        placeholders=tuple(members[0][1]),
        class_name=members[0][0].class_name,
        depth=found[0].depth,
        calls=() if observation.unsure.intersection(names) else _counts(names, observation),
        weights=category == "attention" and any(name in holders for name in names),
        outputs=unseen if shown is None else in_words(observation.outputs[shown]),
    )


def _counts(names: Iterable[str], observation: Observation) -> tuple[int, ...]:
    return tuple(observation.calls.get(name, 0) for name in names)


def _numbered(
    named: Mapping[str, tuple[str, dict[str, int]]], holders: Iterable[str], spans: Spans
) -> Iterator[Numbered]:
    """The modules that are a layer or part of one; `named` has their patterns and numbers."""
    without = [name for name in holders if name in named and "layer" not in named[name][1]]
    blocks = reused_blocks(without, spans)
    for name, (text, numbers) in named.items():
        if "layer" in numbers:
            end = text.split(".").index("{layer}") + 1
            yield Numbered(name, ".".join(name.split(".")[:end]), numbers["layer"])
        elif around := [block for block in blocks if f"{name}.".startswith(f"{block}.")]:
            yield Numbered(name, around[0], 0)


# ---------------------------------------------------------------------------------- categories


def categorise(observation: Observation) -> dict[str, str]:
    """Each module's category, by name.

    A container (a layer, a stack, the model) is "other" even where its class's name says
    "Attention" or "Moe": it contains blocks of both kinds.
    """
    tree = _Tree(observation.modules)
    attention = _attention_roots(tree, observation)
    inside_attention = tree.closure(attention)
    mlp = {
        module.name
        for module in observation.modules
        if module.name not in inside_attention
        and tree.says_mlp(module.name)
        and not attention & tree.descendants(module.name)
    }
    inside_mlp = tree.closure(mlp)
    found = dict.fromkeys(tree.class_of, "other")
    return found | dict.fromkeys(inside_mlp, "mlp") | dict.fromkeys(inside_attention, "attention")


def _attention_roots(tree: _Tree, observation: Observation) -> set[str]:
    """The outermost attention modules, by class and by what the probe saw."""
    roots = {
        module.name
        for module in observation.modules
        if _ATTENTION_CLASS.search(module.class_name)
        and not _NOT_A_BLOCK.search(module.class_name)
        and not any(
            _MLP_CLASS.search(tree.class_of[name]) for name in tree.descendants(module.name)
        )
    }
    by_tensor: dict[tuple[str, int], list[str]] = defaultdict(list)
    for source in observation.weights:
        by_tensor[source.tensor].append(source.module)
    for holders in by_tensor.values():
        if not roots.intersection(holders):
            roots.add(max(holders, key=lambda name: name.count(".")))  # the innermost
    if not by_tensor:
        return roots
    # Linear attention and the like: named attention and called, but returns no weights although
    # other layers of the same list do. (If no layer of a list does, it is attention whose weights
    # the model does not return, or returns in another form.)
    held = {name for holders in by_tensor.values() for name in holders}
    related = held | tree.closure(held)
    lists = {_outermost_list(name) for name in held}
    return {
        root
        for root in roots
        if root in related
        or held & tree.descendants(root)
        or not observation.calls.get(root)
        or _outermost_list(root) not in lists
    }


def _outermost_list(name: str) -> str:
    """`model.layers.3.self_attn` -> `model.layers`: what comes before the first number."""
    return ".".join(takewhile(lambda part: not part.isdecimal(), name.split(".")))


class _Tree:
    """Which modules are inside which, by name, and what their classes and names say."""

    def __init__(self, modules: Iterable[Module]) -> None:
        self.class_of = {module.name: module.class_name for module in modules}
        self._descendants: dict[str, set[str]] = defaultdict(set)
        self._children: dict[str, set[str]] = defaultdict(set)
        for name in self.class_of:
            parts = name.split(".")
            self._children[".".join(parts[:-1])].add(parts[-1])
            for end in range(1, len(parts)):
                self._descendants[".".join(parts[:end])].add(name)

    def descendants(self, name: str) -> set[str]:
        return self._descendants.get(name, set())

    def says_mlp(self, name: str) -> bool:
        class_name, (parent, _, last) = self.class_of[name], name.rpartition(".")
        # BERT's feed-forward block is two modules; the second is only called "output". (A Q-Former
        # has two such blocks, the second `intermediate_query` and `output_query`.)
        first_half = re.sub("^output", "intermediate", last)
        if first_half != last and first_half in self._children[parent]:
            return True
        if _NOT_A_BLOCK.search(class_name):
            return False
        return bool(_MLP_CLASS.search(class_name) or _MLP_NAME.fullmatch(last))

    def closure(self, roots: Iterable[str]) -> set[str]:
        """The roots and everything inside them."""
        roots = set(roots)
        return roots.union(*map(self.descendants, roots))


# ------------------------------------------------------------------------------------ patterns


class _Numbering:
    """Which numeric parts of a name become placeholders, and what each is called.

    The first list from the left is the layers. A further list gets a placeholder only where all its
    members have the same class: T5's `layer.0` and `layer.1` are attention and feed-forward, and
    stay as they are.
    """

    def __init__(self, modules: Iterable[Module]) -> None:
        classes = {module.name: module.class_name for module in modules}
        members: dict[str, set[str]] = defaultdict(set)
        for name, class_name in classes.items():
            parent, _, last = name.rpartition(".")
            if last.isdecimal():
                members[parent].add(class_name)
        self._alike = {parent for parent, found in members.items() if len(found) == 1}
        self._sequential = {name for name, found in classes.items() if found == "Sequential"}

    def pattern(self, name: str) -> tuple[str, dict[str, int]]:
        """`model.layers.3.mlp` -> (`model.layers.{layer}.mlp`, {"layer": 3})."""
        parts = name.split(".")
        numbers: dict[str, int] = {}
        out: list[str] = []
        for i, part in enumerate(parts):
            parent = ".".join(parts[:i])
            if part.isdecimal() and self._counts(parent, first=not numbers):
                label = "layer" if not numbers else _label(parts[i - 1] if i else "", numbers)
                numbers[label] = int(part)
                out.append("{" + label + "}")
            else:
                out.append(part)
        return ".".join(out), numbers

    def _counts(self, parent: str, first: bool) -> bool:
        if parent in self._alike:
            return True
        return first and parent not in self._sequential  # hybrids: layers of several classes


def _label(list_name: str, taken: Iterable[str]) -> str:
    """A placeholder's name from the list it counts: experts -> expert, adapter_list -> adapter.

    A list that is called like one member (LongCat's `self_attn.0`) is counted by "index".
    """
    word = re.sub(r"\W", "_", list_name)
    label = next((word.removesuffix(end) for end in ("_list", "s") if word.endswith(end)), "index")
    if not label.isidentifier():
        label = "index"
    unique, n = label, 2
    while unique in taken:
        unique, n = f"{label}{n}", n + 1
    return unique
