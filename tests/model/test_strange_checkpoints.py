"""Checkpoints from strangers: none of their code runs unasked, and what is wrong is one line."""

from __future__ import annotations

import io
import json
import os
import pickle
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import GOOD, HIDDEN, Outcome, Run, document_with
from safetensors.torch import load_file

from activations import load
from activations.model import checkpoint

ROOT = Path(__file__).parent.parent.parent
CHOOSE = ["--prompt", "The cat", "--auto-select"]
LIST, ATTENTION, MLP = ["--list"], [*CHOOSE, "attn:0"], [*CHOOSE, "mlp:0"]
WAYS = (LIST, ATTENTION, MLP)
Change = Callable[[Path], None]
Tries = Callable[..., list[Outcome]]


@pytest.fixture
def folder(checkpoints: Callable[[str], Path], workplace: Path) -> Path:
    """A copy of a good checkpoint, to be spoilt."""
    return Path(shutil.copytree(checkpoints("llama"), workplace / "strange"))


@pytest.fixture
def tries(folder: Path, capture: Run) -> Tries:
    """The checkpoint captured in every way, or in those that are named."""
    return lambda *ways: [capture("--model", folder, *way) for way in ways or WAYS]


@pytest.fixture
def canary(workplace: Path) -> Iterator[Path]:
    """A file that code from the checkpoint would make. At the end it must not be there."""
    path = workplace / "canary"
    yield path
    assert not path.exists()


def edited(file: str, change: Callable[[Any], Any]) -> Change:
    def edit(folder: Path) -> None:
        found = json.loads((folder / file).read_text())
        change(found)
        (folder / file).write_text(json.dumps(found))

    return edit


def updated(file: str) -> Callable[..., Change]:
    return lambda **changes: edited(file, lambda found: found.update(changes))


config, settings = updated("config.json"), updated("tokenizer_config.json")


def written(file: str, content: str | bytes, instead_of: str = "") -> Change:
    def write(folder: Path) -> None:
        if instead_of:
            (folder / instead_of).unlink()
        (folder / file).write_bytes(content.encode() if isinstance(content, str) else content)

    return write


def refused(outcomes: list[Outcome], words: str = "") -> None:
    """Each with exit 1, nothing on stdout, and one line that is no last resort."""
    for done in outcomes:
        assert (done.code, done.out) == (1, []), done
        (line,) = (line for line in done.err if not line.startswith("Capturing "))
        assert line.startswith("error: ")
        assert not line.startswith("error: unexpected")
        assert line.endswith((".", "?"))
        assert len(line) < 2100
        assert words in line


# ------------------------------------------------------------------------------------------- code


