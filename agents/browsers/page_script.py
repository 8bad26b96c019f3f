"""The scripts that run in a page besides its own.

One tells of the moment that a gate awaits, from a world of its own: the page cannot see it. Whether that moment is on
the screen already it cannot tell; that is looked at from outside.

The other keeps what a browser would lay over the page out of the picture: dialogs, which it shows for a moment even
when they are answered at once, programs for mailto: and other schemes, and the bare screen behind a window that has
closed. It must be among the page's own scripts.
"""

from __future__ import annotations

import json
from string import Template
from typing import TYPE_CHECKING

from agents.pipelines.recording import GateKind

if TYPE_CHECKING:
    from collections.abc import Iterable

    from agents.pipelines.recording import StartGate

WORLD = "gpu-balancer"
"""Name of the world that it runs in."""
BINDING = "__gpuBalancerTell"
"""Function of that world that tells something."""
PAINTED = "painted"
SELECTED = "selected"
BAD_SELECTOR = "bad selector"

CLOSED = "The page has closed itself."
"""What a page that closes itself writes to its console instead: so its last picture stays, and a later agent learns."""
QUIET_BINDING = "__gpuBalancerQuiet"
"""Function that the quiet script tells something by. It takes it away before the page can see it."""

_QUIET = Template("""(() => {
  const MOST = 1000;
  const binding = globalThis.$binding;
  delete globalThis.$binding;
  let told = 0;
  const tell = (kind, text) => {
    if (binding && told++ < MOST) binding(JSON.stringify([kind, String(text).slice(0, 500)]));
  };
  window.alert = function alert(message = "") { tell("alert", message); };
  window.confirm = function confirm(message = "") { tell("confirm", message); return false; };
  window.prompt = function prompt(message = "") { tell("prompt", message); return null; };
  if (window === window.top) window.close = function close() { console.info("$closed"); };
  window.print = function print() { tell("print", ""); };
  const INSIDE = ["http:", "https:", "about:", "blob:", "data:", "file:", "filesystem:", "javascript:"];
  window.navigation?.addEventListener("navigate", (event) => {
    const url = event.destination.url;
    if (event.cancelable && !INSIDE.includes(url.slice(0, url.indexOf(":") + 1).toLowerCase())) {
      event.preventDefault();
      tell("navigation", url);
    }
  });
  const SIGNALS = $signals;
  let second = 0, said = 0, unsaid = 0, signals = 0;
  const may = (signal) => {
    const now = Math.floor(performance.now() / 1000);
    if (now !== second) [second, said, signals, unsaid] = [now, 0, 0, 0];
    if (signal ? signals++ < $most : said++ < $most) return true;
    unsaid++;
    return false;
  };
  const cut = (word) => typeof word === "string" && word.length > $longest ? word.slice(0, $longest) + "…" : word;
  for (const name of Object.keys(console)) {
    const say = console[name];
    if (typeof say !== "function") continue;
    console[name] = function $throttle(...words) {
      if (may(words.length === 1 && SIGNALS.includes(words[0]))) return say.apply(console, words.map(cut));
      if (unsaid === 1) say.call(console, "further messages of this second are left out");
    };
  }
  const hush = (event) => { if (!may(false)) event.preventDefault(); };
  window.addEventListener("error", hush, true);
  window.addEventListener("unhandledrejection", hush, true);
})();""")
"""Also bounds what the page says: a browser that tells of a million messages tells of nothing else."""
_MOST_MESSAGES_PER_SECOND = 100
_LONGEST_MESSAGE = 10_000
THROTTLE = "gpuBalancerSay"
"""Name of the function through which the page's console goes."""

SCROLLBAR_SCRIPT = """(() => {
  const sheet = new CSSStyleSheet();
  sheet.replaceSync("* { scrollbar-width: none !important; } ::-webkit-scrollbar { display: none !important; }");
  document.adoptedStyleSheets = [...document.adoptedStyleSheets, sheet];
})();"""
"""Script that hides scroll bars, for the time in which no agent is there to have them hidden by the browser."""

_FRAME = Template("""(() => {
  if (window !== window.top) return;
  const tell = (what) => globalThis.$binding(what);
  $gate
})();""")

_PAINT = Template("""
  new PerformanceObserver((list) => {
    if (list.getEntriesByName("first-contentful-paint").length) tell("$painted");
  }).observe({type: "paint", buffered: true});""")

_SELECTOR = Template("""
  const visible = (element) => {
    const box = element.getBoundingClientRect();
    return box.width > 0 && box.height > 0 && element.checkVisibility({visibilityProperty: true});
  };
  const look = () => {
    let found;
    try {
      found = Array.from(document.querySelectorAll($selector));
    } catch {
      globalThis.$binding("$bad_selector");
      return;
    }
    if (found.some(visible)) tell("$selected");
    else requestAnimationFrame(look);
  };
  look();""")


def quiet_script(signals: Iterable[str]) -> str:
    """Makes the script for every document of a page.

    Args:
        signals: Console messages that mean something: they get through however much else is said.
    """
    return _QUIET.substitute(
        binding=QUIET_BINDING,
        closed=CLOSED,
        signals=json.dumps([*signals, CLOSED]),
        most=_MOST_MESSAGES_PER_SECOND,
        longest=_LONGEST_MESSAGE,
        throttle=THROTTLE,
    )


def gate_script(gate: StartGate) -> str | None:
    """Makes the script for a gate, to be run in every document. None: the gate needs none."""
    if gate.kind is GateKind.FIRST_CONTENTFUL_PAINT:
        body = _PAINT.substitute(painted=PAINTED)
    elif gate.kind is GateKind.SELECTOR:
        selector = json.dumps(gate.selector or "*")
        body = _SELECTOR.substitute(selector=selector, selected=SELECTED, bad_selector=BAD_SELECTOR, binding=BINDING)
    else:
        return None
    return _FRAME.substitute(gate=body, binding=BINDING)
