"""The page of ``cvretrieval serve`` in a browser of Playwright: watched, operated, measured."""

from __future__ import annotations

import base64
import re

#: A name of a file that would run if it were not text.
NAME = "<img src=x onerror=alert(1)>.jpg"
MOST_BYTES = 300_000
N_PHOTOS = 17
DESKTOP, PHONE = (1200, 800), (360, 740)

#: Until what is seen of the photos has been drawn.
SETTLED = """async () => {
  const isSeen = (node) => node.getBoundingClientRect().top < innerHeight;
  await Promise.all([...document.images].filter(isSeen).map((image) => image.decode().catch(() => null)));
}"""

#: Contrasts of WCAG between the words of elements and what is behind them.
CONTRAST = """(names) => {
  const canvas = Object.assign(document.createElement("canvas"), { width: 1, height: 1 });
  const context = canvas.getContext("2d", { willReadFrequently: true });
  const linear = (value) => value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4;
  const light = (color) => {
    context.fillStyle = color;
    context.fillRect(0, 0, 1, 1);
    const [r, g, b] = [...context.getImageData(0, 0, 1, 1).data].map((value) => linear(value / 255));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  return names.map((name) => {
    const node = document.querySelector(name);
    let ground = node;
    while (getComputedStyle(ground).backgroundColor === "rgba(0, 0, 0, 0)") ground = ground.parentElement;
    const [a, b] = [light(getComputedStyle(node).color), light(getComputedStyle(ground).backgroundColor)];
    return (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
  });
}"""

#: What can be operated or seen, and has no name to be called by.
UNNAMED = """() => {
  const all = "a[href], button, input, summary, [tabindex='0'], img, dialog, svg[role]";
  const attributes = ["aria-label", "aria-labelledby"];
  const text = (node) => (node.labels?.[0] ?? node).textContent.trim();
  const isNamed = (node) => node.matches("img") ? node.hasAttribute("alt")
    : attributes.some((name) => node.getAttribute(name)) || text(node);
  return [...document.querySelectorAll(all)].filter((node) => !isNamed(node)).map((node) => node.outerHTML);
}"""

_GIVE = """([event, name, data]) => {
  const bytes = Uint8Array.from(atob(data), (letter) => letter.charCodeAt(0));
  const transfer = new DataTransfer();
  transfer.items.add(new File([bytes], name));
  const options = { bubbles: true, cancelable: true };
  document.body.dispatchEvent(event === "paste" ? new ClipboardEvent(event, { clipboardData: transfer, ...options })
    : new DragEvent(event, { dataTransfer: transfer, ...options }));
}"""


class Watched:
    """Pages, and what they log: errors, breaches of the policy, dialogs."""

    def __init__(self, browser, size):
        self.browser, self.logged, self.expected = browser, [], ()
        self.desktop = self.make(size)

    def make(self, size, **options):
        page = self.browser.new_page(viewport={"width": size[0], "height": size[1]}, **options)
        page.set_default_timeout(15_000)
        page.on("filechooser", lambda chooser: None)  # choosers are caught from the start: later, a key can be faster
        page.on("console", lambda message: self.logged.append(message.text))
        page.on("pageerror", lambda error: self.logged.append(str(error)))
        page.on("dialog", lambda dialog: (self.logged.append(dialog.message), dialog.dismiss()))
        return page


def give(page, path, event="drop"):
    """Drop a file on the page, or paste it."""
    page.evaluate(_GIVE, [event, path.name, base64.b64encode(path.read_bytes()).decode()])


def cards(page):
    """The results."""
    return page.locator(".card:has(.rank)")


def fields(request):
    """The text fields of a form that was sent."""
    return dict(re.findall(rb'name="(\w+)"\r\n\r\n(.*?)\r\n', request.post_data_buffer or b""))


def fits(page):
    return page.evaluate("Math.max(document.documentElement.scrollWidth, document.body.scrollWidth) <= innerWidth")


def focused(page, what):
    return page.evaluate("(what) => document.activeElement.matches(what)", what)


def tab_to(page, what, key="Tab", most=60):
    for _ in range(most):
        if focused(page, what):
            return
        page.keyboard.press(key)
    raise AssertionError(f"{what} is not reached by {key}.")


def drag_by_finger(page, start, end):
    session = page.context.new_cdp_session(page)
    for kind, points in (("touchStart", [start]), ("touchMove", [end]), ("touchMove", [end]), ("touchEnd", [])):
        session.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": [{"x": x, "y": y} for x, y in points]})


def changed(page, pattern, change):
    """Let an answer of the server be another."""

    def handle(route):
        answer = route.fetch()
        route.fulfill(response=answer, json=change(answer.json()))

    page.route(pattern, handle)


def searched(page, path):
    """Search by a photo and wait for what is found."""
    from playwright.sync_api import expect

    give(page, path)
    expect(cards(page)).to_have_count(8)
