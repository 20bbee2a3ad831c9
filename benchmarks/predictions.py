"""What predictions and a lens cost, against a pass that makes no logits.

    python benchmarks/predictions.py [--quick] [--write]

A random Qwen2 of 24 layers, 896 wide, with a vocabulary of 151,936, in float32, reads 256 tokens on
one thread. Each time is the least of several, side by side. `--quick` takes a small model, in some
seconds. `--write` puts the table into docs/speed.md.
"""

from __future__ import annotations

import argparse
import ctypes
import sys
from collections.abc import Callable
from typing import Any

from phases import HEADS, ROOT, SHAPE, timed, watched
from run import Row, seconds, size, table, write

MARKS = "predictions"
_RUNS = 4
_QUICK = {"hidden_size": 64, "intermediate_size": 128, "vocab_size": 20_000}


def opened(layers: int, tokens: int, shape: dict[str, int]) -> Any:
    """The model, with a text of random tokens to read."""
    import torch
    from transformers import Qwen2Config, Qwen2ForCausalLM

    from activations.inputs.request import Request
    from activations.session.opening import open_loaded

    torch.manual_seed(0)
    torch.set_num_threads(1)
    config = Qwen2Config(num_hidden_layers=layers, tie_word_embeddings=True, **shape, **HEADS)
    config.num_attention_heads = 14 if shape is SHAPE else 4
    ids = torch.randint(0, shape["vocab_size"], (tokens,)).tolist()
    model = Qwen2ForCausalLM(config).eval()
    return open_loaded(model, None, request=Request(ids=tuple(ids)))


def capturing(found: Any, **options: Any) -> Callable[[], Any]:
    """A capture of the last norm, and of what is predicted."""
    from activations.selection.answers import select
    from activations.session.options import Options
    from activations.session.run import run

    selection = select(found.catalog, {"other": "norm"})
    return lambda: run(found, selection, Options(**options))


def finding(found: Any) -> Callable[[], Any]:
    """Finding the layers: once a capture, whatever the text."""
    import torch

    from activations.forward.residual_stream import find_stream
    from activations.forward.short_texts import two_texts

    ids = torch.tensor([found.request.ids])
    texts = two_texts(found.model, {"input_ids": ids, "attention_mask": torch.ones_like(ids)})
    return lambda: find_stream(found.model, *({**text, "use_cache": False} for text in texts))


def memory(act: Callable[[], Any]) -> float:
    """The MB that it needs at most; what earlier ones left behind is given back first."""
    ctypes.CDLL(None).malloc_trim(0)
    return watched(act)[1]


def measure(layers: int, tokens: int, shape: dict[str, int]) -> list[Row]:
    found = opened(layers, tokens, shape)
    plain = capturing(found, predict=0)
    predicting = capturing(found)
    lenses = {
        f"at all {tokens} positions": (None, "<= 12"),
        "at 16 positions": (tuple(range(0, tokens, tokens // 16)), "<= 1"),
        "at the last": ((-1,), "<= 0.2"),
    }
    work = {
        "plain": plain,
        "predicting": predicting,
        "finding": finding(found),
        **{what: capturing(found, lens="logit", at=at) for what, (at, _) in lenses.items()},
    }
    for name in ("plain", "predicting", "finding"):
        work[name]()  # warm
    print(f"{_RUNS} runs of each", file=sys.stderr)
    runs = [{name: timed(act) for name, act in work.items()} for _ in range(_RUNS)]
    least = {name: min(each[name] for each in runs) for name in work}  # other work only adds

    def row(what: str, reach: str, cost: Callable[[dict[str, float]], float]) -> Row:
        took, base = cost(least), least["plain"]
        return what, seconds(base), seconds(took), f"{took / base:.2f}", reach

    rows = [
        row("predictions at all positions, with the pass", "<= 1.45", lambda x: x["predicting"]),
        row("finding the layers, once a capture", "", lambda x: x["finding"]),
        *(
            row(
                f"the lens of {layers} layers {what}, beyond that",
                reach,
                lambda x, name=what: x[name] - x["predicting"] - x["finding"],
            )
            for what, (_, reach) in lenses.items()
        ),
    ]
    logits = 4 * tokens * shape["vocab_size"] / 1e6
    above_pass, above = map(memory, (predicting, work[f"at all {tokens} positions"]))
    reach = f"<= one layer's logits, {size(logits)}"
    rows.append(
        (
            "memory for the lens, above the predictions'",
            "",
            size(max(above - above_pass, 0)),
            "",
            reach,
        )
    )
    return rows


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a small model, some seconds")
    parser.add_argument("--write", action="store_true", help="the table in docs/speed.md anew")
    options = parser.parse_args(argv)
    if options.quick and options.write:
        parser.error("--write needs the full size. Leave out --quick.")
    assert ROOT  # on the path now
    rows = measure(4, 64, _QUICK) if options.quick else measure(24, 256, SHAPE)
    print(table(rows))
    if options.write:
        write(rows, MARKS, "predictions.py")
    return 0


if __name__ == "__main__":
    sys.exit(main())
