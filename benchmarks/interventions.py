"""What an ablation and a sweep cost, against passes of the model.

    python benchmarks/interventions.py [--quick] [--write]

The model is that of `benchmarks/predictions.py`: a random Qwen2 of 24 layers of 14 heads, in
float32, on one thread. Each time is the least of several, side by side; a sweep is made once, and
its passes one by one are a sample, multiplied. `--quick` takes a small model, in some seconds.
`--write` puts the table into docs/speed.md.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from typing import Any

from phases import ROOT, SHAPE, timed
from predictions import opened
from run import Row, seconds, table, write

MARKS = "interventions"
_RUNS = 4
_SAMPLE = 8  # passes of a sweep one by one
_QUICK = {"hidden_size": 64, "intermediate_size": 128, "vocab_size": 20_000}


def capturing(found: Any, **options: Any) -> Callable[[], Any]:
    """A capture of all attention."""
    from activations.selection.answers import select
    from activations.session.options import Options
    from activations.session.run import run

    selection = select(found.catalog, {"attention": "0"})
    return lambda: run(found, selection, Options(**options))


def ablated(found: Any) -> Callable[[], Any]:
    from activations.session.targets import parse_targets

    return capturing(found, ablate=parse_targets("2.1", "--ablate"))


def sweeping(found: Any) -> tuple[Callable[[], Any], int]:
    """A sweep of all heads, after its capture; and how many heads there are."""
    from activations.session.options import Options
    from activations.session.sweeping import Sweeping

    made = capturing(found)()
    sweep = Sweeping(found, Options(sweep="heads"), made.inputs)
    return lambda: sweep.run("eager"), sweep.total


def one_pass(found: Any, last: bool) -> Callable[[], Any]:
    """An ordinary pass: with all logits, or those of the last position."""
    import torch

    ids = torch.tensor([found.request.ids])
    given = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "use_cache": False}
    keep = {"logits_to_keep": 1} if last else {}

    def act() -> Any:
        with torch.no_grad():
            return found.model(**given, **keep)

    return act


def finding(found: Any) -> Callable[[], Any]:
    """Finding where the heads stand, of all layers: once a capture, whatever the text."""
    from activations.session.trials import head_places

    made = capturing(found)()
    tensors = {source.tensor for source in found.catalog.observation.weights}
    call = {"use_cache": False}
    return lambda: head_places(found, made.inputs, call, tensors)


def least(work: dict[str, Callable[[], Any]], runs: int = _RUNS) -> dict[str, float]:
    """The least time of each of several runs side by side: other work only adds."""
    for act in work.values():
        act()  # warm
    times = [{name: timed(act) for name, act in work.items()} for _ in range(runs)]
    return {name: min(each[name] for each in times) for name in work}


def measure(layers: int, tokens: int, prompts: tuple[int, ...], shape: dict[str, int]) -> list[Row]:
    found = opened(layers, tokens, shape)
    took = least(
        {
            "plain": capturing(found),
            "ablated": ablated(found),
            "pass": one_pass(found, last=False),
            "finding": finding(found),
        }
    )
    print(took, file=sys.stderr)
    changed = took["ablated"] - took["pass"]
    rows: list[Row] = [
        (
            "an ablated capture, without its one unchanged pass",
            seconds(took["plain"]),
            seconds(changed),
            f"{changed / took['plain']:.2f}",
            "<= 1.1",
        ),
        (
            "finding where all heads stand, against a pass",
            seconds(took["pass"]),
            seconds(took["finding"]),
            f"{took['finding'] / took['pass']:.2f}",
            "",
        ),
    ]
    for count in prompts:
        found = opened(layers, count, shape)
        sweep, heads = sweeping(found)
        one = least(
            {"ordinary": one_pass(found, last=False), "last": one_pass(found, last=True)}, _SAMPLE
        )
        together = timed(sweep)
        for name, what, reach in (
            ("ordinary", f"{heads} passes", "<= 0.5"),
            ("last", "passes that make the last logits only", ""),
        ):
            alone = one[name] * heads
            rows.append(
                (
                    f"a sweep of {heads} heads, {count} tokens, against {what}",
                    seconds(alone),
                    seconds(together),
                    f"{together / alone:.2f}",
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
    rows = measure(4, 64, (16,), _QUICK) if options.quick else measure(24, 256, (32, 128), SHAPE)
    print(table(rows))
    if options.write:
        write(rows, MARKS, "interventions.py")
    return 0


if __name__ == "__main__":
    sys.exit(main())
