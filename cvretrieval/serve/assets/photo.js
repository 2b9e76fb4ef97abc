// The photo that is searched with: how it is given, and how it is shown.
import { byId, html, picture, plural } from "./dom.js";
import { Region } from "./region.js";
import { pictureOf } from "./server.js";

const SIZE = 1024;

export class Photo {
  /** `onGiven(file, n_files)` is called with a photo; `onRegion` when a region was drawn or cleared. */
  constructor(onGiven, onRegion) {
    this.region = new Region(onRegion);
    this.root = byId("photo");
    const file = byId("file"), body = document.body;
    const give = (files) => files.length && onGiven(files[0], files.length);
    file.addEventListener("change", () => {
      give([...file.files]);
      file.value = ""; // so that the same one can be chosen again
    });
    addEventListener("paste", (event) => {
      const files = [...event.clipboardData.files];
      if (files.length) event.preventDefault();
      give(files);
    });
    const hasFiles = (event) => event.dataTransfer?.types.includes("Files");
    addEventListener("dragover", (event) => {
      if (!hasFiles(event)) return;
      event.preventDefault();
      event.dataTransfer.dropEffect = "copy";
      body.classList.add("dropping");
    });
    addEventListener("dragleave", (event) => event.relatedTarget === null && body.classList.remove("dropping"));
    addEventListener("drop", (event) => {
      body.classList.remove("dropping");
      if (!hasFiles(event)) return;
      event.preventDefault();
      give([...event.dataTransfer.files]);
    });
  }

  get box() {
    return this.region.box;
  }

  /** Show a photo of this computer while it is on its way. */
  preview(file) {
    const url = URL.createObjectURL(file);
    const image = picture(url, { alt: file.name, loading: "eager" });
    for (const end of ["load", "error"]) image.addEventListener(end, () => URL.revokeObjectURL(url));
    this.place(image, file.name, "");
    this.region.hide();
  }

  /** Show what an address names, before the server has said anything about it. */
  expect(address) {
    this.place(picture(pictureOf(address, SIZE), { loading: "eager" }), address.id ?? "", "");
    this.region.hide();
  }

  show(query) {
    const parts = [`${query.width} × ${query.height} px`];
    if (query.n_features !== null) parts.push(plural(query.n_features, "local feature") + (query.box ? " in the region" : ""));
    this.region.show(pictureOf(query, SIZE), query.name, query.width, query.height, query.box);
    this.place(this.region.stage, query.name, parts.join(" · "));
  }

  clear() {
    this.root.hidden = true;
    this.root.replaceChildren();
    byId("asked-facts").hidden = true;
    byId("search").hidden = true;
    byId("drop-words").textContent = "Choose a photo";
    this.region.hide();
  }

  place(node, name, facts) {
    if (this.root.firstChild !== node) this.root.replaceChildren(node); // a photo that stays keeps the focus
    this.root.hidden = false;
    byId("asked-facts").replaceChildren(html("span", { class: "name" }, name), html("br"), facts);
    byId("asked-facts").hidden = false;
    byId("search").hidden = false;
    byId("drop-words").textContent = "Choose another photo";
  }
}
