// The operator's page: the last verdicts, big; nothing can be changed here.

import {json} from './api.js';

const $ = id => document.getElementById(id);
const SHAPES = {accept: '●', reject: '✕', unreadable: '?', flagged: '⚑'};
const WORDS = {accept: 'Accept', reject: 'Reject', unreadable: 'Look: not readable', flagged: 'Look: unlike sound parts'};
let drawn = '';

function element(name, text, attributes = {}) {
  const made = document.createElement(name);
  if (text !== undefined) made.textContent = text;
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  return made;
}

/** What is to be done: an accepted part that the second opinion flags is to be looked at. */
const kindOf = said => said.verdict === 'accept' && said.flagged ? 'flagged' : said.verdict;

function pieces(said) {
  const kind = kindOf(said), verdict = element('div', undefined, {class: `verdict ${kind}`});
  verdict.append(element('span', SHAPES[kind], {class: 'shape', 'aria-hidden': 'true'}), element('span', WORDS[kind], {class: 'word'}),
    element('span', said.name), element('time', new Date(said.time).toLocaleTimeString(), {datetime: said.time}));
  if (!said.picture) return [verdict];
  return [verdict, element('img', undefined, {src: `/api/last/${said.key}/picture`, alt: `radiograph ${said.name}`})];
}

async function draw() {
  try {
    const {last, requalify, replaced, away} = await json('/api/last'), now = JSON.stringify(last);
    if (away) throw new Error(away);
    $('said').textContent = [replaced, requalify.length ? `Requalify the detector: ${requalify.join('; ')}` : ''].filter(Boolean).join('. ');
    if (now !== drawn) {
      drawn = now;
      const [newest, ...before] = last;
      $('newest').replaceChildren(...newest ? pieces(newest) : [element('p', 'Nothing has been inspected yet.')]);
      $('before').replaceChildren(...before.map(said => { const row = element('li'); row.append(...pieces(said)); return row; }));
    }
  } catch (error) {
    $('said').textContent = `No verdict is shown: ${error.message}`;  // an old one must not be taken for the next part's
    $('newest').replaceChildren(); $('before').replaceChildren(); drawn = '';
  }
  document.documentElement.dataset.ready = 'yes';
  setTimeout(draw, 1000);
}
draw();
