// The values that each pixel of the screen shows, at any zoom.
//
// Beyond 1:1 the nearest pixel of the radiograph. Below, of the pixels that fall into one of the screen, that
// which lies farthest from their mean if it stands out of the noise, else the mean: a pore of a few pixels
// stays at its full contrast, and what is noise alone is averaged.

export const STANDS_OUT = 4;  // standard deviations of the noise

/**
 * Values of a part of the screen.
 * @param view {scale, left, top}: px of the screen per px of the radiograph, and where that begins.
 * @param width, height Of the screen, px.
 * @returns {x, y, width, height, values}: the region that the radiograph covers, its values as Float32Array.
 */
export function sample(image, view, width, height) {
  const x = clamp(Math.floor(view.left), 0, width), y = clamp(Math.floor(view.top), 0, height);
  const right = clamp(Math.ceil(view.left + image.width * view.scale), x, width);
  const bottom = clamp(Math.ceil(view.top + image.height * view.scale), y, height);
  const region = {x, y, width: right - x, height: bottom - y};
  region.values = new Float32Array(region.width * region.height);
  if (view.scale >= 1) nearest(image, view, region); else reduced(image, view, region);
  return region;
}

const clamp = (v, low, high) => Math.min(Math.max(v, low), high);

function nearest(image, view, {x, y, width, height, values}) {
  const pixels = image.levels[0].mean;
  const columns = Int32Array.from({length: width}, (_, c) =>
    clamp(Math.floor((x + c + .5 - view.left) / view.scale), 0, image.width - 1));
  for (let r = 0, k = 0; r < height; r++) {
    const row = clamp(Math.floor((y + r + .5 - view.top) / view.scale), 0, image.height - 1) * image.width;
    for (let c = 0; c < width; c++) values[k++] = pixels[row + columns[c]];
  }
}

function reduced(image, view, {x, y, width, height, values}) {
  const k = clamp(Math.floor(Math.log2(1 / view.scale) + 1e-9), 0, image.levels.length - 1);
  const level = image.levels[k], limit = STANDS_OUT * image.noise;
  const [from, to] = spans(x, width, view.left, view.scale * 2 ** k, level.width);
  const [above, below] = spans(y, height, view.top, view.scale * 2 ** k, level.height);
  const {low, high, mean} = level;
  for (let r = 0, out = 0; r < height; r++) {
    for (let c = 0; c < width; c++, out++) {
      let least = 65535, most = 0, sum = 0, count = 0;
      for (let j = above[r]; j < below[r]; j++) {
        for (let i = j * level.width + from[c], end = j * level.width + to[c]; i < end; i++) {
          if (low[i] < least) least = low[i];
          if (high[i] > most) most = high[i];
          sum += mean[i]; count++;
        }
      }
      const middle = sum / count, down = middle - least, up = most - middle;
      values[out] = Math.max(down, up) <= limit ? middle : down > up ? least : most;
    }
  }
}

/** First and last + 1 cell of a level that each pixel of the screen overlaps. */
function spans(start, count, origin, scale, size) {
  const from = new Int32Array(count), to = new Int32Array(count);
  for (let k = 0; k < count; k++) {
    from[k] = clamp(Math.floor((start + k - origin) / scale), 0, size - 1);
    to[k] = clamp(Math.ceil((start + k + 1 - origin) / scale - 1e-6), from[k] + 1, size);
  }
  return [from, to];
}
