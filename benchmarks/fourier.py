"""Compares our transforms of images with SciPy's, with one thread each: python benchmarks/fourier.py.

An image has three planes. Both libraries transform in float32. The results are first compared with NumPy's in float64, and the
program ends with status 1 if one differs by more than float32 rounding. Times are medians of one run, in which the two take
turns. SciPy allocates its result in each call; ours is written to an array of the caller. See README.md.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable

import numpy as np
import scipy.fft

from usae import _usae

PLANES = 3
SIZES = (224, 512, 518, 1024)
TOLERANCE = 1e-6  # norm of the difference, divided by the norm
SECONDS = 1.0  # for each pair of timings


def medians(*calls: Callable[[], object]) -> list[float]:
    """Return the median time of each call in milliseconds, measured in turns."""
    times: list[list[float]] = [[] for _ in calls]
    end = time.perf_counter() + SECONDS
    while time.perf_counter() < end or len(times[0]) < 5:
        for call, own in zip(calls, times, strict=True):
            start = time.perf_counter()
            call()
            own.append(1e3 * (time.perf_counter() - start))
    return [statistics.median(own) for own in times]


def distance(ours: np.ndarray, expected: np.ndarray) -> float:
    return float(np.linalg.norm(ours - expected) / np.linalg.norm(expected))


def main() -> int:
    worst = 0.0
    print(f"float32 [{PLANES}, n, n], one thread, kernels {_usae.kernels()}, SciPy {scipy.__version__}")
    print(f"{'':<16} {'usae ms':>9} {'scipy ms':>9} {'scipy/usae':>11} {'GFLOP/s':>8} {'apart':>9}")
    for n in SIZES:
        image = np.random.default_rng(0).standard_normal((PLANES, n, n)).astype(np.float32)
        re, im = (np.empty((PLANES, n, n // 2 + 1), np.float32) for _ in range(2))
        back = np.empty_like(image)
        _usae.rfft2(image, re, im, 1)
        spectrum = re + 1j * im
        _usae.irfft2(re, im, back, 1)
        flops = PLANES * 2.5 * n * n * np.log2(n * n)  # the usual count, half of that of a complex transform
        forward = distance(spectrum, np.fft.rfft2(image.astype(np.float64)))
        inverse = distance(back, np.fft.irfft2(spectrum.astype(np.complex128), s=(n, n)))
        timings = {
            "forward": (forward, lambda: _usae.rfft2(image, re, im, 1), lambda: scipy.fft.rfft2(image)),  # noqa: B023
            "inverse": (
                inverse,
                lambda: _usae.irfft2(re, im, back, 1),  # noqa: B023
                lambda: scipy.fft.irfft2(spectrum, s=(n, n)),  # noqa: B023
            ),
        }
        for name, (apart, ours, theirs) in timings.items():
            worst = max(worst, apart)
            if apart > TOLERANCE:
                continue
            own, other = medians(ours, theirs)
            print(f"{name} {n:<8} {own:9.3f} {other:9.3f} {other / own:11.2f} {flops / own / 1e6:8.1f} {apart:9.1e}")
    print(f"largest difference {worst:.1e}, allowed {TOLERANCE:.0e}")
    return int(worst > TOLERANCE)


if __name__ == "__main__":
    sys.exit(main())
