"""The compute-optimal frontier of a study, or of any table of runs, as a table or as JSON, and a picture of it.

    python analysis/frontier.py studies/quickstart
    python analysis/frontier.py records.csv --num-examples 5e5 --budgets 2,5,15 --json

A script to copy and edit: `vr.analyse` takes what `vvlm-ray frontier` takes, and gives the same answer.
"""

import argparse
import json
import sys
from pathlib import Path

import vvlm_ray as vr


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("records", type=Path, help="a study's folder, or a table with one row per run")
    parser.add_argument("--num-examples", type=float, help="data size n [the study's, else the largest in the records]")
    parser.add_argument("--budgets", help="in the cost's unit, TFLOPs as a rule, comma-separated [the study's]")
    parser.add_argument("--score", help="score column on 0..100 [avg]")
    parser.add_argument("--factors", help="factor columns [lm_params,num_frames,tokens_per_frame]")
    parser.add_argument("--data-size", help='column of the data size, or "none" [num_examples]')
    parser.add_argument("--cost", help="cost of a configuration: arithmetic over the factors [Eq. 1]")
    parser.add_argument("--form", default="auto", help="auto, mult, add, add-interact-s, add-interact or best")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--output", type=Path, help="folder for the picture; none is drawn without it")
    options = parser.parse_args()

    budgets = [float(part) for part in options.budgets.split(",")] if options.budgets else None
    answer = vr.analyse(options.records, score=options.score, data_size=options.data_size, form=options.form,
                        factors=options.factors.split(",") if options.factors else None,
                        budgets=budgets, num_examples=options.num_examples,
                        cost=vr.cost(options.cost) if options.cost else None)  # fmt: skip
    answer.runs.space.known_cost()  # without one there is no frontier, and this says what to do
    print(json.dumps(answer.to_json(), indent=2) if options.json else answer.text())
    if options.output:
        answer.draw(options.output)


if __name__ == "__main__":
    try:
        main()
    except ValueError as problem:  # UserError is one
        print(f"Error: {problem}", file=sys.stderr)
        sys.exit(2)
