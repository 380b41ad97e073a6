"""UserError on the command line: one line on stderr, exit code 2, no traceback."""

import click

from vvlm_ray.errors import UserError


class BadInput(click.ClickException):
    """What click prints as `Error: ...`; 2 is the exit code for bad input."""

    exit_code = 2


class _ShowsUserErrors:
    def invoke(self, ctx):
        try:
            return super().invoke(ctx)
        except UserError as error:
            raise BadInput(str(error)) from None


class Command(_ShowsUserErrors, click.Command):
    """A click command whose UserErrors end it with exit code 2."""


class Group(_ShowsUserErrors, click.Group):
    """A click group whose commands' UserErrors end it with exit code 2."""

    command_class = Command
