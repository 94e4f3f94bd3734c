// High-pass and local contrast on the full bit depth: they show flaws that slow changes of thickness hide.

/** Mean and standard deviation around each place, over about `radius` px, on a grid as coarse as `radius` allows. */
export function surroundings(image, radius) {
  image.surroundings ||= new Map();
  if (!image.surroundings.has(radius)) image.surroundings.set(radius, measured(image, radius));
  return image.surroundings.get(radius);
}

function measured(image, radius) {
  const k = Math.min(Math.max(Math.floor(Math.log2(radius / 2)), 0), image.levels.length - 1);
  const {width, height, mean} = image.levels[k], reach = Math.max(1, Math.round(radius / 2 ** k / 2));
  const values = Float32Array.from(mean);
  const around = smooth(values, width, height, reach);
  const squares = values.map((v, i) => (v - around[i]) ** 2);
  const deviation = smooth(squares, width, height, reach).map(Math.sqrt);
  const typical = [...deviation].filter((_, i) => i % 7 === 0).sort((a, b) => a - b);
  return {factor: 2 ** k, width, height, around, deviation, typical: typical[typical.length >> 1] || 1};
}

/** Two box averages, one after the other, in each direction. */
function smooth(values, width, height, reach) {
  let out = values;
  for (let pass = 0; pass < 2; pass++) {
    out = average(out, width, height, 1, width, reach);
    out = average(out, height, width, width, 1, reach);
  }
  return out;
}

function average(values, length, lines, step, next, reach) {
  const out = new Float32Array(values.length);
  for (let line = 0; line < lines; line++) {
    const start = line * next;
    let sum = 0, count = 0;
    for (let k = 0; k < Math.min(reach, length); k++) { sum += values[start + k * step]; count++; }
    for (let k = 0; k < length; k++) {
      if (k + reach < length) { sum += values[start + (k + reach) * step]; count++; }
      if (k - reach - 1 >= 0) { sum -= values[start + (k - reach - 1) * step]; count--; }
      out[start + k * step] = sum / count;
    }
  }
  return out;
}

/** The default window of a filtered picture: smallest and largest value. */
export function rangeOf(image, {filter, radius}) {
  const {typical} = surroundings(image, radius), reach = filter === 'local' ? 4 * typical : 6 * Math.max(typical, image.noise);
  return [image.mean - reach, image.mean + reach];
}

/** Filter the values of a region of the screen, in place. */
export function filtered(image, view, {x, y, width, height, values}, {filter, radius}) {
  const map = surroundings(image, radius), local = filter === 'local', pixel = view.scale * map.factor, {mean} = image;
  const least = Math.max(map.typical / 4, image.noise / 4, .5);
  const across = places(x, width, view.left, pixel, map.width), down = places(y, height, view.top, pixel, map.height);
  // Interpolate along y once per column of the map, as the screen shows few columns; then along x per pixel.
  const around = new Float32Array(map.width), gain = new Float32Array(map.width), {first, share} = across;
  for (let r = 0, k = 0; r < height; r++) {
    const above = down.first[r] * map.width, below = above + (map.height > 1 ? map.width : 0), part = down.share[r];
    for (let i = 0; i < map.width; i++) {
      around[i] = map.around[above + i] * (1 - part) + map.around[below + i] * part;
      if (local) gain[i] = map.deviation[above + i] * (1 - part) + map.deviation[below + i] * part;
    }
    const step = map.width > 1 ? 1 : 0;
    for (let c = 0; c < width; c++, k++) {
      const i = first[c], t = share[c], beyond = values[k] - around[i] - (around[i + step] - around[i]) * t;
      values[k] = mean + (local ? beyond * map.typical / Math.max(gain[i] + (gain[i + step] - gain[i]) * t, least) : beyond);
    }
  }
}

/** For each pixel of the screen: the first of the two map cells around it, and the fraction of the way to the second. */
function places(start, count, origin, pixel, size) {
  const first = new Int32Array(count), share = new Float32Array(count);
  for (let k = 0; k < count; k++) {
    const place = Math.min(Math.max((start + k + .5 - origin) / pixel - .5, 0), size - 1);
    first[k] = Math.min(Math.floor(place), Math.max(size - 2, 0)); share[k] = place - first[k];
  }
  return {first, share};
}
