"""A raw tree to settings, or every mistake in it.

The models check single values, ``consistency`` checks what lies between them; here both become
one list, in words that say what was found and what is allowed. What is allowed comes from the
JSON schema of the models, so that it can't differ from what they accept.
"""

from collections.abc import Callable, Iterator, Mapping
from functools import cache, partial
from typing import Any, cast

from proxy.core.consistency import consistency_mistakes
from proxy.core.errors import ConfigError, Mistake
from proxy.core.raw import among, listed, near, shown
from proxy.core.settings import KEY, Refusal, Settings, validate

Block = dict[str, Any]
JsonSchema = Mapping[str, Any]

# Every default that differs under ``compat: apache``: where ("*" is each entry of a list or each
# name of a block), and the defaults there. The other differences are in behaviour, not in
# settings: code that looks at ``Settings.compat``.
APACHE_DEFAULTS: tuple[tuple[tuple[str, ...], dict[str, Any]], ...] = (
    # ServerTokens Prod.
    ((), {"server": "Apache"}),
    # MaxKeepAliveRequests 100.
    (("frontends", "*"), {"keep_alive_requests": 100, "limits": {}}),
    # LimitRequestLine 8190 and LimitRequestFieldSize 8190 refuse what is longer than 8191 (L2 to
    # L4). Apache has no limit for a whole head; this is what 100 such fields can come to.
    (
        ("frontends", "*", "limits"),
        {"request_line": 8191, "field": 8191, "fields": 100, "head": "800k"},
    ),
    # A member is back as soon as its checks pass (H5).
    (("balancers", "*"), {"hold_off": 0}),
    # The flags of RewriteRule's CO set neither attribute unless asked to (C5).
    (("balancers", "*", "session_cookie"), {"secure": False, "http_only": False}),
)
# The article's rewrite rules assign this host's own member, elect for the first request all the
# same, and prolong only this member's cookie (C8 to C10). Only where there is an own_route.
APACHE_OWN_ROUTE = {"assign": "own", "first_request": "elect", "renew": "own"}
_SESSION_COOKIE = ("balancers", "*", "session_cookie")


def settings_from_tree(tree: Any) -> Settings:
    """The settings in a raw tree, the defaults of ``compat`` applied.

    Raises ConfigError with everything that is wrong.
    """
    tree = with_compat_defaults(tree)
    settings = validate(tree)
    mistakes = [] if isinstance(settings, Settings) else [*_schema_mistakes(settings)]
    # Where a value itself is wrong, what it means for others is no second mistake.
    places = {mistake.path for mistake in mistakes}
    mistakes += [found for found in consistency_mistakes(tree) if found.path not in places]
    if mistakes or not isinstance(settings, Settings):
        raise ConfigError(mistakes)
    return settings


# --- defaults ----------------------------------------------------------------------------------


def with_compat_defaults(tree: Any) -> Any:
    """The tree, or with ``compat: apache`` a copy of it with Apache's defaults filled in."""
    if not isinstance(tree, dict) or tree.get("compat") != "apache":
        return tree
    for path, defaults in APACHE_DEFAULTS:
        tree = _changed(tree, path, partial(_filled, defaults))
    return _changed(tree, _SESSION_COOKIE, _filled_for_own_route)


def _changed(value: Any, path: tuple[str, ...], change: Callable[[Block], Block]) -> Any:
    """A copy in which the blocks that ``path`` leads to are changed."""
    if isinstance(value, list) and path:
        return [_changed(entry, path[1:], change) for entry in value]
    if not isinstance(value, dict):
        return value
    if not path:
        return change(value)
    return {
        key: _changed(inside, path[1:], change) if path[0] in ("*", key) else inside
        for key, inside in value.items()
    }


def _filled(defaults: Block, block: Block) -> Block:
    return {**defaults, **block}


def _filled_for_own_route(cookie: Block) -> Block:
    if cookie.get("own_route") is None or cookie.get("assign", "own") != "own":
        return cookie
    return {**APACHE_OWN_ROUTE, **cookie}


# --- what the models refused -------------------------------------------------------------------


def _schema_mistakes(refused: list[Refusal]) -> Iterator[Mistake]:
    meant: set[tuple[str | int, ...]] = set()
    for refusal in refused:
        if refusal.kind == "extra_forbidden":
            keys = _keys_allowed(refusal.path[:-1])
            meant |= {(*refusal.path[:-1], key) for key in near(str(refusal.path[-1]), keys)}
    for refusal in refused:
        # A missing key that a misspelt one was meant to be is no second mistake, nor is a list
        # that is only short of the entries which were refused.
        follows = refusal.kind == "missing" and refusal.path in meant
        follows |= refusal.kind == "too_short" and bool(refusal.value)
        if not follows:
            yield _mistake(refusal)


