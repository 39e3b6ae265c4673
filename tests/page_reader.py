"""A report's page as its readers see it, and a check that each figure on it is in the files beside it."""

from __future__ import annotations

import csv
import html
import json
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

from violence_detection.system.figures import LEAST_P

_VOID = ("meta", "img", "source", "br", "wbr", "rect", "line")
_INLINE = ("span", "strong", "small", "wbr", "code", "a", "em")
#: Classes and tags of elements without figures of the evaluation: settings and commands, names, explanations, axes.
_NO_FIGURES = {"facts", "path", "from", "note", "axis", "identity", "open"}
_NO_FIGURES_TAGS = {"code", "caption", "nav", "title", "style", "th", "h1", "h2", "h3"}
_NUMBER = re.compile(r"(?<![\w.:/-])\d+(?:\.\d+)?(?![\w/]|\.\d)")


class Page(HTMLParser):
    """The text by element id, the tags with their attributes, and the text that may contain figures.

    Fails on a tag that is not closed.
    """

    def __init__(self, path: Path):
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.by_id: dict[str, str] = {}
        self.figures_text = ""
        self._open: list[tuple[str, dict[str, str | None]]] = []
        self.feed(path.read_text(encoding="utf-8"))
        self.close()
        assert not self._open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in _INLINE or dict(attrs).get("class") or tag == "small":
            self.figures_text += " "
        if tag not in _VOID:
            self._open.append((tag, dict(attrs)))

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        opened, _ = self._open.pop()
        assert opened == tag, f"</{tag}> closes <{opened}>"
        if tag not in _INLINE or tag == "small":
            self.figures_text += " "

    def handle_data(self, data: str) -> None:
        if any(tag == "style" for tag, _ in self._open):
            return
        self.text += data
        for _, attrs in self._open:
            if element_id := attrs.get("id"):
                self.by_id[element_id] = self.by_id.get(element_id, "") + data
        if not any(
            tag in _NO_FIGURES_TAGS or _NO_FIGURES & set((attrs.get("class") or "").split())
            for tag, attrs in self._open
        ):
            self.figures_text += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attrs for name, attrs in self.tags if name == tag]


def figures(page: Path) -> list[str]:
    """Return the numbers that the page shows as figures, as they are written."""
    text = re.sub(r"95\s%\sinterval", "", Page(page).figures_text)
    return _NUMBER.findall(text)


def rows(page: Path, table: str) -> dict[str, list[str]]:
    """Return the text of the cells of the table with the id `table`, by the heading of their row."""
    text = page.read_text(encoding="utf-8").split(f'<table id="{table}">')[1].split("</table>")[0]
    found = {}
    for row in text.split("<tbody>")[1].split("<tr")[1:]:
        (heading,) = re.findall(r'<th scope="row">(.*?)</th>', row, re.DOTALL)
        cells = re.findall(r"<td[^>]*>(.*?)</td>", row, re.DOTALL)
        found[_plain(heading)] = [_plain(cell) for cell in cells]
    return found


def key_figures(page: Path) -> dict[str, str]:
    """Return the figures at the top of the page by their names."""
    text = page.read_text(encoding="utf-8").split('<dl class="key-figures">')[1].split("</dl>")[0]
    return dict(re.findall(r"<dt>(.*?)</dt><dd>(.*?)</dd>", text))


def _plain(cell: str) -> str:
    """Return the text of a cell without tags, with a space before each <small>."""
    text = re.sub(r"<[^>]+>", "", cell.replace("<small", " <small"))
    return html.unescape(re.sub(r"[ \n]+", " ", text)).strip()


def without_source(page: Path) -> list[str]:
    """Return the figures of a page that are not a rounded number of metrics.json or predictions.csv."""
    folder = page.parent
    known = {"0", str(LEAST_P)}
    for value in _numbers(json.loads((folder / "metrics.json").read_text(encoding="utf-8"))):
        known |= _written(value)
    with (folder / "predictions.csv").open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            for name, text in row.items():
                if name.startswith("p_") and text:
                    known |= _written(float(text))
    return [figure for figure in figures(page) if figure not in known]


def _numbers(value: Any) -> Iterator[float]:
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        for part in value:
            yield from _numbers(part)
    elif isinstance(value, (int, float)) and not isinstance(value, bool):
        yield value


def _written(value: float) -> set[str]:
    if isinstance(value, int):
        return {str(value)}
    return {*(f"{value:.{digits}f}" for digits in range(1, 7)), f"{100 * value:.1f}"}
