// The display of gray values: window and level with presets, gamma, inversion, filter; kept over a series.

import {rangeOf} from './filters.js';

export const PRESETS = {
  range: 'smallest to largest', percentile: '0.5 to 99.5 %', full: "the file's whole range",
  detector: 'as the detector sees it', own: 'set by hand, kept',
};

export const tone = {
  filter: 'none', radius: 32, gamma: 1, inverted: false,
  windows: {none: {preset: 'range'}, highpass: {preset: 'auto'}, local: {preset: 'auto'}},  // by filter
};

const unit = image => (image.last - image.first) / 65535;
export const inFile = (image, value) => image.first + value * unit(image);
const fromFile = (image, value) => (value - image.first) / unit(image);

/** Smallest and largest value of the window, on the page's scale of 65,536 steps. */
function bounds(image) {
  const {preset, low, high} = tone.windows[tone.filter];
  if (preset === 'own') return [fromFile(image, low), fromFile(image, high)];
  if (tone.filter !== 'none') return rangeOf(image, tone);
  if (preset === 'percentile') return image.percentiles;
  if (preset === 'full') return image.stated || [0, top(image)];
  if (preset === 'detector') return image.detector || [image.low, image.high];
  return [image.low, image.high];
}

export function windowOf(image) {
  const [low, high] = bounds(image), width = Math.max(high - low, 1);
  return {width, level: (low + high) / 2, low: (low + high - width) / 2};
}

/** Set the window by hand, on the page's scale; from then on, every radiograph has this window. */
export function setWindow(image, width, level) {
  const wide = Math.max(width, 1);
  tone.windows[tone.filter] = {preset: 'own', low: inFile(image, level - wide / 2), high: inFile(image, level + wide / 2)};
}

export function setPreset(preset) {
  const now = tone.windows[tone.filter];
  tone.windows[tone.filter] = preset === 'own' && now.own ? {...now.own} : {preset, own: now.preset === 'own' ? now : now.own};
}

/** The largest value of the image's own depth: the range of the sliders. */
export const top = image => 2 ** Math.max(8, Math.ceil(Math.log2(image.high + 1))) - 1;

/** RGBA of each of 65,536 values, as words. */
export function table(image) {
  const {width, low} = windowOf(image), inverted = image.invert !== tone.inverted, words = new Uint32Array(65536);
  for (let v = 0; v < 65536; v++) {
    let share = Math.min(Math.max((v - low) / width, 0), 1);
    if (tone.gamma !== 1) share = share ** (1 / tone.gamma);
    const shown = Math.round(255 * share), gray = inverted ? 255 - shown : shown;
    words[v] = 0xff000000 | gray << 16 | gray << 8 | gray;
  }
  return words;
}
