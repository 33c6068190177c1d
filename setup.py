"""Builds ``kernelprune._core`` with CMake; everything else is in pyproject.toml. In place (and with
sanitizers) it also builds ``kernelprune._emulator``, which only tests need: no wheel has it.

Environment variables passed on to CMake (see CMakeLists.txt): ``KERNELPRUNE_CUDA``,
``KERNELPRUNE_CUDA_ARCHITECTURES``, ``KERNELPRUNE_SANITIZE``, ``KERNELPRUNE_WERROR``.
``KERNELPRUNE_BUILD_DIR`` moves the build folder, ``CMAKE_BUILD_PARALLEL_LEVEL`` limits the compiler
processes. What others get, a wheel or what pip installs, is without CUDA, whatever the machine that
builds it has; ``KERNELPRUNE_CUDA=on pip install .`` is with it. In place the default is ``auto``.

Why not the setuptools plugin of scikit-build-core (1.1): it empties its build folder before each
build, so that each `make build` would compile everything; that folder is not ours to name, as the
sanitized build beside the usual one needs; nor are the targets, of which a wheel has one less.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).resolve().parent


def find_tool(name: str) -> str:
    """Path of ``cmake`` or ``ninja``: the one beside this Python first, then the system's."""
    beside = Path(sys.executable).parent / name
    found = shutil.which(name) or (str(beside) if beside.exists() else None)
    try:
        package = __import__(name)
        folder = getattr(package, "CMAKE_BIN_DIR", None) or getattr(package, "BIN_DIR", "")
        found = shutil.which(name, path=folder) or found
    except ImportError:
        pass
    if found is None:
        raise SystemExit(f"{name} not found: pip install {name}")
    return found


def cmake_options(cuda: str) -> list[str]:
    """Every option is passed every time, so that the cache never remembers an earlier choice.
    ``cuda``: what ``KERNELPRUNE_CUDA`` is unless the environment says otherwise."""
    import pybind11

    try:
        import nlohmann_json

        json_include = str(nlohmann_json.get_include())
    except ImportError:  # CMake then looks for the system's (Debian: nlohmann-json3-dev)
        json_include = ""
    environment = os.environ.get
    options = {
        "CMAKE_BUILD_TYPE": "Release",
        "CMAKE_MAKE_PROGRAM": find_tool("ninja"),
        "Python_EXECUTABLE": sys.executable,
        "PYBIND11_FINDPYTHON": "ON",
        "pybind11_DIR": pybind11.get_cmake_dir(),
        "KERNELPRUNE_JSON_INCLUDE": json_include,
        "KERNELPRUNE_CUDA": environment("KERNELPRUNE_CUDA", cuda),
        "KERNELPRUNE_CUDA_ARCHITECTURES": environment("KERNELPRUNE_CUDA_ARCHITECTURES", "80;90"),
        "KERNELPRUNE_SANITIZE": environment("KERNELPRUNE_SANITIZE", ""),
        "KERNELPRUNE_WERROR": environment("KERNELPRUNE_WERROR", "OFF"),
    }
    return [f"-D{name}={value}" for name, value in options.items()]


class CMakeBuild(build_ext):
    """Configures and builds in one folder that stays, so that a second build is incremental."""

    def finalize_options(self) -> None:
        if self.inplace or self.editable_mode or os.environ.get("KERNELPRUNE_SANITIZE"):
            self.distribution.ext_modules.append(Extension("kernelprune._emulator", []))
        super().finalize_options()

    def build_extensions(self) -> None:
        default = ROOT / "build" / f"cmake-{sysconfig.get_config_var('SOABI')}"
        build_dir = Path(os.environ.get("KERNELPRUNE_BUILD_DIR", default)).resolve()
        cmake = find_tool("cmake")
        configure = [cmake, "-S", str(ROOT), "-B", str(build_dir), "-G", "Ninja"]
        in_place = self.inplace or self.editable_mode
        self.call([*configure, *cmake_options("auto" if in_place else "off")])
        jobs = os.environ.get("CMAKE_BUILD_PARALLEL_LEVEL") or str(os.cpu_count() or 1)
        modules = {ext.name: ext.name.rpartition(".")[2] for ext in self.extensions}
        self.call(
            [cmake, "--build", str(build_dir), "--parallel", jobs, "--target", *modules.values()]
        )
        for name, module in modules.items():
            built = list(build_dir.glob(f"{module}.*.so"))
            if len(built) != 1:
                raise SystemExit(f"expected one built {module} in {build_dir}, found {built}")
            target = Path(self.get_ext_fullpath(name))
            target.parent.mkdir(parents=True, exist_ok=True)
            self.copy_file(str(built[0]), str(target))

    def call(self, command: list[str]) -> None:
        """Runs one command; a failing one ends the build without a Python traceback."""
        if subprocess.run(command, cwd=ROOT).returncode != 0:
            raise SystemExit(f"the C++ build failed (see above): {' '.join(command[:3])} ...")


setup(ext_modules=[Extension("kernelprune._core", [])], cmdclass={"build_ext": CMakeBuild})
