"""proxy.lab.demo_activesync: queries in, commands out."""

import pytest

from proxy.lab.demo_activesync import Command, read_query

# From the field and from the specification: standard base64, not percent-encoded.
COMPACT = {
    "jAAJBAp2MTQwRGV2aWNlAApTbWFydFBob25l": ("Sync", b"v140Device".hex(), ""),
    "jRIHBBAAAQIDBAUGBwgJCgsMDQ4PBHhWNBIDV1A4CBFlcmlrYUBleGFtcGxlLm9yZw==": (
        "Ping",
        bytes(range(16)).hex(),
        "erika@example.org",
    ),
    "eQAJCAxhbmRyb2lkYzEyMzQAB0FuZHJvaWQ=": ("Sync", b"androidc1234".hex(), ""),
    "jAkJBAT77wC+BP////8CV1A=": ("FolderSync", "fbef00be", ""),
    "oQEMDAT/////BAEAAAACU1AHAQEIDUVYQU1QTEVcZXJpa2E=": (
        "SendMail",
        "ffffffff",
        "EXAMPLE\\erika",
    ),
}


@pytest.mark.parametrize(("query", "command"), COMPACT.items(), ids=list(COMPACT))
def test_compact_query(query: str, command: tuple[str, str, str]) -> None:
    """A query that is one base64 value holds command, device and user in binary."""
    assert read_query(query) == Command(*command)


@pytest.mark.parametrize(
    "query",
    [
        "Cmd=Ping&User=erika&DeviceId=a1&DeviceType=Phone",
        "User=erika&DeviceId=a1&DeviceType=Phone&Cmd=Ping",
    ],
)
def test_plain_query(query: str) -> None:
    """A query of pairs is read by name, in any order."""
    assert read_query(query) == Command("Ping", "a1", "erika")


def test_unknown_command_code() -> None:
    """A command code that is not known yet is no mistake."""
    assert read_query("jP8JBAFhAAFi") == Command("command 255", "61", "")


@pytest.mark.parametrize(
    "query",
    [
        "",
        "====",
        "jAAJBAp2MTQw",
        "A" * 4096,
        "jAkJBAT77wC%2BBP////8CV1A%3D",
        "a=b&c=%ff",
        "ä",
        "User=erika",
    ],
)
def test_odd_query(query: str) -> None:
    """What is neither form is None, and no exception."""
    assert read_query(query) is None
