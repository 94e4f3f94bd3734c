// The shared state of the page's modules: the sitting, the shown radiograph, the drafts of decisions.

export {element} from './elements.js';
export const $ = id => document.getElementById(id);

export const page = {
  state: {items: [], classes: [], palette: [], rejecting: [], curve: []},
  current: null,      // the shown radiograph: findings, part, decision
  image: null,        // its pixels, with their pyramid; null if it cannot be read
  threshold: null,    // lowest score of a detection that is shown and counts
  selected: null,     // the selected box
  hidden: false,      // true while the key that hides boxes is held
  revealed: true,     // false while a blind reading hides the detector's findings
  drafts: new Map(),  // changed radiographs without a decision, by item
  looked: new Set(),  // unreadable radiographs that were shown
  turn: 0,            // number of the last request for a radiograph
  busy: new Set(),    // radiographs whose decisions are being sent
  seen: 0,            // when the current radiograph was shown, ms of performance.now()
};

const listeners = [];

/** Call `what` after each change of the current radiograph, its boxes or the threshold. */
export function onChange(what) { listeners.push(what); }

export function changed() { for (const what of listeners) what(); }

export const say = text => { $('message').textContent = text; };

/** Show the message that a promise returns, if any, or its error. */
export async function told(what) {
  try { const text = await what; if (text !== undefined) say(text); } catch (error) { say(error.message); }
}

export const counts = box => box.score === null || box.score >= page.threshold;
/** Boxes of the current radiograph that count at the threshold. */
export const marked = () => page.current && page.current.boxes ? page.current.boxes.filter(counts) : [];
/** The boxes that are shown now. */
export const shown = () => page.hidden ? [] : page.revealed ? marked() : marked().filter(b => b.score === null);
export const rejects = box => page.state.rejecting.includes(box.label);
export const colour = label => `rgb(${page.state.palette[label]})`;
/** The detector's proposal: its highest score of a rejecting class, compared with the threshold. */
export const proposal = item => item.risk >= page.threshold ? 'reject' : 'accept';
export const isDraft = item => page.drafts.has(item.id);
