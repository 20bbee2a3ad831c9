"""The documentation is true: every command and example runs and prints what the page shows."""

from __future__ import annotations

import io
import json
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pages
import peft
import pytest
import tiny
import tiny_media
import tiny_translators
import transformers
from conftest import Run
from pages import PAGES, ROOT

import agnostic_capture
import bertviz_head_model_view

sys.path.append(str(ROOT / "docs"))

import write_options

Checkpoints = Callable[[str], Path]

# Tiny models that stand in for those of the hub.
STAND_INS = {
    "Qwen/Qwen2.5-0.5B": "qwen2",
    "google-t5/t5-small": "t5",
    "google-bert/bert-base-uncased": "bert",
    "google/vit-base-patch16-224": "vit",
    "openai/clip-vit-base-patch32": "clip",
    "openai/whisper-tiny": "whisper",
    "facebook/opt-125m": "opt",
    "tiiuae/falcon-7b": "falcon",
}
README = (ROOT / "README.md").read_text(encoding="utf-8")


def page_id(page: Path) -> str:
    return page.stem


every_page = pytest.mark.parametrize("page", PAGES, ids=page_id)


@pytest.fixture
def clone(workplace: Path, checkpoints: Checkpoints) -> Callable[[str], None]:
    """Makes the current folder look like a clone, with the models and files that a page names."""

    def prepare(text: str) -> None:
        for name in (
            "agnostic_capture.py",
            "bertviz_head_model_view.py",
            "activations",
            "examples",
        ):
            (workplace / name).symlink_to(ROOT / name)
        (workplace / "demo_model").symlink_to(ROOT / "demo_model")
        (workplace / "bertviz").mkdir()
        for name, family in STAND_INS.items():
            if name in text:
                (workplace / name).parent.mkdir(exist_ok=True)
                (workplace / name).symlink_to(checkpoints(family))
        if "facebook/nllb" in text:
            tiny_translators.checkpoint(workplace / "facebook/nllb-200-distilled-600M", "nllb")
        if "./checkpoint-500" in text:
            tokenizer_files = shutil.ignore_patterns("tokenizer*")
            shutil.copytree(checkpoints("qwen2"), "checkpoint-500", ignore=tokenizer_files)
        if "--chat" in text:
            _with_chat_template(shutil.copytree(checkpoints("qwen2"), "Qwen/Qwen2.5-0.5B-Instruct"))
        if "./remote" in text:
            _with_custom_code(shutil.copytree(checkpoints("llama"), workplace / "remote"))
        if "./my-adapter" in text:
            _with_adapter(checkpoints("llama"), workplace / "my-adapter")
        if "model.gguf" in text:
            (workplace / "model.gguf").write_bytes(b"GGUF")
            shutil.copytree(checkpoints("llama"), workplace / "training" / "checkpoint-500")
        tiny_media.image(workplace / "cat.png")
        tiny_media.audio(workplace / "speech.wav")
        (workplace / "other.json").write_text(json.dumps(_without_batch_axis()))

    return prepare


def _with_custom_code(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    config |= {"model_type": "own", "auto_map": {"AutoConfig": "code.Config"}}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "code.py").write_text("")


def _with_chat_template(folder: Path) -> None:
    tokenizer = tiny.tokenizer()
    tokenizer.chat_template = "{% for m in messages %}{{ m.role }}: {{ m.content }} {% endfor %}"
    tokenizer.save_pretrained(folder)


def _with_adapter(base: Path, folder: Path) -> None:
    config = peft.LoraConfig(task_type="CAUSAL_LM", target_modules=["q_proj"])
    model = transformers.AutoModelForCausalLM.from_pretrained(base)
    peft.get_peft_model(model, config).save_pretrained(str(folder))


def _without_batch_axis() -> dict[str, object]:
    """A document of another program, whose weights are (heads, tokens, tokens)."""
    output = [np.zeros((1, 6, 8)).tolist(), np.zeros((4, 6, 6)).tolist()]
    module = {"shape": [[1, 6, 8], [4, 6, 6]], "output": output}
    return {"captured": {"attention_outputs": {"model.layers.0.self_attn": module}}}


