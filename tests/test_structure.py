"""The structure of the package: rooms import only downwards, names are unique, and importing is light."""

from __future__ import annotations

import ast
import json
import re
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "violence_detection"
#: The most modules of the package that prediction may import, not counting the rooms' `__init__.py`.
MOST_MODULES_OF_PREDICTION = 20


def _python(program: str, cwd: Path = ROOT) -> str:
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=cwd, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def test_no_two_classes_share_a_name() -> None:
    names = Counter(
        node.name
        for path in PACKAGE.rglob("*.py")
        for node in ast.parse(path.read_text(encoding="utf-8")).body
        if isinstance(node, ast.ClassDef)
    )
    assert [name for name, count in names.items() if count > 1] == []


def test_a_room_says_what_it_is_for_and_imports_nothing() -> None:
    for init in sorted(PACKAGE.glob("*/**/__init__.py")):
        tree = ast.parse(init.read_text(encoding="utf-8"))
        assert ast.get_docstring(tree), init
        assert len(tree.body) == 1, f"{init} does more than say what the room is for"


def test_no_file_holds_the_marks_of_a_merge() -> None:
    suffixes = {".py", ".md", ".toml", ".txt", ".j2", ""}
    paths = [p for top in ROOT.iterdir() if top.name in {"violence_detection", "tests", "docs", "benchmarks", ".ci"}
             for p in top.rglob("*")]  # fmt: skip
    marks = re.compile(r"^(<{7}|>{7})( |$)", re.MULTILINE)
    texts = [p for p in [*paths, *ROOT.iterdir()] if p.is_file() and p.suffix in suffixes]
    assert len(texts) > 300
    assert [str(p) for p in texts if marks.search(p.read_text(encoding="utf-8", errors="replace"))] == []


def _contracts(folder: Path) -> subprocess.CompletedProcess[str]:
    command = [str(Path(sys.executable).with_name("lint-imports")), "--no-cache"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("file", "line"),
    [
        ("video/decode.py", "from violence_detection.combine import manifest"),
        ("prediction/events.py", "from violence_detection.training import trainer"),
        ("find/inventory.py", "from violence_detection.download import transfer"),
        ("system/storage.py", "from violence_detection import cli"),
        ("models/shipping.py", "from violence_detection.training import trainer"),
        ("models/shipping.py", "from violence_detection.combine import split"),
    ],
)
def test_a_planted_upward_import_breaks_the_contracts(tmp_path: Path, file: str, line: str) -> None:
    pytest.importorskip("importlinter")
    shutil.copytree(PACKAGE, tmp_path / "violence_detection", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    with (tmp_path / "violence_detection" / file).open("a", encoding="utf-8") as f:
        f.write(f"\n{line}\n")
    done = _contracts(tmp_path)
    assert done.returncode != 0
    assert "BROKEN" in done.stdout


def test_the_contracts_hold() -> None:
    pytest.importorskip("importlinter")
    done = _contracts(ROOT)
    assert done.returncode == 0, done.stdout[-3000:]


def test_importing_the_package_is_light_and_quick() -> None:
    program = """
import sys, time
started = time.perf_counter()
import violence_detection
seconds = time.perf_counter() - started
heavy = {"numpy", "pandas", "cv2", "tensorflow", "keras", "sklearn"} & {m.split(".")[0] for m in sys.modules}
print(seconds, sorted(heavy))
"""
    best = min(float(_python(program).split()[0]) for _ in range(3))
    assert best < 0.3
    assert _python(program).split(maxsplit=1)[1].strip() == "[]"


def test_no_package_reports_its_use(tmp_path: Path) -> None:
    """Packages that report their use store an id of the machine in the home folder, to tell machines apart."""
    pytest.importorskip("openvino")
    program = f"""
import os
os.environ["HOME"] = {str(tmp_path)!r}
for name in ("CI", "XDG_CACHE_HOME", "ORT_DISABLE_TELEMETRY"):
    os.environ.pop(name, None)
import violence_detection
from violence_detection.backbones import openvino_conversion
import keras
try:
    import onnxruntime
except ImportError:
    pass
x = keras.Input((3,))
openvino_conversion.converted(keras.Model(x, keras.layers.Dense(2)(x)))
"""
    _python(program)
    kept = [path for path in tmp_path.rglob("*") if path.name in ("intel", ".onnxruntime")]
    assert not kept


def test_the_public_names_are_there_and_others_are_not() -> None:
    program = """
import violence_detection as vd
for name in vd.__all__:
    getattr(vd, name)
print(vd.list_backbones())
try:
    vd.nothing_like_it
except AttributeError as e:
    print(e)
"""
    said = _python(program)
    for file in (PACKAGE / "backbones" / "networks").glob("[!_]*.py"):
        for name in re.findall(r'@register\(\s*"(\w+)"', file.read_text(encoding="utf-8")):
            assert repr(name) in said
    assert "'efficientnet_b4'" in said
    assert "nothing_like_it" in said


def test_names_of_backbones_are_known_without_a_framework() -> None:
    program = """
import sys
import violence_detection
violence_detection.list_backbones(), violence_detection.list_models()
print(sorted({"tensorflow", "keras", "cv2"} & set(sys.modules)))
"""
    assert _python(program).strip() == "[]"


def test_prediction_imports_few_modules() -> None:
    program = """
import json, sys
import violence_detection.prediction.detector
print(json.dumps(sorted(n for n, m in sys.modules.items() if n.startswith("violence_detection.")
                        and not hasattr(m, "__path__"))))
"""
    modules = json.loads(_python(program))
    assert "violence_detection.video.decode" in modules
    assert len(modules) <= MOST_MODULES_OF_PREDICTION, modules
