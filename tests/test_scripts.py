"""Every script shows its help at once, and answers mistakes with exit code 2 and the remedy."""

from __future__ import annotations

import json
import os
import platform
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import small_videos
import warm_start

from violence_detection.system import locks, storage

ROOT = Path(__file__).resolve().parent.parent
SCRIPTS = (
    "download_all_violence_datasets.py",
    "find_all_datasets.py",
    "combine_all_datasets.py",
    "runpod_train_ultimate.py",
    "train_ensemble_models.py",
    "test_ensemble.py",
    "test_violence_model.py",
)
#: Packages that are only imported once the arguments are known.
HEAVY = {
    "numpy",
    "pandas",
    "scipy",
    "sklearn",
    "cv2",
    "av",
    "tensorflow",
    "keras",
    "ray",
    "matplotlib",
    "requests",
}


def _run(script: str, *arguments: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    return warm_start.run(ROOT / script, *arguments, cwd=cwd)


@pytest.mark.parametrize("script", SCRIPTS)
def test_help_says_in_under_a_second_what_a_script_is_for_and_its_defaults(
    script: str, tmp_path: Path
) -> None:
    command = [sys.executable, "-X", "importtime", str(ROOT / script), "--help"]
    before_s = _of_children_s()
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=True)
    assert _of_children_s() - before_s < 1.0
    assert "usage:" in done.stdout
    assert "default:" in done.stdout
    assert len(done.stdout.splitlines()) > 10
    imported = {line.rpartition("|")[2].strip().partition(".")[0] for line in done.stderr.splitlines()}
    assert "violence_detection" in imported
    assert not imported & HEAVY


