"""Miniatures of the paper's 13 sources, laid out as their repositories are, a few rows each."""

from __future__ import annotations

import json
from pathlib import Path

NUM_ROWS = 6


def chat(video: str, *texts: str, mark: str = "<image>\n", **more) -> dict:
    turns = [{"from": ("human", "gpt")[i % 2], "value": text} for i, text in enumerate(texts)]
    turns[0]["value"] = mark + turns[0]["value"]
    return {"id": Path(video).stem, "conversations": turns, "video": video} | more


def videochat2(video: str, *pairs: tuple[str, str]) -> dict:
    return {"video": video, "QA": [{"i": "Watch the video.", "q": q, "a": a} for q, a in pairs]}


def write(path: Path, rows: list[dict]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(rows, ensure_ascii=False))


def write_all(folder: Path, clips: list[Path], frames: list[Path]) -> dict[str, dict]:
    """Annotations below folder/annotations/<repository>, videos (links to `clips`) below folder/videos/<source>.

    `frames` are image files, of which LLaVA-Hound's folders are made. Returns the sources of a sweep file.
    """
    sources: dict[str, dict] = {}

    def source(name: str, published: str, repository: str, rows: dict[str, list[dict]], videos: list[str]) -> None:
        for file, content in rows.items():
            write(folder / "annotations" / repository / file, content)
        for number, video in enumerate(videos):
            target = folder / "videos" / name / video
            target.parent.mkdir(parents=True, exist_ok=True)
            target.symlink_to(clips[number % len(clips)])
        sources[name] = {"published": published, "path": f"annotations/{repository}", "video_root": f"videos/{name}"}

    llava_video, videogpt = "lmms-lab/LLaVA-Video-178K", "MBZUAI/VideoGPT-plus_Training_Dataset"
    hound = [f"shareVideoGPTV/frames/all_frames/clip-{i}" for i in range(NUM_ROWS)]
    source("llava_hound", "LLaVA-Hound", llava_video, {
        "llava_hound/sharegptvideo_qa_255k_processed.json": [chat(v, "What happens ?", "Much.") for v in hound],
    }, [])  # fmt: skip
    for number, video in enumerate(hound):
        target = folder / "videos/llava_hound" / video
        target.mkdir(parents=True)
        for index, frame in enumerate(frames[number:] + frames[:number], start=1):
            (target / f"c01_{index:04d}.jpeg").symlink_to(frame)
    charades = [f"academic_source/Charades/RW{i}.mp4" for i in range(3)]
    youtube = [f"liwei_youtube_videos/videos/youtube_video_2024/ytb_{i}.mp4" for i in range(3)]
    source("llava_video_178k", "LLaVA-Video-178K", llava_video, {
        "0_30_s_academic_v0_1/0_30_s_academic_v0_1_cap_processed.json":
            [chat(charades[0], "Please describe.", "A man sits.", data_source="0_30_s_academic_v0_1")],
        "0_30_s_academic_v0_1/0_30_s_academic_oe_v0_1_qa_processed.json":
            [chat(charades[1], "Who ?", "A man.", "Where ?", "Inside.")],
        "1_2_m_academic_v0_1/1_2_m_academic_mc_v0_1_qa_processed.json":
            [chat(charades[2], "Which ?\nA. one\nB. two\nPlease answer.", "B. two")],
        "0_30_s_youtube_v0_1/0_30_s_youtube_mc_v0_1_qa_processed.json":
            [chat(v, "Which ?\nA. one\nB. two", "A. one") for v in youtube],
    }, charades + youtube)  # fmt: skip
    activitynet = [f"ActivityNet-QA/activitynet/train/v_{i}.mp4" for i in range(NUM_ROWS)]
    source("activitynet_qa", "ActivityNet-QA", llava_video, {
        "0_30_s_activitynetqa/0_30_s_activitynetqa_oe_qa_processed.json":
            [chat(v, "is it red ?", "no", mark="<image>\n") for v in activitynet[:2]],
        "2_3_m_activitynetqa/2_3_m_activitynetqa_oe_qa_processed.json":
            [chat(v, "is it red ?", "yes") for v in activitynet[2:]],
    }, activitynet)  # fmt: skip
    nextqa = [f"NextQA/{i}.mp4" for i in range(NUM_ROWS)]
    source("next_qa", "NExT-QA", llava_video, {
        "0_30_s_nextqa/0_30_s_nextqa_oe_qa_processed.json": [chat(v, "why ?", "rain") for v in nextqa[:3]],
        "1_2_m_nextqa/1_2_m_nextqa_mc_qa_processed.json": [chat(v, "why ?\nA. rain\nB. sun", "A") for v in nextqa[3:]],
    }, nextqa)  # fmt: skip
    perception = [f"perception_test/videos/video_{i}.mp4" for i in range(NUM_ROWS)]
    source("perception_test", "PerceptionTest", llava_video, {
        "0_30_s_perceptiontest/0_30_s_perceptiontest_mc_qa_processed.json":
            [chat(v, "Is the camera moving ?\nA. yes\nB. no", "B") for v in perception],
    }, perception)  # fmt: skip
    names = [f"v_k_ZXmr8pmr{i}" for i in range(NUM_ROWS)]
    endings = [".mp4", ".mkv", ".webm"] * 2
    source("video_instruct_100k", "VideoInstruct100K", "MBZUAI/VideoInstruct-100K", {
        "VideoInstruct100K.json": [{"q": "What is he doing ?", "a": "He jumps é.", "video_id": v} for v in names],
    }, [name + ending for name, ending in zip(names, endings, strict=True)])  # fmt: skip
    for name, published, file in (
        ("vcg_plus_112k", "VCG+112K", "vcg-plus_112K.json"),
        ("video_chatgpt_human", "VideoChatGPT human annotated", "vcg_human_annotated.json"),
    ):
        videos = [f"{video}.mp4" for video in names]
        rows = [chat(v, "What ?", "A woman.", "How ?", "Slowly.", mark="<image>\n") for v in videos]
        source(name, published, "MBZUAI/VCG-plus_112K", {file: rows}, videos)
    webvid = [f"032{i}/{i}5801.mp4" for i in range(NUM_ROWS)]
    source("video_chat", "VideoChat", videogpt, {
        "annotations/conversation_videochat1.json": [chat(v, "a ?", "b", "c ?", "d") for v in webvid[:3]],
        "annotations/caption_videochat.json": [chat(v, "Describe it.", "A long text.") for v in webvid[3:]],
    }, webvid)  # fmt: skip
    kinetics = [f"k400/train/{i}.mp4" for i in range(NUM_ROWS)]
    source("kinetics_710", "Kinetics-710", videogpt, {
        "annotations/classification_k710.json": [chat(v, "Which action ?", "The answer is dancing.") for v in kinetics],
    }, kinetics)  # fmt: skip
    numbered = [f"{1000 + i}.webm" for i in range(NUM_ROWS)]
    source("something_something", "Something-Something-v2", "OpenGVLab/VideoChat2-IT", {
        "video/classification/ssv2/train.json": [videochat2(v, ("Which action ?", "Pushing a cup.")) for v in numbered],
    }, numbered)  # fmt: skip
    clevrer = [f"video_{i:05d}.mp4" for i in range(NUM_ROWS)]
    source("clevrer", "CLEVRER", "OpenGVLab/VideoChat2-IT", {
        "video/reasoning/clevrer_qa/train.json":
            [videochat2(v, ("How many ?", "2"), ("Which ?", "cube")) for v in clevrer[:3]],
        "video/reasoning/clevrer_mc/train.json":
            [videochat2(v, ("Which ?\n(A) x\n(B) y", "(A) x")) for v in clevrer[3:]],
    }, clevrer)  # fmt: skip
    source("webvid", "WebVid", "OpenGVLab/VideoChat2-IT", {
        "video/vqa/webvid_qa/train.json": [videochat2(v, ("", "a river")) for v in webvid],
    }, webvid)  # fmt: skip
    return sources
