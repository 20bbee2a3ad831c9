"""Train the demo model: a four-layer Llama that copies what came before, from a seed alone.

The toolkit needs a checkpoint that is small enough to be bundled, may be given away freely and
still has attention heads worth looking at. This script makes one from nothing: it writes its own
text (``toy_language.py``), trains a byte-level tokenizer on it, trains the model on two processor
cores in about ten minutes, and prints how strongly each kind of head shows:

* a *previous-token head* looks from each token at the one before it;
* an *induction head* looks from a token at what followed the same token earlier, and so predicts
  that a sequence will go on as it did before. It builds on the previous-token head.

Nothing but the usual next-token loss asks for these heads. They form because half of what the
model reads is random tokens repeated after a random distance, which only such heads can predict.

    python demo_model/train.py [--output DIR] [--seed N] [--steps N]
"""

import argparse
import json
import math
import random
import string
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from torch.nn.functional import cross_entropy
from transformers import LlamaConfig, LlamaForCausalLM

# isort: split
from toy_language import make_name, make_noise, make_story

END = "<|endoftext|>"
END_ID = 0  # the only special token, so the tokenizer gives it the first id
VOCABULARY_SIZE = 1024
IGNORE = -100  # the label that cross_entropy leaves out

TOKENS_PER_STEP = 2048
STORIES = 20_000
WARMUP_STEPS = 60
MATRIX_LEARNING_RATE = 0.02
OTHER_LEARNING_RATE = 3e-3
SPLIT_RATE = 0.02
CONTINUATION_TOKENS = 50


@dataclass(frozen=True)
class Stage:
    """A part of the training: until which share of the steps, how long and how mixed the rows."""

    until: float
    length: int
    story_share: float


# Short rows first, most of them repeated random tokens: the heads form soonest where there is
# little to choose from and little else to learn. Then the stories take over, from which the model
# learns when not to copy. The last rows are as long as the context, so no position stays new.
STAGES = (
    Stage(until=0.25, length=64, story_share=0.25),
    Stage(until=0.55, length=128, story_share=0.6),
    Stage(until=0.95, length=256, story_share=0.75),
    Stage(until=1.0, length=512, story_share=0.75),
)


def main() -> None:
    """Train the model, save the checkpoint folder and print the heads' scores."""
    arguments = parse_arguments()
    started = time.monotonic()
    torch.set_num_threads(2)
    torch.manual_seed(arguments.seed)
    torch.use_deterministic_algorithms(True)
    rng = random.Random(arguments.seed)

    stories = [make_story(rng) for _ in range(STORIES)]
    tokenizer = train_tokenizer(stories, rng)
    model = LlamaForCausalLM(make_config())
    print(f"{model.num_parameters():,} parameters, {STORIES:,} stories", flush=True)
    train(model, RowMaker(tokenizer, stories, rng), arguments.steps)

    save(model, tokenizer, arguments.output)
    print(f"saved in {arguments.output} after {time.monotonic() - started:.0f} s\n")
    print_report(model, tokenizer, arguments.seed)


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="Train the demo model from a seed.")
    parser.add_argument("--output", type=Path, default=Path(__file__).parent, metavar="DIR")
    parser.add_argument("--seed", type=int, default=0, metavar="N")
    parser.add_argument("--steps", type=int, default=2700, metavar="N")
    return parser.parse_args()


def make_config() -> LlamaConfig:
    """Describe the model: small enough for a repository, named like the big ones."""
    return LlamaConfig(
        vocab_size=VOCABULARY_SIZE,
        hidden_size=128,
        intermediate_size=344,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=512,
        rope_parameters={"rope_type": "default", "rope_theta": 10000.0},
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=END_ID,
        pad_token_id=END_ID,
        dtype="float32",
    )


# --- The tokenizer ----------------------------------------------------------------------------


