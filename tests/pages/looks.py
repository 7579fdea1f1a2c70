"""How an open page looks: at every width, with large text, in both themes, to assistive technology."""

from __future__ import annotations

import itertools

from axe_playwright_python.base import AXE_SCRIPT, AxeResults
from playwright.sync_api import Page

# Pixels, and per cent of the usual size of text.
LAYOUTS = ((320, 100), (390, 100), (768, 100), (992, 100), (1280, 100), (1280, 200))
PHONE, DESKTOP = 390, 1280
_HEIGHT = 800
_BEYOND = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
_LISTS = "[...document.querySelectorAll('.panel.list')].map(p => p.scrollWidth - p.clientWidth)"
# Nothing else is told, because the rest of what axe has to tell takes as long to fetch as to find.
_VIOLATIONS = "axe.run({resultTypes: ['violations']}).then(found => ({violations: found.violations}))"
# A colour that is on its way to another is neither.
_END_TRANSITIONS = "document.getAnimations().filter(one => one instanceof CSSTransition).forEach(one => one.finish())"


def assert_looks_right(window: Page, name: str) -> None:
    """Look at a page in every way below; it has its own size again afterwards."""
    own = window.viewport_size
    assert own is not None
    _assert_accessible(window, name)
    _assert_no_sideways_scroll(window, name)
    window.set_viewport_size(own)


def _assert_no_sideways_scroll(window: Page, name: str) -> None:
    """Look at a page in all layouts."""
    for width, text in LAYOUTS:
        window.set_viewport_size({"width": width, "height": _HEIGHT})
        window.evaluate(f"document.documentElement.style.fontSize = '{text}%'")
        beyond = window.evaluate(_BEYOND)
        assert beyond <= 0, f"{name} is {beyond} px too wide at {width}, {text} %"
        assert max(window.evaluate(_LISTS), default=0) <= 0, f"{name}: a list is too wide at {width}, {text} %"
    window.evaluate("document.documentElement.style.fontSize = ''")


def _assert_accessible(window: Page, name: str) -> None:
    """Let axe look at a page as a phone and as a desktop show it, in both themes."""
    window.evaluate(AXE_SCRIPT)
    for width, theme in itertools.product((PHONE, DESKTOP), ("dark", "light")):
        window.set_viewport_size({"width": width, "height": _HEIGHT})
        window.emulate_media(color_scheme=theme)  # type: ignore[arg-type]
        window.evaluate(_END_TRANSITIONS)
        found = AxeResults(window.evaluate(_VIOLATIONS))
        assert found.violations_count == 0, f"{name}, {width} px, {theme}:\n{found.generate_report()}"
