"""The plan: its numbers by hand, memory and GPU counts, the schedule against its bound, every problem beforehand."""

import json
import time
from pathlib import Path

import pytest
import yaml
from changes import changed
from click.testing import CliRunner

from vvlm_ray.commands.plan import plan as plan_command
from vvlm_ray.errors import UserError
from vvlm_ray.planning.gpus import GPUS, parse_cluster, usable_bytes
from vvlm_ray.planning.listing import plan_table, plan_totals
from vvlm_ray.planning.memory import gang_sizes, memory_bytes, model_of
from vvlm_ray.planning.order import simulate
from vvlm_ray.planning.plan import make_plan
from vvlm_ray.study.config import Study
from vvlm_ray.study.folder import StudyFolder
from vvlm_ray.study.records import Scores, finished_record, write_record
from vvlm_ray.study.sections import Resources
from vvlm_ray.study.sweep_file import load_sweep

PAPER = Path(__file__).parents[2] / "sweeps" / "paper.yaml"
TEMPLATE = PAPER.with_name("template.yaml")
CLUSTERS = {
    "8": "1x8xA100-80GB",
    "64": "8x8xA100-80GB",
    "256": "32x8xA100-80GB",
    "8- and 4-GPU nodes": "4x8xA100-80GB,8x4xA100-80GB",
    "two GPU types": "4x8xA100-80GB,8x4xA100-40GB",
}


def planned(study, tmp_path, cluster=None, num_slots=None):
    kinds = parse_cluster(cluster) if cluster else None
    return make_plan(study, PAPER, StudyFolder(tmp_path / "none"), num_slots, cluster=kinds)


@pytest.fixture(scope="module")
def paper_plan(tmp_path_factory):
    return planned(load_sweep(PAPER), tmp_path_factory.mktemp("paper"))


def test_the_numbers_of_a_trial_by_hand(paper_plan):
    study = load_sweep(PAPER)
    row = next(
        r
        for r in plan_table(study, paper_plan)
        if (r["lm_params"], r["num_frames"], r["tokens_per_frame"], r["num_examples"]) == (7.5e9, 32, 196, 1_000_000)
    )
    vision, language = 2 * 32 * 0.43e9 * 768, 2 * 32 * 7.5e9 * 196
    assert (row["vision_flops"], row["lm_flops"]) == pytest.approx((vision, language))
    assert row["training_flops"] == pytest.approx(3 * (vision + language) * 1e6)
    assert row["text_flops"] == pytest.approx(6 * 7.5e9 * 200 * 1e6)
    assert row["visual_tokens"] == 32 * 196 * 1_000_000
    speed = 312e12 * 0.4 * row["gpus"]
    questions = 47_734
    work = row["training_flops"] + row["text_flops"] + questions * row["inference_flops"]
    assert row["seconds"] == pytest.approx(900 + work / speed + questions / (10 * row["gpus"]))
    assert row["gpu_hours"] == pytest.approx(row["seconds"] * row["gpus"] / 3600)
    assert row["money"] == pytest.approx(2 * row["gpu_hours"])
    assert row["min_gpus"] == 4  # 16 bytes x 8.5 billion parameters = 136 GB, and what is gathered and kept


def test_totals_add_up_and_stage_1_is_counted(paper_plan):
    study = load_sweep(PAPER)
    rows = plan_table(study, paper_plan)
    totals = plan_totals(study, paper_plan, rows)
    assert totals["trials"] == 88
    assert totals["training_flops"] == pytest.approx(7.44e21, rel=1e-3)
    per_image = 2 * 0.43e9 * 768
    stage1 = sum(558_128 * (per_image + 2 * 2 * n * (729 + 200)) for n in (1e9, 2.8e9, 7.5e9))
    assert totals["stage1_flops"] == pytest.approx(stage1)
    assert totals["gpu_hours"] == pytest.approx(sum(r["gpu_hours"] for r in rows) + totals["stage1_gpu_hours"])
    assert [j.kind for j in paper_plan.jobs].count("projector") == 3
    ends = {s.job.job_id: s.end for s in paper_plan.schedule}
    for s in paper_plan.schedule:
        assert all(ends[needed] <= s.start for needed in s.job.after)
        assert s.job.kind == "projector" or len(s.job.after) == 1


@pytest.mark.parametrize("cluster", CLUSTERS.values(), ids=CLUSTERS.keys())
def test_the_papers_schedule_ends_near_the_bound_and_before_fifo(cluster, tmp_path):
    plan = planned(load_sweep(PAPER), tmp_path, cluster)
    assert len(plan.schedule) == 91
    assert plan.lower_bound_seconds <= plan.makespan_seconds <= 1.05 * plan.lower_bound_seconds
    assert plan.makespan_seconds <= max(s.end for s in simulate(plan.jobs, plan.nodes, order="fifo"))
    capacity = {node.name: node.slots for node in plan.nodes}
    for s in plan.schedule:
        for name in s.placement.nodes:
            used = sum(o.placement.nodes.get(name, 0) for o in plan.schedule if o.start <= s.start < o.end)
            assert used <= capacity[name]


