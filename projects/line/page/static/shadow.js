// Two detectors on the same parts: how often their verdicts differ, and on which parts; read-only.

import {json} from './api.js';
import {element} from './elements.js';

const $ = id => document.getElementById(id);
const SHAPES = {accept: '●', reject: '✕', unreadable: '?'};
const WHO = ['first', 'second'];
let told = null, drawn = '';

const verdict = (kind, more = '') => element('span', `${SHAPES[kind] || '?'} ${kind}${more}`, {class: `verdict ${kind}`});
const of = (count, one, many = `${one}s`) => `${count} ${count === 1 ? one : many}`;
const sum = rows => rows.reduce((all, row) => all + row.count, 0);

/** A table with the first's verdicts in rows and the second's in columns; differing verdicts are marked. */
function matrix(rows, what) {
  const kinds = Object.keys(SHAPES).filter(kind => rows.some(row => row.first === kind || row.second === kind));
  const table = element('table', undefined, {class: 'counts'}), head = element('tr'), body = element('tbody');
  table.append(element('caption', `${what}: the first detector's verdicts in rows, the second's in columns`));
  head.append(element('td'), ...kinds.map(kind => { const cell = element('th', undefined, {scope: 'col'}); cell.append(verdict(kind)); return cell; }));
  body.append(head, ...kinds.map(first => {
    const line = element('tr'), name = element('th', undefined, {scope: 'row'});
    name.append(verdict(first));
    line.append(name, ...kinds.map(second => {
      const found = rows.find(row => row.first === first && row.second === second), count = found ? found.count : 0;
      return element('td', `${count}${count && first !== second ? ' ≠' : ''}`, {class: count && first !== second ? 'differs' : ''});
    }));
    return line;
  }));
  table.append(body);
  return table;
}

const said = ({verdict: kind, risk, reason}) => {
  const made = verdict(kind, risk === null ? '' : ` ${risk.toFixed(2)}`);
  if (reason) made.title = reason;
  return made;
};

/** A table with a row per view; the part and its verdicts stand before the views. */
function listed(parts, byPart, caption) {
  const table = element('table', undefined, {class: 'parts'}), head = element('thead'), line = element('tr'), body = element('tbody');
  const names = [...byPart ? ['part', 'first', 'second'] : [], 'radiograph', byPart ? 'first, of this view' : 'first', byPart ? 'second, of this view' : 'second', 'time'];
  line.append(...names.map(name => element('th', name, {scope: 'col'}))); head.append(line);
  for (const {part, first, second, views} of parts) {
    views.forEach((view, k) => {
      const row = element('tr', undefined, {class: first === second ? '' : 'differs'}), cells = [];
      if (byPart && !k) {
        cells.push(element('th', part, {scope: 'rowgroup', rowspan: views.length}));
        for (const kind of [first, second]) { const cell = element('td', undefined, {rowspan: views.length}); cell.append(verdict(kind)); cells.push(cell); }
      }
      const name = element(byPart ? 'td' : 'th', view.name, byPart ? {class: 'name'} : {class: 'name', scope: 'row'});
      const both = WHO.map(who => { const cell = element('td'); cell.append(said(view[who])); return cell; });
      const time = element('td');
      time.append(element('time', new Date(view.time).toLocaleString(), {datetime: view.time}));
      row.append(...cells, name, ...both, time);
      body.append(row);
    });
  }
  table.append(element('caption', caption), head, body);
  const frame = element('div', undefined, {class: 'scroll', tabindex: '0', role: 'region', 'aria-label': caption});
  frame.append(table);
  return frame;
}

function section(record) {
  const made = element('section'), what = record.by_part ? 'part' : 'radiograph', all = sum(record.parts);
  const differ = record.parts.filter(row => row.first !== row.second), count = sum(differ);
  const alone = differ.map(row => `${row.count} ${row.first} by the first and ${row.second} by the second`);
  made.append(element('h2', count ? `The verdicts differ on ${count} of ${of(all, what)}` : `The verdicts agree on ${all === 1 ? `the ${what}` : `all ${all} ${what}s`}`));
  if (alone.length) made.append(element('p', `${alone.join('; ')}.`));
  const detectors = element('dl');
  for (const who of WHO) {
    const {folder, threshold} = record[who];
    detectors.append(element('dt', who === 'first' ? 'First, whose verdicts count' : 'Second, in its shadow'),
      element('dd', `${folder.slice(0, 12)}…, threshold ${+threshold.toPrecision(4)}`, {title: folder}));
  }
  made.append(detectors, matrix(record.parts, record.by_part ? 'Parts' : 'Radiographs'));
  if (record.by_part) made.append(matrix(record.radiographs, 'Radiographs'));
  if (record.different.length) {
    made.append(listed(record.different, record.by_part, count > record.different.length
      ? `The last ${record.different.length} ${what}s on which they differ` : `Where they differ`));
  }
  if ($('alike').checked && record.alike.length) made.append(listed(record.alike, record.by_part, `The last ${of(record.alike.length, what)} on which they agree`));
  made.append(element('p', `Each radiograph's line is in ${record.record}`, {class: 'source'}));
  return made;
}

function show() {
  const {runs, records} = told, none = runs ? 'No radiograph has been inspected by both detectors yet.'
    : 'No second detector runs here: start the server, or the watched folder, with --shadow FOLDER.';
  $('status').textContent = runs || !records.length ? '' : 'No second detector runs in this server now: these records may be of an earlier time, or of the watched folder.';
  $('records').replaceChildren(...records.length ? records.map(section) : [element('p', none)]);
}

async function draw() {
  try {
    const next = await json('/api/shadow'), now = JSON.stringify(next);
    told = next;
    if (now !== drawn) { drawn = now; show(); }
  } catch (error) {
    $('status').textContent = error.message; drawn = '';
  }
  document.documentElement.dataset.ready = 'yes';
  setTimeout(draw, 5000);
}

$('alike').onchange = () => { if (told) show(); };
draw();
