"""The architecture: what may import what, which imports are lazy, sizes of folders, files and classes."""

from __future__ import annotations

import ast
import functools
import subprocess
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

# The rooms from the lowest to the highest; a room imports from itself and from the rooms before it.
ROOMS = (
    "edge",  # values, errors, settings and what else every room may use
    "edge.sources",
    "edge.inference",
    "edge.face",
    "edge.voice",
    "edge.people",
    "edge.delivery",
    "edge.host",
    "edge.page",
    "edge wiring",
    "models",  # cards, metrics, run options and files, which every room of models may use
    "models.data",
    "models.training",
    "models.recipes",
    "models.evaluation",
    "models wiring",
    "converter",
)
# Modules on the top level of a package, and one room, that build something from all rooms.
WIRING = {
    "edge wiring": ("edge.__main__", "edge.daemon", "edge.pipeline", "edge.commands"),
    "models wiring": ("models.__main__", "models.fetch", "models.readme"),
}
TENSORFLOW = {"tensorflow", "keras", "tf_keras"}  # only the training knows them
HELP = ("numpy", "cv2", "pydantic", "rich", "paho", "starlette", "uvicorn", "prometheus_client", "asyncio")
# Libraries that a module imports when it runs, by the modules that may be imported without them.
LAZY = {
    "edge.commands.analyze": (
        "starlette",
        "uvicorn",
        "prometheus_client",
        "gi",
        "picamera2",
        "pyaudio",
        "paho",
    ),
    "edge.commands.listen": ("cv2", "starlette", "uvicorn", "prometheus_client"),
    "edge.commands.outbox": ("cv2", "starlette", "uvicorn", "prometheus_client"),
    "edge.commands.devices": ("cv2", "starlette", "uvicorn", "prometheus_client", "pyaudio", "paho"),
    "edge.daemon": ("starlette", "uvicorn", "prometheus_client", "gi", "picamera2", "pyaudio"),
}

MODULES_IN_A_FOLDER = 16
LINES_IN_A_FILE = 400
LINES_IN_A_FUNCTION = 60
ATTRIBUTES_OF_A_CLASS = 12
ARGUMENT_PARSERS = {"edge.__main__._parser", "models.__main__._parser", "converter.__main__._parser"}


@dataclass(frozen=True, slots=True)
class Module:
    """One file: its dotted name (of a package, the name of the folder), path and syntax tree."""

    name: str
    path: Path
    tree: ast.Module

    @property
    def room(self) -> str:
        """The room of `ROOMS` that the module is in."""
        for room, prefixes in WIRING.items():
            if any(self.name == prefix or self.name.startswith(f"{prefix}.") for prefix in prefixes):
                return room
        return max((r for r in ROOMS if f"{self.name}.".startswith(f"{r}.")), key=len)


@functools.cache
def modules() -> dict[str, Module]:
    """Return the modules of all packages by name."""
    found = {}
    for package in ("edge", "models", "converter"):
        for path in sorted((ROOT / package).rglob("*.py")):
            name = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
            found[name] = Module(name, path, ast.parse(path.read_text(encoding="utf-8")))
    return found


def imports(node: ast.AST, *, with_types: bool) -> Iterator[str]:
    """Yield what the code imports anywhere, functions included; `with_types`: also below `TYPE_CHECKING`."""
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
        for alias in node.names:
            name = f"{node.module}.{alias.name}"
            yield name if name in modules() else node.module
    elif isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING" and not with_types:
        return
    for child in ast.iter_child_nodes(node):
        yield from imports(child, with_types=with_types)


@functools.cache
def graph(*, with_types: bool) -> dict[str, set[str]]:
    """Return by module the other modules of ours that it imports."""
    return {
        module.name: {
            name for name in imports(module.tree, with_types=with_types) if name in modules()
        } - {module.name}
        for module in modules().values()
    }  # fmt: skip


def test_rooms_import_only_lower_rooms() -> None:
    """No module imports a room above its own."""
    against = [
        f"{name} -> {other}"
        for name, others in graph(with_types=True).items()
        for other in sorted(others)
        if ROOMS.index(modules()[other].room) > ROOMS.index(modules()[name].room)
    ]
    assert against == []


def test_no_module_imports_itself_through_others() -> None:
    """There is no import circle, not even through an import in a function."""
    edges = graph(with_types=False)

    def reachable(start: str) -> set[str]:
        found: set[str] = set()
        waiting = list(edges[start])
        while waiting:
            name = waiting.pop()
            if name not in found:
                found.add(name)
                waiting += edges[name]
        return found

    assert {name for name in edges if name in reachable(name)} == set()


