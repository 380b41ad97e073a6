"""Instruction examples about videos: one row of a data set, in whichever of the published layouts, as a conversation.

A row becomes one example. What it holds decides its layout, by the first of these that it has:

  conversations  LLaVA's [{"from": "human" | "gpt", "value": text}, ...], or role and content
  qa             a list of {question, answer} (and an instruction), as VideoChat2-IT writes it: one turn each
  options        a question with its options; the answer is an option, its number (from 0) or its letter
  question       a question and its answer
  caption        a text about the video; the question is the source's `prompt`

Names differ from data set to data set: ALIASES are tried in turn, and a source's `fields` goes before them.
"""

from __future__ import annotations

import math
import re
import string
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from vvlm_ray.data.rows import BadRow, read_rows
from vvlm_ray.errors import UserError

ROLES = {"human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant"}
ALIASES: dict[str, tuple[str, ...]] = {
    "id": ("id", "qid", "question_id"),
    "video": ("video", "videos", "image", "images", "video_path", "video_name", "video_filename", "video_id"),
    "conversations": ("conversations", "messages"),
    "qa": ("QA", "qa", "mc_question", "questions"),
    "question": ("question", "q"),
    "answer": ("answer", "a", "answer_id"),
    "options": ("options", "choices", "candidates"),
    "caption": ("caption", "label"),
    "instruction": ("i", "instruction"),
    "start": ("start", "start_time"),
    "end": ("end", "end_time"),
}
VIDEO_SUFFIXES = (".mp4", ".mkv", ".webm", ".avi", ".mov", ".flv", ".gif", ".m4v")
CAPTION_PROMPT = "Describe the video in detail."
CHOICE_PROMPT = "Answer with the option's letter from the given choices directly."
_LETTERED_OPTIONS = tuple(f"a{index}" for index in range(10))  # NExT-QA's columns
_MARKS = ("<image>", "<video>")
_LONGEST_NAME = 255  # bytes, on every file system in use


@dataclass(frozen=True, slots=True)
class Example:
    """One conversation about one video, or the piece of it from `start` to `end` (seconds).

    `turns` are (role, text) with roles "user" and "assistant". Nothing outside `root` is opened for it; `fps` is
    the rate of a folder of frames.
    """

    example_id: str
    video: Path
    turns: tuple[tuple[str, str], ...]
    source: str
    start: float | None = None
    end: float | None = None
    root: Path | None = field(default=None, compare=False)
    fps: float | None = None


def find_video(path: Path) -> Path:
    """`path`, or, where a data set names its videos without an ending (ActivityNet's do), the file that has one."""
    if path.suffix.lower() in VIDEO_SUFFIXES or path.exists():
        return path
    named = (path.with_name(path.name + suffix) for suffix in VIDEO_SUFFIXES)
    return next((candidate for candidate in named if candidate.is_file()), path)


@dataclass(frozen=True)
class Layout:
    """How the rows of a source are to be read: names of its fields, the pattern of its videos, the captions' question.

    `fields`: {ours: theirs}. `video`: a pattern over the row's fields, such as "v_{video_id}.mp4".
    """

    fields: Mapping[str, str] = field(default_factory=dict)
    video: str | None = None
    prompt: str = CAPTION_PROMPT

    def __post_init__(self) -> None:
        for ours in self.fields:
            if ours not in ALIASES:
                raise UserError(f"fields: {ours!r} is none of {', '.join(ALIASES)}")
        if self.video is not None:
            try:
                parts = [part for part in string.Formatter().parse(self.video) if part[1] is not None]
            except ValueError as error:
                raise UserError(f"video: {self.video!r} is no pattern ({error}), such as v_{{video_id}}.mp4") from None
            if not parts or not all(name.isidentifier() and not spec and not how for _, name, spec, how in parts):
                raise UserError(f"video: {self.video!r} has to hold names of the row's fields, such as {{video_id}}")


