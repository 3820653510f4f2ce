"""Feature visualisation by MACO (Fel et al., arXiv 2306.06805) as its reference implementations do it, in PyTorch.

The phases of the whole half spectrum are free, also where two of them belong to a frequency and its opposite. They start from a
normal distribution and are standardised in every step, like the image. Centres of crops have a normal distribution. The
magnitude is the template of `usae.Maximizer`, instead of the one that those implementations download.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch.nn import functional as F

COLOURS = torch.tensor(
    [[0.56282854, 0.58447580, 0.58447580], [0.19482528, 0.0, -0.19482528], [0.04329450, -0.10823626, 0.06494176]]
)
Slope = Callable[[np.ndarray], np.ndarray]


def template(side: int) -> torch.Tensor:
    down = np.abs(np.fft.fftfreq(side))[:, None]
    frequency = np.hypot(down, np.fft.rfftfreq(side)[None])
    size = np.maximum(frequency, 1 / 512) ** -1.25 * np.exp(-((frequency / 0.22) ** 2))
    size[0, 0] = 0
    return torch.tensor(size * np.array([1, 1.05, 0.83])[:, None, None], dtype=torch.float32)


def maximize(
    slope: Slope, *, canvas: int, size: int, steps: int, views: int, crops: tuple[float, float], noise: float, seed: int
) -> np.ndarray:
    """Optimise an image, [3, canvas, canvas] in 0..1. `slope` returns the gradient for views, [views, 3, size, size]."""
    generator = torch.Generator().manual_seed(seed)
    phase = torch.randn(3, canvas, canvas // 2 + 1, generator=generator).requires_grad_()
    magnitude = template(canvas)
    optimizer = torch.optim.NAdam([phase], lr=1.0, maximize=True)
    for step in range(steps):
        image = _image(phase, magnitude)
        side = max(2, round((crops[0] + (crops[1] - crops[0]) * step / max(1, steps - 1)) * canvas))
        seen = torch.cat([_crop(image, side, size, generator) for _ in range(views)])
        seen = seen + noise * torch.randn(seen.shape, generator=generator)
        seen = seen + noise * (torch.rand(seen.shape, generator=generator) - 0.5)
        gradient = torch.from_numpy(slope(seen.detach().numpy()))
        optimizer.zero_grad()
        seen.backward(gradient)
        optimizer.step()
    return _image(phase, magnitude).detach().numpy()


def _image(phase: torch.Tensor, magnitude: torch.Tensor) -> torch.Tensor:
    phase = (phase - phase.mean()) / (phase.std() + 1e-5)
    planes = torch.fft.irfft2(torch.polar(magnitude, phase), s=(magnitude.shape[1],) * 2)
    planes = (planes - planes.mean()) / (planes.std() + 1e-4)
    return torch.sigmoid(torch.einsum("ihw,ij->jhw", planes, COLOURS))


def _crop(image: torch.Tensor, side: int, size: int, generator: torch.Generator) -> torch.Tensor:
    canvas = image.shape[1]
    centre = canvas * (0.5 + 0.15 * torch.randn(2, generator=generator))
    top, left = (int(min(max(c - side / 2, 0), canvas - side)) for c in centre.tolist())
    part = image[None, :, top : top + side, left : left + side]
    return F.interpolate(part, size=(size, size), mode="bilinear", antialias=True)
