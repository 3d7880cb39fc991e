"""The rules of docs/architecture.md that a machine can hold: layers, heavy imports, sizes."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "rlplatform"
FILES = sorted(PACKAGE.rglob("*.py"))
PYTHON_FILES = sorted(
    path for folder in ("rlplatform", "tests", "jobs", "benchmarks") for path in (ROOT / folder).rglob("*.py")
)

LAYERS: tuple[frozenset[str], ...] = (
    frozenset({"", "errors", "names", "logs"}),
    frozenset({"specs", "envs.catalog", "algos.catalog"}),
    frozenset({"artifacts", "envs", "algos"}),
    frozenset({"policy", "train", "store"}),
    frozenset({"cluster", "tune", "serve", "report"}),
    frozenset({"cli", "__main__", "commands", "client", "http_client"}),
)
"""Parts of the package, lowest layer first; each may import its own layer and lower ones. "" is the root itself."""

RAY_ROOMS = {"cluster", "tune", "serve"}
TORCH_ROOMS = {"algos", "train", "policy", "envs"}
TORCH_MODULES = {
    "rlplatform.cluster.env_workers",  # Is a VecEnv of Stable-Baselines3.
    "rlplatform.cluster.resources",  # Caps GPU memory, which only torch can.
}
HEAVY = {"torch", "stable_baselines3", "sb3_contrib", "ray", "gymnasium", "numpy", "onnx", "onnxruntime"}


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def part_of(module: str) -> str:
    """Return the part that a module belongs to: ``envs.catalog`` for itself, else its first folder or file."""
    inner = module.partition(".")[2]
    named = {part for layer in LAYERS for part in layer}
    return inner if inner in named else inner.partition(".")[0]


def layer_of(module: str) -> int:
    found = [index for index, parts in enumerate(LAYERS) if part_of(module) in parts]
    assert found, f"{module} is in no layer: give its folder one here and in docs/architecture.md"
    return found[0]


def is_type_checking(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING")


def walk(node: ast.AST, *, into_functions: bool) -> Iterator[ast.AST]:
    """Walk what runs: not what only type checkers see, and function bodies only if asked."""
    for child in ast.iter_child_nodes(node):
        if is_type_checking(child) or (
            not into_functions and isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef)
        ):
            continue
        yield child
        yield from walk(child, into_functions=into_functions)


def imports(path: Path, *, into_functions: bool = True) -> set[str]:
    """Return every module that a file imports; for ``from a import b``, ``a.b`` where that is a module."""
    found: set[str] = set()
    for node in walk(ast.parse(path.read_text(encoding="utf-8")), into_functions=into_functions):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno} imports relatively"
            modules = {f"{node.module}.{alias.name}" for alias in node.names} & MODULES
            found |= modules or {str(node.module)}
    return found


MODULES = {module_name(path) for path in FILES}


def own(modules: set[str]) -> set[str]:
    return {module for module in modules if module.partition(".")[0] == "rlplatform"}


def short(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", FILES, ids=short)
def test_imports_go_to_the_same_or_a_lower_layer(path: Path) -> None:
    module = module_name(path)
    upward = {imported for imported in own(imports(path)) if layer_of(imported) > layer_of(module)}
    assert not upward or module == "rlplatform", f"{module} imports from a higher layer: {sorted(upward)}"


@pytest.mark.parametrize("path", FILES, ids=short)
def test_nothing_imports_the_package_root_from_inside(path: Path) -> None:
    packages = {module for module in imports(path) if module in MODULES and (ROOT / module.replace(".", "/")).is_dir()}
    assert not packages, f"{short(path)} imports {sorted(packages)}; import the module that defines the name"


def test_there_is_no_import_cycle() -> None:
    graph = {module_name(path): own(imports(path)) for path in FILES}
    done: set[str] = set()

    def visit(module: str, trail: tuple[str, ...]) -> None:
        assert module not in trail, "import cycle: " + " -> ".join([*trail[trail.index(module) :], module])
        if module not in done:
            for imported in sorted(graph.get(module, ())):
                visit(imported, (*trail, module))
            done.add(module)

    for module in graph:
        visit(module, ())


@pytest.mark.parametrize("path", FILES, ids=short)
def test_heavy_libraries_are_imported_only_where_they_belong(path: Path) -> None:
    module = module_name(path)
    room = part_of(module)
    libraries = {module.partition(".")[0] for module in imports(path)} & HEAVY
    if room not in RAY_ROOMS:
        assert "ray" not in libraries
    if (room not in TORCH_ROOMS and module not in TORCH_MODULES) or module == "rlplatform.policy.runtime":
        assert not libraries & {"torch", "stable_baselines3", "sb3_contrib"}
    if layer_of(module) <= 1:
        assert not libraries


@pytest.mark.parametrize("path", FILES, ids=short)
def test_only_commands_print(path: Path) -> None:
    if part_of(module_name(path)) in {"cli", "commands", "__main__"}:
        return
    calls = [node for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(node, ast.Call)]
    assert not [call.lineno for call in calls if isinstance(call.func, ast.Name) and call.func.id == "print"]


@pytest.mark.parametrize("path", PYTHON_FILES, ids=short)
def test_files_and_functions_are_short(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 400, f"{short(path)} has more than 400 lines"
    functions = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    long = {node.name: node.end_lineno - node.lineno + 1 for node in functions if node.end_lineno is not None}
    assert {name: lines for name, lines in long.items() if lines > 60} == {}, f"{short(path)} has long functions"


@pytest.mark.parametrize(
    "path", [path for path in FILES if path.name == "__init__.py" and path.parent != PACKAGE], ids=short
)
def test_sub_packages_hold_only_a_docstring(path: Path) -> None:
    statements = ast.parse(path.read_text(encoding="utf-8")).body
    assert len(statements) == 1
    assert isinstance(statements[0], ast.Expr)


@pytest.mark.parametrize("arguments", [["--help"], ["train", "--help"]])
def test_help_imports_nothing_heavy(arguments: list[str]) -> None:
    code = "import sys; from rlplatform.cli import main; code = main(); print(sorted(sys.modules)); sys.exit(code)"
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "Usage" in done.stdout
    loaded = {module.partition(".")[0] for module in ast.literal_eval(done.stdout.splitlines()[-1])}
    assert not loaded & HEAVY


def test_the_policy_runtime_imports_neither_torch_nor_sb3() -> None:
    code = "import sys, rlplatform.policy.runtime; print(sorted(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = {module.partition(".")[0] for module in ast.literal_eval(done.stdout)}
    assert not loaded & {"torch", "stable_baselines3", "sb3_contrib", "ray", "onnx"}
