"""Helpers of hooks that draw pictures: fixed random draws, a model's input size, figures as arrays."""

import io
import random
from contextlib import contextmanager

import numpy as np
import torch
from matplotlib.figure import Figure
from mmengine.model import is_model_wrapper
from PIL import Image

from projects.xray.seeding import seed_generators


@contextmanager
def _fixed_draws():
    """Draw the same random numbers each time, and restore the generators afterwards."""
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()
    seed_generators(0)
    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
        torch.set_rng_state(states[2])


def _view_size(dataset) -> int:
    """Side of the model's training input, px."""
    with _fixed_draws():
        inputs = dataset[0]['inputs']
    return int((inputs[0] if isinstance(inputs, list) else inputs).shape[-1])


def _unwrap(model: torch.nn.Module) -> torch.nn.Module:
    return model.module if is_model_wrapper(model) else model


def _figure(width: float, height: float):
    figure = Figure(figsize=(width, height), dpi=100, layout='constrained')
    return figure, figure.subplots()


def _pixels(figure: Figure) -> np.ndarray:
    """Return a figure as (H, W, 3) uint8 RGB."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format='png')
    return np.asarray(Image.open(buffer).convert('RGB'))
