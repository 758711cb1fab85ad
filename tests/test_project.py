"""The package as a whole: its public names, its metadata, its imports."""

import ast
import graphlib
import importlib
import importlib.metadata
import importlib.util
import inspect
import os
import pkgutil
import re
import subprocess
import sys
from pathlib import Path

import pytest
from packaging.requirements import Requirement

import fastrnn
import fastrnn.reference

PACKAGE = Path(fastrnn.__file__).parent
NOTEBOOK_SIGNATURES = {
    "softmax": ["x"],
    "pad_sequences": ["sequences", "max_len", "padding_value"],
    "rnnCell_forward": ["xt", "a_prev", "parameters"],
    "rnn_cell_forward": ["xt", "a_prev", "parameters"],
    "rnn_forward": ["x", "a0", "parameters", "seq_lengths"],
    "rnnCell_backward": ["da_next", "cache"],
    "rnn_cell_backward": ["da_next", "cache"],
    "rnn_backward": ["da", "caches"],
}


def imports_by_module() -> dict[str, set[str]]:
    """Full names of the modules that each module of the package imports."""
    names = ["fastrnn"]
    names += [found.name for found in pkgutil.walk_packages([str(PACKAGE)], "fastrnn.")]
    return {name: imported_modules(name, set(names)) for name in names}


