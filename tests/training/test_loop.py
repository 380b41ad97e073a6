"""The loop on one worker, with real files, a real tower and a real LM."""

import pickle
import shutil
from dataclasses import replace

import pytest
import torch
from workbench import STAGE1, same, settings_of

from vvlm_ray.data.dataset import Collator, Unreadable
from vvlm_ray.errors import UserError
from vvlm_ray.training.divergence import History
from vvlm_ray.training.loop import finetune, label_weights
from vvlm_ray.training.results import Diverged, UnreadableVideos


def test_it_learns_and_counts(bench):
    reports = []
    model, result, _ = bench.run(settings={"epochs": 8, "batch_size": 8}, on_step=reports.append)
    assert result.num_steps == len(reports) == 24
    assert [report.step for report in reports] == list(range(1, 25))
    assert (result.num_examples_seen, result.num_unreadable) == (8 * 24, 0)
    assert result.final_loss == reports[-1].loss
    assert result.mean_loss_last_tenth == pytest.approx(sum(report.loss for report in reports[-2:]) / 2)
    assert result.mean_loss_last_tenth < 0.5 * reports[0].loss
    assert max(report.lr for report in reports) == 1e-2
    assert all(r.tokens_per_second > r.examples_per_second > 0 and r.tflops_per_second > 0 for r in reports)
    assert not model.training


@pytest.mark.parametrize("loss", ["per_example", "per_token"])
@pytest.mark.parametrize("micro", [*range(1, 17), None])
def test_gradients_are_those_of_a_plain_loop_over_examples(bench, monkeypatch, loss, micro):
    """Conversations of one and of two answers, padded together or not, against each example on its own."""
    expected_loss, expected = bench.plain_gradients(loss)
    found, reports = bench.watch_gradients(monkeypatch), []
    settings = {"batch_size": 24, "micro_batch_size": micro, "loss": loss}
    bench.run(bench.model(torch.float64), bench.items(), settings=settings, on_step=reports.append)
    same(expected, found, atol=1e-6, rtol=0)
    assert reports[0].loss == pytest.approx(expected_loss, rel=1e-6)


def test_examples_or_tokens_weigh_the_same(bench):
    """What the two losses differ in, by hand: the second half of the examples has longer answers."""
    rows = torch.tensor([[5, -100, 7, -100], [-100, 6, 7, 8], [5, -100, -100, -100]])
    weights, num_terms = label_weights(rows, "per_example")
    torch.testing.assert_close(weights, torch.tensor([[0, 0, 1.0, 0], [0, 1 / 3, 1 / 3, 1 / 3], [0, 0, 0, 0]]))
    assert num_terms == 2
    weights, num_terms = label_weights(rows, "per_token")
    torch.testing.assert_close(weights, torch.tensor([[0, 0, 1.0, 0], [0, 1.0, 1, 1], [0, 0, 0, 0]]))
    assert num_terms == 4
    assert bench.plain_gradients("per_example")[0] != pytest.approx(bench.plain_gradients("per_token")[0], rel=1e-3)


@pytest.mark.parametrize("micro", [4, 5, 1])
def test_accumulation_changes_nothing(bench, micro):
    """1 x 16 = 4 x 4, conversations of different lengths included; 24 examples make a last batch of 8."""
    # float64, since AdamW turns a rounding error of a gradient that is 0 into a part of the learning rate.
    _, whole, expected = bench.run(bench.model(torch.float64))
    _, cut, weights = bench.run(bench.model(torch.float64), settings={"micro_batch_size": micro})
    same(expected, weights, atol=1e-6, rtol=0)
    assert cut.final_loss == pytest.approx(whole.final_loss, rel=1e-5)
    assert cut.num_examples_seen == whole.num_examples_seen == 24


def test_same_seed_same_weights_and_another_seed_others(bench):
    _, _, first = bench.run()
    _, _, again = bench.run()
    _, _, other = bench.run(settings={"seed": 1})
    same(first, again)
    assert not torch.equal(first["projector.0.weight"], other["projector.0.weight"])


class Interrupted(Exception):
    pass


