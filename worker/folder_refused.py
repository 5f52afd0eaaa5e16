"""Why a model is not served."""


class FolderRefusedError(ValueError):
    """A model that cannot be served; the message begins with the name of the field that does not fit."""
