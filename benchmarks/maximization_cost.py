"""Measures the time of an optimisation step of an image without the network: python benchmarks/maximization_cost.py.

A step computes the image from its phases, 16 views of 224 x 224 of a canvas of 512 x 512, gradients of the phases from those of
the views, and a step of NAdam. PyTorch in float32 does the same with irfft2, slices, interpolate and autograd. Both are first
compared, without noise, and the program ends with status 1 if they differ. Times are medians of one run, in which the two take
turns. See README.md.
"""

from __future__ import annotations

import os
import statistics
import sys
import time
from collections.abc import Callable

# On a busy machine, threads that spin would keep the threads that they wait for from running.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import numpy as np  # noqa: E402
import torch
import torch.nn.functional as F

from usae import _usae

CANVAS, SIDE, VIEWS, STEPS = 512, 224, 16, 1 << 20
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
NOISE = 0.05
TOLERANCE = 1e-4  # relative, of the image's gradient and of changes of the image; float32 sums of thousands of numbers
SECONDS = 6.0  # for each pair of timings
PARTS = ("image", "views", "gradient", "step")
COLOURS = [[0.56282854, 0.58447580, 0.58447580], [0.19482528, 0, -0.19482528], [0.04329450, -0.10823626, 0.06494176]]


class Ours:
    def __init__(self, crop: float, noise: float, threads: int):
        self.core = _usae.Maximizer(
            parametrization=_usae.IMAGE_PHASE,
            optimizer=_usae.ASCENT_NADAM,
            height=CANVAS,
            width=CANVAS,
            steps=STEPS,
            views=VIEWS,
            learning_rate=0.3,
            first_crop=crop,
            last_crop=crop,
            noise=noise,
            total_variation=0.0,
            l2=0.0,
            contrast=1.0,
            decorrelate=True,
            seed=0,
            n_threads=threads,
            magnitude=None,
            start=None,
        )
        self.seen = np.empty((VIEWS, 3, SIDE, SIDE), np.float32)
        self.canvas = np.empty((3, CANVAS, CANVAS), np.float32)
        self.boxes = np.empty((VIEWS, 4), np.int64)

    def step(self, gradient: np.ndarray) -> list[float]:
        """Do a step and return the milliseconds of each part."""
        times = [time.perf_counter()]
        for part in (
            lambda: self.core.image(self.canvas),  # timed separately; otherwise the call for views would compute it
            lambda: self.core.views(self.seen, MEAN, STD),
            lambda: self.core.add_gradient(gradient, MEAN, STD, 1.0),
            lambda: self.core.advance(),
        ):
            part()
            times.append(time.perf_counter())
        return [1e3 * (b - a) for a, b in zip(times, times[1:], strict=False)]