@pytest.mark.parametrize("stage", [{}, STAGE1])
def test_interrupted_and_resumed_is_uninterrupted(bench, tmp_path, stage):
    """Bit for bit, dropout's random numbers included."""
    settings = {"batch_size": 5, "micro_batch_size": 2, "epochs": 2} | stage

    def with_dropout():
        model = bench.model()
        for layer in model.language_model.model.layers:
            layer.self_attn.attention_dropout = 0.2
        return model

    _, expected_result, expected = bench.run(with_dropout(), settings=settings)

    def stop(report):
        if report.step == 6:  # in the second epoch; the checkpoint is that of step 5
            raise Interrupted

    def save(folder):
        shutil.rmtree(tmp_path / "kept", ignore_errors=True)
        shutil.copytree(folder, tmp_path / "kept")

    with pytest.raises(Interrupted):
        bench.run(
            with_dropout(),
            settings=settings | {"checkpoint_every_seconds": 1e-9},
            on_step=stop,
            save_checkpoint=save,
        )
    torch.manual_seed(12345)  # whatever happened in between
    reports = []
    _, result, weights = bench.run(
        with_dropout(), settings=settings, resume_from=tmp_path / "kept", on_step=reports.append
    )
    assert reports[0].step == 6
    same(expected, weights)
    assert result.final_loss == expected_result.final_loss
    assert result.mean_loss_last_tenth == expected_result.mean_loss_last_tenth
    assert result.num_examples_seen == expected_result.num_examples_seen == 48


def test_a_finished_checkpoint_gives_its_result_at_once(bench, tmp_path):
    settings = {"checkpoint_every_seconds": 1e-9}
    _, expected, weights = bench.run(
        settings=settings, save_checkpoint=lambda f: shutil.copytree(f, tmp_path / "kept", dirs_exist_ok=True)
    )
    _, result, again = bench.run(settings=settings, resume_from=tmp_path / "kept")
    same(weights, again)
    assert result.num_steps == expected.num_steps and result.final_loss == expected.final_loss


def test_a_checkpoint_of_another_run_is_refused(bench, tmp_path):
    bench.run(
        settings={"checkpoint_every_seconds": 1e-9},
        save_checkpoint=lambda f: shutil.copytree(f, tmp_path / "kept", dirs_exist_ok=True),
    )
    with pytest.raises(UserError, match=r"another run \(lr 0.01 then, 0.02 now\)"):
        bench.run(settings={"lr": 2e-2}, resume_from=tmp_path / "kept")
    with pytest.raises(UserError, match=r"num_examples 24 then, 20 now"):
        bench.run(dataset=bench.dataset(20), resume_from=tmp_path / "kept")
    with pytest.raises(UserError, match=r"state.json: cannot be read"):
        bench.run(resume_from=tmp_path)


def test_short_runs_save_nothing(bench):
    saved = []
    bench.run(settings={"checkpoint_every_seconds": 600}, save_checkpoint=saved.append)
    assert saved == []


def test_projector_only_changes_the_projector_alone(bench):
    before = {name: p.detach().clone() for name, p in bench.model().named_parameters()}
    model, _, after = bench.run(settings=STAGE1)
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == {name for name in before if name.startswith("projector.")}
    assert model.language_model.get_input_embeddings().weight.requires_grad  # as it was before


def test_the_vision_tower_has_its_own_learning_rate(bench):
    """AdamW's first step moves every weight by its learning rate."""
    before = {name: p.detach().clone() for name, p in bench.model().named_parameters()}
    _, _, after = bench.run(settings={"batch_size": 24, "projector_lr": 3e-2})
    moved = {
        part: max(float((after[name] - before[name]).abs().max()) for name in before if name.startswith(part))
        for part in ("vision_tower", "projector", "language_model")
    }
    assert moved == pytest.approx({"vision_tower": 1e-3, "projector": 3e-2, "language_model": 1e-2}, rel=1e-2)


def test_gradient_checkpointing_changes_nothing(bench):
    _, _, expected = bench.run()
    model, _, weights = bench.run(settings={"gradient_checkpointing": True})
    same(expected, weights)
    assert not any(getattr(module, "gradient_checkpointing", False) for module in model.modules())


def test_bf16_on_the_cpu_keeps_weights_in_float32(bench):
    _, expected, _ = bench.run()
    _, result, weights = bench.run(settings={"precision": "bf16"})
    assert {value.dtype for value in weights.values()} == {torch.float32}
    assert result.final_loss == pytest.approx(expected.final_loss, rel=0.05)
    assert result.final_loss != expected.final_loss


