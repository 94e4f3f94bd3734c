// Fetches a radiograph's pixels and makes its pyramid in the background, so that the page stays responsive.

import {call} from './api.js';
import {pyramid, statistics} from './levels.js';

onmessage = async ({data: {ticket, path}}) => {
  try {
    const answer = await call(path), head = key => Number(answer.headers.get(key));
    const pair = key => { const text = answer.headers.get(key); return text ? text.split(',').map(Number) : null; };
    const pixels = new Uint16Array(await answer.arrayBuffer());
    const image = {
      width: head('X-Width'), height: head('X-Height'),
      first: head('X-Low'), last: head('X-High'),  // the file's values at 0 and 65535
      invert: Boolean(head('X-Invert')), spacing: pair('X-Spacing'),
      spacingFrom: answer.headers.get('X-Spacing-From') || '', detector: pair('X-Window'), stated: pair('X-Stated'),
    };
    image.levels = pyramid(pixels, image.width, image.height);
    Object.assign(image, statistics(pixels, image.width, image.height));
    const buffers = new Set(image.levels.flatMap(level => [level.low.buffer, level.high.buffer, level.mean.buffer]));
    postMessage({ticket, image}, [...buffers]);
  } catch (error) {
    postMessage({ticket, error: error.message});
  }
};
