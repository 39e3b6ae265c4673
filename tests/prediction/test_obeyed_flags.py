"""A flag that would have no effect on a run is refused before any work; one that has an effect is not."""

from __future__ import annotations

from pathlib import Path

import pytest

import test_violence_model
from violence_detection import cli
from violence_detection.errors import UserError
from violence_detection.prediction import obeyed_flags

#: This model does not exist, so that a run whose flags are not refused ends at once.
_NONE = ("--model", "none")
RUNS = {
    "adapt": (*_NONE, "--adapt", "footage", "--save-model", "to"),
    "calibrate": (*_NONE, "--calibrate", "footage", "--save-profile", "door.json"),
    "kept": (*_NONE, "--calibrate", "kept", "--save-profile", "door.json"),
    "learn": (*_NONE, "--rejudge", "kept", "--learn", "marks.json", "--save-profile", "door.json"),
    "export": (*_NONE, "--export", "onnx", "to"),
}
VERDICTS = (
    "--format=srt", "--timeline=page", "--annotate=night", "--clips=night", "--explain=why", "--explain-most=3",
    "--clip-margin-s=2", "--stall-s=3",
)  # fmt: skip
EVENTS = (
    "--offset=0.2",
    "--smoothing-s=5",
    "--min-duration-s=2",
    "--merge-gap-s=1",
    "--padding-s=1",
    "--cooldown-s=1",
)
JUDGING = (
    "--engine=openvino",
    "--backbone-weights=w.h5",
    "--precision=float32",
    "--stride-s=1",
    "--tta=2",
    "--skip-still",
)
REFUSED = {
    "adapt": (*VERDICTS, *EVENTS, "--output=o", "--false-events-per-hour=2"),
    "calibrate": VERDICTS,
    "kept": (*VERDICTS, *JUDGING, "--output=o"),
    "learn": (*VERDICTS, *JUDGING, "--output=o", "--false-events-per-hour=2"),
    "export": (*VERDICTS, *EVENTS, "--output=o", "--false-events-per-hour=2", "--precision=float32"),
}
OBEYED = {
    "adapt": (*JUDGING, "--threshold=0.4", "--operating-point=high-recall"),
    "calibrate": (*EVENTS, *JUDGING, "--threshold=0.4", "--false-events-per-hour=2", "--output=o"),
    "kept": (*EVENTS, "--profile=door.json", "--false-events-per-hour=2"),
    "learn": (*EVENTS, "--threshold=0.4"),
    "export": (
        "--threshold=0.4",
        "--stride-s=1",
        "--engine=openvino",
        "--backbone-weights=w.h5",
        "--verbose",
    ),
}


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder, with (empty) footage, kept windows and marks."""
    for name in ("footage/a.mp4", "kept/a.windows.jsonl", "marks.json"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def _check(argv: list[str], cameras: bool = False) -> None:
    parser = test_violence_model._parser()
    obeyed_flags.check(vars(parser.parse_args(argv)), cli.flags_given(parser, argv), cameras)


@pytest.mark.parametrize(("run", "flag"), [(run, flag) for run, flags in REFUSED.items() for flag in flags])
def test_a_flag_that_a_run_would_not_obey_is_refused_before_any_work(
    place: Path, run: str, flag: str
) -> None:
    before = sorted(place.rglob("*"))
    said = f"^{flag.partition('=')[0]} would do nothing: --{'calibrate' if run == 'kept' else run} writes"
    with pytest.raises(UserError, match=said):
        test_violence_model.main([*RUNS[run], flag])
    assert sorted(place.rglob("*")) == before


@pytest.mark.parametrize("run", RUNS)
def test_what_a_run_obeys_is_taken(place: Path, run: str) -> None:
    for argv in (*([*RUNS[run], flag] for flag in OBEYED[run]), ["night.mp4", "--timeline=page"]):
        _check(argv)


@pytest.mark.parametrize(
    ("argv", "flag", "cameras"),
    [
        (("--rejudge", "kept", "--stride-s=2.5"), "--stride-s", False),
        (("--rejudge", "kept", "--no-skip-still"), "--skip-still", False),
        ((*RUNS["adapt"], "--merge-gap-s=2.5"), "--merge-gap-s", False),
        (("night.mp4", "--stall-s=10"), "--stall-s", False),
        (("rtsp://camera", "--clip-margin-s=5"), "--clip-margin-s", True),
    ],
)
def test_a_flag_that_a_run_would_not_obey_is_refused_with_its_default_too(
    argv: tuple[str, ...], flag: str, cameras: bool
) -> None:
    parser, name = test_violence_model._parser(), flag.removeprefix("--").replace("-", "_")
    assert getattr(parser.parse_args(argv), name) == parser.get_default(name)
    with pytest.raises(UserError, match=f"^{flag} would do nothing"):
        _check([*argv], cameras)


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (
            ("--operating-point=high-recall", "--threshold=0.5"),
            "threshold 0.5 and operating_point high-recall",
        ),
        (("--profile=door.json", "--threshold=0.5"), "profile door.json has a threshold of its own"),
        (
            ("--profile=door.json", "--operating-point=balanced"),
            "profile door.json has a threshold of its own",
        ),
    ],
)
@pytest.mark.parametrize("run", [("night.mp4",), ("--rejudge", "kept"), RUNS["export"]])
def test_a_threshold_that_is_given_is_not_passed_over_where_it_is_the_default(
    place: Path, flags: tuple[str, ...], says: str, run: tuple[str, ...]
) -> None:
    with pytest.raises(UserError, match=says):
        test_violence_model.main([*run, *flags])


def test_the_default_threshold_and_point_may_be_given_together(place: Path) -> None:
    parsed = test_violence_model._parse(["night.mp4", "--threshold=0.5", "--operating-point=balanced"])
    assert (parsed.threshold, parsed.operating_point) == (0.5, "balanced")


def test_several_are_named_together(place: Path) -> None:
    with pytest.raises(UserError, match="--clips, --timeline would do nothing"):
        test_violence_model.main([*RUNS["adapt"], "--timeline", "page", "--clips", "c"])


@pytest.mark.parametrize("flag", JUDGING)
def test_windows_that_were_kept_are_not_judged_again(place: Path, flag: str) -> None:
    with pytest.raises(
        UserError, match=f"{flag.partition('=')[0]} would do nothing: --rejudge does not judge windows"
    ):
        test_violence_model.main(["--rejudge", "kept", flag])


def test_reasons_are_asked_of_the_model_as_the_flags_say(place: Path) -> None:
    asked = ["--rejudge", "kept", "--explain", "why", "--precision", "float32", "--explain-most", "3"]
    _check(asked)
    with pytest.raises(UserError, match="--stride-s would do nothing"):
        _check([*asked, "--stride-s", "1"])


@pytest.mark.parametrize(
    ("flag", "asks"),
    [
        ("--false-events-per-hour=2", "--calibrate"), ("--explain-most=3", "--explain"),
        ("--clip-margin-s=2", "--clips"),
        ("--mqtt-prefix=door", "--mqtt"), ("--mqtt-ca=ca.pem", "--mqtt"),
        ("--metrics-address=0.0.0.0", "--metrics-port"),
        ("--webhook-timeout-s=2", "--webhook"), ("--on-event-timeout-s=2", "--on-event"), ("--clip-max-s=9", "--clips"),
    ],
)  # fmt: skip
def test_a_flag_that_says_how_goes_with_the_one_that_asks_for_it(flag: str, asks: str) -> None:
    name = flag.partition("=")[0]
    with pytest.raises(UserError, match=f"^{name} would do nothing: it applies only with {asks}"):
        _check(["any", flag], cameras=True)


def test_cameras_may_have_what_is_of_cameras_and_files_may_not() -> None:
    argv = ["any", "--stall-s", "3", "--mqtt", "mqtt://b", "--mqtt-prefix", "door"]
    _check(argv, cameras=True)
    with pytest.raises(
        UserError,
        match=r"^--stall-s, --mqtt, --mqtt-prefix would do nothing: this run judges files, not cameras",
    ):
        _check(argv)