def train_tokenizer(stories: list[str], rng: random.Random) -> Tokenizer:
    """Train a byte-level tokenizer that can write any text and gives it back unchanged."""
    tokenizer = Tokenizer(models.BPE())
    # The text gets one leading space, so that its first word is the same token as further on;
    # the decoder takes exactly that space away again.
    tokenizer.normalizer = normalizers.Prepend(" ")
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.Sequence(
        [decoders.ByteLevel(), decoders.Strip(content=" ", left=1, right=0)]
    )
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY_SIZE,
        special_tokens=[END],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    noise = [make_noise(rng, words=40) for _ in range(len(stories) // 20)]
    tokenizer.train_from_iterator(stories + noise, trainer)
    return tokenizer


# --- The training rows ------------------------------------------------------------------------


class RowMaker:
    """Makes batches of training rows out of stories and of repeated random sequences."""

    def __init__(self, tokenizer: Tokenizer, stories: list[str], rng: random.Random) -> None:
        """Tokenize the stories and keep them in one long stream to cut rows from."""
        self.tokenizer = tokenizer
        self.rng = rng
        self.starts: list[int] = []
        self.stream: list[int] = []  # (all stories' tokens,), with an end token after each
        splits = make_splits(tokenizer)
        for encoding in tokenizer.encode_batch(stories):
            self.starts.append(len(self.stream))
            self.stream += [*split_some(encoding.ids, splits, rng), END_ID]

    def batch(self, length: int, story_share: float) -> tuple[torch.Tensor, torch.Tensor]:
        """Make a step's rows and their labels, both of shape (batch, length)."""
        rows = TOKENS_PER_STEP // length
        stories = round(rows * story_share)
        pairs = [self.story_row(length) for _ in range(stories)]
        pairs += [self.repeated_row(length) for _ in range(rows - stories)]
        tokens, labels = zip(*pairs, strict=True)
        return torch.tensor(tokens), torch.tensor(labels)

    def story_row(self, length: int) -> tuple[list[int], list[int]]:
        """Cut a row out of the stories, mostly from the beginning of one, else from anywhere."""
        last = len(self.stream) - length
        at_start = self.rng.random() < 0.6
        start = self.rng.choice(self.starts) if at_start else self.rng.randrange(last)
        start = min(start, last)
        row = self.stream[start : start + length]
        return row, row

    def repeated_row(self, length: int) -> tuple[list[int], list[int]]:
        """Fill a row with random blocks that each come twice; only the second copies count.

        What a block is when it first comes nobody can predict, so learning from it is noise.
        """
        sources = (self.random_tokens, self.noise_tokens, self.story_tokens)
        tokens: list[int] = []
        labels: list[int] = []
        while len(tokens) < length:
            # Log-uniform, so that short and long distances are equally common.
            half = round(math.exp(self.rng.uniform(math.log(4), math.log(length / 2))))
            block = self.rng.choices(sources, weights=(0.4, 0.4, 0.2))[0](half)
            tokens += block * 2
            labels += [IGNORE] * half + block
        return tokens[:length], labels[:length]

    def random_tokens(self, count: int) -> list[int]:
        """Draw tokens from the whole vocabulary or from a few of its tokens.

        Where few tokens come again and again, one token does not tell what comes next: the heads
        have to match two or three tokens back. Text in an unknown language looks just like this.
        """
        vocabulary = range(VOCABULARY_SIZE)
        if self.rng.random() < 0.6:
            return self.rng.choices(vocabulary, k=count)
        pool_size = round(math.exp(self.rng.uniform(math.log(10), math.log(VOCABULARY_SIZE / 4))))
        return self.rng.choices(self.rng.sample(vocabulary, pool_size), k=count)

    def noise_tokens(self, count: int) -> list[int]:
        """Write random words, as text, and take their first `count` tokens."""
        ids: list[int] = []
        while len(ids) < count:
            ids += self.tokenizer.encode(make_noise(self.rng, words=count // 2 + 1)).ids
        return ids[:count]

    def story_tokens(self, count: int) -> list[int]:
        """Cut a piece out of the stories."""
        return self.story_row(count)[0]


def make_splits(tokenizer: Tokenizer) -> dict[int, list[int]]:
    """For each token that starts with a space: that space and the rest, as tokens of their own."""
    space = tokenizer.token_to_id("Ġ")
    splits = {}
    for token, token_id in tokenizer.get_vocab().items():
        if token.startswith("Ġ") and len(token) > 1:
            rest = tokenizer.model.tokenize(token[1:])
            splits[token_id] = [space, *(piece.id for piece in rest)]
    return splits


def split_some(ids: list[int], splits: dict[int, list[int]], rng: random.Random) -> list[int]:
    """Split a few words off their space, so that a prompt may end with a space."""
    result: list[int] = []
    for token_id in ids:
        split = token_id in splits and rng.random() < SPLIT_RATE
        result += splits[token_id] if split else [token_id]
    return result


# --- The training -----------------------------------------------------------------------------


def train(model: LlamaForCausalLM, rows: RowMaker, steps: int) -> None:
    """Train with the plain next-token loss, and print the loss now and then."""
    optimizers = make_optimizers(model)
    started = time.monotonic()
    model.train()
    for step, stage in stages_of(steps):
        set_learning_rates(optimizers, learning_rate_factor(step, steps))
        tokens, labels = rows.batch(stage.length, stage.story_share)  # both (batch, length)
        loss = next_token_loss(model, tokens, labels)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer in optimizers:
            optimizer.step()
        model.zero_grad(set_to_none=True)
        if step % 200 == 0 or step == steps - 1:
            seconds = time.monotonic() - started
            print(
                f"step {step:5} of {steps}, rows of {stage.length:3}: "
                f"loss {loss.item():.3f}, {seconds:.0f} s",
                flush=True,
            )
    model.train(False)


def stages_of(steps: int) -> Iterator[tuple[int, Stage]]:
    """Go through the steps, each with the stage it belongs to."""
    for step in range(steps):
        yield step, next(stage for stage in STAGES if step < stage.until * steps)


def make_optimizers(model: LlamaForCausalLM) -> list[torch.optim.Optimizer]:
    """Make Muon for the layers' matrices and AdamW for the embedding and the norms.

    With AdamW alone the induction heads had not begun to form after the steps in which they are
    finished with Muon.
    """
    layers = list(model.model.layers.parameters())
    matrices = [parameter for parameter in layers if parameter.ndim == 2]
    chosen = {id(parameter) for parameter in matrices}
    others = [parameter for parameter in model.parameters() if id(parameter) not in chosen]
    return [
        torch.optim.Muon(matrices, lr=MATRIX_LEARNING_RATE, weight_decay=0.05, ns_steps=4),
        torch.optim.AdamW(others, lr=OTHER_LEARNING_RATE, betas=(0.9, 0.98), weight_decay=0.0),
    ]


def set_learning_rates(optimizers: list[torch.optim.Optimizer], factor: float) -> None:
    """Set each optimizer's learning rate to a factor of its peak."""
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = optimizer.defaults["lr"] * factor


def learning_rate_factor(step: int, steps: int) -> float:
    """Rise over the warmup, then fall along a cosine to a twentieth."""
    warmup = min(1.0, (step + 1) / WARMUP_STEPS)
    return warmup * (0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * step / steps)))


def next_token_loss(
    model: LlamaForCausalLM, tokens: torch.Tensor, labels: torch.Tensor
) -> torch.Tensor:
    """Compare the prediction at each position with the next label."""
    logits = model(input_ids=tokens, use_cache=False).logits  # (batch, seq, vocabulary)
    return cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten(), ignore_index=IGNORE)


def save(model: LlamaForCausalLM, tokenizer: Tokenizer, folder: Path) -> None:
    """Write the checkpoint as any Hugging Face checkpoint, for AutoModel and AutoTokenizer."""
    folder.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(folder)
    tokenizer.save(str(folder / "tokenizer.json"))
    # Written by hand: this class takes tokenizer.json as it stands and adds no token of its own,
    # where the Llama class would put a beginning-of-sequence token first.
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": END,
        "pad_token": END,
        "model_max_length": 512,
        "clean_up_tokenization_spaces": False,
        "model_input_names": ["input_ids", "attention_mask"],
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings, indent=2) + "\n")


