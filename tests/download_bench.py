"""A server, a data root and a catalogue of two small data sets, for tests of downloading."""

from __future__ import annotations

import io
import os
import random
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests import fault_server
from tests.fault_server import (
    SIGNATURE,
    TOKEN,
    FaultServer,
    Served,
)  # fmt: skip
from violence_detection.download import completion, download, transfer
from violence_detection.download.config import DownloadConfig

SCRIPT = Path(__file__).parents[1] / "download_all_violence_datasets.py"
PATIENT = transfer.Policy(attempts=4, first_wait_s=0.005, max_wait_s=2.0, read_timeout_s=0.5)
PLENTY_BYTES = 10**12
SLUG = "owner/fights"
ENTRY = """
[{key}]
title = "{key}"
roadmap = true
archive_bytes = 500000
extracted_bytes = 500000
clips = {{ fight = 5, nonfight = 5 }}
licence = "MIT"
terms = "none"
citation = "none"
notes = "none"
sources = [{sources}]
labels = [{{ pattern = 'fight/.+', label = "fight" }}]
"""


def clips(seed: int, count: int = 10, size: int = 50_000) -> dict[str, bytes]:
    draw = random.Random(seed)
    return {f"Set/{'noFight' if i % 2 else 'fight'}/{i:04d}.avi": draw.randbytes(size) for i in range(count)}


def zipped(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in files.items():
            archive.writestr(zipfile.ZipInfo(name), content)
    return buffer.getvalue()


def tree(folder: Path) -> dict[str, bytes]:
    return {path: (folder / path).read_bytes() for path in completion.tree_paths(folder)}


class Bench:
    """A server, a data root and a catalogue with `kaggle_set` (from Kaggle) and `plain_set` (from a plain address)."""

    def __init__(self, server: FaultServer, folder: Path):
        self.server, self.root, self.catalogue = server, folder / "root", folder / "catalogue.toml"
        self.files = clips(1)
        self.plain_files = clips(2)
        server.files = {
            "/k/archive.zip": Served(zipped(self.files)),
            "/plain.zip": Served(zipped(self.plain_files)),
        }
        server.datasets = {SLUG: "/k/archive.zip"}
        kaggle = f'{{ kind = "kaggle", slug = "{SLUG}", file = "fights.zip" }}'
        self.write_catalogue(kaggle_set=kaggle, plain_set=self.url_source("/plain.zip"))

    def url_source(self, path: str) -> str:
        return f'{{ kind = "url", url = "{self.server.url}{path}?key={SIGNATURE}", file = "plain.zip" }}'

    def write_catalogue(self, **sources: str) -> None:
        # catalogues are cached by their path
        self.catalogue = self.catalogue.with_name(f"catalogue{time.monotonic_ns()}.toml")
        self.catalogue.write_text("".join(ENTRY.format(key=k, sources=s) for k, s in sources.items()))

    def config(self, *keys: str, **values: Any) -> DownloadConfig:
        return DownloadConfig(
            **{"datasets": keys, "data_root": self.root, "catalogue": self.catalogue, **values}
        )

    def run(self, *keys: str, free: int = PLENTY_BYTES, **values: Any) -> download.DownloadResult:
        return download.run(self.config(*keys, **values), free_bytes=lambda _: free, policy=PATIENT)

    def raw(self, key: str) -> Path:
        return self.root / "raw" / key

    def assert_whole(self, key: str = "kaggle_set") -> None:
        expected = self.files if key == "kaggle_set" else self.plain_files
        assert tree(self.raw(key)) == expected
        assert completion.problems(self.raw(key)) == []
        assert not (self.root / "downloads" / key).exists()
        assert not list((self.root / "raw").glob(".*"))

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        command = [
            sys.executable,
            str(SCRIPT),
            "--data-root",
            str(self.root),
            "--catalogue",
            str(self.catalogue),
        ]
        return subprocess.Popen(
            [*command, *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # ignored in tests run with &
        )


@contextmanager
def running_bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    """Set up credentials in KAGGLE_API_TOKEN, and the server as the proxy for the Kaggle client's http://localhost."""
    with fault_server.running() as server:
        for name in [n for n in os.environ if n.startswith("KAGGLE_") or n.lower().endswith("_proxy")]:
            monkeypatch.delenv(name)
        home = tmp_path / "home"
        (home / ".kaggle").mkdir(parents=True)
        monkeypatch.setenv("HOME", str(home))
        monkeypatch.setenv("KAGGLE_API_ENVIRONMENT", "LOCALHOST")
        monkeypatch.setenv("KAGGLE_API_TOKEN", TOKEN)
        monkeypatch.setenv("http_proxy", server.url)
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        yield Bench(server, tmp_path)


def failure(bench: Bench) -> str:
    """Download both data sets, of which the one from Kaggle must fail and the other arrive. Returns the reason."""
    result = bench.run("kaggle_set", "plain_set")
    failed, other = result.outcomes
    assert (failed.status, other.status) == ("failed", "downloaded")
    assert not bench.raw("kaggle_set").exists()
    bench.assert_whole("plain_set")
    assert (bench.root / "raw" / "download_failures.csv").read_text().startswith("path,reason\nkaggle_set,")
    assert result.summary()["failed"] == 1
    return failed.reason


def arrives(bench: Bench) -> download.DownloadResult:
    result = bench.run("kaggle_set")
    assert [o.status for o in result.outcomes] == ["downloaded"], result.outcomes
    bench.assert_whole()
    assert not (bench.root / "raw" / "download_failures.csv").exists()
    return result
