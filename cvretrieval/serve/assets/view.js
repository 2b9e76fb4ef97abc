// One result beside the query: matching points, outline, or heat maps.
import { byId, corners, html, outline, plural, svg } from "./dom.js";
import { limitOf, paint } from "./heat.js";
import { motion, spreadOut, threads } from "./matches.js";
import { mark, moreLike } from "./results.js";
import { imageUrl, matches as askMatches, pictureOf } from "./server.js";

const SIZE = 1024;
const FIRST_LINES = 60; // more hide the picture
const STACKED_BELOW = 640; // CSS pixels
const REMEMBERED = 100;

export class View {
  /** `go(id)` opens another result, `leave()` closes the view; both by way of the address. */
  constructor(go, leave) {
    this.dialog = byId("view");
    this.answers = new Map();
    const step = (by) => {
      const hit = this.results[this.position + by];
      if (hit) go(hit.id);
    };
    byId("view-back").addEventListener("click", () => step(-1));
    byId("view-next").addEventListener("click", () => step(1));
    byId("view-close").addEventListener("click", leave);
    this.dialog.addEventListener("click", (event) => event.target === this.dialog && leave());
    this.dialog.addEventListener("cancel", (event) => { event.preventDefault(); leave(); });
    this.dialog.addEventListener("keydown", (event) => {
      if (event.target.matches("input")) return;
      if (event.key === "ArrowLeft") step(-1);
      if (event.key === "ArrowRight") step(1);
    });
    this.lines = html("input", { type: "range", min: 0, oninput: () => this.draw() });
    this.shown = html("output");
    this.outlined = html("input", { type: "checkbox", checked: true, onchange: () => this.draw() });
    this.strength = html("input", { type: "range", min: 0, max: 100, value: 65, oninput: () => this.draw() });
    this.lineControls = html("div", { class: "controls" }, html("label", {}, "Lines", this.lines, this.shown),
      html("label", {}, this.outlined, "Outline"));
    this.heatControls = html("div", { class: "controls" }, html("label", {}, "Heat", this.strength));
    byId("view-controls").append(this.lineControls, this.heatControls);
    this.stage = svg("svg", { class: "stage", role: "img" });
    byId("view-stage").append(this.stage);
    new ResizeObserver(() => this.dialog.open && this.width !== byId("view-stage").clientWidth && this.draw()).observe(this.dialog);
  }

  get isOpen() {
    return this.dialog.open;
  }

  close() {
    this.request?.abort();
    this.hit = null;
    if (this.dialog.open) this.dialog.close();
  }

  async open(answer, address, hit) {
    this.request?.abort();
    Object.assign(this, { query: answer.query, results: answer.results, hit, position: answer.results.indexOf(hit), found: null });
    byId("view-title").replaceChildren(html("span", { class: "number" }, `#${hit.rank} `), html("span", { class: "name" }, hit.id), " ", mark(hit));
    // Not disabled: that would take the focus, and with it the arrow keys, from the dialog.
    byId("view-back").setAttribute("aria-disabled", this.position === 0);
    byId("view-next").setAttribute("aria-disabled", this.position === this.results.length - 1);
    byId("view-more").href = moreLike(address, hit.id);
    if (!this.dialog.open) this.dialog.showModal();
    this.dialog.scrollTop = 0;
    this.images = [this.image(pictureOf(answer.query, SIZE), answer.query), this.image(imageUrl(hit.id, SIZE), hit)];
    this.failure = "";
    this.draw();
    const key = JSON.stringify([address.query, address.id, address.box, hit.id]);
    try {
      this.request = new AbortController();
      const found = this.answers.get(key) ?? await askMatches(address, hit.id, this.request.signal);
      if (this.answers.size >= REMEMBERED) this.answers.delete(this.answers.keys().next().value);
      this.answers.set(key, found);
      if (this.hit === hit) this.receive(found);
    } catch (error) {
      if (error.name === "AbortError" || this.hit !== hit) return;
      this.failure = error.message;
      this.draw();
    }
  }

  image(url, { width, height }) {
    const image = svg("image", { href: url, x: -0.5, y: -0.5, width, height, preserveAspectRatio: "none" });
    image.addEventListener("error", () => image.replaceWith(svg("rect", { class: "no-photo", x: -0.5, y: -0.5, width, height })));
    return svg("g", {}, image);
  }

  receive(found) {
    this.found = found;
    this.rows = spreadOut(found.matches, this.query);
    this.lines.max = this.rows.length;
    this.lines.value = Math.min(FIRST_LINES, this.rows.length);
    this.lines.disabled = this.rows.length === 0;
    this.limit = found.maps && limitOf([found.maps.query, found.maps.candidate]);
    this.draw();
  }

