// Lengths in mm from the pixel pitch, the value under the cursor, the profile along the ruler.

import {$, page} from './state.js';
import {inFile} from './tones.js';

const kept = {pitch: null};  // mm per px, set by hand; for every radiograph without a stated pitch

/** [along x, along y] in mm per px; null if unknown. */
export function spacing() {
  const stated = page.image && page.image.spacing;
  return stated || (kept.pitch ? [kept.pitch, kept.pitch] : null);
}

export function setPitch(micrometres) { kept.pitch = micrometres > 0 ? micrometres / 1000 : null; }

const digits = v => v.toFixed(v >= 100 ? 0 : v >= 10 ? 1 : 2);

export function length(dx, dy) {
  const pitch = spacing(), px = Math.hypot(dx, dy);
  return pitch ? `${digits(Math.hypot(dx * pitch[0], dy * pitch[1]))} mm` : `${px.toFixed(1)} px`;
}

/** Length (the longer side) and width of a box, as acceptance standards limit them. */
export function sizeOf([x1, y1, x2, y2]) {
  const pitch = spacing(), sides = [(x2 - x1) * (pitch ? pitch[0] : 1), (y2 - y1) * (pitch ? pitch[1] : 1)].sort((a, b) => b - a);
  return pitch ? `${digits(sides[0])} × ${digits(sides[1])} mm` : `${sides[0].toFixed(0)} × ${sides[1].toFixed(0)} px`;
}

const number = (image, value) => {
  const v = inFile(image, value);
  return Number.isInteger(v) ? String(v) : v.toPrecision(5);
};

/** Column, row and value, in the file's units, at a place of the radiograph. */
export function under([x, y]) {
  const {image} = page, column = Math.floor(x), row = Math.floor(y);
  if (!image || column < 0 || row < 0 || column >= image.width || row >= image.height) return '';
  return `x ${column}, y ${row}: ${number(image, image.levels[0].mean[row * image.width + column])}`;
}

export function pitchInWords() {
  const pitch = spacing(), {image} = page;
  if (!image) return '';
  if (!pitch) return 'pixel pitch not known: lengths in px';
  const micrometres = pitch.map(v => +(v * 1000).toPrecision(4)).filter((v, k, all) => k === 0 || v !== all[0]).join(' × ');
  const from = !image.spacing ? 'set by hand' : image.spacingFrom;
  return `${micrometres} µm per px (${from})`;
}

/** Values along a line in the file's units, one per pixel of its length. */
export function profile(image, [x1, y1], [x2, y2]) {
  const count = Math.max(2, Math.min(4096, Math.ceil(Math.hypot(x2 - x1, y2 - y1)) + 1)), values = [];
  for (let k = 0; k < count; k++) {
    const x = Math.floor(x1 + (x2 - x1) * k / (count - 1)), y = Math.floor(y1 + (y2 - y1) * k / (count - 1));
    if (x >= 0 && y >= 0 && x < image.width && y < image.height) values.push(inFile(image, image.levels[0].mean[y * image.width + x]));
  }
  return values;
}

/** Draw the profile of the ruler; hide it without a ruler. */
export function drawProfile(ruler) {
  $('profile').hidden = !ruler;
  if (!ruler) return;
  const values = profile(page.image, ruler.from, ruler.to), low = Math.min(...values), high = Math.max(...values), range = high - low || 1;
  const points = values.map((v, k) => `${(300 * k / Math.max(values.length - 1, 1)).toFixed(1)},${(84 - 80 * (v - low) / range).toFixed(1)}`).join(' ');
  $('profile-line').setAttribute('points', points);
  $('profile-words').textContent = values.length ? `${ruler.text}; values ${+low.toPrecision(5)} to ${+high.toPrecision(5)}` : ruler.text;
}
