"""The version of this code."""

from importlib.metadata import PackageNotFoundError, version


def fourstep_version() -> str:
    """The installed version, or "0+source" when run from a checkout that is not installed."""
    try:
        return version("fourstep")
    except PackageNotFoundError:
        return "0+source"
