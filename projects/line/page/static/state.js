// What the modules of the page share: the sitting, the radiograph that is shown, what is not decided yet.

export {element} from './elements.js';
export const $ = id => document.getElementById(id);

export const page = {
  state: {items: [], classes: [], palette: [], rejecting: [], curve: []},
  current: null,      // the radiograph that is shown: findings, part, decision
  image: null,        // its pixels, with their pyramid; null where it cannot be read
  threshold: null,    // score from which a detection is shown and counts
  selected: null,     // the box that is worked on
  hidden: false,      // while the key that hides boxes is held
  revealed: true,     // false while a blind reading hides what the detector found
  drafts: new Map(),  // radiographs that were changed and not decided on, by item
  looked: new Set(),  // the unreadable ones that were shown
  turn: 0,            // the last radiograph asked for
  busy: new Set(),    // those whose decisions are on their way
  seen: 0,            // since when the current one is shown, ms of performance.now()
};

const listeners = [];

/** Have `what` called whenever the current radiograph, its boxes or the threshold changed. */
export function onChange(what) { listeners.push(what); }

export function changed() { for (const what of listeners) what(); }

export const say = text => { $('message').textContent = text; };

/** Say what comes of a promise, if it says anything; its error in any case. */
export async function told(what) {
  try { const text = await what; if (text !== undefined) say(text); } catch (error) { say(error.message); }
}

export const counts = box => box.score === null || box.score >= page.threshold;
/** Boxes of the current radiograph at the threshold. */
export const marked = () => page.current && page.current.boxes ? page.current.boxes.filter(counts) : [];
/** Those that are shown now. */
export const shown = () => page.hidden ? [] : page.revealed ? marked() : marked().filter(b => b.score === null);
export const rejects = box => page.state.rejecting.includes(box.label);
export const colour = label => `rgb(${page.state.palette[label]})`;
/** What the detector proposes: its highest score of a rejecting class against the threshold. */
export const proposal = item => item.risk >= page.threshold ? 'reject' : 'accept';
export const isDraft = item => page.drafts.has(item.id);