def imported_modules(name: str, ours: set[str]) -> set[str]:
    module = importlib.import_module(name)
    found = set()
    for node in ast.walk(ast.parse(Path(module.__file__).read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            origin = importlib.util.resolve_name(
                "." * node.level + (node.module or ""), module.__package__
            )
            submodules = {f"{origin}.{alias.name}" for alias in node.names} & ours
            found |= submodules or {origin}
    return found


def module_name(path: Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(part for part in parts if part != "__init__")


def raised(path: Path) -> set[str]:
    """Names of the exceptions that a file raises by name."""
    calls = {
        getattr(node.exc, "func", node.exc)
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Raise)
    }
    return {call.id for call in calls if isinstance(call, ast.Name)}


def top_level(modules: set[str]) -> set[str]:
    return {module.partition(".")[0] for module in modules} - sys.stdlib_module_names


@pytest.mark.parametrize("module", [fastrnn, fastrnn.reference], ids=lambda module: module.__name__)
def test_all_names_what_is_public(module):
    public = {
        name
        for name, value in vars(module).items()
        if getattr(value, "__module__", "").partition(".")[0] == "fastrnn" and name[0] != "_"
    }
    assert len(set(module.__all__)) == len(module.__all__)
    assert public == {name for name in module.__all__ if callable(getattr(module, name))}


@pytest.mark.parametrize("module", [fastrnn, fastrnn.reference], ids=lambda module: module.__name__)
@pytest.mark.parametrize(("name", "parameters"), NOTEBOOK_SIGNATURES.items())
def test_signature_is_that_of_the_notebook(module, name, parameters):
    signature = inspect.signature(getattr(module, name))
    assert list(signature.parameters)[: len(parameters)] == parameters
    assert all(
        parameter.kind is inspect.Parameter.KEYWORD_ONLY
        for parameter in list(signature.parameters.values())[len(parameters) :]
    )


def test_public_functions_are_documented_and_typed():
    for name in fastrnn.__all__:
        value = getattr(fastrnn, name)
        if inspect.isfunction(value):
            assert "Examples\n" in value.__doc__, name
            assert "Returns\n" in value.__doc__, name
            annotated = set(value.__annotations__)
            assert annotated == {*inspect.signature(value).parameters, "return"}, name


def test_version_is_that_of_the_installed_metadata_and_the_changelog():
    assert fastrnn.__version__ == importlib.metadata.version("fastrnn")
    changelog = (PACKAGE.parent / "CHANGELOG.md").read_text(encoding="utf-8")
    assert f"\n## [{fastrnn.__version__}]" in changelog


def test_runtime_dependencies_are_numpy_and_numba():
    requirements = map(Requirement, importlib.metadata.requires("fastrnn"))
    assert {item.name for item in requirements if "extra" not in str(item.marker)} == {
        "numba",
        "numpy",
    }


def test_package_is_marked_as_typed():
    assert (PACKAGE / "py.typed").is_file()


def test_imports_have_no_circle():
    imports = imports_by_module()
    graph = {name: found & set(imports) for name, found in imports.items()}
    graphlib.TopologicalSorter(graph).prepare()
    assert all("fastrnn" not in found for found in graph.values())


def test_imports_go_down_the_table_of_modules():
    root = PACKAGE.parent
    text = (root / "CONTRIBUTING.md").read_text(encoding="utf-8")
    row_of = {}
    for row, cell in enumerate(re.findall(r"^\| (`fastrnn/.*?) \|", text, re.MULTILINE)):
        for pattern in re.findall("`(.*?)`", cell):
            found = root.glob(pattern + "*.py" if pattern.endswith("/") else pattern)
            row_of |= dict.fromkeys(map(module_name, found), row)
    imports = imports_by_module()
    assert row_of.keys() == imports.keys()
    for name, found in imports.items():
        for other in found & row_of.keys():
            inside = row_of[other] == row_of[name] and name.startswith(
                ("fastrnn.kernels", "fastrnn._")
            )
            assert inside or row_of[other] > row_of[name], f"{name} imports {other}"


def test_imports_stay_within_their_layer():
    for name, found in imports_by_module().items():
        if name == "fastrnn.reference":
            assert top_level(found) <= {"numpy"}
        elif name == "fastrnn.distributed":
            assert top_level(found) <= {"fastrnn", "mpi4py", "numpy"}
        elif name.startswith("fastrnn.kernels"):
            ours = {module for module in found if module.startswith("fastrnn")}
            assert all(module.startswith("fastrnn.kernels") for module in ours), name
            assert top_level(found) <= {"fastrnn", "llvmlite", "numba", "numpy"}, name
        else:
            assert top_level(found) <= {"fastrnn", "numba", "numpy"}, name


def test_errors_on_arguments_are_raised_by_the_checks_alone():
    checks = {*PACKAGE.glob("_check*.py"), PACKAGE / "_conform.py"}
    assert raised(PACKAGE / "_check.py") >= {"TypeError", "ValueError"}
    for path in set(PACKAGE.rglob("*.py")) - checks:
        assert not raised(path) & {"TypeError", "ValueError"}, path


def test_mpi_is_imported_when_asked_for_alone():
    code = "import sys, fastrnn.distributed; print('mpi4py' in sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout == "False\n"


def test_import_compiles_nothing():
    # A process of its own: in this one, other tests have called the kernels.
    code = """if True:
        import importlib, pkgutil
        from numba.extending import is_jitted
        import fastrnn

        modules = [
            importlib.import_module(found.name)
            for found in pkgutil.walk_packages(fastrnn.__path__, "fastrnn.")
        ]
        from fastrnn.kernels._jit import Kernel

        values = [v for module in modules for v in vars(module).values()]
        jitted = [v for v in values if is_jitted(v)]
        kernels = [v for v in values if isinstance(v, Kernel)]
        compiled = sum(len(v.signatures) for v in jitted) + sum(len(v.compiled) for v in kernels)
        print(len(kernels), compiled)
    """
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    kernels, compiled = map(int, run.stdout.split())
    assert kernels > 0
    assert compiled == 0


def test_without_a_compiler_the_error_says_so():
    code = "import fastrnn; fastrnn.softmax([[1.0]])"
    environment = os.environ | {"NUMBA_DISABLE_JIT": "1"}
    run = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True
    )
    assert "RuntimeError: the kernels need Numba's compiler, which NUMBA_DISABLE_JIT" in run.stderr


def test_ci_runs_a_benchmark_of_each_module():
    script = (PACKAGE.parent / ".ci" / "run").read_text(encoding="utf-8")
    modules = {path.stem for path in (PACKAGE.parent / "benchmarks").glob("[a-z]*.py")}
    missing = {name for name in modules - {"peers", "words"} if rf"'^{name}\." not in script}
    assert modules > {"peers", "ratio"}
    assert not missing
