"""Jobs run on the GPU type and the machines that the queue has admitted them to, under the real Ray."""

import itertools

import pytest

from vvlm_ray.orchestration.attempts import FINISHED, NOT_STARTED, Attempts, Outcome
from vvlm_ray.orchestration.placement import (
    Machines,
    alive_nodes,
    failure_config,
    free_groups,
    group_name,
    never_started,
    scaling_config,
)
from vvlm_ray.orchestration.searcher import NoBook, StudySearcher
from vvlm_ray.planning.gpus import GPUS
from vvlm_ray.planning.order import simulate
from vvlm_ray.planning.queue import Choice, Job, Node, Placement, Queue
from vvlm_ray.study.ledger import History
from vvlm_ray.study.sections import Resources

NODES = [
    Node("A100-80GB/0.000", 4, "A100-80GB"),
    Node("A100-80GB/0.001", 4, "A100-80GB"),
    Node("L40S/1.000", 2, "L40S"),
]
GPUS_USED = {name: GPUS[name] for name in ("A100-80GB", "L40S")}


@pytest.fixture(scope="module")
def mixed_cluster():
    """A head without GPUs, two machines with 4 logical A100 and one with 2 logical L40S."""
    import ray
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "num_gpus": 0, "include_dashboard": False})
    for slots, accelerator in ((4, "A100"), (4, "A100"), (2, "L40S")):
        cluster.add_node(num_cpus=slots, num_gpus=slots, resources={f"accelerator_type:{accelerator}": 1})
    ray.init(address=cluster.address, log_to_driver=False, logging_level="ERROR")
    yield cluster
    ray.shutdown()
    cluster.shutdown()


def never_again():
    return Attempts(0, History(), first_pause=0.0)


def of_kind(job_id, seconds, slots, kind):
    return Job(job_id, seconds, slots, choices=(Choice(slots, seconds, kind),))


@pytest.fixture
def hold(mixed_cluster):
    """Reserves bundles until the test ends: the ids of the nodes they got."""
    from ray.util.placement_group import placement_group, placement_group_table, remove_placement_group

    groups = []

    def hold(bundles, **options):
        groups.append(placement_group(bundles, **options))
        assert groups[-1].wait(20), f"no room for {bundles}"
        return set(placement_group_table(groups[-1])["bundles_to_node_id"].values())

    yield hold
    for group in groups:
        remove_placement_group(group)


def as_train_does(config):
    """The bundles and options of the placement group that Ray Train makes of a job's ScalingConfig."""
    scaling = scaling_config(Resources(gpus_per_worker=1, cpus_per_worker=1), config)
    workers = [b for b in scaling.as_placement_group_factory().bundles if b.get("GPU")]
    assert len(workers) == config["slots"]
    selectors = [scaling.label_selector] * len(workers) if scaling.label_selector else None
    return workers, {"strategy": scaling.placement_strategy, "bundle_label_selector": selectors}


@pytest.mark.timeout(120)
def test_jobs_get_the_type_and_the_machines_that_the_queue_says(hold):
    # Two narrow jobs share a machine, so that the wide gang finds the other one whole; Ray alone would part them.
    jobs = [
        of_kind("half", 30.0, 2, "A100-80GB"),
        of_kind("other_half", 29.0, 2, "A100-80GB"),
        of_kind("whole", 28.0, 4, "A100-80GB"),
        of_kind("small", 5.0, 2, "L40S"),
    ]
    searcher = StudySearcher(
        Queue(jobs, NODES), Machines(NODES, GPUS_USED, alive_nodes), Attempts(0, History(), first_pause=0.0), NoBook()
    )
    got = {}
    while config := searcher.suggest(str(len(got))):
        bundles, options = as_train_does(config)
        got[config["job_id"]] = hold(bundles, **options)  # all four hold their GPUs at once
    planned = {s.job.job_id: set(s.placement.nodes) for s in simulate(jobs, NODES)}
    assert list(got) == list(planned)
    assert all(len(nodes) == 1 for nodes in got.values())
    for one, other in itertools.combinations(jobs, 2):
        together = planned[one.job_id] == planned[other.job_id]
        assert (got[one.job_id] == got[other.job_id]) == together
    (small,) = got["small"]
    assert "accelerator_type:L40S" in alive_nodes()[small]


