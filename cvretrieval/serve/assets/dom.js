// Building elements. What comes from the server becomes text and attributes, never markup.

const SVG = "http://www.w3.org/2000/svg";

function set(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (value === true) node.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined) node.setAttribute(name, value);
  }
  node.append(...children);
  return node;
}

export const html = (name, attributes = {}, ...children) => set(document.createElement(name), attributes, children);
export const svg = (name, attributes = {}, ...children) => set(document.createElementNS(SVG, name), attributes, children);
export const byId = (id) => document.getElementById(id);

export const plural = (n, noun, many = `${noun}s`) => `${n.toLocaleString("en")} ${n === 1 ? noun : many}`;

export function duration(seconds) {
  if (seconds < 0.0095) return `${(seconds * 1000).toFixed(1)} ms`;
  return seconds < 1 ? `${Math.round(seconds * 1000)} ms` : `${seconds.toFixed(seconds < 10 ? 2 : 1)} s`;
}

/** A picture that says so where it cannot be shown. */
export function picture(src, attributes = {}) {
  const image = html("img", { loading: "lazy", decoding: "async", alt: "", draggable: "false", ...attributes, src });
  image.addEventListener("error", () => image.replaceWith(html("span", { class: "missing" }, "This photo cannot be shown.")));
  return image;
}

export function outline(points, name) {
  const text = points.map((point) => point.join(",")).join(" ");
  return svg("g", { class: `outline ${name}` },
    svg("polygon", { class: "halo", points: text }), svg("polygon", { points: text }));
}

export const corners = ([x1, y1, x2, y2]) => [[x1, y1], [x2, y1], [x2, y2], [x1, y2]];
