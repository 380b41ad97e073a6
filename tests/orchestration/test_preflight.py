"""Broken studies, each found by `check` with file, key and remedy, before anything runs; and the sound one is not."""

import json
import os
import shutil
import sys

import pytest
from click.testing import CliRunner
from safetensors.torch import load_file, save_file
from small_study import sweep, write_study, write_yaml

from vvlm_ray.cli import main
from vvlm_ray.errors import UserError
from vvlm_ray.orchestration.preflight import check_study
from vvlm_ray.orchestration.preflight_data import decode_with
from vvlm_ray.orchestration.run import run_study

LM_PARAMS = 4_688


@pytest.fixture(scope="module")
def template(tmp_path_factory, tiny_backbone, tiny_videos):
    folder = tmp_path_factory.mktemp("sound")
    write_study(folder, tiny_backbone.folder, tiny_videos, LM_PARAMS)
    return folder


@pytest.fixture
def folder(template, tmp_path, monkeypatch):
    for name in ("HF_HOME", "OPENAI_API_KEY", "WANDB_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    shutil.copytree(template, tmp_path / "study")
    return tmp_path / "study"


def check(folder, **options):
    return check_study(folder / "sweep.yaml", folder / "studies", **options)


def text(path, content):
    return lambda folder, raw: (folder / path).write_text(content)


def gone(path):
    def break_(folder, raw):
        target = folder / path
        shutil.rmtree(target) if target.is_dir() else target.unlink()

    return break_


def setting(value, *keys):
    def break_(folder, raw):
        node = raw
        for key in keys[:-1]:
            node = node[key]
        node[keys[-1]] = value

    return break_


def config(part, **changes):
    def break_(folder, raw):
        path = folder / "models" / part / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))

    return break_


def tensors(part, change):
    def break_(folder, raw):
        path = folder / "models" / part / "model.safetensors"
        weights = load_file(path)
        change(weights)
        save_file(weights, path, metadata={"format": "pt"})

    return break_


def rows(change):
    def break_(folder, raw):
        content = json.loads((folder / "labels.json").read_text())
        (folder / "labels.json").write_text(json.dumps(change(content)))

    return break_


def swapped(folder, raw):
    raw["backbones"]["tiny"] |= {"lm": "models/vision", "vision": "models/lm"}


def emptied(path):
    def break_(folder, raw):
        shutil.rmtree(folder / path)
        (folder / path).mkdir()

    return break_


def pickled(folder, raw):
    (folder / "models/lm/model.safetensors").rename(folder / "models/lm/pytorch_model.bin")


def cut_weights(folder, raw):
    path = folder / "models/vision/model.safetensors"
    path.write_bytes(path.read_bytes()[:100])


def no_template(folder, raw):
    (folder / "models/lm/chat_template.jinja").unlink()


def damaged(root):
    def break_(folder, raw):
        for path in (folder / root).iterdir():
            path.write_bytes(b"no video")

    return break_


def archived(folder, raw):
    emptied("videos")(folder, raw)
    (folder / "videos/chunk_0.tar.gz").write_bytes(b"x")


def second_backbone(folder, raw):
    raw["backbones"]["other"] = raw["backbones"]["tiny"] | {"lm_params": 9_000}


def projector_of_others(folder, raw):
    import torch

    save_file({"0.weight": torch.zeros(3, 3)}, folder / "projector.safetensors")
    raw["backbones"]["tiny"]["projector"] = "projector.safetensors"


def benchmark_without_videos(folder, raw):
    raw["evaluation"]["tasks"].append("VMME")
    os.environ["HF_HOME"] = str(folder)


def too_few_usable(folder, raw):
    raw["sweeps"][0]["num_examples"], raw["data"]["max_unusable_share"] = [24], 0.9
    rows(lambda content: content[:22] + [{"video": "a.mp4"}] * 2)(folder, raw)


