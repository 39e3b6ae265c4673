"""Settings become flags and back: a printed command gives the settings that it was made from."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from violence_detection import cli
from violence_detection.errors import UserError
from violence_detection.system import settings
from violence_detection.system.settings import BaseConfig, as_flags, option


@dataclass(frozen=True)
class Config:
    folders: tuple[str, ...] = option((), "a folder; may be given several times", many="append")
    words: tuple[str, ...] = option((), "words", many="words")
    names: tuple[str, ...] = option(("a",), "names")
    root: Path = option(Path("here"), "a root")
    caches: bool = option(True, "look there too")
    rate: float = option(0.2, "a share")
    file: Path | None = option(None, "a file")
    internal: int = 7


def parsed(*argv: str) -> Config:
    parser = cli.parser("What it does.")
    cli.add_config(parser, Config)
    return cli.build(Config, parser.parse_args(argv))


def test_a_flag_is_given_once_a_value_and_keeps_its_commas() -> None:
    assert parsed("--folders", "a=x,y", "--root", "r", "--folders", "b=z").folders == ("a=x,y", "b=z")
    assert parsed().folders == ()


def test_a_flag_takes_several_words() -> None:
    assert parsed("--words", "fight=A,B", "nonfight=C", "--root", "r").words == ("fight=A,B", "nonfight=C")
    assert parsed("--words", "a", "--words", "b", "c").words == ("a", "b", "c")


@pytest.mark.parametrize(
    "config",
    [
        Config(),
        Config(
            folders=("a=x y", "b=z,z"), words=("fight=A,B", "nonfight=C"), names=("b", "c"), root=Path("r")
        ),
        Config(caches=False, rate=0.5, file=Path("f")),
    ],
)
def test_the_flags_of_a_config_give_the_same_config(config: Config) -> None:
    assert parsed(*as_flags(config)) == config


def test_what_is_as_by_default_needs_no_flag_unless_it_is_asked_for() -> None:
    assert as_flags(Config(rate=0.5)) == ["--rate", "0.5"]
    assert as_flags(Config(), always=["root"]) == ["--root", "here"]


@dataclass(frozen=True)
class Checked(BaseConfig):
    folder: Path = option(Path("here"), "a folder")
    file: Path | None = option(None, "a file")
    name: str = option("n", "a name")
    kind: str = option("auto", "which", choices=("auto", "manual"))
    list_only: str | None = option(None, "list", choices=("list", "yes"))


def test_whoever_makes_a_config_may_give_paths_as_text() -> None:
    config = Checked(folder="there", file="f", name="there")  # type: ignore[arg-type]
    assert config == Checked(Path("there"), Path("f"), "there")


def test_a_value_that_is_no_choice_is_named_with_the_choices() -> None:
    assert Checked(kind="manual", list_only="yes").kind == "manual"
    with pytest.raises(UserError, match="kind is 'manul'; it must be one of auto, manual"):
        Checked(kind="manul")


@dataclass(frozen=True)
class Places(BaseConfig):
    folder: Path = option(Path("here"), "a folder")
    file: Path | None = option(None, "a file")
    several: tuple[Path, ...] = option((), "folders")


@dataclass(frozen=True)
class Several(BaseConfig):
    words: tuple[str, ...] = option((), "words")
    folders: tuple[Path, ...] = option((), "folders")


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (
            {"words": "labels"},
            "words (--words) takes several values: pass a tuple, ('labels',). Received: 'labels'",
        ),
        (
            {"folders": "a/b"},
            "folders (--folders) takes several values: pass a tuple, ('a/b',). Received: 'a/b'",
        ),
        ({"words": None}, "words (--words) takes several values: pass a tuple. Received: None"),
        ({"folders": None}, "folders (--folders) takes several values: pass a tuple. Received: None"),
        ({"words": ("a", 3)}, "words (--words) must be text. Received: 3"),
        ({"folders": (None,)}, "folders (--folders) must be a path. Received: None"),
    ],
)
def test_one_value_where_several_are_meant_is_not_taken_letter_by_letter(
    given: dict[str, Any], said: str
) -> None:
    with pytest.raises(UserError) as e:
        Several(**given)
    assert str(e.value) == said


def test_several_values_may_be_given_as_a_list() -> None:
    given: dict[str, Any] = {"words": ["a", "b"], "folders": ["c"]}
    assert Several(**given) == Several(("a", "b"), (Path("c"),))


def test_a_wave_is_the_home_folder_where_no_shell_has_said_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    monkeypatch.setenv("VIOLENCE_DATA", "~/data")
    wanted = Places(Path("/home/me/a"), Path("/home/me"), (Path("/home/me/b"), Path("c")))
    assert Places(Path("~/a"), Path("~"), (Path("~/b"), Path("c"))) == wanted
    assert Places("~/a", "~", ("~/b", "c")) == wanted  # type: ignore[arg-type]
    assert settings.default_data_root() == Path("/home/me/data")
    parser = cli.parser("What it does.")
    cli.add_config(parser, Config)
    parser.add_argument("--output", type=Path, default=Path("out"))
    parser.add_argument("videos", type=Path, nargs="*")
    args = cli.parse(
        parser, ["--root=~/a", "--file=~/b", "--output=~/c", "~/d", "e~", "--words=~/not a path"]
    )
    assert (args.root, args.file, args.output) == (
        Path("/home/me/a"), Path("/home/me/b"), Path("/home/me/c"),
    )  # fmt: skip
    assert args.videos == [Path("/home/me/d"), Path("e~")]
    assert args.words == ("~/not a path",)


def test_the_home_folder_of_nobody_is_a_name_as_any_other() -> None:
    assert settings.expanded("~no-such-user/x") == Path("~no-such-user/x")
