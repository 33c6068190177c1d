"""The rules of ARCHITECTURE.md that a compiler does not enforce: which part may use which, where
instruction sets may appear, and how large a file may be."""

from __future__ import annotations

import ast
import json
import re
import subprocess
from graphlib import TopologicalSorter
from pathlib import Path

import pytest
from build_folder import build_folder

ROOT = Path(__file__).resolve().parent.parent
CSRC = ROOT / "csrc"
PACKAGE = ROOT / "kernelprune"

# C++: folder of csrc -> the folders whose headers it may include ("kernelprune" is csrc/include).
# The interface of the backends is a part of its own: the engine and they include it.
CPP_ARROWS = {
    "include": {"kernelprune"},
    "core": {"kernelprune"},
    "ops": {"core", "kernelprune"},
    "model": {"ops", "core", "kernelprune"},
    "engine/backend.h": {"model", "ops", "core", "kernelprune"},
    "cpu": {"engine/backend.h", "model", "ops", "core", "kernelprune"},
    "cuda": {"engine/backend.h", "model", "ops", "core", "kernelprune"},
    "engine": {"engine/backend.h", "cpu", "cuda", "model", "ops", "core", "kernelprune"},
    "operators": {"engine/backend.h", "cpu", "model", "ops", "core", "kernelprune"},
    "bindings": {"engine", "kernelprune"},
    "bindings/emulator": {"cuda/emulator", "kernelprune"},
    "bindings/c": {"kernelprune"},
    "cuda/emulator": {"cuda", "core", "kernelprune"},  # for tests alone
}

# Python: part of the package -> the parts it may import.
PYTHON_ARROWS: dict[str, set[str]] = {
    "graph": set(),
    "format": {"graph"},
    "runtime": {"_core"},
    "ops": {"graph", "format", "_core"},
    "models": set(),
    "data": set(),
    "frontends": {"graph", "format", "runtime"},  # export tries the engine
    "prune": {"models", "frontends", "graph", "runtime", "ops"},
    "quantization": {"prune", "frontends", "graph", "format"},
    "train": {"models", "data", "prune", "frontends", "graph", "format"},
    "benchmarking": {"graph", "format", "frontends", "runtime", "quantization"},
    "report": {"graph", "format", "runtime", "benchmarking"},
    "compression": {
        "benchmarking",
        "quantization",
        "prune",
        "data",
        "frontends",
        "graph",
        "format",
        "runtime",
    },
}
# Below everything else, and for all: how text is shown, which errors there are, how files are read
# and written.
_GROUND: dict[str, set[str]] = {
    "text": set(),
    "errors": {"text"},
    "files": {"errors"},
    "columns": {"text"},
    "model_files": {"files", "errors", "text"},
    "lazy": {"errors"},
}
PYTHON_ARROWS = _GROUND | {part: {*_GROUND, *used} for part, used in PYTHON_ARROWS.items()}
CLI_ARROWS = {*PYTHON_ARROWS, "_core"}

# What `import kernelprune.runtime` pulls in has to work with numpy alone.
NUMPY_ONLY = [
    "text.py", "columns.py", "errors.py", "files.py", "model_files.py",
    "graph/*.py", "graph/ops/*.py", "format/*.py", "runtime/*.py",
]  # fmt: skip

ISAS = ("portable", "avx2", "avx512")
INT8_ISAS = (*ISAS, "avx_vnni", "avx512_vnni")


def cpp_files(folder: str = "") -> list[Path]:
    """All C++ and CUDA files below a folder of csrc."""
    suffixes = {".h", ".cc", ".cu", ".cuh"}
    return sorted(path for path in (CSRC / folder).rglob("*") if path.suffix in suffixes)


def cpp_includes(path: Path) -> list[tuple[str, str]]:
    """The includes of a file as (bracket, name); the bracket is '"' or '<'."""
    return re.findall(r'^\s*#\s*include\s+(["<])([^">]+)', path.read_text(), re.MULTILINE)


def text_files() -> list[Path]:
    """Every file of the project that people read."""
    suffixes = {
        ".py",
        ".h",
        ".cc",
        ".cu",
        ".cuh",
        ".md",
        ".toml",
        ".txt",
        ".yaml",
        ".json",
        ".html",
        ".yml",
        ".sh",
        ".cff",
    }
    folders = ("csrc", "kernelprune", "tests", "bench", "docs", "examples", "recipes", ".ci")
    files = [path for folder in folders for path in (ROOT / folder).rglob("*")]
    return sorted(
        path
        for path in [*files, *ROOT.glob("*"), ROOT / ".ci" / "run"]
        if path.is_file() and (path.suffix in suffixes or path.name in ("Makefile", "run"))
    )


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


