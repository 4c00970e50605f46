"""The webmail page of a demo member: a line of text for curl, a small page for a browser."""

from html import escape

# Members are told apart at a glance.
_COLOURS = ("#1f6f8b", "#9c4221", "#3f6b2a", "#6b4292")

_PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>Webmail on {name}</title>
<style>
  body {{ font: 16px/1.5 sans-serif; margin: 0; color: #222 }}
  header {{ background: {colour}; color: #fff; padding: 1em 2em }}
  main {{ padding: 1em 2em; max-width: 45em }}
  li {{ padding: .2em 0 }}
</style>
<header><strong>Webmail</strong> on {name}</header>
<main>
<p>{line}</p>
<p><a href="/webaccess/">Again</a></p>
<ul>
  <li><a href="/download?size=20m">Download an attachment of 20 MB</a></li>
  <li><a href="/redirect?absolute=1">Follow a redirect to {name}'s own address</a></li>
  <li><a href="/slow?seconds=3">Wait three seconds for an answer</a></li>
  <li><a href="/headers">See what {name} is told about this request</a></li>
</ul>
<form action="/upload" method="post" enctype="multipart/form-data">
<p>Upload: <input type="file" name="file"> <button>Send</button></p>
</form>
</main>
</html>
"""


def text(name: str, count: int, was_known: bool) -> str:
    """What happened, in one line."""
    if count > 1:
        return f"{name}: request {count} of this session"
    if was_known:
        return f"{name}: request 1, new session on {name} (yours isn't known here)"
    return f"{name}: request 1, new session on {name}"


def page(name: str, line: str) -> str:
    """The same as a page, in the member's colour."""
    colour = _COLOURS[sum(name.encode()) % len(_COLOURS)]
    return _PAGE.format(name=escape(name), line=escape(line), colour=colour)
