"""Answers put where phase one keeps them, without a model: what `say(question, document)` says."""

from vvlm_ray.evaluation.answer_files import join_parts
from vvlm_ray.evaluation.lmms import load, questions_of
from vvlm_ray.evaluation.questions import Answer
from vvlm_ray.evaluation.tasks import plans_of


def keep_answers(settings, folder, say, resolve=None):
    """Write the answers of all tasks to `folder`; returns their number."""
    total = 0
    for plan in plans_of(settings, **({"resolve": resolve} if resolve else {})):
        for loaded in load(plan, settings.limit):
            docs = loaded.task.eval_docs
            answers = [
                Answer(
                    asked.task,
                    asked.doc,
                    asked.option,
                    asked.fingerprint,
                    asked.video,
                    say(asked, docs[asked.doc]),
                    1,
                    0.0,
                )
                for asked in questions_of(loaded)
            ]
            join_parts(folder, loaded.name, answers)
            total += len(answers)
    return total
