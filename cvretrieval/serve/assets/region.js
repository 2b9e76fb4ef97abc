// The region to search for, drawn on the photo by mouse, finger or keys, or given in numbers.
import { byId, html, svg } from "./dom.js";

const EDGES = ["Left", "Top", "Right", "Bottom"];
const LEAST = 8; // pixels; less is a click, and too little to find anything by
const CORNER = 16; // CSS pixels around a corner in which it is taken
const STEP = 0.02; // of the longer side, for an arrow key

export class Region {
  /** `onDrawn` is called once a region has been drawn by a pointer, to search for it. */
  constructor(onDrawn) {
    this.onDrawn = onDrawn;
    this.box = null;
    this.root = byId("region");
    this.stage = svg("svg", { class: "region-stage", tabindex: 0, role: "group", "aria-describedby": "region-hint" });
    this.inputs = EDGES.map((name, i) => html("input", {
      type: "number", step: 1, min: 0, inputmode: "numeric", id: `edge-${name.toLowerCase()}`, onchange: () => this.readInputs(i),
    }));
    byId("edges").append(...EDGES.map((name, i) => html("label", {}, name, this.inputs[i])));
    byId("clear-region").addEventListener("click", () => this.clear());
    this.stage.addEventListener("pointerdown", (event) => this.start(event));
    this.stage.addEventListener("pointermove", (event) => this.move(event));
    this.stage.addEventListener("pointerup", (event) => this.end(event));
    this.stage.addEventListener("pointercancel", () => this.stop());
    this.stage.addEventListener("keydown", (event) => this.press(event));
    // A finger scrolls the page unless a region is being asked for.
    this.root.addEventListener("toggle", () => this.stage.classList.toggle("by-touch", this.root.open));
  }

  show(url, name, width, height, box) {
    const isOther = this.url !== url;
    Object.assign(this, { url, width, height });
    if (isOther) {
      this.image = svg("image", { href: url, width, height, preserveAspectRatio: "none" });
      this.image.addEventListener("error", () => this.image.replaceWith(
        svg("rect", { class: "no-photo", width, height }), svg("text", { x: width / 2, y: height / 2, "font-size": width / 16 },
          "This photo cannot be shown.")));
      this.shade = svg("path", { class: "shade", "fill-rule": "evenodd" });
      this.frame = svg("rect", { class: "frame-line" });
      this.halo = svg("rect", { class: "frame-line halo" });
      this.stage.replaceChildren(this.image, this.shade, this.halo, this.frame);
      this.stage.setAttribute("viewBox", `0 0 ${width} ${height}`);
      this.inputs.forEach((input, i) => { input.max = i % 2 ? height : width; });
    }
    this.name = name;
    this.set(box);
    this.root.hidden = false;
    if (box) this.root.open = true;
  }

  hide() {
    this.root.hidden = true;
    this.box = null;
  }

  set(box) {
    this.box = box && this.fit(box);
    const drawn = this.box ?? [0, 0, 0, 0];
    const [x1, y1, x2, y2] = drawn;
    for (const rect of [this.frame, this.halo]) {
      for (const [name, value] of Object.entries({ x: x1, y: y1, width: x2 - x1, height: y2 - y1 })) rect.setAttribute(name, value);
    }
    this.shade.setAttribute("d", this.box
      ? `M0 0H${this.width}V${this.height}H0ZM${x1} ${y1}H${x2}V${y2}H${x1}Z` : "");
    this.stage.classList.toggle("has-box", this.box !== null);
    this.inputs.forEach((input, i) => { input.value = this.box ? this.box[i] : ""; });
    byId("clear-region").disabled = byId("search-region").disabled = this.box === null;
    const words = this.box ? `region from ${x1}, ${y1} to ${x2}, ${y2}` : "no region";
    this.stage.setAttribute("aria-label", `Photo ${this.name}, ${words}`);
  }

