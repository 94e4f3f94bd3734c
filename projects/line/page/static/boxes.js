// Boxes of the current radiograph: drawing, moving, resizing, changing class, removing; their table.

import {edit, free} from './history.js';
import {described, mark} from './overlay.js';
import {sizeOf} from './measure.js';
import {$, page, changed, colour, element, shown} from './state.js';

const round = v => Math.round(v * 10) / 10;
const cut = (v, most) => Math.min(Math.max(v, 0), most);

/** A box from two corners, within the radiograph. */
export function between([a, b], [c, d]) {
  const {width, height} = page.image;
  return [cut(Math.min(a, c), width), cut(Math.min(b, d), height), cut(Math.max(a, c), width), cut(Math.max(b, d), height)].map(round);
}

export const large = ([x1, y1, x2, y2]) => x2 - x1 >= 1 && y2 - y1 >= 1;

export function add(box) {
  const made = {box, label: Number($('class').value), score: null};
  if (large(box)) edit('new box', item => { item.boxes.unshift(made); page.selected = made; });
}

/** Add a box in the middle of the visible region, to move and resize by arrow keys. */
export function addInMiddle(viewer) {
  if (!page.image) return;
  const {width, height} = viewer.canvas, side = Math.min(width, height) / 8;
  const corners = [-1, 1].map(k => viewer.place(width / 2 + k * side, height / 2 + k * side));
  add(between(...corners));
}

export function remove(box = page.selected) {
  if (box) edit('box taken away', item => { item.boxes = item.boxes.filter(b => b !== box); if (page.selected === box) page.selected = null; });
}

/** A box that the inspector changed is the inspector's: it loses the detector's score. */
function replaced(kind, change) {
  const box = page.selected;
  if (box) edit(kind, () => { change(box); box.score = null; });
}

export function reclass(label) {
  if (page.selected && label < page.state.classes.length && label !== page.selected.label) replaced('class', box => { box.label = label; });
}

/** Move the selected box by so many px of the radiograph; with `resize` its lower right corner alone. */
export function nudge(dx, dy, resize) {
  replaced(resize ? 'size' : 'move', selected => {
    const [x1, y1, x2, y2] = selected.box, {width, height} = page.image;
    if (resize) selected.box = [x1, y1, cut(Math.max(x2 + dx, x1 + 1), width), cut(Math.max(y2 + dy, y1 + 1), height)].map(round);
    else selected.box = moved([x1, y1, x2, y2], dx, dy);
  });
}

/** A box moved within the radiograph, with its size kept. */
export function moved([x1, y1, x2, y2], dx, dy) {
  const x = Math.min(Math.max(dx, -x1), page.image.width - x2), y = Math.min(Math.max(dy, -y1), page.image.height - y2);
  return [x1 + x, y1 + y, x2 + x, y2 + y].map(round);
}

/** A box with some of its sides ('l', 't', 'r', 'b') moved to a place. */
export function resized([x1, y1, x2, y2], sides, [x, y]) {
  return between([sides.includes('l') ? x : x1, sides.includes('t') ? y : y1], [sides.includes('r') ? x : x2, sides.includes('b') ? y : y2]);
}

export function reshape(selected, box) {
  if (large(box) && String(box) !== String(selected.box)) { page.selected = selected; replaced('shape', b => { b.box = box; }); } else changed();
}

/** Select a finding and bring it to the middle. */
export function select(box, viewer) {
  page.selected = box;
  if (box && viewer) viewer.center(box.box);
  changed();
}

export function selectNext(step, viewer) {
  const all = shown();
  if (!all.length) return 'no finding is shown';
  const at = all.indexOf(page.selected);
  select(all[at < 0 ? (step > 0 ? 0 : all.length - 1) : (at + step + all.length) % all.length], viewer);
  return `finding ${all.indexOf(page.selected) + 1} of ${all.length}: ${described(page.selected)}, ${sizeOf(page.selected.box)}`;
}

export function drawTable(viewer) {
  $('boxes').replaceChildren(...shown().map(box => {
    const row = element('tr'), name = element('td'), go = element('button', `${mark(box.label)} ${page.state.classes[box.label]}`, {class: 'go'});
    row.className = box === page.selected ? 'on' : '';
    go.style.borderLeftColor = colour(box.label); go.title = 'show it in the picture';
    go.onclick = () => select(box, viewer);
    name.append(go);
    const away = element('button', '×', {'aria-label': `take away ${described(box)}`, class: 'away'}), cell = element('td');
    away.onclick = () => { if (free()) remove(box); };
    cell.append(away);
    row.append(name, element('td', box.score === null ? 'by hand' : box.score.toFixed(3)), element('td', sizeOf(box.box)), cell);
    return row;
  }));
}
