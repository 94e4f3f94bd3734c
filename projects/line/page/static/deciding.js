// Accept and reject: the inspector's decision, kept while the next radiograph is already shown.

import {json} from './api.js';
import {deciding} from './history.js';
import {drawList, itemOf} from './list.js';
import {blind, next, open, reopen, reveal} from './opening.js';
import {$, page, changed, marked, proposal, rejects, say} from './state.js';

const LOOK = 300;  // ms that a radiograph is shown before it can be decided on
let queue = Promise.resolve();  // decisions reach the server in the order of the inspector
let firstReading = null;  // of a blind reading: {id, verdict}
let viewer = null;

export function decideIn(made) { viewer = made; }

/** Why the server would refuse a verdict, or ''. */
function obstacle(verdict) {
  const {classes, rejecting} = page.state, bad = marked().find(rejects);
  if (page.current.state === 'unreadable') return '';
  if (verdict === 'accept' && bad) return `a ${classes[bad.label]} defect is still marked: take its box away, or reject`;
  if (verdict === 'reject' && !bad) {
    return `expected a box of ${rejecting.map(k => classes[k]).join(' or ')} around what rejects the part: draw it, or lower the threshold until it shows`;
  }
  return '';
}

/** Note a blind decision and uncover the detector's findings; true if the inspector has to look at them first. */
function uncovers(verdict) {
  if (page.revealed || !blind()) return false;
  firstReading = {id: page.current.id, verdict};
  reveal();
  if (!marked().some(box => box.score !== null)) return false;  // nothing was covered
  say(`your reading: ${verdict}; the detector proposes ${proposal(page.current)}. Look at its findings, then decide`);
  page.seen = performance.now();
  return true;
}

export function decide(verdict) {
  const item = page.current;
  if (!item || page.busy.has(item.id)) return;
  if (performance.now() - page.seen < LOOK) {  // a press so soon was meant for the radiograph before; each such press restarts the wait
    page.seen = performance.now(); say('look at it first: it has only just appeared'); return;
  }
  if (uncovers(verdict)) return;
  const why = obstacle(verdict);
  if (why) { say(why); return; }
  const share = page.image ? viewer.seenShare : 0, note = share > 0 ? `${Math.round(100 * share)} % of it was` : 'at Fit alone';
  const request = {
    verdict, boxes: marked().map(({box, label}) => ({box, label})), part: $('part').value, digest: item.digest,
    revision: item.revision || 0, inspector: $('inspector').value.trim(), folder: page.state.folder,
    viewed: {
      seen_at_1_to_1: Math.round(100 * share) / 100, threshold: page.threshold,
      ...(firstReading && firstReading.id === item.id ? {blind: firstReading.verdict} : {}),
    },
  };
  firstReading = null;
  keep(item, request, share < 1 && page.image && verdict === 'accept' ? `accepted without having been seen whole at 1:1 (${note})` : '');
}

async function keep(item, request, remark) {
  const known = deciding(item), listed = itemOf(item.id), earlier = listed.decision, wasDraft = page.drafts.get(item.id);
  page.busy.add(item.id); page.drafts.delete(item.id); listed.decision = request.verdict;
  changed(); drawList();
  const sent = queue.then(() => json(`/api/images/${item.id}/decision`, request));
  queue = sent.catch(() => {});
  const moved = next(true).catch(error => error.message);  // without waiting for the server
  try {
    const {saved, revision} = await sent;
    item.revision = revision;
    page.busy.delete(item.id); known(request);
    await reopen(item.id).catch(() => {});
    const more = await moved;
    say([`${request.verdict} kept in ${saved}`, remark, more].filter(Boolean).join('; '));
  } catch (error) {
    page.busy.delete(item.id);
    listed.decision = earlier;
    if (wasDraft) page.drafts.set(item.id, wasDraft);
    await moved; await open(item.id).catch(() => {});
    say(`${item.name} is not decided: ${error.message}`);
  }
  changed(); drawList();
}

/** Draw the detector's proposal and the inspector's decision in words and shapes, in two places. */
export function drawVerdicts() {
  const item = page.current, read = item && item.state === 'found', own = item && (item.decision || '');
  const covered = read && !page.revealed && !own;
  const word = !item ? '' : !read ? 'unreadable' : covered ? 'covered' : proposal(item);
  $('verdict').textContent = word; $('proposal').className = `proposal ${word}`;
  $('flag').textContent = read && item.flagged && !covered ? '⚑ unlike sound parts: look at all of it' : '';
  const bad = read && marked().find(rejects), listed = item && itemOf(item.id);
  const going = item && page.busy.has(item.id) && listed ? `${listed.decision} …` : '';
  $('decision').textContent = !item ? '' : going || own || (bad && bad.score === null ? 'not decided, a rejecting box is marked' : 'not decided');
  $('decision').className = `decision ${going ? '' : own}`;
}
