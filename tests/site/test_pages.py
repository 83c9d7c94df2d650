"""Every page in a browser: at three widths, light and dark, one load for all checks."""

from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe

LOOK = Path(__file__).with_name("look.js").read_text(encoding="utf-8")
# what a reader may open is open, and nothing is fading in
OPEN = """() => {
  const still = document.createElement("style");
  still.textContent = "* { animation: none !important; transition: none !important; }";
  document.head.append(still);
  document.querySelectorAll("details").forEach(d => d.open = true);
  document.querySelectorAll("main button.toggle-button-hidden").forEach(b => b.click());
}"""
# axe looks at each element, most of which are alike: tokens of code and rows of the ledger are
# stood for by the first few of their kind, and what is hidden from it in drawings goes
THIN = """rows => {
  const first = (kind, n) => (seen[kind] = (seen[kind] ?? 0) + 1) <= n, seen = {};
  for (const svg of document.querySelectorAll("svg[aria-hidden=true]")) svg.replaceChildren();
  for (const token of document.querySelectorAll(".highlight span"))
    if (!first(token.className, 4)) token.replaceWith(...token.childNodes);
  for (const row of document.querySelectorAll(".row-claim")) {
    const { verdict, state } = row.querySelector(".claim-head").dataset;
    if (!first(verdict + state, rows)) row.remove();
  }
}"""


def test_page(look, tab):
    page, width, scheme = look
    shown = tab.open(page, width=width, scheme=scheme)
    shown.evaluate(OPEN)
    faults = shown.evaluate(LOOK, {"scheme": scheme})
    faults += tab.faults  # before axe, which asks for files in its own way
    shown.evaluate(THIN, 1000 if (width, scheme) == (360, "light") else 4)
    faults += accessibility(shown)
    tab.forget()
    if faults:
        listed = "\n  ".join(dict.fromkeys(faults))
        pytest.fail(f"{page} at {width} px, {scheme}:\n  {listed}", pytrace=False)


def accessibility(shown) -> list[str]:
    """Every violation that axe finds, with rule and element."""
    options = {"resultTypes": ["violations"], "preload": False}
    found = Axe().run(shown, options=options).response["violations"]
    return [
        f"axe {v['id']} ({v['help']}): {node['target']} {node['html'][:160]}"
        + "".join(f" [{x['message']}]" for x in node["any"][:1])
        + (f" and {len(v['nodes']) - 3} more" if i == 2 and len(v["nodes"]) > 3 else "")
        for v in found
        for i, node in enumerate(v["nodes"][:3])
    ]
