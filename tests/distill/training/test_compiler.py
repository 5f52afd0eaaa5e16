import pytest
import torch
from torch._inductor import config

from distill.training import models


def test_a_machine_without_a_compiler_is_told_before_any_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(config.cpp, "cxx", ("/nonexistent/g++",))
    with pytest.raises(ValueError, match=r"compile: there is no C\+\+ compiler here; install g\+\+"):
        models._require_compiler(torch.device("cpu"))
    models._require_compiler(torch.device("meta"))
