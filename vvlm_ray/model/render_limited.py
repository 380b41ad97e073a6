"""A chat template tried out in a process of its own, as one that loops for ever would take the caller with it.

Run as a script: reads {"template", "variables", "conversations", "seconds", "bytes"} as JSON from standard input and
prints "ok", or what is wrong. Imports no torch, so that it takes a tenth of a second.
"""

import json
import resource
import sys

import jinja2
from jinja2.ext import Extension
from jinja2.sandbox import ImmutableSandboxedEnvironment


class _Generation(Extension):
    """transformers' {% generation %} marks what the assistant says; here it is only read over."""

    tags = {"generation"}  # noqa: RUF012 (jinja's way)

    def parse(self, parser: jinja2.parser.Parser) -> list[jinja2.nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def _raise_exception(message: str) -> None:
    raise jinja2.TemplateError(message)


def main() -> str:
    asked = json.load(sys.stdin)
    resource.setrlimit(resource.RLIMIT_CPU, (asked["seconds"], asked["seconds"]))
    resource.setrlimit(resource.RLIMIT_AS, (asked["bytes"], asked["bytes"]))
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, "jinja2.ext.loopcontrols"]
    )
    environment.filters["tojson"] = json.dumps
    environment.globals["raise_exception"] = _raise_exception
    environment.globals["strftime_now"] = lambda form: form
    try:
        template = environment.from_string(asked["template"])
    except jinja2.TemplateSyntaxError as error:
        return f"is no Jinja template: {error.message} (line {error.lineno})"
    except RecursionError:
        return "is nested too deeply"
    for messages in asked["conversations"]:
        try:
            text = template.render(messages=messages, add_generation_prompt=False, **asked["variables"])
        except (MemoryError, OverflowError, RecursionError) as error:
            return f"takes too much memory ({type(error).__name__})"
        except Exception as error:  # templates run into errors of every kind
            roles = ", ".join(message["role"] for message in messages)
            return f"fails on turns of {roles}: {error or type(error).__name__}"
        if len(text) > asked["characters"]:
            return f"makes {len(text):,} characters of a few words"
    return "ok"


if __name__ == "__main__":
    print(main())
