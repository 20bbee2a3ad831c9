"""`examples/induction_heads.py`: its story, by the numbers in the documents that it leaves."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from activations import load

ROOT = Path(__file__).parent.parent.parent


def test_the_induction_heads_stand_in_for_each_other(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "examples" / "induction_heads.py", "--output-dir", tmp_path],
        capture_output=True,
        text=True,
        check=True,
    )
    lines = done.stdout.splitlines()
    heads = lines[0].removeprefix("Induction heads: ").split(", ")
    repeated = load(tmp_path / "repeated.json").scores()
    by_score = {f"{row['layer']}.{row['head']}" for row in repeated if row["induction"] > 0.5}
    assert set(heads) == by_score
    alone = [float(line.split()[-1]) for line in lines[2 : 2 + len(heads)]]
    assert min(alone) > 0.9
    together = re.fullmatch(
        r"  without all of them: ([\d.]+) \(([\d.]+) nats\)", lines[2 + len(heads)]
    )
    assert together is not None
    assert float(together[1]) < 0.05
    cut = load(tmp_path / "without.json")
    assert [made.what for made in cut.interventions] == heads
    assert cut.effect is not None
    assert f"{cut.effect.kl:.1f}" == together[2]
    for page in lines[-2:]:
        assert "unchanged_vs_without" in page
        assert Path(page).stat().st_size > 100_000
