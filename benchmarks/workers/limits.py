"""Measures the speed of float32 products in one BLAS, and memory bandwidth.

Each worker loads one library, because OpenBLAS's threads spin after a product and would slow another library down.
"""

import ctypes
import ctypes.util
import platform

import numpy as np
import serving
import threadpoolctl
import torch

ROW_MAJOR, NO_TRANSPOSE, TRANSPOSE = 101, 111, 112

LIBRARIES = ("numpy", "torch", "system OpenBLAS", "scipy-openblas32")

arrays, blas = {}, {}


def _pointer(array):
    return array.ctypes.data_as(ctypes.POINTER(ctypes.c_float))


def _openblas(library, prefix):
    """Return a function that computes x @ weight.T by cblas_sgemm of an OpenBLAS with 32-bit integers."""
    sgemm = getattr(library, f"{prefix}cblas_sgemm")

    def product(x, weight, out):
        (n, width), n_concepts = x.shape, len(weight)
        integers = [ctypes.c_int(value) for value in (ROW_MAJOR, NO_TRANSPOSE, TRANSPOSE, n, n_concepts, width)]
        sgemm(
            *integers, ctypes.c_float(1), _pointer(x), ctypes.c_int(width), _pointer(weight), ctypes.c_int(width),
            ctypes.c_float(0), _pointer(out), ctypes.c_int(n_concepts)
        )  # fmt: skip

    return product


def load(name):
    """Load one of LIBRARIES. Returns whether it is installed."""
    if name == "numpy":
        blas["sgemm"] = lambda x, weight, out: np.matmul(x, weight.T, out=out)
    elif name == "torch":
        t = torch.from_numpy
        blas["sgemm"] = lambda x, weight, out: torch.mm(t(x), t(weight).T, out=t(out))
    elif name == "system OpenBLAS":
        path = ctypes.util.find_library("openblas")
        if path is None:
            return False
        blas["sgemm"] = _openblas(ctypes.CDLL(path), "")
    else:
        try:
            import scipy_openblas32
        except ImportError:
            return False
        path = f"{scipy_openblas32.get_lib_dir()}/{scipy_openblas32.get_library(fullname=True)}"
        blas["sgemm"] = _openblas(ctypes.CDLL(path), "scipy_")
    return True


def info():
    mkl = "MKL" if torch.backends.mkl.is_available() else "no MKL"
    loaded = [
        f"{library['prefix']} {library.get('version') or '?'} {library.get('architecture') or ''}".strip()
        for library in threadpoolctl.threadpool_info()
        if library["user_api"] == "blas"
    ]
    return {
        "python": platform.python_version(),
        "numpy": np.__version__,
        "torch": f"{torch.__version__} ({mkl})",
        "loaded": "; ".join(loaded),
    }


def set_threads(threads):
    torch.set_num_threads(threads)
    threadpoolctl.threadpool_limits(threads)


def make(n_tokens, width, n_concepts):
    random = np.random.default_rng(0)
    arrays["x"] = random.standard_normal((n_tokens, width), dtype=np.float32)
    arrays["weight"] = random.standard_normal((n_concepts, width), dtype=np.float32)
    arrays["out"] = np.empty((n_tokens, n_concepts), np.float32)


def check():
    """Return the largest difference of some products from those in float64, divided by the largest product."""
    blas["sgemm"](arrays["x"], arrays["weight"], arrays["out"])
    expected = arrays["x"][:64].astype(np.float64) @ arrays["weight"].astype(np.float64).T
    return float(np.abs(arrays["out"][:64] - expected).max() / np.abs(expected).max())


def product(count=1):
    """Return the seconds of x @ weight.T into an existing array."""
    return serving.timed(lambda: blas["sgemm"](arrays["x"], arrays["weight"], arrays["out"]), count)


def bandwidth(mib, count):
    """Return bytes per second, read and written, of a copy and of a = b + 2 c in PyTorch, for arrays of this many MiB."""
    a, b, c = (torch.full((mib * 2**18,), value) for value in (0.0, 1.0, 2.0))
    a.copy_(b)  # the first call starts the threads
    copies = serving.timed(lambda: a.copy_(b), count)
    triads = serving.timed(lambda: torch.add(b, c, alpha=2.0, out=a), count)
    return {"copy": [2 * a.nbytes / s for s in copies], "triad": [3 * a.nbytes / s for s in triads]}


if __name__ == "__main__":
    serving.serve({f.__name__: f for f in (load, info, set_threads, make, check, product, bandwidth)})
