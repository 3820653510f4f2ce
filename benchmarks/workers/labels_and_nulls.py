"""Codes that are told the labels, and shuffled labels and positions: ceilings and nulls of VISAEBench's metrics."""

import numpy as np
import torch


def told(labels, tokens):
    """Codes of perfect concepts: one for each class and one for each kind, in every token of an image that shows it."""
    hot = np.concatenate([np.eye(max(labels[which]) + 1)[labels[which]] for which in ("classes", "kinds")], axis=1)
    return torch.from_numpy(hot.astype(np.float32))[:, None].repeat(1, tokens, 1)


def squares(n_images, side, shape, random):
    """Codes of one concept that fires in one rectangle of each image, at a random place."""
    codes = torch.zeros(n_images, side, side, 1)
    for image in codes:
        top, left = (random.integers(0, side - length, endpoint=True) for length in shape)
        image[top : top + shape[0], left : left + shape[1]] = 1
    return codes.reshape(n_images, side * side, 1)


def shuffled_positions(codes, random):
    return torch.stack([image[torch.from_numpy(random.permutation(len(image)))] for image in codes])


def shuffled_within(values, groups, random):
    """Exchange the values of images of the same group."""
    values, groups = np.array(values), np.asarray(groups)
    for group in np.unique(groups):
        members = np.flatnonzero(groups == group)
        values[members] = values[random.permutation(members)]
    return values


def shuffled_kinds(labels, random):
    """Exchange the kinds of photographs. Crops of one photograph still have the same one."""
    photographs, kinds = (np.asarray(labels[which]) for which in ("photographs", "kinds"))
    of_photograph = np.array([kinds[np.flatnonzero(photographs == p)[0]] for p in range(photographs.max() + 1)])
    return random.permutation(of_photograph)[photographs]