def _mistake(refusal: Refusal) -> Mistake:
    path = refusal.path
    found = "something" if path and path[-1] == "secret" else shown(refusal.value)
    if refusal.kind == "extra_forbidden":
        keys = _keys_allowed(path[:-1])
        return Mistake(path, f"unknown key{among(str(path[-1]), keys)}", on_key=True)
    if refusal.kind == "invalid_key":
        return Mistake(path, f"found {found} as a key; a key is text", on_key=True)
    if path and path[-1] == KEY:
        path = path[:-1]
        allowed = _words(_names_allowed(path[:-1]))
        return Mistake(path, f"found {found} as a key; allowed: {allowed}", on_key=True)
    if refusal.reason is not None:
        return Mistake(path, f"found {found}; {refusal.reason}")
    schemas = _schemas_at(path)
    if refusal.kind == "missing":
        return Mistake(path, f"missing; needed is {_words(schemas)}")
    return Mistake(path, f"found {found}; allowed: {_words(schemas)}{_quotes(refusal, schemas)}")


def _quotes(refusal: Refusal, schemas: list[JsonSchema]) -> str:
    """A hint for what YAML reads as a number or as true or false."""
    if refusal.kind != "string_type" or not isinstance(refusal.value, int | float):
        return ""
    return "; in quotes it would be text" if any("pattern" in schema for schema in schemas) else ""


# --- what is allowed ---------------------------------------------------------------------------


@cache
def json_schema() -> JsonSchema:
    """The JSON schema of the settings, as the models give it."""
    return Settings.model_json_schema()


def _schemas_at(path: tuple[str | int, ...]) -> list[JsonSchema]:
    """What may stand at a place: one schema for each kind of value."""
    found = [*_kinds(json_schema())]
    for step in path:
        inside = [_inside(schema, step) for schema in found]
        found = [kind for schema in inside if schema is not None for kind in _kinds(schema)]
    return found


def _kinds(schema: JsonSchema) -> Iterator[JsonSchema]:
    """The schemas that a union, a reference or a nullable value stands for."""
    if "errorMessage" in schema:
        yield schema
        return
    if "$ref" in schema:
        yield from _kinds(json_schema()["$defs"][schema["$ref"].rpartition("/")[2]])
    for union in ("anyOf", "oneOf", "allOf"):
        for one in schema.get(union, ()):
            yield from _kinds(one)
    if "type" in schema:
        yield schema


def _inside(schema: JsonSchema, step: str | int) -> JsonSchema | None:
    """The schema of an entry of a list, or of a key's value."""
    if isinstance(step, int):
        return cast("JsonSchema | None", schema.get("items"))
    named = schema.get("properties", {})
    if step in named:
        return cast("JsonSchema", named[step])
    return next(iter(schema.get("patternProperties", {}).values()), None)


def _keys_allowed(path: tuple[str | int, ...]) -> list[str]:
    return [key for schema in _schemas_at(path) for key in schema.get("properties", ())]


def _names_allowed(path: tuple[str | int, ...]) -> list[JsonSchema]:
    """What a key may look like in a block whose keys are names."""
    return [schema["propertyNames"] for schema in _schemas_at(path) if "propertyNames" in schema]


def _words(schemas: list[JsonSchema]) -> str:
    return ", or ".join(dict.fromkeys(_kind_in_words(schema) for schema in schemas))


def _kind_in_words(schema: JsonSchema) -> str:
    if "errorMessage" in schema:
        return str(schema["errorMessage"])
    if "enum" in schema:
        return listed(str(value) for value in schema["enum"])
    kind = schema["type"]
    if kind in ("integer", "number"):
        return _number_in_words(schema, "a whole number" if kind == "integer" else "a number")
    if kind == "object" and "properties" in schema:
        return f"a block with the keys {listed(schema['properties'])}"
    if kind == "array" and schema.get("minItems"):
        return "a list with at least one entry"
    return {"boolean": "true or false", "object": "a block of name: value", "array": "a list"}.get(
        kind, str(kind)
    )


def _number_in_words(schema: JsonSchema, number: str) -> str:
    least, most = schema.get("minimum"), schema.get("maximum")
    if least == most and least is not None:
        return f"the number {least:g}"
    if least is None:
        return number
    if most is None:
        return f"{number} of at least {least:g}"
    return f"{number} from {least:g} to {most:g}"
