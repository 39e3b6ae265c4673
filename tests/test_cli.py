"""What all scripts have in common: flags made from settings, where output goes, exit codes."""

from __future__ import annotations

import argparse
import json
import logging
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import pytest

from violence_detection import cli
from violence_detection.system import console, settings
from violence_detection.system.settings import option

ROOT = Path(__file__).parents[1]


@dataclass(frozen=True)
class Config:
    names: tuple[str, ...] = option(("a", "b"), "several names")
    sizes: tuple[int, ...] = option((), "several sizes")
    folder: Path = option(Path("here"), "a folder")
    weights: Path | None = option(None, "a file")
    rate: float = option(0.5, "a share of 100 %")
    count: int = option(3, "a number")
    check: bool = option(False, "look closely")
    kind: str = option("auto", "which", choices=("auto", "manual"))
    model: Path = option(Path("m"), "a model")
    root: Path = option(settings.default_data_root, "a root")
    internal: int = 7


@dataclass(frozen=True)
class Own(Config):
    HEADING: ClassVar[str] = "its own"

    speed: int = option(1, "how fast")


@dataclass(frozen=True)
class Second:
    count: int = option(3, "a number")
    extra: str = option("x", "only here")


def _parser() -> argparse.ArgumentParser:
    p = cli.parser("What it does.")
    cli.add_config(p, Config)
    cli.add_config(p, Second)
    return p


def _config(*argv: str) -> Config:
    return cli.build(Config, _parser().parse_args(argv))


def test_without_flags_the_config_is_its_defaults() -> None:
    assert _config() == Config()


def test_the_help_has_flags_below_the_heading_of_the_class_that_declares_them() -> None:
    p = cli.parser("What it does.", "[options] FILE")
    cli.add_config(p, Own)
    said = p.format_help()
    assert said.startswith("usage: ")
    assert said.splitlines()[0].endswith(" [options] FILE")
    general, own = said.split("\nits own:\n")
    assert own.strip() == "--speed INT           how fast (default: 1)"
    assert "--names" in general


def test_flags_have_the_types_of_their_fields() -> None:
    config = _config("--names", "x, y,", "--sizes", "3,4", "--folder", "/f", "--weights", "w", "--rate", "0.25",
                     "--count", "9", "--check", "--kind", "manual", "--model", "mm")  # fmt: skip
    assert config == Config(("x", "y"), (3, 4), Path("/f"), Path("w"), 0.25, 9, True, "manual", Path("mm"))
    assert _config("--no-check").check is False


