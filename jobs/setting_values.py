"""Names and values of settings, as environment variables hold them.

A function that reads a list returns anything but a string as it is, and raises ValueError with the form to write.
"""

import base64
import difflib
import re
from collections.abc import Collection, Mapping
from typing import Any

# Variables that Kubernetes sets in every pod for a Service whose name begins with "fourstep".
SERVICE_LINK = re.compile(r"FOURSTEP_(\w+_)?(SERVICE_(HOST|PORT(_\w+)?)|PORT_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)")


def parts(value: Any) -> Any:
    """Read A,B,C."""
    return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value


def names_of_models(value: Any) -> Any:
    """Read NAME=MODEL,NAME=MODEL."""
    if not isinstance(value, str):
        return value
    pairs = [tuple(side.strip() for side in pair.split("=")) for pair in parts(value)]
    if not all(len(pair) == 2 and all(pair) for pair in pairs):
        raise ValueError("write NAME=MODEL, separated by commas")
    return pairs


def addresses_of_keys(value: Any) -> Any:
    """Read KEY=URL,KEY=URL; a key may hold equals signs."""
    if not isinstance(value, str):
        return value
    pairs = [re.fullmatch("(.+?) *= *(https?://.+)", pair) for pair in parts(value)]
    if None in pairs:
        raise ValueError("write KEY=URL, separated by commas")
    return [pair.groups() for pair in pairs if pair]


def sizes(value: Any) -> Any:
    """Read WIDTHxHEIGHT,WIDTHxHEIGHT as (height, width) of each, as everywhere behind the front end."""
    if not isinstance(value, str):
        return value
    found = [re.fullmatch(r"([1-9]\d{0,4})x([1-9]\d{0,4})", part) for part in parts(value)]
    read = [(int(match[2]), int(match[1])) for match in found if match]
    if len(read) < len(found) or len(set(read)) < len(read):
        raise ValueError("write different WIDTHxHEIGHT, separated by commas")
    return read


def is_webhook_secret(secret: str) -> bool:
    """Return whether it has the form of the Standard Webhooks specification."""
    prefix, _, encoded = secret.partition("_")
    try:
        return prefix == "whsec" and 24 <= len(base64.b64decode(encoded, validate=True)) <= 64
    except ValueError:
        return False


def is_service_link(name: str, value: Any) -> bool:
    """Return whether Kubernetes set the variable; FOURSTEP_PORT is the address of a Service, or a setting."""
    address = name.upper().endswith("_PORT") and isinstance(value, str) and "://" in value
    return address or SERVICE_LINK.fullmatch(name.upper()) is not None


def check_names(environment: Mapping[str, str], prefix: str, known: Collection[str]) -> None:
    """Raise ValueError for variables with the `prefix` that are not `known`, nor set by Kubernetes."""
    given = sorted(name for name in environment if name.upper().startswith(prefix) and name.upper() not in known)
    unknown = [name for name in given if not is_service_link(name, environment[name])]
    if unknown:
        raise ValueError("; ".join(_suggestion(name, known) for name in unknown))


def _suggestion(name: str, known: Collection[str]) -> str:
    """Say that there is no variable `name`, and which of the `known` ones was probably meant."""
    close = difflib.get_close_matches(name.upper(), known, n=1)
    return f"unknown variable {name}" + (f": did you mean {close[0]}?" if close else "")
