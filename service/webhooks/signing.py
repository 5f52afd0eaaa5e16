"""The secret that a caller's webhooks are signed by: each API key has its own, so that none can forge another's."""

import base64
import hashlib
import hmac

from pydantic import SecretStr

PREFIX = "whsec_"


def signing_secret(server_secret: SecretStr, caller: str) -> str:
    """The secret of `caller`, the hash of an API key, in the form of the Standard Webhooks specification.

    It is derived from the server's own, so that it stands nowhere.
    """
    own = base64.b64decode(server_secret.get_secret_value().removeprefix(PREFIX))
    derived = hmac.digest(own, f"fourstep webhooks of {caller}".encode(), hashlib.sha256)
    return PREFIX + base64.b64encode(derived).decode()
