"""Images and audio: what the model gets is what its own processor makes, and the names are true."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
import soundfile
import tiny
import tiny_media
import torch
import transformers
from conftest import Run
from tokenizers.processors import TemplateProcessing

from activations import UsageError, capture, load
from activations.inputs.media import read_audio, read_image

Checkpoints = Callable[[str], Path]
DOCUMENT = "agnostic_activations.json"
PATCHES = [f"r{row}c{column}" for row in range(3) for column in range(3)]
SPECIAL = {
    "vit": ["[CLS]"],
    "deit": ["[CLS]", "[DIST]"],
    "dinov2": ["[CLS]"],
    "dinov2_with_registers": ["[CLS]", "[REG0]", "[REG1]"],
}
GIVEN = {
    "clip": ["--image", "cat.png", "--prompt", "The cat sat"],
    "blip": ["--image", "cat.png", "--prompt", "The cat sat"],
    "whisper": ["--audio", "speech.wav"],
    "wav2vec2": ["--audio", "speech.wav"],
    "llava": ["--image", "cat.png", "--prompt", "The <image> cat"],
}


@pytest.fixture(autouse=True)
def files(workplace: Path) -> None:
    tiny_media.image(workplace / "cat.png", size=(42, 50))
    tiny_media.audio(workplace / "speech.wav")


def given(family: str) -> list[str]:
    return GIVEN.get(family, ["--image", "cat.png"])


def own_attentions(family: str, folder: Path, header: dict[str, Any]) -> dict[Any, Any]:
    """{(kind, layer): weights} of the model, called as its own documentation shows."""
    config = transformers.AutoConfig.from_pretrained(folder)
    model_class = getattr(transformers, config.architectures[0])
    model = model_class.from_pretrained(folder, attn_implementation="eager").eval()
    auto_class = "AutoFeatureExtractor" if family == "wav2vec2" else "AutoProcessor"
    processor = getattr(transformers, auto_class).from_pretrained(folder)
    if "audio" in header:
        samples, rate = soundfile.read("speech.wav", dtype="float32")
        inputs = processor(samples, sampling_rate=rate, return_tensors="pt")
    else:
        text = {"text": header["prompt"]} if header["prompt"] else {}
        inputs = processor(images=PIL.Image.open("cat.png"), **text, return_tensors="pt")
    if "decoder_input_ids" in header:
        inputs["decoder_input_ids"] = torch.tensor(header["decoder_input_ids"])
    with torch.no_grad():
        returned = model(**inputs, output_attentions=True)
    if family == "clip":
        parts = {"text": returned.text_model_output, "vision": returned.vision_model_output}
        found = {kind: part.attentions for kind, part in parts.items()}
    elif family == "whisper":
        kinds = ("encoder", "decoder", "cross")
        found = {kind: returned[f"{kind}_attentions"] for kind in kinds}
    else:
        found = {"self": returned.attentions}
    return {(kind, i): w.numpy() for kind, ws in found.items() for i, w in enumerate(ws)}


@pytest.mark.parametrize("family", tiny_media.FAMILIES)
def test_from_checkpoint_to_pages(
    family: str, checkpoints: Checkpoints, capture: Run, view: Run
) -> None:
    """Captured weights are the model's own output_attentions, bit for bit."""
    folder = checkpoints(family)
    done = capture("--model", folder, *given(family), "--auto-select", "attn:weights")
    assert (done.code, done.out) == (0, [DOCUMENT]), done.err
    document = load(DOCUMENT)
    expected = own_attentions(family, folder, document.header)
    assert document.attention_weights is not None
    assert {(e["kind"], e["layer"]) for e in document.attention_weights} == set(expected)
    assert len(document.attention_weights) == len(expected)
    for entry in document.attention_weights:
        found = document.tensor(entry["module"], *entry["element"])
        np.testing.assert_array_equal(found, expected[entry["kind"], entry["layer"]])
    shown = view("--output-dir", "pages")
    assert shown.code == 0
    assert shown.err == []
    file = given(family)[1]
    assert len(os.listdir("pages")) == 2
    for page in os.listdir("pages"):
        text = Path("pages", page).read_text(encoding="utf-8")
        assert f">{file}</div>" in text
        assert ("<dt>Prompt</dt>" in text) == ("--prompt" in given(family))


