"""A pair of backbones as they are released, at tiny widths: what Llama 3 and SigLIP put into their folders.

Byte-level BPE without a pad token, headers and end-of-turn tokens of Llama 3, its template with a date, tied
embeddings, bfloat16 weights in several shards; a whole SiglipModel in float32 beside its image processor.
"""

from __future__ import annotations

from pathlib import Path

TEMPLATE = (
    "{{- bos_token }}{%- if not date_string is defined %}{%- set date_string = '26 Jul 2024' %}{%- endif %}"
    "{%- if messages[0]['role'] == 'system' %}{%- set system_message = messages[0]['content']|trim %}"
    "{%- set messages = messages[1:] %}{%- else %}{%- set system_message = '' %}{%- endif %}"
    "{{- '<|start_header_id|>system<|end_header_id|>\n\nCutting Knowledge Date: December 2023\nToday Date: ' }}"
    "{{- date_string + '\n\n' + system_message + '<|eot_id|>' }}"
    "{%- for message in messages %}"
    "{{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n'+ message['content'] | trim + '<|eot_id|>' }}"
    "{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{%- endif %}"
)
SPECIAL = [
    "<|begin_of_text|>",
    "<|end_of_text|>",
    "<|reserved_special_token_0|>",
    "<|finetune_right_pad_id|>",
    "<|start_header_id|>",
    "<|end_header_id|>",
    "<|eot_id|>",
]
_TEXT = ["what colour is it ? and now ?", "green blue both none", "Cutting Knowledge Date: December 2023 Today Date:"]


def llama3_tokenizer(*, without: tuple[str, ...] = (), template: str | None = TEMPLATE):
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    special = [token for token in SPECIAL if token not in without]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    raw.train_from_iterator(
        _TEXT, trainers.BpeTrainer(vocab_size=330, initial_alphabet=alphabet, special_tokens=special)
    )
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=raw, bos_token=special[0], eos_token="<|eot_id|>")
    tokenizer.add_special_tokens({"additional_special_tokens": special})
    tokenizer.chat_template = template
    assert tokenizer.pad_token is None
    return tokenizer


def write_released(folder: Path, *, lm_dtype: str = "bfloat16", tokenizer=None) -> Path:
    """`folder`/{vision, lm}; the same weights whatever `lm_dtype`, rounded to bfloat16."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM, SiglipConfig, SiglipModel

    from vvlm_ray.model.preprocess import ImagePreprocessor

    tokenizer = tokenizer or llama3_tokenizer()
    torch.manual_seed(0)
    vision = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    text = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1, "vocab_size": 9}
    config = SiglipConfig(text_config=text, vision_config=vision | {"image_size": 32, "patch_size": 8})
    SiglipModel(config).save_pretrained(folder / "vision")
    ImagePreprocessor(size=32).save_pretrained(folder / "vision")
    lm = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=512,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            tie_word_embeddings=True,
            initializer_range=0.1,
        )
    )
    lm = lm.to(torch.bfloat16).to(getattr(torch, lm_dtype))
    lm.save_pretrained(folder / "lm", max_shard_size="20KB")
    assert len(list((folder / "lm").glob("*.safetensors"))) > 1
    tokenizer.save_pretrained(folder / "lm")
    return folder
