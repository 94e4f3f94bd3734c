// Radiographs from the server: findings with pixels, fetched ahead and kept for a while.

import {json} from './api.js';

const KEEP_BYTES = 600e6;  // bytes of pixels and pyramids that stay in memory
const worker = new Worker(new URL('./worker.js', import.meta.url), {type: 'module'});
const waiting = new Map();  // promises of images, by ticket
const kept = new Map();     // promises of images, by id and digest; the last used at the end
let tickets = 0;

worker.onmessage = ({data: {ticket, image, error}}) => {
  const {done, failed} = waiting.get(ticket);
  waiting.delete(ticket);
  if (error === undefined) done(image); else failed(new Error(error));
};

function fetched(id, digest) {
  return new Promise((done, failed) => {
    waiting.set(++tickets, {done, failed});
    worker.postMessage({ticket: tickets, path: `/api/images/${id}/pixels?digest=${digest}`});
  });
}

/** The pixels of a radiograph's present file: the digest tells whether kept pixels still belong to it. */
export function pixelsOf(id, digest) {
  const key = `${id} ${digest}`;
  const promise = kept.get(key) || fetched(id, digest);
  kept.delete(key); kept.set(key, promise);
  promise.then(image => { promise.bytes = 4 * image.width * image.height; tidy(key); }, () => kept.delete(key));
  return promise;
}

function tidy(newest) {
  let bytes = 0;
  for (const [key, promise] of [...kept].reverse()) {
    bytes += promise.bytes || 0;
    if (bytes > KEEP_BYTES && key !== newest) kept.delete(key);
  }
}

/** Findings and pixels of a radiograph together; `image` is null if there are no pixels. */
export async function load(id) {
  const item = await json(`/api/images/${id}`);
  return {item, image: item.state === 'found' ? await pixelsOf(id, item.digest) : null};
}

/** Fetch the next radiographs ahead; an error is shown when the radiograph is opened. */
export function ahead(ids) {
  for (const id of ids) load(id).catch(() => {});
}
