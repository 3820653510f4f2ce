"""Builds the Swift package and puts its one shared object into the Python package as usae/_usae.abi3.so.

Everything that does not need Swift is in pyproject.toml. Environment variables:

SWIFT       the `swift` to build with, where it is not on PATH
USAE_BLAS   `system` links the OpenBLAS that pkg-config finds, `scipy` bundles the one of the scipy-openblas32 wheel;
            by default the system's where there is one
USAE_GLIBC  oldest glibc to run with, such as `2.27`, for a wheel to give away; by default the one that is here, or later
"""

import os
import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.command.sdist import sdist

ROOT = Path(__file__).resolve().parent
OLDEST_SWIFT = (6, 3)
SWIFT_FOLDERS = ["/opt/swift/usr/bin", "/usr/local/swift/usr/bin", "~/.local/share/swiftly/bin"]


def find_swift() -> str:
    """Path of a Swift that is new enough."""
    path = os.pathsep.join([os.environ.get("PATH", os.defpath), *map(os.path.expanduser, SWIFT_FOLDERS)])
    name = os.environ.get("SWIFT") or "swift"
    swift = shutil.which(name, path=path)
    oldest = ".".join(map(str, OLDEST_SWIFT))
    if swift is None:
        raise SystemExit(
            f"usae is built with Swift {oldest} or later, and there is no {name!r} here.\n"
            "Install it from https://www.swift.org/install, then put it on PATH or its path into the variable SWIFT."
        )
    words = subprocess.run([swift, "--version"], capture_output=True, text=True).stdout
    version = re.search(r"Swift version (\d+)\.(\d+)", words)
    if version is None or tuple(map(int, version.groups())) < OLDEST_SWIFT:
        raise SystemExit(f"usae is built with Swift {oldest} or later; {swift} says {words.strip() or 'nothing'!r}.")
    return swift


def has_system_openblas() -> bool:
    pkg_config = shutil.which("pkg-config")
    return pkg_config is not None and subprocess.run([pkg_config, "--exists", "openblas"]).returncode == 0


def scipy_openblas() -> Path | None:
    """The OpenBLAS to bundle, or None to link the system's."""
    choice = os.environ.get("USAE_BLAS") or ("system" if has_system_openblas() else "scipy")
    if choice not in ("system", "scipy"):
        raise SystemExit(f"USAE_BLAS: expected 'system' or 'scipy', got {choice!r}.")
    if choice == "system":
        return None
    import scipy_openblas32

    return Path(scipy_openblas32.get_lib_dir(), scipy_openblas32.get_library(fullname=True))


class BuildSwift(build_ext):
    def build_extension(self, ext: Extension) -> None:
        swift, openblas = find_swift(), scipy_openblas()
        environment = dict(os.environ, USAE_PYTHON_INCLUDE=sysconfig.get_path("include"))
        environment["PATH"] = str(Path(swift).parent) + os.pathsep + environment.get("PATH", os.defpath)
        for name in ("CC", "CXX", "CFLAGS", "CPPFLAGS", "LDFLAGS"):  # meant for gcc; SwiftPM has its own clang
            environment.pop(name, None)
        environment.pop("USAE_SCIPY_OPENBLAS_LIB", None)
        if openblas is not None:
            environment["USAE_SCIPY_OPENBLAS_LIB"] = str(openblas.parent)

        command = [swift, "build", "-c", "release", "--product", "usae_python", "--package-path", str(ROOT)]
        glibc = os.environ.get("USAE_GLIBC") if sys.platform == "linux" else None
        scratch = ROOT / (".build-wheel" + ("" if openblas is None else "-scipy") + (f"-glibc-{glibc}" if glibc else ""))
        command += ["--scratch-path", str(scratch)]
        if sys.platform == "linux":
            # Not --static-swift-stdlib, which SwiftPM ignores for a dynamic library. -s drops symbols nobody can use.
            command += ["-Xswiftc", "-static-stdlib", "-Xlinker", "-s"]
        if glibc:
            clang = str(Path(swift).resolve().with_name("clang"))
            stubs = [sys.executable, ROOT / "tools" / "old_glibc.py", glibc, scratch / "glibc", "--clang", clang]
            subprocess.run(stubs, check=True)
            command += ["-Xswiftc", f"-L{scratch / 'glibc'}"]
        subprocess.run(command, check=True, env=environment)
        folder = subprocess.run(
            [*command, "--show-bin-path"], check=True, env=environment, stdout=subprocess.PIPE, text=True
        ).stdout.strip()

        target = Path(self.get_ext_fullpath(ext.name))
        target.parent.mkdir(parents=True, exist_ok=True)
        target.unlink(missing_ok=True)  # a running Python may have the old file mapped
        shutil.copy2(Path(folder, "libusae_python" + (".dylib" if sys.platform == "darwin" else ".so")), target)
        if openblas is not None:
            shutil.copy2(openblas, target.parent)  # found through the extension's RUNPATH, $ORIGIN


class SourceDistribution(sdist):
    """Keeps links to folders. setuptools by itself follows them, and takes each folder only under the first name it meets."""

    def make_release_tree(self, base_dir: str, files: list[str]) -> None:
        super().make_release_tree(base_dir, files)
        kernels = Path("Sources", "Kernels")
        shutil.rmtree(base_dir / kernels)
        shutil.copytree(ROOT / kernels, base_dir / kernels, symlinks=True)


setup(
    ext_modules=[Extension("usae._usae", sources=[], py_limited_api=True)],
    cmdclass={"build_ext": BuildSwift, "sdist": SourceDistribution},
    options={"bdist_wheel": {"py_limited_api": "cp311"}},
)
