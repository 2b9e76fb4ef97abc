// What is being done, for how long, and a way to stop it.
import { byId, html } from "./dom.js";

const SAY_EVERY = 10; // seconds, to those who listen
const SHOW_AFTER = 150; // milliseconds; shorter waits only flicker

let current = null;

/** Run `work(signal)`; a later call stops an earlier one, whose promise then ends with an AbortError. */
export async function waitFor(words, work) {
  stop();
  const controller = new AbortController();
  current = controller;
  const started = performance.now();
  const elapsed = () => Math.floor((performance.now() - started) / 1000);
  const tick = () => {
    const seconds = elapsed();
    byId("elapsed").textContent = seconds ? `${words}… ${seconds} s` : `${words}…`;
    if (seconds && seconds % SAY_EVERY === 0) say(`${words} for ${seconds} seconds`);
  };
  byId("found").setAttribute("aria-busy", "true");
  say(words);
  const shown = setTimeout(() => { tick(); byId("waiting").hidden = false; }, SHOW_AFTER);
  const ticking = setInterval(tick, 1000);
  try {
    return await work(controller.signal);
  } finally {
    clearTimeout(shown);
    clearInterval(ticking);
    if (current === controller) {
      current = null;
      byId("waiting").hidden = true;
      byId("found").removeAttribute("aria-busy");
    }
  }
}

export function stop(reason) {
  current?.abort(reason);
}

export const say = (words) => { byId("status").textContent = words; };

/** Show a message above the results, with buttons of (words, action). */
export function tell(title, words, ...buttons) {
  const message = byId("message");
  message.replaceChildren(html("p", {}, html("strong", {}, title), " ", words),
    html("div", { class: "buttons" }, ...buttons.map(([text, action]) => html("button", { type: "button", onclick: action }, text)),
      html("button", { type: "button", onclick: forget }, "Dismiss")));
  message.hidden = false;
  message.scrollIntoView({ block: "nearest" });
}

export function forget() {
  byId("message").hidden = true;
  byId("message").replaceChildren();
}
