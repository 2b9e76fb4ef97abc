// The collection, a page at a time; each photo is a search for more like it.
import { byId, html, picture } from "./dom.js";
import { moreLike } from "./results.js";
import { imageUrl, images } from "./server.js";

const PER_PAGE = 60;
const THUMBNAIL = 320;

export const loadPage = (offset, signal) => images(offset, PER_PAGE, signal);

function card(image, settings) {
  const empty = image.status === "empty" ? [html("span", { class: "line" }, html("span", { class: "mark empty" }, "No features"))] : [];
  return html("li", { class: "card" },
    html("a", { class: "open", href: moreLike({ kind: "search", ...settings }, image.id), draggable: "false" },
      html("span", { class: "frame" }, picture(imageUrl(image.id, THUMBNAIL))), ...empty, html("span", { class: "line name" }, image.id)));
}

export function showPage(page, offset, settings, isStart) {
  const last = Math.min(offset + PER_PAGE, page.n_images);
  const to = (start, words, rel) => html("a", { class: "button", href: `#browse=${start}`, rel }, words);
  const pager = page.n_images > PER_PAGE ? [html("nav", { class: "pager", "aria-label": "Pages of the collection" },
    ...(offset > 0 ? [to(Math.max(0, offset - PER_PAGE), "‹ Previous", "prev")] : []),
    html("span", {}, last > offset ? `${offset + 1}–${last} of ${page.n_images.toLocaleString("en")}` : "Beyond the last photo"),
    ...(last < page.n_images ? [to(last, "Next ›", "next")] : []))] : [];
  byId("results-title").textContent = page.n_images === 0 ? "No photos yet" : isStart ? "Or click a photo of the collection" : "The collection";
  byId("found").replaceChildren(
    ...(page.n_images === 0 ? [html("p", { class: "verdict empty" }, html("strong", {}, "There is nothing in this index."), " ",
      "Add photos with ", html("code", {}, "cvretrieval add"), "; this page sees them at once.")] : []),
    ...pager, html("ul", { class: "cards small-cards" }, ...page.images.map((image) => card(image, settings))),
    ...pager.map((nav) => {
      const copy = nav.cloneNode(true);
      copy.setAttribute("aria-label", "Pages of the collection, again");
      return copy;
    }));
  byId("effort").hidden = true;
}
