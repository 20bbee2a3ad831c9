"""Asking the Hugging Face models in a module for their attentions, whatever is around them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any

from torch import nn

from activations.forward.hooks import forwards_replaced
from activations.model.hosts import hosts
from activations.model.signature import accepts


@contextmanager
def attentions_asked(
    model: nn.Module, returned: dict[str, list[Any]] | None = None
) -> Iterator[None]:
    """Inside the block, the Hugging Face models in a module compute and return their attentions.

    `returned` gets what each of them returned in each of its calls, by name. The modules around
    them get what they expect: a tuple without attentions where they ask for one. Their `forward` is
    replaced, as a SentenceTransformer calls it past the hooks.
    """
    found = hosts(model)
    with forwards_replaced(found, lambda name, own: _asking(found[name], own, name, returned)):
        yield


def _asking(
    host: Any, own: Callable[..., Any], name: str, returned: dict[str, list[Any]] | None
) -> Callable[..., Any]:
    """The model's `forward`, which asks for attentions; `returned` gets what each call returns."""
    flags = {flag: True for flag in ("output_attentions", "return_dict") if accepts(host, flag)}

    def expected(flag: str, kwargs: dict[str, Any]) -> bool:
        """What the caller expects; None leaves it to the configuration."""
        asked = kwargs.get(flag)
        return bool(getattr(host.config, flag, False) if asked is None else asked)

    @wraps(own)
    def forward(*args: Any, **kwargs: Any) -> Any:
        output = own(*args, **{**kwargs, **flags})
        if returned is not None:
            returned.setdefault(name, []).append(output)
        if "return_dict" not in flags or expected("return_dict", kwargs):
            return output
        all_of_it = expected("output_attentions", kwargs)
        return tuple(v for key, v in output.items() if all_of_it or not key.endswith("attentions"))

    return forward
