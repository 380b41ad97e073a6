"""`vvlm-ray validate`: fit some of the runs, predict others that lie beyond them."""

import click

from vvlm_ray.commands import options as common
from vvlm_ray.commands.errors import Command


@click.command(cls=Command)
@common.reads_records
@common.fits
@common.chooses
@click.option("--by", help="cost, num_examples, a factor or rolling, comma-separated [all that vary].")
@common.prints
def validate(*, as_json, by, **options):
    """How well runs are predicted that lie beyond those fitted: dearer ones, more examples, larger factors.

    "rolling" fits all runs below a cost and predicts the next quarter, three times.
    """
    from vvlm_ray.commands.compare import scores_as_json
    from vvlm_ray.commands.printing import print_table
    from vvlm_ray.errors import UserError
    from vvlm_ray.results.analysis import usable
    from vvlm_ray.results.source import read_runs
    from vvlm_ray.scaling.forms import AUTO, FORM_NAMES
    from vvlm_ray.scaling.validation import splits, validate

    with common.opened(options) as source:
        observed = read_runs(source, source.scores()[0])
        settings = common.settings_of(source, options)
    wanted = settings.form if settings.form in {AUTO, *FORM_NAMES} else AUTO
    runs, _, form, said = usable(observed.runs, FORM_NAMES[-1] if wanted == AUTO else wanted)
    notes = [*observed.notes, *(note for note in said if wanted != AUTO or "too few" not in note)]
    if by is None:
        kinds = [*(["cost", "rolling"] if runs.space.cost else []), *runs.factors]
        kinds += ["num_examples"] if runs.num_examples is not None else []
    else:
        kinds = [kind.strip() for kind in by.split(",") if kind.strip()]
    parts = []
    for kind in kinds:
        try:
            parts += splits(runs, kind)
        except UserError as problem:
            if by is not None:
                raise
            notes.append(str(problem))
    fit = common.fit_of(settings, AUTO if wanted == AUTO else form)
    found = validate(runs, parts, fit, resamples=settings.resamples, map=common.map_of(options["ray_address"]))
    if as_json:
        result = {name: {"impossible": s} if isinstance(s, str) else scores_as_json(s) for name, s in found.items()}
        common.print_json({"form": fit.form, "splits": result, "notes": notes})
        return
    rows = [
        [name, "-", "-", "-", "-", scores]
        if isinstance(scores, str)
        else [
            name,
            str(len(scores.observed)),
            f"{scores.mse**0.5:.3g}",
            f"{scores.r2:.3f}",
            f"{scores.coverage:.0%}",
            "",
        ]
        for name, scores in found.items()
    ]
    columns = ["fitted -> predicted", "runs", "root mean square error", "R^2", "in their 90 % bands", ""]
    rows = [[str(cell) for cell in row] for row in rows]
    print_table(f"{fit.form}: runs beyond those that were fitted", columns, rows, text=("fitted -> predicted", ""))
    common.print_notes(notes)
