"""A recommendation in words: the verdict first, then what to deploy, and what stands around it."""

from vvlm_ray.report import words
from vvlm_ray.report.answer import sentences_of
from vvlm_ray.results.analysis import Analysis
from vvlm_ray.scaling.recommendation import Option, Recommendation


def recommendation_lines(analysis: Analysis, answer: Recommendation) -> list[str]:
    """One sentence a line."""
    lines = [analysis.verdict.sentence, *sentences_of(analysis, answer.line)]
    for run in answer.measured[:3]:
        x = words.configuration(run.factors, analysis.names)
        after = f" after {words.count(run.num_examples)} examples" if run.num_examples else ""
        band = f"{100 - run.high:.1f} to {100 - run.low:.1f}"
        lines.append(f"Measured: {x}{after} scored {100 - run.error:.1f} (predicted {band}).")
    if answer.cheapest:
        lines.append(
            f"No worse by {answer.delta:.2g} points with 90 % probability, and the cheapest of "
            f"{answer.num_equivalent}: {_told(analysis, answer.cheapest)}."
        )
    lines += [f"{other.share:.0%} of the samples prefer {_told(analysis, other)}." for other in answer.alternatives]
    if answer.next_budget:
        cost = analysis.runs.space.known_cost()
        more = cost.text(answer.next_budget.budget * cost.scale)
        told = _told(analysis, answer.next_budget.option)
        lines.append(f"More than {answer.delta:.2g} points are gained from {more} on: {told}.")
    if answer.if_doubled:
        lines.append(f"With twice the finetuning examples: {_told(analysis, answer.if_doubled)}.")
    return lines


def _told(analysis: Analysis, option: Option) -> str:
    cost = analysis.runs.space.known_cost()
    x = words.configuration({**option.factors, **analysis.fixed}, analysis.names)
    price = cost.text(option.cost * cost.scale)
    return f"{x} ({price}; error {option.error:.2f}, {option.worse_by:+.2f} against the answer)"