def test_device_never_imports_tensorflow() -> None:
    """No module of `edge` imports TensorFlow or Keras, not even in a function."""
    for module in modules().values():
        names = {name.partition(".")[0] for name in imports(module.tree, with_types=True)}
        assert not module.name.startswith("edge") or not names & TENSORFLOW, module.name


def loaded(code: str, names: Iterable[str]) -> set[str]:
    """Run `code` in a new Python and return those of `names` that it has imported at its end."""
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\nimport sys; print(*sys.modules)"],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
        timeout=60,
    )
    return set(done.stdout.split()) & set(names)


def test_commands_run_without_tensorflow() -> None:
    """Importing everything that `emotion-edge` and `emotion-models list` use loads no TensorFlow."""
    code = (
        "import edge.daemon, edge.commands.demo, edge.commands.analyze_report, edge.commands.bench.stages\n"
        "import models.__main__"
    )
    assert loaded(code, TENSORFLOW) == set()


def test_help_imports_nothing_slow() -> None:
    """`emotion-edge --help` needs the parser alone, and so takes a tenth of a second."""
    code = (
        "import contextlib, io, edge.__main__\n"
        "with contextlib.suppress(SystemExit), contextlib.redirect_stdout(io.StringIO()):\n"
        "    edge.__main__.main(['--help'])"
    )
    assert loaded(code, HELP) == set()


@pytest.mark.parametrize("module", LAZY)
def test_heavy_libraries_are_imported_when_they_are_needed(module: str) -> None:
    """A library for one driver, or for the page, is not loaded by a command that does not use it."""
    assert loaded(f"import {module}", LAZY[module]) == set()


def functions(node: ast.AST, name: str) -> Iterator[tuple[str, ast.FunctionDef | ast.AsyncFunctionDef]]:
    """Yield every function, method and inner function with its dotted name."""
    for child in ast.iter_child_nodes(node):
        inner = name
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            inner = f"{name}.{child.name}"
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
            yield inner, child
        yield from functions(child, inner)


def is_value(node: ast.ClassDef) -> bool:
    """Return whether the class is a row of a table: a frozen dataclass, a section of the config, a card.

    The contracts decide how many columns they have; nothing in them changes.
    """
    bases = {ast.unparse(base) for base in node.bases}
    frozen = any("frozen=True" in ast.unparse(decorator) for decorator in node.decorator_list)
    return frozen or bool(bases & {"BaseModel", "Section", "_Part"})


def attributes(node: ast.ClassDef) -> set[str]:
    """Return the attributes that methods assign to `self`, and the fields of a dataclass."""
    found = {
        target.attr
        for part in ast.walk(node)
        for target in (
            part.targets
            if isinstance(part, ast.Assign)
            else [part.target]
            if isinstance(part, ast.AnnAssign)
            else []
        )
        if isinstance(target, ast.Attribute) and ast.unparse(target.value) == "self"
    }
    if any("dataclass" in ast.unparse(decorator) for decorator in node.decorator_list):
        found |= {
            part.target.id
            for part in node.body
            if isinstance(part, ast.AnnAssign) and isinstance(part.target, ast.Name)
        }
    return found


def test_folders_are_small() -> None:
    """A folder with more modules has a second job."""
    counts: dict[Path, int] = {}
    for module in modules().values():
        if module.path.name != "__init__.py":
            counts[module.path.parent] = counts.get(module.path.parent, 0) + 1
    large = {str(p.relative_to(ROOT)): n for p, n in counts.items() if n > MODULES_IN_A_FOLDER}
    assert large == {"converter": counts[ROOT / "converter"]}, "the converter alone is flat"


def test_files_and_functions_are_short() -> None:
    """A longer file or function does two things; argument parsers are lists."""
    long_files = {
        module.name: lines
        for module in modules().values()
        if (lines := len(module.path.read_text(encoding="utf-8").splitlines())) > LINES_IN_A_FILE
    }
    assert long_files == {}
    long_functions = {
        name: lines
        for module in modules().values()
        for name, node in functions(module.tree, module.name)
        if name not in ARGUMENT_PARSERS
        and (lines := (node.end_lineno or 0) - node.lineno + 1) > LINES_IN_A_FUNCTION
    }
    assert long_functions == {}


def test_classes_have_few_attributes() -> None:
    """A class that changes has few attributes; values, whose fields a contract lists, may have more."""
    large = {
        f"{module.name}.{node.name}": len(found)
        for module in modules().values()
        for node in ast.walk(module.tree)
        if isinstance(node, ast.ClassDef)
        and not is_value(node)
        and len(found := attributes(node)) > ATTRIBUTES_OF_A_CLASS
    }
    assert large == {}
