"""lmms-eval's insides that we lean on (evaluation/lmms.py): where a test fails here, a later version differs."""

import inspect
import random
import tomllib
from importlib import import_module
from pathlib import Path

import pytest
import yaml
from lmms_eval import tasks as lmms_tasks
from miniatures import letter_of, rows_of

from vvlm_ray.evaluation import lmms
from vvlm_ray.evaluation.benchmarks import BENCHMARKS, CHOICES
from vvlm_ray.evaluation.lmms import load, version_problem
from vvlm_ray.evaluation.tasks import plan_of
from vvlm_ray.study.evaluation_section import JUDGED, Evaluation

ROOT = Path(__file__).parents[2]


def test_the_installed_version_is_the_one_that_is_pinned(monkeypatch):
    pins = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert any(f"lmms-eval=={lmms.VERSION}" in str(pin).replace(" ", "") for pin in [pins])
    assert version_problem() is None
    monkeypatch.setattr(lmms, "version", lambda name: "0.8.0")
    assert "lmms-eval 0.8.0 is installed and 0.7.3" in version_problem()


def test_the_table_names_what_lmms_eval_has():
    """Tasks, metric keys, folders of videos and kinds of answers, against the installed YAML files."""
    loader = type("Loader", (yaml.SafeLoader,), {})
    loader.add_constructor("!function", lambda loader, node: loader.construct_scalar(node))
    for benchmark in BENCHMARKS.values():
        root = Path(lmms_tasks.__file__).parent / benchmark.folder
        files = [yaml.load(path.read_text(), loader) for path in root.glob("*.yaml")]
        files = {content["task"]: content for content in files if isinstance(content.get("task"), str)}
        for metric in benchmark.metrics:
            content = files[metric.task]
            if "include" in content:
                content |= yaml.load((root / content["include"]).read_text(), loader)
            assert metric.key in [entry["metric"] for entry in content["metric_list"]]
            assert content.get("output_type", "generate_until") == "generate_until"
            assert benchmark.videos.startswith(content["dataset_kwargs"]["cache_dir"])
    assert tuple(name for name, benchmark in BENCHMARKS.items() if benchmark.is_judged) == JUDGED
    assert {*CHOICES, *JUDGED} == set(BENCHMARKS)
    assert len(BENCHMARKS["MV"].metrics) == 20


class Watched(dict):
    """A document that remembers which of its fields were read."""

    def __init__(self, row):
        super().__init__(row)
        self.read = set()

    def __getitem__(self, key):
        self.read.add(key)
        return super().__getitem__(key)

    def get(self, key, default=None):
        self.read.add(key)
        return super().get(key, default)


@pytest.mark.parametrize("name", CHOICES)
def test_the_miniatures_have_every_field_that_the_tasks_read(name, eight):
    plan = plan_of(Evaluation(tasks=[name]), name)
    for loaded in load(plan, 1):
        doc = Watched(loaded.task.eval_docs[0])
        task = loaded.task
        task.doc_to_visual(doc)
        task.doc_to_text(doc)
        task.doc_to_target(doc)
        task.process_results(doc, [letter_of(dict(doc))])
        assert doc.read <= set(doc), f"{loaded.name} reads {doc.read - set(doc)}"
        assert {"question"} <= doc.read


def test_tasks_still_guess_and_still_turn_bad_verdicts_into_numbers(eight, monkeypatch):
    """Why answers are parsed under watch and why there is a relay: a later lmms-eval may need neither."""
    nextqa, lvb = (import_module(f"lmms_eval.tasks.{BENCHMARKS[name].folder}.utils") for name in ("NQA", "LVB"))
    drawn = []
    monkeypatch.setattr(random, "choice", lambda options: drawn.append(options) or options[0])
    assert nextqa.parse_multi_choice_response("", ["A", "B"], {"A": "x", "B": "y"}) == "A"
    assert lvb.parse_multi_choice_response("", ["A", "B"], {"A": "x", "B": "y"}) == "A"
    assert drawn == [["A", "B"]] * 2
    caption, vcg = (import_module(f"lmms_eval.tasks.{BENCHMARKS[name].folder}.utils") for name in ("VDC", "VCG"))
    for module in (caption, vcg):
        assert [module.parse_score(text) for text in ("{'score': 4.8}", "", "{}", "four")] == [4, 0, 0, 0]
    activity = import_module(f"lmms_eval.tasks.{BENCHMARKS['AQA'].folder}.utils")
    assert activity.parse_score("{'pred': 'unknown', 'score': 1}") == ["no", 1]
    assert activity.parse_score("{'pred': 'yes and no', 'score': 1}") == ["yes", 1]
    assert 'response_data["model"]' in inspect.getsource(caption.get_eval_generic)


def test_consistency_is_paired_by_video_and_written_to_a_file():
    vcg = import_module(f"lmms_eval.tasks.{BENCHMARKS['VCG'].folder}.utils")
    source = inspect.getsource(vcg)
    assert "gpt_eval_result_videochatgpt_{task}_" in source
    assert list(rows_keys(vcg)) == ["results", "args"]


def rows_keys(module):
    return inspect.signature(module.videochatgpt_aggregate_consistency).parameters


def test_evaluate_takes_what_it_is_given():
    from lmms_eval.api import task
    from lmms_eval.evaluator import evaluate

    known = inspect.signature(evaluate).parameters
    for name in ("limit", "bootstrap_iters", "log_samples", "distributed_executor_backend", "cli_args"):
        assert name in known
    assert "process_docs_parallel" in known
    assert hasattr(task, "Accelerator")
    built = inspect.signature(task.Task.build_all_requests).parameters
    assert {"limit", "rank", "world_size"} <= set(built)


def test_the_entry_point_is_what_lmms_evals_registry_takes():
    from lmms_eval.models.registry_v2 import ModelRegistryV2

    from vvlm_ray.evaluation.lmms_entry import MANIFEST

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["entry-points"]["lmms_eval.models"] == {"vvlm_ray": "vvlm_ray.evaluation.lmms_entry:MANIFEST"}
    registry = ModelRegistryV2()
    registry.register_manifest(MANIFEST)
    assert registry.resolve("vvlm_ray").model_type == "simple"


def test_miniature_rows_are_what_the_data_sets_hold(eight):
    for name, path, config in (("NQA", "lmms-eval/NExTQA", "MC"), ("VMME", "lmms-eval/Video-MME", "default")):
        loaded = load(plan_of(Evaluation(tasks=[name]), name), None)[0]
        assert [dict(row) for row in loaded.task.eval_docs] == rows_of(eight.folder, path, config)
