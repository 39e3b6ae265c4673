"""Starts TensorFlow without the messages that it prints each time, and without taking all of a GPU's memory.

Importing the package, in any process, calls `prepare`; this affects every later import of TensorFlow or Keras. Set
TF_CPP_MIN_LOG_LEVEL=0 to see all of TensorFlow's messages.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.abc
import importlib.machinery
import importlib.util
import logging
import os
import re
import shutil
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import ModuleType

_LEVEL = "TF_CPP_MIN_LOG_LEVEL"
#: Held while stderr, which all threads share, is redirected. Reentrant, because contexts may be nested.
_one_at_a_time = threading.RLock()
#: What TensorFlow logs, as errors, about the first pipeline that it optimises and the first float16; both are harmless.
_REMARKS = r"E\d{4} .*(NodeDef mentions attribute use_unbounded|oneDNN supports DT_HALF only)"
#: A warning without cause: Keras makes a new function from the same code for every model, which TensorFlow takes for
#: one function that is traced again.
_RETRACING = re.compile(
    r"calls to <function TensorFlowTrainer\.make_\w+_function.* triggered tf\.function retracing"
)


def prepare() -> None:
    """Make TensorFlow start quietly when it is imported, and allocate GPU memory only as needed.

    Environment variables that the user has set are kept.
    """
    os.environ.setdefault(_LEVEL, "2")
    os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")
    if "tensorflow" not in sys.modules and not any(isinstance(f, _QuietStart) for f in sys.meta_path):
        sys.meta_path.insert(0, _QuietStart())


def may_have_gpus(devices: Path = Path("/dev")) -> bool:
    """Whether TensorFlow may find GPUs, told without its slow import: on Linux, GPUs have a file in `devices`."""
    if sys.platform != "linux":
        return True
    return any((devices / name).exists() for name in ("nvidia0", "nvidiactl", "dxg", "kfd"))


def gpus() -> list[str]:
    """The GPUs that TensorFlow sees, by its names: GPU:0 and so on.

    To be called before any other use of TensorFlow: its messages about devices come with the first access to them.
    """
    import tensorflow as tf

    with _without_start_lines():
        return [f"GPU:{i}" for i, _ in enumerate(tf.config.list_physical_devices("GPU"))]


def memory_is_full(error: Exception) -> bool:
    """Whether TensorFlow's error means that a device ran out of memory, by its class or, as from cuDNN, by its text.

    A full disk, for which TensorFlow raises the same class, does not count.
    """
    import tensorflow as tf

    from violence_detection.system import disks  # this module is imported with the package, before the others

    if disks.disk_trouble(error):
        return False
    return isinstance(error, tf.errors.ResourceExhaustedError) or "out of memory" in str(error).lower()


def make_deterministic() -> None:
    """Make every operation give identical bits each time. To be called after the devices are configured."""
    import tensorflow as tf

    tf.config.experimental.enable_op_determinism()
    have_halves()
    with _without_start_lines(_REMARKS):  # the first pipeline, for which TensorFlow logs its remarks
        numbers = tf.data.Dataset.range(1)
        list(numbers.map(lambda i: tf.py_function(abs, [i], tf.int64), num_parallel_calls=tf.data.AUTOTUNE))


@functools.cache
def have_halves() -> None:
    """Use float16 once, with TensorFlow's remark about it suppressed, before real work does.

    To be called after the devices are configured.
    """
    import tensorflow as tf

    with _without_start_lines(_REMARKS):
        tf.zeros(1, tf.float16)


class _QuietStart(importlib.abc.MetaPathFinder):
    """Leaves finding TensorFlow to the other finders, and runs its import with its start messages suppressed."""

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if name != "tensorflow":
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        if spec is not None and spec.loader is not None:
            spec.loader.exec_module = functools.partial(  # type: ignore[method-assign]
                _start, spec.loader.exec_module
            )
        return spec


def _start(exec_module: Callable[[ModuleType], None], module: ModuleType) -> None:
    from violence_detection.system import disks  # this module is imported with the package, before the others

    # TensorFlow's test module determines a folder at import, and fails if no temporary folder can be written
    os.environ.setdefault("TEST_TMPDIR", str(disks.temporary_folder()))
    with _without_start_lines():
        exec_module(module)
    logging.getLogger("tensorflow").addFilter(lambda record: not _RETRACING.search(record.getMessage()))


@contextlib.contextmanager
def _without_start_lines(*more: str) -> Iterator[None]:
    """Hold back stderr within the context; afterwards, print it without TensorFlow's start messages.

    TensorFlow's libraries write before they read any setting, so the file descriptor itself is redirected. If they end
    the process, the lines held back are lost; TF_CPP_MIN_LOG_LEVEL=0 shows them. `more`: patterns of further lines to
    drop.
    """
    known = _start_lines(*more)
    with _one_at_a_time, contextlib.ExitStack() as stack:
        try:
            held = stack.enter_context(tempfile.TemporaryFile()) if known else None
            stderr = os.dup(2) if held else None
        except OSError:  # no stderr, or no disk space to hold its lines
            held = stderr = None
        if known is None or held is None or stderr is None:
            yield
            return
        if sys.stderr is not None:
            sys.stderr.flush()
        os.dup2(held.fileno(), 2)
        try:
            yield
        finally:
            if sys.stderr is not None:
                sys.stderr.flush()
            os.dup2(stderr, 2)
            os.close(stderr)
            held.seek(0)
            for line in held:
                if not known.match(line):
                    os.write(2, line)


def _start_lines(*more: str) -> re.Pattern[bytes] | None:
    """A pattern of the lines to drop: those below the log level in the environment, and those about a missing GPU.

    None if the level is 0, so that all lines are shown.
    """
    level = os.environ.get(_LEVEL, "0")
    hidden = "IWEF"[: int(level) if level.isdigit() else 0]
    if not hidden:
        return None
    lines = [
        *more,
        r"WARNING: All log messages before absl::InitializeLog\(\)",
        rf"[{hidden}]\d{{4}} [\d:.]+ +\d+ [\w./-]+:\d+\]",
        rf"\d{{4}}-\d\d-\d\d [\d:.]+: [{hidden}] ",
        r"To enable the following instructions:",
        r".*Unable to register cu\w+ factory",
    ]
    if shutil.which("nvidia-smi") is None:  # with a driver, this line says why its GPUs are not used
        lines.append(r".*failed call to cuInit")
    return re.compile("|".join(lines).encode())
