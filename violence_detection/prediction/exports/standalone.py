"""The two scripts beside an exported model that judge videos with it without this package."""

from __future__ import annotations

import ast
import inspect
from types import ModuleType
from typing import Any

from violence_detection.prediction.exports import video_windows
from violence_detection.video import focus, pictures, sampling, shots
from violence_detection.video.decode import MIN_FRAMES

#: The script that reads videos, which the example imports.
WINDOWS_NAME = "video_windows.py"

_EXAMPLE = '''"""Judge a video: python {name} VIDEO. Needs numpy, opencv-python and {package}, no TensorFlow."""
import pathlib, sys
import video_windows
{imports}

here = pathlib.Path(__file__).parent
manifest = video_windows.read_manifest(here)
{load}
for start_s, end_s, looks in video_windows.of_arguments(sys.argv, manifest):
    p = video_windows.p_violent([{run} for pictures in looks], manifest)
    print(f"{{start_s:.2f}}-{{end_s:.2f}} s: {{p:.4f}}", "violent" if p >= manifest["threshold"] else "")
'''
_RUNTIMES = {
    "onnx": (
        "onnxruntime",
        "import onnxruntime",
        'model = onnxruntime.InferenceSession(here / "model.onnx", providers=["CPUExecutionProvider"])',
        'model.run(["raw_logits"], pictures)[0]',
    ),
    "openvino": (
        "openvino",
        "import openvino",
        'model = openvino.compile_model(here / "model.xml", "CPU", {"INFERENCE_PRECISION_HINT": "f32"})',
        'model(pictures)["raw_logits"]',
    ),
    "tflite": (
        "ai-edge-litert",
        "from ai_edge_litert.interpreter import Interpreter",
        'model = Interpreter(str(here / "model.tflite")).get_signature_runner()',
        'model(**pictures)["raw_logits"]',
    ),
}


def example_name(format_name: str) -> str:
    """File name of the example for a format."""
    return f"example_{format_name}.py"


def example(format_name: str) -> str:
    """Source of the example: a script of ten lines that judges a video with the exported file."""
    package, imports, load, run = _RUNTIMES[format_name]
    return _EXAMPLE.format(
        name=example_name(format_name), package=package, imports=imports, load=load, run=run
    )


def windows_source() -> str:
    """Source of video_windows.py with what it imports from this package copied in; each rule is written only once."""
    tree = ast.parse(inspect.getsource(video_windows))
    imports = sorted(_imports(video_windows) | _imports(sampling) | _imports(focus) | _imports(shots))
    parts = [
        f'"""{ast.get_docstring(tree, clean=False)}"""',
        "from __future__ import annotations",
        "\n".join(imports),
        f"MIN_FRAMES, NEAR_SIDE = {MIN_FRAMES}, {pictures.NEAR_SIDE}",
        _body(sampling),
        _body(focus),
        _body(shots),
        inspect.getsource(pictures.halved).strip(),
        inspect.getsource(pictures.resize).strip(),
        inspect.getsource(pictures.letterboxed).strip(),
        inspect.getsource(pictures.near).strip(),
        _body(video_windows),
    ]
    return "\n\n".join(parts) + "\n"


def _imports(module: ModuleType) -> set[str]:
    """The import statements of a module, except those from this package."""
    found: set[str] = set()
    for node in ast.parse(inspect.getsource(module)).body:
        if not _is_own(node) and isinstance(node, ast.Import | ast.ImportFrom):
            found.add(ast.unparse(node))
    return found - {"from __future__ import annotations"}


def _is_own(node: Any) -> bool:
    return isinstance(node, ast.ImportFrom) and (node.module or "").startswith("violence_detection")


def _body(module: ModuleType) -> str:
    """The source of a module after its imports."""
    source = inspect.getsource(module)
    last = max(
        node.end_lineno or 0
        for node in ast.parse(source).body
        if isinstance(node, ast.Import | ast.ImportFrom)
    )
    return "\n".join(source.splitlines()[last:]).strip()
