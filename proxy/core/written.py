"""Settings as the configuration writes them, for sentences that quote one.

How a value is written depends on the kind of its field: a float is a duration but for a load
factor, a whole number may be a size. Secrets are never written, also not those in a hook's URL.
"""

import re
from collections.abc import Iterator
from enum import Enum
from functools import cache
from typing import Any, get_args, get_type_hints

from proxy.core.settings import Model
from proxy.core.values import HookUrl, LoadFactor, Secrets, Size, duration_text, size_text

# Text that a file may have without quotes, and that can't be taken for anything else.
_PLAIN = re.compile(r"[A-Za-z0-9/*_][A-Za-z0-9/*_.:|@-]*")
# Between // and the host of a URL.
_USERINFO = re.compile(r"(?<=://)[^/?]*@")


@cache
def kinds(model: type[Model]) -> dict[str, Any]:
    """The type of each setting of a model, as ``settings`` declares it."""
    return get_type_hints(model, include_extras=True)


def is_secret(kind: Any) -> bool:
    """Whether settings of this kind are never shown."""
    return is_of(kind, Secrets)


def written(value: Any, kind: Any = None) -> str:
    """A value of a setting of this kind in the spelling of the configuration file."""
    if isinstance(value, Model):
        return f"{{{', '.join(_entries(value))}}}"
    if isinstance(value, dict):
        return f"{{{', '.join(f'{written(key)}: {written(value[key])}' for key in value)}}}"
    if isinstance(value, tuple):
        return f"[{', '.join(written(entry, kind) for entry in value)}]"
    return _scalar(value, kind)


def _scalar(value: Any, kind: Any) -> str:
    match value:
        case None:
            return "null"
        case bool():
            return "true" if value else "false"
        case Enum():
            return str(value.value)
        case float():
            return f"{value:g}" if is_of(kind, LoadFactor) else duration_text(value)
        case int() if is_of(kind, Size):
            return size_text(value)
    text = shown_url(value) if is_of(kind, HookUrl) else str(value)
    return text if _PLAIN.fullmatch(text) else f'"{text}"'


def shown_url(url: str) -> str:
    """A URL without its password and its query: ``https://...@monitor.zarafa.com/events?...``."""
    path, _, query = _USERINFO.sub("...@", url).partition("?")
    return f"{path}?..." if query else path


def _entries(block: Model) -> Iterator[str]:
    """The settings of a block that aren't their defaults."""
    for name, kind in kinds(type(block)).items():
        value = getattr(block, name)
        if value != type(block).model_fields[name].default:
            yield f"{name}: {'(secret)' if is_secret(kind) else written(value, kind)}"


def is_of(kind: Any, wanted: Any) -> bool:
    """Whether a kind is the wanted one, or one that may be left out, or a list of it."""
    return kind is wanted or any(is_of(part, wanted) for part in get_args(kind))
