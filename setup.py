"""Keep files of earlier versions out of the wheel, which pyproject.toml cannot do.

setuptools keeps build/lib in the checkout and packs whatever it contains, including files that have since been removed.
Such a file in a shipped model would not agree with the model's SHA256SUMS.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build import build


class BuildAnew(build):
    """`build` from an empty build/lib."""

    def run(self) -> None:
        """Remove build/lib, then build."""
        if Path(self.build_lib).exists():
            shutil.rmtree(self.build_lib)
        super().run()


setup(cmdclass={"build": BuildAnew})