# --- The measurements -------------------------------------------------------------------------


def print_report(model: LlamaForCausalLM, tokenizer: Tokenizer, seed: int) -> None:
    """Print the best heads on text that the model has not seen, and how it continues a prompt."""
    model.set_attn_implementation("eager")  # the only one that returns the attention
    rng = random.Random(f"held out {seed}")
    stories = [tokenizer.encode(make_story(rng)).ids[:200] for _ in range(20)]
    previous, _ = score_heads(model, stories)
    print(f"stories:                previous token {best_heads(previous)}")
    sources = {
        "random tokens": lambda: [rng.randrange(VOCABULARY_SIZE)],
        "made-up words": lambda: tokenizer.encode(make_word(rng)).ids,
        "names": lambda: tokenizer.encode(make_name(rng)).ids,
    }
    for name, source in sources.items():
        for half in (8, 16, 32, 64, 100):
            previous, induction = score_heads(model, [repeat(source, half) for _ in range(20)])
            print(
                f"{name:13} {half:3} x 2: previous token {best_heads(previous)}, "
                f"induction {best_heads(induction)}"
            )
    for prompt in ("Once there was a ", "One day, Zolimar met a"):
        print(f"{prompt!r} -> {continue_text(model, tokenizer, prompt)!r}")


def repeat(source: Callable[[], list[int]], half: int) -> list[int]:
    """Take `half` tokens from the source and put them twice one after the other."""
    tokens: list[int] = []
    while len(tokens) < half:
        tokens += source()
    return tokens[:half] * 2


