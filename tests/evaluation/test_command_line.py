"""A trial's model through lmms-eval's own evaluation gives the scores of our two phases."""

import sys
from types import ModuleType, SimpleNamespace

import pytest
from colour_world import NUM_FRAMES
from miniatures import NUM_QUESTIONS

from vvlm_ray.errors import UserError
from vvlm_ray.evaluation.answering import VideoAnswerer
from vvlm_ray.evaluation.benchmarks import BENCHMARKS
from vvlm_ray.evaluation.evaluate import evaluate
from vvlm_ray.study.evaluation_section import Evaluation


@pytest.fixture
def saved(model, tokenizer, preprocessor, monkeypatch):
    """A model folder, as it is read: what reads it belongs to the model's room and has its own tests."""
    loader = ModuleType("vvlm_ray.model.folder")
    loader.load_model = lambda path: SimpleNamespace(
        model=model, tokenizer=tokenizer, preprocessor=preprocessor, num_frames=NUM_FRAMES
    )
    monkeypatch.setitem(sys.modules, "vvlm_ray.model.folder", loader)


@pytest.mark.parametrize("name", ["NQA", "VMME", "PT"])
def test_lmms_evals_own_evaluation_gives_our_scores(name, eight, saved, answerer, tmp_path):
    from lmms_eval.evaluator import simple_evaluate

    from vvlm_ray.evaluation.lmms import _task_manager
    from vvlm_ray.evaluation.lmms_model import VvlmRay
    from vvlm_ray.evaluation.tasks import plan_of

    settings = Evaluation(tasks=[name])
    ours, _ = evaluate(answerer, settings)
    theirs = simple_evaluate(
        model=VvlmRay.create_from_arg_string("pretrained=anywhere", {"batch_size": 5, "device": "cpu"}),
        tasks=list(BENCHMARKS[name].tasks),
        task_manager=_task_manager(plan_of(settings, name).folder),
        bootstrap_iters=0,
    )
    (metric,) = BENCHMARKS[name].metrics
    assert theirs["n-samples"][metric.task]["effective"] == NUM_QUESTIONS[name]
    assert metric.points(theirs["results"][metric.task][f"{metric.key},none"]) == pytest.approx(ours.scores[name])


def test_an_untrained_models_answers_are_the_same_too(eight, untrained, tokenizer, preprocessor, monkeypatch):
    from lmms_eval.evaluator import simple_evaluate

    from vvlm_ray.evaluation.answers import questions_of_plan
    from vvlm_ray.evaluation.lmms import _task_manager
    from vvlm_ray.evaluation.lmms_model import VvlmRay
    from vvlm_ray.evaluation.tasks import plan_of

    loader = ModuleType("vvlm_ray.model.folder")
    loader.load_model = lambda path: SimpleNamespace(
        model=untrained, tokenizer=tokenizer, preprocessor=preprocessor, num_frames=NUM_FRAMES
    )
    monkeypatch.setitem(sys.modules, "vvlm_ray.model.folder", loader)
    plan = plan_of(Evaluation(tasks=["NQA"]), "NQA")
    answerer = VideoAnswerer(untrained, tokenizer, preprocessor, num_frames=NUM_FRAMES, batch_size=5)
    ours = {
        answer.doc: answer.answer
        for answers in answerer.answers(answerer.batches(questions_of_plan(plan, None)[0]))
        for answer in answers
    }
    theirs = simple_evaluate(
        model=VvlmRay(pretrained="anywhere", batch_size=5, device="cpu"),
        tasks=["nextqa_mc_test"],
        task_manager=_task_manager(plan.folder),
        bootstrap_iters=0,
    )
    said = {sample["doc_id"]: sample["filtered_resps"][0] for sample in theirs["samples"]["nextqa_mc_test"]}
    assert said == {doc: answer.strip() for doc, answer in ours.items()}


def test_arguments_that_are_not_known_are_named(saved):
    from vvlm_ray.evaluation.lmms_model import VvlmRay

    with pytest.raises(UserError, match="num_frame"):
        VvlmRay(pretrained="anywhere", num_frame=3)
    with pytest.raises(UserError, match="pretrained=FOLDER"):
        VvlmRay()