def test_loader_workers_change_nothing(bench, monkeypatch):
    """Also where they are replaced after every 12 examples."""
    monkeypatch.setattr("vvlm_ray.training.batches.EXAMPLES_PER_LOADER_WORKER", 12)
    settings = {"batch_size": 4, "micro_batch_size": 2}
    _, _, expected = bench.run(settings=settings)
    _, result, weights = bench.run(settings=settings | {"num_loader_workers": 1})
    same(expected, weights)
    assert result.num_examples_seen == 24
    dataset = bench.dataset()
    dataset.encoder = replace(dataset.encoder, max_length=5)
    with pytest.raises(UserError, match="the LM's context holds 5"):  # out of the worker
        bench.run(dataset=dataset, settings=settings | {"num_loader_workers": 1})


def test_unreadable_videos_are_left_out_and_counted(bench, tmp_path):
    dataset = bench.dataset()
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"no video")
    examples = list(dataset.examples)
    readable = [e for index, e in enumerate(examples) if index not in (3, 17)]
    dataset.examples = [e if e in readable else type(e)(e.example_id, broken, e.turns, e.source) for e in examples]
    # One batch of everything: which examples are left out then makes the only difference.
    settings = {"batch_size": 24, "max_unreadable_share": 0.1, "micro_batch_size": 1}
    _, result, weights = bench.run(bench.model(torch.float64), dataset, settings=settings)
    assert (result.num_examples_seen, result.num_unreadable) == (22, 2)
    assert result.unreadable[0][0] == str(broken) and "no video" in result.unreadable[0][1]
    dataset.examples = readable
    _, _, expected = bench.run(bench.model(torch.float64), dataset, settings=settings)
    same(expected, weights, atol=1e-6, rtol=0)

    dataset.examples = [type(e)(e.example_id, broken, e.turns, e.source) for e in examples]
    with pytest.raises(UnreadableVideos, match=r"of 24 videos .* allows 0.1;.*\n.*broken.mp4") as caught:
        bench.run(dataset=dataset, settings=settings | {"batch_size": 3})
    assert isinstance(caught.value, UserError)
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)  # Ray sends it to the driver


def test_a_step_without_any_readable_video_is_passed_over(bench):
    dataset = bench.dataset()
    items = [dataset[index] for index in range(6)] + [Unreadable("a.mp4", "missing")] * 2
    _, result, _ = bench.run(
        dataset=items, settings={"batch_size": 1, "max_unreadable_share": 0.5}, model=bench.model()
    )
    assert (result.num_steps, result.num_examples_seen, result.num_unreadable) == (8, 6, 2)


def test_an_empty_dataset(bench):
    with pytest.raises(UserError, match="nothing to finetune on"):
        bench.run(dataset=bench.dataset(0))


def test_a_loss_that_is_no_number_ends_the_run(bench):
    model = bench.model()
    with torch.no_grad():
        model.projector[0].weight[0, 0] = torch.nan
    with pytest.raises(Diverged, match=r"step 1 of 2; .*examples: row\d+, .*row\d+"):
        bench.run(model)


def test_a_loss_far_beyond_its_history_ends_the_run(bench):
    """Whether it lasts for five steps or the run ends with it; one odd batch does not."""
    with pytest.raises(Diverged, match=r"loss .*limit .*examples: "):
        bench.run(dataset=bench.items(), settings={"lr": 2.0, "batch_size": 4, "epochs": 4})
    history = History([1.0] * 20)
    for loss in (9.0, 9.0, 1.1, *[9.0] * 4):
        history.add(loss, 1.0)
        assert not history.has_diverged
    history.add(9.0, 1.0)
    assert history.has_diverged and "limit 5" in history.last
    falling = History()
    for step in range(200):  # from ln(vocabulary) to nothing, with odd batches
        falling.add(12 * 0.97**step + (step % 7 == 0), 1.0 + step % 5)
    assert falling.num_far == 0


def test_sharding_outside_of_a_process_group(bench):
    with pytest.raises(UserError, match="needs a process group"):
        finetune(bench.model(), bench.dataset(), Collator(0), settings_of(sharding="fsdp"))
