// The inspection page: the actions of its controls, and the redrawing after a change.

import {json} from './api.js';
import {drawTable, reclass} from './boxes.js';
import {drawCurve} from './curve.js';
import {decide, decideIn, drawVerdicts} from './deciding.js';
import {drawDrift} from './drift.js';
import {edit, step} from './history.js';
import {listenToKeys} from './keys.js';
import {drawList, drawListSoon, onOpen, refresh} from './list.js';
import {drawProfile, length, pitchInWords, setPitch, under} from './measure.js';
import {covers, next, open, openIn, pick, previous, previousPart, reveal, send} from './opening.js';
import {drawOver} from './overlay.js';
import {blink, keepReference, toggleViews, viewsOf} from './parts.js';
import {listen, pointer, setTool} from './pointer.js';
import {$, page, changed, element, onChange, say, told} from './state.js';
import {PRESETS, inFile, setPreset, setWindow, tone, top, windowOf} from './tones.js';
import {Viewer} from './viewer.js';

const over = () => drawOver($('view'), viewer, {draft: pointer.draft, ruler: pointer.ruler});
export const viewer = new Viewer($('pixels'));
viewer.painted = () => { over(); drawScale(); };
openIn(viewer); decideIn(viewer);
onOpen(id => told(open(id)));

const percent = value => value >= 100 ? value.toFixed(0) : +value.toPrecision(3);

function drawScale() {
  const share = Math.round(100 * viewer.seenShare);
  $('scale').textContent = page.image ? `${percent(100 * viewer.view.scale)} %` : '';
  $('unseen').textContent = !page.image || share === 100 ? '' : share ? `${share} % seen at 1:1` : 'not seen at 1:1';
}

function drawTones() {
  const {image} = page, now = tone.windows[tone.filter];
  $('preset').value = now.preset === 'auto' ? 'range' : now.preset;
  $('filter-radius').disabled = tone.filter === 'none';
  $('gamma-value').textContent = tone.gamma.toFixed(2); $('invert').setAttribute('aria-pressed', tone.inverted);
  if (!image) return;
  const {width, level} = windowOf(image), unit = (image.last - image.first) / 65535;
  $('window').max = $('level').max = top(image);
  $('window').value = width; $('level').value = level;
  const text = value => Math.abs(value) >= 100 ? value.toFixed(0) : String(+value.toPrecision(3));
  $('window-value').textContent = text(width * unit); $('level-value').textContent = text(inFile(image, level));
}

/** Paint the picture after a change of tones, and show the new settings. */
function toned() { viewer.sampled = null; drawTones(); viewer.paintSoon(); }

function windowed(dx, dy) {
  if (!page.image) return;
  const {width, level} = windowOf(page.image), share = Math.max(width, 8) / 300;  // per CSS px
  setWindow(page.image, width + dx * share, level + dy * share);
  drawTones(); viewer.paintSoon();
}

function drawName() {
  const item = page.current;
  if (!item) return;
  const decided = item.decision ? ', decided' : '';
  $('name').textContent = item.reason || `${item.name}, ${item.size[1]} × ${item.size[0]} px${decided}`;
  const count = viewsOf(item).length;
  $('show-views').hidden = count < 2; $('view-count').textContent = count;
  if ($('part').value !== item.part) $('part').value = item.part;
}

onChange(drawTones); onChange(drawName); onChange(drawVerdicts); onChange(() => drawTable(viewer)); onChange(over);
onChange(() => { drawProfile(pointer.ruler); $('pitch-words').textContent = pitchInWords(); drawCurve(); drawScale(); drawListSoon(); });

listen($('view'), viewer, {
  redraw: over, windowed,
  measured: (from, to) => {
    pointer.ruler = {from, to, text: length(to[0] - from[0], to[1] - from[1])};
    drawProfile(pointer.ruler); over();
  },
  hovered: spot => { $('under').textContent = spot ? under(spot) : ''; },
});

const undo = again => step(open, again);
const views = () => toggleViews(id => told(open(id)), covers);
const invert = () => { tone.inverted = !tone.inverted; toned(); };
const nextPreset = () => {
  const all = Object.keys(PRESETS).filter(name => tone.filter === 'none' ? true : /range|own/.test(name));
  setPreset(all[(all.indexOf($('preset').value) + 1) % all.length]); toned();
  return `window: ${PRESETS[$('preset').value]}`;
};
listenToKeys(viewer, {
  a: () => { decide('accept'); }, r: () => { decide('reject'); }, n: () => next(), p: () => previous(), s: () => { reveal(); },
  i: invert, w: nextPreset, b: () => setTool('box'), m: () => setTool('ruler'), '/': () => $('search').focus(), '?': () => $('help').showModal(),
  v: views, k: keepReference, q: () => previousPart(),
}, {h: on => { page.hidden = on; changed(); }, x: on => blink(viewer, on)}, undo);

