// Matching points as lines between the two photos, spread over the picture however few are drawn.
import { svg } from "./dom.js";

const N_HUES = 12;

/** Rows of four, ordered so that any first few of them are spread over the query. */
export function spreadOut(rows, image) {
  const cell = (value, size) => Math.max(0, Math.min(1023, Math.floor(value / size * 1024)));
  const interleave = (x, y) => {
    let code = 0;
    for (let bit = 9; bit >= 0; bit--) code = code * 4 + (x >> bit & 1) * 2 + (y >> bit & 1);
    return code;
  };
  const along = rows
    .map((row) => [interleave(cell(row[0], image.width), cell(row[1], image.height)), row])
    .sort((a, b) => a[0] - b[0])
    .map((pair) => pair[1]);
  // Van der Corput order along the Z-curve: every prefix covers the whole of it.
  const n_bits = Math.max(1, Math.ceil(Math.log2(Math.max(2, along.length))));
  const reverse = (value) => {
    let result = 0;
    for (let bit = 0; bit < n_bits; bit++) result = result * 2 + (value >> bit & 1);
    return result;
  };
  return along.map((row, i) => [reverse(i), row]).sort((a, b) => a[0] - b[0]).map((pair) => pair[1]);
}

const colour = (hue) => `hsl(${Math.round(hue / N_HUES * 320)} 95% 62%)`;

/** Colours from left to right in the query. */
function hues(rows) {
  const across = rows.map((row) => row[0]);
  const left = Math.min(...across), range = Math.max(...across) - left || 1;
  return (row) => Math.min(N_HUES - 1, Math.floor((row[0] - left) / range * N_HUES));
}

/** Paths of the first `n` of `rows`; `toStage` maps a row to where its two ends lie. */
export function threads(rows, n, toStage) {
  const hueOf = hues(rows);
  const paths = Array.from({ length: N_HUES }, () => ({ line: [], dot: [] }));
  const rim = [];
  rows.slice(0, n).forEach((row) => {
    const [x, y, u, v] = toStage(row).map((value) => value.toFixed(1));
    const path = paths[hueOf(row)], ends = `M${x} ${y}h.01M${u} ${v}h.01`;
    path.line.push(`M${x} ${y}L${u} ${v}`);
    path.dot.push(ends);
    rim.push(ends);
  });
  const filled = (key) => paths.flatMap((path, hue) => path[key].length === 0 ? []
    : [svg("path", { class: key === "line" ? "thread" : "dot", stroke: colour(hue), d: path[key].join("") })]);
  return [...filled("line"), svg("path", { class: "dot rim", d: rim.join("") }), ...filled("dot")];
}

/** What a transform does at the centre of the query, in words. */
export function motion(transform, { width, height }) {
  const [x, y, w] = transform.map((row) => row[0] * (width - 1) / 2 + row[1] * (height - 1) / 2 + row[2]);
  const jacobian = [0, 1].map((i) => [0, 1].map((j) => (transform[i][j] - [x, y][i] / w * transform[2][j]) / w));
  const [[a, b], [c, d]] = jacobian;
  const area = a * d - b * c;
  if (!Number.isFinite(area) || Math.abs(area) < 1e-12) return [];
  // The nearest rotation; of a mirror image, that which remains after mirroring.
  const turn = (area < 0 ? Math.atan2(-c - b, d - a) : Math.atan2(c - b, a + d)) * 180 / Math.PI;
  return [["scale", `× ${Number(Math.sqrt(Math.abs(area)).toPrecision(3))}`],
    ["rotation", `${Math.abs(turn).toFixed(1)}° ${turn >= 0 ? "clockwise" : "anticlockwise"}`],
    ...(area < 0 ? [["mirrored", "yes"]] : [])];
}
