// The cost of the threshold: escape and false reject of the validation parts, as counts and bounds.

import {$, page} from './state.js';

// Between two rows, each rate is the worse of both: escape rises with the threshold, false reject falls.
const rows = () => {
  const {curve} = page.state, {threshold} = page;
  return [curve.find(r => r.threshold >= threshold - 1e-9), [...curve].reverse().find(r => r.threshold <= threshold + 1e-9)];
};

/** Counts and bound in the words of the report, from the folder; an older folder has estimates alone. */
function rate(row, key) {
  if (!row || row[key] === null) return 'not estimable';
  return row[`${key}_words`] || `estimated ${(100 * row[key]).toFixed(1)} %, without a bound: export again for it`;
}

export function drawCurve() {
  const {threshold} = page, x = 34 + 256 * threshold;
  $('threshold-value').textContent = Number(threshold).toFixed(3);
  const path = key => page.state.curve.filter(r => r[key] !== null).map(r => `${34 + 256 * r.threshold},${110 - 100 * r[key]}`).join(' ');
  $('curve-escape').setAttribute('points', path('escape'));
  $('curve-false-reject').setAttribute('points', path('false_reject'));
  $('curve-at').setAttribute('d', `M${x} 10V110`);
  const [above, below] = rows();
  const words = page.state.curve.length
    ? [`escape ${rate(above, 'escape')}`, `false reject ${rate(below, 'false_reject')}`]
    : ['no curve: validation had no parts'];
  $('rates').replaceChildren(...words.map(text => { const line = document.createElement('div'); line.textContent = text; return line; }));
}