def _of_children_s() -> float:
    """Return the processor seconds of finished child processes, to which other programs do not add."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


MISTAKES = {
    "find, wrong path": (("find_all_datasets.py", "--data-root", "nowhere"), ("nowhere", "download", "--own")),
    "find, empty folder": (("find_all_datasets.py", "--data-root", "empty"), ("empty", "download")),
    "combine, wrong path": (("combine_all_datasets.py", "--data-root", "nowhere"), ("nowhere", "download", "--own")),
    "combine, empty folder": (("combine_all_datasets.py", "--data-root", "empty"), ("empty",)),
    "train, no manifest": (("runpod_train_ultimate.py", "--data-root", "empty", "--log-dir", "logs"), ("manifest.csv", "combine_all_datasets.py")),  # noqa: E501
    "train, unknown backbone": (("runpod_train_ultimate.py", "--data-root", "empty", "--backbone", "resnet", "--log-dir", "logs"), ("resnet", "efficientnet_lite0")),  # noqa: E501
    "ensemble, unknown stream": (("train_ensemble_models.py", "--data-root", "empty", "--streams", "flow", "--log-dir", "logs"), ("flow", "motion")),  # noqa: E501
    "ensemble, no manifest": (("train_ensemble_models.py", "--data-root", "empty", "--log-dir", "logs"), ("combine_all_datasets.py",)),  # noqa: E501
    "evaluate, wrong data": (("test_ensemble.py", "--data", "nowhere"), ("nowhere", "combine_all_datasets.py")),
    "evaluate, no manifest": (("test_ensemble.py", "--data", "empty"), ("manifest.csv",)),
    "predict, missing model": (("test_violence_model.py", "--model", "no_model", "video.avi"), ("no_model", "runpod_train_ultimate.py")),  # noqa: E501
    "predict, wrong path": (("test_violence_model.py", "nowhere.mp4"), ("nowhere.mp4",)),
    "predict, empty folder": (("test_violence_model.py", "empty"), ("no video files", "empty")),
    "download, unknown data set": (("download_all_violence_datasets.py", "--data-root", "empty", "--datasets", "mine"), ("mine", "--list")),  # noqa: E501
}  # fmt: skip


@pytest.mark.parametrize("name", sorted(MISTAKES))
def test_mistake_ends_with_exit_2_and_the_remedy(name: str, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "video.avi").write_bytes(b"x")
    (script, *arguments), words = MISTAKES[name]
    done = _run(script, *arguments, cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    for word in words:
        assert word in done.stderr
    assert not [*tmp_path.glob("reports/*")]


def test_sigterm_ends_a_script_with_143_and_the_same_command_goes_on(tmp_path: Path) -> None:
    """143 is what a shell reports for SIGTERM, and what docs/guides/exit_codes.md says."""
    for i in range(24):
        small_videos.write(tmp_path / "own" / ("fight", "nonfight")[i % 2] / f"{i}.avi", i)
    script, *arguments = "combine_all_datasets.py", "--data-root", "data", "--own", "mine=own"
    shell = ["sh", "-c", '"$@" & echo $!; wait $!', "sh", sys.executable, str(ROOT / script), *arguments]
    with subprocess.Popen(
        shell, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout
        assert process.stderr
        pid = int(process.stdout.readline())
        assert any("24 to read" in line for line in process.stderr)
        os.kill(pid, signal.SIGTERM)
        out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (143, "")
    assert "Traceback" not in err
    manifest = tmp_path / "data" / "combined_all" / "manifest.csv"
    assert not manifest.exists()
    done = _run(script, *arguments, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert manifest.is_file()


def _combined(root: Path) -> Path:
    """Write a manifest without clips: both classes in both parts, and enough sources for a selection part."""
    combined = root / "combined_all"
    (combined / "val").mkdir(parents=True)
    columns = "clip_id,path,source_path,label,dataset,source_group,split,official_split,sha256,fingerprint,"
    rows = []
    for i in range(40):
        label, side = ("fight", "nonfight")[i % 2], "val" if i < 8 else "train"
        rows.append(
            f"{i:02},{side}/{label}/{i}.avi,raw/{i}.avi,{label},d,g{i},{side},,{i:02},,2,25,64,64,50,x\n"
        )
    text = f"{columns}duration_s,fps,width,height,n_frames,codec\n{''.join(rows)}"
    (combined / "manifest.csv").write_text(text)
    return combined


WRITERS = {
    "train": ("runpod_train_ultimate.py", "--data-root", ".", "--log-dir", "logs", "--output"),
    "ensemble": ("train_ensemble_models.py", "--data-root", ".", "--log-dir", "logs", "--output"),
    "evaluate": ("test_ensemble.py", "--data", "combined_all/val", "--output"),
}


@pytest.mark.parametrize("name", WRITERS)
def test_a_second_run_into_an_output_is_told_who_has_it(name: str, tmp_path: Path) -> None:
    _combined(tmp_path)
    with locks.only_one(tmp_path / "out", "the first"):
        before = sorted((tmp_path / "out").iterdir())
        done = _run(*WRITERS[name], "out", cwd=tmp_path)
        assert sorted((tmp_path / "out").iterdir()) == before
    assert done.returncode == 2
    assert f"out: the first (process {os.getpid()} on {platform.node()}, since 2" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("name", "there", "said"),
    [
        (
            "runpod_train_ultimate.py",
            "ensemble.json",
            "holds an ensemble (ensemble.json), so it cannot hold a single model as well",
        ),
        (
            "train_ensemble_models.py",
            "config.json",
            "holds a single model (config.json), so it cannot hold an ensemble as well",
        ),
    ],
)
def test_a_single_model_and_an_ensemble_never_share_a_folder(
    name: str, there: str, said: str, tmp_path: Path
) -> None:
    storage.write_json(tmp_path / "models" / there, {})
    done = _run(name, "--data-root", tmp_path, "--output", "models", cwd=tmp_path)
    assert done.returncode == 2
    assert said in done.stderr
    assert [p.name for p in (tmp_path / "models").iterdir()] == [there]


def test_looking_at_what_is_there_needs_no_output_of_its_own(tmp_path: Path) -> None:
    _combined(tmp_path)
    with locks.only_one(tmp_path / "out", "the first"):
        done = _run(*WRITERS["train"], "out", "--check", "--backbone", "efficientnet_lite0", cwd=tmp_path)
    assert "variants_missing" in json.loads(done.stdout)
    assert "the first" not in done.stderr


@pytest.mark.parametrize("name", WRITERS)
def test_an_output_that_cannot_be_written_is_named_before_the_work(name: str, tmp_path: Path) -> None:
    _combined(tmp_path)
    done = _run(*WRITERS[name], "/dev/null/out", cwd=tmp_path)
    assert done.returncode == 2
    assert "cannot write in /dev/null/out" in done.stderr
    assert "need features" not in done.stderr


def test_the_folder_of_the_failures_is_tried_before_features_are_made(tmp_path: Path) -> None:
    _combined(tmp_path)
    done = _run(*WRITERS["train"], "/dev/null/out", "--features-only", cwd=tmp_path)
    assert done.returncode == 2
    assert "cannot write in /dev/null/out" in done.stderr
    assert "need features" not in done.stderr


def test_missing_model_is_told_before_val_is_touched(tmp_path: Path) -> None:
    combined = _combined(tmp_path)
    done = _run("test_ensemble.py", "--models", "gone", "--data", combined / "val", cwd=tmp_path)
    assert done.returncode == 2
    assert "no model at gone" in done.stderr


def test_find_lists_as_one_json_line(tmp_path: Path) -> None:
    subprocess.run(
        [sys.executable, "-m", "violence_detection.datasets.generated", "--output", str(tmp_path),
         "--seed", "1",
         "--sources", "4", "--clips-per-source", "2"],
        cwd=ROOT, check=True, capture_output=True,
    )  # fmt: skip
    done = _run("find_all_datasets.py", "--data-root", tmp_path, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 1
    assert "rwf_2000" in json.dumps(json.loads(done.stdout))