@dataclass
class Tally:
    """How many rows were read and used, and why others were not; `first` is one place for each reason."""

    num_rows: int = 0
    unusable: Counter[str] = field(default_factory=Counter)
    first: dict[str, str] = field(default_factory=dict)

    @property
    def num_unusable(self) -> int:
        return sum(self.unusable.values())

    @property
    def num_examples(self) -> int:
        return self.num_rows - self.num_unusable

    def drop(self, reason: str, place: str) -> None:
        self.unusable[reason] += 1
        self.first.setdefault(reason, place)

    def check(self, where: str, max_unusable_share: float) -> None:
        """Raises UserError where too many rows cannot be used, or none can."""
        if not self.num_rows:
            raise UserError(f"{where}: holds no examples")
        if self.num_unusable > max_unusable_share * self.num_rows or not self.num_examples:
            raise UserError(
                f"{where}: {self.num_unusable:,} of {self.num_rows:,} rows cannot be used, and max_unusable_share "
                f"allows {max_unusable_share:.3g}; mend or leave out these rows, or raise it:\n{self.described()}"
            )

    def described(self) -> str:
        """One line for each reason, the most frequent first."""
        return "\n".join(
            f"  {count:,}: {reason} (first: {self.first[reason]})" for reason, count in self.unusable.most_common()
        )


class Unusable(Exception):
    """A row that no example can be made of, and why; the reason names no details, so that rows can be counted by it."""


def load_examples(
    path: str | Path, video_root: str | Path, source: str | None = None, *, max_unusable_share: float = 0.0
) -> list[Example]:
    """The examples of one file, in its order; `source` is the file's stem by default.

    Raises UserError naming file and rows when more rows than that share cannot be used.
    """
    path, root, tally = Path(path), Path(video_root), Tally()
    examples = list(read_examples([path], source or path.stem, root, Layout(), tally))
    tally.check(str(path), max_unusable_share)
    return examples


def read_examples(files: Iterable[Path], source: str, root: Path, layout: Layout, tally: Tally) -> Iterator[Example]:
    """The examples of a source's files, one after the other; rows that cannot be used are counted in `tally`.

    Whether the videos exist is found out when they are read.
    """
    for path in files:
        for place, row in read_rows(path):
            tally.num_rows += 1
            try:
                name, turns, start, end = parse_row(row, layout)
            except Unusable as error:
                tally.drop(str(error), f"{path}, {place}")
                continue
            yield Example(
                example_id=_id(row, place, layout),
                video=root / name,
                turns=turns,
                source=source,
                start=start,
                end=end,
                root=root,
            )


def _id(row: Mapping[str, Any], place: str, layout: Layout) -> str:
    own_id = _first(row, "id", layout)
    if isinstance(own_id, str | int | float) and _is_unicode(str(own_id)):
        return str(own_id)
    return place.rpartition(" ")[2]


def parse_row(row: Any, layout: Layout) -> tuple[str, tuple[tuple[str, str], ...], float | None, float | None]:
    """(video below its root, turns, start, end) of a row.

    Raises Unusable.
    """
    if isinstance(row, BadRow):
        raise Unusable(row.reason)
    if not isinstance(row, dict):
        raise Unusable("not an object with a video and a conversation")
    turns = _turns(row, layout)
    _check_turns(turns)
    start, end = (_seconds(_first(row, key, layout)) for key in ("start", "end"))
    if (start or 0) < 0 or (end is not None and end <= (start or 0)):
        raise Unusable("start and end enclose nothing")
    return _video(row, layout), tuple(turns), start, end


def _first(row: Mapping[str, Any], ours: str, layout: Layout) -> Any:
    """The row's value under one of our names; None where it has none."""
    names = (layout.fields[ours],) if ours in layout.fields else ALIASES[ours]
    return next((row[name] for name in names if row.get(name) is not None), None)


def _video(row: Mapping[str, Any], layout: Layout) -> str:
    if layout.video is not None:
        try:
            name = layout.video.format_map({key: value for key, value in row.items() if isinstance(value, str | int)})
        except (KeyError, ValueError, AttributeError, IndexError):
            raise Unusable("a field of the pattern `video` is missing") from None
    else:
        name = _first(row, "video", layout)
        if isinstance(name, list):
            if len(name) > 1:
                raise Unusable("several videos or images")
            name = name[0] if name else None
        if name is None:
            raise Unusable("no video or image (text only)")
        if not isinstance(name, str) or not name.strip():
            raise Unusable("the video's name is no file name")
    if not _is_unicode(name):
        raise Unusable("text that is not valid Unicode")
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts:
        raise Unusable("the video lies outside video_root")
    if not path.parts or "\0" in name or any(len(part.encode()) > _LONGEST_NAME for part in path.parts):
        raise Unusable("the video's name is no file name")
    return name


