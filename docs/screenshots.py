"""Make the README's pictures: run both commands on the demo model and photograph the pages.

    python docs/screenshots.py

Needs the test tools (`make test` sets them up) and a Chromium.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from pathlib import Path

from playwright.sync_api import sync_playwright

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import agnostic_capture
import bertviz_head_model_view

# file name -> page, place in it, width and height in CSS pixels
PICTURES = {
    "head_view.png": ("head", "#layer=3&head=1", 1280, 780),
    "model_view.png": ("model", "#layer=1&head=2", 1280, 1020),
}


def main() -> None:
    """Write docs/head_view.png and docs/model_view.png."""
    with tempfile.TemporaryDirectory() as folder:
        document = str(Path(folder) / "agnostic_activations.json")
        quiet = ["--quiet", "--auto-select", "attn:0", "--output", document]
        if agnostic_capture.main(quiet) or bertviz_head_model_view.main(
            ["--input", document, "--output-dir", folder]
        ):
            raise SystemExit("the commands failed")
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(
                executable_path=os.environ.get("CHROMIUM") or shutil.which("chromium"),
                args=["--no-sandbox", "--disable-gpu"],
            )
            for name, (view, place, width, height) in PICTURES.items():
                size = {"width": width, "height": height}
                page = browser.new_page(viewport=size, color_scheme="light")
                path = Path(folder) / f"attention_{view}_view_demo_model.html"
                page.goto(path.as_uri() + place)
                page.wait_for_selector("#heat svg")
                page.evaluate("scrollTo(0, 0)")
                page.screenshot(path=ROOT / "docs" / name)
                print(f"docs/{name}")
            browser.close()


if __name__ == "__main__":
    main()
