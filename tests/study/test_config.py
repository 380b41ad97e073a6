"""The sweep file: what is refused, and with what words."""

from pathlib import Path

import pytest
import yaml

from vvlm_ray.errors import UserError
from vvlm_ray.study.sweep_file import load_sweep

QUICKSTART = Path(__file__).parents[2] / "sweeps" / "quickstart.yaml"


@pytest.fixture
def sweep(tmp_path):
    """Write the quickstart sweep with changes and return its path."""

    def write(change):
        raw = yaml.safe_load(QUICKSTART.read_text())
        change(raw)
        path = tmp_path / "sweep.yaml"
        path.write_text(yaml.safe_dump(raw))
        return path

    return write


def test_the_quickstart_loads_and_names_what_method_md_names():
    study = load_sweep(QUICKSTART)
    assert len(study.backbones) == 3
    assert {s.kind for s in study.sweeps} == {"star", "isoflop"}


def test_exponents_written_without_a_sign_are_numbers(sweep):
    path = sweep(lambda raw: None)
    path.write_text(path.read_text().replace("tflops_per_slot: 0.009", "tflops_per_slot: 1e2"))  # a string in YAML 1.1
    assert load_sweep(path).planning.tflops_per_slot == 100


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda r: r.update(sede=1), ["sede", "unknown key"]),
        (lambda r: r["finetune"].update(learning_rate=1), ["finetune.learning_rate", "unknown key"]),
        (lambda r: r["sweeps"][0].update(levles={}), ["sweeps.0.levles", "unknown key"]),
        (lambda r: r.pop("data"), ["data", "missing"]),
        (lambda r: r["sweeps"][0]["levels"].update(tokens_per_frame=[4, 10]), ["tokens_per_frame = 10", "square"]),
        (lambda r: r["sweeps"][0]["levels"].update(num_frames=[1.5]), ["num_frames", "whole number"]),
        (lambda r: r["sweeps"][0]["levels"].update(lm_params=[7e9]), ["7,000,000,000", "backbone"]),
        (lambda r: r["sweeps"][1]["curves"][0]["points"].append([98_368, 2]), ["sweeps[1].curves[0]", "2 values"]),
        (lambda r: r["sweeps"][0]["centre"].update(fps=2), ["sweeps[0].centre", "unknown: fps"]),
        (lambda r: r["backbones"]["small"].update(lm_params=98_368), ["same lm_params"]),
        (lambda r: r.update(name="../elsewhere"), ["name"]),
        (lambda r: r["finetune"].update(batch_size=0), ["finetune.batch_size", "greater than 0"]),
    ],
)
def test_bad_values_are_named(sweep, change, words):
    path = sweep(change)
    with pytest.raises(UserError) as err:
        load_sweep(path)
    for word in [*words, str(path)]:
        assert word in str(err.value)


def test_a_repeated_key_is_refused(sweep):
    path = sweep(lambda raw: None)
    path.write_text(path.read_text() + "seed: 1\n")
    with pytest.raises(UserError, match="'seed' is given twice"):
        load_sweep(path)


def test_a_missing_file_and_a_broken_one_are_named(tmp_path):
    with pytest.raises(UserError, match=r"nothing\.yaml"):
        load_sweep(tmp_path / "nothing.yaml")
    broken = tmp_path / "broken.yaml"
    broken.write_text("name: [")
    with pytest.raises(UserError, match=r"broken\.yaml: not valid YAML"):
        load_sweep(broken)
    broken.write_text("- 1")
    with pytest.raises(UserError, match="mapping"):
        load_sweep(broken)


def test_yaml_tags_cannot_run_code(tmp_path):
    path = tmp_path / "evil.yaml"
    path.write_text("name: !!python/object/apply:os.getcwd []\n")
    with pytest.raises(UserError):
        load_sweep(path)