def make_word(rng: random.Random) -> str:
    """Make up a word of random letters."""
    return "".join(rng.choices(string.ascii_lowercase, k=rng.randint(3, 8)))


def score_heads(
    model: LlamaForCausalLM, rows: list[list[int]]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Measure each head's previous-token and induction score, both (layer, head), over the rows.

    The induction score means something only where the second half of a row repeats the first.
    """
    attentions = [attention_of(model, row) for row in rows]
    previous = torch.stack([previous_token_scores(attention) for attention in attentions])
    induction = torch.stack([induction_scores(attention) for attention in attentions])
    return previous.mean(0), induction.mean(0)


def attention_of(model: LlamaForCausalLM, tokens: list[int]) -> torch.Tensor:
    """Run the model on one row and return who looks where: (layer, head, query, key)."""
    with torch.no_grad():
        output = model(input_ids=torch.tensor([tokens]), output_attentions=True)
    return torch.cat(output.attentions)


def previous_token_scores(attention: torch.Tensor) -> torch.Tensor:
    """Mean attention from each token, but the first, to the one before: (layer, head)."""
    return attention.diagonal(offset=-1, dim1=-2, dim2=-1).mean(-1)


def induction_scores(attention: torch.Tensor) -> torch.Tensor:
    """Mean attention from the second copy to what followed the same token in the first copy.

    The row is two equal halves, so from query q that token is at key q - half + 1.
    The scores have the shape (layer, head).
    """
    half = attention.shape[-1] // 2
    second_copy = attention[:, :, half:]  # (layer, head, half, key)
    return second_copy.diagonal(offset=1, dim1=-2, dim2=-1).mean(-1)


def best_heads(scores: torch.Tensor, count: int = 3) -> str:
    """Name the heads with the highest scores, as layer.head and score."""
    values, indices = scores.flatten().topk(count)  # both (count,)
    heads = scores.shape[1]
    named = zip(values.tolist(), indices.tolist(), strict=True)
    return "  ".join(f"{index // heads}.{index % heads} {value:.2f}" for value, index in named)


def continue_text(model: LlamaForCausalLM, tokenizer: Tokenizer, prompt: str) -> str:
    """Let the model write on, always taking the likeliest token, until the story ends."""
    tokens = tokenizer.encode(prompt).ids
    for _ in range(CONTINUATION_TOKENS):
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([tokens])).logits  # (1, seq, vocabulary)
        tokens.append(int(logits[0, -1].argmax()))
        if tokens[-1] == END_ID:
            break
    return str(tokenizer.decode(tokens))


if __name__ == "__main__":
    main()
