"""What every room agrees on."""

from __future__ import annotations

__version__ = "0.1.0"

#: Class order everywhere: index 0 is nonfight, index 1 is fight; every model's output is P(fight).
CLASS_NAMES = ("nonfight", "fight")
