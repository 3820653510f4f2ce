"""A library that is linked with what tools/old_glibc.py writes needs no newer glibc, and works here."""

import ctypes
import os
import pathlib
import re
import shutil
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[3]
SWIFTS_CLANG = shutil.which("clang", path=os.pathsep.join([os.environ.get("PATH", os.defpath), "/opt/swift/usr/bin"]))

# A new version of each of these came with glibc 2.29 to 2.34; `stat` and its kind were no functions before 2.33.
SOURCE = r"""
#include <dlfcn.h>
#include <math.h>
#include <pthread.h>
#include <string.h>
#include <sys/stat.h>

static void *work(void *argument) {
  double *x = argument;
  *x = pow(*x, 3) + exp(log(*x));
  return 0;
}
static pthread_once_t once = PTHREAD_ONCE_INIT;
static int times;
static void count(void) { times++; }

double raised(double x) {
  pthread_t thread;
  if (pthread_create(&thread, 0, work, &x) || pthread_join(thread, 0)) return -1;
  return x;
}
int counted(void) { pthread_once(&once, count); pthread_once(&once, count); return times; }
int has_symbol(const char *name) { void *self = dlopen(0, RTLD_NOW); return self && dlsym(self, name) && !dlclose(self); }
long size_of(const char *path, int how, int file) {
  struct stat found;
  memset(&found, 0xff, sizeof found);
  int failed = how == 0 ? stat(path, &found) : how == 1 ? lstat(path, &found) : fstat(file, &found);
  return failed ? -1 : (long)found.st_size;
}
"""


@pytest.mark.skipif(SWIFTS_CLANG is None or sys.platform != "linux", reason="needs clang and Linux")
@pytest.mark.parametrize("newest", ["2.17", "2.27"])
def test_a_library_needs_no_newer_glibc_than_asked_for_and_works(newest, tmp_path):
    folder, library = tmp_path / "an old glibc", tmp_path / "library.so"
    (tmp_path / "library.c").write_text(SOURCE)
    subprocess.run([sys.executable, ROOT / "tools/old_glibc.py", newest, folder, "--clang", SWIFTS_CLANG], check=True)
    command = [SWIFTS_CLANG, "-shared", "-fPIC", f"-L{folder}", tmp_path / "library.c", "-o", library]
    subprocess.run([*command, "-lm", "-lpthread", "-ldl"], check=True)
    text = subprocess.run(["readelf", "--wide", "--version-info", library], check=True, capture_output=True, text=True).stdout
    versions = {tuple(map(int, version.split("."))) for version in re.findall(r"GLIBC_([\d.]+)", text)}
    assert versions and max(versions) <= tuple(map(int, newest.split(".")))

    loaded = ctypes.CDLL(os.fspath(library))
    loaded.raised.restype, loaded.raised.argtypes = ctypes.c_double, [ctypes.c_double]
    loaded.size_of.restype, loaded.size_of.argtypes = ctypes.c_long, [ctypes.c_char_p, ctypes.c_int, ctypes.c_int]
    assert loaded.raised(2.0) == pytest.approx(10.0)
    assert loaded.counted() == 1
    assert loaded.has_symbol(b"Py_Initialize") and not loaded.has_symbol(b"no_such_symbol")
    link = tmp_path / "link"
    link.symlink_to("library.c")
    with (tmp_path / "library.c").open() as file:
        assert loaded.size_of(bytes(link), 0, -1) == len(SOURCE)
        assert loaded.size_of(bytes(link), 1, -1) == len("library.c")
        assert loaded.size_of(b"", 2, file.fileno()) == len(SOURCE)
    assert loaded.size_of(b"/no/such/file", 0, -1) == -1
