"""The names of environment variables: those of fourstep, those that Kubernetes sets, and those that are misspelt."""

import difflib
import re
from collections.abc import Iterable
from typing import Any

PREFIX = "FOURSTEP_"
# Variables that Kubernetes sets in every pod for a Service whose name begins with "fourstep".
SERVICE_LINK = re.compile(PREFIX + r"(\w+_)?(SERVICE_(HOST|PORT(_\w+)?)|PORT_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)")


def is_service_link(name: str, value: Any) -> bool:
    """Whether Kubernetes set the variable; FOURSTEP_PORT is its address of a Service of that name, or a setting."""
    address = name.upper().endswith("_PORT") and isinstance(value, str) and "://" in value
    return address or SERVICE_LINK.fullmatch(name.upper()) is not None


def suggestion(name: str, known: Iterable[str]) -> str:
    """What is wrong with a variable that is none of `known`, and which of them may be meant."""
    close = difflib.get_close_matches(name.upper(), known, n=1)
    return f"unknown variable {name}" + (f": did you mean {close[0]}?" if close else "")
