"""`vvlm-ray answer MODEL VIDEO QUESTION`: ask a finetuned model about one video."""

import json

import click

from vvlm_ray.commands.errors import Command


@click.command(cls=Command)
@click.argument("model", type=click.Path(exists=True, file_okay=False))
@click.argument("video", type=click.Path(exists=True))
@click.argument("question")
@click.option("--max-new-tokens", type=click.IntRange(1), default=256, show_default=True)
@click.option("--json", "as_json", is_flag=True, help="print one JSON object")
def answer(model: str, video: str, question: str, max_new_tokens: int, as_json: bool) -> None:
    """Answer QUESTION about VIDEO with the model in the folder MODEL, by greedy decoding."""
    import torch

    from vvlm_ray.data.frames import UnreadableVideo, read_frames
    from vvlm_ray.errors import UserError
    from vvlm_ray.evaluation.decoding import Stop, decode_greedily
    from vvlm_ray.model.folder import load_model
    from vvlm_ray.model.prompts import encode_prompt

    saved = load_model(model)
    try:
        frames = read_frames(video, saved.num_frames)
    except UnreadableVideo as error:
        raise UserError(f"{video}: cannot be read ({error.reason})") from error
    device = "cuda" if torch.cuda.is_available() else "cpu"
    network = saved.model.to(device)
    ends = network.generation_config.eos_token_id
    texts = decode_greedily(
        network,
        saved.tokenizer,
        [encode_prompt(saved.tokenizer, question, saved.num_frames * network.config.tokens_per_frame)],
        saved.preprocessor(frames)[None].to(device, network.dtype),
        [Stop(max_new_tokens)],
        end_ids=frozenset([ends] if isinstance(ends, int) else ends or ()),
    )
    text, num_tokens = texts[0]
    asked = {"model": model, "video": video, "question": question, "answer": text, "num_tokens": num_tokens}
    click.echo(json.dumps(asked, ensure_ascii=False) if as_json else text)