@pytest.mark.parametrize("family", SPECIAL)
def test_patches_are_the_tokens_of_an_image(
    family: str, checkpoints: Checkpoints, capture: Run
) -> None:
    """Of two images that differ in one patch, only this token's embedding differs."""
    pixels = np.array(PIL.Image.open(tiny_media.image(Path("one.png"))))
    pixels[10:20, 20:30] = 255 - pixels[10:20, 20:30]
    PIL.Image.fromarray(pixels).save("other.png")
    embeddings = []
    for name in ("one.png", "other.png"):
        argv = ["--model", checkpoints(family), "--image", name, "--auto-select"]
        assert capture(*argv, "other:embeddings").code == 0
        document = load(DOCUMENT)
        assert document.header["tokens"] == SPECIAL[family] + PATCHES
        assert document.header["image"] == name
        assert document.header["prompt"] == ""
        assert "input_ids" not in document.header
        embeddings.append(document.tensor(document.names[0])[0])
    changed = np.flatnonzero((embeddings[0] != embeddings[1]).any(axis=-1))
    assert [document.header["tokens"][i] for i in changed] == ["r1c2"]


def test_positions_nobody_can_name_are_numbered(
    checkpoints: Checkpoints, capture: Run, view: Run
) -> None:
    """YOLOS has tokens of its own after the patches."""
    argv = ["--model", checkpoints("yolos"), "--image", "cat.png", "--auto-select"]
    done = capture(*argv, "attn:weights")
    assert done.code == 0
    assert "tokens" not in load(DOCUMENT).header
    assert view("--output-dir", "pages").code == 0
    page = next(Path("pages").iterdir()).read_text(encoding="utf-8")
    assert '"#0","#1"' in page


def test_two_towers(checkpoints: Checkpoints, capture: Run, view: Run) -> None:
    argv = ["--model", checkpoints("clip"), *given("clip"), "--auto-select"]
    assert capture(*argv, "attn:weights").code == 0
    header = load(DOCUMENT).header
    assert header["tokens"] == ["<s>", "The", "Ġcat", "Ġsat", "</s>"]
    assert len(header["input_ids"][0]) == 5
    assert header["vision_tokens"] == ["[CLS]", *PATCHES]
    assert view("--output-dir", "pages").code == 0
    page = next(Path("pages").glob("*head*")).read_text(encoding="utf-8")
    assert "Text: layers 0-2, 4 heads, 5 tokens; Vision: layers 0-1, 4 heads, 10 tokens" in page
    assert '"rowTokens":["[CLS]","r0c0"' in page


def test_tokens_of_the_text_stay_its_own(checkpoints: Checkpoints, capture: Run, view: Run) -> None:
    argv = ["--model", checkpoints("blip"), *given("blip"), "--auto-select"]
    assert capture(*argv, "attn:weights").code == 0
    header = load(DOCUMENT).header
    assert header["tokens"] == ["[CLS]", "The", "Ġcat", "Ġsat", "[SEP]"]
    assert header["self_tokens"] == ["[CLS]", *PATCHES]
    assert view("--output-dir", "pages").err == []