class Theirs:
    """The same step in PyTorch, which starts from the phases of an image of ours."""

    def __init__(self, ours: Ours, noise: float):
        ours.core.image(ours.canvas)
        self.noise = noise
        self.colours = torch.tensor(COLOURS)
        self.mean, self.std = (torch.tensor(x)[:, None, None] for x in (MEAN, STD))
        planes = torch.einsum("jhw,ji->ihw", torch.logit(torch.tensor(ours.canvas).double()), self.colours.double().inverse())
        spectrum = torch.fft.rfft2(planes)
        self.magnitude = spectrum.abs().float()
        self.magnitude[:, 0, 0] = 0  # means are separate parameters
        self.means = torch.zeros(3, requires_grad=True)
        self.phases = spectrum.angle().float().requires_grad_()
        self.optimizer = torch.optim.NAdam([self.phases, self.means], lr=0.3, eps=1e-12)
        self.scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(self.optimizer, STEPS)

    def image(self) -> torch.Tensor:
        # In the first and the last column, opposite frequencies have opposite phases.
        flipped, half = -self.phases[:, 1 : CANVAS // 2].flip(1), CANVAS // 2
        edges = [
            torch.cat([self.phases[:, : half + 1, [bin]], flipped[:, :, [bin]]], 1).where(
                self.free(), self.phases[:, :, [bin]].detach()
            )
            for bin in (0, half)
        ]
        phases = torch.cat([edges[0], self.phases[:, :, 1:half], edges[1]], 2)
        planes = torch.fft.irfft2(torch.polar(self.magnitude, phases), s=(CANVAS, CANVAS)) + 0.1 * self.means[:, None, None]
        return torch.sigmoid(torch.einsum("ihw,ij->jhw", planes, self.colours))

    @staticmethod
    def free() -> torch.Tensor:
        free = torch.ones(CANVAS, dtype=torch.bool)
        free[[0, CANVAS // 2]] = False
        return free[None, :, None]

    def step(self, gradient: torch.Tensor, boxes: np.ndarray) -> list[float]:
        times = [time.perf_counter()]
        image = self.image()
        times.append(time.perf_counter())
        crops = [
            F.interpolate(image[None, :, t : t + h, l : l + w], (SIDE, SIDE), mode="bilinear", antialias=True)
            for t, l, h, w in boxes.tolist()  # noqa: E741
        ]
        seen = torch.cat(crops)
        if self.noise:
            seen = seen + self.noise * torch.randn_like(seen)
        seen = (seen - self.mean) / self.std
        times.append(time.perf_counter())
        (slope,) = torch.autograd.grad(seen, image, gradient)
        length = slope.norm()
        times.append(time.perf_counter())
        self.optimizer.zero_grad()
        image.backward(-slope / length)
        self.optimizer.step()
        self.scheduler.step()
        times.append(time.perf_counter())
        self.slope = slope / length
        return [1e3 * (b - a) for a, b in zip(times, times[1:], strict=False)]


def difference(crop: float, gradient: np.ndarray) -> float:
    """Return the difference after three steps, divided by the distance that both have moved. Without noise."""
    ours = Ours(crop, 0.0, 1)
    theirs = Theirs(ours, 0.0)
    first = ours.canvas.copy()
    worst = 0.0
    for _ in range(3):
        ours.core.boxes(ours.boxes)
        theirs.step(torch.from_numpy(gradient), ours.boxes)
        ours.core.add_gradient(gradient, MEAN, STD, 1.0)
        slope, planes = np.empty_like(ours.canvas), np.empty_like(ours.canvas)
        ours.core.gradients(slope, planes)
        worst = max(worst, float(np.linalg.norm(slope - theirs.slope.numpy())))
        ours.core.advance()
    ours.core.image(ours.canvas)
    apart = np.linalg.norm(ours.canvas - theirs.image().detach().numpy()) / np.linalg.norm(ours.canvas - first)
    return max(worst, float(apart))


def medians(steps: list[Callable[[], list[float]]]) -> list[list[float]]:
    """Return the median milliseconds of each part and of the sum, measured in turns."""
    times: list[list[list[float]]] = [[] for _ in steps]
    end = time.perf_counter() + SECONDS
    while time.perf_counter() < end or len(times[0]) < 5:
        for step, own in zip(steps, times, strict=True):
            parts = step()
            own.append([*parts, sum(parts)])
    return [[statistics.median(column) for column in zip(*own[1:], strict=True)] for own in times]


def main() -> int:
    gradient = np.random.default_rng(0).standard_normal((VIEWS, 3, SIDE, SIDE)).astype(np.float32)
    print(
        f"{VIEWS} views of {SIDE} x {SIDE}, canvas {CANVAS} x {CANVAS}, kernels {_usae.kernels()}, PyTorch {torch.__version__}"
    )
    print(
        f"{'crop  threads':<20} " + " ".join(f"{part:>9}" for part in (*PARTS, "all ms")) + f" {'usae/torch':>11} {'apart':>8}"
    )
    worst = 0.0
    for crop in (0.5, 0.1):
        torch.set_num_threads(1)
        apart = difference(crop, gradient)
        worst = max(worst, apart)
        if apart > TOLERANCE:
            continue
        for threads in (1, 2):
            torch.set_num_threads(threads)
            ours = Ours(crop, NOISE, threads)
            theirs = Theirs(ours, NOISE)
            ours.core.boxes(ours.boxes)
            given = torch.from_numpy(gradient)
            own, other = medians([lambda: ours.step(gradient), lambda: theirs.step(given, ours.boxes)])  # noqa: B023
            for name, row in (("usae", own), ("torch", other)):
                end = f" {own[-1] / other[-1]:11.2f} {apart:8.0e}" if name == "usae" else ""
                print(f"{crop:<4} {threads:>2}  {name:<11} " + " ".join(f"{value:9.2f}" for value in row) + end)
    print(f"largest difference {worst:.1e}, allowed {TOLERANCE:.0e}")
    return int(worst > TOLERANCE)


if __name__ == "__main__":
    sys.exit(main())
