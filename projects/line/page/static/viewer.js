// A radiograph on a canvas in pixels of the device: geometry, painting, and the region that was seen at 1:1.

import {filtered} from './filters.js';
import {sample} from './sampling.js';
import {table, tone} from './tones.js';

const CELLS = 16;  // in each direction, of the record of the region that was seen at 1:1
const MOST = 64;   // largest scale

export class Viewer {
  /** @param canvas Takes the pixels; `painted` is called after each paint. */
  constructor(canvas) {
    Object.assign(this, {canvas, painted: () => {}, image: null, other: null, view: {scale: 1, left: 0, top: 0}, fitted: true, due: 0});
    this.context = canvas.getContext('2d');
    this.seen = null;    // cells of this radiograph that were on the screen at 1:1 or larger
    this.seconds = 0;    // duration of the last painting
    new ResizeObserver(() => this.resize()).observe(canvas);
    this.followRatio();
    this.resize();
  }

  /** Pixels of the device per CSS pixel. */
  get ratio() { return this.canvas.width / (this.canvas.clientWidth || 1); }

  followRatio() {  // another monitor, or the browser's zoom
    matchMedia(`(resolution: ${devicePixelRatio}dppx)`).addEventListener('change', () => {
      this.followRatio(); this.resize();
    }, {once: true});
  }

  resize() {
    const {canvas} = this, ratio = devicePixelRatio;
    const width = Math.round(canvas.clientWidth * ratio), height = Math.round(canvas.clientHeight * ratio);
    if (!width || !height || width === canvas.width && height === canvas.height) return;
    const {scale} = this.view, middle = this.place(canvas.width / 2, canvas.height / 2);
    canvas.width = width; canvas.height = height;
    if (this.fitted) this.fit();
    else this.look(scale, width / 2 - middle[0] * scale, height / 2 - middle[1] * scale);
    this.paint();  // at once: a canvas that was resized is empty
  }

  /** Show an image at Fit; `seen` is the record of the cells seen before. If `other` is set, it is painted instead. */
  show(image, seen = null) {
    this.image = image; this.other = this.sampled = null;
    this.seen = seen || new Uint8Array(CELLS * CELLS);
    this.fit(); this.paint();
  }

  place(x, y) { return [(x - this.view.left) / this.view.scale, (y - this.view.top) / this.view.scale]; }

  get fitting() {
    return this.image ? Math.min(this.canvas.width / this.image.width, this.canvas.height / this.image.height) * .96 : 1;
  }

  fit() {
    if (!this.image) { this.paintSoon(); return; }
    const scale = this.fitting;
    this.look(scale, (this.canvas.width - this.image.width * scale) / 2, (this.canvas.height - this.image.height * scale) / 2);
    this.fitted = true;
  }

  look(scale, left, top) {
    this.fitted = false;
    // At integer scales, pixels of the radiograph are aligned with pixels of the screen.
    const whole = Number.isInteger(scale);
    this.view = {scale, left: whole ? Math.round(left) : left, top: whole ? Math.round(top) : top};
    this.paintSoon();
  }

  move(x, y) { this.look(this.view.scale, this.view.left + x, this.view.top + y); }

  /** Zoom to a scale around a place of the canvas, px of the device. */
  zoomTo(scale, x = this.canvas.width / 2, y = this.canvas.height / 2) {
    const next = Math.min(Math.max(scale, Math.min(this.fitting / 2, .02)), MOST), [u, v] = this.place(x, y);
    this.look(next, x - u * next, y - v * next);
  }

  zoom(factor, x, y) {
    const next = this.view.scale * factor;
    this.zoomTo((this.view.scale - 1) * (next - 1) < 0 ? 1 : next, x, y);  // stop at 1:1
  }

  /** Center a box of the image; a smaller scale is raised to 1:1. */
  center([x1, y1, x2, y2]) {
    const scale = Math.max(this.view.scale, 1);
    this.look(scale, this.canvas.width / 2 - (x1 + x2) / 2 * scale, this.canvas.height / 2 - (y1 + y2) / 2 * scale);
  }

  /** Paint in the next frame, once. */
  paintSoon() { this.due ||= requestAnimationFrame(() => this.paint()); }

  paint() {
    cancelAnimationFrame(this.due); this.due = 0;
    const {canvas, context, view} = this, image = this.other || this.image, began = performance.now();
    context.clearRect(0, 0, canvas.width, canvas.height);
    if (image) {
      if (!this.other) this.mark();
      const key = JSON.stringify([view, canvas.width, canvas.height, tone.filter, tone.radius]);
      if (this.sampled !== key) {  // a change of the window needs no new values
        this.region = sample(image, view, canvas.width, canvas.height);
        if (tone.filter !== 'none') filtered(image, view, this.region, tone);
        this.sampled = key;
      }
      this.colour(image);
    }
    this.seconds = (performance.now() - began) / 1000;
    this.painted();
  }

  colour(image) {
    const {x, y, width, height, values} = this.region;
    if (!width || !height) return;
    if (!this.pixels || this.pixels.width !== width || this.pixels.height !== height) {
      this.pixels = this.context.createImageData(width, height);
    }
    const words = table(image), data = this.pixels, out = new Uint32Array(data.data.buffer);
    for (let k = 0; k < out.length; k++) {
      const v = values[k];
      out[k] = words[v <= 0 ? 0 : v >= 65535 ? 65535 : v + .5 | 0];
    }
    this.context.putImageData(data, x, y);
  }

  /** Note the cells that are completely on the screen at 1:1 or larger. */
  mark() {
    const {image, view, canvas} = this;
    if (view.scale < 1) return;
    const wide = image.width / CELLS * view.scale, high = image.height / CELLS * view.scale;
    const range = (origin, cell, size) => [
      Math.max(Math.ceil(-origin / cell - .02), 0), Math.min(Math.floor((size - origin) / cell + .02), CELLS)];
    const [left, right] = range(view.left, wide, canvas.width), [above, below] = range(view.top, high, canvas.height);
    for (let row = above; row < below; row++) this.seen.fill(1, row * CELLS + left, row * CELLS + Math.max(right, left));
  }

  /** Share of the radiograph, in [0, 1], that was on the screen at 1:1 or larger. */
  get seenShare() { return this.seen ? this.seen.reduce((a, b) => a + b, 0) / this.seen.length : 0; }
}
