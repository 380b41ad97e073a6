"""The command next: the runs that are worth making now, given those that were made."""

import json
from pathlib import Path

import click

from vvlm_ray.commands.errors import Command
from vvlm_ray.commands.printing import print_table


@click.command(cls=Command)
@click.argument("records", type=click.Path(path_type=Path))
@click.option("--gpu-hours", type=click.FloatRange(min=0, min_open=True), help="GPU-hours that may be spent")
@click.option("--runs", "most", type=click.IntRange(min=1), help="most runs to propose [10]")
@click.option("--budgets", help="inference budgets that matter, comma-separated [the file's answer, else eight swept]")
@click.option("--num-examples", help="data sizes that matter, comma-separated [the largest in the records]")
@click.option("--sizes", help="data sizes that runs may have, comma-separated [those in the records]")
@click.option("--throughput", type=click.FloatRange(min=0, min_open=True), default=125.0, show_default=True,
              help="training TFLOP/s of one GPU; an A100 at 40 % by default")  # fmt: skip
@click.option("--epochs", type=click.FloatRange(min=0, min_open=True), default=1.0, show_default=True)
@click.option("--score", help="column with the score on 0..100 [avg]")
@click.option("--error", "error_column", help="column taken as the error itself")
@click.option("--factors", help="factor columns, comma-separated [lm_params,num_frames,tokens_per_frame]")
@click.option("--data-size", help='column of the data size, or "none" [num_examples]')
@click.option("--cost", "cost_text", help="FLOPs of a configuration as arithmetic over the factors [Eq. 1]")
@click.option("--seed", default=0, show_default=True)
@click.option("--json", "as_json", is_flag=True, help="print JSON")
def next(*, records, gpu_hours, most, budgets, num_examples, sizes, throughput, epochs, score, error_column, factors,
         data_size, cost_text, seed, as_json) -> None:  # fmt: skip
    """The runs worth making next: the most expected regret saved per GPU-hour, one after another.

    RECORDS is a study's folder, a CSV or a parquet file. Only training counts as GPU-hours.
    """
    import numpy as np

    from vvlm_ray.designs.next import next_runs
    from vvlm_ray.errors import UserError
    from vvlm_ray.report import words
    from vvlm_ray.results.analysis import usable
    from vvlm_ray.results.columns import DEFAULT_FACTORS, Columns
    from vvlm_ray.results.source import Choice, open_source, read_runs
    from vvlm_ray.scaling.cost import training_flops
    from vvlm_ray.scaling.forms import FORM_NAMES
    from vvlm_ray.scaling.posterior import fit_posterior
    from vvlm_ray.scaling.value import Question, expected_regret

    names = tuple(name.strip() for name in factors.split(",") if name.strip()) if factors else DEFAULT_FACTORS
    choice = Choice(expression=cost_text, unit="FLOPs" if cost_text else None)
    source = open_source(records, Columns(names, data_size, score, error_column), choice)
    observed = read_runs(source, score or error_column or source.scores()[0])
    runs, fixed, _, notes = usable(observed.runs, FORM_NAMES[-1])
    notes = [note for note in (*observed.notes, *notes) if "too few" not in note]
    if runs.space.known_cost().budget_unit != "TFLOPs":
        raise UserError("GPU-hours follow from FLOPs, and the cost of these records is in another unit: give --cost")
    posterior = fit_posterior(runs, seed=seed)
    wanted = _numbers(budgets, "--budgets") if budgets else None
    if wanted is None:
        swept = runs.cost / runs.space.known_cost().scale
        least = max(swept.min(), runs.space.grid().cost[0] / runs.space.known_cost().scale)
        wanted = np.array(source.answer.tflops) if source.answer else np.geomspace(least, swept.max(), 8)
    largest = None if runs.num_examples is None else np.array([runs.num_examples.max()])
    matter = _numbers(num_examples, "--num-examples") if num_examples else largest
    question = Question(wanted, matter if runs.num_examples is not None else None)

    def prices(x, n):
        held = float(observed.runs.num_examples[0]) if n is None and observed.runs.num_examples is not None else n
        if held is None:
            raise UserError("without a data size a run has no price: name its column with --data-size")
        flops = training_flops(runs.space.known_cost()(**x), held, epochs)
        return flops / (throughput * 1e12) / 3600

    found = next_runs(posterior, question, prices, sizes=_numbers(sizes, "--sizes") if sizes else None,
                      budget=gpu_hours, most=most or 10)  # fmt: skip
    regret = expected_regret(posterior, question)
    rows = [
        fixed | run.factors | {"num_examples": run.num_examples, "worth": run.worth, "gpu_hours": run.price}
        for run in found
    ]
    if as_json:
        click.echo(json.dumps({"expected_regret": regret, "runs": rows, "notes": notes}, indent=2))
        return
    if not found:
        click.echo(f"No run within these GPU-hours is expected to change an answer (expected regret {regret:.3f}).")
    else:
        cells = [
            [*(words.count(row[name]) for name in (*fixed, *runs.factors)), words.count(row["num_examples"] or 0),
             f"{row['gpu_hours']:.3g}", f"{row['worth']:.4f}"]
            for row in rows
        ]  # fmt: skip
        header = [*fixed, *runs.factors, "num_examples", "GPU-hours", "worth, points"]
        print_table(f"Runs worth making; expected regret now {regret:.3f} points", header, cells)
        click.echo(
            f"Together {sum(run.price for run in found):.3g} GPU-hours at {throughput:g} TFLOP/s, training alone."
        )
    for note in notes:
        click.echo(f"Note: {note}.", err=True)


def _numbers(text: str, flag: str):
    import numpy as np

    from vvlm_ray.errors import UserError

    try:
        values = np.array([float(part) for part in text.split(",")])
    except ValueError:
        raise UserError(f"{flag} {text}: write numbers as 1,2,5") from None
    if not (np.isfinite(values) & (values > 0)).all():
        raise UserError(f"{flag} {text}: the numbers must be positive")
    return values
