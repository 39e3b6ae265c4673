"""TensorFlow started without the lines about itself that it prints each time, and without taking whole GPUs.

Importing the package calls `prepare`, and so does every worker process: whoever imports TensorFlow or Keras afterwards
gets it so, at whatever place. Set TF_CPP_MIN_LOG_LEVEL=0 to see all that it says.
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
#: There is one stderr for all threads. A start may begin another.
_one_at_a_time = threading.RLock()
#: What TensorFlow remarks on the first pipeline that it puts in order, and on the first float16.
_REMARKS = r"E\d{4} .*(NodeDef mentions attribute use_unbounded|oneDNN supports DT_HALF only)"
#: Keras makes a function of the same code for every model. TensorFlow takes them for one that is traced again.
_RETRACING = re.compile(
    r"calls to <function TensorFlowTrainer\.make_\w+_function.* triggered tf\.function retracing"
)


def prepare() -> None:
    """Have TensorFlow, when it is imported, start quietly, and use of a GPU's memory no more than it needs."""
    os.environ.setdefault(_LEVEL, "2")
    os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")
    if "tensorflow" not in sys.modules and not any(isinstance(f, _QuietStart) for f in sys.meta_path):
        sys.meta_path.insert(0, _QuietStart())


def may_have_gpus(devices: Path = Path("/dev")) -> bool:
    """Whether there can be GPUs for TensorFlow, whose import takes seconds: on Linux they have a file in /dev."""
    if sys.platform != "linux":
        return True
    return any((devices / name).exists() for name in ("nvidia0", "nvidiactl", "dxg", "kfd"))


def gpus() -> list[str]:
    """The GPUs that TensorFlow sees, as it names them: GPU:0 and so on.

    Called before anything else is done with TensorFlow: what it has to say about the devices comes at the first look.
    """
    import tensorflow as tf

    with _without_start_lines():
        return [f"GPU:{i}" for i, _ in enumerate(tf.config.list_physical_devices("GPU"))]


def memory_is_full(error: Exception) -> bool:
    """Whether TensorFlow's error says that a device ran out of memory; cuDNN says so in words only.

    TensorFlow raises the same for a full disk.
    """
    import tensorflow as tf

    from violence_detection.system import disks  # this module is imported with the package, before the others

    if disks.disk_trouble(error):
        return False
    return isinstance(error, tf.errors.ResourceExhaustedError) or "out of memory" in str(error).lower()


def make_deterministic() -> None:
    """Have every operation give the same bits each time; called once the devices are what they are to be."""
    import tensorflow as tf

    tf.config.experimental.enable_op_determinism()
    have_halves()
    with _without_start_lines(_REMARKS):  # the first pipeline: let that be this one
        numbers = tf.data.Dataset.range(1)
        list(numbers.map(lambda i: tf.py_function(abs, [i], tf.int64), num_parallel_calls=tf.data.AUTOTUNE))


@functools.cache
def have_halves() -> None:
    """Have TensorFlow meet float16, of which it has a word to say, before the first work with it.

    Called once the devices are what they are to be.
    """
    import tensorflow as tf

    with _without_start_lines(_REMARKS):
        tf.zeros(1, tf.float16)


class _QuietStart(importlib.abc.MetaPathFinder):
    """Finds TensorFlow where the other finders do, and runs its import with its lines held back."""

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

    # what it imports for tests asks for a folder at once, and ends where nothing can be written
    os.environ.setdefault("TEST_TMPDIR", str(disks.temporary_folder()))
    with _without_start_lines():
        exec_module(module)
    logging.getLogger("tensorflow").addFilter(lambda record: not _RETRACING.search(record.getMessage()))


@contextlib.contextmanager
def _without_start_lines(*more: str) -> Iterator[None]:
    """What is written to stderr meanwhile is held back; all but TensorFlow's lines about its start comes afterwards.

    Its libraries write before they look at any setting, so the lines are caught where they come out. Where they end the
    process, what they said is lost: TF_CPP_MIN_LOG_LEVEL=0 shows it. `more`: patterns
    of further lines that tell nobody anything.
    """
    known = _start_lines(*more)
    with _one_at_a_time, contextlib.ExitStack() as stack:
        try:
            held = stack.enter_context(tempfile.TemporaryFile()) if known else None
            stderr = os.dup(2) if held else None
        except OSError:  # there is no stderr, or no room to hold its lines
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
    """The lines that tell nobody anything: below the level that is asked for, and that there is no GPU."""
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
    if shutil.which("nvidia-smi") is None:  # where there is a driver, this says why its GPUs are not used
        lines.append(r".*failed call to cuInit")
    return re.compile("|".join(lines).encode())
