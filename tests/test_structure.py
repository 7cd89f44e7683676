"""The house as a whole: no module needs, directly or by others, a module that needs it."""

import ast
from collections.abc import Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import contrasim_cli

ROOT = Path(contrasim_cli.__file__).parent


def modules(root: Path) -> dict[str, Path]:
    """Every module of a package by its dotted name."""
    found = {}
    for path in sorted(root.rglob("*.py")):
        parts = path.relative_to(root.parent).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imports(path: Path, known: Mapping[str, Path]) -> Iterator[str]:
    """The modules that a file imports, wherever it does so, for types alone too."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in known)
        elif isinstance(node, ast.ImportFrom) and node.module in known:
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                yield inner if inner in known else node.module


def needs(root: Path) -> dict[str, set[str]]:
    """What every module needs."""
    known = modules(root)
    return {name: set(imports(path, known)) - {name} for name, path in known.items()}


def by_package(graph: Mapping[str, set[str]]) -> dict[str, set[str]]:
    """The same between the packages, and the modules that lie beside them."""

    def package(name: str) -> str:
        return ".".join(name.split(".")[:2])

    found: dict[str, set[str]] = {}
    for name, needed in graph.items():
        found.setdefault(package(name), set()).update(package(other) for other in needed)
    return {name: needed - {name} for name, needed in found.items()}


def circle(graph: Mapping[str, set[str]]) -> list[str]:
    """Modules that need each other in turn; none where there is no circle."""
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as found:
        return list(found.args[1])
    return []


def test_no_module_needs_itself() -> None:
    assert circle(needs(ROOT)) == []


def test_no_package_needs_itself() -> None:
    assert circle(by_package(needs(ROOT))) == []


@pytest.mark.parametrize(
    "how", ["from house import b", "from house.b import x", "import house.b", "if T:\n    import house.b"]
)
def test_a_circle_is_found(tmp_path: Path, how: str) -> None:
    (tmp_path / "house").mkdir()
    (tmp_path / "house" / "__init__.py").touch()
    (tmp_path / "house" / "a.py").write_text(f"T = 0\n{how}\n")
    (tmp_path / "house" / "b.py").write_text("def x():\n    from house.a import T\n")
    assert set(circle(needs(tmp_path / "house"))) == {"house.a", "house.b"}
