"""What is to be changed, by name: `2.5`, `cross:0.1`, `mlp:3`, `attn:3`, a module."""

from __future__ import annotations

import re
from dataclasses import dataclass

from activations.attention.heads import HeadName, parse_heads
from activations.errors import UsageError

_HEAD = re.compile(r"(?:[a-z0-9_]{1,60}:)?\d{1,6}\.\d{1,6}")
_BLOCK = re.compile(r"(?:([A-Za-z_][\w.]{0,200}):)?(mlp|attn):(\d{1,6})")
_MODULE = re.compile(r"[A-Za-z_][\w.]*(@\d{1,6})?")
CATEGORY_OF = {"mlp": "mlp", "attn": "attention"}
WHAT = "heads as in 2.5 or cross:0.1, mlp:3, attn:3, or a module's full name"


@dataclass(frozen=True)
class Target:
    """A `head`, the `block` ("mlp", "attn") of a `layer`, or a `module`, or one `call` of it.

    `stack` is a part of the name of the list that the layer is in ("decoder").
    """

    text: str
    head: HeadName | None = None
    block: str | None = None
    layer: int | None = None
    stack: str | None = None
    module: str | None = None
    call: int | None = None


def parse_targets(text: str, flag: str) -> tuple[Target, ...]:
    """`"2.5,mlp:3"` -> the targets, each once. Raises `UsageError`, naming the flag."""
    return tuple(dict.fromkeys(_target(part.strip(), flag) for part in text.split(",")))


def _target(text: str, flag: str) -> Target:
    if _HEAD.fullmatch(text):
        return Target(text, head=parse_heads(text, flag)[0])
    if block := _BLOCK.fullmatch(text):
        return Target(text, block=block[2], layer=int(block[3]), stack=block[1])
    if _MODULE.fullmatch(text):
        module, _, call = text.partition("@")
        return Target(text, module=module, call=int(call) if call else None)
    if "{layer}" in text:
        raise UsageError(f"{flag} {text}: write a layer's number in place of {{layer}}.")
    raise UsageError(f"{flag} cannot read '{text}'. Write {WHAT}.")
