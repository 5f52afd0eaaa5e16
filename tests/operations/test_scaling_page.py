"""The figures in docs/scaling.md are those that were measured."""

from bench import results_file
from bench.scaling import tables as scaling_tables


def test_the_page_holds_the_tables_of_the_results() -> None:
    page = scaling_tables.PAGE.read_text()
    assert scaling_tables.rendered(page, results_file.read("scaling")) == page


def test_the_simulation_is_within_15_percent_of_every_run_of_real_workers() -> None:
    runs = results_file.read("scaling")["validation"]
    assert {run["workers"] for run in runs} == {1, 2}
    for run in runs:
        for quantile in ("p50", "p99"):
            assert abs(run[f"simulated_{quantile}_ms"] / run[f"measured_{quantile}_ms"] - 1) <= 0.15, run
