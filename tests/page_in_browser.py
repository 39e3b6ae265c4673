"""An installed Chromium for tests of pages, and a script that finds elements which do not fit a page."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)

#: Finds elements that reach beyond the page's sides and are not inside an element that scrolls by itself.
BESIDE = """() => [...document.querySelectorAll("body *:not(svg *)")].filter(element => {
  for (let up = element.parentElement; up; up = up.parentElement)
    if (["auto", "scroll"].includes(getComputedStyle(up).overflowX)) return false;
  const box = element.getBoundingClientRect();
  return box.width > 0 && (box.right > document.documentElement.clientWidth + 0.5 || box.left < -0.5);
}).map(element => element.tagName + "." + element.className + ": " + element.textContent.trim().slice(0, 60))"""


@contextmanager
def browser() -> Iterator[Any]:
    """Run Chromium without a window."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as started:
        chromium = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        yield chromium
        chromium.close()