# --- tests ---------------------------------------------------------------------------------------

# Folders of tests that are no part of the package: what is tested from outside, and a folder of the
# repository or of csrc each.
OTHER_TESTS = {"bench", "csrc", "cuda", "examples", "faults", "typechecks"}


def test_tests_mirror_the_package() -> None:
    """If this fails, somebody who changes a part of the package does not find its tests."""
    folders = {path.name for path in (ROOT / "tests").iterdir() if any(path.rglob("*.py"))}
    parts = {path.name for path in PACKAGE.iterdir() if path.is_dir()}
    assert folders <= parts | OTHER_TESTS


def test_long_files_exist() -> None:
    """If this fails, a file that was moved begins last, and all processes but one wait for it."""
    text = (ROOT / "tests" / "conftest.py").read_text()
    names = re.findall(r'"([a-z_/0-9]+\.py)"', text.split("LONG = (")[1].split("\n)")[0])
    assert names and [name for name in names if not (ROOT / "tests" / name).is_file()] == []


# --- arrows --------------------------------------------------------------------------------------


def cpp_part(name: str) -> str:
    """The part of the table that a file of csrc belongs to."""
    parts = [part for part in CPP_ARROWS if f"{name}/".startswith(f"{part}/")]
    return max(parts, key=len, default=name.split("/")[0])


@pytest.mark.parametrize("path", cpp_files(), ids=name_of)
def test_cpp_arrows(path: Path) -> None:
    """If this fails, a lower layer of the engine knows a higher one, and neither can be read,
    tested or replaced alone."""
    folder = cpp_part(str(path.relative_to(CSRC)))
    allowed = CPP_ARROWS[folder] | {folder}
    used = {cpp_part(name) for bracket, name in cpp_includes(path) if bracket == '"'}
    assert used <= allowed, f"{name_of(path)} may include only {sorted(allowed)}"


def test_cpp_arrows_make_no_cycle() -> None:
    """If this fails, the table of C++ allows a cycle, such as a backend that knows the engine."""
    arrows = {part: used - {"kernelprune"} for part, used in CPP_ARROWS.items()}
    order = list(TopologicalSorter(arrows).static_order())
    assert order.index("engine/backend.h") < order.index("cpu") < order.index("engine")


def test_engine_knows_no_device() -> None:
    """If this fails, what one device does is spelled in the engine again, and not behind the
    interface of the backends."""
    text = (CSRC / "engine" / "engine.cc").read_text()
    assert text.count("\n") < 200
    assert not re.search(r"cuda|cpu/|isa\.h|KernelSet", text)


@pytest.mark.parametrize(
    ("library", "folder"),
    [
        (r"pybind11/.*|Python\.h", "bindings"),
        (r"torch/.*|ATen/.*|c10/.*", None),
        (r"nlohmann/.*", "model"),
        (r"omp\.h|unistd\.h|thread|mutex|condition_variable", "core"),
        (r"cuda[^/]*\.h|.*\.cuh", "cuda"),
    ],
)
def test_libraries_stay_in_their_folder(library: str, folder: str | None) -> None:
    """If this fails, a library has leaked out of its folder: the engine is then tied to it (to
    Python, to a torch version) wherever it goes."""
    for path in cpp_files():
        if path.relative_to(CSRC).parts[0] == folder:
            continue
        found = [name for _, name in cpp_includes(path) if re.fullmatch(library, name)]
        assert not found, name_of(path)


def python_part(module: str) -> str:
    """The part of the package that a dotted name belongs to: kernelprune.format.read -> format."""
    return module.split(".")[1]