@pytest.mark.parametrize(
    "argv",
    [["--kind", "other"], ["--sizes", "3,x"], ["--count", "many"], ["--internal", "1"], ["--coun", "1"]],
)
def test_wrong_flags_exit_with_2(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as e:
        _config(*argv)
    assert e.value.code == cli.EXIT_USER_MUST_ACT
    printed = capsys.readouterr()
    assert printed.out == ""
    assert argv[0] in printed.err


def test_a_list_that_is_given_twice_adds_up() -> None:
    assert _config("--names", "x,y", "--names=z", "--sizes=3", "--sizes", "4,5") == Config(
        ("x", "y", "z"), (3, 4, 5)
    )


@pytest.mark.parametrize("text", ["", " ", ","])
@pytest.mark.parametrize("flag", ["--names", "--sizes", "--folder", "--weights", "--root", "--kind"])
def test_an_empty_value_is_refused_by_the_flags_name(
    flag: str, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as e:
        _config(flag, text)
    assert e.value.code == cli.EXIT_USER_MUST_ACT
    assert f"argument {flag}: its value is empty. Give one, or leave it out" in capsys.readouterr().err


def test_an_empty_value_that_is_the_default_is_taken_and_an_empty_path_is_none(
    capsys: pytest.CaptureFixture[str],
) -> None:
    p = cli.parser("What it does.")
    p.add_argument("--member", default="")
    p.add_argument("--log", default="some")
    p.add_argument("paths", nargs="*")
    args = p.parse_args(["--member", "", "a,b"])
    assert (args.member, args.log, args.paths) == ("", "some", ["a,b"])
    assert p.parse_args([]).paths == []
    with pytest.raises(SystemExit):
        p.parse_args(["a", ""])
    assert "argument paths: its value is empty" in capsys.readouterr().err


@pytest.mark.parametrize("script", ["train_ensemble_models.py", "runpod_train_ultimate.py"])
def test_no_flag_of_a_script_takes_an_empty_value_in_silence(script: str) -> None:
    """`--early-exit "$MEMBER"` passes an empty value if the variable is not set."""
    told = "import argparse, runpy, sys; argparse.ArgumentParser.parse_args = lambda p, argv=None: "
    told += "sys.exit(str([a.option_strings for a in p._actions if a.option_strings and a.default == '']))"
    code = f"{told}; sys.argv = [{script!r}]; runpy.run_path({script!r}, run_name='__main__')"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.stderr == "[]\n"


def test_two_stages_of_a_script_share_a_flag() -> None:
    args = _parser().parse_args(["--count", "5", "--extra", "y"])
    assert cli.build(Config, args).count == 5
    assert cli.build(Second, args) == Second(5, "y")


def test_help_shows_every_default_once() -> None:
    text = " ".join(_parser().format_help().split())
    for part in ("several names (default: a,b)", "a share of 100 % (default: 0.5)", "a root (default:",
                 "look closely (default: False)", "--kind {auto,manual} which (default: auto)"):  # fmt: skip
        assert text.count(part) == 1, part
    assert "(default: False) (default" not in text
    assert "several sizes --folder" in text, "an empty default is not shown"


@pytest.mark.parametrize("script", sorted(p.name for p in ROOT.glob("*.py") if p.name != "conftest.py"))
def test_no_help_shows_a_default_that_is_empty(script: str) -> None:
    done = subprocess.run(
        [sys.executable, script, "--help"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert "(default: )" not in " ".join(done.stdout.split())


def test_the_data_root_is_the_variable_then_the_pods_volume_then_here(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("VIOLENCE_DATA", "/elsewhere")
    assert _config().root == Path("/elsewhere")
    monkeypatch.delenv("VIOLENCE_DATA")
    for volume, expected in ((True, "/workspace/data"), (False, "data")):
        monkeypatch.setattr(Path, "is_dir", lambda path, v=volume: v and str(path) == "/workspace")
        assert settings.default_data_root() == Path(expected)


_SCRIPT = """
import sys
from violence_detection import cli
from violence_detection.errors import UserError
from violence_detection.system import console
def main():
    args = cli.parse(cli.parser("x"), log_name=%(log_name)r)
    console.log.info("begun")
    console.log.debug("a detail")
    %(body)s
cli.run_main(main)
"""


def _script(
    body: str, *argv: str, log_name: str | None = None, **more: str
) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": str(Path(cli.__file__).parents[1])} | more
    program = _SCRIPT % {"log_name": log_name, "body": body.replace("\n", "\n    ")}
    command = [sys.executable, "-c", program, *argv]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=30, check=False)


def test_what_the_user_must_mend_is_one_message_on_stderr_and_exit_2() -> None:
    done = _script("raise UserError('no clips in /x. Run: make clips')")
    assert done.returncode == 2
    assert done.stdout == ""
    assert "no clips in /x. Run: make clips" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_bug_is_a_traceback_in_the_log_too_and_no_exit_code_that_lets_scripts_go_on(tmp_path: Path) -> None:
    done = _script("raise KeyError('a bug')", "--log-dir", str(tmp_path), log_name="crash")
    assert done.returncode == cli.EXIT_CRASHED
    assert "Traceback" in done.stderr
    (written,) = tmp_path.glob("crash_*.log")
    assert "KeyError: 'a bug'" in written.read_text()


FULL = {
    "a bare write": "Path('/dev/full').write_text('x')",
    "a journal": "with storage.appending_journal(Path('/dev/full')) as note: note('a', {})",
    "in a worker": "list(processes.map_unordered(Path('/dev/full').write_text, ['x'], 1, str))",
    "another package's error": "raise RuntimeError('cannot write data (errno = 28, No space left on device)')",
    "an error on the way out": "try: Path('/dev/full').write_text('x')\nfinally: {}['a bug']",
}


@pytest.mark.parametrize("name", FULL)
def test_a_full_disk_is_the_users_to_mend(name: str) -> None:
    imports = "from pathlib import Path\nfrom violence_detection.system import processes, storage\n"
    done = _script(imports + FULL[name])
    assert done.returncode == cli.EXIT_USER_MUST_ACT, done.stderr
    assert "No space left on device. Free some space there" in done.stderr
    assert "Traceback" not in done.stderr
    if name == "a journal":
        assert "/dev: No space left" in done.stderr


def test_a_disk_that_cannot_be_written_is_the_users_to_mend() -> None:
    done = _script("raise OSError(30, 'Read-only file system', '/mnt/a/model.bin')")
    assert done.returncode == cli.EXIT_USER_MUST_ACT, done.stderr
    assert "/mnt/a" in done.stderr
    assert "Read-only file system. Mount it writable" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_folder_of_a_real_full_disk_is_named(tmp_path: Path) -> None:
    """The disk is a file system of one page, mounted in a user namespace, which some machines do not allow."""
    room = "mount -t tmpfs -o size=4096 none ."
    if subprocess.run(["unshare", "-rm", "sh", "-c", room], cwd=tmp_path, check=False).returncode:
        pytest.skip("no file system can be mounted here")
    body = "from violence_detection.system import disks, storage\n%s"
    for write, folder in (
        ("storage.write_text(storage.Path('a/b.json'), 'x' * 9000)", tmp_path / "a"),
        ("import numpy as np; np.savez('c.npz', np.zeros(9000))", tmp_path),
        ("disks.check_writable(storage.Path('d'))", "d"),
    ):
        program = _SCRIPT % {"log_name": None, "body": (body % write).replace("\n", "\n    ")}
        command = ["unshare", "-rm", "sh", "-c", f'{room} && cd "$PWD" && exec "$0" -c "$1"', sys.executable]
        done = subprocess.run([*command, program], cwd=tmp_path, capture_output=True, text=True, check=False,
                              env=os.environ | {"PYTHONPATH": str(Path(cli.__file__).parents[1])})  # fmt: skip
        assert done.returncode == cli.EXIT_USER_MUST_ACT, done.stderr
        assert f"{folder}" in done.stderr
        assert "No space left on device" in done.stderr
        assert "Traceback" not in done.stderr


def test_a_file_of_somebody_else_is_named_and_other_faults_stay_faults() -> None:
    done = _script("raise PermissionError(13, 'Permission denied', '/data/raw')")
    assert done.returncode == cli.EXIT_USER_MUST_ACT
    assert "/data/raw: Permission denied. Give this user permission" in done.stderr
    for fault in ("raise PermissionError(1, 'no file at all')", "raise OSError(5, 'I/O error', '/data/raw')",
                  "try: raise PermissionError(13, 'no', '/f')\nexcept OSError: {}['a bug']"):  # fmt: skip
        assert _script(fault).returncode == cli.EXIT_CRASHED


def test_a_log_folder_that_cannot_be_written_is_named_before_the_work() -> None:
    done = _script("return 0", "--log-dir", "/dev/null/logs", log_name="training")
    assert done.returncode == cli.EXIT_USER_MUST_ACT
    assert "cannot write in /dev/null/logs" in done.stderr
    assert "begun" not in done.stderr


def test_a_log_file_on_a_full_disk_is_said_once_and_the_log_goes_on() -> None:
    done = _script(
        "console.log_to(['/dev/full'], 10); [console.log.info('line %d', i) for i in range(3)]\nreturn 0"
    )
    assert done.returncode == 0
    assert done.stderr.count("/dev/full cannot be written (No space left on device)") == 1
    assert "line 2" in done.stderr
    assert "Traceback" not in done.stderr


SECRETS = {
    "a message": "raise UserError('cannot reach http://me:secret@proxy:80')",
    "a fault": "raise KeyError('http://me:secret@proxy:80')",
    "a line": "console.log.info('%s', 'rtsp://me:secret@camera/1')\nreturn 0",
    "the summary": "cli.print_summary({'path': 'rtsp://me:secret@camera/1?token=secret'})\nreturn 0",
    "before the log": "console.log.handlers.clear()\nraise KeyError('http://me:secret@proxy:80')",
}


@pytest.mark.parametrize("name", SECRETS)
def test_passwords_in_addresses_are_never_shown(name: str, tmp_path: Path) -> None:
    done = _script(SECRETS[name], "--log-dir", str(tmp_path), log_name="training")
    told = done.stdout + done.stderr + "".join(path.read_text() for path in tmp_path.iterdir())
    assert "://proxy:80" in told or "://camera/1" in told
    assert "secret" not in told


def test_an_interrupt_says_how_to_go_on() -> None:
    done = _script("raise KeyboardInterrupt")
    assert done.returncode == 130
    assert "the same command continues" in done.stderr
    assert "interrupted; nothing is kept" in _script("raise KeyboardInterrupt('nothing is kept')").stderr


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
@pytest.mark.parametrize("redirected", ["2>&-", "2>/dev/full", "2> >(exec 0<&-)"])
@pytest.mark.parametrize(
    ("body", "code"),
    [
        ("for _ in console.progress(range(3), desc='clips', mininterval=0.0): console.log.info('one')", 0),
        ("raise KeyboardInterrupt", 130),
        ("raise UserError('mend this')", 2),
        ("raise KeyError('a bug')", cli.EXIT_CRASHED),
        ("console.log.handlers.clear()\nraise UserError('mend this')", 2),
    ],
)
def test_a_stderr_that_nobody_reads_changes_nothing(redirected: str, body: str, code: int) -> None:
    lines = f"cli.print_summary({{'done': 3}})\n{body}\nreturn 0"
    program = _SCRIPT % {"log_name": None, "body": lines.replace("\n", "\n    ")}
    done = subprocess.run(["bash", "-c", f'"$0" -c "$1" {redirected}', sys.executable, program],
                          env=os.environ | {"PYTHONPATH": str(Path(cli.__file__).parents[1])},
                          capture_output=True, text=True, timeout=60, check=False)  # fmt: skip
    assert (done.returncode, done.stdout) == (code, '{"done": 3}\n'), done.stderr


def test_no_file_takes_the_place_of_a_stream_that_is_closed(tmp_path: Path) -> None:
    """A file opened while stderr is closed would get number 2, and with it all that other programs write to stderr."""
    body = f"import subprocess\nwith open({str(tmp_path / 'own')!r}, 'w'):\n"
    body += "    subprocess.run(['echo', 'a word'], stdout=2, check=True)\nreturn 0"
    program = _SCRIPT % {"log_name": None, "body": body.replace("\n", "\n    ")}
    subprocess.run(["bash", "-c", '"$0" -c "$1" 2>&-', sys.executable, program], timeout=60, check=True,
                   env=os.environ | {"PYTHONPATH": str(Path(cli.__file__).parents[1])})  # fmt: skip
    assert (tmp_path / "own").read_text() == ""


@pytest.mark.parametrize(("redirected", "code"), [("<&-", 0), (">&-", 2)])
def test_of_a_summary_on_a_stdout_that_is_closed_it_is_said(redirected: str, code: int) -> None:
    program = _SCRIPT % {"log_name": None, "body": "cli.print_summary({'done': 3})\n    return 0"}
    done = subprocess.run(["bash", "-c", f'"$0" -c "$1" {redirected}', sys.executable, program],
                          env=os.environ | {"PYTHONPATH": str(Path(cli.__file__).parents[1])},
                          capture_output=True, text=True, timeout=60, check=False)  # fmt: skip
    assert done.returncode == code, done.stderr
    assert ("the summary cannot be written to stdout (it is closed)" in done.stderr) == bool(code)


def test_stdout_is_one_line_of_json_and_people_read_stderr() -> None:
    done = _script("cli.print_summary({'train': 3, 'name': 'größer'})\nreturn cli.exit_code([{'path': 'a'}])")
    assert done.returncode == cli.EXIT_SOME_FAILED
    assert done.stdout.count("\n") == 1
    assert json.loads(done.stdout) == {"train": 3, "name": "größer"}
    assert "begun" in done.stderr
    assert "a detail" not in done.stderr


@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_stdout_is_json_whatever_the_names_and_figures(encoding: str) -> None:
    summary = "{'auc': float('nan'), 'path': 'größer\\udcff.mp4'}"
    done = _script(f"cli.print_summary({summary})\nreturn 0", PYTHONIOENCODING=encoding)
    assert done.returncode == 0, done.stderr
    assert "NaN" not in done.stdout
    assert json.loads(done.stdout) == {"auc": None, "path": "größer\udcff.mp4"}


def test_a_log_file_takes_any_file_name(tmp_path: Path) -> None:
    body = "console.log.warning('cannot judge bad\\udcff.mp4')"
    done = _script(body, "--log-dir", str(tmp_path), log_name="judging")
    assert "Logging error" not in done.stderr
    (file,) = tmp_path.iterdir()
    assert "bad\\udcff.mp4" in file.read_text()


def test_verbose_logs_details() -> None:
    assert "a detail" in _script("return 0", "-v").stderr


def test_the_log_file_stands_where_it_is_asked_for(tmp_path: Path) -> None:
    done = _script("return 0", "--log-dir", str(tmp_path / "logs"), log_name="training")
    assert done.returncode == 0
    (file,) = (tmp_path / "logs").iterdir()
    assert file.name.startswith("training_")
    assert file.suffix == ".log"
    assert "begun" in file.read_text()
    assert str(file) in done.stderr


def test_the_last_message_before_exit_2_is_in_the_log_file_too(tmp_path: Path) -> None:
    _script("raise UserError('mend this')", "--log-dir", str(tmp_path), log_name="training")
    (file,) = tmp_path.iterdir()
    assert "mend this" in file.read_text()


def test_exit_codes() -> None:
    assert cli.exit_code([]) == 0
    assert cli.exit_code([{"path": "a", "reason": "b"}]) == 1


def test_progress_away_from_a_terminal_prints_lines(capsys: pytest.CaptureFixture[str]) -> None:
    assert list(console.progress(range(5), desc="counting", unit="clip", mininterval=0.0)) == [0, 1, 2, 3, 4]
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "\r" not in printed.err
    assert "\x1b" not in printed.err
    lines = printed.err.splitlines()
    assert len(lines) >= 2
    assert all(line.startswith("counting: ") for line in lines)
    assert "5/5" in lines[-1]
    assert printed.err.isascii(), "log files are read with grep, less and LC_ALL=C"


def test_the_log_of_a_second_run_in_one_process_has_no_double_lines(
    capsys: pytest.CaptureFixture[str],
) -> None:
    for _ in range(2):
        cli.parse(cli.parser("x"), [])
    logging.getLogger("violence_detection.anything").info("once")
    assert capsys.readouterr().err.count("once") == 1


def test_an_older_python_is_told_so_without_a_traceback() -> None:
    program = (
        "import sys; sys.version_info = (3, 9, 2); sys.version = '3.9.2 (old)'\nimport violence_detection.cli"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=Path(cli.__file__).parents[1],
                          capture_output=True, text=True, check=False)  # fmt: skip
    assert done.returncode != 0
    assert "Python 3.11 or newer is needed; this is 3.9.2" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_missing_package_is_named_with_the_command() -> None:
    done = _script("import no_such_package")
    assert done.returncode == cli.EXIT_USER_MUST_ACT
    assert "the Python package no_such_package is missing" in done.stderr
    assert "pip install -r requirements.txt" in done.stderr
    assert "Traceback" not in done.stderr


def test_flags_that_there_are_not_are_refused_without_what_addresses_hold(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit):
        cli.parser(None).parse_args(
            ["--webhok=https://hooks.example/GEHEIM", "--mqt=mqtt://me:GEHEIM@host:1"]
        )
    said = capsys.readouterr().err
    assert "unrecognized arguments: --webhok=https://hooks.example/... --mqt=mqtt://host:1" in said
    assert "GEHEIM" not in said
