"""What all scripts share: flags made from a stage's config, logging, the summary line, exit codes.

Nothing heavy is imported here: `--help` must answer in under a second.
"""

from __future__ import annotations

import argparse
import dataclasses
import difflib
import logging
import os
import shlex
import sys
import time
import traceback
import typing
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

if sys.version_info < (3, 11):  # noqa: UP036 - before any import that an older one cannot parse
    sys.exit(f"error: Python 3.11 or newer is needed; this is {sys.version.split()[0]} ({sys.executable})")

from violence_detection.errors import UserError
from violence_detection.system import disks, redaction, settings, storage
from violence_detection.system.console import in_lines, log, log_to, tell

EXIT_DONE = 0
EXIT_SOME_FAILED = 1
EXIT_USER_MUST_ACT = 2
EXIT_CRASHED = 70  # EX_SOFTWARE of sysexits.h; not 1, after which a calling script may go on

C = TypeVar("C")


def add_config(
    parser: argparse.ArgumentParser,
    config: type,
    *,
    skip: Sequence[str] = (),
    defaults: Mapping[str, Any] | None = None,
) -> None:
    """Add one flag for each `option` field of a frozen config dataclass.

    `skip`: fields that get no flag. `defaults`: by field, defaults that replace those of the dataclass. In the help,
    flags are below the HEADING of the class that declares their field, those that `config` itself declares first.
    """
    hints = typing.get_type_hints(config)
    bases = list(config.__mro__)
    owner = {
        f.name: next(c for c in bases if f.name in c.__annotations__) for f in dataclasses.fields(config)
    }
    for field in sorted(dataclasses.fields(config), key=lambda f: bases.index(owner[f.name])):
        if "help" not in field.metadata or field.name in skip:
            continue
        if any(action.dest == field.name for action in parser._actions):
            continue  # two stages of one script share the flag
        default = (defaults or {}).get(field.name, settings.default_of(field))
        kwargs: dict[str, Any] = {"dest": field.name, "default": default}
        kind = settings.plain_type(hints[field.name])
        if kind is bool:
            kwargs["action"] = argparse.BooleanOptionalAction
        elif typing.get_origin(kind) is tuple:
            kwargs |= _several(typing.get_args(kind)[0], field.metadata["many"])
        else:
            number = kind in (int, float)
            taken = number_within(settings.flag_of(field), kind, field.metadata["limits"]) if number else kind
            kwargs.update(type=taken, choices=field.metadata["choices"])
            if not field.metadata["choices"]:
                kwargs["metavar"] = kind.__name__.upper()
            if field.metadata["bare"]:
                kwargs.update(nargs="?", const=field.metadata["bare"])
        if field.metadata["shown_as"]:
            kwargs["metavar"] = field.metadata["shown_as"]
        _group(parser, vars(owner[field.name]).get("HEADING", "")).add_argument(
            settings.flag_of(field), help=_help_text(field.metadata["help"], default), **kwargs
        )


def _group(parser: argparse.ArgumentParser, heading: str) -> argparse._ArgumentGroup:
    """The parser's group with this heading, which is added if missing; the general group for an empty heading."""
    titled = (group for group in parser._action_groups if group.title == heading)
    return next(titled, None) or (parser.add_argument_group(heading) if heading else parser._optionals)


def number_within(
    flag: str, kind: type[int] | type[float], limits: settings.Limits
) -> Callable[[str], float]:
    """The `type` of a flag that takes numbers; it raises UserError, naming the flag, for a number outside `limits`."""

    def number(text: str) -> float:
        value = kind(text)
        limits.check(flag, value)
        return value

    number.__name__ = kind.__name__  # argparse shows it where a text is not a number
    return number


def _several(item: Callable[[str], Any], many: str | None) -> dict[str, Any]:
    """Arguments of add_argument for a flag that takes several values; `many`: see settings.option."""
    name = item.__name__.upper()
    if many is None:
        return {"action": _Collect, "type": _comma_separated(item), "metavar": f"{name}[,...]"}
    return {"action": _Collect, "type": item, "metavar": name, "nargs": "+" if many == "words" else None}


