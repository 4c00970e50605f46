"""proxy.lab.demo_page: what a visitor reads."""

from proxy.lab import demo_page


def test_line_tells_what_happened() -> None:
    """The line tells a first visit, a return and a session that isn't known apart."""
    assert demo_page.text("server1", 1, was_known=False).endswith("new session on server1")
    assert "yours isn't known here" in demo_page.text("server2", 1, was_known=True)
    assert demo_page.text("server1", 2, was_known=True) == "server1: request 2 of this session"


def test_page_escapes_and_colours() -> None:
    """A name is text in the page, and two members differ in colour."""
    assert "<b>" not in demo_page.page("<b>", "line")
    colours = {
        demo_page.page(name, "").partition("background: ")[2][:7] for name in ("server1", "server2")
    }
    assert len(colours) == 2
