"""The house: which room may import which, what is public, and what a room looks like.

The floors are those of docs/architecture.md. Lazy and type-checking imports count like others.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import activations

PACKAGE = Path(activations.__file__).parent
FLOORS = [
    {"text", "errors", "program", "version"},
    {"outputs", "system", "arguments"},
    {"document", "model", "selection"},
    {"attention", "forward", "inputs"},
    {"session", "views"},
    {"api", "cli"},
]
FLOOR_OF = {room: number for number, rooms in enumerate(FLOORS, 1) for room in rooms}
FILES = sorted(path for path in PACKAGE.rglob("*.py") if path.name != "__init__.py")
NAMES = [".".join(path.relative_to(PACKAGE).with_suffix("").parts) for path in FILES]


def imported(path: Path) -> Iterator[str]:
    """The full name of each module that a file imports, anywhere in it."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are written in full"
            # `from activations.forward import hooks` names a module, `... import record` does not.
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            yield from (
                n if n.removeprefix("activations.") in NAMES else str(node.module) for n in names
            )


def ours(path: Path) -> set[str]:
    """The modules of this package that a file imports, by their names within it."""
    found = {name.removeprefix("activations.") for name in imported(path) if "activations" in name}
    assert found <= set(NAMES), f"{path} imports the package itself, or a room"
    return found


def room_of(name: str) -> str:
    return name.partition(".")[0]


def test_every_room_stands_on_a_floor() -> None:
    assert {room_of(name) for name in NAMES} == set(FLOOR_OF)
    assert len(NAMES) > 50


@pytest.mark.parametrize(("path", "name"), zip(FILES, NAMES, strict=True), ids=NAMES)
def test_imports_lead_down(path: Path, name: str) -> None:
    room = room_of(name)
    for other in map(room_of, ours(path)):
        alone = len(path.relative_to(PACKAGE).parts) == 1  # files of the ground know each other
        below = FLOOR_OF[other] < FLOOR_OF[room]
        assert below or (room == other and not alone) or (alone and other in ("errors", "text"))


def test_there_are_no_circles() -> None:
    waiting = {name: ours(path) for name, path in zip(NAMES, FILES, strict=True)}
    while waiting:
        free = [name for name, others in waiting.items() if not others & waiting.keys()]
        assert free, f"these import each other: {sorted(waiting)}"
        for name in free:
            del waiting[name]


def test_torch_stays_in_three_rooms() -> None:
    heavy = {
        room_of(name)
        for name, path in zip(NAMES, FILES, strict=True)
        if {library.partition(".")[0] for library in imported(path)} & {"torch", "transformers"}
    }
    assert heavy == {"forward", "inputs", "model"}


def test_what_is_public() -> None:
    assert activations.__all__ == ["Document", "ToolkitError", "UsageError", "capture", "load"]
    assert all(getattr(activations, name) for name in activations.__all__)
    for path in PACKAGE.rglob("__init__.py"):
        assert path.parent == PACKAGE or not path.read_text()


def test_no_module_takes_a_public_name() -> None:
    """Importing it would put a module in the place of the function."""
    names = {path.stem for path in PACKAGE.iterdir()}
    assert not names & set(activations.__all__)
