"""Errors for the operator, each of one line."""

INSTALL = "install the extra: pip install '.[worker]' in a checkout"


class FolderRefusedError(ValueError):
    """A model that cannot be served; the message begins with the name of the field that does not fit."""


class StartFailedError(Exception):
    """The worker cannot start; the message is for the operator."""


class EngineEndedError(Exception):
    """The engine failed, or its process ended; the message says how."""


class DeviceLostError(Exception):
    """The accelerator fails whatever is asked of it, until the process has ended; the message says why."""
