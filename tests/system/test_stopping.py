"""The first request to stop is noted, and a second one ends the program.

Each test runs a process of its own, since libraries that other tests load install handlers of SIGTERM.
"""

from __future__ import annotations

import subprocess
import sys

_PROGRAM = """
import os, signal, sys, time
from violence_detection.system import stopping
between_s = float(sys.argv[2])
if between_s:
    stopping._ONE_REQUEST_S = between_s / 5
number = signal.Signals[sys.argv[1]]
if number == signal.SIGHUP:
    signal.signal(number, signal.SIG_DFL)  # who runs the tests may ignore it, as nohup does
try:
    with stopping.asked_to_stop() as asked:
        os.kill(os.getpid(), number)
        assert asked.wait(5)
        time.sleep(between_s)
        os.kill(os.getpid(), number)
        time.sleep(0.05)
        print("one request")
except KeyboardInterrupt as e:
    print(e)
"""


_IGNORING = """
import os, signal
from violence_detection.system import stopping
signal.signal(signal.SIGHUP, signal.SIG_IGN)
with stopping.asked_to_stop() as asked:
    os.kill(os.getpid(), signal.SIGHUP)
    print(asked.wait(0.1))
"""


def _ends_with(signal_name: str, between_s: float) -> str:
    command = [sys.executable, "-c", _PROGRAM, signal_name, str(between_s)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout.strip()


def test_a_request_that_comes_twice_at_once_is_one() -> None:
    """`timeout` sends its signal to the process and to its group, which contains the process."""
    assert _ends_with("SIGTERM", 0) == "one request"


def test_a_second_request_ends_it() -> None:
    assert _ends_with("SIGINT", 0.05) == "ended at once"


def test_a_terminal_that_goes_asks_and_does_not_insist() -> None:
    """The terminal's shell and the system each send SIGHUP, some time apart."""
    assert _ends_with("SIGHUP", 0.05) == "one request"


def test_under_nohup_it_goes_on_without_a_terminal() -> None:
    done = subprocess.run([sys.executable, "-c", _IGNORING], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
