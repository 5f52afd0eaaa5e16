"""Count the lines that a user writes: code alone, without blank lines, comments and docstrings."""

import ast
import io
import tokenize
from pathlib import Path

PEERS = Path(__file__).parent.parent / "peers"
APPS = {
    "fourstep": None,
    "FastAPI + lock": "fastapi_lock.py",
    "FastAPI + batching": "fastapi_batch.py",
    "LitServe": "lit_serve.py",
    "BentoML": "bento_ml.py",
    "Ray Serve": "ray_serve.py",
}


def lines_of_code(source: str) -> int:
    """Lines that hold a token of code; a docstring is none."""
    skipped = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER}
    held = set[int]()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type not in skipped:
            held.update(range(token.start[0], token.end[0] + 1))
    return len(held - _docstrings(ast.parse(source)))


def _docstrings(tree: ast.AST) -> set[int]:
    lines = set[int]()
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            first = node.body[0] if node.body else None
            if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and first.end_lineno:
                lines.update(range(first.lineno, first.end_lineno + 1))
    return lines


def counted() -> dict[str, int]:
    """Each app with the file that calls diffusers' pipeline; ours is a command."""
    drawing = lines_of_code((PEERS / "diffusers_pipeline.py").read_text())
    return {name: lines_of_code((PEERS / app).read_text()) + drawing if app else 0 for name, app in APPS.items()}
