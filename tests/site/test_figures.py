"""Figures: words for those who cannot see them, room kept for them, players that play."""

import pytest

# what the player `figure` shows: the visible frames of each panel, and what its controls say
STATE = """figure => {
  const [slider, label, button] = ["input", "output", "button"].map(
    s => figure.querySelector(`.tt-controls ${s}`));
  const panels = [...figure.querySelectorAll(".tt-panels > svg")];
  return {
    frames: panels.map(p => [...p.querySelectorAll("[data-frame]")]
      .filter(g => getComputedStyle(g).display !== "none").map(g => +g.dataset.frame)),
    all: panels.map(p => p.querySelectorAll("[data-frame]").length),
    drawn: panels.map(p => [...p.querySelectorAll("[data-frame]")].map(g => g.innerHTML)),
    at: +slider.value, last: +slider.max, label: label.textContent,
    text: slider.getAttribute("aria-valuetext"), button: button.textContent,
    controls: button.checkVisibility(),
  };
}"""
SHIFTS = """
window.shifts = [];
new PerformanceObserver(list => {
  for (const e of list.getEntries())
    if (!e.hadRecentInput)
      window.shifts.push([e.value, e.sources.map(s => {
        const n = s.node?.nodeType === 1 ? s.node : s.node?.parentElement;
        return n ? `${n.tagName.toLowerCase()}.${[...n.classList].join(".")}` : "gone";
      }).join(", ")]);
}).observe({ type: "layout-shift", buffered: true });
"""
TWO_FRAMES = "new Promise(r => requestAnimationFrame(() => requestAnimationFrame(() => r())))"


# -- in the files --------------------------------------------------------------------------


def drawings(soup) -> list:
    """Every picture of the article that a reader is to see, with its own alternative text."""
    article = soup.select_one("article") or soup
    figures = article.select("figure.tt-figure")
    inside = [figure.select_one("[role=img], img") for figure in figures]
    assert all(inside), "a figure holds neither an image nor an element with role=img"
    return inside + [i for i in article.select("img") if not i.find_parent("figure")]


def test_every_figure_is_told_in_words(page, site):
    wrong = []
    for drawing in drawings(site.soup(page)):
        alt = site.squeeze(drawing.get("aria-label") or drawing.get("alt") or "")
        figure = drawing.find_parent("figure")
        caption = figure and figure.select_one("figcaption")
        file = drawing.get("src", "").rpartition("/")[2]
        if len(alt.split()) < 8:
            wrong.append(f"fewer than eight words: {alt!r}")
        if file and file.rpartition(".")[0] in alt:
            wrong.append(f"its file's name: {alt!r}")
        if caption and site.squeeze(caption.get_text()).lower() == alt.lower():
            wrong.append(f"the caption once more: {alt!r}")
    assert not wrong, f"{page}: {wrong}"


def test_every_drawing_is_named_or_hidden(page, site):
    article = site.soup(page).select_one("article") or site.soup(page)
    mute = [
        str(svg)[:120]
        for svg in article.select("svg")
        if svg.get("aria-hidden") != "true"
        and not (svg.get("role") == "img" and svg.get("aria-label"))
        and not svg.find_parent(attrs={"role": "img"})
    ]
    assert not mute, f"{page}: neither named nor hidden: {mute}"


def test_every_picture_keeps_its_room(page, site):
    """Without width and height the text below jumps when the picture arrives."""
    article = site.soup(page).select_one("article") or site.soup(page)
    loose = [
        str(picture)[:120]
        for picture in article.select("svg, img")
        if not all((picture.get(side) or "0").isdigit() for side in ("width", "height"))
        or not all(int(picture.get(side) or 0) for side in ("width", "height"))
    ]
    assert not loose, f"{page}: no width and height: {loose}"


# -- while loading -------------------------------------------------------------------------


@pytest.mark.parametrize("width", [360, 1440])
def test_nothing_jumps_while_the_page_loads(page, width, new_tab):
    """The cumulative layout shift of a first visit, all shifts added up."""
    tab = new_tab()
    tab.context.add_init_script(SHIFTS)
    shown = tab.open(page, width=width)
    shown.evaluate(TWO_FRAMES)
    shifts = shown.evaluate("window.shifts")
    total = sum(value for value, _ in shifts)
    assert total < 0.05, f"{page} at {width} px shifts by {total:.3f}: {shifts}"