def test_frames_are_the_tokens_of_audio(checkpoints: Checkpoints, capture: Run) -> None:
    """Of two recordings that differ at 0.5 s, the frames differ whose 25 ms hold that moment."""
    samples, rate = soundfile.read("speech.wav", dtype="float32")
    samples[rate // 2] += 0.5
    soundfile.write("other.wav", samples, rate)
    frames = []
    for name in ("speech.wav", "other.wav"):
        argv = ["--model", checkpoints("wav2vec2"), "--audio", name, "--auto-select"]
        assert capture(*argv, "other:feature_extractor").code == 0
        document = load(DOCUMENT)
        frames.append(document.tensor(document.names[0])[0])
    tokens = document.header["tokens"]
    assert tokens[:3] == ["0.00s", "0.02s", "0.04s"]
    assert len(tokens) == frames[0].shape[-1]
    changed = np.flatnonzero((frames[0] != frames[1]).any(axis=0))
    assert [tokens[i] for i in changed] == ["0.48s", "0.50s"]


def test_what_whisper_hears_and_writes(checkpoints: Checkpoints, capture: Run) -> None:
    argv = ["--model", checkpoints("whisper"), "--audio", "speech.wav", "--auto-select"]
    assert capture(*argv, "attn:weights;other:proj_out", "--max-new-tokens", 5).code == 0
    document = load(DOCUMENT)
    assert document.header["tokens"] == [f"{i / 50:.2f}s" for i in range(50)]
    ids = document.header["decoder_input_ids"][0]
    assert ids[0] == 1
    assert len(ids) == len(document.header["decoder_tokens"]) == 6
    logits = document.tensor("proj_out")[0]
    assert ids[1:] == logits.argmax(axis=-1)[:-1].tolist()  # greedily
    assert capture(*argv, "attn:weights", "--target", "The cat").code == 0
    assert load(DOCUMENT).header["decoder_tokens"] == ["<s>", "The", "Ġcat"]


def test_a_tokenizer_that_writes_the_start_itself(workplace: Path) -> None:
    model, processor = tiny_media.build("whisper")
    tokenizer = tiny.tokenizer(template="<s> $A </s>")
    tokenizer.prefix_tokens = [1]  # as Whisper's own has them
    document = capture(
        model, audio="speech.wav", target="The cat", processor=processor, tokenizer=tokenizer
    )
    assert document.header["decoder_tokens"] == ["<s>", "The", "Ġcat"]


def test_more_than_is_heard_at_once_is_said(checkpoints: Checkpoints, capture: Run) -> None:
    tiny_media.audio(Path("long.wav"), seconds=2.6)
    argv = ["--model", checkpoints("whisper"), "--audio", "long.wav", "--auto-select"]
    done = capture(*argv, "attn:weights")
    assert done.code == 0
    assert (
        "warning: 'long.wav' lasts 3 seconds, and this model reads 1 at once: the rest is left out."
    ) in done.err


def test_an_image_inside_the_text(checkpoints: Checkpoints, capture: Run) -> None:
    argv = ["--model", checkpoints("llava"), "--image", "cat.png", "--auto-select", "attn:weights"]
    assert capture(*argv, "--prompt", "The <image> cat").code == 0
    tokens = load(DOCUMENT).header["tokens"]
    assert tokens == ["The", "Ġ", *["<image>"] * 9, "Ġcat"]
    assert capture(*argv, "--prompt", "The cat", "--chat", "--max-new-tokens", 3).code == 0
    header = load(DOCUMENT).header
    assert header["tokens"][:11] == [*["<image>"] * 9, "The", "Ġcat"]
    assert len(header["tokens"]) == header["continuation_start"] + 3
    done = capture(*argv, "--prompt", "The cat")
    assert done.code == 1
    assert done.err[-1].startswith("error: the checkpoint's processor refuses the image: ValueE")
    assert done.err[-1].endswith(
        " Write its place into --prompt, once for each image, or use --chat."
    )
    assert capture("--model", checkpoints("llava"), "--prompt", "a", *argv[4:]).code == 0


@pytest.mark.parametrize("start", ["", "<s>"])
def test_a_chat_starts_once(start: str, workplace: Path) -> None:
    """As transformers has it, whether the template writes the start or the tokenizer does."""
    model, processor = tiny_media.build("llava")
    processor.tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", 1)]
    )
    processor.chat_template = start + processor.chat_template
    image = tiny_media.image(workplace / "cat.png")
    content = [{"type": "image", "url": str(image)}, {"type": "text", "text": "The cat"}]
    expected = processor.apply_chat_template(
        [{"role": "user", "content": content}],
        add_generation_prompt=True,
        tokenize=True,
        return_dict=True,
    )
    document = capture(model, "The cat", image=image, chat=True, processor=processor)
    assert document.header["input_ids"] == expected["input_ids"]
    assert document.header["input_ids"][0].count(1) == 1


@pytest.mark.parametrize(
    ("family", "line"),
    [
        ("vit", "0 * vit.layers.{layer}.attention 3 x ([1,10,32], [1,4,10,10])"),
        ("clip", "0 * text_model.encoder.layers.{layer}.self_attn 3 x ([1,T,32], [1,4,T,T])"),
        ("whisper", "2 * model.decoder.layers.{layer}.encoder_attn 2 x ([1,T,32], [1,4,T,50])"),
        ("wav2vec2", "0 * wav2vec2.encoder.layers.{layer}.attention 3 x ([1,49,32], [1,4,49,49])"),
    ],
)
def test_list_needs_no_file_and_no_weights(
    family: str, line: str, checkpoints: Checkpoints, capture: Run
) -> None:
    shutil.copytree(checkpoints(family), "bare", ignore=shutil.ignore_patterns("model.safetensors"))
    done = capture("--model", "bare", "--list")
    assert (done.code, done.err) == (0, [])
    assert line in [" ".join(shown.split()) for shown in done.out]


