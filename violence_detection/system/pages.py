"""Self-contained HTML pages: the template environment, and helpers for embedded data and scripts."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jinja2
import markupsafe

from violence_detection.system import storage

#: Templates for all pages: `_theme.css.j2`, the colours for light and dark mode.
_SHARED = Path(__file__).with_name("templates")


def environment(
    templates: Path, filters: Mapping[str, Callable[..., Any]] | None = None
) -> jinja2.Environment:
    """A Jinja environment for the folder `templates` and the shared ones: values escaped, undefined names an error."""
    made = jinja2.Environment(
        loader=jinja2.FileSystemLoader([templates, _SHARED]), autoescape=True, undefined=jinja2.StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    made.filters.update(filters or {})
    return made


def json_in_page(value: Any) -> markupsafe.Markup:
    """JSON for a `<script type="application/json">` element: ASCII only, and nothing in it can end the element."""
    text = json.dumps(json.loads(storage.as_json(value)), ensure_ascii=True)
    for sign in "<>&":
        text = text.replace(sign, f"\\u{ord(sign):04x}")
    return markupsafe.Markup(text)


def script_hash(script: str) -> str:
    """The source expression `'sha256-...'` by which a content security policy allows this script and no other."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"
