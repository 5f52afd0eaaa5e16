import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.worker.device import gpu_taker
from worker.device.free_gpu import take_free_gpu
from worker.errors import StartFailedError


def taker(folder: Path, *gpus: str) -> subprocess.Popen[str]:
    """A process that takes a GPU, prints it, and holds it until its standard input ends."""
    command = [sys.executable, "-m", gpu_taker.__name__, str(folder), *gpus]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def taken(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def test_every_process_takes_another_gpu_and_gives_it_back_at_its_end_however_it_ends(tmp_path: Path) -> None:
    folder, gpus = tmp_path / "gpus", ["GPU-a", "MIG-GPU-b/1/0"]
    with taker(folder, *gpus) as first, taker(folder, *gpus) as second, taker(folder, *gpus) as third:
        answers = sorted(taken(each) for each in (first, second, third))
        assert answers == ["GPU-a", "MIG-GPU-b/1/0", "none"]
        for each in (first, second, third):
            each.kill()
    with taker(folder, *gpus) as again:
        assert taken(again) == "GPU-a"
        again.kill()


def test_a_forked_process_keeps_the_gpu(tmp_path: Path) -> None:
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:  # takes it, and dies before the process that it forked
        take_free_gpu(tmp_path, ["GPU-a"])
        if os.fork() == 0:
            os.close(writer)
            os.read(reader, 1)
        os._exit(0)
    os.waitpid(child, 0)
    with pytest.raises(StartFailedError, match="each of 1 GPUs has a worker already"):
        take_free_gpu(tmp_path, ["GPU-a"])
    os.close(writer)
    os.close(reader)


def test_a_worker_too_many_says_so_in_one_line(tmp_path: Path) -> None:
    with taker(tmp_path, "GPU-a") as first:
        assert taken(first) == "GPU-a"
        settings = {"FOURSTEP_GPU_LOCKS": str(tmp_path), "FOURSTEP_REDIS_URL": "redis://127.0.0.1:1/0"}
        environment = os.environ | settings | {"CUDA_VISIBLE_DEVICES": "GPU-a"}
        command = [sys.executable, "-m", "fourstep", "worker"]
        second = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        first.kill()
    line = "fourstep worker: FOURSTEP_GPU_LOCKS: each of 1 GPUs has a worker already"
    assert (second.returncode, second.stderr.splitlines()) == (2, [line])


def test_a_folder_that_cannot_be_written_is_an_error_that_names_the_setting(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StartFailedError, match="FOURSTEP_GPU_LOCKS"):
        take_free_gpu(tmp_path / "file", ["GPU-a"])