def test_list_without_a_processor(checkpoints: Checkpoints, capture: Run) -> None:
    bare = shutil.ignore_patterns("preprocessor_config.json", "processor_config.json")
    shutil.copytree(checkpoints("vit"), "bare", ignore=bare)
    done = capture("--model", "bare", "--list")
    assert done.code == 0
    assert "'bare' has no processor that can be loaded." in done.err[0]
    assert any("vit.layers.{layer}.attention" in line for line in done.out)
    done = capture("--model", "bare", "--image", "cat.png", "--auto-select", "attn:0")
    assert done.code == 1
    assert done.err == [
        "error: 'bare' has no processor that can be loaded. Save one in the model's folder with "
        "processor.save_pretrained()."
    ]


@pytest.mark.parametrize(
    ("family", "argv", "code", "line"),
    [
        ("vit", [], 2, "this model reads images. Give one with --image FILE."),
        ("wav2vec2", [], 2, "this model reads audio. Give a file with --audio FILE."),
        ("whisper", [], 2, "this model reads audio. Give a file with --audio FILE."),
        ("clip", [], 2, "this model reads images. Give one with --image FILE."),
        (
            "whisper",
            ["--audio", "speech.wav", "--target-language", "fr"],
            2,
            "--target-language is for tokenizers that mark the language of a text (NLLB, M2M100, "
            "mBART). Leave it out.",
        ),
        (
            "clip",
            ["--image", "cat.png"],
            2,
            "this model also reads a text. Give one with --prompt.",
        ),
        (
            "clip",
            ["--image", "cat.png", "--prompt", "a", "--text-pair", "b"],
            2,
            "--text-pair and --image cannot be combined. Give one of them.",
        ),
        (
            "clip",
            ["--image", "cat.png", "--prompt", "a", "--chat"],
            2,
            "--chat needs a processor with a chat template. Leave it out.",
        ),
        (
            "clip",
            ["--image", "cat.png", "--prompt", "cat " * 60],
            2,
            "the prompt is 64 tokens long, and this model takes 40. Shorten it.",
        ),
        (
            "llama",
            ["--image", "cat.png"],
            2,
            "this model reads text, not images. Leave --image out.",
        ),
        (
            "llama",
            ["--audio", "speech.wav"],
            2,
            "this model reads text, not audio. Leave --audio out.",
        ),
        (
            "vit",
            ["--audio", "speech.wav"],
            2,
            "this model reads images, not audio. Leave --audio out.",
        ),
        (
            "clip",
            ["--audio", "speech.wav"],
            2,
            "this model reads images and text, not audio. Leave --audio out.",
        ),
        (
            "vit",
            ["--image", "cat.png", "--prompt", "a"],
            2,
            "this model reads images. Leave --prompt out.",
        ),
        (
            "whisper",
            ["--audio", "speech.wav", "--prompt", "a"],
            2,
            "this model reads audio. Leave --prompt out. The decoder's text is --target.",
        ),
        (
            "vit",
            ["--image", "cat.png", "--target", "a"],
            2,
            "--target needs an encoder-decoder model. Leave it out.",
        ),
        (
            "vit",
            ["--image", "cat.png", "--max-new-tokens", "2"],
            2,
            "--max-new-tokens needs a model that generates text. Leave it out.",
        ),
        (
            "whisper",
            ["--audio", "speech.wav", "--max-new-tokens", "60"],
            2,
            "with --max-new-tokens 60 the text is 61 tokens long, and this model takes 40. "
            "Shorten it.",
        ),
        (
            "whisper",
            ["--audio", "speech.wav", "--target", "§" * 20],  # two bytes, and so tokens, each
            2,
            "the target (--target) is 41 tokens long, and this model takes 40. Shorten it.",
        ),
        (
            "vit",
            ["--image", "speech.wav"],
            2,
            "--image: 'speech.wav' is not an image that can be read (UnidentifiedImageError). "
            "Give a PNG or JPEG file.",
        ),
        (
            "vit",
            ["--image", "cut.png"],
            2,
            "--image: 'cut.png' is not an image that can be read (OSError). Give a PNG or JPEG "
            "file.",
        ),
        (
            "whisper",
            ["--audio", "cat.png"],
            2,
            "--audio: 'cat.png' is not audio that can be read (LibsndfileError). Give a WAV, "
            "FLAC, OGG or MP3 file.",
        ),
        (
            "whisper",
            ["--audio", "empty.wav"],
            2,
            "--audio: 'empty.wav' holds no sound. Give another file.",
        ),
    ],
)
def test_errors(
    family: str, argv: list[str], code: int, line: str, checkpoints: Checkpoints, capture: Run
) -> None:
    Path("cut.png").write_bytes(Path("cat.png").read_bytes()[:2000])
    soundfile.write("empty.wav", np.zeros(0), tiny_media.RATE)
    before = sorted(os.listdir())
    done = capture("--model", checkpoints(family), *argv, "--auto-select", "attn:0")
    assert (done.code, done.out, done.err[-1]) == (code, [], f"error: {line}")
    assert sorted(os.listdir()) == before


