import contextlib
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from jobs.testing.waiting import SAFETY_NET_S

pytestmark = pytest.mark.slow


def fourstep(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "fourstep", *arguments],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=SAFETY_NET_S,
        check=False,
    )


@pytest.mark.parametrize("setting", ["FOURSTEP_PORT", "FOURSTEP_METRICS_PORT"])
def test_a_taken_port_is_refused_in_one_line_before_anything_starts(free_port: Callable[[], int], setting: str) -> None:
    ports = {"FOURSTEP_PORT": str(free_port()), "FOURSTEP_METRICS_PORT": str(free_port())}
    with socket.create_server(("127.0.0.1", int(ports[setting]))):
        result = fourstep("up", **ports)
    assert result.returncode == 1
    (line,) = result.stderr.splitlines()
    assert ports[setting] in line
    assert setting in line
    assert result.stdout == ""


def test_the_port_of_a_second_workers_metrics_must_be_free_too(free_port: Callable[[], int]) -> None:
    first = _free_port_below_a_free_one(free_port)
    with socket.create_server(("127.0.0.1", first + 1)):
        result = fourstep("up", "one", "two", FOURSTEP_PORT=str(free_port()), FOURSTEP_METRICS_PORT=str(first))
    assert result.returncode == 1
    assert f"port {first + 1} of" in result.stderr


@pytest.mark.parametrize("setting", ["PORT", "API_METRICS_PORT"])
def test_the_metrics_of_no_worker_are_on_a_port_of_the_api(free_port: Callable[[], int], setting: str) -> None:
    first = _free_port_below_a_free_one(free_port)
    ports = {"FOURSTEP_PORT": str(free_port()), f"FOURSTEP_{setting}": str(first + 1)}
    result = fourstep("up", "one", "two", **ports, FOURSTEP_METRICS_PORT=str(first))
    assert result.returncode == 1
    (line,) = result.stderr.splitlines()
    assert f"{first + 1} is a port of the API" in line


def test_there_are_as_many_ports_of_metrics_as_workers(free_port: Callable[[], int]) -> None:
    result = fourstep("up", "one", "two", FOURSTEP_PORT=str(free_port()), FOURSTEP_METRICS_PORT="65535")
    assert result.returncode == 1
    (line,) = result.stderr.splitlines()
    assert "there is no port 65536" in line


def _free_port_below_a_free_one(free_port: Callable[[], int]) -> int:
    while True:
        first = free_port()
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", first + 1)):
            return first


def test_two_models_of_one_name_are_refused(tmp_path: Path) -> None:
    folders = [tmp_path / whose / "emoji" for whose in ("mine", "yours")]
    for folder in folders:
        folder.mkdir(parents=True)
    result = fourstep("up", *map(str, folders))
    assert result.returncode == 1
    assert "two models would be served under one name" in result.stderr


def test_another_default_model_than_the_first_is_refused() -> None:
    result = fourstep("up", "student", "teacher", FOURSTEP_DEFAULT_MODEL="teacher")
    assert result.returncode == 1
    assert "FOURSTEP_DEFAULT_MODEL is teacher, but the first model is student" in result.stderr


def test_a_misspelt_setting_is_refused_with_a_suggestion() -> None:
    result = fourstep("up", FOURSTEP_PROT="9000")
    assert result.returncode == 1
    assert result.stderr.splitlines() == ["fourstep: unknown variable FOURSTEP_PROT: did you mean FOURSTEP_PORT?"]


def test_help_imports_no_torch() -> None:
    code = (
        "import sys, fourstep; from typer.testing import CliRunner; "
        "result = CliRunner().invoke(fourstep.app, ['--help']); assert result.exit_code == 0, result.output; "
        "print('torch' in sys.modules, all(name in result.output for name in ('up', 'api', 'worker', 'generate')))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.split() == ["False", "True"]


def test_generate_without_a_server_fails_in_one_line(free_port: Callable[[], int]) -> None:
    result = fourstep("generate", "a cat", "--server", f"http://127.0.0.1:{free_port()}")
    assert result.returncode == 1
    assert "no answer from" in result.stderr
    assert "`fourstep up` starts a server" in result.stderr
    assert "Traceback" not in result.stderr


def test_a_redis_that_does_not_answer_is_refused_in_one_line(free_port: Callable[[], int]) -> None:
    nowhere = f"redis://:secret@127.0.0.1:{free_port()}"
    result = fourstep("up", FOURSTEP_REDIS_URL=nowhere, FOURSTEP_PORT=str(free_port()), FOURSTEP_METRICS_PORT="0")
    assert result.returncode == 1
    (line,) = result.stderr.splitlines()
    assert "FOURSTEP_REDIS_URL: no Redis answers there" in line
    assert "leave the variable unset" in line
    assert "secret" not in line
