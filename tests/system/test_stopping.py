"""Who asks to stop is heard once; who insists ends it."""

from __future__ import annotations

import os
import signal
import time

import pytest

from violence_detection.system import stopping


def test_a_request_that_comes_twice_at_once_is_one() -> None:
    """`timeout` sends its signal to the process and to its group, of which the process is one."""
    try:
        with stopping.asked_to_stop() as asked:
            os.kill(os.getpid(), signal.SIGTERM)
            assert asked.wait(5)
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(0.05)
    except KeyboardInterrupt:
        pytest.fail("the second signal of one request was taken for a second request")


def test_a_second_request_ends_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stopping, "_ONE_REQUEST_S", 0.01)
    with pytest.raises(KeyboardInterrupt, match="at once"), stopping.asked_to_stop() as asked:  # noqa: PT012
        os.kill(os.getpid(), signal.SIGINT)
        assert asked.wait(5)
        time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(5)