@every_page
def test_everything_runs(
    page: Path,
    clone: Callable[[str], None],
    capture: Run,
    view: Run,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Commands and Python, in the page's order, in a folder that begins as a fresh clone."""
    text = page.read_text(encoding="utf-8")
    clone(text)
    mains = {"agnostic_capture.py": capture, "bertviz_head_model_view.py": view}
    names: dict[str, object] = {}  # each Python block goes on where the one before it ended
    for language, content in pages.blocks(text):
        if language == "python":
            exec(compile(content, page.name, "exec"), names)
        elif language == "text" and content.startswith('{\n"format"'):
            assert_shows_document(content)
        elif language == "console":
            for command in pages.commands(content):
                monkeypatch.setattr("sys.stdin", io.StringIO(command.answers))
                run(command, mains)


def run(command: pages.Command, mains: dict[str, Run]) -> None:
    words = shlex.split(command.line)
    if words[0] == "python" and words[1] in mains and not {"|", ">"} & set(words):
        done = mains[words[1]](*words[2:])
        assert (done.code in (1, 2)) if command.fails else (done.code == 0), (command, done.err)
        missing = command.not_in(done.err + done.out)
        assert missing == [], "\n".join([command.line, "prints:", *done.err, *done.out])
    else:  # pipes and redirections are the shell's
        assert not command.shown, command
        line = command.line.replace("python ", f"{sys.executable} ")
        subprocess.run(["bash", "-c", line], check=True, capture_output=True, timeout=300)


def assert_shows_document(example: str) -> None:
    """The lines of the example are those of the document just written, but for `...`."""
    written = Path("agnostic_activations.json").read_text(encoding="utf-8").splitlines()
    at = -1
    for line in example.splitlines():
        if line == "...":
            continue
        pieces = map(re.escape, line.replace(" ", "").split("..."))
        wanted = re.compile(".*?".join(pieces))
        found = [i for i in range(at + 1, len(written)) if wanted.fullmatch(spaceless(written[i]))]
        assert found, line
        at = found[0]


def spaceless(text: str) -> str:
    return text.replace(" ", "")


def test_the_python_examples_do_what_they_say(
    clone: Callable[[str], None], capsys: pytest.CaptureFixture[str]
) -> None:
    text = (ROOT / "docs" / "python.md").read_text(encoding="utf-8")
    clone(text)
    names: dict[str, object] = {}
    for language, content in pages.blocks(text):
        if language == "python":
            exec(compile(content, "python.md", "exec"), names)
    printed = capsys.readouterr().out.splitlines()
    assert printed[0].startswith("(1, 4, 6, 6) ['ĠOnce', ")
    assert printed[-1].startswith("Module not found: ")
    assert Path("fox.html").stat().st_size > 100_000


@every_page
def test_links_lead_somewhere(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for link in pages.links(text):
        if link.startswith("https://"):
            continue
        name, _, anchor = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        assert target.exists(), link
        if anchor:
            assert anchor in pages.anchors(target.read_text(encoding="utf-8")), link


def test_every_page_is_linked_from_the_readme() -> None:
    linked = {link.partition("#")[0] for link in pages.links(README)}
    assert {f"docs/{page.name}" for page in PAGES[1:]} <= linked


def test_the_readme_is_short() -> None:
    assert 6_500 <= len(README.encode()) <= 8_200


def test_what_the_readme_promised_is_a_link_away() -> None:
    linked = " ".join(pages.links(README))
    for anchor in (
        "troubleshooting.md#attention-tensor-does-not-have-correct-dimensions",
        "troubleshooting.md#module-not-found",
        "troubleshooting.md#no-data-captured",
        "document.md#the-data-structure",
        "document.md#where-the-attention-weights-are-self_attn-element-1",
    ):
        assert f"docs/{anchor}" in linked


def test_the_figures_of_the_readme_are_those_of_the_page() -> None:
    page = (ROOT / "docs" / "models.md").read_text(encoding="utf-8")
    exact, returned = re.findall(r"bit for bit \| (\d+) of (\d+) ", page)[0]
    version = re.findall(r"transformers (\d+\.\d+\.\d+)", page)[0]
    assert f"{exact} of the {returned} " in README
    assert f"transformers {version}" in README


def test_messages_are_shown_where_they_are_tested() -> None:
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        in_console = [c for language, c in pages.blocks(text) if language == "console"]
        shown = re.findall(r"^error: .*$", text, re.MULTILINE)
        assert len(shown) == "\n".join(in_console).count("error: "), page.name
        if page.name == "troubleshooting.md":
            for message in re.findall(r"^## `(.+)`$", text, re.MULTILINE):
                assert any(line.startswith(f"error: {message}: ") for line in shown), message


# ---------------------------------------------------------------------------------- the options


def flags_of_the_commands() -> set[str]:
    parsers = agnostic_capture.build_parser(), bertviz_head_model_view.build_parser()
    return {
        flag
        for parser in parsers
        for action in parser._actions
        for flag in action.option_strings
        if flag.startswith("--")
    }


def test_every_option_is_on_the_page_of_options() -> None:
    page = (ROOT / "docs" / "options.md").read_text(encoding="utf-8")
    sections = page.split("\n## ")
    for parser in agnostic_capture.build_parser(), bertviz_head_model_view.build_parser():
        (section,) = (part for part in sections if part.startswith(f"{parser.prog}\n"))
        rows = re.findall(r"^\| `(--[a-z-]+|\[FILE\])", section, re.MULTILINE)
        named = ((f"[{a.metavar}]", *a.option_strings)[-1] for a in parser._actions)
        assert sorted(rows) == sorted(named)


@every_page
def test_every_option_that_is_named_exists(page: Path) -> None:
    scripts = [ROOT / "benchmarks" / "run.py", ROOT / "benchmarks" / "coverage.py"]
    scripts.append(ROOT / "docs" / "write_options.py")
    sources = "".join(script.read_text(encoding="utf-8") for script in scripts)
    of_scripts = set(re.findall(r'add_argument\("(--[a-z-]+)"', sources))
    named = pages.options(page.read_text(encoding="utf-8"))
    assert named - flags_of_the_commands() - of_scripts == set()


def test_the_page_of_options_is_up_to_date() -> None:
    assert write_options.main(["--check"]) == 0


def test_the_check_notices_an_old_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "options.md"
    monkeypatch.setattr(write_options, "PAGE", page)
    for old in (None, write_options.page().replace("--chat", "--chatter")):
        if old is not None:
            page.write_text(old)
        assert write_options.main(["--check"]) == 1
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith("error: docs/options.md is out of date.")
    assert write_options.main([]) == 0
    assert write_options.main(["--check"]) == 0
    check = (ROOT / "Makefile").read_text(encoding="utf-8").split("\ncheck:")[1].split("\n\n")[0]
    assert "docs/write_options.py --check" in check


# ------------------------------------------------------------------------- the code and the tree


def test_the_architecture_is_that_of_the_tree() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    words = {word.rstrip(",;:") for word in pages.code_words(text)}
    paths = {word for word in words if "/" in word or word.endswith((".py", ".md"))}
    package = ROOT / "activations"
    missing = {p for p in paths if not ((ROOT / p).exists() or (package / p).exists())}
    assert missing == set()
    here = [path for path in package.iterdir() if path.name not in ("__pycache__", "py.typed")]
    expected = {f"activations/{path.name}{'/' * path.is_dir()}" for path in here}
    assert expected - words == set()


def test_every_make_target_exists() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z]+):", makefile, re.MULTILINE))
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        assert set(re.findall(r"(?:^|`)make ([a-z]+)", text, re.MULTILINE)) <= targets, page.name


def test_make_demo(tmp_path: Path) -> None:
    """The first command of the README, in a copy of the tree, with this environment."""
    files = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=True,
    ).stdout.decode()
    for name in filter(None, files.split("\0")):
        if (ROOT / name).exists():
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, tmp_path / name)
    environment = Path(sys.prefix)
    # The set-up itself is what `make test` has just done.
    done = subprocess.run(
        ["make", "demo", f"VENV={environment}", "-o", f"{environment}/.installed"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    written = [line for line in done.stdout.splitlines() if line.endswith(".html")]
    assert len(written) == 2
    assert all((tmp_path / page).stat().st_size > 100_000 for page in written)
    assert next(c for language, c in pages.blocks(README) if language == "sh") == "make demo\n"


def test_pictures_are_there() -> None:
    pictures = re.findall(r'src="([^"]+)"', README)
    assert len(pictures) == 2
    for picture in pictures:
        assert (ROOT / picture).read_bytes().startswith(b"\x89PNG")