  draw() {
    if (!this.hit) return;
    const { found, hit, query } = this;
    this.width = byId("view-stage").clientWidth;
    this.lineControls.hidden = found?.kind !== "matches";
    this.heatControls.hidden = found?.kind !== "heat";
    this.stage.classList.toggle("heated", found?.kind === "heat" && Number(this.strength.value) > 0);
    const outlines = found?.kind === "heat" || this.outlined.checked;
    const shape = found?.outline ?? hit.outline;
    const n = found?.kind === "matches" ? Number(this.lines.value) : 0;
    this.drawPair(
      [...this.heat(found?.maps?.query), ...(query.box && outlines ? [outline(corners(query.box.map((value) => value - 0.5)), "asked-outline")] : [])],
      [...this.heat(found?.maps?.candidate), ...(shape && outlines ? [outline(shape, "found-outline")] : [])], n);
    this.shown.textContent = found ? `${n} of ${found.matches.length}` : "";
    byId("view-hint").textContent = this.say();
    byId("view-facts").replaceChildren(...this.facts().map(([name, value]) => html("div", {}, html("dt", {}, name), html("dd", {}, value))));
  }

  heat(map) {
    if (!map?.values.length) return [];
    const [x1, y1, x2, y2] = map.frame;
    return [svg("image", { class: "heat", href: paint(map, this.limit, this.strength.value / 100).toDataURL(), x: x1, y: y1,
      width: x2 - x1, height: y2 - y1, preserveAspectRatio: "none" })];
  }

  // Both photos at the same height, or one above the other at the same width.
  drawPair(askedMarks, foundMarks, n) {
    const stacked = this.width < STACKED_BELOW;
    const size = ({ width, height }) => width && height ? { width, height } : { width: 4, height: 3 };
    const a = size(this.query), b = size(this.hit);
    const side = 1000, gap = stacked ? 24 : 12;
    const scaleA = stacked ? side / a.width : side / a.height, scaleB = stacked ? side / b.width : side / b.height;
    const right = stacked ? 0 : a.width * scaleA + gap, below = stacked ? a.height * scaleA + gap : 0;
    const toStage = (row) => [(row[0] + 0.5) * scaleA, (row[1] + 0.5) * scaleA,
      right + (row[2] + 0.5) * scaleB, below + (row[3] + 0.5) * scaleB];
    const width = stacked ? side : right + b.width * scaleB, height = stacked ? below + b.height * scaleB : side;
    const place = (image, size, x, y, scale, marks) => svg("svg",
      { x, y, width: size.width * scale, height: size.height * scale, viewBox: `-0.5 -0.5 ${size.width} ${size.height}` }, image, ...marks);
    this.stage.setAttribute("viewBox", `0 0 ${width} ${height}`);
    this.stage.setAttribute("aria-label", `Query ${this.query.name} ${stacked ? "above" : "beside"} ${this.hit.id}, `
      + (this.found?.kind === "heat" ? "heat maps over both" : `${plural(n, "line")} between matching points`));
    this.stage.replaceChildren(place(this.images[0], a, 0, 0, scaleA, askedMarks),
      place(this.images[1], b, right, below, scaleB, foundMarks), ...(n ? threads(this.rows, n, toStage) : []));
  }

  say() {
    if (this.failure) return this.failure;
    if (!this.found) return "Comparing…";
    const { kind, matches, verified } = this.found;
    if (kind === "heat") return "Red places add to the similarity, blue ones take from it.";
    if (kind === "none") return "This index has no local features and no map to compare by: only the score.";
    if (matches.length === 0) return "No matching points in a consistent position were found.";
    return verified ? "Lines join points that match in a consistent position." : "Lines join points that match, too few to confirm anything.";
  }

  facts() {
    const { found, hit, query } = this;
    const n_inliers = found?.n_inliers ?? hit.n_inliers, n_matches = found?.matches.length ?? 0;
    const from = n_matches > n_inliers ? `, from ${plural(n_matches, "matching point")}` : "";
    return [["score", hit.score.toFixed(3)], ["inliers", n_inliers === null ? "not checked" : n_inliers.toLocaleString("en") + from],
      ...(hit.n_effective_inliers === null ? [] : [["not crowded", hit.n_effective_inliers.toLocaleString("en")]]),
      ...(found?.similarity != null ? [["similarity", found.similarity.toFixed(3)]] : []),
      ...(found?.verified && found.transform ? motion(found.transform, query) : []),
      ...(hit.width ? [["size", `${hit.width} × ${hit.height} px`]] : [])];
  }
}