CLIPS, TINY = "data.sources.clips", "backbones.tiny"
SOURCE, LOCAL = ("data", "sources", "clips"), ("evaluation", "local", "mine")
SWEEP = ("sweeps", 0)
HUGE = [{"video": "a", "question": "what " * 3000, "answer": "green"}] * 2
BROKEN = {
    "no such LM": (gone("models/lm"), f"{TINY}.lm", "does not exist", "correct the path"),
    "no such tower": (gone("models/vision"), f"{TINY}.vision", "does not exist", "correct the path"),
    "LM and tower swapped: lm": (swapped, f"{TINY}.lm", "is a siglip_vision_model model", "causal language model"),
    "LM and tower swapped: vision": (swapped, f"{TINY}.vision", "is a llama model", "a SigLIP vision tower"),
    "empty LM folder": (emptied("models/lm"), f"{TINY}.lm", "holds no config.json", "give the folder of a model"),
    "empty tower folder": (emptied("models/vision"), f"{TINY}.vision", "holds no config.json", "give the folder"),
    "LM's config is no JSON": (text("models/lm/config.json", "{"), f"{TINY}.lm", "cannot be read", ""),
    "tower without weights": (gone("models/vision/model.safetensors"), f"{TINY}.vision", "no weights", "save it as"),
    "weights as pickle": (pickled, f"{TINY}.lm", "pickles are not loaded", "save it as safetensors"),
    "weights cut off": (cut_weights, f"{TINY}.vision", "cannot be loaded", ""),
    "a missing layer": (tensors("lm", lambda w: w.pop("model.layers.1.mlp.up_proj.weight")), f"{TINY}.lm",
                        "misses model.layers.1.mlp.up_proj.weight", ""),
    "a layer too many": (config("lm", num_hidden_layers=1), f"{TINY}.lm", "does not know model.layers.1", ""),
    "other widths": (config("lm", intermediate_size=48), f"{TINY}.lm", "has in another shape", ""),
    "no tokenizer": (gone("models/lm/tokenizer.json"), f"{TINY}.lm", "", ""),
    "no chat template": (no_template, f"{TINY}.lm", "no chat template", "name one"),
    "no preprocessor": (gone("models/vision/preprocessor_config.json"), f"{TINY}.vision", "not found", "copy it"),
    "a broken preprocessor": (text("models/vision/preprocessor_config.json", "[]"), f"{TINY}.vision",
                              "cannot be read", "copy it"),
    "lm_params off by 10": (lambda f, raw: raw.update(sweep(46_880)), f"{TINY}.lm_params",
                            "46,880 in the sweep file", "write 4688"),
    "vision_params of another tower": (setting(428e6, "cost", "vision_params"), "cost.vision_params",
                                       "has 10,032", "write 10032"),
    "vision_tokens of another tower": (setting(729, "cost", "vision_tokens"), "cost.vision_tokens", "has 16", "write"),
    "a second backbone of the same weights": (second_backbone, "backbones.other.lm_params", "has 4,688", "write"),
    "a projector that does not fit": (projector_of_others, f"{TINY}.projector", "do not fit", "pretrain"),
    "tokens beyond the patches": (setting([4, 25], *SWEEP, "levels", "tokens_per_frame"), "sweeps",
                                  "more than the 16 patches", "lower tokens_per_frame"),
    "frames beyond the context": (setting([2, 600], *SWEEP, "levels", "num_frames"), "sweeps",
                                  "do not fit into its LM's context of 2,048", "lower num_frames"),
    "rows beyond the context": (rows(lambda _: HUGE * 12), CLIPS, "too long for the context", "shorten the rows"),
    "no such labels": (gone("labels.json"), f"{CLIPS}.path", "does not exist", "correct the path"),
    "a glob without a match": (setting("*.jsonl.gz", *SOURCE, "path"), f"{CLIPS}.path", "nothing matches", "correct"),
    "a folder of labels": (setting(".", *SOURCE, "path"), f"{CLIPS}.path", "is a folder", "name its files"),
    "labels that are no JSON": (text("labels.json", '[{"video": '), CLIPS, "row 1 is not JSON", ""),
    "labels cut off": (lambda f, raw: (f / "labels.json").write_text((f / "labels.json").read_text()[:-1]), CLIPS,
                       "as if the file were cut off", "get it again"),
    "labels of another kind": (text("labels.json", '{"a": 1}'), CLIPS, "1 of 1 rows cannot be used", "mend or leave"),
    "empty answers": (rows(lambda r: [row | {"answer": ""} for row in r]), CLIPS, "24 of 24 rows", "an empty answer"),
    "text-only rows": (rows(lambda r: [{"question": "a", "answer": "b"}] * 24), CLIPS, "24 of 24 rows", "text only"),
    "absolute paths": (rows(lambda r: [row | {"video": "/etc/passwd"} for row in r]), CLIPS, "24 of 24", "outside"),
    "fewer rows than stated": (rows(lambda r: r[:20]), f"{CLIPS}.num_examples", "hold 20 rows", "add what is missing"),
    "more examples than rows": (setting([8, 30], *SWEEP, "num_examples"), "sweeps", "need 30 examples", "add data"),
    "fewer usable rows than needed": (too_few_usable, "sweeps", "hold 22 that can be used", "lower num_examples"),
    "an unknown field": (setting({"answr": "answer"}, *SOURCE, "fields"), CLIPS, "'answr' is none of", ""),
    "an unknown data set": (setting("WebVib", *SOURCE, "published"), CLIPS, "none of the published", ""),
    "no video folder": (gone("videos"), f"{CLIPS}.video_root", "does not exist", "correct the path"),
    "all videos deleted": (emptied("videos"), f"{CLIPS}.video_root", "24 of 24 videos are not there", "correct"),
    "videos still in archives": (archived, f"{CLIPS}.video_root", "are not there", "unpack chunk_0.tar.gz"),
    "videos of another root": (setting("models", *SOURCE, "video_root"), f"{CLIPS}.video_root", "not there", "correct"),
    "videos that are none": (damaged("videos"), f"{CLIPS}.video_root", "cannot be read, such as", "mend or leave"),
    "no questions file": (gone("questions.jsonl"), "evaluation.local.mine.questions", "does not exist", "correct"),
    "questions without answers": (text("questions.jsonl", '{"video": "both_1.mp4", "question": "?"}\n'),
                                  "evaluation.local.mine.questions", "answer missing", "its answer"),
    "no questions at all": (text("questions.jsonl", ""), "evaluation.local.mine.questions", "no questions", "give"),
    "no test videos": (emptied("test_videos"), "evaluation.local.mine.video_root", "are not there", "correct"),
    "test videos that are none": (damaged("test_videos"), "evaluation.local.mine.video_root", "cannot be read", "mend"),
    "an unknown benchmark": (setting(["mine", "MMBench"], "evaluation", "tasks"), "evaluation.tasks", "'MMBench'",
                             "correct it"),
    "a benchmark named twice": (setting(["mine", "mine"], "evaluation", "tasks"), "evaluation.tasks", "named twice",
                                "name it once"),
    "no HF_HOME": (setting(["mine", "NQA"], "evaluation", "tasks"), "evaluation.tasks", "HF_HOME is not set", ""),
    "a benchmark without videos": (benchmark_without_videos, "evaluation.tasks", "no videos in", "put the videos"),
    "no judge's key": (setting(["mine", "AQA"], "evaluation", "tasks"), "evaluation.tasks", "OPENAI_API_KEY", ""),
    "no W&B key": (setting("online", "tracking", "mode"), "tracking.mode", "no W&B key", "wandb login"),
    "a misspelt key": (setting(1, "finetune", "batchsize"), "", "batchsize", ""),
    "a level without a backbone": (setting([4_688, 7e9], *SWEEP, "levels", "lm_params"), "", "no backbone has", ""),
    "no YAML": (lambda f, raw: raw.clear(), "", "sweep.yaml", ""),
}  # fmt: skip


