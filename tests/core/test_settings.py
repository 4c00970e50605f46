from typing import Any

import pytest
from pydantic import ValidationError

from proxy.core.settings import (
    Balancer,
    Frontend,
    LbMethod,
    Member,
    Model,
    Settings,
    Tls,
    validate,
)

MEMBER = {"url": "http://server1.zarafa.com", "route": "server1"}
FRONTEND = {"listen": "0.0.0.0:443"}
SMALLEST = {
    "frontends": [FRONTEND],
    "balancers": {"cluster": {"members": [MEMBER]}},
}


def test_the_smallest_settings() -> None:
    """Only frontends, balancers and their members have no default."""
    settings = Settings.model_validate(SMALLEST)
    assert settings.balancers["cluster"].lbmethod is LbMethod.BYREQUESTS
    assert settings.balancers["cluster"].members[0].retry_after == 60.0
    assert settings.frontends[0].limits.head == 65536


def test_settings_are_frozen() -> None:
    """Settings don't change while the proxy runs."""
    with pytest.raises(ValidationError, match="frozen"):
        Settings.model_validate(SMALLEST).workers = 2


@pytest.mark.parametrize("model", Model.__subclasses__(), ids=lambda model: model.__name__)
def test_every_setting_is_explained(model: type[Model]) -> None:
    """Each model and each field says what it is, for the schema and for editors."""
    assert model.__doc__
    assert [name for name, field in model.model_fields.items() if not field.description] == []


@pytest.mark.parametrize("model", Model.__subclasses__(), ids=lambda model: model.__name__)
def test_defaults_are_allowed(model: type[Model]) -> None:
    """A default is no value that would be refused in the file."""
    for name, field in model.model_fields.items():
        if not field.is_required() and not isinstance(field.default, float):
            model.__pydantic_validator__.validate_assignment(
                model.model_construct(), name, field.default
            )


@pytest.mark.parametrize(
    ("block", "count"),
    [(None, 0), ({"certificate": "a.pem"}, 1), ([{"certificate": "a.pem"}] * 2, 2)],
)
def test_certificates(block: Any, count: int) -> None:
    """No tls, one certificate or a list: certificates is always a list."""
    frontend = Frontend.model_validate({"listen": "0.0.0.0:443", "tls": block})
    assert frontend.certificates == (Tls(certificate="a.pem"),) * count


@pytest.mark.parametrize(("written", "separator"), [(False, "off"), ("off", "off"), ("!", "!")])
def test_separator(written: Any, separator: str) -> None:
    """YAML reads off as false; it means off all the same."""
    balancer = Balancer.model_validate({"members": [MEMBER], "sticky_separator": written})
    assert balancer.sticky_separator == separator


@pytest.mark.parametrize(("written", "version"), [(1.2, "1.2"), ("1.3", "1.3")])
def test_tls_version(written: Any, version: str) -> None:
    """YAML reads 1.2 as a number; it means the version all the same."""
    tls = Tls.model_validate({"certificate": "a.pem", "min_version": written})
    assert tls.min_version == version


@pytest.mark.parametrize(
    ("key", "wrong"),
    [
        ("hot_standby", "yes"),
        ("hot_standby", 1),
        ("lbset", True),
        ("lbset", "1"),
        ("load_factor", True),
        ("load_factor", 0.99),
        ("load_factor", 101),
        ("load_factor", float("nan")),
        ("route", 1),
        ("route", "a" * 64),
        ("status", "down"),
        ("retry_after", 60),
    ],
)
def test_values_are_not_guessed(key: str, wrong: Any) -> None:
    """A value of another type is refused, even if it could be turned into the right one."""
    with pytest.raises(ValidationError):
        Member.model_validate({**MEMBER, key: wrong})


def test_refusals() -> None:
    """Each mistake is one refusal, with its path in the raw tree."""
    tls = {"certificate": 5, "kye": "k"}
    refused = validate({**SMALLEST, "frontends": [{"listen": "here", "tls": tls}, FRONTEND]})
    assert isinstance(refused, list)
    assert [(refusal.path, refusal.kind, refusal.value) for refusal in refused] == [
        (("frontends", 0, "listen"), "value_error", "here"),
        (("frontends", 0, "tls", "certificate"), "string_type", 5),
        (("frontends", 0, "tls", "kye"), "extra_forbidden", "k"),
    ]
    assert refused[0].reason is not None
    assert refused[0].reason.startswith("listen is")
