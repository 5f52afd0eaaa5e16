"""The spread of the tests over xdist's workers: whole files as with `--dist loadfile`, and some files together."""

from collections import Counter

import pytest

# Files that share what takes long to start: `fourstep up`, and in the playground also a browser.
TOGETHER = {
    "training in processes of its own": ("tests/distill/training/test_run.py", "tests/distill/training/test_scale.py"),
    "playground": ("tests/playground/",),
    "fourstep up": (
        "tests/bundled/test_up.py",
        "tests/operations/test_logs.py",
        "tests/operations/test_real_prometheus.py",
    ),
}


def group(nodeid: str) -> str:
    """Name the group of tests that goes to one worker with this one."""
    names = (name for name, parts in TOGETHER.items() if nodeid.startswith(parts))
    return next(names, nodeid.partition("::")[0])


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Order groups by their number of slow tests, so that no long one is left when the others have finished."""
    for item in items:
        if "fourstep_up" in getattr(item, "fixturenames", ()) and group(item.nodeid) != "fourstep up":
            raise pytest.UsageError(f"{item.nodeid} uses `fourstep_up`: name its file in tests/distribution.py")
    slow = Counter(group(item.nodeid) for item in items if item.get_closest_marker("slow"))
    items.sort(key=lambda item: -slow[group(item.nodeid)])


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log):  # type: ignore[no-untyped-def]
    from xdist.scheduler import LoadFileScheduling

    class LoadGroupsInOrder(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return group(nodeid)

    config.option.loadscopereorder = False
    return LoadGroupsInOrder(config, log)