def test_what_is_missing_is_told_before_the_weights_are_loaded(
    checkpoints: Checkpoints, capture: Run
) -> None:
    for family in ("vit", "clip", "whisper"):
        shutil.copytree(checkpoints(family), family)
        Path(family, "model.safetensors").write_bytes(b"")  # loading it would fail
        done = capture("--model", family, "--auto-select", "attn:0")
        assert done.err[-1].startswith("error: this model reads ")


@pytest.mark.parametrize("family", ["vit", "clip", "whisper"])
def test_both_backends_give_the_same_bytes(
    family: str, checkpoints: Checkpoints, capture: Run
) -> None:
    texts = []
    for backend in ("hooks", "pyvene"):
        argv = ["--model", checkpoints(family), *given(family), "--backend", backend]
        assert capture(*argv, "--auto-select", "attn:all;mlp:all").code == 0
        texts.append(Path(DOCUMENT).read_text())
    assert texts[1] == texts[0].replace('"backend":"hooks"', '"backend":"pyvene"')


def test_half_precision(checkpoints: Checkpoints, capture: Run) -> None:
    argv = ["--model", checkpoints("vit"), "--image", "cat.png", "--dtype", "bfloat16"]
    assert capture(*argv, "--device", "cpu", "--auto-select", "attn:0").code == 0
    assert load(DOCUMENT).dtype("vit.layers.0.attention") == ["bfloat16", "bfloat16"]


def test_a_loaded_model_with_its_processor(workplace: Path) -> None:
    model, processor = tiny_media.build("vit")
    image = Path("cat.png").resolve()  # where it lies is nobody's business
    document = capture(model, image=image, processor=processor, output="vit.json")
    assert document.header["tokens"] == ["[CLS]", *PATCHES]
    assert json.loads(Path("vit.json").read_text())["image"] == "cat.png"
    with pytest.raises(UsageError, match="needs its processor too"):
        capture(model, image="cat.png")
    with pytest.raises(UsageError, match="this model reads images. Give one with --image"):
        capture(model, processor=processor)


# ------------------------------------------------------------------------------------------ files


def test_audio_is_made_mono_at_the_rate_that_is_wanted(workplace: Path) -> None:
    """A tone of 440 Hz on one of two channels is half as loud, and still 440 Hz."""
    seconds = np.arange(8000) / 8000
    tone = np.sin(2 * np.pi * 440 * seconds)
    soundfile.write("tone.flac", np.stack([tone, 0 * tone], axis=1), 8000)
    audio = read_audio("tone.flac")
    assert (audio.name, audio.rate, audio.samples.shape) == ("tone.flac", 8000, (8000,))
    assert audio.at_rate(8000) is audio.samples
    found = audio.at_rate(16_000)
    expected = np.sin(2 * np.pi * 440 * np.arange(16_000) / 16_000) / 2
    assert found.dtype == np.float32
    np.testing.assert_allclose(found[1000:-1000], expected[1000:-1000], atol=1e-3)


@pytest.mark.parametrize("name", ["a.ogg", "a.mp3", "a.flac"])
def test_audio_formats(name: str, workplace: Path) -> None:
    tiny_media.audio(Path(name))
    assert len(read_audio(name).samples) >= 0.8 * tiny_media.RATE


def test_images_are_rgb_and_the_right_way_up(workplace: Path) -> None:
    PIL.Image.new("L", (20, 10), 7).save("gray.png")
    assert read_image("gray.png").pixels.getpixel((0, 0)) == (7, 7, 7)
    turned = PIL.Image.new("RGB", (20, 10))
    exif = turned.getexif()
    exif[0x0112] = 6  # the camera was held upright
    turned.save("turned.jpg", exif=exif)
    assert read_image("turned.jpg").pixels.size == (10, 20)


def test_images_of_16_bits_keep_their_greys(workplace: Path) -> None:
    PIL.Image.fromarray(np.array([[0, 40_000, 65_535]], dtype=np.uint16)).save("grey.png")
    pixels = np.asarray(read_image("grey.png").pixels)
    assert pixels[0].tolist() == [[0] * 3, [156] * 3, [255] * 3]
