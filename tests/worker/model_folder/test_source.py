from pathlib import Path

import pytest

from worker.errors import FolderRefusedError
from worker.model_folder.source import check_source


@pytest.mark.parametrize(
    ("asked", "answer"),
    [
        ("emoji-student", "did you mean models/emoji-student?"),
        ("./my-studnet", "did you mean my-student?"),
        ("something", r"hub id \(owner/name\)$"),
    ],
)
def test_the_folder_that_was_meant_is_named(
    asked: str, answer: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("models/emoji-student", "my-student"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "model_index.json").touch()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FolderRefusedError, match=answer):
        check_source(asked)