@pytest.mark.parametrize("name", BROKEN)
def test_broken_studies_are_found(folder, monkeypatch, name):
    break_, key, what, remedy = BROKEN[name]
    monkeypatch.setenv("HOME", str(folder))  # no login of W&B's
    raw = sweep(LM_PARAMS)
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("HF_HOME", os.environ.get("HF_HOME", ""))
        break_(folder, raw)
        write_yaml(folder / "sweep.yaml", raw)
        problems = check(folder).problems
    matching = [
        p for p in problems if p.key == key and what in f"{p.file} {p.what}" and remedy in f"{p.what} {p.remedy}"
    ]
    assert matching, "\n".join(map(str, problems)) or "nothing was found"
    assert all(p.file and p.what and p.remedy for p in problems)


def test_there_are_at_least_forty():
    assert len(BROKEN) >= 40


def test_a_sound_study_has_no_problem_and_is_quick_the_second_time(folder):
    checked = check(folder)
    assert checked.problems == [] and checked.notes == []
    table = next((folder / "studies/small/data").glob("*.arrow"))
    made = table.stat().st_mtime_ns
    assert check(folder).problems == [] and table.stat().st_mtime_ns == made
    assert not (folder / "studies/small/sweep.yaml").exists()


def test_what_is_tolerated_is_said(folder):
    content = json.loads((folder / "labels.json").read_text())
    (folder / "labels.json").write_text(json.dumps([*content, {"video": "a.mp4"}]))
    raw = sweep(LM_PARAMS)
    raw["data"]["max_unusable_share"] = 0.05
    write_yaml(folder / "sweep.yaml", raw)
    checked = check(folder)
    assert checked.problems == []
    (note,) = checked.notes
    assert "1 of 25 rows cannot be used" in note and "labels.json, row 25" in note


def test_run_refuses_before_ray_is_started(folder):
    emptied("videos")(folder, None)
    with pytest.raises(UserError, match=r"data\.sources\.clips\.video_root: 24 of 24 videos are not there"):
        run_study(folder / "sweep.yaml", folder / "studies")
    ray = sys.modules.get("ray")
    assert ray is None or not ray.is_initialized()


def test_storage_that_cannot_be_written(folder):
    (folder / "studies").write_text("a file")
    (problem,) = check_study(folder / "sweep.yaml", folder / "studies").problems
    assert problem.key == "--storage" and "cannot be written" in problem.what and "choose another" in problem.remedy


def test_every_video_is_decoded_when_asked_for(folder):
    (folder / "videos/none_9.mp4").write_bytes(b"no video")
    seen = []

    def in_order(function, items):
        seen.extend(example for item in items for example in item)
        return map(function, items)

    (problem,) = check(folder, decode_all=decode_with(in_order)).problems
    assert "1 of 12 videos tried cannot be read" in problem.what and "none_9.mp4" in problem.what
    assert len({example.video for example in seen}) == 24  # training's and the benchmark's


def test_the_command(folder):
    command = ["check", str(folder / "sweep.yaml"), "--storage", str(folder / "studies")]
    done = CliRunner().invoke(main, command)
    assert done.exit_code == 0 and "No problems" in done.output
    shutil.rmtree(folder / "videos")
    done = CliRunner().invoke(main, [*command, "--json"])
    assert done.exit_code == 2
    (problem,) = json.loads(done.output)["problems"]
    assert problem["key"] == "data.sources.clips.video_root" and problem["file"].endswith("sweep.yaml")
    done = CliRunner().invoke(main, command)
    assert done.exit_code == 2 and "1 problem." in done.output