class Calls:
    """Unpickled, it calls a function."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> Any:
        return self.call


def torch_file(value: Any, zipped: bool = True) -> bytes:
    file = io.BytesIO()
    torch.save(value, file, _use_new_zipfile_serialization=zipped)
    return file.getvalue()


WEIGHTS = "model.safetensors"
PICKLES = {
    "system": lambda path: pickle.dumps(Calls(os.system, f"touch {path}"), protocol=2),
    "a newer protocol": lambda path: pickle.dumps(Calls(os.system, f"touch {path}")),
    "exec": lambda path: torch_file({"a": Calls(exec, f"open({str(path)!r}, 'w')")}),
    "eval": lambda path: torch_file({"a": Calls(eval, f"open({str(path)!r}, 'w')")}, False),
    "open": lambda path: torch_file([Calls(open, str(path), "w")]),
    "getattr": lambda path: torch_file(Calls(getattr, Path(path), "touch")),
}


@pytest.mark.parametrize("kind", PICKLES)
def test_a_pickle_that_runs_code(kind: str, folder: Path, canary: Path, tries: Tries) -> None:
    written("pytorch_model.bin", PICKLES[kind](canary), WEIGHTS)(folder)
    words = "it could run code, it is not read. Get the checkpoint as safetensors."
    refused(tries(ATTENTION, MLP), words)


def test_the_pickles_would_run(workplace: Path) -> None:
    """Or the test above would hold whatever happens."""
    for kind in ("system", "exec", "eval", "open"):
        path = workplace / kind.replace(" ", "")
        raw = PICKLES[kind](path)
        if kind == "system":
            pickle.loads(raw)
        else:
            torch.load(io.BytesIO(raw), weights_only=False)
        assert path.exists(), kind


def test_a_pickle_of_weights_alone_is_loaded(folder: Path, tries: Tries) -> None:
    def attention() -> Any:
        (done,) = tries(ATTENTION)
        return load(done.out[0]).tensor("model.layers.0.self_attn", 1)

    before = attention()
    weights = load_file(folder / WEIGHTS)
    written("pytorch_model.bin", torch_file(weights), WEIGHTS)(folder)
    assert (attention() == before).all()


CODE = """
open({canary!r}, "w")
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
class Config(LlamaConfig): model_type = "mine"
class Model(LlamaForCausalLM): config_class = Config
class Words(PreTrainedTokenizerFast): pass
def generate(*args, **options): raise SystemExit
"""
MINE = {"model_type": "mine", "architectures": ["Model"]}
AUTO_CLASSES = ["AutoConfig", "AutoModel", "AutoModelForCausalLM", "AutoModelForMaskedLM"]
AUTO_CLASSES += ["AutoModelForSeq2SeqLM", "AutoTokenizer", "AutoProcessor", "AutoImageProcessor"]


def with_code(folder: Path, canary: Path) -> None:
    (folder / "code.py").write_text(CODE.format(canary=str(canary)))
    (folder / "custom_generate").mkdir(exist_ok=True)
    shutil.copy(folder / "code.py", folder / "custom_generate" / "generate.py")


@pytest.mark.parametrize("known", [True, False], ids=["known", "unknown"])
@pytest.mark.parametrize("auto_class", AUTO_CLASSES)
def test_a_configuration_that_names_code(
    auto_class: str, known: bool, folder: Path, canary: Path, tries: Tries
) -> None:
    """Done with transformers' own code where that knows the model, else refused."""
    with_code(folder, canary)
    named = ["code.Words", None] if auto_class == "AutoTokenizer" else "code.Model"
    config(auto_map={auto_class: named}, **({} if known else MINE))(folder)
    if known:
        refused([done for done in tries() if done.code], "contains custom code, which is not run")
    else:
        refused(tries())
    everything = config(auto_map={"AutoConfig": "code.Config", "AutoModel": "code.Model"}, **MINE)
    everything(folder)
    refused(tries(), "Review it, then pass --trust-remote-code.")


@pytest.mark.parametrize(
    "auto_map",
    [
        {"AutoTokenizer": ["code.Words", "code.Words"]},
        ["code.Words", None],  # as old ones have it
        {"AutoTokenizer": ["o/r--code.Words", None]},
    ],
    ids=["here", "legacy", "elsewhere"],
)
def test_a_tokenizer_that_names_code(
    auto_map: Any, folder: Path, canary: Path, tries: Tries
) -> None:
    with_code(folder, canary)
    settings(auto_map=auto_map, tokenizer_class="Mine")(folder)
    refused(tries(ATTENTION), "contains custom code, which is not run by default.")


def test_code_runs_where_it_is_trusted(folder: Path, workplace: Path, capture: Run) -> None:
    """Or the tests above would hold whatever happens."""
    with_code(folder, workplace / "ran")
    auto_map = {"AutoConfig": "code.Config", "AutoModelForCausalLM": "code.Model"}
    config(auto_map=auto_map, **MINE)(folder)
    argv = ["--model", folder, *ATTENTION]
    assert capture(*argv).code == 1
    assert not (workplace / "ran").exists()
    done = capture(*argv, "--trust-remote-code")
    assert done.code == 0
    assert (workplace / "ran").exists()
    assert load(done.out[0]).names[0] == "model.layers.0.self_attn"


