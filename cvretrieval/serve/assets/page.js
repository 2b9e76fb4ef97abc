// The page follows its address; whatever is done here changes the address, or answers to a change of it.
import { read, searchOf, write } from "./address.js";
import { loadPage, showPage } from "./browse.js";
import { byId, html, plural } from "./dom.js";
import { Photo } from "./photo.js";
import { cardOf, showResults } from "./results.js";
import * as server from "./server.js";
import { Settings } from "./settings.js";
import { View } from "./view.js";
import { forget, say, stop, tell, waitFor } from "./waiting.js";

const REMEMBERED = 20; // answers, so that "back" is at once
const TITLES = { 0: "No answer.", 401: "Not allowed.", 413: "Too large.", 415: "It cannot be read.", 503: "Busy." };

let info, settings, photo, view;
let shown = null; // { address, answer } of the search on the page
let forgotten = null; // address of a search whose photo the server no longer has
const answers = new Map();

const here = () => read(location.hash, settings.value, info.limits.k);
const megabytes = (bytes) => `${(bytes / 1e6).toLocaleString("en", { maximumFractionDigits: 1 })} MB`;

function go(hash, { replace = false } = {}) {
  if (replace) history.replaceState(history.state, "", hash);
  else history.pushState({ isInside: true }, "", hash);
  return follow();
}

function remember(key, answer) {
  if (answers.size >= REMEMBERED) answers.delete(answers.keys().next().value);
  answers.set(key, answer);
}

// ---------------------------------------------------------------- what the address asks for

async function follow() {
  const address = here();
  if (address.kind === "browse") return browse(address);
  const key = searchOf(address);
  if (!shown || searchOf(shown.address) !== key) {
    stop();
    view.close();
    if (!await search(address, key)) return;
  }
  const hit = address.view === null ? null : shown.answer.results.find((result) => result.id === address.view);
  if (hit) view.open(shown.answer, shown.address, hit);
  else if (view.isOpen) {
    const last = view.hit.id;
    view.close();
    cardOf(last)?.focus();
  }
}

async function browse(address) {
  view.close();
  shown = forgotten = null;
  photo.clear();
  forget();
  document.title = info.name;
  try {
    const page = await waitFor("Loading", (signal) => loadPage(address.offset, signal));
    showPage(page, address.offset, settings.value, address.offset === 0);
    say(plural(page.n_images, "photo"));
    keepFocus();
  } catch (error) {
    fail(error, follow);
  }
}

async function search(address, key) {
  settings.value = address;
  let answer = answers.get(key);
  if (!answer) {
    const isSame = shown && shown.address.id === address.id && shown.address.query === address.query;
    if (!isSame) photo.expect(address);
    try {
      answer = await waitFor("Searching", (signal) => server.search(address, signal));
    } catch (error) {
      if (error.name === "AbortError") return false;
      clear();
      if (error.status === 404 && address.query) lost(address);
      else fail(error, follow);
      return false;
    }
    remember(key, answer);
  }
  forget();
  forgotten = null;
  shown = { address: { ...address, view: null }, answer };
  document.title = `${answer.query.name || "A photo"} – ${info.name}`;
  photo.show(answer.query);
  say(showResults(answer, shown.address, info.n_images));
  keepFocus();
  reveal();
  return true;
}

function lost(address) {
  forgotten = address;
  photo.clear();
  byId("results-title").textContent = "A photo that was sent before";
  tell("Choose that photo again.", "The server keeps photos in its memory for a while only, and no longer has the one of this link. "
    + "The region and the settings of the link are kept.", ["Choose it", () => byId("file").click()]);
}

function clear() {
  shown = null;
  byId("results-title").textContent = "No results";
  byId("found").replaceChildren();
  byId("effort").hidden = true;
}

function fail(error, again) {
  if (error.name === "AbortError") return;
  if (error.name === "Cancelled") tell("Cancelled.", "", ["Try again", again]);
  else if (error instanceof server.ServerError) {
    const hopeful = error.status === 0 || error.status >= 500;
    tell(TITLES[error.status] ?? "That did not work.", error.message, ...(hopeful ? [["Try again", again]] : []));
  } else throw error;
}