def test_memory_of_a_known_case_by_hand():
    model = model_of(7_504_924_672, None, None)
    assert model.num_params == pytest.approx(8_030_261_248 + 428_225_600 + 1152 * 4096 + 4096**2, rel=1e-3)
    settings = {"micro_batch_size": 1, "text_tokens": 200}
    sharded = Resources(sharding="fsdp", gradient_checkpointing=True)
    on_8, on_16 = (memory_bytes(model, 32, 196, num_gpus=g, resources=sharded, **settings) for g in (8, 16))
    assert on_8 - on_16 == pytest.approx(16 * model.num_params / 16)  # nothing but the states is shared
    whole = memory_bytes(model, 32, 196, num_gpus=8, resources=Resources(gradient_checkpointing=True), **settings)
    assert whole > 16 * model.num_params  # no sharding: every GPU holds all states
    kept = memory_bytes(model, 32, 196, num_gpus=8, resources=Resources(sharding="fsdp"), **settings)
    assert kept > 2 * on_8


def test_more_frames_tokens_or_examples_at_a_time_take_more_memory():
    model, r = model_of(1e9, None, None), Resources(sharding="fsdp", gradient_checkpointing=True)

    def at(frames, tokens, micro, gpus):
        return memory_bytes(model, frames, tokens, num_gpus=gpus, micro_batch_size=micro, text_tokens=200, resources=r)

    base = at(8, 100, 1, 4)
    assert min(at(16, 100, 1, 4), at(8, 400, 1, 4), at(8, 100, 2, 4), at(8, 100, 1, 2)) > base


def test_shapes_are_read_from_the_backbones_where_they_are(tmp_path):
    (tmp_path / "config.json").write_text(
        json.dumps(
            {
                "hidden_size": 64,
                "num_hidden_layers": 2,
                "intermediate_size": 128,
                "num_attention_heads": 4,
                "num_key_value_heads": 2,
                "vocab_size": 1000,
            }
        )
    )
    model = model_of(100_000, tmp_path, None)
    assert (model.lm.hidden, model.lm.layers, model.lm.kv, model.lm.vocab) == (64, 2, 32, 1000)


def test_gang_sizes_fit_nodes():
    assert gang_sizes(8, 64) == [1, 2, 4, 8, 16, 32, 64]
    assert gang_sizes(4, 8) == [1, 2, 4, 8]
    assert gang_sizes(6, 12) == [1, 2, 4, 6, 12]
    assert gang_sizes(8, 2) == [1, 2]


def test_the_smallest_feasible_count_fits_and_one_size_less_does_not(paper_plan):
    e, gpu = paper_plan.estimator, GPUS["A100-80GB"]
    for trial in paper_plan.trials:
        fewest = paper_plan.min_gpus[trial.trial_id]
        assert e.memory(trial, fewest) <= usable_bytes(gpu)
        assert fewest == 1 or e.memory(trial, fewest // 2) > usable_bytes(gpu)


def test_a_gpu_type_too_small_is_a_problem_and_a_better_one_beside_it_is_not(tmp_path):
    tiny = {"gpu": "toy", "gpus": 8, "count": 2, "memory_gb": 8, "peak_tflops": 50}
    plan = planned(changed(PAPER, cluster=[tiny]), tmp_path)
    lines = [p for p in plan.problems if "do not fit into toy" in p]
    assert any("backbones.llama-8b" in line for line in lines)
    assert all("one has 8" in line for line in lines)
    assert len(plan.trials) == 88  # planned all the same
    both = planned(changed(PAPER, cluster=[tiny, {"gpu": "H100", "gpus": 8}]), tmp_path)
    assert not [p for p in both.problems if "do not fit" in p]
    assert all(s.placement.choice.kind == "H100" for s in both.schedule if s.job.job_id == "projector-llama-8b")


def test_too_few_workers_is_a_problem_that_says_how_many(tmp_path):
    plan = planned(changed(PAPER, resources__workers=2), tmp_path)
    assert any("llama-8b" in p and "need 4 GPUs" in p for p in plan.problems)
    assert not any("llama-1b: " in p and "do not fit" in p for p in plan.problems)
    alone = planned(changed(PAPER, resources__workers=4, resources__sharding="none"), tmp_path)
    assert any("llama-8b" in p and "sharding: fsdp" in p for p in alone.problems)


def test_a_gang_wider_than_the_cluster_is_a_problem(tmp_path):
    plan = planned(changed(PAPER, resources__workers=32), tmp_path, "2x8xA100-80GB")
    assert any("need more GPUs than the cluster has" in p for p in plan.problems)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"data__sources": {"one": {"path": "x", "video_root": "y", "num_examples": 5}}}, ["2,000,000", "hold 5"]),
        ({"evaluation__tasks": ["VDC", "VQA"]}, ["'VQA'", "evaluation.local"]),
        ({}, ["backbones.llama-1b.lm", "does not exist"]),
        ({}, ["stage1.path", "does not exist"]),
    ],
)
def test_problems_are_found_beforehand(changes, words, tmp_path):
    problems = planned(changed(PAPER, **changes), tmp_path).problems
    assert any(all(word in problem for word in words) for problem in problems)


