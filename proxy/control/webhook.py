"""A program that posts an event to a URL, for a hook that has one.

The supervisor runs it beside itself, so that names are resolved, handshakes made and answers
awaited where nobody else waits for them. It imports nothing of ours and little of Python's, since
it is started for each event. The object comes on standard input, the URL in the environment, where
other users can't read its password; user:password@ in it is sent as Basic authentication.

An answer 2xx is the success, anything else one line on standard error and the exit status 1. No
redirect is followed: a POST would come out as a GET without the object. Proxies (http_proxy,
https_proxy, no_proxy) and authorities (SSL_CERT_FILE) are those of the environment, as everywhere.
"""

import base64
import http.client
import os
import sys
import urllib.error
import urllib.parse
import urllib.request

# Where the URL is, and for how many seconds at most nothing may come of it.
URL, TIMEOUT = "BALANCEME_URL", "BALANCEME_TIMEOUT"
# Bytes of a refusal's body that are told.
_MOST = 200


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """Takes a redirect for what it is here: an answer that is no success."""

    def redirect_request(self, *_: object) -> None:
        """Follow none."""


def post(url: str, body: bytes, timeout: float) -> str | None:
    """Post a JSON object; why it was not taken, or None. Secrets of the URL are in no reason."""
    try:
        opener = urllib.request.build_opener(_NoRedirect)
        with opener.open(_request(url, body), timeout=timeout):
            return None
    except urllib.error.HTTPError as error:
        with error:
            return _refusal(error)
    except urllib.error.URLError as error:
        return f"it can't be reached: {error.reason}"
    except (OSError, ValueError, http.client.HTTPException) as error:
        return f"it does not answer: {str(error) or type(error).__name__}"


def _request(url: str, body: bytes) -> urllib.request.Request:
    authority = urllib.parse.urlsplit(url).netloc
    userinfo, _, host = authority.rpartition("@")
    request = urllib.request.Request(  # noqa: S310 - http or https, as the settings want it
        url.replace(authority, host, 1), body, method="POST"
    )
    request.add_header("Content-Type", "application/json")
    request.add_header("User-Agent", "balanceme")
    if userinfo:
        name, _, password = map(urllib.parse.unquote_to_bytes, userinfo.partition(":"))
        told = base64.b64encode(b"%b:%b" % (name, password)).decode()
        request.add_header("Authorization", f"Basic {told}")
    return request


def _refusal(error: urllib.error.HTTPError) -> str:
    text = f"it answers {error.code} {error.reason}".rstrip()
    if 300 <= error.code < 400:
        return f"{text}, and redirects are not followed"
    try:
        said = error.read(_MOST).decode(errors="replace").split("\n")[0].strip()
    except (OSError, http.client.HTTPException):
        said = ""
    return f"{text}: {said}" if said else text


if __name__ == "__main__":
    sys.exit(post(os.environ[URL], sys.stdin.buffer.read(), float(os.environ[TIMEOUT])))
