// The page is complete without this script. It adds the view of the matches behind a hit, folding and filtering.
(() => {
"use strict";

const data = JSON.parse(document.getElementById("data").textContent);
const SVG = "http://www.w3.org/2000/svg";
const N_HUES = 12;
const FIRST_LINES = 60; // more hide the picture
const PICK_RADIUS = 28; // CSS pixels

function set(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (value === true) node.setAttribute(name, "");
    else if (value !== false && value !== null) node.setAttribute(name, value);
  }
  node.append(...children);
  return node;
}
const html = (name, attributes = {}, ...children) => set(document.createElement(name), attributes, children);
const svg = (name, attributes = {}, ...children) => set(document.createElementNS(SVG, name), attributes, children);
const plural = (n, noun) => `${n.toLocaleString("en")} ${noun}${n === 1 ? "" : "s"}`;

// ---------------------------------------------------------------- matches

/** Rows of four, ordered so that any first few of them are spread over the query. */
function spreadOut(flat, image) {
  const rows = [];
  for (let i = 0; i < flat.length; i += 4) rows.push(flat.slice(i, i + 4));
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

function polygonOf(points, group) {
  const text = [];
  for (let i = 0; i < points.length; i += 2) text.push(`${points[i]},${points[i + 1]}`);
  return svg("g", { class: `outline ${group}` },
    svg("polygon", { class: "halo", points: text.join(" ") }), svg("polygon", { points: text.join(" ") }));
}

// ---------------------------------------------------------------- the view of one pair

class MatchView {
  constructor(root) {
    this.root = root;
    this.lines = html("input", { type: "range", min: 0, oninput: () => this.draw() });
    this.shown = html("output");
    this.points = html("input", { type: "checkbox", checked: true, onchange: () => this.draw() });
    this.outline = html("input", { type: "checkbox", checked: true, onchange: () => this.draw() });
    this.blend = html("input", { type: "range", min: 0, max: 100, value: 50, oninput: () => this.mix() });
    const mode = (value, text) => html("label", {},
      html("input", { type: "radio", name: "mode", value, checked: value === "pair", onchange: () => this.draw() }), text);
    this.modes = html("fieldset", { "aria-label": "View" }, mode("pair", "Side by side"), mode("overlay", "Overlay"));
    this.pairControls = html("div", { class: "controls" },
      html("label", {}, "Lines", this.lines, this.shown), html("label", {}, this.points, "Points"),
      html("label", {}, this.outline, "Outline"));
    this.overlayControls = html("div", { class: "controls" },
      html("label", {}, "Found", this.blend, "Query, moved onto it"));
    this.stage = svg("svg", { class: "stage", role: "img" });
    this.overlay = html("div", { class: "overlay", role: "img" });
    this.hint = html("p", { class: "hint" });
    this.facts = html("dl", { class: "facts" });
    root.replaceChildren(
      html("div", { class: "controls" }, this.modes, this.pairControls, this.overlayControls),
      this.stage, this.overlay, this.hint, this.facts);
    this.stage.addEventListener("pointermove", (event) => this.pick(event));
    this.stage.addEventListener("pointerdown", (event) => this.pick(event));
    // A finger leaves when it is lifted: what it picked stays.
    this.stage.addEventListener("pointerleave", (event) => event.pointerType === "touch" || this.unpick());
    new ResizeObserver(() => this.hit && this.width !== root.clientWidth && this.draw()).observe(root);
  }

  show(query, hit) {
    this.query = query;
    this.hit = hit;
    this.complete = Boolean(query.image.key && hit.image.key);
    this.matches = this.complete ? spreadOut(hit.matches, query.image) : [];
    const across = this.matches.map((row) => row[0]);
    const left = Math.min(...across), range = Math.max(...across) - left || 1;
    this.hueOf = (row) => Math.min(N_HUES - 1, Math.floor((row[0] - left) / range * N_HUES));
    this.lines.max = this.matches.length;
    this.lines.value = Math.min(FIRST_LINES, this.matches.length);
    this.lines.disabled = this.points.disabled = this.matches.length === 0;
    const canOverlay = this.complete && hit.transform !== null;
    this.modes.hidden = !canOverlay;
    if (!canOverlay) this.modes.querySelector("input").checked = true;
    this.facts.replaceChildren(...Object.entries(hit.facts).map(([name, value]) =>
      html("div", {}, html("dt", {}, name), html("dd", {}, value))));
    this.draw();
  }

  draw() {
    this.width = this.root.clientWidth;
    const overlay = this.modes.querySelector("input:checked").value === "overlay";
    this.stage.toggleAttribute("hidden", overlay);
    this.overlay.hidden = !overlay;
    this.pairControls.hidden = overlay;
    this.overlayControls.hidden = !overlay;
    this.hint.textContent = "";
    if (overlay) this.drawOverlay();
    else this.drawPair();
  }

  // Both images at the same height, or one above the other at the same width.
  drawPair() {
    const stacked = this.width < 640;
    const size = (image) => image.key ? image : { width: 4, height: 3 };
    const a = size(this.query.image), b = size(this.hit.image);
    const side = 1000, gap = stacked ? 24 : 12;
    const scaleA = stacked ? side / a.width : side / a.height;
    const scaleB = stacked ? side / b.width : side / b.height;
    const right = stacked ? 0 : a.width * scaleA + gap, below = stacked ? a.height * scaleA + gap : 0;
    this.toStage = (row) => [(row[0] + 0.5) * scaleA, (row[1] + 0.5) * scaleA,
      right + (row[2] + 0.5) * scaleB, below + (row[3] + 0.5) * scaleB];
    const width = stacked ? side : right + b.width * scaleB, height = stacked ? below + b.height * scaleB : side;
    const place = (image, x, y, scale, marks) => svg("svg",
      { x, y, width: (image.width || 4) * scale, height: (image.height || 3) * scale,
        viewBox: `-0.5 -0.5 ${image.width || 4} ${image.height || 3}` },
      image.key ? svg("use", { href: `#${image.key}` }) : svg("rect", { x: -0.5, y: -0.5, width: 4, height: 3, opacity: 0.15 }),
      ...marks);
    const drawn = this.outline.checked;
    const asked = drawn && this.hit.asked ? [polygonOf(this.hit.asked, "asked-outline")]
      : drawn && this.query.box ? [polygonOf(this.query.box, "asked-outline")] : [];
    const found = drawn && this.hit.found ? [polygonOf(this.hit.found, "found-outline")] : [];
    this.outline.disabled = !this.hit.found && !this.query.box;
    const n = Number(this.lines.value);
    this.stage.setAttribute("viewBox", `0 0 ${width} ${height}`);
    this.stage.replaceChildren(
      place(this.query.image, 0, 0, scaleA, asked), place(this.hit.image, right, below, scaleB, found),
      ...this.threads(n));
    this.shown.textContent = `${n} of ${this.matches.length}`;
    const label = `Query image ${this.query.name} ${stacked ? "above" : "beside"} ${this.hit.id}, `;
    this.stage.setAttribute("aria-label", `${label}${plural(n, "line")} between matching points`);
    this.hint.textContent = this.say();
  }

  say() {
    const { hit, query } = this;
    for (const [image, name] of [[query.image, query.name], [hit.image, hit.id]]) {
      if (!image.key) return `${name} cannot be shown: ${image.reason}`;
    }
    if (this.matches.length === 0) {
      return hit.n_inliers === null ? "Geometry was not checked for this image, so there are no matching points to draw."
        : "No matching points in a consistent position were found.";
    }
    const left = hit.n_matches > this.matches.length ? ` ${this.matches.length} of ${hit.n_matches} matches are kept in this file.` : "";
    return `Point at or tap the picture to follow one match.${left}`;
  }

  threads(n) {
    const paths = Array.from({ length: N_HUES }, () => ({ line: [], dot: [] }));
    const rim = [];
    this.matches.forEach((row, i) => {
      const [x, y, u, v] = this.toStage(row).map((value) => value.toFixed(1));
      const path = paths[this.hueOf(row)];
      if (i < n) path.line.push(`M${x} ${y}L${u} ${v}`);
      if (this.points.checked || i < n) {
        path.dot.push(`M${x} ${y}h.01M${u} ${v}h.01`);
        rim.push(`M${x} ${y}h.01M${u} ${v}h.01`);
      }
    });
    const filled = (key) => paths.flatMap((path, hue) => path[key].length === 0 ? []
      : [svg("path", { class: key === "line" ? "thread" : "dot", stroke: colour(hue), d: path[key].join("") })]);
    return [...filled("line"), svg("path", { class: "dot rim", d: rim.join("") }), ...filled("dot"), svg("g", { class: "picked-match" })];
  }

  pick(event) {
    const matrix = this.stage.getScreenCTM();
    if (!matrix || this.matches.length === 0) return;
    const at = new DOMPoint(event.clientX, event.clientY).matrixTransform(matrix.inverse());
    let nearest = null, least = PICK_RADIUS / matrix.a;
    for (const row of this.matches) {
      const [x, y, u, v] = this.toStage(row);
      const distance = Math.min(Math.hypot(x - at.x, y - at.y), Math.hypot(u - at.x, v - at.y));
      if (distance < least) [nearest, least] = [row, distance];
    }
    if (nearest === null) return this.unpick();
    const [x, y, u, v] = this.toStage(nearest);
    const line = `M${x} ${y}L${u} ${v}`, ends = `M${x} ${y}h.01M${u} ${v}h.01`;
    const inner = { stroke: colour(this.hueOf(nearest)) };
    this.stage.classList.add("picked");
    this.stage.querySelector(".picked-match").replaceChildren(
      svg("path", { class: "pick-rim", d: line }), svg("path", { class: "pick", d: line }),
      svg("path", { class: "pick-end-rim", d: ends }), svg("path", { class: "pick-end", d: ends }),
      svg("path", { class: "dot", d: ends, ...inner }));
    const [qx, qy, fx, fy] = nearest.map((value) => value.toFixed(0));
    this.hint.textContent = `Query (${qx}, ${qy}) px matches (${fx}, ${fy}) px.`;
  }

  unpick() {
    if (!this.stage.classList.contains("picked")) return;
    this.stage.classList.remove("picked");
    this.stage.querySelector(".picked-match").replaceChildren();
    this.hint.textContent = this.say();
  }

  // The query lies over the candidate as the transform moves it.
  drawOverlay() {
    const a = this.query.image, b = this.hit.image;
    this.hint.textContent = "Where the transform holds, the two pictures agree.";
    const scale = Math.min(this.width / b.width, innerHeight * 0.72 / b.height);
    set(this.overlay, { "aria-label": `Query image ${this.query.name} moved onto ${this.hit.id}` }, []);
    Object.assign(this.overlay.style, { width: `${b.width * scale}px`, height: `${b.height * scale}px` });
    const layer = (image, width, height) => svg("svg",
      { width, height, viewBox: `-0.5 -0.5 ${image.width} ${image.height}` }, svg("use", { href: `#${image.key}` }));
    // Half a pixel: CSS measures from the edge of the image, the transform from the centre of its first pixel.
    const shrink = Math.min(1, 900 / Math.max(a.width, a.height));
    const before = [[1 / shrink, 0, -0.5], [0, 1 / shrink, -0.5], [0, 0, 1]];
    const after = [[scale, 0, scale / 2], [0, scale, scale / 2], [0, 0, 1]];
    const times = (m, n) => m.map((row) => n[0].map((_, j) => row.reduce((sum, value, k) => sum + value * n[k][j], 0)));
    let m = times(after, times(this.hit.transform, before));
    const middle = m[2][0] * a.width * shrink / 2 + m[2][1] * a.height * shrink / 2 + m[2][2];
    m = m.map((row) => row.map((value) => value / middle));
    this.moved = layer(a, a.width * shrink, a.height * shrink);
    this.moved.style.transform = `matrix3d(${[m[0][0], m[1][0], 0, m[2][0], m[0][1], m[1][1], 0, m[2][1], 0, 0, 1, 0,
      m[0][2], m[1][2], 0, m[2][2]].join(",")})`;
    this.overlay.replaceChildren(layer(b, b.width * scale, b.height * scale), this.moved);
    this.mix();
  }

  mix() {
    if (this.moved) this.moved.style.opacity = this.blend.value / 100;
  }
}

// ---------------------------------------------------------------- the dialog of a search report

function openDialogs() {
  const title = html("h2", { id: "view-title", "aria-live": "polite" });
  const back = html("button", { type: "button", "aria-keyshortcuts": "ArrowLeft", onclick: () => step(-1) }, "‹ Previous");
  const next = html("button", { type: "button", "aria-keyshortcuts": "ArrowRight", onclick: () => step(1) }, "Next ›");
  const close = html("button", { type: "button", onclick: () => dialog.close() }, "Close");
  const viewer = html("div", { class: "viewer" });
  const dialog = html("dialog", { "aria-labelledby": "view-title" },
    html("div", { class: "view-head" }, title, html("div", { class: "steps" }, back, next, close)), viewer);
  document.body.append(dialog);
  const view = new MatchView(viewer);
  let number = 0, position = 0;

  function step(by) {
    const hit = data.queries[number - 1].hits[position + by];
    if (hit) location.replace(`#q${number}h${hit.rank}`);
  }

  function follow() {
    const found = /^#q(\d+)(?:h(\d+))?$/.exec(location.hash);
    const query = found && data.queries[Number(found[1]) - 1];
    if (!query) return;
    const section = document.getElementById(`q${found[1]}`);
    if (!section.open) {
      section.open = true;
      document.querySelector(location.hash)?.scrollIntoView();
    }
    const index = found[2] ? query.hits.findIndex((hit) => hit.rank === Number(found[2])) : -1;
    if (index < 0) {
      if (dialog.open) dialog.close();
      return;
    }
    [number, position] = [Number(found[1]), index];
    const hit = query.hits[index];
    const mark = document.querySelector(`${location.hash} .mark`).cloneNode(true);
    title.replaceChildren(html("span", { class: "number" }, `#${hit.rank} `), html("span", { class: "name" }, hit.id), " ", mark);
    // Not disabled: that would take the focus, and with it the arrow keys, from the dialog.
    back.setAttribute("aria-disabled", index === 0);
    next.setAttribute("aria-disabled", index === query.hits.length - 1);
    if (!dialog.open) dialog.showModal();
    view.show(query, hit);
    dialog.scrollTop = 0;
  }

  dialog.addEventListener("click", (event) => event.target === dialog && dialog.close());
  dialog.addEventListener("keydown", (event) => {
    if (event.target.matches("input")) return;
    if (event.key === "ArrowLeft") step(-1);
    if (event.key === "ArrowRight") step(1);
  });
  dialog.addEventListener("close", () => {
    const card = document.getElementById(`q${number}h${data.queries[number - 1].hits[position].rank}`);
    if (card && location.hash === `#${card.id}`) history.replaceState(null, "", `#q${number}`);
    card?.focus();
  });
  // The address does not change when the same card is asked for twice.
  document.addEventListener("click", (event) => {
    const card = event.target.closest?.(".card > a");
    if (card && location.hash === card.hash && !dialog.open) follow();
  });
  for (const card of document.querySelectorAll(".card > a")) card.setAttribute("aria-haspopup", "dialog");
  addEventListener("hashchange", follow);
  follow();
}

// ---------------------------------------------------------------- many queries

function manyQueries(tools) {
  const sections = [...document.querySelectorAll("details.query")];
  const rows = [...document.querySelectorAll(".contents > li")];
  const text = tools.querySelector("input"), state = tools.querySelector("select"), count = tools.querySelector("output");
  const filter = () => {
    const wanted = text.value.trim().toLowerCase();
    let shown = 0;
    rows.forEach((row, i) => {
      const keep = (!state.value || row.className === state.value) && row.textContent.toLowerCase().includes(wanted);
      row.hidden = sections[i].hidden = !keep;
      shown += keep;
    });
    count.textContent = shown === rows.length ? "" : `${shown} of ${rows.length} queries`;
  };
  text.addEventListener("input", filter);
  state.addEventListener("change", filter);
  for (const button of tools.querySelectorAll("button")) {
    button.addEventListener("click", () => sections.forEach((section) => { section.open = button.dataset.do === "unfold"; }));
  }
  tools.hidden = false;
}

document.documentElement.classList.add("js");
for (const node of document.querySelectorAll(".needs-script")) node.hidden = false;
const tools = document.querySelector(".overview .tools");
if (tools) manyQueries(tools);
const match = document.getElementById("match");
if (match) {
  match.replaceChildren(html("div", { class: "viewer" }));
  new MatchView(match.firstChild).show(data.queries[0], data.queries[0].hits[0]);
} else if (window.HTMLDialogElement) {
  openDialogs();
}
})();
