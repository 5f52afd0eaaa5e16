"""Write docs/benchmarks.md: `python -m bench.comparison.page` (with --plots, also its plots)."""

import argparse

from bench.comparison.page.render import PAGE, page


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.comparison.page", description=__doc__)
    parser.add_argument("--plots", action="store_true", help="also docs/images/benchmarks-*.png")
    PAGE.write_text(page())
    if parser.parse_args().plots:
        from bench.comparison.page import plots

        plots.draw()


if __name__ == "__main__":
    main()
