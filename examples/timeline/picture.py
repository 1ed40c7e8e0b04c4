"""`python -m examples.timeline.picture FILE`: a screenshot of the page with work under way."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from playwright.sync_api import Page, sync_playwright

FILE = Path(__file__).resolve().parents[2] / "docs" / "images" / "timeline.png"
NAMES = ("chromium", "chromium-browser", "google-chrome")
WIDTH, HEIGHT = 1120, 830
ACCEPTED = 150  # hearts of the flood by the time of the picture: half of them


def main() -> None:
    """Start the site with a new file, use it, and take its picture."""
    file = Path(sys.argv[1]) if len(sys.argv) > 1 else FILE
    browser = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)
    if browser is None:
        sys.exit("no Chromium: install it, or name it in CHROMIUM")
    command = [sys.executable, "-m", "examples.timeline", "--port", "0", "--directory"]
    with (
        tempfile.TemporaryDirectory() as directory,
        subprocess.Popen(  # noqa: S603 - our own command
            [*command, directory], stdout=subprocess.PIPE, text=True
        ) as site,
        sync_playwright() as playwright,
    ):
        url = site.stdout.readline().strip() if site.stdout else ""
        launched = playwright.chromium.launch(executable_path=browser, args=["--no-sandbox"])
        page = launched.new_page(viewport={"width": WIDTH, "height": HEIGHT})
        page.goto(url)
        use(page)
        page.screenshot(path=file)
        launched.close()
        site.terminate()
    print(f"{file}: {file.stat().st_size:,} bytes")


def use(page: Page) -> None:
    """Post twice, one of them sent by now, with a flood half-way."""
    post(page, "We may say that the engine eats its own tail: a result becomes its next input.")
    page.locator("#jobs .job[data-state=succeeded]").wait_for()
    page.get_by_role("button", name="Flood").click()
    post(page, "Posted just now. I see it at once, and 5,000 people will in a moment.")
    while int(page.locator("#accepted").inner_text()) < ACCEPTED:
        page.wait_for_timeout(50)


def post(page: Page, text: str) -> None:
    """Write a post and send it."""
    page.get_by_label("A new post").fill(text)
    page.get_by_role("button", name="Post", exact=True).click()


if __name__ == "__main__":
    main()
