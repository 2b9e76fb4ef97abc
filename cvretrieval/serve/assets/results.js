// The ranked list: what it comes to in one sentence, the cards, and the time of each stage.
import { byId, duration, html, outline, picture, plural, svg } from "./dom.js";
import { write } from "./address.js";
import { imageUrl } from "./server.js";

const THUMBNAIL = 400;

export function judgement(hit) {
  if (hit.verified) return ["verified", "Verified"];
  return hit.n_inliers === null ? ["unchecked", "Similar"] : ["unverified", "Not verified"];
}

export const mark = (hit) => {
  const [state, words] = judgement(hit);
  return html("span", { class: `mark ${state}` }, words);
};

/** The answer in words: what it is, and what that means. */
export function verdict(answer, n_images) {
  const { query, results } = answer;
  const what = query.box ? "region" : "photo";
  if (results.length === 0 && n_images === 0) return ["empty", "No photos yet.", "There is nothing in this index to compare with. Add some with cvretrieval add."];
  if (query.n_features === 0) {
    return ["empty", "Nothing to search with.",
      `No local features were found in this ${what}: it may be blank, blurred or very small.`];
  }
  if (results.length === 0) return ["empty", "Nothing found.", `The index returned no photo for this ${what}.`];
  const n_checked = results.filter((hit) => hit.n_inliers !== null).length;
  if (answer.n_verified === null) return ["unchecked", plural(results.length, "similar photo") + ".", "Geometry was not checked, so none is confirmed."];
  if (answer.n_verified === 0) {
    const checked = n_checked < results.length ? `the first ${n_checked} that were checked` : "any of these";
    return ["unverified", "Nothing like it here.",
      `No part of the ${what} was found in a consistent position in ${checked}. They are only the most similar ones.`];
  }
  const best = results.find((hit) => hit.verified);
  return ["verified", plural(answer.n_verified, "verified match", "verified matches") + ".",
    `Something of the ${what} was found in a consistent position; the best by ${plural(best.n_inliers, "inlier")}.`
    + (answer.n_verified < results.length ? " The others are only similar." : "")];
}

export const moreLike = (address, id) => write({ ...address, query: null, id, box: null, view: null });

function card(hit, address) {
  const inliers = hit.n_inliers === null ? [] : [html("span", {}, html("b", {}, hit.n_inliers.toLocaleString("en")), hit.n_inliers === 1 ? " inlier" : " inliers")];
  const drawn = hit.outline && hit.width ? [svg("svg", { viewBox: `-0.5 -0.5 ${hit.width} ${hit.height}`, "aria-hidden": "true" }, outline(hit.outline, "found-outline"))] : [];
  return html("li", { class: `card ${judgement(hit)[0]}` },
    html("a", { class: "open", href: write({ ...address, view: hit.id }), "aria-haspopup": "dialog", "data-id": hit.id, draggable: "false" },
      html("span", { class: "frame" }, picture(imageUrl(hit.id, THUMBNAIL)), ...drawn),
      html("span", { class: "line" }, html("span", { class: "rank" }, hit.rank), mark(hit)),
      html("span", { class: "line name" }, hit.id),
      html("span", { class: "line measures" }, ...inliers,
        html("span", { title: "similarity before verification" }, `score ${hit.score.toFixed(3)}`))),
    html("a", { class: "more", href: moreLike(address, hit.id), "aria-label": `More like ${hit.id}` }, "More like this"));
}

export function showResults(answer, address, n_images) {
  const [state, title, words] = verdict(answer, n_images);
  byId("results-title").textContent = answer.query.box ? "Photos with this region" : "Photos like this one";
  byId("found").replaceChildren(
    html("p", { class: `verdict ${state}` }, html("strong", {}, title), " ", words),
    html("ol", { class: "cards" }, ...answer.results.map((hit) => card(hit, address))));
  showTimes(answer);
  return `${plural(answer.results.length, "result")} in ${duration(answer.seconds)}. ${title} ${words}`;
}

export const cardOf = (id) => [...document.querySelectorAll(".card > .open")].find((link) => link.dataset.id === id);

function showTimes(answer) {
  const stages = Object.entries(answer.timings);
  const most = Math.max(answer.seconds, ...stages.map(([, seconds]) => seconds), 1e-9);
  byId("times").replaceChildren(html("table", { class: "times" }, html("tbody", {},
    ...stages.map(([name, seconds]) => html("tr", {}, html("th", { scope: "row" }, name), html("td", {}, duration(seconds)),
      html("td", { class: "bar", "aria-hidden": "true" }, svg("svg", { viewBox: "0 0 100 8", preserveAspectRatio: "none" },
        svg("rect", { width: seconds / most * 100, height: 8 }))))),
    html("tr", { class: "total" }, html("th", { scope: "row" }, "together"), html("td", {}, duration(answer.seconds)), html("td")))));
  byId("effort").hidden = false;
}
