"""The options that name the columns of a table of results: the same in every command that reads one."""

import re

import click

from vvlm_ray.errors import UserError


def reads_a_table(command):
    """Options for `columns_of`."""
    for option in reversed(
        (
            click.option("--factors", help="Factor columns, comma-separated [lm_params,num_frames,tokens_per_frame]."),
            click.option("--data-size", help='Column of the data size, or "none" [num_examples].'),
            click.option("--score", help="Column with the score on 0..100, the error is 100 - score [avg]; "
                                         "a,b,c: the mean of several."),
            click.option("--error", "error_column", help="Column taken as the error itself."),
            click.option("--map", "map_texts", multiple=True, metavar="OURS=THEIRS",
                         help="What a column is called in the file, e.g. num_frames=frames; may be repeated."),
            click.option("--unit", "unit_texts", multiple=True, metavar="COLUMN=SIZE",
                         help="What one unit of a column is, e.g. lm_params=1e9; may be repeated."),
            click.option("--where", "where_texts", multiple=True, metavar="COLUMN=VALUE",
                         help="Rows to keep (COLUMN!=VALUE: to leave out); repeated for one column: any of them."),
            click.option("--questions", "num_questions", type=int,
                         help="Questions behind a score; a perfect one gets half a question as its error [1000]."),
            click.option("--max-missing", type=float, default=0.2, show_default=True,
                         help="Share of rows that may lack a value; they are left out."),
            click.option("--keep-duplicates", is_flag=True, help="Count rows that repeat another in every column."),
        )
    ):  # fmt: skip
        command = option(command)
    return command


def columns_of(options):
    """The `Columns` that these options name."""
    from vvlm_ray.results.columns import DEFAULT_FACTORS, Columns, Condition
    from vvlm_ray.results.numbers import number

    names, units, where = {}, {}, []
    for text in options["map_texts"]:
        ours, theirs = _pair("--map", text, "num_frames=frames")
        if ours in names:
            raise UserError(f"--map {text}: {ours!r} is mapped twice")
        names[ours] = theirs
    for text in options["unit_texts"]:
        name, size = _pair("--unit", text, "lm_params=1e9")
        value = number(size if re.match("[0-9.]", size) else f"1{size}")
        if value is None or size.endswith("%"):
            raise UserError(f"--unit {text}: {size!r} is no size; write for instance lm_params=1e9 or lm_params=B")
        units[name] = value
    for text in options["where_texts"]:
        name, value = _pair("--where", text, "status=done")
        where.append(Condition(name.removesuffix("!"), value, negated=name.endswith("!")))
    factors = options["factors"]
    return Columns(
        factors=tuple(name.strip() for name in factors.split(",") if name.strip()) if factors else DEFAULT_FACTORS,
        data_size=options["data_size"],
        score=options["score"],
        error=options["error_column"],
        keep_duplicates=options["keep_duplicates"],
        names=names,
        units=units,
        where=tuple(where),
        num_questions=options["num_questions"],
        max_missing=options["max_missing"],
    )


def _pair(flag: str, text: str, example: str) -> tuple[str, str]:
    left, equals, right = text.partition("=")
    if not equals or not left.strip().removesuffix("!") or (not right.strip() and flag != "--where"):
        raise UserError(f"{flag} {text}: write it as {flag} {example}")
    return left.strip(), right.strip()