def _turns(row: Mapping[str, Any], layout: Layout) -> list[tuple[str, str]]:
    if (conversation := _first(row, "conversations", layout)) is not None:
        return _conversation(conversation)
    if isinstance(asked := _first(row, "qa", layout), list):
        if not asked or not all(isinstance(item, dict) for item in asked):
            raise Unusable("no questions")
        return [turn for item in asked for turn in _question_and_answer(item, layout)]
    if _first(row, "question", layout) is not None:
        return _question_and_answer(row, layout)
    if (caption := _first(row, "caption", layout)) is not None:
        return [("user", layout.prompt), ("assistant", caption)]
    raise Unusable("neither a conversation nor a question nor a caption")


def _conversation(conversation: Any) -> list[tuple[str, str]]:
    if not isinstance(conversation, list) or not conversation:
        raise Unusable("neither a conversation nor a question nor a caption")
    turns = []
    for turn in conversation:
        if not isinstance(turn, dict):
            raise Unusable("a turn is no object")
        speaker = turn.get("from", turn.get("role"))
        if not isinstance(speaker, str) or speaker not in ROLES:
            raise Unusable("a turn is neither from 'human' nor from 'gpt'")
        turns.append((ROLES[speaker], turn.get("value", turn.get("content"))))
    return turns


def _question_and_answer(row: Mapping[str, Any], layout: Layout) -> list[tuple[str, str]]:
    question, answer = _first(row, "question", layout), _first(row, "answer", layout)
    options = _first(row, "options", layout)
    if options is None and layout.fields.get("options") is None and "a0" in row:
        options = [row[name] for name in _LETTERED_OPTIONS if row.get(name) is not None and row[name] != ""]
    if options is not None:
        question, answer = _choice(question, options, answer)
    instruction = _first(row, "instruction", layout)
    if isinstance(instruction, str) and instruction.strip() and isinstance(question, str):
        question = f"{instruction}\n{question}" if question.strip() else instruction
    return [("user", question), ("assistant", answer)]


def _choice(question: Any, options: Any, answer: Any) -> tuple[Any, str]:
    """A question with its options under letters, and the letter of the right one."""
    if not isinstance(options, list) or not 2 <= len(options) <= len(string.ascii_uppercase):
        raise Unusable("options that are no list of 2 to 26 texts")
    if not all(isinstance(option, str | int | float) for option in options) or not isinstance(question, str):
        raise Unusable("options that are no list of 2 to 26 texts")
    texts, letters = [str(option) for option in options], string.ascii_uppercase[: len(options)]
    spoken = str(answer).strip().strip("().") if answer is not None else ""
    if isinstance(answer, str) and answer in texts:
        index = texts.index(answer)
    elif spoken.isascii() and spoken.isdigit() and len(spoken) < 3 and int(spoken) < len(texts):
        index = int(spoken)
    elif len(spoken) == 1 and spoken.upper() in letters:
        index = letters.index(spoken.upper())
    else:
        raise Unusable("an answer that is none of the options")
    if all(re.match(rf"\(?{letter}[.):]", text) for letter, text in zip(letters, texts, strict=True)):
        listed = "\n".join(texts)  # they bring their letters
    else:
        listed = "\n".join(f"{letter}. {text}" for letter, text in zip(letters, texts, strict=True))
    return f"{question}\n{listed}\n{CHOICE_PROMPT}", letters[index]


def _check_turns(turns: list[tuple[str, Any]]) -> None:
    for number, (role, text) in enumerate(turns):
        if not isinstance(text, str) or not text.strip():
            raise Unusable("an empty question" if role == "user" else "an empty answer")
        if not _is_unicode(text):
            raise Unusable("text that is not valid Unicode")
        if role != ("user", "assistant")[number % 2]:
            raise Unusable("'human' and 'gpt' do not take turns, 'human' first")
        marks = sum(text.count(mark) for mark in _MARKS)
        if marks > (number == 0):
            raise Unusable("a second <image> or <video> mark, or one behind the first question")
    if len(turns) % 2:
        raise Unusable("the last turn is 'human': no answer to learn")


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:  # half of a surrogate pair, which JSON can write and UTF-8 cannot
        return False
    return True


def _seconds(value: Any) -> float | None:
    if value is None or value == "":
        return None
    try:
        seconds = float(value)
    except (TypeError, ValueError, OverflowError):
        raise Unusable("a start or end that is no number of seconds") from None
    if not math.isfinite(seconds):
        raise Unusable("a start or end that is no number of seconds")
    return seconds
