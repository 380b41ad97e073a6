"""The compute-optimal frontier of a study, or of any table of runs, as a table and a picture.

    python analysis/frontier.py studies/quickstart
    python analysis/frontier.py studies/quickstart --num-examples 600 --budgets 3M,6M,20M
    python analysis/frontier.py runs.csv --factors params,tokens --data-size none --metric accuracy \
        --cost "2 * params * tokens"

x*(c; n) is the configuration of least predicted error that costs at most c, after finetuning on n examples.
A script to copy and edit: the maths is in vvlm_ray/scaling, the drawing in vvlm_ray/report.
"""

import argparse
import sys
from pathlib import Path

from vvlm_ray.errors import UserError
from vvlm_ray.units import PREFIXES

EPILOG = "Budgets are FLOPs per video: 2.4e12, 2.4T, 500G or 3M."


def main() -> int:
    options = arguments().parse_args()
    # Here, so that --help and mistakes in the options cost nothing.
    from dataclasses import replace

    from vvlm_ray.report.answer import better_forms, sentences, summary
    from vvlm_ray.report.figures import style
    from vvlm_ray.report.figures.frontier import draw_frontier
    from vvlm_ray.report.progress import shown
    from vvlm_ray.results.analysis import analyse, settings_of
    from vvlm_ray.results.source import open_source
    from vvlm_ray.results.tables import DEFAULT_FACTORS, Columns

    factors = tuple(options.factors.split(",")) if options.factors else DEFAULT_FACTORS
    columns = Columns(factors=factors, data_size=options.data_size, score=options.metric)
    source = open_source(options.records, columns, options.cost)
    if source.cost is None:
        raise UserError(f"{options.records}: say what a configuration of {', '.join(factors)} costs with --cost")
    settings = replace(settings_of(source.answer), form=options.form)
    with shown() as progress:
        budgets = [b / 1e12 for b in options.budgets] if options.budgets else None
        analysis = analyse(source, settings=settings, budgets=budgets, num_examples=options.num_examples,
                           progress=progress)  # fmt: skip
        doubts = better_forms(analysis, source.fits, progress=progress)
    print("\n".join([*summary(analysis), *doubts, "", *sentences(analysis)]))
    out = options.out or (source.path / "report" if source.is_folder else source.path.parent)
    name = "frontier" if source.is_folder else f"{source.name}-frontier"
    paths = style.save(draw_frontier(analysis), out, name)
    print(f"Pictures: {' and '.join(map(str, paths))}")
    return 0


def arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], epilog=EPILOG)
    parser.add_argument("records", type=Path, help="a study's folder, or a CSV or parquet file with one row per run")
    parser.add_argument("--num-examples", type=float, help="data size n (default: the study's, or the largest swept)")
    parser.add_argument("--budgets", type=budgets, help="budgets in FLOPs, comma-separated (default: the study's)")
    parser.add_argument("--metric", help="score column on 0..100 (default: avg)")
    parser.add_argument("--factors", help="factor columns (default: lm_params,num_frames,tokens_per_frame)")
    parser.add_argument("--data-size", help='column of the data size, or "none" (default: num_examples)')
    parser.add_argument("--cost", help="FLOPs of a configuration: arithmetic over the factors (default: Eq. 1)")
    parser.add_argument("--form", default="auto", help="auto, mult, add, add-interact-s, add-interact or best")
    parser.add_argument("--out", type=Path, help="folder for the pictures (default: the study's report/)")
    return parser


def budgets(text: str) -> list[float]:
    """'3M,2.4T' -> FLOPs."""
    sizes = {prefix: size for size, prefix in PREFIXES}
    values = []
    for part in text.split(","):
        number = part.strip().removesuffix("FLOPs").strip()
        size = sizes.get(number[-1:], 1.0)
        try:
            values.append(float(number.rstrip("".join(sizes))) * size)
        except ValueError:
            raise argparse.ArgumentTypeError(f"{part!r} is not a number of FLOPs such as 2.4e12, 2.4T or 3M") from None
    return values


if __name__ == "__main__":
    try:
        sys.exit(main())
    except UserError as problem:
        print(f"Error: {problem}", file=sys.stderr)
        sys.exit(2)