ADAPTER = {"base_model_name_or_path": "evil/base", "peft_type": "LORA", "auto_mapping": 1}
NAMES_CODE: dict[str, Change] = {
    "generation": updated("generation_config.json")(custom_generate="code", trust_remote_code=True),
    "pipelines": config(custom_pipelines={"x": {"impl": "code.Model", "pt": ["AutoModel"]}}),
    "adapter": written("adapter_config.json", json.dumps(ADAPTER)),
    "kernels": config(use_kernels=True, kernel_config={"RMSNorm": "evil/kernel:RMSNorm"}),
}


@pytest.mark.parametrize("kind", NAMES_CODE)
def test_other_settings_that_name_code_are_passed_over(
    kind: str, folder: Path, canary: Path, tries: Tries
) -> None:
    with_code(folder, canary)
    NAMES_CODE[kind](folder)
    done = tries(*WAYS, [*ATTENTION, "--max-new-tokens", "3"])
    assert [one.code for one in done] == [0, 0, 0, 0]


@pytest.mark.parametrize("kernel", ["kernels-community/flash-attn2", "evil/kernel@main:attend"])
@pytest.mark.parametrize("key", ["_attn_implementation", "attn_implementation"])
def test_attention_code_from_the_hub(
    key: str, kernel: str, folder: Path, tries: Tries, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the package `kernels` is installed, transformers would fetch it and run it."""
    asked: list[Any] = []
    hub_kernels = "transformers.integrations.hub_kernels"
    monkeypatch.setattr(f"{hub_kernels}.get_kernel", asked.append)
    monkeypatch.setattr(f"{hub_kernels}.is_kernels_available", lambda *_: True)
    config(**{key: kernel})(folder)
    failed = [done for done in tries() if done.code]
    refused(failed, f"names attention code on the hub, '{kernel}'")
    assert asked == []


@pytest.mark.parametrize(
    "template",
    [
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{{ cycler.__init__.__globals__.os.system('touch CANARY') }}",
        "{{ messages.append(1) }}",
        "{% import 'os' as os %}{{ os }}",
        "{% include '/etc/passwd' %}",
        "{% for",
        "{{ 1 / 0 }}",
        "{{ raise_exception('no\nway') }}",
        "{% for i in range(10 ** 9) %}{{ i }}{% endfor %}",
        5,
    ],
    ids=str,
)
def test_chat_templates(template: Any, folder: Path, canary: Path, tries: Tries) -> None:
    if isinstance(template, str):
        template = template.replace("CANARY", str(canary))
    settings(chat_template=template)(folder)
    refused(tries([*ATTENTION, "--chat"]), "tokenizer or its chat template fails: ")
    assert tries(ATTENTION)[0].code == 0


# ----------------------------------------------------------------------------- what is not a model

INDEX = "model.safetensors.index.json"


def index(target: Any) -> Change:
    text = json.dumps({"metadata": {}, "weight_map": {"model.norm.weight": target}})
    return written(INDEX, text, WEIGHTS)


def replaced_by_link(file: str, target: str) -> Change:
    def change(folder: Path) -> None:
        (folder / file).unlink()
        (folder / file).symlink_to(target)

    return change


def tensor(**changes: Any) -> bytes:
    fields = {"dtype": "F32", "shape": [10**12], "data_offsets": [0, 4 * 10**12]} | changes
    text = json.dumps({"model.norm.weight": fields}).encode()
    return len(text).to_bytes(8, "little") + text + b"\0" * 4


def cut(folder: Path) -> None:
    path = folder / WEIGHTS
    path.write_bytes(path.read_bytes()[:5000])


NO_WEIGHTS: dict[str, Change] = {
    "none": lambda folder: (folder / WEIGHTS).unlink(),
    "an empty pickle": written("pytorch_model.bin", "", WEIGHTS),
    "junk for a pickle": written("pytorch_model.bin", b"\0junk" * 100, WEIGHTS),
    "a pickled list": written("pytorch_model.bin", torch_file([1, 2]), WEIGHTS),
    "an empty file": written(WEIGHTS, ""),
    "junk": written(WEIGHTS, b"junk" * 1000),
    "a header of 4 exabytes": written(WEIGHTS, (2**62).to_bytes(8, "little") + b"{}"),
    "a tensor of 4 terabytes": written(WEIGHTS, tensor()),
    "another shape": written(WEIGHTS, tensor(shape=[1], data_offsets=[0, 4])),
    "cut": cut,
    "a link to another file": replaced_by_link(WEIGHTS, "/etc/passwd"),
    "index: not JSON": written(INDEX, "{", WEIGHTS),
    "index: a list": written(INDEX, "[]", WEIGHTS),
    "index: no map": written(INDEX, "{}", WEIGHTS),
    "index: a number": index(5),
    "index: not there": index("gone.safetensors"),
}
OUTSIDE = ["../../../../etc/passwd", "/etc/passwd", "../good/model.safetensors", "a/../../b"]


@pytest.mark.parametrize("target", OUTSIDE)
@pytest.mark.parametrize("ending", ["safetensors", "bin", "fp16"])
def test_an_index_stays_in_its_folder(
    target: str, ending: str, folder: Path, checkpoints: Callable[[str], Path], tries: Tries
) -> None:
    shutil.copytree(checkpoints("llama"), folder.parent / "good")  # one that could be loaded
    index(target.replace("safetensors", "bin") if ending == "bin" else target)(folder)
    names = {"bin": "pytorch_model.bin.index.json", "fp16": "model.safetensors.index.fp16.json"}
    (folder / INDEX).rename(folder / names.get(ending, INDEX))
    refused(tries(ATTENTION, MLP), "names weights outside its folder")


def test_an_index_that_is_not_needed_is_no_device(folder: Path, tries: Tries) -> None:
    (folder / INDEX).symlink_to("/dev/zero")
    assert tries(ATTENTION)[0].code == 0


tokenizer = updated("tokenizer.json")


OLD_FILES = ["tokenizer.pkl", "vocab.pkl", "vocab.bin", "vocab.json", "merges.txt"]
OLD_FILES += ["tokenizer.model", "spiece.model", "vocab.txt", "tekken.json"]


def only_old_files(folder: Path) -> None:
    """Pickles under the names that old tokenizers read."""
    (folder / "tokenizer.json").unlink()
    for name in OLD_FILES:
        (folder / name).write_bytes(pickle.dumps(Calls(os.system, "touch canary")))


def ids_beyond(found: Any) -> None:
    found["model"]["vocab"] = {word: 10**6 + id for word, id in found["model"]["vocab"].items()}


SPLIT = {"type": "Split", "pattern": {"Regex": "(a+)+$("}, "behavior": "Isolated", "invert": False}
POST = {"type": "TemplateProcessing", "pair": [], "special_tokens": {}}
POST["single"] = [{"SpecialToken": {"id": "zz", "type_id": 0}}]
TOKENIZERS: dict[str, Change] = {
    "cut": edited("tokenizer.json", lambda found: found.pop("model")),
    "empty": written("tokenizer.json", ""),
    "not JSON": written("tokenizer.json", '{"version":'),
    "not text": written("tokenizer.json", b"\xff\xfe\0"),
    "a list": written("tokenizer.json", "[]"),
    "nested deeply": written("tokenizer.json", '{"a":' * 100_000),
    "of no known type": edited("tokenizer.json", lambda found: found["model"].update(type="X")),
    "no regular expression": tokenizer(pre_tokenizer=SPLIT),
    "panics when loaded": tokenizer(
        normalizer={"type": "Precompiled", "precompiled_charsmap": "AAAA"}
    ),
    "panics when asked": tokenizer(post_processor=POST),
    "ids beyond the model's": edited("tokenizer.json", ids_beyond),
    "pickles": only_old_files,
    "settings: not JSON": written("tokenizer_config.json", "{"),
    "settings: a list": written("tokenizer_config.json", "[]"),
    "settings: a length of words": settings(model_max_length="long"),
    "settings: code of a number": settings(auto_map=5),
    "settings: a class of a number": settings(tokenizer_class=5),
    "settings: a class that is none": settings(tokenizer_class="PreTrainedModel"),
    "settings: another class": settings(tokenizer_class="BertTokenizer"),
    "settings: odd tokens": settings(added_tokens_decoder={"a": "b"}),
}


# ------------------------------------------------------------------------------- configurations

CONFIGURATIONS: dict[str, Change] = {
    "not JSON": written("config.json", "{nope"),
    "empty": written("config.json", ""),
    "a list": written("config.json", "[1, 2]"),
    "a text": written("config.json", '"llama"'),
    "nothing": written("config.json", "null"),
    "not UTF-8": written("config.json", b'{"a": "\xe9"}'),
    "nested deeply": written("config.json", '{"a":' * 100_000 + "1" + "}" * 100_000),
    "a number of 10,000 digits": written("config.json", '{"x": ' + "9" * 10_000 + "}"),
    "a link to itself": replaced_by_link("config.json", "config.json"),
    "a device without end": replaced_by_link("config.json", "/dev/zero"),
    "an unknown type": config(model_type="nope"),
    "a type of a number": config(model_type=5),
    "a type of a list": config(model_type=["llama"]),
    "a type with escapes": config(model_type="\x1b[31m\nerror: forged\u202e"),
    "classes of a number": config(architectures=5),
    "code of a text": config(auto_map="AutoConfig"),
    "code of a number": config(auto_map={"AutoConfig": 5}),
    "not divisible": config(num_attention_heads=5, head_dim=None),
    "parts of a number": config(text_config=5),
    "odd keys": config(**{"__class__": "x", "__dict__": {}, "from_pretrained": 5}),
    "odd labels": config(id2label={"a": "b"}),
    "odd padding": config(pad_token_id=10**9),
}
FIELDS = ["hidden_size", "num_hidden_layers", "num_attention_heads", "vocab_size", "head_dim"]
VALUES = ["abc", -1, 10**12, 1.5, [1], True, {}]


# What is spoilt: the ways it shows in, words of the line, and how.
SPOILT: dict[str, tuple[Any, str, dict[str, Change]]] = {
    "weights": ((ATTENTION, MLP), "the weights of", NO_WEIGHTS),
    "tokenizer": ((ATTENTION,), "token", TOKENIZERS),
    "configuration": (WAYS, "", CONFIGURATIONS),
}
HOW = [(part, how) for part, (*_, changes) in SPOILT.items() for how in changes]


@pytest.mark.parametrize(("part", "how"), HOW)
def test_parts_that_are_none(part: str, how: str, folder: Path, canary: Path, tries: Tries) -> None:
    ways, words, changes = SPOILT[part]
    changes[how](folder)
    refused(tries(*ways), words)


@pytest.mark.parametrize("value", VALUES, ids=str)
@pytest.mark.parametrize("field", FIELDS)
def test_numbers_that_are_none(field: str, value: Any, folder: Path, tries: Tries) -> None:
    """(That of `--list` may be shown: on the meta device a model of any size is.)"""
    config(**{field: value})(folder)
    listed, *captured = tries()
    if (field, value) == ("num_hidden_layers", -1):  # no layers, so no such modules
        captured = [done for done in captured if done.code != 2]
    refused([listed, *captured] if listed.code else captured)


ENDLESS = {
    "llama": {"num_hidden_layers": 10**9},
    "qwen2": {"num_hidden_layers": 10**12},
    "gpt2": {"n_layer": 10**9},
    "bart": {"encoder_layers": 10**400},
    "mixtral": {"num_local_experts": 10**9},
    "swin": {"depths": [2, 10**9]},
    "clip": {"text_config": {"num_hidden_layers": 10**9}},
    "bert": {"num_labels": 10**9},
}


@pytest.mark.parametrize("family", ENDLESS)
def test_models_without_end(family: str, folder: Path, tries: Tries) -> None:
    """Refused before transformers makes lists as long."""
    fields = {"model_type": family, **ENDLESS[family]}
    (folder / "config.json").write_text(json.dumps(fields))
    refused(tries(), ", which no model has. Fix its config.json.")


METHODS = ["nope", "bitsandbytes", "gptq", "awq", "quanto", "torchao", "compressed-tensors"]


@pytest.mark.parametrize("method", [{"quant_method": method} for method in METHODS] + [{}, 5, [1]])
def test_quantisations(method: Any, folder: Path, canary: Path, tries: Tries) -> None:
    """Passed over by transformers where it does not know them, refused where it cannot."""
    config(quantization_config=method)(folder)
    refused([done for done in tries() if done.code])


@pytest.mark.parametrize("name", ["x" * 300, "x" * 5000, "a\0b", "a\nb", "file:///etc", " "])
def test_names_that_are_none(name: str, workplace: Path, capture: Run, view: Run) -> None:
    refused([capture("--model", name, *way) for way in WAYS])
    # A document without tokens names the model whose tokenizer knows them.
    document_with("d.json", [HIDDEN, GOOD], model=name, input_ids=[[1, 2]], tokens=None)
    done = view("--input", "d.json")
    assert done.code == 0
    (line,) = done.err
    assert line.endswith("cannot be loaded; ids are shown.")


# -------------------------------------------------------------------------------------- the network


# In a process of its own, which may ask the hub.
TWICE = """
import sys
import agnostic_capture
choice = ["--prompt", "The cat", "--auto-select", "attn:0", "--output", "d.json", "--quiet"]
print([agnostic_capture.main(["--model", name, *choice]) for name in sys.argv[1:]])
"""


@pytest.fixture
def hub() -> Iterator[tuple[str, list[Any]]]:
    """An address that answers nothing; who called it."""
    calls: list[Any] = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer() -> None:
            while True:
                try:
                    connection, address = server.accept()
                except OSError:
                    return
                calls.append(address)
                connection.close()

        threading.Thread(target=answer, daemon=True).start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}", calls
        server.shutdown(socket.SHUT_RDWR)


def test_a_folder_asks_nothing_of_the_hub(folder: Path, hub: tuple[str, list[Any]]) -> None:
    """Also where it lacks a tokenizer, or names models there."""
    address, calls = hub
    NAMES_CODE["adapter"](folder)
    config(_name_or_path="evil/base", base_model="evil/base")(folder)
    shutil.copytree(folder, "bare", ignore=shutil.ignore_patterns("tokenizer.json"))
    done = subprocess.run(
        [sys.executable, "-c", TWICE, str(folder), "bare"],
        capture_output=True,
        text=True,
        timeout=120,  # or it would hang
        env=os.environ | {"HF_HUB_OFFLINE": "0", "HF_ENDPOINT": address, "PYTHONPATH": str(ROOT)},
    )
    assert done.stdout.splitlines() == ["d.json", "[0, 1]"]
    assert "'bare' has no tokenizer that can be loaded" in done.stderr
    assert calls == []


def test_whether_the_hub_is_in_reach(
    hub: tuple[str, list[Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Found out at once: huggingface_hub tries each file six times, with pauses."""
    monkeypatch.setattr(checkpoint, "getproxies", dict)
    assert not checkpoint._hub_in_reach()  # HF_HUB_OFFLINE
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    answers = {hub[0]: True, "https://nowhere.invalid": False, "http://x:port": False}
    answers["http://127.0.0.1:9"] = False
    for address, expected in answers.items():
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", address)
        assert checkpoint._hub_in_reach() == expected, address
