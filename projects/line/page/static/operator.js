// The operator's page: the last verdicts in large type, read-only.

import {json} from './api.js';
import {element} from './elements.js';
import {plain} from './words.js';

const $ = id => document.getElementById(id);
const SHAPES = {accept: '●', reject: '✕', unreadable: '?', flagged: '⚑', none: '–'};
const WORDS = {accept: 'Accept', reject: 'Reject', unreadable: 'Look: not readable', flagged: 'Look: unlike sound parts', none: 'No verdict'};
let drawn = '';

/** The operator's action: look at an accepted part that the second opinion flags. */
const kindOf = result => result.verdict === 'accept' && result.flagged ? 'flagged' : result.verdict;

/** The displayed name: that of the file, without its folder. */
const short = name => name.split('/').pop();
/** The end of a name, where names differ: a small tile has no room for more. */
const shortest = name => { const stem = short(name).replace(/\.\w+$/, ''); return stem.length > 12 ? `…${stem.slice(-11)}` : stem; };

function block(kind, ...lines) {
  const made = element('div', undefined, {class: `verdict ${kind}`});
  made.append(element('span', SHAPES[kind], {class: 'shape', 'aria-hidden': 'true'}), element('span', WORDS[kind], {class: 'word'}), ...lines);
  return made;
}

function pieces(result, named = short) {
  const verdict = block(kindOf(result), element('span', named(result.name), {class: 'name', title: result.name}),
    element('time', new Date(result.time).toLocaleTimeString(), {datetime: result.time}));
  if (!result.picture) return [verdict];
  return [verdict, element('img', undefined, {src: `/api/last/${result.key}/picture`, alt: `radiograph ${result.name}`})];
}

async function draw() {
  try {
    const {last, requalify, replaced, away} = await json('/api/last'), now = JSON.stringify(last);
    if (away) throw new Error(away);
    $('status').textContent = plain([replaced, requalify.length ? `Requalify the detector: ${requalify.join('; ')}` : ''].filter(Boolean).join('. '));
    if (now !== drawn) {
      drawn = now;
      const [newest, ...before] = last;
      $('newest').replaceChildren(...newest ? pieces(newest) : [element('p', 'Nothing has been inspected yet.')]);
      $('before').replaceChildren(...before.map(result => { const row = element('li'); row.append(...pieces(result, shortest)); return row; }));
    }
  } catch (error) {
    $('status').textContent = `No verdict is shown: ${error.message}`;  // an old verdict must not be taken for the next part's
    $('newest').replaceChildren(block('none')); $('before').replaceChildren(); drawn = '';
  }
  document.documentElement.dataset.ready = 'yes';
  setTimeout(draw, 1000);
}
draw();
