#!/usr/bin/env python3
"""Find a model's induction heads, cut them, and see the prediction go: one story, with pages.

  python examples/induction_heads.py --output-dir induction

1. On random tokens that are repeated once (`--diagnostic induction`), induction heads attend to
   what followed a token the first time (Olsson et al. 2022). The scores name them.
2. The prompt ends in the middle of a name that it has mentioned before. Each induction head is cut
   alone, and the prediction hardly moves: the others stand in for it.
3. All of them are cut together, and the name is forgotten.
4. The page of the difference shows what else attends otherwise without them.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import warnings
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # to run it from a clone

from activations import Document, capture  # noqa: E402

PROMPT = "Once there was a fox named Zolimar. One day Zol"


def main() -> None:
    asked = arguments()
    folder = Path(asked.output_dir)
    folder.mkdir(exist_ok=True)

    text = capture(diagnostic="induction", model=asked.model, output=folder / "repeated.json")
    rows = [row for row in text.scores(by="induction") if row["induction"] > asked.at_least]
    heads = [f"{row['layer']}.{row['head']}" for row in rows]
    print(f"Induction heads: {', '.join(heads)}")
    if not heads:
        sys.exit(f"No head has an induction score above {asked.at_least}. Try a lower --at-least.")

    before = capture(asked.model, asked.prompt, sweep="heads", output=folder / "unchanged.json")
    assert before.predictions is not None
    assert before.sweep is not None
    token, likely = before.predictions.tokens[-1, 0], before.predictions.probabilities[-1, 0]
    print(f"After {asked.prompt!r} the model expects {token!r} ({likely:.2f}).")
    for name in heads:
        row, column = place_of(before, name)
        print(f"  without {name}: {before.sweep.probability_of_top[row, column]:.2f}")

    after = capture(asked.model, asked.prompt, ablate=heads, output=folder / "without.json")
    assert after.effect is not None
    now = dict(zip(after.effect.after.tokens, after.effect.after.probabilities, strict=True))
    print(f"  without all of them: {now.get(token, 0):.2f} ({after.effect.kl:.1f} nats)")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it says that heads were cut in one of them
        changed = before.compare(after)[0]
    print(f"Most changed: head {changed['layer']}.{changed['head']}, by {changed['change']:.2f}")

    view = [sys.executable, str(ROOT / "bertviz_head_model_view.py"), str(before.path)]
    view += ["--compare", str(after.path), "--output-dir", str(folder), "--quiet"]
    subprocess.run(view, check=True)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Cut the induction heads of a model.")
    parser.add_argument("--model", help="a hub name or a folder (the bundled demo_model)")
    parser.add_argument("--prompt", default=PROMPT, help="it ends within a name that it repeats")
    parser.add_argument("--at-least", type=float, default=0.5, help="induction score (0.5)")
    parser.add_argument("--output-dir", default="induction", help="(induction)")
    return parser.parse_args()


def place_of(document: Document, name: str) -> tuple[int, int]:
    """The row and the column of a head in the sweep's table."""
    assert document.sweep is not None
    return next(place for place in document.sweep.strongest if document.sweep.name(*place) == name)


if __name__ == "__main__":
    main()
