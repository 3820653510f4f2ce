"""Steps of an image in PyTorch: from free numbers to views, in float64 and by autograd."""

import torch
import torch.nn.functional as F

MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.3, 0.25)
COLOURS = torch.tensor(
    [[0.56282854, 0.58447580, 0.58447580], [0.19482528, 0, -0.19482528], [0.04329450, -0.10823626, 0.06494176]],
    dtype=torch.float64,
)


class Eye:
    """What a maximizer needs to know of a model."""

    mean, std = MEAN, STD

    def __init__(self, *size):
        self.size = size


class Reference:
    """The whole way from free numbers to views, in float64 and by autograd."""

    def __init__(self, kind, image, magnitude, steps, learning_rate):
        self.kind, self.magnitude = kind, magnitude
        image = torch.tensor(image, dtype=torch.float64)
        self.height, self.width = image.shape[1:]
        # First numbers from the first image: logits, planes, spectra, phases.
        planes = torch.einsum("jhw,ji->ihw", torch.logit(image), torch.linalg.inv(COLOURS))
        spectrum = torch.fft.rfft2(planes)
        if kind == "phase":
            self.free = [torch.angle(spectrum), 10 * planes.mean((1, 2))]  # a mean moves a tenth as fast
        elif kind == "fourier":
            self.free = [spectrum.real / magnitude, spectrum.imag / magnitude]
        else:
            self.free = [planes]
        for numbers in self.free:
            numbers.requires_grad_()
        self.optimizer = torch.optim.NAdam(self.free, lr=learning_rate, eps=1e-12)
        self.schedule = torch.optim.lr_scheduler.CosineAnnealingLR(self.optimizer, steps)

    def planes(self):
        if self.kind == "pixels":
            return self.free[0]
        if self.kind == "fourier":
            return torch.fft.irfft2(torch.complex(*self.free) * self.magnitude, s=(self.height, self.width))
        z = torch.polar(self.magnitude, self._tied(self.free[0]))
        z = torch.where(self._fixed(z), z.detach().real.to(z.dtype), z)
        mean = torch.zeros_like(z)
        mean[:, 0, 0] = 1
        z = z * (1 - mean) + mean * (0.1 * self.height * self.width * self.free[1])[:, None, None]
        return torch.fft.irfft2(z, s=(self.height, self.width))

    def _columns(self):
        return [0, self.width // 2] if self.width % 2 == 0 else [0]

    def _tied(self, phases):
        """Opposite frequencies have opposite phases."""
        tied = phases.clone()
        for column in self._columns():
            for y in range(1, (self.height + 1) // 2):
                tied[:, self.height - y, column] = -phases[:, y, column]
        return tied

    def _fixed(self, z):
        """Frequencies that are their own opposites."""
        mask = torch.zeros(z.shape, dtype=torch.bool)
        for column in self._columns():
            mask[:, 0, column] = True
            if self.height % 2 == 0:
                mask[:, self.height // 2, column] = True
        return mask

    def image(self):
        return torch.sigmoid(torch.einsum("ihw,ij->jhw", self.planes(), COLOURS))

    def step(self, slopes, boxes, sizes):
        """One step along the gradient that `slopes` gives for views; that gradient of the image, and of the planes."""
        self.optimizer.zero_grad()
        planes = self.planes()
        planes.retain_grad()
        image = torch.sigmoid(torch.einsum("ihw,ij->jhw", planes, COLOURS))
        total = torch.zeros_like(image)
        for size in sizes:
            seen = views(image, boxes, size)
            gradient = torch.autograd.grad(seen, image, slopes(seen.detach()), retain_graph=True)[0]
            total += gradient / gradient.norm()
        image.backward(-total)  # PyTorch goes downhill
        self.optimizer.step()
        self.schedule.step()
        return total.numpy(), -planes.grad.numpy()


def views(image, boxes, size):
    crops = [image[None, :, t : t + h, l : l + w] for t, l, h, w in boxes.tolist()]  # noqa: E741
    seen = [F.interpolate(crop, size=size, mode="bilinear", antialias=True, align_corners=False)[0] for crop in crops]
    mean, std = (torch.tensor(x, dtype=image.dtype)[:, None, None] for x in (MEAN, STD))
    return (torch.stack(seen) - mean) / std


def slopes(seen):
    """A gradient that depends on the views in no simple way: differences between images grow."""
    return torch.tanh(seen) * torch.cos(torch.arange(seen.numel(), dtype=torch.float64)).reshape(seen.shape) + 0.1 * seen
