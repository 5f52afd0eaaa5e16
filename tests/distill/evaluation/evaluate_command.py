"""`fourstep evaluate …`, in a process with all imports done."""

import distill.evaluation_run  # noqa: F401
import fourstep


def main(*arguments: str) -> None:
    fourstep.app(["evaluate", *arguments])
