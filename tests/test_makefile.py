"""The Makefile's commands: what they pass to the scripts, for folders of any name."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
#: Replaces Python: records the arguments that it gets, one per line.
_STUB = """#!/bin/sh
for word in "$@"; do printf '%s\\n' "$word"; done >> "$0.words"
printf -- '---\\n' >> "$0.words"
"""


@pytest.fixture
def work(tmp_path: Path) -> Path:
    """A checkout whose environment counts as installed."""
    if shutil.which("make") is None:
        pytest.skip("no make")
    shutil.copy(ROOT / "requirements.txt", tmp_path)
    shutil.copy(ROOT / "Makefile", tmp_path)
    (tmp_path / ".venv").mkdir()
    (tmp_path / ".venv/.installed").touch()
    (tmp_path / "stub").write_text(_STUB)
    (tmp_path / "stub").chmod(0o755)
    return tmp_path


def _calls(work: Path, *arguments: str) -> list[list[str]]:
    """Run make, and return the arguments of each call of Python."""
    done = subprocess.run(
        ["make", "PY=./stub", *arguments], cwd=work, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    calls = (work / "stub.words").read_text().split("---\n")[:-1]
    return [call.splitlines() for call in calls]


def _dry(work: Path, *arguments: str) -> str:
    """Return the commands that a target would run."""
    done = subprocess.run(["make", "-n", *arguments], cwd=work, capture_output=True, text=True, check=True)
    return done.stdout


@pytest.mark.parametrize(("device", "times"), [("tty0", 0), ("nvidia3", 1), ("dxg", 1)])
def test_the_environment_of_a_machine_with_a_gpu_has_the_cuda_libraries(
    work: Path, device: str, times: int
) -> None:
    """A container may have only the fourth GPU of its machine."""
    (work / ".venv/.installed").unlink()
    (work / "dev").mkdir()
    (work / "dev" / device).touch()
    assert _dry(work, "DEV=dev", ".venv/.installed").count('"tensorflow[and-cuda]"') == times


def test_an_environment_that_was_left_without_pip_is_made_again(work: Path) -> None:
    (work / ".venv/.installed").unlink()
    (work / ".venv/bin").mkdir()
    python = work / ".venv/bin/python"  # as venv leaves it on a system without ensurepip
    python.write_text('#!/bin/sh\ntest -e "$(dirname "$0")/pip"\n')
    python.chmod(0o755)
    maker = work / "python"
    maker.write_text('#!/bin/sh\ncase "$*" in *venv*) touch .venv/bin/pip;; esac\n')
    maker.chmod(0o755)
    subprocess.run(["make", f"PYTHON={maker}", ".venv/.installed"], cwd=work, check=True, capture_output=True)
    assert (work / ".venv/bin/pip").exists()


@pytest.mark.parametrize(("version", "taken"), [("3.10.4", False), ("3.12.1", True), ("3.14.0", False)])
def test_the_python_of_an_environment_that_is_there_counts_and_no_other(
    work: Path, version: str, taken: bool
) -> None:
    """An environment made by an IDE once had another Python, for which pip found no TensorFlow."""
    (work / ".venv/.installed").unlink()
    (work / ".venv/bin").mkdir()
    python = work / ".venv/bin/python"
    as_if = f"import sys; sys.version_info = tuple(map(int, '{version}'.split('.'))); sys.version = '{version} (main)'"
    python.write_text(
        f'#!/bin/sh\nif [ "$1" = -c ]; then exec "{sys.executable}" -c "{as_if}; $2"; fi\n'
        'case "$*" in *install*) touch .venv/packages;; esac\n'
    )
    python.chmod(0o755)
    done = subprocess.run(
        ["make", f"PYTHON={'false' if taken else sys.executable}", ".venv/.installed"],
        cwd=work, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode == 0) is (work / ".venv/packages").exists() is taken, done.stderr
    if not taken:
        assert f"3.13 is needed, and .venv/bin/python is {version}" in done.stderr
        assert "rm -r .venv" in done.stderr


def test_the_roadmap_takes_a_data_root_with_spaces(work: Path) -> None:
    calls = _calls(work, "roadmap", "DATA_ROOT=/my data")
    assert [call[0] for call in calls] == [
        "download_all_violence_datasets.py",
        "find_all_datasets.py",
        "combine_all_datasets.py",
        "runpod_train_ultimate.py",
        "train_ensemble_models.py",
        "test_ensemble.py",
    ]
    assert all(call[1:] == ["--data-root", "/my data"] for call in calls[:5])
    assert "/my data/combined_all/val" in calls[5]


@pytest.mark.parametrize("target", ["roadmap", "demo", "retrain-fast"])
def test_files_that_are_named_and_left_out_stop_no_step(work: Path, target: str) -> None:
    left_out = 'case "$1" in find_all*|combine_all*) exit 1;; esac\n'
    (work / "stub").write_text(_STUB + left_out)
    calls = _calls(work, target, "DATA_ROOT=/data")
    assert calls[-1][0] == "test_ensemble.py"


@pytest.mark.parametrize("name", ["demo", "my demo"])
@pytest.mark.parametrize("target", ["demo", "demo-real"])
def test_the_demos_take_a_folder_with_spaces(work: Path, target: str, name: str) -> None:
    folder = name if target == "demo" else f"{name}-real"
    calls = _calls(work, target, f"DEMO={name}")
    assert len(calls) == 7
    for call in calls[1:5]:
        assert call[call.index("--data-root") + 1] == f"{folder}/data"
    assert calls[3][calls[3].index("--output") + 1] == f"{folder}/models_ultimate"
    places = ("models_ensemble", "data/combined_all/val", "verdicts.json")
    model, val, verdicts = (f"{folder}/{place}" for place in places)
    assert calls[5][1:] == ["--model", model, val, "--output", verdicts]
    assert calls[6][-1] == f"{folder}/report"


@pytest.mark.parametrize(
    ("name", "backbones", "members"),
    [
        ("fast", "i3d_pictures", "i3d_tuned"),
        (
            "accurate",
            "i3d_actions,i3d_movements,dinov2_spread,movenet_poses,i3d_pictures",
            "kernel,i3d_tuned",
        ),
    ],
)
def test_a_shipped_model_is_made_from_raw_clips_by_one_command(
    work: Path, name: str, backbones: str, members: str
) -> None:
    calls = _calls(work, f"ship-{name}", "DATA_ROOT=/my data")
    assert [call[0] for call in calls] == [
        "find_all_datasets.py",
        "combine_all_datasets.py",
        "train_ensemble_models.py",
    ]
    assert all(call[1:3] == ["--data-root", "/my data"] for call in calls)
    assert calls[2][-9:-6] == ["--output", f"models_{name}", "--leave-one-dataset-out"]
    assert calls[2][-6:] == ["--final", "--final-by", "left-out", "--closer-look", "--ship", name]
    assert calls[2][calls[2].index("--backbone") + 1] == backbones
    assert calls[2][calls[2].index("--members") + 1] == members


def test_the_card_of_a_shipped_model_is_named_where_it_is_written(
    work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("VIOLENCE_MODELS", raising=False)
    for models in ("violence_detection/models/shipped_models", "/my models"):
        done = subprocess.run(
            ["make", "-s", "PY=./stub", "ship-fast", "DATA_ROOT=/my data"],
            cwd=work, capture_output=True, text=True, check=True,
        )  # fmt: skip
        assert done.stdout.endswith(f"Card: {models}/fast/README.md\n")
        monkeypatch.setenv("VIOLENCE_MODELS", "/my models")


def test_the_recipe_of_fast_is_trained_and_measured_by_one_command(work: Path) -> None:
    shipped = _calls(work, "ship-fast", "DATA_ROOT=/my data")[2]
    (work / "stub.words").unlink()
    calls = _calls(work, "retrain-fast", "DATA_ROOT=/my data")
    assert [call[0] for call in calls] == [
        "find_all_datasets.py",
        "combine_all_datasets.py",
        "train_ensemble_models.py",
        "test_ensemble.py",
    ]
    recipe = shipped[: shipped.index("--output")]
    assert calls[2][: len(recipe)] == recipe
    without_folds = calls[2][len(recipe) :]
    spread = {"--cross-validate", "--leave-one-dataset-out", "--final", "--final-by", "--ship"}
    assert not spread & set(without_folds)
    models = without_folds[without_folds.index("--output") + 1]
    assert calls[3][1:5] == ["--models", models, "--data", "/my data/combined_all/val"]


def test_cleaning_removes_the_demos_alone(work: Path) -> None:
    for name in ("my demo", "my demo-real", "my", "demo", "demo-real"):
        (work / name).mkdir()
    subprocess.run(["make", "clean", "DEMO=my demo"], cwd=work, check=True, capture_output=True)
    left = {path.name for path in work.iterdir() if path.is_dir() and not path.name.startswith(".")}
    assert left == {"my", "demo", "demo-real"}


def test_help_names_what_there_is_and_what_it_does(work: Path) -> None:
    done = subprocess.run(["make"], cwd=work, capture_output=True, text=True, check=True)
    said = {line.split()[1]: line for line in done.stdout.splitlines() if line.startswith("make ")}
    assert said.keys() >= {"demo", "demo-real", "test", "lint", "roadmap", "ship-fast", "retrain-fast"}
    assert "types" in said["lint"]
    assert "types" not in said["test"], "they are looked at by make lint"
