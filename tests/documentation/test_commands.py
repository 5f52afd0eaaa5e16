"""Targets, commands with their options, modules, files and links that the pages name exist."""

import importlib.util
import itertools
import re
import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

from fourstep import app
from tests.documentation.pages import PAGES, ROOT

NAMES = [str(page.relative_to(ROOT)) for page in PAGES]
TARGETS = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), flags=re.M))


def commands(page: Path) -> list[list[str]]:
    """The words of every line of the page's console blocks, and of each command quoted in a sentence."""
    text = page.read_text()
    blocks = re.findall(r"```console\n(.*?)```", text, flags=re.S)
    lines = [line.removeprefix("$ ") for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    prose = re.sub(r"```.*?```", "", text, flags=re.S).replace("\n", " ")
    quoted = re.findall(r"`((?:make|fourstep|python) [^`…]+)`", prose)
    return [words for line in [*lines, *quoted] if (words := _words(line))]


def _words(line: str) -> list[str]:
    """Up to a comment, a redirection or the next command; none of a line that is not a command on its own."""
    try:
        words = shlex.split(line, comments=True)
    except ValueError:
        return []
    ends = [index for index, word in enumerate(words) if word in (">", "<", "|", "&&")]
    return words[: ends[0]] if ends else words


def check_make(words: list[str]) -> None:
    asked = {word for word in words if "=" not in word}
    assert asked <= TARGETS, f"no such target: {asked - TARGETS}"


def check_fourstep(words: list[str]) -> None:
    """The options of the command are all known to it; its arguments are not looked at."""
    command = get_command(app)
    while words and (parts := getattr(command, "commands", None)):
        name, *words = words
        assert name.split("|")[0] in parts, f"fourstep has no command {name}"
        command = parts[name.split("|")[0]]
    known = {"--help"} | {name for option in command.params for name in (*option.opts, *option.secondary_opts)}
    asked = {word.split("=")[0] for word in words if re.match(r"--?[a-z]", word)}
    assert asked <= known, f"{command.name} has no {asked - known}"


def check_python(words: list[str]) -> None:
    if words[0] == "-m":
        assert importlib.util.find_spec(words[1]), f"no module {words[1]}"
    else:
        assert (ROOT / words[0]).is_file(), f"no file {words[0]}"


def anchors(page: Path) -> set[str]:
    """The anchors that GitHub and the site give to the page's headings, and those that it sets itself."""
    text = page.read_text()
    headings = re.findall(r"^#+ (.+)$", re.sub(r"```.*?```", "", text, flags=re.S), flags=re.MULTILINE)
    plain = [re.sub(r"[^\w\- ]", "", heading.lower()) for heading in headings]
    return {heading.strip().replace(" ", "-") for heading in plain} | set(re.findall(r'<a id="([^"]+)"', text))


CHECKS = {"make": check_make, "fourstep": check_fourstep, "python": check_python}


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_every_command_can_be_typed(page: Path) -> None:
    for program, *words in commands(page):
        if check := CHECKS.get(Path(program).name):
            check(words)


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_every_link_within_the_repository_leads_somewhere(page: Path) -> None:
    for target, anchor in re.findall(r"\]\(([^)#\s]*)#?([^)\s]*)\)", page.read_text()):
        if "://" not in target:
            file = page.parent / target if target else page
            assert file.exists(), target
            assert not anchor or anchor in anchors(file), f"{target}#{anchor}"


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_every_file_that_is_named_is_there(page: Path) -> None:
    folders = "|".join(path.name for path in ROOT.iterdir() if path.is_dir() and path.name[0] != ".")
    named = re.findall(rf"`((?:{folders})/[\w./-]+\.(?:py|lua|js|json|yaml|md))`", page.read_text())
    # What commands write while they run is not in the repository.
    assert [path for path in named if not (ROOT / path).is_file() and not path.startswith("build/")] == []


def test_every_command_is_explained_in_sentences_with_an_example() -> None:
    wrong = []

    def visit(name: str, command: Any) -> None:
        parts = getattr(command, "commands", {})
        for part, below in parts.items():
            visit(f"{name} {part}", below)
        texts = {"": command.help, **{parameter.name: getattr(parameter, "help", "") for parameter in command.params}}
        sentences = {
            part: text.partition("\n")[0] for part, text in texts.items() if part != "help" and text is not None
        }
        wrong.extend(f"{name} {part}: {text}" for part, text in sentences.items() if not re.match(r"[A-Z].*\.$", text))
        if not parts and "Example: `" not in command.help:
            wrong.append(f"{name} has no example")

    visit("fourstep", get_command(app))
    assert wrong == []


def test_the_checks_find_what_is_wrong() -> None:
    for check, words in (
        (check_make, ["serv"]),
        (check_fourstep, ["distill", "trian"]),
        (check_fourstep, ["up", "--no-such-option"]),
        (check_python, ["-m", "bench.nothing"]),
    ):
        with pytest.raises(AssertionError):
            check(words)
    assert sum(len(commands(page)) for page in PAGES) > 50


OUTPUTS = {"-o", "--out", "--run", "--work"}


def test_git_ignores_what_the_commands_write() -> None:
    written = set()
    for page in PAGES:
        for words in commands(page):
            written |= {value for option, value in itertools.pairwise(words) if option in OUTPUTS}
    assert {"cat.png", "out/", "five-updates", "models/sdxl-turbo"} <= written
    own = sorted(path for path in written if not path.startswith(("/", "..", "models/emoji-")))
    # A slash: the rules for folders are to hold for those that are not there yet.
    paths = [path if Path(path).suffix else f"{path.rstrip('/')}/" for path in own]
    told = subprocess.run(["git", "check-ignore", *paths], cwd=ROOT, capture_output=True, text=True, check=False)
    assert sorted(set(paths) - set(told.stdout.splitlines())) == []
