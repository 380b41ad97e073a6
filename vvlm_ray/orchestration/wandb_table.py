"""The runs of a W&B project as a table of results: wandb://entity/project, with a login.

One row a run: its name and state, its config, its summary.
"""

import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from vvlm_ray.errors import UserError

if TYPE_CHECKING:
    import pandas as pd

PREFIX = "wandb://"
MAX_RUNS = 10_000
_ADDRESS = re.compile(r"wandb://(?P<entity>[\w.-]+)/(?P<project>[\w.-]+)/?")


def is_project(records: object) -> bool:
    return str(records).startswith(("wandb://", "wandb:/"))  # a Path makes one slash of two


def read_project(address: object) -> "pd.DataFrame":
    """The runs of the project at `address`, a row for each.

    Raises:
        UserError: the address is none, nobody is logged in, or W&B does not give the project.
    """
    import pandas as pd
    import requests
    import wandb

    found = _ADDRESS.fullmatch(re.sub(r"^wandb:/+", PREFIX, str(address)))
    if not found:
        raise UserError(f"{address}: write a W&B project as wandb://entity/project")
    if not wandb.api.api_key:
        raise UserError(f"{address}: nobody is logged in to W&B: set WANDB_API_KEY or run `wandb login`; or export the "
                        "runs as CSV on the project's page and give that file")  # fmt: skip
    project = f"{found['entity']}/{found['project']}"
    host = wandb.setup().settings.base_url
    try:  # W&B's own client would go on trying for days
        requests.head(host, timeout=20)
    except requests.RequestException:
        raise UserError(
            f"{address}: {host} cannot be reached from here; export the runs as CSV and give that file"
        ) from None
    try:
        runs = wandb.Api(timeout=30).runs(project, per_page=500)
        rows = rows_of((run.name, run.state, run.config, run.summary._json_dict) for run in _first(runs))
    except UserError:
        raise
    except Exception as problem:  # of wandb, requests or the server: all of them mean that there is no table
        lines = str(problem).strip().splitlines() or [type(problem).__name__]
        raise UserError(f"{address}: W&B does not give the project {project}: {lines[0][:300]}") from None
    if not rows:
        raise UserError(f"{address}: there are no runs in this project")
    return pd.DataFrame(rows)


def rows_of(runs: Iterable[tuple[str, str, Mapping[str, Any], Mapping[str, Any]]]) -> list[dict[str, Any]]:
    """Rows from (name, state, config, summary); where both hold a key, the summary's becomes summary.<key>."""
    rows = []
    for name, state, config, summary in runs:
        row = {"name": name, "state": state} | _flat(config)
        measured = _flat(summary)
        row |= {
            (f"summary.{key}" if key in row and row[key] != value else key): value for key, value in measured.items()
        }
        rows.append(row)
    return rows


def _first(runs: Iterable[Any]) -> Iterable[Any]:
    for count, run in enumerate(runs):
        if count >= MAX_RUNS:
            raise UserError(f"more than {MAX_RUNS:,} runs in this project: export those that are meant as CSV")
        yield run


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested keys joined by dots, without those that W&B keeps for itself."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if str(key).startswith("_"):
            continue
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{key}.")
        elif value is None or isinstance(value, str | int | float | bool):
            flat[f"{prefix}{key}"] = value
    return flat
