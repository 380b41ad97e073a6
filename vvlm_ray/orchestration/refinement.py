"""Refinement while a study runs: as trials end, their records may ask for further ones (see study.refine)."""

from collections.abc import Callable
from pathlib import Path

import click
import numpy as np

from vvlm_ray.designs.refinement import propose, propose_uncertain
from vvlm_ray.errors import UserError
from vvlm_ray.planning.plan import trial_job
from vvlm_ray.planning.queue import Job
from vvlm_ray.scaling.runs import Runs
from vvlm_ray.study.additions import add_points
from vvlm_ray.study.config import Study
from vvlm_ray.study.folder import StudyFolder
from vvlm_ray.study.points import Point
from vvlm_ray.study.records import FAILED, FINISHED, read_record
from vvlm_ray.study.trials import Trial, make_trials


class Refinement:
    """What the searcher asks for further jobs; `trials` {trial_id: Trial} is added to in place.

    A trial is proposed once, kept in the study's folder, and part of the study from then on.
    """

    def __init__(
        self, study: Study, folder: StudyFolder, sweep_file: Path, num_slots: float | None, trials: dict[str, Trial]
    ):  # fmt: skip
        self.study, self.folder, self.sweep_file, self.num_slots = study, folder, sweep_file, num_slots
        self.trials = trials
        self.on_added: Callable[[Job], None] = lambda job: None
        self._records: dict[str, dict] = {}
        self._told: set[str] = set()

    def further_jobs(self) -> list[Job]:
        """Jobs for what the records ask for now; empty for a study without refinement."""
        if self.study.refinement is None:
            return []
        records = self._read()
        name = self.study.refinement.score
        scores = {}
        for trial_id, record in records.items():
            if record["status"] == FINISHED:
                score = record["avg"] if name == "avg" else record["scores"].get(name)
                if score is None:
                    raise UserError(f"refinement.score: {name!r} is no score of the records; take avg or a task's name")
                scores[trial_id] = score
        given_up = [trial_id for trial_id, record in records.items() if record["status"] == FAILED]
        known = list(self.trials.values())
        points = propose(self.study, scores, known, given_up, noise=self._noise(records), said=self._say)
        if not points and len(scores) + len(given_up) == len(known):
            points = self._uncertain(scores)
        return self._add(points)

    def _noise(self, records: dict[str, dict]) -> float:
        """The usual standard error of the score that is refined by; 0 where records know none."""
        name = self.study.refinement.score
        found = []
        for record in records.values():
            known = {task: se for task, se in (record.get("standard_errors") or {}).items() if se is not None}
            if name != "avg" and name in known:
                found.append(known[name])
            elif name == "avg" and known and set(known) == set(record.get("scores") or {}):
                found.append(float(np.sqrt(sum(se**2 for se in known.values())) / len(known)))
        return float(np.median(found)) if found else 0.0

    def _say(self, sentence: str) -> None:
        if sentence not in self._told:
            self._told.add(sentence)
            click.echo(f"Refinement: {sentence}.", err=True)

    def _read(self) -> dict[str, dict]:
        """All records there are; a finished one is read once."""
        for trial_id in self.trials:
            if self._records.get(trial_id, {}).get("status") != FINISHED:
                record = read_record(self.folder, trial_id)
                if record is not None:
                    self._records[trial_id] = record
        return self._records

    def _uncertain(self, scores: dict[str, float]) -> list[Point]:
        finished = [self.trials[trial_id] for trial_id in scores]
        if not self.study.refinement.uncertain_trials or not finished:
            return []
        runs = Runs(
            {f: np.array([t.factors[f] for t in finished], float) for f in self.study.factors},
            np.array([100 - scores[t.trial_id] for t in finished]),
            num_examples=np.array([t.num_examples for t in finished], float),
        )
        return propose_uncertain(self.study, runs, list(self.trials.values()))

    def _add(self, points: list[Point]) -> list[Job]:
        new = [t for t in make_trials(self.study, points) if t.trial_id not in self.trials]
        if not new:
            return []
        add_points(self.folder, points)
        jobs = []
        for trial in new:
            self.trials[trial.trial_id] = trial
            job = trial_job(self.study, self.sweep_file, self.folder, trial, num_slots=self.num_slots)
            self.on_added(job)
            jobs.append(job)
        return jobs