def imports_of(path: Path) -> set[str]:
    """Dotted names of everything a file imports, wherever in the file it does."""
    found = set()
    tree = ast.parse(path.read_text())
    for_annotations = [
        node
        for node in tree.body
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
    ]
    for node in for_annotations:
        node.body = [ast.Pass()]  # nothing runs it
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name_of(path)}: relative import"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def package_files() -> list[Path]:
    return sorted(path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py")


@pytest.mark.parametrize("path", package_files(), ids=name_of)
def test_python_arrows(path: Path) -> None:
    """If this fails, a part of the package imports one that it must not know (a cycle is near)."""
    part = path.relative_to(PACKAGE).with_suffix("").parts[0]
    allowed = CLI_ARROWS | {"cli"} if part == "cli" else PYTHON_ARROWS[part] | {part}
    names = [name for name in imports_of(path) if name.startswith("kernelprune.")]
    assert {python_part(name) for name in names} <= allowed


def test_python_arrows_make_no_cycle() -> None:
    """If this fails, the table above allows a cycle, and the test before this one proves little."""
    order = list(TopologicalSorter(PYTHON_ARROWS).static_order())
    assert order.index("text") < order.index("errors") < order.index("report")


# Parts whose modules know each other in one direction only, wherever in a file the import stands.
WITHOUT_CIRCLES = sorted({*PYTHON_ARROWS, "cli"} - {"frontends", "runtime"})


@pytest.mark.parametrize("part", WITHOUT_CIRCLES)
def test_modules_make_no_circle(part: str) -> None:
    """If this fails, two modules import each other, perhaps inside of functions, which hides it:
    neither can be read, tested or moved without the other."""
    paths = [path for path in package_files() if path.is_relative_to(PACKAGE / part)]
    paths = paths or [PACKAGE / f"{part}.py"]
    names = {
        path: ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        for path in paths
    }
    known = set(names.values())
    graph = {}
    for path, name in names.items():
        # "from a.b import c" is of the module a.b.c if there is one, else of a.b
        found = {each if each in known else each.rpartition(".")[0] for each in imports_of(path)}
        graph[name] = (found & known) - {name}
    assert len(list(TopologicalSorter(graph).static_order())) == len(names)


@pytest.mark.parametrize("pattern", NUMPY_ONLY)
def test_engine_needs_numpy_alone(pattern: str) -> None:
    """If this fails, running a model file needs torch or another large package."""
    inside = {"torch", "PIL"}
    allowed = {"numpy", "kernelprune", *inside}
    standard = set(__import__("sys").stdlib_module_names)
    paths = sorted(PACKAGE.glob(pattern))
    assert paths
    for path in paths:
        tree = ast.parse(path.read_text())
        top = [node for node in tree.body if isinstance(node, (ast.Import, ast.ImportFrom))]
        names = {(getattr(n, "module", None) or n.names[0].name).split(".")[0] for n in top}
        # Inside a function torch may be imported, for tensors that the caller brings, and Pillow
        # for files of images.
        assert names <= standard | (allowed - inside), name_of(path)
        assert {name.split(".")[0] for name in imports_of(path)} <= standard | allowed


# What has one place, so that no other writes half files, shows control codes, or reads loosely:
# call -> the files that may use it. (The other two take no file of anybody else.)
ONE_PLACE = {
    r"\.write_(?:text|bytes)\(|open\([^)]*[\"'][wax]|np\.save\((?!content,)": {
        "kernelprune/files.py",
        "kernelprune/train/checkpoint.py",  # into a folder of files.py
        "kernelprune/benchmarking/start_up.py",  # of the system
    },
    r"json\.loads?\(|yaml\.(?:safe_)?load\(|pickle\.loads?\(": {
        "kernelprune/text.py",
        "kernelprune/train/recipe.py",
        "kernelprune/benchmarking/start_up.py",  # what its own process says
    },
    r"table\.add_row\(": {"kernelprune/report/fitted.py"},
}


@pytest.mark.parametrize(("call", "files"), ONE_PLACE.items(), ids=["write", "read", "show"])
def test_one_place(call: str, files: set[str]) -> None:
    """If this fails, a file is written that a kill or a full disk cuts, or something of a stranger
    is read or shown without the checks of the one place that has them."""
    found = {name_of(path) for path in package_files() if re.search(call, path.read_text())}
    assert found == files


# --- instruction sets ----------------------------------------------------------------------------


def test_intrinsics_only_in_vector_headers() -> None:
    """If this fails, an algorithm is tied to one instruction set."""
    intrinsic = re.compile(r"\b_mm\d*_\w+|\b__m(128|256|512)\w*|\b_(tzcnt|lzcnt|pext|pdep)_u\d+")
    for path in cpp_files():
        if re.fullmatch(r"csrc/cpu/kernels/simd/vec_\w+\.h", name_of(path)):
            continue
        assert not intrinsic.search(path.read_text()), name_of(path)


def test_gpu_intrinsics_only_in_device_header() -> None:
    """If this fails, a kernel uses the GPU past the functions that the emulator has twins of: it
    then runs on a GPU only, and no test sees it."""
    intrinsic = re.compile(
        r"\b__(?!(?:cuda|CUDACC|restrict)\b)[a-z]\w*\s*\(|\basm\b|"
        r"\b(?:threadIdx|blockIdx|blockDim|gridDim)\b|__shared__|__device__"
    )
    kernels = sorted((CSRC / "cuda" / "kernels").rglob("*.cuh"))
    assert len(kernels) > 20
    for path in kernels:
        assert not intrinsic.search(path.read_text()), name_of(path)


def test_no_containers_in_kernels() -> None:
    """If this fails, a kernel may allocate, or instantiate a shared inline function with the flags
    of its instruction set."""
    container = re.compile(r"\bstd::(vector|string|map|set|unordered_\w+|function|deque|list)\b")
    kernels = sorted((CSRC / "cpu" / "kernels").rglob("*"))
    assert len(kernels) > 20
    for path in [*kernels, *(CSRC / "cuda").rglob("*.cuh")]:
        if path.is_file():
            assert not container.search(path.read_text()), name_of(path)


def compile_commands() -> dict[str, str]:
    """Source file (relative to the root) -> the command that compiled it."""
    entries = json.loads((build_folder() / "compile_commands.json").read_text())
    return {name_of(Path(entry["file"])): entry["command"] for entry in entries}


def kernel_objects() -> dict[str, Path]:
    """Instruction set, or "ops_" and the instruction set -> the object file of its kernels."""
    found = {}
    for path in build_folder().rglob("kernels_*.o"):
        found[path.name.split(".")[0].removeprefix("kernels_")] = path
    return found


def tool_output(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def test_isa_flags_only_on_kernel_files() -> None:
    """If this fails, code outside the kernels may use instructions that the machine lacks."""
    commands = compile_commands()
    assert len(commands) > 5
    for source, command in commands.items():
        flags = re.findall(r"\s(-m(?:avx|fma|sse|bmi|arch|tune|cpu)\S*)", command)
        name = Path(source).name.removeprefix("kernels_").removesuffix(".cc")
        isa = name.removeprefix("ops_").removeprefix("int8_")
        if source != f"csrc/cpu/kernels/kernels_{name}.cc" or isa not in set(INT8_ISAS) - {
            "portable"
        }:
            assert flags == [], source
        else:
            assert "-mfma" in flags
            assert "-fno-lto" in command


def test_all_kernel_objects_are_known() -> None:
    """If this fails, a new kernel file escapes the tests below."""
    known = {prefix + isa for isa in ISAS for prefix in ("", "ops_")}
    known |= {f"int8_{isa}" for isa in INT8_ISAS}
    assert set(kernel_objects()) <= known
    assert {"portable", "ops_portable", "int8_portable"} <= set(kernel_objects())


@pytest.mark.parametrize("isa", sorted(kernel_objects()))
def test_kernel_object_exports_one_table(isa: str) -> None:
    """If this fails, the linker may keep the AVX-512 copy of a function that all files share, and
    older machines crash in code that has nothing to do with kernels."""
    exported, undefined = [], []
    for line in tool_output("nm", str(kernel_objects()[isa])).splitlines():
        kind, symbol = line.split()[-2:]
        if kind == "U":
            undefined.append(symbol)
        elif kind.isupper() or kind in "uvw":
            exported.append((kind, symbol))
    assert len(exported) == 1, exported
    kind, symbol = exported[0]
    assert kind in "DR", "the table is data"
    name = isa.removeprefix("ops_").removeprefix("int8_").replace("_", "")
    assert f"kernels{name}" in symbol.lower()
    # Nothing of C++ comes from outside either: only functions of the C library.
    assert [symbol for symbol in undefined if symbol.startswith("_Z")] == []


@pytest.mark.parametrize("isa", sorted(kernel_objects()))
def test_kernel_object_has_no_initialisers(isa: str) -> None:
    """If this fails, code of that instruction set runs when the module is loaded, before anybody
    has asked whether the machine has it."""
    sections = tool_output("objdump", "-h", str(kernel_objects()[isa]))
    assert ".text" in sections
    assert not re.search(r"\.(init_array|ctors|preinit_array)", sections)


# --- files ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", text_files(), ids=name_of)
def test_file_is_readable(path: Path) -> None:
    """If this fails, a file is too long to be read at once, has unfinished parts, or names a place
    that exists on one machine only."""
    text = path.read_text()
    if path.suffix in {".py", ".h", ".cc", ".cu", ".cuh", ".md"}:
        assert text.count("\n") <= 500
    unfinished = ["TO" + "DO", "FIX" + "ME", "X" + "XX", "NotImplemented" + "Error"]
    assert [word for word in unfinished if re.search(rf"\b{word}\b", text)] == []
    assert re.findall(r"(?<![\w./])/(?:home|root|opt|mnt|srv|work|Users)/\S*", text) == []


@pytest.mark.parametrize(
    "path", [path for path in text_files() if path.suffix == ".md"], ids=name_of
)
def test_links_lead_somewhere(path: Path) -> None:
    """If this fails, a document points at a file that is not part of the project."""
    for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", path.read_text()):
        if not re.match(r"[a-z]+:", target):
            resolved = (path.parent / target).resolve()
            assert resolved.exists() and resolved.is_relative_to(ROOT), target
