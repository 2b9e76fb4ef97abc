// The interface of the server, and what its refusals mean.

export class ServerError extends Error {
  constructor(status, detail) {
    super(detail);
    this.status = status;
  }
}

// A name that is not valid UTF-8 has half characters in it, which no address can have.
const segment = (text) => encodeURIComponent(text.replace(/\p{Surrogate}/gu, "\ufffd"));

export const imageUrl = (id, size) => `/api/images/${id.split("/").map(segment).join("/")}?size=${size}`;
export const queryUrl = (key, size) => `/api/queries/${segment(key)}?size=${size}`;
export const pictureOf = (query, size) => query.id ? imageUrl(query.id, size) : queryUrl(query.key ?? query.query, size);

async function ask(path, options = {}) {
  let answer;
  try {
    answer = await fetch(path, { credentials: "same-origin", ...options });
  } catch (error) {
    if (options.signal?.aborted) throw options.signal.reason;
    throw new ServerError(0, "The server does not answer. Is cvretrieval serve still running?");
  }
  const body = await answer.json().catch(() => {
    if (options.signal?.aborted) throw options.signal.reason;
    return {};
  });
  if (!answer.ok) throw new ServerError(answer.status, body.detail ?? `The server answered with status ${answer.status}.`);
  return body;
}

export const info = () => ask("/api/info");
export const images = (offset, limit, signal) => ask(`/api/images?offset=${offset}&limit=${limit}`, { signal });

function form(fields) {
  const body = new FormData();
  for (const [name, value] of Object.entries(fields)) {
    if (value !== null && value !== undefined) body.append(name, value);
  }
  return body;
}

/** `what` has a photo, a query or an id, and a box or null. */
const whatOf = ({ photo, query, id, box }) => ({ photo, query: photo ? null : query, id: photo ? null : id, box: box && box.join(",") });

export const search = (what, signal) => ask("/api/search", {
  method: "POST", signal, body: form({ ...whatOf(what), k: what.k, verify: what.verify, expand: what.expand }),
});

export const matches = (what, candidate, signal) => ask("/api/matches", {
  method: "POST", signal, body: form({ ...whatOf(what), candidate }),
});
