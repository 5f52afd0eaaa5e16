"""Every PromQL expression of the dashboards, the recording rules and the alerts."""

import json
import re
from pathlib import Path
from typing import Any

import promql_parser
import yaml
from prometheus_client import CollectorRegistry

from jobs.metrics import ApiMetrics, WorkerMetrics

ROOT = Path(__file__).resolve().parents[2]
DASHBOARDS = sorted((ROOT / "docker" / "grafana" / "dashboards").glob("*.json"))
NAME = re.compile(r"\b(?:fourstep[:_]\w+(?::\w+)?|process_\w+|up)\b(?![(=!])")
COMPARISONS_AND_SETS = {"==", "!=", ">", "<", ">=", "<=", "and", "or", "unless"}
RULES = ROOT / "docker" / "prometheus" / "rules.yml"


def dashboard(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text())


def panel_expressions() -> dict[str, str]:
    """Dashboard and panel → expression, with Grafana's own variable filled in."""
    return {
        f"{path.stem}: {panel['title']} {target['refId']}": target["expr"].replace("$__rate_interval", "1m")
        for path in DASHBOARDS
        for panel in dashboard(path)["panels"]
        for target in panel["targets"]
    }


def metric_names(expression: str) -> set[str]:
    """Return the names of the metrics that `expression` reads."""
    return set(NAME.findall(re.sub(r"\{[^}]*\}", "", expression)))


def rules() -> list[dict[str, Any]]:
    return [rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]


def rule_expressions() -> dict[str, str]:
    """Recorded name or alert → expression."""
    return {rule.get("record") or rule["alert"]: rule["expr"] for rule in rules()}


def series_read(rule: dict[str, Any]) -> list[str]:
    """The expressions of a rule that have data while all is well; for an alert, the two sides of its comparison."""
    return [rule["expr"]] if "record" in rule else _compared(promql_parser.parse(rule["expr"]))


def _compared(node: promql_parser.Expr) -> list[str]:
    if isinstance(node, promql_parser.ParenExpr):
        return _compared(node.expr)
    if isinstance(node, promql_parser.BinaryExpr) and str(node.op) in COMPARISONS_AND_SETS:
        return _compared(node.lhs) + _compared(node.rhs)
    if isinstance(node, promql_parser.Call) and node.func.name == "absent":
        return []
    expression = node.prettify()
    return [expression] if metric_names(expression) else []


def exposed_names() -> set[str]:
    """The names of all series of the API and the worker."""
    registries = CollectorRegistry(), CollectorRegistry()
    ApiMetrics(registries[0])
    WorkerMetrics(registries[1])
    suffixes = {
        "counter": ("_total",),
        "gauge": ("",),
        "info": ("_info",),
        "histogram": ("_bucket", "_sum", "_count"),
    }
    families = [family for registry in registries for family in registry.collect()]
    return {family.name + suffix for family in families for suffix in suffixes[family.type]}