@pytest.mark.parametrize("text", ["8", "8xA100-80GB", "0x8xL4", "1x8xL4,", "1x8xNothing"])
def test_bad_clusters_are_refused(text, tmp_path):
    with pytest.raises(UserError, match=r"--cluster|GPU type"):
        planned(load_sweep(PAPER), tmp_path, text)


def test_gpu_types_that_ray_cannot_tell_apart_are_a_problem_until_they_are_named(tmp_path):
    kinds = parse_cluster("1x8xA100-40GB,1x8xA100-80GB")
    assert any("Ray calls both A100-40GB and A100-80GB A100" in p for p in planned_on(kinds, tmp_path))
    kinds[0] = kinds[0].model_copy(update={"accelerator": "A100-40GB"})
    assert not any("Ray calls both" in p for p in planned_on(kinds, tmp_path))


def planned_on(kinds, tmp_path):
    return make_plan(load_sweep(PAPER), PAPER, StudyFolder(tmp_path), cluster=kinds).problems


def test_finished_trials_are_not_planned_again_and_their_speed_is_used(tmp_path):
    study, folder = load_sweep(PAPER), StudyFolder(tmp_path)
    before = make_plan(study, PAPER, folder)
    done = before.trials[:4]
    for trial in done:
        flops = before.estimator.training_flops(trial) + before.estimator.text_flops(trial)
        measured = {"finetune_seconds": flops / (8 * 50e12), "num_workers": 8}
        write_record(folder, finished_record(trial, Scores({"VDC": 50.0}, {}, {}), meaning={}, details=measured))
    after = make_plan(study, PAPER, folder)
    assert after.finished == {t.trial_id for t in done}
    assert len(after.jobs) == len(before.jobs) - 4
    assert after.estimator.measured_flops == pytest.approx(50e12)
    assert any("measured" in note for note in after.notes)


def test_a_trial_with_checkpoints_keeps_its_number_of_workers(tmp_path):
    study, folder = load_sweep(PAPER), StudyFolder(tmp_path)
    trial = make_plan(study, PAPER, folder).trials[0]
    run = folder.trial(trial.trial_id)
    run.mkdir(parents=True)
    (run / "workers.json").write_text('{"workers": 32}')
    (before,) = make_plan(study, PAPER, folder, cluster=parse_cluster("4x8xA100-80GB")).choices[trial.trial_id]
    (run / "checkpoints" / "000001").mkdir(parents=True)
    (run / "checkpoints" / "000001" / "manifest.json").write_text("{}")
    (after,) = make_plan(study, PAPER, folder, cluster=parse_cluster("4x8xA100-80GB")).choices[trial.trial_id]
    assert before.slots < after.slots == 32


def test_the_command_prints_json_with_the_agreed_keys(tmp_path):
    done = CliRunner().invoke(plan_command, [str(PAPER), "--storage", str(tmp_path), "--json"])
    assert done.exit_code == 0, done.output  # the paths that are missing are findings
    result = json.loads(done.stdout)
    assert len(result["trials"]) == 88
    assert {
        "trial_id", "sweep", "lm_params", "num_frames", "tokens_per_frame", "num_examples", "inference_flops",
        "training_flops", "gpus", "gpu_hours",
    } <= result["trials"][0].keys()  # fmt: skip
    assert {"training_flops", "gpu_hours", "makespan_seconds", "money"} <= result["totals"].keys()
    assert any("does not exist" in problem for problem in result["problems"])
    assert not list(tmp_path.iterdir())


def test_the_command_takes_options_checks_and_draws(tmp_path):
    picture = tmp_path / "schedule.png"
    options = ["--storage", str(tmp_path), "--cluster", "4x8xH100", "--utilisation", "0.5", "--price", "3"]
    done = CliRunner().invoke(plan_command, [str(PAPER), *options, "--gantt", str(picture), "--check"])
    assert done.exit_code == 2
    assert "50% utilisation of H100" in done.output
    assert picture.stat().st_size > 20_000
    assert CliRunner().invoke(plan_command, [str(PAPER), "--cluster", "8"]).exit_code == 2


def test_the_template_is_planned_and_uses_every_kind_of_sweep(tmp_path):
    study = load_sweep(TEMPLATE)
    assert {sweep.kind for sweep in study.sweeps} == {"star", "isoflop", "points"}
    plan = make_plan(study, TEMPLATE, StudyFolder(tmp_path))
    assert len(plan.trials) > 20
    assert plan.schedule


def test_thousands_of_trials_take_seconds(tmp_path):
    raw = yaml.safe_load(PAPER.read_text())
    raw["sweeps"][0]["levels"] = {"num_frames": list(range(1, 101))}
    raw["sweeps"][0]["num_examples"] = [10_000 * (i + 1) for i in range(20)]
    study = Study.model_validate(raw)
    start = time.monotonic()
    plan = planned(study, tmp_path)
    assert len(plan.trials) > 2000
    assert time.monotonic() - start < 60
