"""Figures of the demonstration's results, drawn with matplotlib."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from usae import Evaluation, plot
from usae.demo.concepts import Example
from usae.demo.photographs import Crops
from usae.plot._heat import spotlight

DPI = 110


def cross_reconstruction(evaluation: Evaluation, path: Path) -> None:
    """Draw the matrix of held-out R2, encoded from the model of the row and decoded to that of the column."""
    size = len(evaluation.model_names)
    figure = Figure(figsize=(1.6 + 1.1 * size, 1.4 + 1.0 * size), layout="constrained")
    axes = plot.cross_reconstruction(evaluation, ax=figure.subplots())
    axes.set_title(f"R², {evaluation.n_tokens:,} held-out tokens", fontsize=10)
    figure.savefig(path, dpi=DPI)


def training_curves(history: Sequence[Mapping], path: Path) -> None:
    """Draw losses, dead concepts, and the held-out R2 within a model and between models."""
    plot.training(history).savefig(path, dpi=DPI)


def concept_page(
    concept: int,
    title: str,
    shown: Mapping[str, Sequence[Example]],
    crops: Crops,
    path: Path,
    *,
    columns: int,
) -> None:
    """Draw one concept: for each network the crops that fire it most, each beside its heat map."""
    figure = Figure(figsize=(1.1 + 2.3 * columns, 0.5 + 1.3 * len(shown)), layout="constrained")
    figure.suptitle(f"concept {concept}: {title}", fontsize=11)
    axes = figure.subplots(len(shown), 2 * columns, squeeze=False)
    for row, (name, examples) in zip(axes, shown.items(), strict=True):
        for ax in row:
            ax.axis("off")
        row[0].text(-0.12, 0.5, name, transform=row[0].transAxes, rotation=90, ha="center", va="center", fontsize=9)
        peak = max((example.heat.max() for example in examples), default=1)
        for place, example in enumerate(examples):
            row[2 * place].imshow(crops.images[example.crop])
            _heat_map(row[2 * place + 1], crops.images[example.crop], example.heat / peak)
    figure.savefig(path, dpi=DPI)


def overview(
    pages: Sequence[tuple[int, str, Mapping[str, Sequence[Example]]]], crops: Crops, path: Path, *, columns: int
) -> None:
    """Draw all concepts in one figure, with a row for each: heat maps of the best crops of every network, side by side."""
    names = list(pages[0][2])
    per_network = columns + 0.25  # a gap between networks
    figure = Figure(figsize=(1.9 + len(names) * per_network * 0.95, 0.5 + 1.0 * len(pages)))
    left, top = 1.8 / figure.get_figwidth(), 1 - 0.4 / figure.get_figheight()
    cell_width, cell_height = 0.95 / figure.get_figwidth(), 1.0 / figure.get_figheight()
    for n, name in enumerate(names):
        centre = left + (n * per_network + columns / 2) * cell_width
        figure.text(centre, top + 0.1 / figure.get_figheight(), name, ha="center", va="bottom", fontsize=11)
    for r, (concept, title, shown) in enumerate(pages):
        bottom = top - (r + 1) * cell_height
        figure.text(
            left - 0.01,
            bottom + cell_height / 2,
            f"{concept}\n{title}".replace("%, ", "%\n"),
            ha="right",
            va="center",
            fontsize=8,
        )
        for n, name in enumerate(names):
            peak = max((example.heat.max() for example in shown[name]), default=1)
            for c, example in enumerate(shown[name][:columns]):
                x = left + (n * per_network + c) * cell_width
                ax = figure.add_axes((x, bottom + 0.03 * cell_height, 0.94 * cell_width, 0.94 * cell_height))
                _heat_map(ax, crops.images[example.crop], example.heat / peak)
    figure.savefig(path, dpi=DPI)


def _heat_map(axes: Axes, image: np.ndarray, heat: np.ndarray) -> None:
    """Draw a crop in its colours where the concept fires, and in dark grey elsewhere."""
    axes.axis("off")
    axes.imshow(spotlight(image, heat))
