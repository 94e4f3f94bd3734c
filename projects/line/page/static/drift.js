// Drift against the proof: a small chart of each statistic with its limits and words, and "requalify"; also
// a warning if another detector has replaced the served one.

import {json} from './api.js';
import {$, element} from './state.js';
import {plain} from './words.js';

const WIDTH = 300, HEIGHT = 44;
const number = value => Math.abs(value) >= 10 ? value.toFixed(1) : value.toFixed(2);
const told = (chart, value) => chart.unit === 'share' ? `${(100 * value).toFixed(1)} %` : number(value);

function svg(name, attributes) {
  const made = document.createElementNS('http://www.w3.org/2000/svg', name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  return made;
}

function words(chart) {
  if (!chart.count) return `${chart.words}: no radiograph yet`;
  const low = chart.lower === null ? 'any' : told(chart, chart.lower), high = chart.upper === null ? 'any' : told(chart, chart.upper);
  const now = `${told(chart, chart.average)}, limits ${low} to ${high}, ${chart.count} radiographs`;
  if (!chart.called.time) return `${chart.words}: as at the proof (${now})`;
  return plain(`▲ ${chart.words}: ${chart.called.side} since ${chart.called.time} (${now})`);
}

function picture(chart) {
  const all = [...chart.history, chart.centre, chart.lower ?? chart.centre, chart.upper ?? chart.centre];
  const low = Math.min(...all), span = Math.max(...all) - low || 1, y = value => HEIGHT - 3 - (HEIGHT - 6) * (value - low) / span;
  const made = svg('svg', {viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: 'img', 'aria-label': words(chart)});
  for (const limit of [chart.lower, chart.upper]) {
    if (limit !== null) made.append(svg('path', {d: `M0 ${y(limit)}H${WIDTH}`, class: 'limit', 'stroke-dasharray': '6 4'}));
  }
  made.append(svg('path', {d: `M0 ${y(chart.centre)}H${WIDTH}`, class: 'centre'}));
  const step = WIDTH / Math.max(chart.history.length - 1, 1);
  made.append(svg('polyline', {points: chart.history.map((value, k) => `${k * step},${y(value)}`).join(' '), class: 'average', fill: 'none'}));
  return made;
}

/** Get the state of the charts from the server, and draw them. */
export async function drawDrift() {
  const drift = await json('/api/drift');
  $('drift').classList.toggle('requalify', Boolean(drift.requalify.length));
  $('requalify').textContent = drift.requalify.length ? '▲ Requalify the detector: see Drift' : '';
  $('replaced').textContent = drift.replaced ? `▲ ${drift.replaced}` : '';
  $('drift-status').textContent = drift.requalify.length
    ? plain(`Requalify the detector: ${drift.requalify.join('; ')}`)
    : drift.charts.length ? 'Drift: as at the proof' : '';
  $('drift-charts').replaceChildren(
    ...drift.charts.flatMap(chart => [element('small', words(chart), {class: chart.called.time ? 'called' : ''}), ...chart.history.length ? [picture(chart)] : []]),
    ...drift.notes.map(note => element('small', note)),
  );
}
