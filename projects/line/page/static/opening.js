// Which radiograph is shown: opening a radiograph, the next worst, the previous one; the next ones are fetched ahead.

import {call, json} from './api.js';
import {count, drawList, itemOf, order, refresh, undecided, unseen} from './list.js';
import {ahead, load} from './loading.js';
import {closeViews} from './parts.js';
import {endGesture} from './pointer.js';
import {$, page, changed, say, told} from './state.js';

const AHEAD = 2;  // radiographs
const seen = new Map();   // the region of each radiograph that was seen at 1:1, by id and digest
const before = [];        // ids of shown radiographs, the last at the end
const opened = new Set(); // radiographs whose findings a blind reading has uncovered, by id and digest
let viewer = null, fresh = false;  // fresh: a folder was opened, and its worst radiograph comes next
let folder = Promise.resolve();    // ends when the folder that was asked for last is open, or cannot be opened

export function openIn(made) { viewer = made; }

export const keyOf = item => `${item.id} ${item.digest}`;
export const blind = () => $('blind').checked;

/** Show a radiograph; returns a message. */
export async function open(id, back = false) {
  const mine = ++page.turn, deciding = page.busy.has(id);
  let {item, image} = await load(id);
  if (deciding && !page.busy.has(id)) ({item, image} = await load(id));  // decided on meanwhile
  if (mine !== page.turn) return '';  // another radiograph was asked for meanwhile
  if (item.state === 'waiting') return 'not inspected yet';
  let word = '';
  const draft = page.drafts.get(id);
  if (draft && draft.digest !== item.digest) {
    page.drafts.delete(id);
    word = image ? 'its file changed: what was drawn on it is gone' : 'its file can no longer be read: what was drawn on it is gone';
  }
  if (page.drafts.has(id)) draft.revision = item.revision;  // the page has shown the decisions made meanwhile
  if (page.current && page.current.id !== id && !back) before.push(page.current.id);
  // Set all together, so that name, boxes and pixels on the page always belong to one radiograph.
  page.current = page.drafts.get(id) || item; page.image = image; page.selected = null;
  page.revealed = !covers(item);
  if (!image) page.looked.add(id);
  if (image && !seen.has(keyOf(item))) seen.set(keyOf(item), new Uint8Array(256));
  endGesture(); closeViews();
  viewer.show(image, seen.get(keyOf(item)));
  page.seen = performance.now();
  changed();
  told(refresh());
  ahead(after(id).filter(i => i.state === 'found').slice(0, AHEAD).map(i => i.id));
  return word;
}

/** Uncover the detector's findings in a blind reading. */
export function reveal() {
  if (page.current) opened.add(keyOf(page.current));
  page.revealed = true;
  changed();
}

/** The undecided radiographs in the order of the list, beginning after a radiograph, which itself comes last. */
function after(id) {
  const all = order(), at = all.findIndex(i => i.id === id);
  return [...all.slice(at + 1), ...all.slice(0, at + 1)].filter(i => undecided(i) || unseen(i));
}

/** Show the next undecided radiograph; returns a message. */
export async function next(known = false) {
  if (!known) {
    const turn = page.turn;
    await folder; await refresh();  // whoever presses Next after Open means that folder
    if (turn !== page.turn) return undefined;  // another radiograph was asked for meanwhile
  }
  const found = page.current && !fresh ? after(page.current.id)[0] : order().find(i => undecided(i) || unseen(i));
  fresh = false;
  if (found) return open(found.id);
  if (count('waiting')) return `still inspecting: ${count('waiting')} waiting`;
  const dark = page.state.items.filter(i => i.state === 'unreadable' && !i.decision).length;
  return `nothing left to decide${dark ? `, but ${dark} unreadable: look at those parts otherwise` : ''}`;
}

export async function previous() {
  const id = before.pop();
  return id === undefined ? 'no radiograph was shown before' : open(id, true);
}

/** Show the last shown radiograph of another part. */
export async function previousPart() {
  const {part, id} = page.current || {};
  while (before.length) {
    const item = itemOf(before[before.length - 1]);
    if (item && item.id !== id && (!part || item.part !== part)) return previous();
    before.pop();
  }
  return 'no other part was shown before';
}

/** Whether a blind reading still covers the detector's findings on a radiograph. */
export const covers = item => blind() && !item.decision && !opened.has(keyOf(item));

/** Show the server's state of the current radiograph, once its decision is kept. */
export async function reopen(id) {
  const item = itemOf(id);
  if (page.current && page.current.id === id && item && item.decision && !page.drafts.has(id)) {
    Object.assign(page.current, await json(`/api/images/${id}`));
    page.selected = null;
    changed(); drawList();
  }
}

/** Open the chosen folder; returns a message. */
export function pick() {
  const opened = openFolder();
  folder = Promise.allSettled([folder, opened]);  // an error is told by whoever called
  return opened;
}

async function openFolder() {
  say('opening the folder …');
  const {outside} = await json('/v1/inspect/folder', {folder: $('folder').value});
  page.looked.clear();  // an unreadable file may have been replaced
  await refresh();
  fresh = true;
  return outside ? `${outside} lead out of the archive: look at those parts otherwise` : '';
}

/** Send files one after the other; one message names all refused files. */
export async function send(files) {
  const refused = [];
  for (const file of files) {
    say(`${file.name} …`);
    try {
      const answer = await call(`/v1/inspect?keep=true&name=${encodeURIComponent(file.name)}`, file, true);
      const [{id}] = (await answer.json()).results;
      await refresh();
      say(await open(id));
    } catch (error) { refused.push(error.message.startsWith(file.name) ? error.message : `${file.name}: ${error.message}`); }
  }
  if (refused.length) say(`${refused.length} of ${files.length} not taken, look at those parts otherwise: ${refused.join('; ')}`);
}
