"""From a sweep file's sources to tables: the paper's 13 in their published layouts, and what is wrong with others."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from published_layouts import NUM_ROWS, write_all

from vvlm_ray.data.examples import find_video
from vvlm_ray.data.frames import UnreadableVideo, read_frames
from vvlm_ray.data.mixtures import nested_subset
from vvlm_ray.data.published import published, published_source
from vvlm_ray.data.sources import open_mixture, source_files
from vvlm_ray.errors import UserError
from vvlm_ray.study.folder import StudyFolder
from vvlm_ray.study.sections import Source

DOCS = Path(__file__).parents[2] / "docs" / "data.md"


def open_(tmp_path, sources, share=0.0, **more):
    return open_mixture(
        {name: Source.model_validate(source) for name, source in sources.items()},
        StudyFolder(tmp_path / "study"),
        lambda path: tmp_path / path,
        max_unusable_share=share,
        digests=more,
    )


def test_the_papers_13_sources_become_one_mixture(tmp_path, tiny_videos):
    frames = []
    for index in range(NUM_ROWS):
        frames.append(tmp_path / f"{index}.jpeg")
        Image.fromarray(np.full((24, 24, 3), 40 * index, np.uint8)).save(frames[-1])
    sources = write_all(tmp_path, list(tiny_videos.values()), frames)
    assert [source["published"] for source in sources.values()] == list(published())
    # Links lead out of the roots here, as they do in a hub's cache.
    for source in sources.values():
        source["allow_outside_root"] = True
    mixture = open_(tmp_path, sources)
    assert {name: len(rows) for name, rows in mixture.items()} == dict.fromkeys(sources, NUM_ROWS)
    subset = nested_subset(mixture, 13 * NUM_ROWS, seed=0)
    assert {example.source for example in subset} == set(sources)
    for example in subset:
        video = find_video(example.video)
        assert video.exists(), video
        frames = read_frames(video, 2, start=example.start, end=example.end, fps=example.fps, root=example.root)
        assert frames.shape[0] == 2
    (hound,) = {len(list(example.video.iterdir())) for example in mixture["llava_hound"]}
    assert hound == NUM_ROWS and mixture["llava_hound"][0].fps == 1
    assert mixture["clevrer"][-1].turns[0] == ("user", "Watch the video.\nHow many ?")
    assert mixture["webvid"][0].turns == (("user", "Watch the video."), ("assistant", "a river"))
    assert mixture["video_instruct_100k"][1].turns[1][1] == "He jumps é."


def test_the_manifest_is_the_papers_and_the_docs_tell_it():
    assert sum(entry.examples for entry in published().values()) == 2_192_374
    text = DOCS.read_text()
    for name, entry in published().items():
        assert name in text and entry.repository in text and f"{entry.examples:,}" in text
        for file in entry.files:
            assert file in text
    with pytest.raises(UserError, match="none of the published data sets LLaVA-Hound"):
        published_source("llava-hound")


def rows(count, answer="yes"):
    return [{"video": f"{i}.mp4", "question": "red ?", "answer": answer} for i in range(count)]


@pytest.fixture
def files(tmp_path):
    for name, count in (("a", 3), ("b", 4)):
        (tmp_path / f"{name}.json").write_text(json.dumps(rows(count)))
    (tmp_path / "videos").mkdir()
    return tmp_path


@pytest.mark.parametrize(
    ("path", "count"), [("a.json", 3), (["a.json", "b.json"], 7), ("*.json", 7), (["*.json", "a.json"], 7)]
)
def test_files_lists_and_globs(files, path, count):
    assert len(open_(files, {"s": {"path": path, "video_root": "videos"}})["s"]) == count


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"path": "c.json"}, r"data\.sources\.s\.path: .*c\.json does not exist"),
        ({"path": "c*.json"}, r"data\.sources\.s\.path: nothing matches .*c\*\.json"),
        ({"path": "."}, r"data\.sources\.s\.path: .* is a folder; name its files"),
        ({"path": ".", "published": "WebVid"}, r"holds none of video/vqa/webvid_qa/train\.json"),
        ({"published": "WebVib"}, "none of the published data sets"),
        ({"path": "x.txt"}, r"x\.txt is none of \.json"),
        ({"num_examples": 4}, r"data\.sources\.s\.num_examples: 4 in the sweep file, but its files hold 3 rows"),
        ({"fields": {"answr": "a"}}, "fields: 'answr' is none of id, video"),
        ({"fields": {"answer": "a"}}, r"data\.sources\.s: 3 of 3 rows cannot be used"),
        ({"video": "{v"}, "video: '{v' is no pattern"),
    ],
)
def test_wrong_sources_are_named(files, changes, message):
    (files / "x.txt").write_text("")
    with pytest.raises(UserError, match=message):
        open_(files, {"s": {"path": "a.json", "video_root": "videos"} | changes})


def test_a_source_with_fewer_rows_is_refused_and_not_halved(files):
    with pytest.raises(UserError, match="hold 7 rows; add what is missing"):
        open_(files, {"s": {"path": "*.json", "video_root": "videos", "num_examples": 8}})


def test_a_table_is_made_once_and_is_never_of_other_rows(files):
    source = {"s": {"path": "*.json", "video_root": "videos"}}
    (table,) = (open_(files, source), (files / "study/data").glob("*.arrow"))[1]
    made = table.stat().st_mtime_ns
    open_(files, source)
    assert table.stat().st_mtime_ns == made
    (files / "b.json").write_text(json.dumps(rows(4, answer="no")))
    assert open_(files, source)["s"][6].turns[1][1] == "no"
    assert len(list((files / "study/data").glob("*.arrow"))) == 2


def test_files_are_told_apart_by_content_and_not_by_order(files):
    source = Source(path=["b.json", "a.json"], video_root="videos")
    assert source_files(source, lambda path: files / path) == [files / "a.json", files / "b.json"]


def test_a_data_set_in_the_hubs_cache(tmp_path, monkeypatch, tiny_videos):
    """Laid out as huggingface_hub does it: files are links to blobs, a branch is a file with a commit."""
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    repository = tmp_path / "hub/datasets--me--clips"
    for folder in ("blobs", "refs", "snapshots/abc123/videos"):
        (repository / folder).mkdir(parents=True)
    (repository / "refs/main").write_text("abc123")
    (repository / "blobs/1").write_text(json.dumps(rows(1)))
    (repository / "blobs/2").write_bytes(tiny_videos["both_9"].read_bytes())
    (repository / "snapshots/abc123/train.json").symlink_to("../../blobs/1")
    (repository / "snapshots/abc123/videos/0.mp4").symlink_to("../../../blobs/2")
    (tmp_path / "secret.mp4").write_bytes(tiny_videos["none_9"].read_bytes())
    folder = StudyFolder(tmp_path / "study")
    for revision in ("", "@main", "@abc123"):
        source = Source(path=f"hub://me/clips{revision}/*.json", video_root=f"hub://me/clips{revision}/videos")
        mixture = open_mixture(
            {"s": source},
            folder,
            lambda path: folder.resolve(path, tmp_path / "sweep.yaml"),
            max_unusable_share=0,
            digests={},
        )
        example = mixture["s"][0]
        assert example.root == repository
        assert read_frames(example.video, 2, root=example.root).shape[0] == 2
    (repository / "snapshots/abc123/videos/0.mp4").unlink()
    (repository / "snapshots/abc123/videos/0.mp4").symlink_to(tmp_path / "secret.mp4")
    with pytest.raises(UnreadableVideo):
        read_frames(example.video, 2, root=example.root)
    for wrong in ("hub://me", "hub://../x/y", "hub:///a/b"):
        with pytest.raises(UserError, match="is no address in the hub"):
            folder.resolve(wrong, tmp_path / "sweep.yaml")