  /** Whole pixels, inside the photo. */
  fit(box) {
    const [x1, y1, x2, y2] = box.map(Math.round);
    const within = (value, most) => Math.max(0, Math.min(most, value));
    const fitted = [within(x1, this.width), within(y1, this.height), within(x2, this.width), within(y2, this.height)];
    return fitted[0] < fitted[2] && fitted[1] < fitted[3] ? fitted : null;
  }

  clear() {
    this.set(null);
    this.stage.focus();
    this.onDrawn();
  }

  readInputs(changed) {
    const whole = [0, 0, this.width, this.height];
    const box = this.inputs.map((input, i) => input.value === "" || !input.validity.valid ? (this.box ?? whole)[i] : Number(input.value));
    // The edge that was given stays; the one opposite makes way.
    const axis = changed % 2;
    if (box[axis] >= box[axis + 2]) {
      const least = Math.min(LEAST, axis ? this.height : this.width);
      if (changed < 2) box[axis + 2] = box[axis] + least;
      else box[axis] = box[axis + 2] - least;
    }
    this.set(box);
  }

  at(event) {
    const matrix = this.stage.getScreenCTM();
    const point = new DOMPoint(event.clientX, event.clientY).matrixTransform(matrix.inverse());
    return { x: point.x, y: point.y, scale: matrix.a };
  }

  start(event) {
    if (event.button !== 0 || !event.isPrimary || (event.pointerType === "touch" && !this.root.open)) return;
    event.preventDefault();
    this.stage.focus({ focusVisible: false, preventScroll: true });
    const { x, y, scale } = this.at(event);
    this.before = this.box;
    this.anchor = [x, y];
    if (this.box) {
      const [x1, y1, x2, y2] = this.box;
      for (const [cx, cy, ax, ay] of [[x1, y1, x2, y2], [x2, y1, x1, y2], [x2, y2, x1, y1], [x1, y2, x2, y1]]) {
        if (Math.hypot(cx - x, cy - y) * scale < CORNER) this.anchor = [ax, ay];
      }
    }
    this.pointer = event.pointerId;
    this.stage.setPointerCapture(event.pointerId);
  }

  move(event) {
    if (this.pointer !== event.pointerId) return;
    const { x, y } = this.at(event);
    const [ax, ay] = this.anchor;
    this.set([Math.min(x, ax), Math.min(y, ay), Math.max(x, ax), Math.max(y, ay)]);
  }

  end(event) {
    if (this.pointer !== event.pointerId) return;
    this.pointer = null;
    const [x1, y1, x2, y2] = this.box ?? [0, 0, 0, 0];
    if (x2 - x1 < LEAST || y2 - y1 < LEAST) this.set(this.before);
    else if (String(this.box) !== String(this.before)) {
      this.root.open = true;
      this.onDrawn();
    }
  }

  stop() {
    this.pointer = null;
    this.set(this.before);
  }

  press(event) {
    if (event.key === "Enter" && this.box) {
      event.preventDefault();
      this.onDrawn();
    } else if (event.key === "Escape" && this.pointer != null) this.stop();
    else if ((event.key === "Delete" || event.key === "Backspace") && this.box) this.clear();
    const way = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
    if (!way || event.ctrlKey || event.altKey || event.metaKey) return;
    event.preventDefault();
    this.root.open = true;
    const step = Math.max(1, Math.round(STEP * Math.max(this.width, this.height)));
    const [dx, dy] = way.map((value) => value * step);
    if (!this.box) return this.set([this.width / 4, this.height / 4, this.width * 3 / 4, this.height * 3 / 4]);
    const [x1, y1, x2, y2] = this.box;
    if (event.shiftKey) this.set([x1, y1, Math.max(x1 + LEAST, x2 + dx), Math.max(y1 + LEAST, y2 + dy)]);
    else {
      const right = Math.max(-x1, Math.min(this.width - x2, dx)), down = Math.max(-y1, Math.min(this.height - y2, dy));
      this.set([x1 + right, y1 + down, x2 + right, y2 + down]);
    }
  }
}
