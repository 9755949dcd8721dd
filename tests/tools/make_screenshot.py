"""Writes the screenshot of the status page for the README: `python -m tests.tools.make_screenshot`."""

from __future__ import annotations

import tempfile
from pathlib import Path

from playwright.sync_api import expect, sync_playwright

from tests.edge.page.test_browser import CHROMIUM, serving

OUT = Path(__file__).parents[2] / "edge" / "page" / "web" / "page.png"
MINUTES = 2.0  # so that the chart of the last hour has several emotions


def main() -> None:
    """Play the shipped clip and take the screenshot in a scene with a voice."""
    with tempfile.TemporaryDirectory() as directory, serving(Path(directory)) as site, sync_playwright() as p:
        browser = p.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1100, "height": 880}, color_scheme="light")
        page.goto(site.url)
        page.wait_for_timeout(MINUTES * 60_000)
        expect(page.locator("#emotion")).to_have_text("happiness", timeout=60_000)
        page.screenshot(path=OUT)
        browser.close()
    print(f"{OUT}: {OUT.stat().st_size} bytes")


if __name__ == "__main__":
    main()
