#!/usr/bin/env python3
"""Train a tuned lens for the bundled model, to be used with `agnostic_capture.py --lens FILE`.

  python examples/tuned_lens.py --output tuned.safetensors
  python agnostic_capture.py --lens tuned.safetensors --auto-select "attn:0"

For each layer but the last, an affine map of the residual stream is trained so that what the
model's own norm and head make of it comes close to what the model predicts in the end: the mean KL
divergence between the two is minimised (Belrose et al. 2023, arXiv 2303.08112). It begins as the
identity, which is the logit lens. The file holds `layers.{layer}`, (hidden, hidden), and
`layers.{layer}.bias`, (hidden,), in safetensors.

For another model of the same build (`model.model.layers`, `model.model.norm`), give --model and
--text, a file with a text a line.
"""

import argparse
import random
import sys
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch.nn.functional import kl_div, log_softmax
from transformers import AutoModelForCausalLM, AutoTokenizer

ROOT = Path(__file__).resolve().parent.parent
TOKENS, BATCH = 64, 8


def main() -> None:
    asked = arguments()
    torch.manual_seed(0)
    tokenizer = AutoTokenizer.from_pretrained(asked.model)
    model = AutoModelForCausalLM.from_pretrained(asked.model, dtype=torch.float32).eval()
    ids = token_rows(tokenizer, texts(asked.text))
    held_out, training = ids[:BATCH], ids[BATCH:]
    lens = [affine(model.config.hidden_size) for _ in model.model.layers[:-1]]
    before = divergences(model, lens, held_out)
    train(model, lens, training, asked.steps)
    after = divergences(model, lens, held_out)
    for layer, (old, new) in enumerate(zip(before, after, strict=True)):
        print(f"layer {layer}: KL to the final prediction {old:.2f} -> {new:.2f} nats")
    save(lens, asked.output)
    print(asked.output)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Train a tuned lens, a matrix a layer.")
    parser.add_argument("--model", default=str(ROOT / "demo_model"), help="the bundled demo_model")
    parser.add_argument("--text", help="a file with a text a line (stories of the demo's language)")
    parser.add_argument("--steps", type=int, default=100, help="of training (100)")
    parser.add_argument("--output", default="tuned.safetensors", help="(tuned.safetensors)")
    return parser.parse_args()


def texts(file: str | None) -> list[str]:
    """A file's lines, or stories in the language that the bundled model has learned."""
    if file is not None:
        return Path(file).read_text(encoding="utf-8").splitlines()
    sys.path.append(str(ROOT / "demo_model"))
    from toy_language import make_story

    stories = random.Random(1)  # the training of the model has seed 0
    return [make_story(stories) for _ in range(400)]


def token_rows(tokenizer, lines: list[str]) -> torch.Tensor:
    """All texts, one after the other, in rows of so many tokens."""
    ids = [id for line in lines for id in tokenizer(line)["input_ids"]]
    rows = len(ids) // TOKENS
    if rows < 2 * BATCH:
        raise SystemExit(f"error: {len(ids)} tokens are too few. Give a longer --text.")
    return torch.tensor(ids[: rows * TOKENS]).view(rows, TOKENS)


def affine(hidden: int) -> torch.nn.Linear:
    """A map that begins as the identity."""
    made = torch.nn.Linear(hidden, hidden)
    torch.nn.init.eye_(made.weight)
    torch.nn.init.zeros_(made.bias)
    return made


def train(model, lens: list[torch.nn.Linear], ids: torch.Tensor, steps: int) -> None:
    optimizer = torch.optim.Adam([p for layer in lens for p in layer.parameters()], lr=1e-3)
    for step in range(steps):
        batch = ids[torch.randint(len(ids), (BATCH,))]
        loss = sum(losses(model, lens, batch))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % 50 == 0:
            print(f"step {step}: {loss.item() / len(lens):.3f} nats a layer", file=sys.stderr)


def losses(model, lens: list[torch.nn.Linear], ids: torch.Tensor) -> list[torch.Tensor]:
    """Of each layer the mean KL divergence from the final prediction to the lens's."""
    with torch.no_grad():
        streams, final = streams_of(model, ids)
    read = (
        model.lm_head(model.model.norm(layer(x))) for layer, x in zip(lens, streams, strict=False)
    )
    return [
        kl_div(log_softmax(logits, -1), final, reduction="none", log_target=True).sum(-1).mean()
        for logits in read
    ]


def streams_of(model, ids: torch.Tensor) -> tuple[list[torch.Tensor], torch.Tensor]:
    """What each layer returns, and the log-probabilities at the end."""
    streams: list[torch.Tensor] = []
    hooks = [
        layer.register_forward_hook(lambda _module, _args, output: streams.append(output))
        for layer in model.model.layers
    ]
    logits = model(ids).logits
    for hook in hooks:
        hook.remove()
    return streams, log_softmax(logits, -1)


@torch.no_grad()
def divergences(model, lens: list[torch.nn.Linear], ids: torch.Tensor) -> list[float]:
    return [loss.item() for loss in losses(model, lens, ids)]


def save(lens: list[torch.nn.Linear], path: str) -> None:
    tensors = {f"layers.{i}": layer.weight.detach().clone() for i, layer in enumerate(lens)}
    tensors |= {f"layers.{i}.bias": layer.bias.detach().clone() for i, layer in enumerate(lens)}
    save_file(tensors, path)


if __name__ == "__main__":
    main()