/** What had the focus may be gone; then reading goes on at the results. */
function keepFocus() {
  if (document.activeElement === document.body && history.state?.isInside) byId("results-title").focus({ preventScroll: true });
}

/** On a phone the results are below the photo. */
function reveal() {
  const title = byId("results-title");
  if (history.state?.isInside && title.getBoundingClientRect().top > innerHeight * 0.7 || scrollY > title.offsetTop) title.scrollIntoView();
}

// ---------------------------------------------------------------- what is done here

/** Search with a photo of this computer; the address follows once the server knows it. */
async function give(file, n_files) {
  forget();
  if (file.size > info.limits.bytes) {
    return tell("Too large.", `${file.name} has ${megabytes(file.size)}; this server takes ${megabytes(info.limits.bytes)} at most.`);
  }
  if (!await file.slice(0, 1).arrayBuffer().then(() => true, () => false)) {
    return tell("It cannot be read.", `${file.name} is a folder, or a file that the browser may not read.`);
  }
  const wanted = { ...settings.value, box: forgotten?.box ?? null };
  photo.preview(file);
  try {
    const answer = await waitFor("Searching", (signal) => server.search({ ...wanted, photo: file }, signal));
    const address = { kind: "search", ...wanted, query: answer.query.key, id: null, view: null };
    const key = searchOf(address);
    answers.delete(key);
    remember(key, answer);
    shown = null;
    await go(key, { replace: forgotten !== null });
    if (n_files > 1) tell("One at a time.", `Of ${n_files} files the first was searched with, ${file.name}.`);
  } catch (error) {
    if (error.name === "AbortError") return;
    if (shown) photo.show(shown.answer.query);
    else photo.clear();
    fail(error, () => give(file, n_files));
  }
}

/** Search with the photo of the page by what is set now. */
function ask({ isAgain = false } = {}) {
  const address = here();
  if (address.kind !== "search" || forgotten) return;
  const key = searchOf({ ...address, ...settings.value, box: shown ? photo.box : address.box });
  if (key !== searchOf(address)) return void go(key);
  if (!isAgain) return;
  answers.delete(key);
  shown = null;
  follow();
}

function introduce() {
  byId("collection").textContent = info.name;
  byId("counts").textContent = [plural(info.n_images, "photo"), info.n_features ? plural(info.n_features, "local feature") : "",
    info.n_failed ? `${info.n_failed.toLocaleString("en")} could not be read` : ""].filter(Boolean).join(" · ");
  byId("footer").replaceChildren(html("details", {}, html("summary", {}, `How cvretrieval ${info.version} searches this index`),
    html("dl", { class: "facts code" }, ...Object.entries(info.method).map(([name, value]) =>
      html("div", {}, html("dt", {}, name), html("dd", {}, value))))));
}

function listen() {
  addEventListener("popstate", follow);
  // Links within the page leave a mark in the history: closing a result that was opened from here is going back.
  document.addEventListener("click", (event) => {
    const link = event.target.closest?.("a[href^='#']");
    if (!link || event.button !== 0 || event.ctrlKey || event.metaKey || event.shiftKey || event.altKey) return;
    event.preventDefault();
    if (link.id === "skip") byId("results-title").focus();
    else go(link.hash || "#");
  });
  byId("form").addEventListener("submit", (event) => {
    event.preventDefault();
    ask({ isAgain: true });
  });
  byId("cancel").addEventListener("click", () => stop(Object.assign(new Error("Cancelled"), { name: "Cancelled" })));
}

async function start() {
  try {
    info = await server.info();
  } catch (error) {
    clear();
    return fail(error, start);
  }
  forget();
  introduce();
  settings = new Settings(info, () => ask());
  photo = new Photo(give, () => ask());
  view = new View(
    (id) => go(write({ ...here(), view: id }), { replace: true }),
    () => history.state?.isInside ? history.back() : go(searchOf(here()), { replace: true }));
  listen();
  document.documentElement.dataset.ready = "";
  await follow();
}

start();
