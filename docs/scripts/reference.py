"""Write docs/settings.md, docs/metrics.md and docs/cli.md from the code: `python -m docs.scripts.reference`."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry
from typer.main import get_command

from bench.markdown import table
from fourstep import app
from jobs.metrics import ApiMetrics, WorkerMetrics
from jobs.settings import BUNDLED_MODEL, PREFIX, ApiSettings, Settings, WorkerSettings

DOCS = Path(__file__).parents[1]
MADE = "<!-- made by python -m docs.scripts.reference -->\n\n"

ABOUT_SETTINGS = f"""# Settings

{MADE}Every setting is an environment variable with the prefix `FOURSTEP_`. An unknown variable is an error, which
suggests the name that was probably meant. A variable may also be a file in `/run/secrets`, named like the variable in
small letters. Lists are separated by commas. `.env.example` holds all variables for compose, and
[what each setting trades](operations.md#what-each-setting-trades) says when to change one.
"""
ABOUT_METRICS = f"""# Metrics

{MADE}Metrics are Prometheus'. [Monitoring](monitoring.md) says where they are scraped and which alerts use them.
"""
ABOUT_CLI = f"""# Command line

{MADE}The option `--help` of each command prints the same. [Settings](settings.md) are environment variables.
"""


def settings() -> str:
    """The page of settings: those of every process, then those of the API and of the worker."""
    parts = [ABOUT_SETTINGS]
    for title, kind, known in (
        ("API and worker", Settings, set()),
        ("API", ApiSettings, set(Settings.model_fields)),
        ("Worker", WorkerSettings, set(Settings.model_fields)),
    ):
        schema = kind.model_json_schema()["properties"]
        names = [name for name in kind.model_fields if name not in known]
        rows = [
            [f"`{PREFIX}{name.upper()}`", _default(schema[name]), _values(schema[name]), schema[name]["description"]]
            for name in names
        ]
        parts.append(f"\n## {title}\n\n" + table(["variable", "default", "values", "meaning"], rows) + "\n")
    return "".join(parts)


def _default(field: dict[str, Any]) -> str:
    value = field.get("default")
    if value in (None, [], ""):
        return ""
    if value == str(BUNDLED_MODEL):
        return "the bundled student"
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


def _values(field: dict[str, Any]) -> str:
    """The values that a field takes: names, or a kind with its limits."""
    kinds = [kind for kind in field.get("anyOf", [field]) if kind.get("type") != "null"]
    return ", ".join(filter(None, map(_one_kind, kinds)))


def _one_kind(kind: dict[str, Any]) -> str:
    if names := kind.get("enum", [kind["const"]] if "const" in kind else []):
        return ", ".join(f"`{name}`" for name in names)
    if kind.get("type") == "boolean":
        return "`true`, `false`"
    if kind.get("type") not in ("integer", "number"):
        return {"array": "list", "string": "path" if kind.get("format") == "path" else "text"}.get(kind["type"], "")
    bounds = {"minimum": "from {}", "exclusiveMinimum": "above {}", "maximum": "to {}"}
    limits = [bounds[name].format(kind[name]) for name in bounds if name in kind]
    return " ".join([kind["type"], *limits])


def metrics() -> str:
    """The page of metrics: name, kind, labels and help of each, by process."""
    parts = [ABOUT_METRICS]
    for title, kind in (("API", ApiMetrics), ("Worker", WorkerMetrics)):
        registry = CollectorRegistry()
        found = vars(kind(registry)).values()
        rows = []
        for metric in found:
            (family,) = metric.describe()
            name = family.name + {"counter": "_total", "info": "_info"}.get(family.type, "")
            labels = ", ".join(f"`{label}`" for label in metric._labelnames)
            rows.append([f"`{name}`", family.type, labels, family.documentation])
        parts.append(f"\n## {title}\n\n" + table(["metric", "kind", "labels", "meaning"], rows) + "\n")
    return "".join(parts)


def cli() -> str:
    """The page of commands: each with its help, its arguments and its options."""
    return ABOUT_CLI + "".join(_command(["fourstep"], get_command(app)))


def _command(names: list[str], command: Any) -> Iterator[str]:
    parts = getattr(command, "commands", {})
    for name, part in parts.items():
        yield from _command([*names, name], part)
    if not parts:
        yield f"\n## {' '.join(names)}\n\n{command.help}\n"
        if rows := [_parameter(parameter) for parameter in command.params if not parameter.hidden]:
            yield "\n" + table(["parameter", "default", "meaning"], rows) + "\n"


def _parameter(parameter: Any) -> list[str]:
    if parameter.param_type_name == "argument":
        name = parameter.metavar or parameter.opts[0].upper()
    else:
        name = ", ".join([*parameter.opts, *parameter.secondary_opts])
    shown = parameter.show_default if isinstance(parameter.show_default, str) else parameter.default
    unset = shown in (None, False, []) or callable(shown)
    default = "required" if parameter.required else "" if unset else f"`{getattr(shown, 'value', shown)}`"
    return [f"`{name}`", default, (parameter.help or "").replace("|", "\\|")]


PAGES = {"settings.md": settings, "metrics.md": metrics, "cli.md": cli}

if __name__ == "__main__":
    for name, render in PAGES.items():
        (DOCS / name).write_text(render())
