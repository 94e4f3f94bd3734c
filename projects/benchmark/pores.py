"""A drawn film with small pores, and a script that counts the pores visible on a canvas."""

import numpy as np

from .stand_in import LEVEL, NOISE

FILM = (1091, 4953)  # height, width in px, of a digitised weld
DEPTH = 3000  # gray levels
COUNT = 60
# Reads the pixels of the canvas from a copy, since frequent reading would slow the canvas down.
COPIED = """() => {
  const {width, height} = document.getElementById('pixels'), copy = new OffscreenCanvas(width, height);
  const context = copy.getContext('2d', {willReadFrequently: true});
  context.drawImage(document.getElementById('pixels'), 0, 0);
  return context.getImageData(0, 0, width, height);
}"""
# Counts the pores, given as [x, y, side], that have at least half of their contrast on the canvas.
SEEN = """([pores, depth, shape]) => {
  const {width, height, data} = (COPIED)();
  const scale = Math.min(width / shape[1], height / shape[0]) * .96;
  const left = (width - shape[1] * scale) / 2, top = (height - shape[0] * scale) / 2;
  const values = (x0, y0, x1, y1) => {
    const found = [];
    for (let y = Math.max(Math.floor(y0), 0); y < Math.min(y1, height); y++) {
      for (let x = Math.max(Math.floor(x0), 0); x < Math.min(x1, width); x++) {
        found.push(data[4 * (y * width + x)]);
      }
    }
    return found.sort((a, b) => a - b);
  };
  return pores.filter(([x, y, side]) => {
    const u = left + x * scale, v = top + y * scale, wide = side * scale;
    const around = values(u - 8, v - 8, u + wide + 8, v + wide + 8);
    return around[around.length >> 1] - values(u, v, u + wide, v + wide)[0] >= depth / 2;
  }).length;
}""".replace('COPIED', COPIED)


def film(side: int, depth: int = DEPTH) -> tuple[np.ndarray, list[tuple[int, int, int]]]:
    """Draw a noisy film with pores.

    Args:
        side: Side of a pore, px.
        depth: Gray levels by which a pore is darker.

    Returns:
        The film, (H, W) uint16, and (x, y, side) of each pore in px.
    """
    rng = np.random.default_rng(0)
    pixels = rng.normal(LEVEL, NOISE, FILM)
    places: list[tuple[int, int, int]] = []
    while len(places) < COUNT:
        x, y = int(rng.integers(40, FILM[1] - 40)), int(rng.integers(40, FILM[0] - 40))
        if all(abs(x - a) > 60 or abs(y - b) > 60 for a, b, _ in places):
            places.append((x, y, side))
            pixels[y : y + side, x : x + side] -= depth
    return pixels.round().clip(0, 65535).astype(np.uint16), places


def contrast(pixels: np.ndarray, depth: int = DEPTH) -> float:
    """Return a pore's depth in the 255 gray levels of the screen, if the screen shows the film's range."""
    return float(depth * 255 / (int(pixels.max()) - int(pixels.min())))
