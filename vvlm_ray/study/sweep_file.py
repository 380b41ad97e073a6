"""The one reader of sweep files: YAML 1.2, each key once, unknown keys refused, every complaint with its line.

`load_sweep` reads a whole study. `load_partial_sweep` reads what a file says of records made elsewhere (factors, cost,
grid, budgets), where everything may be missing; what is there is checked as strictly.
"""

import difflib
from pathlib import Path
from typing import Any

from pydantic import ValidationError, create_model

from vvlm_ray.errors import UserError
from vvlm_ray.study import sections
from vvlm_ray.study.config import Study
from vvlm_ray.study.sections import Strict
from vvlm_ray.study.storage import open_storage

MAX_BYTES = 10_000_000
MAX_NODES = 1_000_000  # of a file with its aliases written out
MAX_DEPTH = 50
# pydantic names the member of a union in a key's path
UNION_MEMBERS = {"star", "isoflop", "points", "Cost", "CostExpression", "constrained-int", "literal['auto']"}


class _Partial(Strict):
    """A study's keys, each of which may be missing."""


PartialStudy = create_model(
    "PartialStudy",
    __base__=_Partial,
    **{name: (field.annotation | None, None) for name, field in Study.model_fields.items()},  # type: ignore[call-overload, operator]
)


def load_sweep(path: str | Path) -> Study:
    """The study in a YAML sweep file.

    Raises:
        UserError: no such file, not YAML, an unknown or repeated key, a wrong value; it names file, line and key.
    """
    study: Study = _load(open_storage(path), Study)
    return study


def load_partial_sweep(path: str | Path) -> Any:
    """What a sweep file says, as an object with the attributes of `Study`, None where the file says nothing.

    Raises:
        UserError: as `load_sweep`, but never for a key that is missing.
    """
    return _load(open_storage(path), PartialStudy)


def _load(path: Path, model: type) -> Any:
    raw, lines = _read(path)
    try:
        return model.model_validate(raw)  # type: ignore[attr-defined]
    except ValidationError as err:
        raise UserError(f"{path}:\n" + "\n".join(_explain(e, lines) for e in err.errors())) from None
    except RecursionError:
        raise UserError(f"{path}: nested too deeply for a sweep file") from None


def _read(path: Path) -> tuple[dict[str, Any], dict[tuple, int]]:
    """The file as plain dicts, lists and scalars, and the line of each key by its path."""
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    try:
        data = path.read_bytes()
    except OSError as err:
        raise UserError(f"{path}: cannot be read ({err.strerror or err})") from None
    if len(data) > MAX_BYTES:
        raise UserError(f"{path}: {len(data):,} bytes are no sweep file; the largest read is {MAX_BYTES:,}")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as err:
        raise UserError(f"{path}: not UTF-8 text (byte {err.start}); save it as UTF-8") from None
    try:
        # Round-trip mode keeps line numbers; it constructs plain data only, no objects of any tag.
        tree = YAML(typ="rt", pure=True).load(text)
        plain = _Plain()
        raw = plain.value(tree, ())
    except UserError as err:
        raise UserError(f"{path}: {err}") from None
    except YAMLError as err:
        raise UserError(f"{path}: {_yaml_problem(err)}") from None
    except (
        ValueError,
        TypeError,
        AttributeError,
        OverflowError,
        AssertionError,
        IndexError,
        NotImplementedError,
    ) as err:
        raise UserError(f"{path}: not valid YAML: {str(err).splitlines()[0][:200] if str(err) else err!r}") from None
    except RecursionError:
        raise UserError(f"{path}: nested too deeply for a sweep file") from None
    if not isinstance(raw, dict):
        raise UserError(f"{path}: a sweep file is a mapping with keys such as name, backbones, data and sweeps")
    return raw, plain.lines


class _Plain:
    """Turns a round-trip tree into plain values, and notes the line of each key."""

    def __init__(self) -> None:
        self.lines: dict[tuple, int] = {}
        self.num_nodes = 0

    def value(self, node: Any, where: tuple) -> Any:
        from ruamel.yaml.comments import CommentedMap, CommentedSeq, TaggedScalar

        self.num_nodes += 1
        if self.num_nodes > MAX_NODES:
            raise UserError(f"more than {MAX_NODES:,} values (aliases written out); this is no sweep file")
        if len(where) > MAX_DEPTH:
            raise UserError(f"nested more than {MAX_DEPTH} deep; this is no sweep file")
        if isinstance(node, TaggedScalar) or (tag := getattr(getattr(node, "tag", None), "value", None)):
            shown = node.tag.value if isinstance(node, TaggedScalar) else tag
            raise UserError(f"{self._name(where)}: the YAML tag {shown} is not read; write a plain value")
        if isinstance(node, CommentedMap):
            mapping: dict[str, Any] = {}
            for key, item in node.items():
                line = node.lc.key(key)[0] + 1 if key in (node.lc.data or {}) else None
                if not isinstance(key, str):
                    raise UserError(f"{f'line {line}: ' if line else ''}the key {key!r} must be text")
                if line:
                    self.lines[(*where, key)] = line
                mapping[str(key)] = self.value(item, (*where, str(key)))
            return mapping
        if isinstance(node, CommentedSeq):
            items = []
            for k, item in enumerate(node):
                if node.lc.data and k in node.lc.data:
                    self.lines[(*where, k)] = node.lc.item(k)[0] + 1
                items.append(self.value(item, (*where, k)))
            return items
        return self._scalar(node, where)

    def _scalar(self, node: Any, where: tuple) -> Any:
        for kind in (bool, int, float, str):  # ruamel's scalars are subclasses that remember their notation
            if isinstance(node, kind):
                return kind(node)
        if type(node).__name__ == "ScalarBoolean":
            return bool(node)
        if node is None:
            return None
        raise UserError(f"{self._name(where)}: {node!s} is read as a {type(node).__name__}; put it in quotes")

    def _name(self, where: tuple) -> str:
        line = self.lines.get(where)
        return (f"line {line}: " if line else "") + ".".join(map(str, where))


def _yaml_problem(err: Exception) -> str:
    from ruamel.yaml.constructor import DuplicateKeyError

    mark = getattr(err, "problem_mark", None)
    where = f"line {mark.line + 1}: " if mark is not None else ""
    problem = str(getattr(err, "problem", None) or err).splitlines()[0]
    if isinstance(err, DuplicateKeyError):
        key = problem.split('"')[1] if '"' in problem else problem
        return f"{where}the key {key!r} is given twice"
    return f"not valid YAML: {where}{problem[:200]}"


def _explain(error: Any, lines: dict[tuple, int]) -> str:
    path = tuple(part for part in error["loc"] if part not in UNION_MEMBERS and not str(part).startswith("function-"))
    line = next((lines[path[:k]] for k in range(len(path), 0, -1) if path[:k] in lines), None)
    key = ".".join(map(str, path))
    where = f"  line {line}, {key}" if line and key else f"  {key}" if key else "  "
    if error["type"] == "extra_forbidden":
        return f"{where}: unknown key; {_suggestion(str(path[-1]))}"
    if error["type"] == "missing":
        return f"{where}: missing; add it"
    message = error["msg"].removeprefix("Value error, ")
    return f"{where}: {message}" if key else f"  {message}"


def _suggestion(key: str) -> str:
    known = set(Study.model_fields)
    for item in vars(sections).values():
        if isinstance(item, type) and issubclass(item, Strict):
            known |= set(item.model_fields)
    close = difflib.get_close_matches(key, sorted(known), n=1, cutoff=0.7)
    return f"did you mean {close[0]!r}?" if close else "check its spelling or remove it"
