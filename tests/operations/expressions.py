"""Every PromQL expression of the dashboards, the recording rules and the alerts."""

import json
import re
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[2]
DASHBOARDS = sorted((ROOT / "docker" / "grafana" / "dashboards").glob("*.json"))
NAME = re.compile(r"\b(?:fourstep[:_]\w+(?::\w+)?|process_\w+|up)\b(?![(=!])")
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
    """What `expression` reads."""
    return set(NAME.findall(re.sub(r"\{[^}]*\}", "", expression)))


def rules() -> list[dict[str, Any]]:
    return [rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]


def rule_expressions() -> dict[str, str]:
    """Recorded name or alert → expression."""
    return {rule.get("record") or rule["alert"]: rule["expr"] for rule in rules()}
