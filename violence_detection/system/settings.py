"""How settings are declared: frozen dataclasses whose fields say what they mean, the one source of every flag."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any


def option(
    default: Any,
    help: str,
    *,
    choices: Sequence[str] | None = None,
    flag: str | None = None,
    bare: str | None = None,
) -> Any:
    """A dataclass field that can be a command-line flag too (`data_root` becomes `--data-root`).

    `bare`: the value of the flag given without one.
    """
    metadata = {"help": help, "choices": choices, "flag": flag, "bare": bare}
    if callable(default):
        return dataclasses.field(default_factory=default, metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


def default_data_root() -> Path:
    """`$VIOLENCE_DATA`, else `/workspace/data` where a pod's volume is mounted, else `./data`."""
    if value := os.environ.get("VIOLENCE_DATA"):
        return Path(value)
    return Path("/workspace/data") if Path("/workspace").is_dir() else Path("data")
