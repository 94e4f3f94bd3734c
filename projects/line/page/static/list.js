// The list of radiographs: worst first, filter, search, progress; updated by the differences from the server.

import {json} from './api.js';
import {$, page, element, isDraft, told} from './state.js';

const rows = new Map();  // rows of the list, by item
let timer = 0, asked = 0, applied = 0;  // the next refresh, the last requested refresh, the last shown refresh
let changes = 0;  // number of the last change of the list that came from the server

export const itemOf = id => page.state.items.find(i => i.id === id);
export const undecided = i => i.state === 'found' && (!i.decision || isDraft(i));
/** An unreadable radiograph that nobody has looked at or decided on. */
export const unseen = i => i.state === 'unreadable' && !i.decision && !page.looked.has(i.id);
export const count = word => page.state.items.filter(i => i.state === word).length;

// A radiograph that the second opinion flags ranks at the threshold or above, however low its risk.
const urgency = i => i.flagged ? Math.max(i.risk, page.threshold ?? 0) : i.risk;
const blind = () => $('blind').checked;
// An unreadable radiograph has no risk, but may hold any flaw: it comes first. For a blind reader the order
// reveals nothing of the detector's findings.
export const order = () => [...page.state.items].sort((a, b) =>
  (b.state === 'unreadable') - (a.state === 'unreadable') || (blind() ? 0 : urgency(b) - urgency(a)) || a.id - b.id);

// Findings, threshold and curve on the page belong to the detector that was served when the page was opened.
const OTHER = 'another detector is served now than the one on this page: reload the page';

/** Get the changes since the last refresh from the server; `first` is called after the first answer. */
export async function refresh(first) {
  const mine = ++asked;
  let state = await json(`/api/state?since=${changes}`);
  const {sitting, folder} = page.state;
  if (sitting && state.sitting !== sitting) {  // the server was started again and numbers the items differently
    state = await json('/api/state');
    if (state.folder !== folder) throw new Error(OTHER);
  }
  if (mine < applied) return;  // a later request was faster
  applied = mine; changes = state.changes || 0;
  const items = new Map(state.classes ? [] : page.state.items.map(i => [i.id, i]));
  for (const item of state.items) {
    const known = page.busy.has(item.id) && items.get(item.id);
    items.set(item.id, known ? {...item, decision: known.decision} : item);
  }
  page.state = {...page.state, ...state, items: [...items.values()]};
  if (page.threshold === null && first) first();
  drawList();
  later();
}

function later() {  // one timer, however many refreshes there are
  clearTimeout(timer);
  if (count('waiting')) timer = setTimeout(() => told(refresh().catch(error => { later(); throw error; })), 500);
}

const FILTERS = {
  all: () => true, open: i => undecided(i) || unseen(i), edited: isDraft, unreadable: i => i.state === 'unreadable',
  reject: i => i.decision === 'reject' && !isDraft(i), accept: i => i.decision === 'accept' && !isDraft(i),
};

function wordOf(item) {
  if (isDraft(item)) return 'edited';
  if (item.decision) return item.decision;
  return item.state === 'waiting' ? '…' : item.state === 'unreadable' ? 'unreadable' : blind() ? '–' : item.risk.toFixed(2) + (item.flagged ? ' ⚑' : '');
}

let opening = () => {};
export function onOpen(what) { opening = what; }

function newRow(item) {
  const row = element('li'), button = element('button'), name = element('span', undefined, {class: 'name'});
  button.append(element('img', undefined, {alt: '', loading: 'lazy', width: 40, height: 40}), name, element('span', undefined, {class: 'word'}));
  name.append(...['place', 'head', 'tail'].map(part => element('span', undefined, {class: part})));
  button.onclick = () => opening(item.id);
  row.append(button);
  return row;
}

function fillRow(row, item, on) {
  const button = row.firstChild, [picture, name, word] = button.children, text = wordOf(item);
  // In a narrow row the folder is cut first; the end of the file's name stays, since the names differ there.
  const file = item.name.lastIndexOf('/') + 1, cut = Math.max(item.name.length - 16, file);
  const source = item.thumbnail ? `/api/images/${item.id}/thumbnail?of=${item.thumbnail}` : '';
  if (picture.getAttribute('src') !== source) { if (source) picture.src = source; else picture.removeAttribute('src'); }
  button.title = item.reason || item.name; button.className = on ? 'on' : '';
  if (on) button.setAttribute('aria-current', 'true'); else button.removeAttribute('aria-current');
  [[0, file], [file, cut], [cut]].forEach((ends, k) => { name.children[k].textContent = item.name.slice(...ends); });
  word.textContent = text; word.className = `word ${/^[a-z]+$/.test(text) ? text : ''}`;
}

let due = 0;
/** Draw the list once in the next frame: each step of a slider must not update thousands of rows. */
export function drawListSoon() { due ||= requestAnimationFrame(() => { due = 0; drawList(); }); }

export function drawList() {  // keep the rows: a row that is replaced while it is pressed gets no click
  const wanted = $('search').value.trim().toLowerCase(), kind = FILTERS[$('filter').value];
  let hidden = 0;
  order().forEach((item, k) => {
    if (!rows.has(item.id)) rows.set(item.id, newRow(item));
    const row = rows.get(item.id), on = Boolean(page.current && page.current.id === item.id);
    const content = `${item.state} ${item.risk} ${item.decision} ${item.thumbnail} ${on} ${isDraft(item)} ${blind()} ${item.reason}`;
    if (row.content !== content) { row.content = content; fillRow(row, item, on); }
    row.hidden = !kind(item) || !`${item.name} ${item.part || ''}`.toLowerCase().includes(wanted);
    hidden += row.hidden;
    if ($('items').children[k] !== row) $('items').insertBefore(row, $('items').children[k] || null);
  });
  while ($('items').children.length > page.state.items.length) $('items').lastChild.remove();
  const all = page.state.items.length, done = page.state.items.filter(i => i.decision && !isDraft(i)).length;
  const more = ['waiting', 'unreadable'].filter(count).map(word => `, ${count(word)} ${word}`).join('');
  $('left').textContent = `${page.state.items.filter(undecided).length} to decide${more}`;
  $('progress').max = all || 1; $('progress').value = done;
  $('done').textContent = all ? `${done} of ${all} decided${hidden ? `; ${hidden} not shown` : ''}` : '';
}
