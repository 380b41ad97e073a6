"""Chat templates: found, given apart from the LM's folder, with a system sentence of their own, and tried out.

Base LMs have no template, and the paper's are base LMs with that of the Instruct model [open in the paper; the first
author's fork]. A template is a program out of somebody's folder: before it is used it has to render short
conversations in a process that may take five seconds and a gigabyte.
"""

from __future__ import annotations

import json
import subprocess
import sys
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vvlm_ray.errors import UserError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_CPU_SECONDS, _WALL_SECONDS = 5, 60  # the second for machines on which it has to wait
_BYTES, _CHARACTERS = 2**30, 1_000_000
_TURNS = [{"role": "user", "content": "What is it?"}, {"role": "assistant", "content": "A test."}]


def set_chat_template(
    tokenizer: PreTrainedTokenizerBase, path: str | Path | None = None, system: str | None = None
) -> None:
    """Give the tokenizer the template of a file, if one is named, and a system sentence, if there is one.

    Both become part of the template, which goes where the tokenizer goes. With a template from elsewhere its end of
    turn becomes the end token, as it is in the Instruct model's tokenizer.
    Raises UserError where there is no template, or it is no good; it names the file.
    """
    where = str(path or tokenizer.name_or_path)
    template = read_template(path) if path else _own_template(tokenizer)
    template = with_system(template, system) if system else template
    check_template(where, template, json.dumps({k: v for k, v in tokenizer.special_tokens_map.items() if v}))
    tokenizer.chat_template = template
    text = tokenizer.apply_chat_template(_TURNS, tokenize=False)
    lost = [part for part in (system, *(turn["content"] for turn in _TURNS)) if part and part not in text]
    if lost:
        raise UserError(f"{where}: the chat template leaves out {lost[0]!r}")
    if path:
        _end_as_the_template_does(tokenizer, text)


def read_template(path: str | Path) -> str:
    """The template of a Jinja file, or of a JSON file that holds one under "chat_template".

    A list of named ones (tokenizer_config.json) gives its "default".
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(
            f"{path}: cannot be read ({error}); give the chat_template.jinja of an Instruct model"
        ) from None
    if path.suffix != ".json":
        return text
    try:
        template = json.loads(text)["chat_template"]
        return template if isinstance(template, str) else {row["name"]: row["template"] for row in template}["default"]
    except (ValueError, KeyError, TypeError, RecursionError):
        raise UserError(f"{path}: holds no chat_template; give the Instruct model's tokenizer_config.json") from None


def with_system(template: str, system: str) -> str:
    """The template with a system sentence before every conversation that brings none."""
    # Jinja reads JSON's string literals; non-ASCII characters stay as they are.
    message = f'[{{"role": "system", "content": {json.dumps(system, ensure_ascii=False)}}}]'
    return (
        f"{{% if messages[0]['role'] != 'system' %}}{{% set messages = {message} + messages %}}{{% endif %}}{template}"
    )


@lru_cache(maxsize=32)
def check_template(where: str, template: str, variables: str = "{}") -> None:
    """Raise UserError unless the template renders conversations of one to twelve turns within the limits.

    variables: JSON of what else it reads, such as the tokenizer's special tokens.
    """
    turns = _TURNS * 6
    asked: dict[str, Any] = {
        "template": template,
        "variables": json.loads(variables) | {"date_string": "26 Jul 2024"},
        "conversations": [turns[:count] for count in (1, 2, 3, 4, 12)],
        "seconds": _CPU_SECONDS,
        "bytes": _BYTES,
        "characters": _CHARACTERS,
    }
    script = Path(__file__).with_name("render_limited.py")
    try:
        done = subprocess.run(
            [sys.executable, "-I", str(script)],
            input=json.dumps(asked),
            capture_output=True,
            text=True,
            timeout=_WALL_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise UserError(f"{where}: the chat template does not come to an end") from None
    if done.returncode < 0:  # ended by the limit on its time
        raise UserError(f"{where}: the chat template does not come to an end within {_CPU_SECONDS} s")
    if done.returncode or (problem := done.stdout.strip()) != "ok":
        told = done.stderr.strip().splitlines()[-1:] if done.returncode else [problem]
        raise UserError(f"{where}: the chat template {' '.join(told)}")


def _own_template(tokenizer: PreTrainedTokenizerBase) -> str:
    template = tokenizer.chat_template
    if isinstance(template, dict):
        template = template.get("default")
    if not template:
        raise UserError(
            f"{tokenizer.name_or_path}: the tokenizer has no chat template, as base models have none; name one with "
            "backbones.<name>.chat_template, for example the Instruct model's chat_template.jinja or "
            "tokenizer_config.json"
        )
    return template


def _end_as_the_template_does(tokenizer: PreTrainedTokenizerBase, text: str) -> None:
    """Make the token that follows an answer the tokenizer's end token, where it is one token of its own."""
    ending = tokenizer(text.rpartition(_TURNS[-1]["content"])[2], add_special_tokens=False)["input_ids"]
    if ending and ending[0] in tokenizer.added_tokens_decoder:
        tokenizer.eos_token = tokenizer.convert_ids_to_tokens(ending[0])
