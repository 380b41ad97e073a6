"""What an evaluation leaves as it was: random states, and the terminal."""

from __future__ import annotations

import contextlib
import io
import random
import sys
from collections.abc import Iterator

from vvlm_ray.errors import UserError
from vvlm_ray.evaluation.failures import EvaluationFailed


@contextlib.contextmanager
def random_states_kept() -> Iterator[None]:
    """lmms-eval seeds python's, numpy's and torch's generators; a training around it must not notice."""
    import numpy as np
    import torch

    python_state, torch_state = random.getstate(), torch.get_rng_state()
    numpy_state = np.random.get_state()  # noqa: NPY002 (the generator that lmms-eval seeds)
    cuda_states = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    try:
        yield
    finally:
        random.setstate(python_state)
        np.random.set_state(numpy_state)  # noqa: NPY002
        torch.set_rng_state(torch_state)
        if cuda_states:
            torch.cuda.set_rng_state_all(cuda_states)


@contextlib.contextmanager
def chatter(quiet: bool) -> Iterator[None]:
    """Keep lmms-eval's log lines and progress bars to itself, unless it fails."""
    if not quiet:
        yield
        return
    from loguru import logger

    said = io.StringIO()
    sources = ("lmms_eval", "utils")  # lmms-eval imports every task's utils.py as "utils"
    for source in sources:
        logger.disable(source)
    try:
        with contextlib.redirect_stderr(said), contextlib.redirect_stdout(said):
            yield
    except (EvaluationFailed, UserError):
        raise  # these say themselves what is wrong
    except BaseException:
        sys.stderr.write(said.getvalue()[-2000:])
        raise
    finally:
        for source in sources:
            logger.enable(source)