class _Collect(argparse.Action):
    """Collects all values of a flag that may be given several times, as one tuple."""

    def __call__(
        self, parser: argparse.ArgumentParser, args: argparse.Namespace, values: Any, flag: str | None = None
    ) -> None:
        before = getattr(args, self.dest)
        new = values if isinstance(values, list | tuple) else [values]
        setattr(args, self.dest, (*(() if before is self.default else before), *new))


def build(config: type[C], args: argparse.Namespace) -> C:
    """Build the config dataclass from parsed arguments; those that are not among its fields are ignored."""
    names = {f.name for f in dataclasses.fields(config) if f.init}  # type: ignore[arg-type]
    return config(**{k: v for k, v in vars(args).items() if k in names})


def add_choice(
    parser: argparse.ArgumentParser,
    argv: Sequence[str] | None,
    flag: str,
    choices: Mapping[str, str],
    default: str,
) -> str:
    """Add a flag that defaults of other flags depend on; return its value, read before the others are parsed.

    `choices`: name -> help.
    """
    described = "; ".join(f"{name}: {text}" for name, text in choices.items())
    parser.add_argument(flag, choices=list(choices), default=default, help=_help_text(described, default))
    ahead = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    ahead.add_argument(flag, dest="value", default=default)
    value = ahead.parse_known_args(argv)[0].value
    return value if value in choices else default  # the parser itself refuses any other


def _comma_separated(item: Callable[[str], Any]) -> Callable[[str], tuple[Any, ...]]:
    def comma_separated(text: str) -> tuple[Any, ...]:
        return tuple(item(part.strip()) for part in text.split(",") if part.strip())

    return comma_separated


def _help_text(text: str, default: Any) -> str:
    if default in (None, (), "", argparse.SUPPRESS):
        return text.replace("%", "%%")
    shown = ",".join(str(d) for d in default) if isinstance(default, tuple) else default
    return f"{text} (default: {shown})".replace("%", "%%")


class _Parser(argparse.ArgumentParser):
    """A parser whose errors show neither the secrets in addresses among the arguments nor terminal control characters.

    It refuses empty values, such as that of an unset shell variable: they would mean "all" or the current folder, which
    nobody meant.
    """

    def _get_value(self, action: argparse.Action, arg_string: str) -> Any:
        if not arg_string.strip(" ,") and arg_string != action.default:
            raise argparse.ArgumentError(action, "its value is empty. Give one, or leave it out")
        return super()._get_value(action, arg_string)

    def error(self, message: str) -> typing.NoReturn:
        super().error(in_lines(redaction.places_in(message)) + self._meant(message))

    def _meant(self, message: str) -> str:
        """The flags that were probably meant, if argparse's message is about unknown ones; else empty."""
        known = [flag for flag in self._option_string_actions if flag.startswith("--")]
        what, _, words = message.partition(": ")
        unknown = [w.partition("=")[0] for w in words.split() if w.startswith("--")]
        near = [m for flag in unknown for m in difflib.get_close_matches(flag, known, 1)]
        return (
            f" (did you mean {' '.join(dict.fromkeys(near))}?)"
            if what == "unrecognized arguments" and near
            else ""
        )


