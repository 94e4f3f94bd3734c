// The value of each pixel of the screen, at any zoom.
//
// At 1:1 and larger, a screen pixel shows the nearest pixel of the radiograph. At smaller scales, a screen pixel
// covers several pixels of the radiograph. It shows the value farthest from their mean if that stands out of the noise,
// else the mean: a pore of a few pixels keeps its full contrast, and noise alone is averaged.

export const STANDS_OUT = 4;  // standard deviations of the noise

/**
 * Values of a part of the screen.
 * @param view {scale, left, top}: px of the screen per px of the radiograph, and the radiograph's corner on the screen.
 * @param width, height Size of the screen, px.
 * @returns {x, y, width, height, values}: the region that the radiograph covers, and its values as Float32Array.
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
  const level = image.levels[k], cell = view.scale * 2 ** k;
  const across = spans(x, width, view.left, cell, level.width), down = spans(y, height, view.top, cell, level.height);
  // Reduce one direction after the other, and each row of the level once: two rows of the screen may share a row.
  let line = newLine(width), rows = newLine(width), at = -1;
  for (let r = 0; r < height; r++) {
    const {from, to, first, inner, last} = down;
    for (let j = from[r]; j < to[r]; j++) {
      if (j !== at) { narrowed(level, j, across, line); at = j; }
      const share = j === from[r] ? first[r] : j === to[r] - 1 ? last[r] : inner[r];
      if (j === from[r]) begin(rows, line, share); else join(rows, line, share);
    }
    choose(rows, STANDS_OUT * image.noise, values, r * width);
  }
}

const newLine = width => ({low: new Int32Array(width), high: new Int32Array(width), mean: new Float32Array(width)});

// Smaller and larger integer without a branch: on noise, the processor would mispredict half of the branches.
const smaller = (a, b) => b + (a - b & a - b >> 31);
const larger = (a, b) => a - (a - b & a - b >> 31);

/** Reduce a row of a level to the pixels of the screen. */
function narrowed(level, row, {from, to, first, inner, last, most}, line) {
  const {low, high, mean} = level, start = row * level.width, count = from.length;
  for (let c = 0; c < count; c++) {
    // Up to three cells; with fewer, a cell is taken twice, which changes neither the smallest nor the largest value.
    const a = start + from[c], d = start + to[c] - 1, b = smaller(a + 1, d);
    line.low[c] = smaller(smaller(low[a], low[b]), low[d]);
    line.high[c] = larger(larger(high[a], high[b]), high[d]);
    line.mean[c] = mean[a] * first[c] + mean[b] * inner[c] + mean[d] * last[c];
  }
  if (most <= 3) return;
  for (let c = 0; c < count; c++) {
    for (let i = from[c] + 2; i < to[c] - 1; i++) {
      line.low[c] = smaller(line.low[c], low[start + i]);
      line.high[c] = larger(line.high[c], high[start + i]);
      line.mean[c] += mean[start + i] * inner[c];
    }
  }
}

function begin({low, high, mean}, line, share) {
  low.set(line.low); high.set(line.high);
  for (let c = 0; c < mean.length; c++) mean[c] = share * line.mean[c];
}

function join({low, high, mean}, line, share) {
  for (let c = 0; c < mean.length; c++) {
    low[c] = smaller(low[c], line.low[c]); high[c] = larger(high[c], line.high[c]);
    mean[c] += share * line.mean[c];
  }
}

/** Choose the value that stands out by more than `limit`, else the mean. */
function choose({low, high, mean}, limit, values, out) {
  for (let c = 0; c < mean.length; c++, out++) {
    const middle = mean[c], down = middle - low[c], up = high[c] - middle;
    values[out] = down <= limit && up <= limit ? middle : down > up ? low[c] : high[c];
  }
}

/**
 * The cells of a level that each pixel of the screen overlaps.
 * @returns {from, to}: the first cell, and the last + 1; {first, inner, last}: the shares of the pixel in the first cell,
 *   in each inner cell, and in the last cell (0 if the last is the first); {most}: the largest number of cells.
 */
function spans(start, count, origin, scale, size) {
  const from = new Int32Array(count), to = new Int32Array(count);
  const first = new Float32Array(count), inner = new Float32Array(count), last = new Float32Array(count);
  let most = 1;
  for (let k = 0; k < count; k++) {
    const begin = clamp((start + k - origin) / scale, 0, size), end = clamp((start + k + 1 - origin) / scale, 0, size);
    from[k] = clamp(Math.floor(begin + 1e-6), 0, size - 1);
    to[k] = clamp(Math.ceil(end - 1e-6), from[k] + 1, size);
    const cells = to[k] - from[k], long = Math.max(end - begin, 1e-9);
    first[k] = cells === 1 ? 1 : clamp(from[k] + 1 - begin, 0, 1) / long;
    last[k] = cells === 1 ? 0 : clamp(end - to[k] + 1, 0, 1) / long;
    inner[k] = cells > 2 ? 1 / long : 0;
    most = Math.max(most, cells);
  }
  return {from, to, first, inner, last, most};
}
