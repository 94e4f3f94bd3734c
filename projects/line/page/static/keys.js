// Actions of the keys, wherever the focus is, except in a text field.

import {addInMiddle, nudge, reclass, remove, select, selectNext} from './boxes.js';
import {closeViews} from './parts.js';
import {$, page, say, told} from './state.js';

const TEXT = /^(text|search|number|file)$/;
const ARROWS = {ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1]};

const takesText = e => e.tagName === 'SELECT' || e.tagName === 'TEXTAREA' || e.tagName === 'INPUT' && TEXT.test(e.type);

/**
 * @param actions Functions by key, in small letters; each may return a message or a promise of one.
 * @param holds Functions by key; called with true when the key is pressed and with false when it is released.
 */
export function listenToKeys(viewer, actions, holds, undo) {
  const held = new Set();
  const boxKeys = {
    '.': () => say(selectNext(1, viewer)), ',': () => say(selectNext(-1, viewer)), d: () => addInMiddle(viewer),
    delete: () => remove(), backspace: () => remove(), escape: () => { closeViews(); $('view').focus(); select(null); },
    '+': () => viewer.zoom(1.25), '=': () => viewer.zoom(1.25), '-': () => viewer.zoom(.8),
    f: () => viewer.fit(), 1: () => viewer.zoomTo(1),
  };
  const all = {...boxKeys, ...actions};

  function hold(key, on) {
    if (on === held.has(key)) return;
    if (on) held.add(key); else held.delete(key);
    holds[key](on);
  }

  onkeydown = event => {
    const {target, key} = event;
    // The repeats of a held key click no button.
    if (event.repeat && target.tagName === 'BUTTON' && /^(Enter| )$/.test(key)) event.preventDefault();
    if (takesText(target) || $('help').open) return;
    const small = key.toLowerCase(), command = event.ctrlKey || event.metaKey;
    if (command && !event.altKey && (small === 'z' || small === 'y')) {
      event.preventDefault();
      if (!event.repeat) told(undo(small === 'y' || event.shiftKey));
      return;
    }
    if (ARROWS[key] && target.type !== 'range' && !event.altKey) { arrow(event, viewer); return; }
    if (command || event.altKey) return;
    if (holds[small]) { event.preventDefault(); hold(small, true); return; }
    if (event.repeat) return;
    const digit = event.shiftKey && /^Digit[1-9]$/.test(event.code) ? Number(event.code[5]) : 0;
    if (digit) { reclass(digit - 1); return; }
    // A letter with Shift or CapsLock counts as the same key.
    const action = all[small];
    if (action) { event.preventDefault(); told(Promise.resolve(action())); }
  };
  onkeyup = event => { if (holds[event.key.toLowerCase()]) hold(event.key.toLowerCase(), false); };
  onblur = () => { for (const key of [...held]) hold(key, false); };
}

/** Move the selected box, or with Ctrl its lower right corner, by 1 px, with Shift by 10; else move the picture. */
function arrow(event, viewer) {
  if (!page.image || event.target.closest('#items, dialog')) return;
  event.preventDefault();
  const [x, y] = ARROWS[event.key], far = event.shiftKey ? 10 : 1;
  if (page.selected) nudge(x * far, y * far, event.ctrlKey || event.metaKey);
  else viewer.move(-x * 60 * viewer.ratio, -y * 60 * viewer.ratio);
}
