"""The greedy loop against transformers' generate, and how answers end; real tiny models."""

import time

import pytest
import torch
from colour_world import COLOURS, NUM_FRAMES, build_model
from lmms_eval.api.instance import Instance

from vvlm_ray.data.frames import read_frames
from vvlm_ray.errors import UserError
from vvlm_ray.evaluation.decoding import answer_losses, decode_greedily, pad_left
from vvlm_ray.evaluation.frame_cache import FrameCache
from vvlm_ray.evaluation.lmms import question_of
from vvlm_ray.evaluation.questions import Stop, stop_of
from vvlm_ray.model.prompts import encode_conversation, encode_prompt

QUESTIONS = ("which colour ?", "name it", "which which which which colour ?", "colour it")


@pytest.fixture
def batch(tokenizer, preprocessor, clips):
    prompts = [encode_prompt(tokenizer, text, NUM_FRAMES * 4) for text in QUESTIONS]
    pixels = torch.stack([preprocessor(read_frames(path, NUM_FRAMES)) for path, _ in clips[: len(prompts)]])
    return prompts, pixels


def decode(model, tokenizer, batch, stops, end_ids=frozenset()):
    return [text for text, _ in decode_greedily(model, tokenizer, *batch, stops, end_ids=end_ids)]


@pytest.mark.parametrize("seed", range(3))
def test_same_tokens_as_generate_for_prompts_of_different_lengths(seed, tokenizer, batch):
    """An untrained model wanders through its vocabulary: twelve steps tell a wrong position or mask."""
    model = build_model(tokenizer, seed).eval()
    ids, mask = pad_left(batch[0], torch.device("cpu"))
    with torch.no_grad():
        generated = model.generate(
            input_ids=ids,
            attention_mask=mask,
            pixel_values=batch[1],
            max_new_tokens=12,
            do_sample=False,
            eos_token_id=-1,
        )
    expected = tokenizer.batch_decode(generated[:, ids.shape[1] :], skip_special_tokens=True)
    assert decode(model, tokenizer, batch, [Stop(12)] * 4) == expected
    assert len(set(expected)) > 1


def test_a_row_alone_answers_as_in_a_batch(untrained, tokenizer, batch):
    together = decode(untrained, tokenizer, batch, [Stop(8)] * 4)
    alone = [decode(untrained, tokenizer, ([batch[0][row]], batch[1][row : row + 1]), [Stop(8)])[0] for row in range(4)]
    assert together == alone


def test_each_row_ends_by_itself(model, untrained, tokenizer, batch):
    end = frozenset([tokenizer.eos_token_id])
    colours = list(COLOURS)
    assert decode(model, tokenizer, batch, [Stop(9)] * 4, end) == ["A", colours[1], "C", "D"]
    long = decode(untrained, tokenizer, batch, [Stop(10)] * 4)
    short = decode(untrained, tokenizer, batch, [Stop(10), Stop(1), Stop(3), Stop(10)])
    assert (short[0], short[3]) == (long[0], long[3])
    assert [long[row].startswith(short[row]) for row in (1, 2)] == [True, True]
    assert (len(short[1].split()), len(short[2].split())) <= (1, 3)  # special tokens count, and are not written
    third = long[0].split()[2]
    cut = decode(untrained, tokenizer, batch, [Stop(10, (third,))] + [Stop(10)] * 3)
    assert cut[0] == long[0][: long[0].index(third)]
    assert cut[1:] == long[1:]


def test_losses_are_those_of_the_training_loss(untrained, tokenizer, batch):
    """Row by row, padded to other rows' lengths, against the model's own loss on that row."""
    turns = [
        [("user", text), ("assistant", answer)]
        for text, answer in zip(QUESTIONS, ("A", "red", "B B", "C"), strict=True)
    ]
    encoded = [encode_conversation(tokenizer, turn, NUM_FRAMES * 4) for turn in turns]
    ids, labels = zip(*encoded, strict=True)
    pairs = answer_losses(untrained, ids, labels, batch[1])
    for row, (loss, _) in enumerate(pairs):
        with torch.no_grad():
            own = untrained(
                input_ids=torch.tensor([ids[row]]),
                labels=torch.tensor([labels[row]]),
                pixel_values=batch[1][row : row + 1],
            )
        assert loss == pytest.approx(own.loss.item(), rel=1e-4)


def test_a_known_answer_is_greedy_and_others_are_not(model, tokenizer, batch):
    for answer, right in (("A", True), ("B", False)):
        ids, labels = encode_conversation(tokenizer, [("user", QUESTIONS[0]), ("assistant", answer)], NUM_FRAMES * 4)
        assert answer_losses(model, [ids], [labels], batch[1][:1])[0][1] is right


@pytest.mark.parametrize(
    ("settings", "stop"),
    [
        ({"max_new_tokens": 16, "until": ["\n\n", "ASSISTANT:"]}, Stop(16, ("ASSISTANT:",))),
        ({"until": "END", "max_new_tokens": None}, Stop(1024, ("END",))),
        ({}, Stop(1024)),
    ],
)
def test_generation_settings_of_tasks(settings, stop):
    assert stop_of(settings) == stop


def test_frames_are_loaded_once_for_neighbours_and_forgotten_later():
    loaded = []

    def load(path):
        loaded.append(path)
        if path == "bad":
            raise OSError(path)
        return path.upper()

    with FrameCache(load, capacity=2, num_threads=1) as cache:
        assert [cache.get(path) for path in "aabab"] == list("AABAB")
        assert loaded == ["a", "b"]
        cache.prefetch("c")
        assert [cache.get("b"), cache.get("c"), cache.get("a")] == ["B", "C", "A"]
        assert loaded == ["a", "b", "c", "a"]
        with pytest.raises(OSError, match="bad"):
            cache.get("bad")


def test_videos_are_decoded_while_the_model_answers():
    with FrameCache(lambda path: time.sleep(0.1) or path, capacity=4, num_threads=4) as cache:
        cache.prefetch("abcd")
        started = time.monotonic()
        assert [cache.get(path) for path in "abcd"] == list("abcd")
        assert time.monotonic() - started < 0.3  # 0.4 s one after the other


def test_tasks_without_one_video_per_question_are_refused():
    for visuals in ([], ["a.mp4", "b.mp4"], [object()], None):
        arguments = ("q", {}, lambda doc, visuals=visuals: visuals, 0, "t", "test")
        request = Instance("generate_until", arguments, 0, {"task": "t", "doc_id": 0, "repeats": 1})
        with pytest.raises(UserError, match=r"t: a document .*only video tasks"):
            question_of(request, {"t": {"test": [{}]}})
