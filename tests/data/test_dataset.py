"""Items and batches made from real files."""

import pickle
from dataclasses import replace

import pytest
import torch

from vvlm_ray.data.dataset import Collator, Unreadable, VideoInstructionDataset
from vvlm_ray.data.examples import load_examples
from vvlm_ray.data.frames import read_frames
from vvlm_ray.model.preprocess import ImagePreprocessor
from vvlm_ray.model.prompts import encode_conversation

T, V = 3, 4


@pytest.fixture
def examples(tiny_llava_json):
    return load_examples(tiny_llava_json, tiny_llava_json.parent)


@pytest.fixture
def make(tiny_backbone):
    def make(examples, **options):
        return VideoInstructionDataset(
            examples,
            tokenizer=tiny_backbone.tokenizer(),
            preprocessor=ImagePreprocessor.from_pretrained(tiny_backbone.vision),
            num_frames=T,
            tokens_per_frame=V,
            **options,
        )

    return make


def test_an_item_is_its_conversation_and_its_frames(make, examples, tiny_backbone):
    dataset = make(examples)
    assert len(dataset) == 24
    item, example = dataset[13], examples[13]
    tokenizer = tiny_backbone.tokenizer()
    ids, labels = encode_conversation(tokenizer, example.turns, T * V)
    assert item["input_ids"].tolist() == ids and item["labels"].tolist() == labels
    answers = tokenizer.convert_ids_to_tokens([label for label in labels if label != -100])
    assert answers == ["green", "<end>", "green", "and", "green", "<end>"]
    expected = ImagePreprocessor(32)(read_frames(example.video, T))
    torch.testing.assert_close(item["pixel_values"], expected)


def test_unreadable_is_marked_and_not_replaced(make, examples, tmp_path):
    missing = replace(examples[0], video=tmp_path / "gone.mp4")
    item = make([missing])[0]
    assert item == Unreadable(str(tmp_path / "gone.mp4"), "no such file")


def test_too_long_is_marked_and_not_cut(make, examples):
    length = len(make(examples)[0]["input_ids"])
    assert len(make(examples, max_length=length)[0]["input_ids"]) == length
    item = make(examples, max_length=length - 1)[0]
    assert item == Unreadable(
        "train: example row0", f"{length} tokens, of which 12 are visual, and the LM's context holds {length - 1}"
    )


def test_text_that_cannot_be_encoded_is_marked(make, examples, tiny_backbone):
    """A second place holder in the text would shift every visual token behind it."""
    turns = (("user", "what <video> colour <video> ?"), ("assistant", "green"))
    item = make([replace(examples[0], turns=turns)])[0]
    assert isinstance(item, Unreadable) and "video marks" in item.reason


def test_videos_named_without_an_ending_are_found(make, examples):
    bare = replace(examples[13], video=examples[13].video.with_suffix(""))
    torch.testing.assert_close(make([bare])[0]["pixel_values"], make(examples)[13]["pixel_values"])


def test_loader_workers_get_no_examples(make, examples):
    encoder = make(examples * 1000).encoder
    assert len(pickle.dumps(encoder)) < 50_000
    again = pickle.loads(pickle.dumps(encoder))
    torch.testing.assert_close(again[examples[0]]["pixel_values"], make(examples)[0]["pixel_values"])


def test_batches_are_padded_on_the_right(make, examples):
    dataset = make(examples)
    short, long = dataset[0], dataset[12]
    batch = Collator(pad_token_id=9)([short, Unreadable("a.mp4", "cut off"), long])
    S, L = len(short["input_ids"]), len(long["input_ids"])
    assert S < L
    assert batch["input_ids"].shape == batch["labels"].shape == batch["attention_mask"].shape == (2, L)
    assert batch["input_ids"][0].tolist() == short["input_ids"].tolist() + [9] * (L - S)
    assert batch["labels"][0].tolist() == short["labels"].tolist() + [-100] * (L - S)
    assert batch["attention_mask"].sum(dim=1).tolist() == [S, L]
    assert batch["pixel_values"].shape == (2, T, 3, 32, 32)
    assert batch["unreadable"] == [("a.mp4", "cut off")]


def test_a_batch_of_nothing_readable_has_no_tensors():
    assert Collator(0)([Unreadable("a.mp4", "cut off")]) == {"unreadable": [("a.mp4", "cut off")]}


def test_padding_does_not_reach_the_loss(make, examples, tiny_backbone):
    """A model's loss over a padded batch is that of its rows, weighted by their answer tokens."""
    dataset, model = make(examples), tiny_backbone.model(V)
    rows = [dataset[0], dataset[12]]
    batches = [Collator(0)([row]) for row in rows] + [Collator(0)(rows)]
    for batch in batches:
        del batch["unreadable"]
    with torch.no_grad():
        *single, both = [model(**batch, num_items_in_batch=1).loss for batch in batches]
    torch.testing.assert_close(both, sum(single))
