"""Every numeric flag of every script accepts a number, or refuses it by the flag's name before any work begins."""

from __future__ import annotations

import argparse
import dataclasses
import importlib
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from violence_detection import cli
from violence_detection.errors import UserError
from violence_detection.features.config import FeatureConfig
from violence_detection.system.settings import BaseConfig, Limits, option
from violence_detection.training import model_record
from violence_detection.training.config import HeadConfig, TrainConfig

#: The arguments that each script gets besides the flag. They name no data, so a run ends with an error for the user.
GIVEN: dict[str, list[str]] = {
    "download_all_violence_datasets": ["--data-root=nothing", "--verify"],
    "find_all_datasets": ["--data-root=nothing"],
    "combine_all_datasets": ["--data-root=nothing"],
    "runpod_train_ultimate": ["--data-root=nothing", "--log-dir=logs"],
    "train_ensemble_models": ["--data-root=nothing", "--log-dir=logs"],
    "test_ensemble": ["--data=nothing"],
    "test_violence_model": ["nothing.mp4"],
}
#: Seeds that are only hashed: any whole number is accepted.
ANY_NUMBER = {("runpod_train_ultimate", "--augment-seed"), ("train_ensemble_models", "--augment-seed"),
              ("combine_all_datasets", "--seed")}  # fmt: skip
NEVER = ("nan", "inf", "-inf", "-1", "-0.5", "1e300", str(10**15))
SOMETIMES = ("0", "0.001", "0.5", "1", "2", "1000", str(10**6), str(10**9))


class _Parser(Exception):
    pass


def _main(script: str) -> Callable[[list[str]], int]:
    return importlib.import_module(script).main


def _numeric(script: str, monkeypatch: pytest.MonkeyPatch) -> dict[str, argparse.Action]:
    """Return the flags of the script that take numbers, read from the parser that its main function makes."""

    def no_parsing(parser: argparse.ArgumentParser, *_: Any, **__: Any) -> None:
        raise _Parser(parser)

    with monkeypatch.context() as patch:
        patch.setattr(cli, "parse", no_parsing)
        with pytest.raises(_Parser) as caught:
            _main(script)([])
    parser = caught.value.args[0]
    return {a.option_strings[0]: a for a in parser._actions if a.option_strings and _takes_numbers(a)}


def _takes_numbers(action: argparse.Action) -> bool:
    """Return whether the flag converts its text to a number, or refuses "1" as out of its limits."""
    if not callable(action.type):
        return False
    try:
        return isinstance(action.type("1"), (int, float))
    except UserError:
        return True
    except (TypeError, ValueError):
        return False


@pytest.mark.parametrize("script", GIVEN)
def test_numbers_that_cannot_be_meant_are_refused_by_the_flags_name(
    script: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = _numeric(script, monkeypatch)
    assert flags
    for flag in flags:
        for text in NEVER:
            if (script, flag) in ANY_NUMBER and text.lstrip("-").isdigit():
                continue
            with pytest.raises((UserError, SystemExit)) as refused:
                _main(script)([*GIVEN[script], f"{flag}={text}"])
            said = str(refused.value) if refused.type is UserError else capsys.readouterr().err
            assert flag in said, (flag, text, said)
            assert refused.type is UserError or refused.value.args == (cli.EXIT_USER_MUST_ACT,), (flag, text)


@pytest.mark.parametrize("script", GIVEN)
def test_whatever_number_a_flag_is_given_no_script_ends_with_a_traceback(
    script: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    flags = _numeric(script, monkeypatch)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "nothing").mkdir()
    for flag in flags:
        for text in SOMETIMES:
            try:
                assert _main(script)([*GIVEN[script], f"{flag}={text}"]) in (0, 1, 2), (flag, text)
            except UserError:
                pass
            except SystemExit as e:
                assert e.code == cli.EXIT_USER_MUST_ACT, (flag, text)  # noqa: PT017 - either may be


@pytest.mark.parametrize(
    "flag", ["--landmarks", "--kernel-width", "--kernel-c", "--tuned-steps", "--keep-pretrained"]
)
def test_a_preset_offers_no_settings_of_heads_that_it_has_not(
    flag: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as e:
        _main("runpod_train_ultimate")([*GIVEN["runpod_train_ultimate"], f"{flag}=1"])
    assert e.value.code == cli.EXIT_USER_MUST_ACT
    assert flag in capsys.readouterr().err
    assert "--units" in _numeric("runpod_train_ultimate", monkeypatch)


def test_a_setting_of_heads_that_no_member_has_is_refused(tmp_path: Path) -> None:
    given = [f"--data-root={tmp_path}", f"--log-dir={tmp_path}", "--features-only"]
    with pytest.raises(UserError, match=r"--kernel-c: none of --members .*add one of kernel"):
        _main("train_ensemble_models")([*given, "--kernel-c=2"])
    with pytest.raises(UserError, match="--units: none of --members kernel"):
        _main("train_ensemble_models")([*given, "--members=kernel", "--units=32"])
    with pytest.raises(UserError, match="no manifest"):
        _main("train_ensemble_models")([*given, "--members=kernel,gru", "--units=32", "--kernel-c=2"])


def test_a_setting_of_training_that_no_member_takes_is_refused(tmp_path: Path) -> None:
    given = [f"--data-root={tmp_path}", f"--log-dir={tmp_path}", "--features-only"]
    with pytest.raises(UserError, match="--epochs: none of --members kernel takes it"):
        _main("train_ensemble_models")([*given, "--members=kernel", "--epochs=5"])
    whole = ["--backbone=i3d_pictures", "--streams=rgb", "--members=i3d_tuned"]
    with pytest.raises(UserError, match="--patience: none of --members i3d_tuned takes it"):
        _main("train_ensemble_models")([*given, *whole, "--accumulate=2", "--patience=5"])
    with pytest.raises(UserError, match="no manifest"):
        _main("train_ensemble_models")([*given, "--members=kernel,gru", "--epochs=5", "--patience=5"])


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (("--members=gru", "--keep=last", "--patience=50"), "--patience would do nothing: with --keep last"),
        (("--members=average", "--units=128"), "--units: none of --members average takes it"),
        (
            ("--members=kernel", "--mixed-precision=on"),
            "--mixed-precision: none of --members kernel takes it",
        ),
        (("--members=kernel", "--devices=2"), "--devices: none of --members kernel takes it"),
        (
            ("--members=gru", "--average=logits"),
            "--average logits would do nothing: --members has only",
        ),
        (("--members=average,gru", "--units=128", "--keep=last", "--average=logits"), "no manifest"),
        (("--members=kernel,gru", "--mixed-precision=on", "--devices=1", "--patience=50"), "no manifest"),
    ],
)
def test_what_the_members_do_not_do_is_refused(tmp_path: Path, flags: tuple[str, ...], says: str) -> None:
    given = [f"--data-root={tmp_path}", f"--log-dir={tmp_path}", "--features-only"]
    with pytest.raises(UserError, match=says):
        _main("train_ensemble_models")([*given, *flags])


