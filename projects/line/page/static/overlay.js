// The overlay of a radiograph: boxes with their shape, labels that do not overlap, handles, the ruler.

import {page, colour, rejects, shown} from './state.js';

const HANDLE = 4;  // half a handle's side, CSS px

/** The corners and the middles of the sides of a box, as [x, y, sides that move with the handle]. */
export function handles([x1, y1, x2, y2]) {
  const x = (x1 + x2) / 2, y = (y1 + y2) / 2;
  return [[x1, y1, 'lt'], [x2, y1, 'rt'], [x1, y2, 'lb'], [x2, y2, 'rb'], [x, y1, 't'], [x, y2, 'b'], [x1, y, 'l'], [x2, y, 'r']];
}

/** Draw the overlay of a viewer's picture. */
export function drawOver(canvas, viewer, {draft = null, ruler = null, boxes = shown()} = {}) {
  canvas.width = viewer.canvas.width; canvas.height = viewer.canvas.height;
  if (!viewer.image) return;
  const context = canvas.getContext('2d'), ratio = viewer.ratio || 1, {scale, left, top} = viewer.view;
  const onScreen = ([x1, y1, x2, y2]) => [x1 * scale + left, y1 * scale + top, x2 * scale + left, y2 * scale + top];
  const rows = boxes.map(box => ({box, at: onScreen(box.box)}));
  for (const {box, at} of [...rows].reverse()) outline(context, at, box, ratio);
  for (const {box} of rows) if (box.score !== null) traces(context, box, viewer.view, ratio);
  if (draft) outline(context, onScreen(draft), null, ratio);
  const selected = rows.find(row => row.box === page.selected);
  if (selected) grips(context, selected.at, ratio);
  labels(context, canvas, rows, ratio);
  if (ruler) drawRuler(context, ruler, viewer, ratio);
}

/** A rejecting box has a solid frame, another box a dashed one: they differ without colour. */
function outline(context, [x1, y1, x2, y2], box, ratio) {
  const wide = 2 * ratio, room = wide / 2;
  const frame = [x1 - room, y1 - room, x2 - x1 + wide, y2 - y1 + wide];  // around the box's pixels, not on them
  context.setLineDash(box && !rejects(box) ? [6 * ratio, 4 * ratio] : []);
  context.lineWidth = wide + 2 * ratio; context.strokeStyle = 'rgba(0,0,0,.75)'; context.strokeRect(...frame);
  context.lineWidth = wide; context.strokeStyle = box ? colour(box.label) : '#fff'; context.strokeRect(...frame);
  context.setLineDash([]);
}

/** The outlines of a flaw's pixels, if the detector has masks; a box that the inspector changed has no outlines. */
function traces(context, box, {scale, left, top}, ratio) {
  for (const line of box.outlines || []) {
    context.beginPath();
    line.forEach(([x, y], k) => context[k ? 'lineTo' : 'moveTo'](x * scale + left, y * scale + top));
    context.closePath();
    context.lineWidth = 3 * ratio; context.strokeStyle = 'rgba(0,0,0,.75)'; context.stroke();
    context.lineWidth = ratio; context.strokeStyle = colour(box.label); context.stroke();
  }
}

function grips(context, box, ratio) {
  const half = Math.min(HANDLE * ratio, Math.max(Math.min(box[2] - box[0], box[3] - box[1]) / 8, ratio));  // a small flaw stays visible
  for (const [x, y] of handles(box)) {
    context.fillStyle = '#fff'; context.fillRect(x - half, y - half, 2 * half, 2 * half);
    context.lineWidth = ratio; context.strokeStyle = '#000'; context.strokeRect(x - half, y - half, 2 * half, 2 * half);
  }
}

/** A label's place: above its box, else below or beside it, else the next free line; if possible on no other box. */
export function labelPlace([x1, y1, x2, y2], [width, height], canvas, taken, boxes = []) {
  const lines = Array.from({length: Math.max(Math.floor(canvas.height / height), 1)}, (_, k) => [x1, k * height])
    .sort((a, b) => Math.abs(a[1] - y1) - Math.abs(b[1] - y1));
  const inside = [[x1, y1 - height], [x1, y2], [x2, y1], [x1 - width, y1], ...lines].map(([x, y]) => [
    Math.min(Math.max(x, 0), Math.max(canvas.width - width, 0)), Math.min(Math.max(y, 0), Math.max(canvas.height - height, 0))]);
  const off = all => ([x, y]) => all.every(([a, b, c, d]) => x + width <= a || x >= c || y + height <= b || y >= d);
  const free = inside.filter(off(taken));
  return free.find(off(boxes)) || free[0] || null;
}

export const mark = label => page.state.rejecting.includes(label) ? '▲' : '●';
export const described = box => `${mark(box.label)} ${page.state.classes[box.label]}${box.score === null ? ' by hand' : ` ${box.score.toFixed(2)}`}`;

function labels(context, canvas, rows, ratio) {
  const taken = [];
  context.font = `600 ${13 * ratio}px system-ui, sans-serif`; context.textBaseline = 'middle'; context.lineJoin = 'round';
  const visible = rows.filter(({at}) => at[0] < canvas.width && at[2] > 0 && at[1] < canvas.height && at[3] > 0);
  for (const {box, at} of visible) {
    const text = described(box), width = context.measureText(text).width + 8 * ratio, height = 18 * ratio;
    const gap = 4 * ratio, place = labelPlace([at[0] - gap, at[1] - gap, at[2] + gap, at[3] + gap], [width, height], canvas, taken,
      visible.filter(other => other.box !== box).map(other => other.at));
    if (!place) continue;  // its box and its row in the table remain
    taken.push([place[0], place[1], place[0] + width, place[1] + height]);
    context.lineWidth = 4 * ratio; context.strokeStyle = '#000';
    context.strokeText(text, place[0] + 4 * ratio, place[1] + height / 2);
    context.fillStyle = '#fff'; context.fillText(text, place[0] + 4 * ratio, place[1] + height / 2);
  }
  canvas.labels = taken;  // for tests that check the overlap
}

function drawRuler(context, {from, to, text}, viewer, ratio) {
  const {scale, left, top} = viewer.view, at = ([x, y]) => [x * scale + left, y * scale + top];
  for (const [width, style] of [[5 * ratio, '#000'], [2 * ratio, '#ffd84a']]) {
    context.lineWidth = width; context.strokeStyle = style; context.beginPath();
    context.moveTo(...at(from)); context.lineTo(...at(to)); context.stroke();
  }
  context.font = `600 ${14 * ratio}px system-ui, sans-serif`; context.textBaseline = 'bottom'; context.lineJoin = 'round';
  const [x, y] = at(to); context.lineWidth = 4 * ratio; context.strokeStyle = '#000';
  context.strokeText(text, x + 8 * ratio, y - 4 * ratio); context.fillStyle = '#ffd84a'; context.fillText(text, x + 8 * ratio, y - 4 * ratio);
}
