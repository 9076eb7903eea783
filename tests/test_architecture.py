"""Imports go one way: ground <- stores <- pipeline, heads <- views <- recipes <- cli; it starts light."""

import ast
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import avel

PACKAGE = Path(avel.__file__).parent
GROUND = {
    *("nn", "device", "memory", "errors", "grid", "config", "registry"),
    *("progress", "text", "ahead", "digests", "forecast", "temporal", "values"),
}
MAY_IMPORT = {
    "ground": {"ground"},
    "stores": {"ground", "stores"},
    "pipeline": {"ground", "stores", "pipeline"},
    "heads": {"ground", "stores", "heads"},
    "views": {"ground", "stores", "heads", "views"},
    "recipes": {"ground", "stores", "pipeline", "heads", "views", "recipes"},
    "roof": {"ground", "stores", "pipeline", "heads", "views", "recipes", "roof"},
}
"""Layer -> the layers it may import; pipeline and heads meet at the HDF5 file only."""


def layer(module: str) -> str:
    """Layer of a module given as `avel.x.y`."""
    parts = module.split(".")
    if len(parts) == 1:
        return "roof"
    if parts[1] in GROUND:
        return "ground"
    return parts[1] if parts[1] in MAY_IMPORT else "roof"


def imports(path: Path) -> set[str]:
    """Every avel module that the file imports, at its top or inside a function."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return {name for name in found if name.split(".")[0] == "avel"}


@pytest.mark.parametrize(
    "path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: str(path.relative_to(PACKAGE))
)
def test_imports_go_one_way(path: Path) -> None:
    module = ".".join(["avel", *path.relative_to(PACKAGE).with_suffix("").parts])
    allowed = MAY_IMPORT[layer(module.removesuffix(".__init__"))]
    wrong = sorted(name for name in imports(path) if layer(name) not in allowed)
    assert not wrong, f"{module} may not import {', '.join(wrong)}"


MODULES = {
    ".".join(["avel", *path.relative_to(PACKAGE).with_suffix("").parts]).removesuffix(".__init__"): path
    for path in PACKAGE.rglob("*.py")
}


def rooms_below(package: str) -> dict[str, set[str]]:
    """The modules and sub-packages directly in `package`, each with those of them that it imports."""
    arrows: dict[str, set[str]] = {}
    for module, path in MODULES.items():
        room = room_of(module, package)
        if room:
            targets = {room_of(name, package) for name in imports(path)}
            arrows.setdefault(room, set()).update(targets - {room, ""})
    return arrows


def room_of(module: str, package: str) -> str:
    """The part of `package` that holds the module, "" where it lies elsewhere.

    >>> room_of("avel.stores.datasets.ave", "avel.stores")
    'avel.stores.datasets'
    """
    below = module.removeprefix(f"{package}.")
    return "" if below == module else f"{package}.{below.split('.')[0]}"


@pytest.mark.parametrize(
    "package", sorted(name for name, path in MODULES.items() if path.name == "__init__.py" and name != "avel")
)
def test_no_circles_within_a_package(package: str) -> None:
    TopologicalSorter(rooms_below(package)).prepare()  # raises CycleError with the circle


SHARED_BY_VIEWS = {"reading", "series", "inside", "embedding", "footage"}
MAY_IMPORT_BESIDE = {
    "avel.pipeline.media": set(),
    "avel.pipeline.encoders": {"config"},
    "avel.pipeline.staging": {"config", "media"},
    "avel.pipeline.pretraining": {"config", "encoders"},
    "avel.pipeline.caching": {"config", "encoders", "pretraining", "staging"},
    "avel.heads.tasks": set(),
    "avel.heads.models": {"config", "tasks"},
    "avel.heads.training": {"config", "models", "tasks"},
    "avel.heads.evaluation": {"config", "models", "tasks", "training"},
    "avel.views.plots": SHARED_BY_VIEWS,
    "avel.views.report": SHARED_BY_VIEWS,
}
"""Room -> the parts of the same package that it may import; plots and report are siblings."""


@pytest.mark.parametrize("room", MAY_IMPORT_BESIDE)
def test_rooms_import_what_lies_below_them_only(room: str) -> None:
    package = room.rpartition(".")[0]
    allowed = {f"{package}.{name}" for name in MAY_IMPORT_BESIDE[room]}
    assert rooms_below(package)[room] <= allowed


HEAVY = {
    "torch",
    "torchvision",
    "torchaudio",
    "dask",
    "distributed",
    "zarr",
    "h5py",
    "matplotlib",
    "av",
    "pyarrow",
}


@pytest.mark.parametrize(
    "code",
    [
        "import avel",
        "from avel.cli import cli; cli(['--help'], standalone_mode=False)",
        "from avel.cli import cli; cli(['pretrain', '--help'], standalone_mode=False)",
        "import avel.stores.datasets.dataset",
    ],
)
def test_what_must_start_at_once_imports_nothing_heavy(code: str) -> None:
    code += "\nimport sys; print('MODULES', *sorted({name.split('.')[0] for name in sys.modules}))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(result.stdout.split("MODULES ")[-1].split())
    assert not loaded & HEAVY


def test_public_functions_exist() -> None:
    for name in avel.__all__:
        assert getattr(avel, name)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = avel.nothing


READ_IN = {
    "h5py.File(": {"stores/hdf5.py"},
    "ParquetFile(": {"stores/arrow.py"},
    "tomllib.loads(": {"config.py"},
    "json.loads(": {
        *("stores/documents.py", "stores/lease.py", "stores/datasets/annotation_text.py"),
        *("stores/datasets/segment_vector.py", "stores/features.py", "views/report/folder.py"),
    },
    "load_file(": {"stores/tensors.py"},
    "safe_open(": {"stores/tensors.py", "pipeline/caching/key.py"},
}
"""How a format is read -> the only files that do: there what a stranger may have written is checked."""


@pytest.mark.parametrize("call", READ_IN)
def test_each_format_is_read_in_its_place(call: str) -> None:
    found = {str(path.relative_to(PACKAGE)) for path in PACKAGE.rglob("*.py") if call in path.read_text()}
    assert found <= READ_IN[call]