@pytest.mark.parametrize("task", [(), ("--check",), ("--features-only",)])
def test_patience_is_refused_where_the_last_epoch_is_kept(tmp_path: Path, task: tuple[str, ...]) -> None:
    given = [f"--data-root={tmp_path}", f"--log-dir={tmp_path}", f"--output={tmp_path / 'model'}", *task]
    with pytest.raises(UserError, match="--patience would do nothing: with --keep last"):
        _main("runpod_train_ultimate")([*given, "--keep=last", "--patience=50"])
    if "--check" not in task:  # --check reports all that is missing instead
        with pytest.raises(UserError, match="no manifest"):
            _main("runpod_train_ultimate")([*given, "--keep=last"])


@pytest.mark.parametrize(
    ("flags", "flag"),
    [
        (("--backbone=i3d_steady,i3d_pictures", "--frames=8"), "--frames"),
        (("--backbone=i3d_steady", "--motion-gain=3"), "--motion-gain"),
        (("--streams=rgb", "--motion-spacing-s=0.2"), "--motion-spacing-s"),
        (("--streams=rgb", "--frames=8"), None),
        (("--backbone=i3d_steady,dinov2_spread", "--frames=8"), "--frames"),
        (("--backbone=i3d_steady,efficientnet_lite0", "--motion-gain=3", "--frames=8"), None),
    ],
)
@pytest.mark.parametrize("task", [(), ("--features-only",)])
def test_what_no_backbone_takes_of_the_pictures_is_refused(
    tmp_path: Path, task: tuple[str, ...], flags: tuple[str, ...], flag: str | None
) -> None:
    given = [f"--data-root={tmp_path}", f"--log-dir={tmp_path}", f"--output={tmp_path / 'model'}", *task]
    with pytest.raises(UserError, match=f"{flag} would do nothing" if flag else "no manifest"):
        _main("runpod_train_ultimate")([*given, *flags])


@pytest.mark.parametrize(
    ("limits", "taken", "refused", "says"),
    [
        (Limits(), (0, 1, 10**9), (-1, 10**9 + 1, math.nan, math.inf), "from 0 to 1,000,000,000"),
        (Limits(above=0, most=2.5), (1e-9, 2.5), (0, 2.6, math.nan), "above 0 and at most 2.5"),
        (Limits(least=1, below=4), (1, 3.9), (0.9, 4), "at least 1 and below 4"),
        (Limits(above=0, below=1), (0.5,), (0, 1), "above 0 and below 1"),
    ],
)
def test_limits(limits: Limits, taken: tuple[float, ...], refused: tuple[float, ...], says: str) -> None:
    for value in taken:
        limits.check("it", value)
    for value in refused:
        with pytest.raises(UserError, match=f"it must be {says}. Received: {value}"):
            limits.check("it", value)


@dataclass(frozen=True)
class LimitedConfig(BaseConfig):
    share: float | None = option(None, "a share", limits=Limits(most=1))
    count: int = option(3, "a number")
    is_on: bool = option(False, "no number")


def test_whoever_makes_a_config_is_held_to_its_limits_too() -> None:
    assert LimitedConfig(share=0.5, is_on=True).count == 3
    for wrong in ({"share": 1.5}, {"share": math.nan}, {"count": -1}):
        with pytest.raises(UserError, match=r"^(share \(--share\)|count \(--count\)) must be"):
            LimitedConfig(**wrong)


def test_what_a_flag_takes_a_record_of_the_model_may_hold() -> None:
    """A flag that accepts more than a record may contain would have a model trained for hours, and then refused."""
    tables: list[tuple[type[BaseConfig], Mapping[str, tuple[type, float, float]]]] = [
        (FeatureConfig, model_record._FEATURES),
        (HeadConfig, model_record._HEAD),
        (HeadConfig, model_record._KERNEL_HEAD),
        (HeadConfig, model_record._TUNED_HEAD),
        (TrainConfig, {"seed": (int, -(2**63), 2**63)}),
    ]
    for config, bounds in tables:
        limits = {f.name: f.metadata["limits"] for f in dataclasses.fields(config) if f.metadata}
        for name, (_, least, most) in bounds.items():
            assert max(limits[name].least, limits[name].above) >= least, name
            assert min(limits[name].most, limits[name].below) <= most, name
