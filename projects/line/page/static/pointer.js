// Mouse, pen and touch on the picture: move, zoom, window, select, draw, reshape, measure.

import {add, between, moved, reshape, resized, select} from './boxes.js';
import {handles} from './overlay.js';
import {$, page, shown} from './state.js';
import {free} from './history.js';

const STILL = 4;  // CSS px; a shorter movement is a press, not a drag

/** State of the pointer: `tool` is 'move', 'box' or 'ruler'; `gesture` is the present gesture. */
export const pointer = {tool: 'move', gesture: null, draft: null, ruler: null, over: null};

export function setTool(tool) {
  pointer.tool = pointer.tool === tool ? 'move' : tool;
  for (const name of ['box', 'ruler']) $(`tool-${name}`).setAttribute('aria-pressed', pointer.tool === name);
  $('view').dataset.tool = pointer.tool;
}

/** End the present gesture: another radiograph is shown. */
export function endGesture() { pointer.gesture = pointer.draft = pointer.ruler = null; }

/** Listen on the upper canvas. `redraw` draws the overlay; `windowed` shifts window and level. */
export function listen(view, viewer, {redraw, windowed, measured, hovered}) {
  const touches = new Map();
  const at = event => [event.offsetX * viewer.ratio, event.offsetY * viewer.ratio];
  const place = event => viewer.place(...at(event));

  function begin(event) {
    const [x, y] = at(event), spot = place(event), near = (event.pointerType === 'touch' ? 18 : 7) * viewer.ratio;
    const start = {x, y, spot, still: true};
    if (event.button === 2) return {...start, kind: 'window'};
    if (event.button) return {...start, kind: 'pan'};
    if (pointer.tool === 'ruler') return {...start, kind: 'ruler'};
    if (event.shiftKey || pointer.tool === 'box') return free() ? {...start, kind: 'box'} : null;
    const {selected} = page;
    if (selected && free() && shown().includes(selected)) {
      const {scale, left, top} = viewer.view;
      const grip = handles(selected.box).find(([u, v]) => Math.hypot(u * scale + left - x, v * scale + top - y) < near);
      if (grip) return {...start, kind: 'resize', box: selected, sides: grip[2]};
      if (inside(selected.box, spot)) return {...start, kind: 'shift', box: selected};
    }
    return {...start, kind: 'pan'};
  }

  view.onpointerdown = event => {
    if (!page.image) return;
    try { view.setPointerCapture(event.pointerId); } catch { /* a synthetic pointer has no capture */ }
    touches.set(event.pointerId, at(event));
    if (touches.size === 2) { pointer.draft = null; pointer.gesture = pinch(); } else if (touches.size === 1) pointer.gesture = begin(event);
  };

  function pinch() {
    const [[a, b], [c, d]] = [...touches.values()];
    return {kind: 'pinch', wide: Math.hypot(c - a, d - b), middle: [(a + c) / 2, (b + d) / 2]};
  }

  const drags = {
    pan: (gesture, [x, y]) => { viewer.move(x - gesture.x, y - gesture.y); Object.assign(gesture, {x, y}); },
    window: (gesture, [x, y]) => { windowed((x - gesture.x) / viewer.ratio, (y - gesture.y) / viewer.ratio); Object.assign(gesture, {x, y}); },
    box: (gesture, _, spot) => { pointer.draft = between(gesture.spot, spot); redraw(); },
    shift: (gesture, _, spot) => { pointer.draft = moved(gesture.box.box, spot[0] - gesture.spot[0], spot[1] - gesture.spot[1]); redraw(); },
    resize: (gesture, _, spot) => { pointer.draft = resized(gesture.box.box, gesture.sides, spot); redraw(); },
    ruler: (gesture, _, spot) => { measured(gesture.spot, spot); },
  };

  view.onpointermove = event => {
    if (touches.has(event.pointerId)) touches.set(event.pointerId, at(event));
    const {gesture} = pointer;
    if (!gesture) { hovered(place(event)); return; }
    if (gesture.kind === 'pinch') {
      if (touches.size < 2) return;
      const next = pinch(), [x, y] = next.middle;
      viewer.move(x - gesture.middle[0], y - gesture.middle[1]);
      viewer.zoomTo(viewer.view.scale * next.wide / (gesture.wide || 1), x, y);
      pointer.gesture = next;
      return;
    }
    const point = at(event);
    if (gesture.still && Math.hypot(point[0] - gesture.x, point[1] - gesture.y) < STILL * viewer.ratio) return;
    gesture.still = false;
    drags[gesture.kind](gesture, point, place(event));
  };

  view.onpointerup = view.onpointercancel = event => {
    touches.delete(event.pointerId);
    const {gesture, draft} = pointer;
    if (!gesture) return;
    pointer.gesture = pointer.draft = null;
    if (event.type === 'pointercancel' || gesture.kind === 'pinch') { redraw(); return; }
    if (gesture.still && (gesture.kind === 'pan' || gesture.kind === 'shift')) press(gesture.spot);
    else if (draft && gesture.kind === 'box') add(draft);
    else if (draft) reshape(gesture.box, draft);
    redraw();
  };
  view.onpointerleave = () => { if (!pointer.gesture) hovered(null); };
  view.oncontextmenu = event => event.preventDefault();
  view.onwheel = event => { event.preventDefault(); viewer.zoom(event.deltaY < 0 ? 1.15 : 1 / 1.15, ...at(event)); };
}

const inside = ([x1, y1, x2, y2], [x, y]) => x >= x1 && x <= x2 && y >= y1 && y <= y2;

/** A press selects the smallest box at its place; the next press there, the next larger box. */
function press(spot) {
  const area = ({box: [x1, y1, x2, y2]}) => (x2 - x1) * (y2 - y1);
  const there = shown().filter(b => inside(b.box, spot)).sort((a, b) => area(a) - area(b));
  select(there[(there.indexOf(page.selected) + 1) % (there.length || 1)] || null);
}
