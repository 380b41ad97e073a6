"""The console script `vvlm-ray`: a thin group whose commands are imported only when they are called."""

import importlib

import click

# command -> module that defines a click command of that name
COMMANDS = {
    "quickstart": "quickstart",
    "init": "init",
    "check": "check",
    "plan": "plan",
    "design": "design",
    "next": "next",
    "run": "run",
    "status": "status",
    "logs": "logs",
    "score": "score",
    "doctor": "doctor",
    "report": "report",
    "answer": "answer",
    "fit": "fit",
    "compare": "compare",
    "frontier": "frontier",
    "elasticity": "elasticity",
    "recommend": "recommend",
    "predict": "predict",
    "validate": "validate",
}


class LazyGroup(click.Group):
    """Lists the commands from COMMANDS and imports one module when one is needed."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in COMMANDS:
            from vvlm_ray.errors import did_you_mean

            raise click.UsageError(f"there is no command {name!r}{did_you_mean(name, COMMANDS)}", ctx)
        return getattr(importlib.import_module(f"vvlm_ray.commands.{COMMANDS[name]}"), name)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, HELP[name]) for name in COMMANDS])


# One line each, here so that --help need not import the commands.
HELP = {
    "quickstart": "the whole pipeline, small and real, on this machine",
    "init": "write a study for folders of models and data",
    "check": "hold a study against reality: weights, rows, videos, benchmarks, keys; no GPU is taken",
    "plan": "trials, cost, schedule and problems of a sweep; spends nothing",
    "design": "choose runs for a training budget by simulation, and write them as a sweep file",
    "next": "the runs worth making now, by expected regret saved per GPU-hour",
    "run": "start or resume a sweep on Ray",
    "status": "what is done, running, waiting and failed in a study",
    "logs": "what a trial printed",
    "score": "scores of a study made again from its kept answers, without a GPU",
    "doctor": "what is installed, what is broken, what to do",
    "report": "all tables and figures of a study",
    "answer": "ask a finetuned model about one video",
    "fit": "one scaling law to a table of runs",
    "compare": "all scaling laws side by side, by cross-validation and extrapolation",
    "frontier": "the compute-optimal configuration at each budget",
    "elasticity": "how the optimum moves with the number of finetuning examples",
    "recommend": "the configuration to deploy, its expected error and how sure that is",
    "predict": "the error of any configuration, with bands for f and for a run of it",
    "validate": "fit some of the runs and predict those beyond them: by cost, n, factor, rolling",
}


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="vvlm-ray")
def main() -> None:
    """Find the best video vision language model for an inference budget."""