@pytest.mark.timeout(120)
def test_a_job_tied_to_a_machine_without_room_is_put_back(hold, tmp_path, monkeypatch):
    from ray.train import RunConfig
    from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer
    from ray.train.v2.api.exceptions import ControllerError

    monkeypatch.setenv("RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S", "0.5")
    jobs = [of_kind("only", 30.0, 2, "L40S")]
    searcher = StudySearcher(
        Queue(jobs, NODES), Machines(NODES, GPUS_USED, alive_nodes), Attempts(0, History(), first_pause=0.0), NoBook()
    )
    config = searcher.suggest("first")
    hold([{"GPU": 1, "accelerator_type:L40S": 0.1}])  # somebody else's
    scaling = scaling_config(Resources(gpus_per_worker=1, cpus_per_worker=1), config)
    run = RunConfig(name="only", storage_path=str(tmp_path), failure_config=failure_config(config))
    with pytest.raises(ControllerError) as caught:
        DataParallelTrainer(print, scaling_config=scaling, run_config=run).fit()
    assert never_started(caught.value)
    assert not never_started(RuntimeError("anything else"))

    searcher.on_trial_complete("first", Outcome(NOT_STARTED).to_report())
    again = searcher.suggest("second")
    assert again == config | {"attempt": 2}
    searcher.on_trial_complete("second", Outcome(FINISHED).to_report())
    assert searcher.suggest("third") == StudySearcher.FINISHED


def test_each_planned_machine_is_one_ray_node_of_its_type_and_size():
    alive = {
        "a": {"GPU": 8, "accelerator_type:A100": 1},
        "b": {"GPU": 4, "accelerator_type:A100": 1},
        "c": {"GPU": 2, "accelerator_type:L40S": 1},
        "head": {"CPU": 4},
    }
    machines = Machines(NODES, GPUS_USED, lambda: alive)
    first = machines.locate(Placement(Choice(4, 1.0, "A100-80GB"), {"A100-80GB/0.000": 4}))
    assert first == {"on_one_machine": True, "accelerator": "A100", "node_ids": ["b"]}
    both = machines.locate(Placement(Choice(8, 1.0, "A100-80GB"), {"A100-80GB/0.000": 4, "A100-80GB/0.001": 4}))
    assert both == {"on_one_machine": False, "accelerator": "A100", "node_ids": ["b", "a"]}
    del alive["b"]  # the machine has died, and no other may stand for it
    assert machines.locate(Placement(Choice(4, 1.0, "A100-80GB"), {"A100-80GB/0.000": 4}))["node_ids"] == []
    alive["d"] = {"GPU": 4, "accelerator_type:A100": 1}
    assert machines.locate(Placement(Choice(4, 1.0, "A100-80GB"), {"A100-80GB/0.000": 4}))["node_ids"] == ["d"]


def test_a_plain_number_of_slots_ties_a_job_to_nothing():
    machines = Machines([Node("all", 8)], GPUS_USED, dict)
    where = machines.locate(Placement(Choice(2, 1.0), {"all": 2}))
    assert where == {"on_one_machine": False, "accelerator": None, "node_ids": []}


@pytest.mark.timeout(120)
def test_what_a_killed_controller_left_reserved_is_freed_and_nothing_else(mixed_cluster):
    from ray.util.placement_group import placement_group, placement_group_table, remove_placement_group

    groups = {
        name: placement_group([{"CPU": 1}], name=name)
        for name in (group_name("killed", 1), group_name("alive", 2), "somebody else's")
    }
    assert all(group.wait(20) for group in groups.values())
    assert free_groups({group_name("alive", 2)}) == [group_name("killed", 1)]
    left = {about["name"] for about in placement_group_table().values() if about["state"] == "CREATED"}
    assert left == {group_name("alive", 2), "somebody else's"}
    assert free_groups(set()) == [group_name("alive", 2)]
    remove_placement_group(groups["somebody else's"])
