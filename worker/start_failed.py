"""Why a worker process cannot start."""


class StartFailedError(Exception):
    """The worker cannot start; the message is one line for the operator."""
