"""The one exception for an evaluation whose number would be false: nothing is recorded then."""


class EvaluationFailed(RuntimeError):
    """No trustworthy score came out: the message names the task, how many questions, and what to do."""
