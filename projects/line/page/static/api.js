// Calls to the page's server, and its refusals in words.

/** Send a request: a POST if there is a body, as JSON unless `raw`. Throws an Error with the reason of a refusal. */
export async function call(path, body, raw) {
  const options = body === undefined ? {} : {
    method: 'POST',
    body: raw ? body : JSON.stringify(body),
    headers: {'X-Inspect': 'page', 'Content-Type': raw ? 'application/octet-stream' : 'application/json'},
  };
  const answer = await fetch(path, options).catch(() => {
    throw new Error('the server does not answer: nothing was kept. See whether its program still runs, then try again');
  });
  if (!answer.ok) throw new Error(await refusal(answer));
  return answer;
}

async function refusal(answer) {
  const body = await answer.json().catch(() => ({}));
  return typeof body.detail === 'string' ? body.detail : `${answer.statusText || 'refused'} (${answer.status})`;
}

export const json = async (path, body) => (await call(path, body)).json();