# -- players -------------------------------------------------------------------------------


def players(shown) -> list:
    found = [f for f in shown.locator("figure.tt-figure").all() if f.locator("input").count()]
    assert found
    return found


def check(figure, k: int) -> dict:
    """The player shows frame k, alone, in every panel, and says so."""
    state = figure.evaluate(STATE)
    assert state["at"] == k
    assert state["frames"] == [[k]] * len(state["frames"])
    assert state["label"]
    assert state["text"] == state["label"], "the slider's words are not those of the label"
    return state


def test_the_slider_moves_the_frames(player_page, tab):
    for figure in players(tab.open(player_page)):
        slider, last = figure.locator("input"), figure.evaluate(STATE)["last"]
        state = check(figure, last)
        assert last > 0
        assert state["all"] == [last + 1] * len(state["all"])
        assert any(len(set(frames)) > 1 for frames in state["drawn"]), "nothing moves"
        labels = {}
        for k in sorted({0, 1, last // 2, last - 1, last}):
            slider.fill(str(k))
            labels[k] = check(figure, k)["label"]
        assert len(set(labels.values())) == len(labels), f"frames share a name: {labels}"


def test_play_advances_and_stops_at_the_end(player_page, new_tab):
    tab = new_tab()
    tab.page.clock.install()
    shown = tab.open(player_page)
    shown.clock.pause_at(shown.evaluate("Date.now()") + 60_000)
    for figure in players(shown):
        button, slider = figure.locator("button"), figure.locator("input")
        last = figure.evaluate(STATE)["last"]
        assert button.text_content() == "Play"
        button.click()
        assert check(figure, 0)["button"] == "Pause"
        seen = [0]
        for _ in range(60):
            shown.clock.run_for(100)
            seen.append(figure.evaluate(STATE)["at"])
        assert seen == sorted(seen)
        assert len(set(seen)) > 1, "six seconds of playing moved nothing"
        shown.clock.run_for(2_000 * (last + 2))
        assert check(figure, last)["button"] == "Play"
        # a second click pauses
        slider.fill("0")
        button.click()
        assert figure.evaluate(STATE)["button"] == "Pause"
        button.click()
        shown.clock.run_for(10_000)
        assert check(figure, 0)["button"] == "Play"
        # taking the slider stops the playing
        button.click()
        slider.fill(str(last))
        slider.fill("0")
        shown.clock.run_for(10_000)
        assert check(figure, 0)["button"] == "Play"


def test_players_work_from_the_keyboard(player_page, tab):
    for figure in players(tab.open(player_page)):
        slider, button = figure.locator("input"), figure.locator("button")
        last = figure.evaluate(STATE)["last"]
        slider.focus()
        for key, k in (("Home", 0), ("ArrowRight", 1), ("ArrowLeft", 0), ("End", last)):
            slider.press(key)
            check(figure, k)
        button.focus()
        button.press("Enter")
        assert figure.evaluate(STATE)["button"] == "Pause"
        button.press(" ")
        assert figure.evaluate(STATE)["button"] == "Play"


def test_without_scripts_the_last_frame_stands(player_page, new_tab):
    shown = new_tab(java_script_enabled=False).open(player_page)
    for figure in players(shown):
        state = figure.evaluate(STATE)
        assert state["frames"] == [[state["last"]]] * len(state["frames"])
        assert not state["controls"], "controls that do nothing are shown"


def test_on_paper_the_last_frame_stands(player_page, tab):
    shown = tab.open(player_page)
    shown.emulate_media(media="print")
    try:
        for figure in players(shown):
            state = figure.evaluate(STATE)
            assert state["frames"] == [[state["last"]]] * len(state["frames"])
            assert figure.locator(".tt-panels svg").first.is_visible()
            assert not state["controls"], "controls are printed"
    finally:
        shown.emulate_media(media="screen")
