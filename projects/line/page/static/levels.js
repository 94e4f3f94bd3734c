// A radiograph's pyramid and its gray statistics, on the full bit depth.
//
// Each level has half the size of the level before, and keeps the smallest, the largest and the mean of each 2 x 2
// pixels. So the darkest and the lightest pixel of a region are known at every zoom, and a small view shows them.

/** Levels from pixels (Uint16Array, row by row) down to a side below 64 px; the pixels are the first level. */
export function pyramid(pixels, width, height) {
  const levels = [{width, height, low: pixels, high: pixels, mean: pixels}];
  for (let last = levels[0]; Math.min(last.width, last.height) >= 64; last = levels[levels.length - 1]) {
    levels.push(half(last));
  }
  return levels;
}

function half(from) {
  const width = Math.ceil(from.width / 2), height = Math.ceil(from.height / 2), size = width * height;
  const low = new Uint16Array(size), high = new Uint16Array(size), mean = new Uint16Array(size);
  for (let y = 0, k = 0; y < height; y++) {
    const above = 2 * y * from.width, below = Math.min(2 * y + 1, from.height - 1) * from.width;
    for (let x = 0; x < width; x++, k++) {
      const left = 2 * x, right = Math.min(left + 1, from.width - 1);
      const a = above + left, b = above + right, c = below + left, d = below + right;
      low[k] = Math.min(from.low[a], from.low[b], from.low[c], from.low[d]);
      high[k] = Math.max(from.high[a], from.high[b], from.high[c], from.high[d]);
      mean[k] = (from.mean[a] + from.mean[b] + from.mean[c] + from.mean[d] + 2) >> 2;
    }
  }
  return {width, height, low, high, mean};
}

/** Smallest, largest and mean value, percentiles 0.5 and 99.5, and the noise (standard deviation). */
export function statistics(pixels, width, height) {
  const histogram = new Uint32Array(65536);
  for (let k = 0; k < pixels.length; k++) histogram[pixels[k]]++;
  let low = 0, high = 65535, sum = 0;
  while (low < 65535 && !histogram[low]) low++;
  while (high > low && !histogram[high]) high--;
  for (let v = low; v <= high; v++) sum += v * histogram[v];
  const percentiles = [quantile(histogram, pixels.length * .005), quantile(histogram, pixels.length * .995)];
  return {low, high, mean: sum / pixels.length, percentiles, noise: noise(pixels, width, height)};
}

function quantile(histogram, wanted) {
  let sum = 0;
  for (let v = 0; v < 65536; v++) { sum += histogram[v]; if (sum >= wanted) return v; }
  return 65535;
}

/** Noise from the median difference of neighbours: edges and flaws are few and do not affect the median. */
function noise(pixels, width, height) {
  const differences = new Uint32Array(65536), step = Math.max(1, Math.floor(height / 256));
  let count = 0;
  for (let y = 0; y < height; y += step) {
    for (let k = y * width, end = k + width - 1; k < end; k++) {
      differences[Math.abs(pixels[k + 1] - pixels[k])]++; count++;
    }
  }
  return count ? quantile(differences, count / 2) / (Math.SQRT2 * .6745) : 0;
}
