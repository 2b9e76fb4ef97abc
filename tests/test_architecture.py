"""The house keeps its shape: import direction, kernel rules, file sizes, lazy imports."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "cvretrieval"
FILES = sorted(PACKAGE.rglob("*.py"))

BASE = {
    "_version", "_validation", "_optional", "_base", "_parallel", "_state", "_durable", "_array_file", "_npy_file",
    "_model_file", "_saving", "_peak_memory", "_workers", "_spread",
}  # fmt: skip
FOUNDATION = BASE | {
    "local_features", "feature_chunks", "image_files", "image_decoding", "images", "positions", "visual_words",
    "remote_files", "shared_sample",
}  # fmt: skip
STAGES = {"extraction", "codebooks", "encoders", "postprocessing", "verification", "index", "metrics", "datasets",
          "recognition", "reranking"}  # fmt: skip

#: room → rooms it may import, besides itself
ALLOWED = {
    "_version": set(),
    "_validation": set(),
    "_optional": set(),
    "_peak_memory": set(),
    "_base": {"_saving"},
    "_parallel": {"_validation"},
    "_workers": set(),
    "_spread": {"_npy_file", "_parallel", "_workers"},
    "_kernels": set(),
    "_state": {"_validation"},
    "_durable": {"_validation"},
    "_array_file": set(),
    "_npy_file": {"_durable"},
    "_model_file": {"_version", "_validation", "_state", "_durable", "_array_file"},
    "_saving": {"_validation", "_model_file"},
    "image_files": {"_validation"},
    "image_decoding": {"_validation", "remote_files"},
    "remote_files": {"_optional", "_parallel", "_validation", "image_files"},
    "images": {"_validation", "image_files", "image_decoding"},
    "local_features": {"_validation"},
    "feature_chunks": {"_validation", "local_features"},
    "shared_sample": {"_parallel", "_spread", "_validation", "_workers", "feature_chunks", "local_features"},
    "positions": {"local_features"},
    "visual_words": {"_validation"},
    **{stage: FOUNDATION | {"_kernels"} for stage in STAGES},
    "encoders": FOUNDATION | {"_kernels", "codebooks"},
    "index": FOUNDATION | {"_kernels", "codebooks"},
    "retrieval": FOUNDATION | STAGES | {"_kernels"},
    "deep": FOUNDATION | {"codebooks", "postprocessing"},
    "plotting": FOUNDATION | STAGES | {"_kernels", "retrieval"},
    "serve": FOUNDATION | STAGES | {"_kernels", "retrieval", "plotting", "deep"},
    "cli": FOUNDATION | STAGES | {"_kernels", "retrieval", "plotting", "deep", "serve"},
    "__main__": {"cli"},
}

#: (file, room): departures, each explained in docs/architecture.md
DEPARTURES = {("retrieval/result.py", "plotting"), ("retrieval/comparison.py", "plotting")}


def room_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported_modules(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names.add(node.module)
            names |= {f"{node.module}.{alias.name}" for alias in node.names if node.module == "cvretrieval"}
    return names


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_one_way(path):
    room = room_of(path)
    if room == "__init__":
        return
    own = path.relative_to(PACKAGE).as_posix()
    for module in imported_modules(path):
        parts = module.split(".")
        if parts[0] != "cvretrieval" or len(parts) == 1:
            continue
        target = parts[1]
        if not (PACKAGE / target).is_dir() and not (PACKAGE / f"{target}.py").exists():
            continue  # a name, such as __version__
        allowed = target == room or target in ALLOWED[room] or (own, target) in DEPARTURES
        assert allowed, f"{own} imports cvretrieval.{target}: {room} may not"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_files_hold_one_concept_of_at_most_400_lines(path):
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 400


@pytest.mark.parametrize("path", sorted((PACKAGE / "_kernels").glob("*.py")), ids=lambda path: path.name)
def test_kernels_know_only_numpy_and_numba(path):
    for module in imported_modules(path):
        assert module.split(".")[0] in {"numpy", "numba", "__future__", "math", "collections", "typing"} or (
            module.startswith("cvretrieval._kernels")
        ), f"{path.name} imports {module}"
    if path.name in ("__init__.py", "_jit.py"):
        return
    tree = ast.parse(path.read_text(encoding="utf-8"))
    functions = [node for node in tree.body if isinstance(node, ast.FunctionDef)]
    assert functions, f"{path.name} holds no kernel"
    for function in functions:
        assert ast.get_docstring(function), f"{path.name}: {function.name} does not state its formula"
        arguments = [argument.arg for argument in function.args.args]
        assert "self" not in arguments
    assert not any(isinstance(node, ast.ClassDef) for node in tree.body), f"{path.name} defines a class"


@pytest.mark.parametrize("path", sorted((ROOT / "tests" / "reference").glob("*.py")), ids=lambda path: path.name)
def test_slow_twins_import_numpy_only(path):
    for module in imported_modules(path):
        assert module.split(".")[0] in {"numpy", "__future__", "math", "itertools"}, f"{path.name} imports {module}"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_library_neither_asserts_nor_prints_nor_unpickles(path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        assert not isinstance(node, ast.Assert), f"line {node.lineno}: raise with a message instead of assert"
        if isinstance(node, ast.Call):
            name = node.func.id if isinstance(node.func, ast.Name) else ""
            assert name != "print" or room_of(path) == "cli", f"line {node.lineno}: print in the library"
            allow = [keyword.value for keyword in node.keywords if keyword.arg == "allow_pickle"]
            assert all(isinstance(value, ast.Constant) and value.value is False for value in allow)
        if isinstance(node, ast.ExceptHandler):
            assert node.type is not None, f"line {node.lineno}: bare except"
    assert not imported_modules(path) & {"pickle", "dill", "cloudpickle", "marshal", "shelve"}


def loaded_after(code: str) -> set[str]:
    program = f"import sys\n{code}\nprint('\\n'.join(sys.modules))"
    return set(
        subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.split()
    )


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_torch_lives_in_deep_only(path):
    if room_of(path) != "deep":
        found = {module.split(".")[0] for module in imported_modules(path)}
        assert not found & {"torch", "torchvision", "timm"}


def test_import_is_lazy():
    loaded = loaded_after("import cvretrieval; cvretrieval.deep.__all__")
    assert not loaded & {"torch", "cv2", "matplotlib", "numba", "sklearn", "scipy", "PIL"}


def test_without_torch_deep_says_what_to_install():
    program = "import sys; sys.modules['torch'] = None; from cvretrieval import deep; deep.Backbone"
    outcome = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert "cvretrieval.deep.Backbone needs torch" in outcome.stderr and "cvretrieval[torch]" in outcome.stderr


def test_command_line_module_is_lazy():
    loaded = loaded_after("import cvretrieval.cli.main")
    assert not loaded & {"torch", "cv2", "matplotlib", "numba", "sklearn", "scipy", "numpy", "PIL"}


def test_every_public_name_resolves():
    import cvretrieval

    for name in cvretrieval.__all__:
        assert getattr(cvretrieval, name) is not None
    assert set(cvretrieval.__all__) <= set(dir(cvretrieval))
    with pytest.raises(AttributeError, match="no attribute 'SURFER'"):
        cvretrieval.SURFER
