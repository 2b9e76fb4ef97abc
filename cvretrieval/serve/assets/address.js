// What the page shows is its address: a search with its region and settings, a page of the collection, an opened result.

const numbers = (text) => (text ?? "").split(",").map(Number);

function boxOf(text) {
  const box = numbers(text);
  return box.length === 4 && box.every(Number.isFinite) && box[0] < box[2] && box[1] < box[3] ? box : null;
}

const flag = (text, otherwise) => text === null ? otherwise : text === "1" || text === "true";

export function read(hash, settings, most) {
  const fields = new URLSearchParams(hash.replace(/^#/, ""));
  const query = fields.get("query"), id = fields.get("id");
  if (!query && !id) return { kind: "browse", offset: Math.max(0, Math.floor(Number(fields.get("browse")) || 0)) };
  const k = Math.floor(Number(fields.get("k")));
  return {
    kind: "search", query: id ? null : query, id, box: boxOf(fields.get("box")), k: k >= 1 && k <= most ? k : settings.k,
    verify: flag(fields.get("verify"), settings.verify), expand: flag(fields.get("expand"), settings.expand),
    view: fields.get("view"),
  };
}

export function write(address) {
  const fields = new URLSearchParams();
  if (address.kind === "browse") return `#browse=${address.offset}`;
  if (address.id) fields.set("id", address.id);
  else fields.set("query", address.query);
  if (address.box) fields.set("box", address.box.join(","));
  fields.set("k", address.k);
  fields.set("verify", address.verify ? 1 : 0);
  fields.set("expand", address.expand ? 1 : 0);
  if (address.view) fields.set("view", address.view);
  return `#${fields}`.replaceAll("%2C", ",").replaceAll("%2F", "/"); // they need no escape here, and read better
}

/** The address of a search without what is opened of it. */
export const searchOf = (address) => write({ ...address, view: null });