def parser(description: str | None, usage: str | None = None) -> argparse.ArgumentParser:
    """A parser with the flags that every script has.

    `description`: the script's docstring, shown as its help. `usage`: what follows the script's name in the usage line;
    by default every flag.
    """
    p = _Parser(
        usage=usage and f"%(prog)s {usage}",
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    p.add_argument("-v", "--verbose", action="store_true", help="log details too")
    return p


def flags_given(p: argparse.ArgumentParser, argv: Sequence[str] | None) -> frozenset[str]:
    """The names of the flags that are in the command line, even with their default values.

    It removes the parser's defaults, so the parser is of no further use.
    """
    names = [action.dest for action in p._actions if action.option_strings]
    p.set_defaults(**dict.fromkeys(names))
    values = vars(p.parse_args(argv))
    return frozenset(name for name in names if values[name] is not None)


def parse(
    p: argparse.ArgumentParser, argv: Sequence[str] | None = None, *, log_name: str | None = None
) -> argparse.Namespace:
    """Parse arguments and set up logging to stderr and, if there is a `log_name`, to `<log_name>_<time>.log`.

    The log file is beside the running script, or in `--log-dir`, a flag that this adds. Raises UserError if it cannot
    be written there.
    """
    if log_name:
        p.add_argument("--log-dir", type=Path, default=Path(sys.argv[0]).resolve().parent, metavar="PATH",
                       help="folder for the log file (default: beside the script)")  # fmt: skip
    args = p.parse_args(argv)
    for name, value in vars(args).items():
        setattr(args, name, _expanded(value))
    files = []
    if log_name:
        disks.check_writable(args.log_dir, "--log-dir")
        files = [args.log_dir / f"{log_name}_{time.strftime('%Y%m%d-%H%M%S')}.log"]
    log_to(files, logging.DEBUG if args.verbose else logging.INFO)
    for path in files:
        log.info("log: %s", path)
    return args


def _expanded(value: Any) -> Any:
    """Replace `~` by the home folder in a path, or in each path of a list or tuple; other values stay as they are."""
    if isinstance(value, (list, tuple)):
        return type(value)(map(_expanded, value))
    return settings.expanded(value) if isinstance(value, Path) else value


def command(argv: Sequence[str] | None) -> str:
    """The command line of the running script, for the records it writes. `argv`: what main was given."""
    return shlex.join(["python", Path(sys.argv[0]).name, *(sys.argv[1:] if argv is None else argv)])


def run_main(main: Callable[[], int]) -> typing.NoReturn:
    """Run a script's main and exit with the code it returns.

    A UserError, a missing Python package, or a disk that cannot be written to becomes one readable message and exit
    code 2; an interrupt, exit code 130. Any other error is an internal error: exit code 70, with the traceback on
    stderr and, where there is one, in the log file.
    """
    _keep_standard_numbers()
    try:
        code = main()
    except UserError as e:
        code = _user_must_act(str(e))
    except ModuleNotFoundError as e:
        if (e.name or "").partition(".")[0] == "violence_detection":
            raise
        tell(
            f"error: the Python package {e.name} is missing. Run: {sys.executable} -m pip install -r requirements.txt "
            "(or use the environment that was made for this project: .venv/bin/python)"
        )
        code = EXIT_USER_MUST_ACT
    except KeyboardInterrupt as e:
        tell(f"interrupted; {in_lines(str(e)) or 'the same command continues from here'}")
        code = 130
    except Exception as e:  # noqa: BLE001 - an internal error, whatever it is
        if trouble := disks.disk_trouble(e):
            code = _user_must_act(trouble)
        else:
            if log.handlers:
                log.exception("internal error, please report it; everything that was finished before is kept")
            else:
                tell(in_lines(redaction.without_secrets(traceback.format_exc())))
            code = EXIT_CRASHED
    if sys.stdout is not None:
        sys.stdout.flush()
    try:
        if sys.stderr is not None:
            sys.stderr.flush()
    except OSError:
        sys.stderr = None  # else Python would flush it again at exit, fail again, and change the exit code
    sys.exit(code)


def _keep_standard_numbers() -> None:
    """Open /dev/null in place of stdin, stdout and stderr where they are closed.

    Otherwise a file that is opened later would get one of their numbers, and what libraries and commands write to
    stderr would end up in it.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)


def _user_must_act(message: str) -> int:
    if log.handlers:
        log.error("%s", message)
    else:
        tell(f"error: {in_lines(redaction.without_secrets(message))}")
    return EXIT_USER_MUST_ACT


_NO_STDOUT = (
    "the summary cannot be written to stdout ({}). Redirect stdout elsewhere; files written so far are kept"
)


def print_summary(summary: Mapping[str, Any]) -> None:
    """Print the one line on stdout: what was done, as JSON. Raises UserError if stdout cannot be written to."""
    summary = redaction.without_secrets_in(summary)
    line = storage.as_json(summary)
    if sys.stdout is None:
        raise UserError(_NO_STDOUT.format("it is closed"))
    try:
        line.encode(sys.stdout.encoding or "utf-8")
    except UnicodeEncodeError:  # under LC_ALL=C, for example
        line = storage.as_json(summary, ensure_ascii=True)
    try:
        print(line, flush=True)
    except OSError as e:
        sys.stdout = None  # else Python would flush it again at exit, and fail again
        raise UserError(_NO_STDOUT.format(e.strerror)) from e


def exit_code(failures: Sequence[Any]) -> int:
    """EXIT_DONE if nothing failed, EXIT_SOME_FAILED if something did."""
    return EXIT_SOME_FAILED if failures else EXIT_DONE
