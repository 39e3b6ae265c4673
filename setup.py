"""What pyproject.toml cannot say: a wheel holds the files that there are now.

setuptools keeps build/lib in the checkout, and with it those that an earlier version had. With one of them a shipped
model is not as its SHA256SUMS says.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build import build


class BuildAnew(build):
    """`build` without what an earlier one has left."""

    def run(self) -> None:
        """Remove build/lib, then build."""
        if Path(self.build_lib).exists():
            shutil.rmtree(self.build_lib)
        super().run()


setup(cmdclass={"build": BuildAnew})
