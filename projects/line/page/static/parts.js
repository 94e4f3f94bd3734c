// The views of a part side by side, and a reference radiograph that is shown by blinking.

import {load} from './loading.js';
import {drawOver} from './overlay.js';
import {$, page, counts, element, proposal, say} from './state.js';
import {Viewer} from './viewer.js';

const MOST = 12;  // views side by side
let reference = null;  // {name, image}
let shows = 0;  // number of the last request for views

/** The radiographs of the current radiograph's part, sorted by name; the current one alone if its part is unknown. */
export function viewsOf(current) {
  const {items} = page.state;
  const same = current.part ? items.filter(i => i.part === current.part || i.id === current.id) : items.filter(i => i.id === current.id);
  return same.filter(i => i.state !== 'waiting').sort((a, b) => a.name.localeCompare(b.name, 'en', {numeric: true}));
}

const wordOf = item => page.drafts.has(item.id) ? 'edited, not decided' : item.decision ? `you: ${item.decision}` : item.state === 'unreadable' ? 'unreadable' : 'not decided';

/** Show the views side by side, or the single view again; `covered` tells whether findings must stay hidden. */
export async function toggleViews(open, covered) {
  const mine = ++shows;
  if (!$('views').hidden) { closeViews(); return ''; }
  if (!page.current) return 'no radiograph is open';
  const views = viewsOf(page.current), shown = views.slice(0, MOST);
  if (views.length < 2) return page.current.part ? `part ${page.current.part}: this is its only view` : 'the part of this radiograph is not known';
  const loaded = await Promise.all(shown.map(i => load(i.id).catch(error => ({item: {...i, reason: error.message}, image: null}))));
  if (mine !== shows) return '';
  $('views').replaceChildren(...loaded.map(({item, image}) => {
    const figure = element('button', undefined, {class: item.id === page.current.id ? 'view on' : 'view'});
    const frame = element('span', undefined, {class: 'frame'}), pixels = element('canvas'), above = element('canvas');
    const proposed = item.state === 'found' && !covered(item) ? `, detector: ${proposal(item)}` : '';
    frame.append(pixels, above);
    figure.append(frame, element('span', `${item.name.split('/').pop()}: ${wordOf(item)}${proposed}`, {class: 'caption'}));
    figure.onclick = () => { closeViews(); open(item.id); };
    if (!image) { frame.replaceChildren(element('span', item.reason)); return figure; }
    const viewer = new Viewer(pixels), boxes = (page.drafts.get(item.id) || item).boxes;
    viewer.painted = () => drawOver(above, viewer, {boxes: boxes.filter(b => counts(b) && (b.score === null || !covered(item)))});
    viewer.show(image);
    return figure;
  }));
  $('views').style.setProperty('--columns', Math.ceil(Math.sqrt(shown.length)));
  $('views').hidden = false;
  $('views').querySelector('.on').focus();
  return views.length > MOST ? `${MOST} of the ${views.length} views of ${page.current.part}` : `the ${views.length} views of ${page.current.part}`;
}

export function closeViews() { $('views').hidden = true; $('views').replaceChildren(); }

/** Keep the shown radiograph as the reference for blinking. */
export function keepReference() {
  if (!page.image) return 'no radiograph to keep';
  reference = {name: page.current.name, image: page.image};
  return `reference: ${reference.name}; hold x to see it at the same place`;
}

/** While a key is held, show the reference at the same place and with the same window. */
export function blink(viewer, on) {
  if (on && !reference) { say('no reference is kept: press k on a good radiograph first'); return; }
  viewer.other = on ? reference.image : null;
  $('reference').textContent = on ? `reference: ${reference.name}` : '';
  viewer.sampled = null; viewer.paint();
}
