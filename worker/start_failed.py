"""Why a worker process cannot start."""


class StartFailed(Exception):
    """The worker cannot start; the message is one line for the operator."""
