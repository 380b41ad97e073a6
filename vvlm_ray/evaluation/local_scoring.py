"""How answers to a study's own questions are scored: by the same words, by the option's letter, or by the judge.

`exact`: an answer is right when it says the same as the reference apart from case, punctuation and space; where the
reference is one letter, "B", "(b)" and "B. a red car" all say B, and "A red car" does not say A.
`choice`: the answer has to name one option, by its letter or its words. One that names none is wrong, and counted.
`judged`: the judge is asked whether answer and reference mean the same, as for ActivityNet-QA.
Nothing heavy is imported here.
"""

from __future__ import annotations

import os
import re
import string
from collections.abc import Sequence
from typing import Any

# What is kept where the video cannot be read: such a question counts neither as right nor as wrong.
UNREADABLE_ANSWER = "[unreadable video]"
LETTERS = string.ascii_uppercase

_LETTER_FIRST = re.compile(r"\W*([a-z])\s*(?:[.,:;)\]]|$)", re.IGNORECASE)
_LETTER_BRACKETED = re.compile(r"\(([A-Z])\)")
_LETTER_NAMED = re.compile(r"\b(?:answer|option|choice)\s*(?:is|:)?\s*\(?([A-Z])\b(?!\s+[a-z])")

_JUDGE_SYSTEM = (
    "You evaluate answers to questions about a video. Compare the predicted answer with the correct answer and decide "
    "whether they mean the same. Synonyms and paraphrases match."
)
_JUDGE_USER = (
    "Question: {question}\nCorrect Answer: {answer}\nPredicted Answer: {said}\n\n"
    "Reply with a Python dictionary only, with the keys 'pred' ('yes' or 'no') and 'score' (an integer between 0 and "
    "5, 5 for the best match), for example {{'pred': 'yes', 'score': 4}}."
)
_ASK_SECONDS = 60


def prompt_of(row: dict[str, Any]) -> str:
    """The question as it stands; options, where the row has them, follow with their letters."""
    if not row.get("options"):
        return row["question"]
    options = "\n".join(f"{letter}. {text}" for letter, text in zip(LETTERS, row["options"], strict=False))
    return f"{row['question']}\n{options}\nAnswer with the option's letter from the given choices directly."


def is_right(answer: str, reference: str) -> bool:
    """Whether both say the same (see the top of this file)."""
    wanted = plain(reference)
    if len(wanted) == 1 and wanted.isalpha():
        letter = _LETTER_FIRST.match(answer)
        return letter is not None and letter.group(1).lower() == wanted
    return plain(answer) == wanted


def chosen_letter(answer: str, options: Sequence[str]) -> str | None:
    """The letter of the one option that an answer names; None where it names none, or several."""
    letters = LETTERS[: len(options)]
    first = _LETTER_FIRST.match(answer)
    named = {first.group(1).upper()} if first else set()
    named = (named | {*_LETTER_BRACKETED.findall(answer), *_LETTER_NAMED.findall(answer)}) & set(letters)
    if not named:
        named = {letter for letter, text in zip(letters, options, strict=True) if plain(text) == plain(answer)}
    return named.pop() if len(named) == 1 else None


def correct_letter(row: dict[str, Any]) -> str | None:
    """The letter of a row's right option, which its `answer` gives as letter or in words; None where it is neither."""
    options, answer = row["options"], row["answer"].strip()
    if len(answer) == 1 and answer.upper() in LETTERS[: len(options)]:
        return answer.upper()
    return next((letter for letter, text in zip(LETTERS, options, strict=False) if text.strip() == answer), None)


def judged(row: dict[str, Any], said: str) -> str:
    """The verdict on one answer, "yes" or "no" or neither, from the relay in the environment."""
    import requests

    user = _JUDGE_USER.format(question=row["question"], answer=row["answer"], said=said)
    messages = [{"role": "system", "content": _JUDGE_SYSTEM}, {"role": "user", "content": user}]
    body = {"model": os.environ["MODEL_VERSION"], "messages": messages, "temperature": 0, "max_tokens": 64}
    with requests.Session() as session:
        session.trust_env = False
        reply = session.post(os.environ["OPENAI_API_URL"], json=body, timeout=_ASK_SECONDS)
    content = reply.json()["choices"][0]["message"]["content"]
    return next((word for word in ("yes", "no") if f"'{word}'" in content), "neither")


def plain(text: str) -> str:
    """Words alone: no case, no punctuation, single spaces."""
    return " ".join(re.sub(r"[^\w\s]", " ", text.lower()).split())
