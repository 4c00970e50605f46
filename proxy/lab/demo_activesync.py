"""What a demo member understands of an ActiveSync request: its query, in both forms.

Only enough to answer like a groupware server: which command came, from which device and user.
Reads as Z-Push does, and never raises: what can't be read is None.
"""

import base64
import binascii
from typing import NamedTuple
from urllib.parse import parse_qs

PATH = "/Microsoft-Server-ActiveSync"
HEADERS = {
    "MS-Server-ActiveSync": "14.0",
    "MS-ASProtocolVersions": "2.5,12.0,12.1,14.0",
    "MS-ASProtocolCommands": "Sync,SendMail,SmartForward,SmartReply,GetAttachment,FolderSync,"
    "FolderCreate,FolderDelete,FolderUpdate,MoveItems,GetItemEstimate,MeetingResponse,Search,"
    "Settings,Ping,ItemOperations,Provision,ResolveRecipients,ValidateCert",
}

# Command codes of the compact form (MS-ASHTTP section 2.2.1.1.1.1.2).
_COMMANDS = {
    **dict(enumerate(("Sync", "SendMail", "SmartForward", "SmartReply", "GetAttachment"))),
    **dict(enumerate(("FolderSync", "FolderCreate", "FolderDelete", "FolderUpdate"), start=9)),
    **dict(enumerate(("MoveItems", "GetItemEstimate", "MeetingResponse", "Search"), start=13)),
    **dict(enumerate(("Settings", "Ping", "ItemOperations", "Provision"), start=17)),
    **dict(enumerate(("ResolveRecipients", "ValidateCert"), start=21)),
}
_USER_TAG = 8


class Command(NamedTuple):
    """One ActiveSync command: its name, and whom it is from as far as the query says."""

    name: str
    device: str
    user: str


def read_query(query: str) -> Command | None:
    """The command in a raw query string, plain or compact; None if it is neither."""
    plain = parse_qs(query, keep_blank_values=True, encoding="utf-8", errors="replace")
    if "Cmd" in plain:
        return Command(plain["Cmd"][0], plain.get("DeviceId", [""])[0], plain.get("User", [""])[0])
    try:
        # As it came: Z-Push takes neither %3D for = nor a value without its padding.
        return _read_compact(base64.b64decode(query, validate=True))
    except (binascii.Error, ValueError, IndexError):
        return None


def _read_compact(data: bytes) -> Command:
    """Version, command, locale, then values with their lengths; IndexError if it is cut short."""
    position = 4
    values = []
    for _ in ("device", "policy key", "device type"):
        value, position = _counted(data, position)
        values.append(value)
    user = ""
    while position < len(data):
        tag = data[position]
        value, position = _counted(data, position + 1)
        if tag == _USER_TAG:
            user = value.decode("utf-8", "replace")
    name = _COMMANDS.get(data[1], f"command {data[1]}")
    return Command(name, values[0].hex(), user)


def _counted(data: bytes, position: int) -> tuple[bytes, int]:
    """A value behind its one-byte length, and where it ends."""
    end = position + 1 + data[position]
    if end > len(data):
        raise IndexError("value cut short")
    return data[position + 1 : end], end
