"""HTML pages that need no network: one way to render them, and the colours that all of them have."""

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

#: `_theme.css.j2`: colours in light and dark, which each page includes.
_SHARED = Path(__file__).with_name("templates")


def environment(
    templates: Path, filters: Mapping[str, Callable[..., Any]] | None = None
) -> jinja2.Environment:
    """Templates of this folder, and the shared ones; what comes from outside is escaped, what is missing an error."""
    made = jinja2.Environment(
        loader=jinja2.FileSystemLoader([templates, _SHARED]), autoescape=True, undefined=jinja2.StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    made.filters.update(filters or {})
    return made


def json_in_page(value: Any) -> markupsafe.Markup:
    """JSON for a `<script type="application/json">`: nothing in it can end the element, and it is all ASCII."""
    text = json.dumps(json.loads(storage.as_json(value)), ensure_ascii=True)
    for sign in "<>&":
        text = text.replace(sign, f"\\u{ord(sign):04x}")
    return markupsafe.Markup(text)


def script_hash(script: str) -> str:
    """What a content security policy calls this script, so that no other runs: `'sha256-...'`."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"
