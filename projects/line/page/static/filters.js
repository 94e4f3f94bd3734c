// High-pass and local contrast on the full bit depth: what a radiograph's slow changes of thickness hide.

/** Mean and standard deviation around each place, over about `radius` px, on a grid as coarse as that allows. */
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

/** The smallest and largest value that a filter's picture needs by itself. */
export function rangeOf(image, {filter, radius}) {
  const {typical} = surroundings(image, radius), reach = filter === 'local' ? 4 * typical : 6 * Math.max(typical, image.noise);
  return [image.mean - reach, image.mean + reach];
}

/** Filter the values of a region of the screen in place. */
export function filtered(image, view, region, {filter, radius}) {
  const map = surroundings(image, radius), {x, y, width, height, values} = region;
  const least = Math.max(map.typical / 4, image.noise / 4, .5), pixel = view.scale * map.factor;
  const at = (screen, origin, size) => {
    const place = Math.min(Math.max((screen + .5 - origin) / pixel - .5, 0), size - 1), low = Math.min(Math.floor(place), Math.max(size - 2, 0));
    return [low, place - low];
  };
  const columns = Array.from({length: width}, (_, c) => at(x + c, view.left, map.width));
  const one = Int32Array.from(columns, c => c[0]), share = Float32Array.from(columns, c => c[1]);
  const right = map.width > 1 ? 1 : 0, local = filter === 'local';
  for (let r = 0, k = 0; r < height; r++) {
    const [row, down] = at(y + r, view.top, map.height), above = row * map.width;
    const below = map.height > 1 ? above + map.width : above;
    const between = (field, c) => {
      const i = one[c], t = share[c];
      const up = field[above + i] * (1 - t) + field[above + i + right] * t;
      return up * (1 - down) + (field[below + i] * (1 - t) + field[below + i + right] * t) * down;
    };
    for (let c = 0; c < width; c++, k++) {
      const beyond = values[k] - between(map.around, c);
      values[k] = image.mean + (local ? beyond * map.typical / Math.max(between(map.deviation, c), least) : beyond);
    }
  }
}
