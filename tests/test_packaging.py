"""What is in the source distribution and in a wheel, and what the extras bring."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import re
import runpy
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import pytest
import setuptools
import yaml
from build_folder import build_folder

from kernelprune.cli import missing_package
from kernelprune.errors import EXTRAS

ROOT = Path(__file__).resolve().parent.parent
# Of no use without the repository.
LEFT_OUT = {".clang-format", ".gitignore", ".pre-commit-config.yaml"}


def tracked_files() -> set[str]:
    git = ["git", "-C", str(ROOT), "ls-files", "--cached", "--others", "--exclude-standard"]
    found = subprocess.run(git, capture_output=True, text=True)
    if found.returncode != 0:
        pytest.skip("not a repository")
    return {name for name in found.stdout.splitlines() if (ROOT / name).is_file()}


def test_source_distribution(tmp_path: Path) -> None:
    """If this fails, the engine cannot be built from the source distribution, or its tests run."""
    wanted = tracked_files() - LEFT_OUT
    assert sum(name.startswith("csrc/") for name in wanted) > 50
    command = [sys.executable, "setup.py", "-q", "egg_info", "--egg-base", str(tmp_path)]
    done = subprocess.run(
        [*command, "sdist", "-d", str(tmp_path)], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    (packed,) = tmp_path.glob("*.tar.gz")
    with tarfile.open(packed) as archive:
        found = {name.partition("/")[2] for name in archive.getnames()}
    assert wanted - found == set()
    built = [name for name in found if name.endswith((".so", ".pyc")) or "__pycache__" in name]
    assert built == []


# Builds a wheel of the modules that are in the build folder: CMake is not asked to make them anew.
WHEEL = """
import runpy, subprocess, sys
subprocess.run = lambda *command, **more: subprocess.CompletedProcess(command, 0)
sys.argv[0] = "setup.py"
runpy.run_path("setup.py", run_name="__main__")
"""


def test_wheel_has_no_emulator(tmp_path: Path) -> None:
    """If this fails, users install what only tests need, or a wheel comes without its engine."""
    environment = {**os.environ, "KERNELPRUNE_BUILD_DIR": str(build_folder())}
    environment.pop("KERNELPRUNE_SANITIZE", None)
    done = subprocess.run(
        [
            *(sys.executable, "-c", WHEEL, "-q", "egg_info", "--egg-base", str(tmp_path)),
            *("build", "--build-base", str(tmp_path / "build")),
            *("bdist_wheel", "-d", str(tmp_path), "-b", str(tmp_path / "bdist")),
        ],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    (wheel,) = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    modules = [Path(name).name.partition(".")[0] for name in names if name.endswith(".so")]
    assert modules == ["_core"]
    assert "kernelprune/runtime/engine.py" in names
    licences = {Path(name).name for name in names if ".dist-info/licenses/" in name}
    assert licences == {"LICENSE", "THIRD_PARTY_NOTICES.md"}
    assert [name for name in names if "emulator" in name] == []
    # Packages read their names from some of these when they are imported; a page is made of others.
    read = {name for name in tracked_files() if name.endswith((".pyi", ".html", ".css"))}
    assert read <= set(names)
    # Nor is it in the engine's own module.
    (core,) = (name for name in names if name.endswith(".so"))
    with zipfile.ZipFile(wheel) as archive:
        assert b"emulated kernel" not in archive.read(core)
    assert importlib.util.find_spec("kernelprune._emulator") is not None  # but here


@pytest.mark.parametrize("in_place", [False, True])
def test_cuda_is_left_out_of_wheels(in_place: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """If this fails, what a wheel holds depends on whether its builder's machine has nvcc, or
    developers have to ask for the CUDA kernels each time."""
    commands: list[list[str]] = []

    def call(self: object, command: list[str]) -> None:
        commands.append(command)
        raise StopIteration  # before anything is built

    monkeypatch.delenv("KERNELPRUNE_CUDA", raising=False)
    monkeypatch.setattr("setuptools.setup", lambda **_: None)
    module = runpy.run_path(str(ROOT / "setup.py"))
    command = module["CMakeBuild"](setuptools.Distribution())
    monkeypatch.setattr(module["CMakeBuild"], "call", call)
    command.inplace, command.extensions = in_place, []
    with pytest.raises(StopIteration):
        command.build_extensions()
    assert f"-DKERNELPRUNE_CUDA={'auto' if in_place else 'off'}" in commands[0]


def test_notices_have_the_licences_of_what_is_compiled_in() -> None:
    """If this fails, a wheel spreads code of others without the notices that they ask for."""
    notices = " ".join((ROOT / "THIRD_PARTY_NOTICES.md").read_text(encoding="utf-8").split())
    files = importlib.metadata.files("pybind11") or []
    (licence,) = (path for path in files if path.name == "LICENSE")
    terms = licence.read_text().split("Please also refer")[0]
    assert " ".join(terms.split()) in notices
    headers = pytest.importorskip("nlohmann_json").get_include()
    holders = set()
    for path in Path(headers).rglob("*.hpp"):
        found = re.findall(r"SPDX-FileCopyrightText: [^A-Z]*(.*?)(?: <|$)", path.read_text(), re.M)
        holders.update(name.split()[-1] for name in found)
    assert "Lohmann" in holders and [name for name in holders if name not in notices] == []


def project() -> dict[str, Any]:
    tomllib = pytest.importorskip("tomllib")  # Python 3.11
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def extras() -> dict[str, list[str]]:
    return project()["optional-dependencies"]


def test_every_extra_has_a_door() -> None:
    """If this fails, nobody notices when an extra alone lacks a package, or the script of the doors
    is no longer one that bash reads."""
    script = ROOT / "bench" / "doors.sh"
    doors = set(re.findall(r"^door_(\w+)\(\)", script.read_text(encoding="utf-8"), re.MULTILINE))
    assert set(extras()) - {"digits", "test", "dev"} <= doors
    done = subprocess.run(["bash", str(script)], capture_output=True, text=True)
    assert done.returncode == 2 and "bench/doors.sh short" in done.stdout
    done = subprocess.run(["bash", str(script), "window"], capture_output=True, text=True)
    assert done.returncode == 1 and "no door window" in done.stderr


def test_citation_names_the_project() -> None:
    """If this fails, citations name another project, or the file is no YAML."""
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert (citation["title"], citation["cff-version"]) == (project()["name"], "1.2.0")
    assert citation["repository-code"] == project()["urls"]["Source"]
    assert citation["license"] == project()["license"].split(" AND ")[0]


def brought_by(extra: str) -> set[str]:
    """Packages of an extra and of those that it includes."""
    found: set[str] = set()
    for entry in extras()[extra]:
        name, _, inner = re.split(r"([\[<>=; ])", entry, maxsplit=1)
        if name == "kernelprune":
            found = found.union(*(brought_by(other) for other in inner.split("]")[0].split(",")))
        else:
            found.add(name.lower())
    return found


def test_messages_name_the_smallest_extra() -> None:
    """If this fails, a missing package of a few kB is answered with an order for gigabytes."""
    packages = {"PIL": "pillow", "yaml": "pyyaml", "sklearn": "scikit-learn", "MNN": "mnn"}
    sizes = {extra: len(brought_by(extra)) for extra in extras()}
    for module, extra in EXTRAS.items():
        package = packages.get(module, module)
        having = [name for name in sizes if package in brought_by(name)]
        assert extra in having and sizes[extra] == min(sizes[name] for name in having), module
        assert f"'kernelprune[{extra}]'" in missing_package(ModuleNotFoundError(name=module))
    assert brought_by("cli") == {"typer", "rich", "pillow"}
    assert missing_package(ModuleNotFoundError(name="x.y")).endswith("pip install x")


def test_declared_packages_are_used() -> None:
    """If this fails, users install packages for nothing."""
    modules = {package: module for module, package in (
        ("PIL", "pillow"), ("yaml", "pyyaml"), ("sklearn", "scikit-learn"), ("MNN", "mnn"),
    )}  # fmt: skip
    sources = "\n".join(path.read_text() for path in (ROOT / "kernelprune").rglob("*.py"))
    for package in brought_by("all"):
        name = modules.get(package, package)
        assert re.search(rf"\b(import|from) {name}\b", sources) or f'"{name}"' in sources, package
