// Undo and redo of everything that changes a radiograph: boxes, part, decisions.

import {json} from './api.js';
import {$, page, changed, isDraft} from './state.js';

const SOON = 1000;  // ms within which changes of one kind are one step
const done = [], undone = [];

const snapshot = item => ({boxes: structuredClone(item.boxes), part: item.part, decision: item.decision, draft: isDraft(item)});

/** Whether the current radiograph can be changed now: not while its decision is being sent. */
export const free = () => Boolean(page.current) && !page.busy.has(page.current.id);

/** Change the current radiograph as one step; a change of the same `kind` soon after joins the step before. */
export function edit(kind, change) {
  if (!free()) return false;
  const item = page.current, before = snapshot(item), last = done[done.length - 1];
  change(item);
  item.decision = null; page.drafts.set(item.id, item);
  const now = performance.now(), joins = last && last.id === item.id && last.kind === kind && now - last.at < SOON && !undone.length;
  if (joins) Object.assign(last, {after: snapshot(item), at: now});
  else done.push({id: item.id, name: item.name, digest: item.digest, kind, before, after: snapshot(item), at: now});
  undone.length = 0;
  changed();
  return true;
}

/** Begin a decision; returns a function that notes the step once the decision is kept. */
export function deciding(item) {
  const before = snapshot(item);
  return request => {
    const after = {...snapshot(item), boxes: request.boxes.map(box => ({...box, score: null})), decision: request.verdict, draft: false};
    done.push({id: item.id, name: item.name, digest: item.digest, kind: 'decision', before, after, request, at: performance.now()});
    undone.length = 0;
  };
}

/** Undo the last step or, with `again`, redo the last undone step; returns a message. */
export async function step(open, again = false) {
  const from = again ? undone : done, to = again ? done : undone, entry = from[from.length - 1];
  if (!entry) return again ? 'nothing to put back' : 'nothing to take back';
  if (page.busy.has(entry.id)) return 'its decision is being sent';
  if (!page.current || page.current.id !== entry.id) await open(entry.id);
  if (page.current.digest !== entry.digest) { from.pop(); return `${entry.name}: its file changed; that step is gone`; }
  if (entry.kind === 'decision') {
    page.busy.add(entry.id);
    try {
      const {revision = 0, part, digest} = page.current;
      const request = again ? {...entry.request, revision}
        : {verdict: 'withdraw', boxes: [], part, digest, revision, inspector: $('inspector').value.trim(), folder: page.state.folder};
      page.current.revision = (await json(`/api/images/${entry.id}/decision`, request)).revision;
    } finally { page.busy.delete(entry.id); }
  }
  from.splice(from.indexOf(entry), 1); to.push(entry);
  const item = page.current, wanted = again ? entry.after : entry.before;
  Object.assign(item, {boxes: structuredClone(wanted.boxes), part: wanted.part, decision: wanted.decision});
  if (wanted.draft || entry.kind === 'decision' && !again) page.drafts.set(item.id, item); else page.drafts.delete(item.id);
  const listed = page.state.items.find(i => i.id === entry.id);
  if (listed && entry.kind === 'decision') listed.decision = wanted.decision;  // as the server has it now
  page.selected = null;
  changed();
  return `${again ? 'again' : 'taken back'}: ${entry.kind} of ${entry.name}`;
}
