"""The order of the house: who may import whom, where Qt is, and what a bare import loads."""

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

# A room may use what stands left of it on one of its lines, never the reverse. "|" only separates the storeys.
# To change the order, change this table in its own commit, with the reason.
ORDER = (
    "errors labels paths files | frame boxes detections pictures tracking zones | preprocess backends | decode"
    " | detector | chain coco_file evaluation matching predictions confusion error_split evaluated report export | cli",
    "errors files | model | weights_info weights_file weights | backends | detector report export | cli",
    "model | losses",
    "ledetr | ledetr_app | ledetr_app.ui | ledetr_app.__main__",
    "ledetr | training",
)
LINES = tuple([room for room in line.split() if room != "|"] for line in ORDER)

# An engine knows itself, base.py and how its files are kept: not boxes, labels or thresholds.
ENGINE_MAY_USE = {"errors", "files", "backends"}

# Imports inside functions, and why. backends/__init__.py and cli/main.py choose what to load; the rest are extras.
LATE_IMPORTS = {
    "ledetr/backends/__init__.py": "an engine is loaded when it is chosen",
    "ledetr/cli/main.py": "--help is instant",
    "ledetr/cli/peers.py": "transformers is an extra",
    "ledetr/cli/doctor.py": "a broken package becomes a line of the report",
    "ledetr/chain/spread_ray.py": "ray is an extra",
    "ledetr/export/quantise.py": "nncf is an extra",
    "ledetr/detections.py": "supervision is an extra",
    "ledetr/tracking.py": "scipy is loaded when tracking is switched on",
    "ledetr/model/neighborhood.py": "natten is an extra",
}


@dataclass(frozen=True)
class Import:
    """One import of a module: its full name, the line, and whether it stands inside a function."""

    name: str
    line: int
    late: bool


def imports_of(path: Path) -> Iterator[Import]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    late_nodes = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        late = id(node) in late_nodes
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(alias.name, node.lineno, late)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno} imports relatively; write the full name"
            for alias in node.names:
                yield Import(f"{node.module}.{alias.name}", node.lineno, late)


def python_files(*folders: str) -> list[str]:
    return sorted(str(p.relative_to(ROOT).as_posix()) for folder in folders for p in (ROOT / folder).rglob("*.py"))


def room_of(module: str) -> str:
    """Room of a full module name; "ledetr.chain.sources" is in "chain", "ledetr.SCALES" at the front door "ledetr"."""
    parts = module.split(".")
    if parts[0] == "training":
        return "training"
    if parts[0] == "ledetr_app":
        return ".".join(parts[:2]) if parts[1:2] in (["ui"], ["__main__"]) else "ledetr_app"
    known = {room for line in LINES for room in line}
    return parts[1] if len(parts) > 1 and parts[1] in known else "ledetr"


def may_use(user: str, used: str) -> bool:
    if user == used:
        return True
    if not used.startswith(("ledetr", "training")) and user.startswith(("ledetr_app", "training")):
        used = "ledetr"  # from outside, the library is one room
    return any(user in line and used in line[: line.index(user)] for line in LINES)


def test_the_table_orders() -> None:
    assert may_use("chain", "detector") and not may_use("detector", "chain")
    assert may_use("detections", "boxes") and not may_use("boxes", "detections")
    assert may_use("training", "losses") and not may_use("losses", "training")
    assert may_use("ledetr_app.ui", "chain") and not may_use("ledetr_app", "training")
    assert not may_use("ledetr_app", "ledetr_app.ui")


@pytest.mark.parametrize("file", python_files("ledetr", "ledetr_app", "training"))
def test_imports_go_one_way(file: str) -> None:
    module = file.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
    user = room_of(module)
    if module == "ledetr":
        return  # the front door names what stands behind it
    wrong = [
        f"{file}:{i.line} {user} may not use {room_of(i.name)} ({i.name})"
        for i in imports_of(ROOT / file)
        if i.name.split(".")[0] in ("ledetr", "ledetr_app", "training")
        # The front door itself holds only the version and the names of the scales.
        and i.name not in ("ledetr", "ledetr.__version__", "ledetr.SCALES")
        and not may_use(user, room_of(i.name))
    ]
    assert not wrong, "\n".join(wrong)


def test_every_module_has_its_place_in_the_table() -> None:
    rooms = {room for line in LINES for room in line}
    at_home = {p.stem for p in (ROOT / "ledetr").iterdir() if p.suffix == ".py" or (p / "__init__.py").exists()}
    assert at_home - rooms <= {"__init__", "py"}, "a new module of ledetr/ needs its place in ORDER"


@pytest.mark.parametrize("file", python_files("ledetr/backends"))
def test_an_engine_knows_only_its_engine(file: str) -> None:
    if file.endswith("__init__.py"):
        return
    allowed = ENGINE_MAY_USE | ({"model", "weights"} if "torch" in file else set())
    rooms = {room_of(i.name) for i in imports_of(ROOT / file) if i.name.startswith("ledetr")}
    assert rooms <= allowed


@pytest.mark.parametrize("file", python_files("ledetr", "ledetr_app"))
def test_qt_is_only_in_the_window(file: str) -> None:
    if file.startswith("ledetr_app/ui/") or file == "ledetr/cli/doctor.py":
        return
    assert not [
        i.name for i in imports_of(ROOT / file) if i.name.split(".")[0] in ("PySide6", "pyqtgraph", "shiboken6")
    ]


@pytest.mark.parametrize("file", python_files("ledetr"))
def test_imports_inside_functions_have_a_reason(file: str) -> None:
    late = [f"{file}:{i.line} {i.name}" for i in imports_of(ROOT / file) if i.late]
    assert not late or file in LATE_IMPORTS, "\n".join(late)


HEAVY = ("torch", "openvino", "onnxruntime", "PySide6", "av", "cv2", "scipy", "pycocotools")


def loaded_after(code: str, folder: Path) -> set[str]:
    """Top-level modules of HEAVY that a fresh interpreter has loaded after this code."""
    script = f"{code}\nimport json, sys\nsys.stderr.write(json.dumps([m for m in {HEAVY!r} if m in sys.modules]))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=folder, timeout=60)
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stderr.splitlines()[-1]))


@pytest.mark.parametrize(
    "code",
    [
        "import ledetr",
        "import ledetr; ledetr.LeDetrError, ledetr.SCALES, dir(ledetr)",
        "import ledetr; ledetr.Frame",
        "from ledetr.cli.main import main; main(['--help'])",
        "from ledetr.cli.main import main; main(['--version'])",
        "import ledetr.cli.gui",
    ],
)
def test_the_front_door_loads_nothing_heavy(code: str, tmp_path: Path) -> None:
    assert loaded_after(code, tmp_path) == set()


def test_the_chain_needs_neither_qt_nor_torch(tmp_path: Path) -> None:
    assert loaded_after("import ledetr.chain.sources", tmp_path).isdisjoint({"torch", "PySide6", "openvino"})


def test_the_front_door_offers_what_it_names() -> None:
    import ledetr
    from ledetr.model.config import VARIANTS

    for name in ledetr.__all__:
        assert getattr(ledetr, name) is not None
    assert tuple(VARIANTS) == ledetr.SCALES
    with pytest.raises(AttributeError, match="it offers"):
        ledetr.Detektor
