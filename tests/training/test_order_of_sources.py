"""The order in which a sweep file lists its sources changes neither ids nor a bit of the training."""

import json

from workbench import Workbench, same

from vvlm_ray.data.dataset import VideoInstructionDataset
from vvlm_ray.data.mixtures import nested_subset
from vvlm_ray.data.sources import open_mixture
from vvlm_ray.study.folder import StudyFolder
from vvlm_ray.study.sections import Source


def test_another_order_is_the_same_training_to_the_digit(tiny_backbone, tiny_llava_json, tmp_path):
    bench = Workbench(tiny_backbone.folder, tiny_llava_json)
    rows = json.loads(tiny_llava_json.read_text())
    for name, part in (("a", rows[:9]), ("b", rows[9:14]), ("c", rows[14:])):
        (tmp_path / f"{name}.json").write_text(json.dumps(part))
    runs = []
    for order in ("abc", "cab"):
        sources = {n: Source(path=f"{n}.json", video_root=str(tiny_llava_json.parent)) for n in order}
        mixture = open_mixture(
            sources, StudyFolder(tmp_path / order), lambda path: tmp_path / path, max_unusable_share=0, digests={}
        )
        template = bench.dataset()
        dataset = VideoInstructionDataset(
            nested_subset(mixture, 16, seed=0),
            tokenizer=bench.tokenizer(),
            preprocessor=template.encoder.preprocessor,
            num_frames=2,
            tokens_per_frame=4,
        )
        runs.append(bench.run(dataset=dataset, settings={"batch_size": 4}))
    (_, first, weights), (_, second, others) = runs
    assert first.final_loss == second.final_loss
    same(weights, others)