const press = {
  pick: () => pick(), next: () => next(), previous: () => previous(), accept: () => { decide('accept'); }, reject: () => { decide('reject'); },
  fit: () => viewer.fit(), one: () => viewer.zoomTo(1), in: () => viewer.zoom(1.25), out: () => viewer.zoom(.8), invert, reveal: () => { reveal(); },
  'show-views': views, undo: () => undo(false), redo: () => undo(true), 'tool-box': () => setTool('box'), 'tool-ruler': () => setTool('ruler'), keys: () => $('help').showModal(),
};
for (const [id, action] of Object.entries(press)) $(id).onclick = () => told(Promise.resolve(action()));

$('file').onchange = event => send(event.target.files);
$('drop').ondragover = event => { event.preventDefault(); $('drop').classList.add('over'); };
$('drop').ondragleave = () => $('drop').classList.remove('over');
$('drop').ondrop = event => { event.preventDefault(); $('drop').classList.remove('over'); send(event.dataTransfer.files); };
$('window').oninput = $('level').oninput = () => {
  if (page.image) { setWindow(page.image, Number($('window').value), Number($('level').value)); drawTones(); viewer.paintSoon(); }
};
$('preset').onchange = event => { setPreset(event.target.value); toned(); };
$('filter-kind').onchange = event => { tone.filter = event.target.value; toned(); };
$('filter-radius').oninput = event => { tone.radius = Number(event.target.value); $('radius-value').textContent = `${tone.radius} px`; toned(); };
$('gamma').oninput = event => { tone.gamma = 2 ** Number(event.target.value); toned(); };
$('pitch').oninput = event => { setPitch(Number(event.target.value)); pointer.ruler = null; changed(); };
$('inspector').onchange = event => localStorage.setItem('inspector', event.target.value.trim());
$('threshold').oninput = event => { page.threshold = Number(event.target.value); changed(); };
$('class').onchange = event => { reclass(Number(event.target.value)); };
$('part').oninput = event => { if (!edit('part', item => { item.part = event.target.value; })) event.target.value = page.current ? page.current.part : ''; };
$('search').oninput = $('filter').onchange = drawList;
$('search').onkeydown = event => { if (event.key === 'Escape') $('view').focus(); };
$('theme').onchange = event => { localStorage.setItem('theme', event.target.value); document.documentElement.dataset.theme = event.target.value; };
// After a choice by mouse or touch, the focus returns to the picture, so that keys control the page. After a choice by
// keys, the list keeps the focus, so that keys reach its other choices.
for (const list of document.querySelectorAll('select')) {
  let pressed = false;
  list.addEventListener('pointerdown', () => { pressed = true; });
  list.addEventListener('keydown', () => { pressed = false; });
  list.addEventListener('change', () => { if (pressed) $('view').focus(); });
}
$('blind').onchange = () => {
  localStorage.setItem('blind', $('blind').checked ? 'yes' : '');
  page.revealed = !$('blind').checked || Boolean(page.current && page.current.decision);
  changed();
};
onbeforeunload = event => {
  if (page.drafts.size || page.busy.size) { event.preventDefault(); event.returnValue = true; }  // returnValue for older browsers
};

function begin() {
  const {state} = page;
  page.threshold = state.threshold; $('threshold').value = page.threshold;
  $('model').textContent = `${state.reader === 'second' ? 'Second reader. ' : ''}${state.model} (${state.precision})`; $('reason').textContent = state.reason;
  $('class').replaceChildren(...state.classes.map((name, k) => element('option', name, {value: k})));
}

$('preset').replaceChildren(...Object.entries(PRESETS).map(([key, words]) => element('option', words, {value: key})));
$('theme').value = localStorage.getItem('theme') || (matchMedia('(prefers-color-scheme: light)').matches ? 'light' : 'dark');
document.documentElement.dataset.theme = $('theme').value;
$('inspector').value = localStorage.getItem('inspector') || '';
$('blind').checked = Boolean(localStorage.getItem('blind'));
await refresh(begin);
changed();
await drawDrift();
setInterval(() => { told(drawDrift()); told(refresh()); }, 10_000);  // shows decisions of others, too
const folders = await json('/api/folders').catch(error => { say(error.message); return []; });
$('folder').replaceChildren(...folders.map(name => element('option', name)));
$('folder').disabled = $('pick').disabled = !folders.length;
document.documentElement.dataset.ready = 'yes';
