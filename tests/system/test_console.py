"""Text for people: whatever a file is called, a terminal shows its name and does not obey it."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest

from violence_detection import cli
from violence_detection.errors import UserError
from violence_detection.system import console

#: A file name that clears the terminal, returns to the start of the line, begins another, rings, changes the colour and
#: reverses the letters.
NAME = "fi\x1b[2J\rght\n07:00:00 INFO    all is well\x07\x9b31m\u202egnp.mp4"
SHOWN = r"fi\x1b[2J\rght" "\n" r"    07:00:00 INFO    all is well\x07\x9b31m\u202egnp.mp4"


def _shows_it_alone(text: str) -> bool:
    return all(c.isprintable() or c == "\n" for c in text) and "\n07:00:00" not in text


@pytest.mark.parametrize("say", ["a message", "an error", "a traceback"])
def test_a_name_in_the_log_neither_moves_the_cursor_nor_looks_like_a_line_of_its_own(
    say: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    console.log_to([tmp_path / "x.log"], logging.INFO)

    def main() -> int:
        if say == "a message":
            console.log.warning("left out: %s (%s)", NAME, "no video")
            return 0
        raise (UserError if say == "an error" else RuntimeError)(f"{NAME}: no video")

    with pytest.raises(SystemExit):
        cli.run_main(main)
    for text in (capsys.readouterr().err, (tmp_path / "x.log").read_text(encoding="utf-8")):
        assert SHOWN in text
        assert _shows_it_alone(text)


@pytest.mark.parametrize("error", [UserError(NAME), RuntimeError(NAME), KeyboardInterrupt(NAME)])
def test_what_is_said_before_there_is_a_log_is_shown_alike(
    error: BaseException, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(console.log, "handlers", [])

    def main() -> int:
        raise error

    with pytest.raises(SystemExit):
        cli.run_main(main)
    said = capsys.readouterr().err
    assert SHOWN in said
    assert _shows_it_alone(said)


def test_a_refused_argument_is_shown_alike(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.parser("x").parse_args([NAME])
    said = capsys.readouterr().err
    assert SHOWN in said
    assert _shows_it_alone(said)


def test_a_name_beside_a_bar_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    list(console.progress(range(2), desc=NAME, mininterval=0.0))
    said = capsys.readouterr().err
    assert SHOWN.replace("\n    ", r"\n") in said
    assert _shows_it_alone(said)


def test_the_summary_is_one_line_without_controls_and_holds_the_name(
    capsys: pytest.CaptureFixture[str],
) -> None:
    cli.print_summary({"path": NAME, "name": "Größe 大きさ 👊"})
    said = capsys.readouterr().out
    assert said.removesuffix("\n").isprintable()
    assert "Größe 大きさ 👊" in said
    assert json.loads(said)["path"] == NAME
