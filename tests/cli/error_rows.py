"""The catalogue of errors: what can go wrong, and the one line that says so.

A row's arguments leave out what `test_errors.DEFAULTS` fills in. `{llama}` is the folder of a tiny
checkpoint, `{size}` any size, the other files are those of `test_errors.place`.
"""

from __future__ import annotations

from dataclasses import dataclass

# design.md's list of what has a message of its own.
CATALOGUE = (
    "model not found",
    "no network",
    "gated",
    "a folder that is no checkpoint",
    "tokenizer missing",
    "prompt empty",
    "prompt longer than the model takes",
    "pattern unknown",
    "pattern ambiguous",
    "index out of range",
    "nothing selected",
    "Module not found",
    "No data captured",
    "weights not available under this attention implementation",
    "out of memory",
    "no room on the disk",
    "output folder missing",
    "output folder not writable",
    "file missing",
    "not JSON",
    "cut short",
    "another format",
    "no attention weights in the document",
    "Attention tensor does not have correct dimensions",
    "layer outside",
    "head outside",
    "token range outside",
    "batch larger than one",
    "page too large to open",
)


@dataclass(frozen=True)
class Row:
    """What it shows (of the catalogue, or an option), the command, the exit code, the line.

    `under` is a circumstance of `test_errors`.
    """

    item: str
    argv: list[str]
    code: int
    line: str
    under: str = ""


ROWS = [
    # ----------------------------------------------------------------------------- the catalogue
    Row(
        "model not found",
        ["capture", "--model", "./nowhere"],
        1,
        "model not found: there is no folder './nowhere'. Check --model.",
    ),
    Row(
        "no network",
        ["capture", "--model", "no-such-model"],
        1,
        "model not found: 'no-such-model' is not on this machine and the Hugging Face hub "
        "cannot be reached. Check the name and the network, or give a local folder with "
        "--model.",
    ),
    Row(
        "a folder that is no checkpoint",
        ["capture", "--model", "empty"],
        1,
        "the folder 'empty' is no checkpoint: it has no config.json. Name a folder made by "
        "save_pretrained().",
    ),
    Row(
        "tokenizer missing",
        ["capture", "--model", "bare"],
        1,
        "'bare' has no tokenizer that can be loaded. Save one beside the model with "
        "tokenizer.save_pretrained().",
    ),
    Row(
        "prompt empty",
        ["capture", "--prompt", ""],
        2,
        "the prompt is empty. Give a text with --prompt or --prompt-file.",
    ),
    Row(
        "prompt longer than the model takes",
        ["capture", "--prompt", "cat " * 300],
        2,
        "the prompt is 302 tokens long, and this model takes 128. Shorten it.",
    ),
    Row(
        "prompt longer than the model takes",
        ["capture", "--max-new-tokens", "200"],
        2,
        "with --max-new-tokens 200 the text is 202 tokens long, and this model takes 128. "
        "Shorten it.",
    ),
    Row(
        "pattern unknown",
        ["capture", "--auto-select", "attn:zzz"],
        2,
        "Module not found: no attention pattern is called 'zzz'. --list shows what there is.",
    ),
    Row(
        "pattern unknown",
        ["capture", "--auto-select", "mlp:self_attn"],
        2,
        "Module not found: no mlp pattern is called 'self_attn'. It is in the category attention.",
    ),
    Row(
        "pattern unknown",
        ["capture", "--auto-select", "attn:model.layers.1.self_attn"],
        2,
        "Module not found: no attention pattern is called 'model.layers.1.self_attn'. It is "
        "one module of 'model.layers.{layer}.self_attn'; select that, with --layers 1.",
    ),
    Row(
        "pattern ambiguous",
        ["capture", "--model", "{bart}", "--auto-select", "attn:self_attn"],
        2,
        "'self_attn' is ambiguous: it fits 2 attention patterns. Write more of the name: "
        "'model.encoder.layers.{layer}.self_attn' or "
        "'model.decoder.layers.{layer}.self_attn'.",
    ),
    Row(
        "index out of range",
        ["capture", "--auto-select", "attn:17"],
        2,
        "there is no attention pattern 17. The indices go from 0 to 4; --list shows them.",
    ),
    Row(
        "index out of range",
        ["capture", "--auto-select", "attn:-1"],
        2,
        "there is no attention pattern -1. The indices go from 0 to 4; --list shows them.",
    ),
    Row(
        "index out of range",
        ["capture", "--auto-select", "attn:0-99"],
        2,
        "there is no attention pattern 99. The indices go from 0 to 4; --list shows them.",
    ),
    Row(
        "nothing selected",
        ["capture", "--auto-select", ""],
        2,
        "nothing selected. Choose at least one pattern, as in --auto-select "
        '"attn:0;mlp:0;other:"; --list shows what there is.',
    ),
    Row(
        "nothing selected",
        ["capture", "--auto-select", "attn:;mlp:"],
        2,
        "nothing selected. Choose at least one pattern, as in --auto-select "
        '"attn:0;mlp:0;other:"; --list shows what there is.',
    ),
    Row(
        "Module not found",
        ["capture", "--auto-select", "attn:self_atn"],
        2,
        "Module not found: no attention pattern is called 'self_atn'. Did you mean "
        "'model.layers.{layer}.self_attn', 'model.layers.{layer}.self_attn.v_proj' or "
        "'model.layers.{layer}.self_attn.q_proj'?",
    ),
    Row(
        "Module not found",
        ["capture", "--auto-select", "other:layernorm"],
        2,
        "Module not found: no other pattern is called 'layernorm'. Did you mean "
        "'model.layers.{layer}.input_layernorm' or "
        "'model.layers.{layer}.post_attention_layernorm'?",
    ),
    Row(
        "No data captured",
        ["capture", "--model", "{opt}", "--auto-select", "other:0"],
        1,
        "No data captured: none of the selected modules was called in the forward pass. "
        "Choose others; --list shows what each puts out.",
    ),
    Row(
        "weights not available under this attention implementation",
        ["capture", "--model", "{falcon}", "--attn-implementation", "sdpa"],
        1,
        "attention weights are not available under the attention implementation 'sdpa'. Use "
        "--attn-implementation eager, or choose other modules.",
    ),
    Row(
        "out of memory",
        ["capture"],
        1,
        "out of memory in the forward pass. Shorten the prompt, use --dtype bfloat16, or "
        "choose fewer --layers.",
        "no memory in the forward pass",
    ),
    Row(
        "out of memory",
        ["capture"],
        1,
        "out of memory while loading '{llama}'. Use --dtype bfloat16, a smaller model, or "
        "another --device.",
        "no memory while loading",
    ),
    Row(
        "out of memory",
        ["capture"],
        1,
        "out of memory. Choose fewer modules, --layers or --tokens.",
        "no memory while writing",
    ),
    Row(
        "no room on the disk",
        ["capture"],
        1,
        "no room on the disk for 'agnostic_activations.json': about 4.3 kB are needed and "
        "1.0 kB are free. Free some, choose fewer modules or layers, or write elsewhere.",
        "a full disk",
    ),
    Row(
        "no room on the disk",
        ["view"],
        1,
        "no room on the disk for 'bertviz/attention_head_view_m.html': about {size} are "
        "needed and 1.0 kB are free. Free some, choose fewer modules or layers, or write "
        "elsewhere.",
        "a full disk",
    ),
    Row(
        "output folder missing",
        ["capture", "--output", "no/such/folder.json"],
        1,
        "the folder of 'no/such/folder.json' does not exist. Make it, or write elsewhere.",
    ),
    Row(
        "output folder missing",
        ["view", "--figure", "0.0", "--output-dir", "a/b"],
        1,
        "--output-dir: the folder above 'a/b' does not exist. Make it, or name another.",
    ),
    Row(
        "output folder missing",
        ["view", "--output-dir", "a/b"],
        1,
        "--output-dir: the folder above 'a/b' does not exist. Make it, or name another.",
    ),
    Row(
        "output folder not writable",
        ["capture"],
        1,
        "the folder of 'agnostic_activations.json' is not writable. Write elsewhere.",
        "a folder that cannot be written",
    ),
    Row(
        "output folder not writable",
        ["view"],
        1,
        "--output-dir: 'bertviz' is not writable. Name another.",
        "a folder that cannot be written",
    ),
    Row(
        "file missing",
        ["view", "--input", "missing.json"],
        1,
        "there is no file 'missing.json'. Capture first: python agnostic_capture.py --output "
        "missing.json",
    ),
    Row(
        "file missing",
        ["view", "--input", "x\0y"],
        1,
        "'x\x00y' cannot be read: embedded null byte.",
    ),
    Row(
        "not JSON",
        ["view", "--input", "text.json"],
        1,
        "'text.json' is not JSON: Expecting value in line 1, column 1. Name a document that "
        "agnostic_capture.py wrote.",
    ),
    Row(
        "cut short",
        ["view", "--input", "cut.json"],
        1,
        "'cut.json' is cut short: it ends in the middle. Capture again.",
    ),
    Row(
        "another format",
        ["view", "--input", "other.json"],
        1,
        "'other.json' is JSON but not a captured document: it has no 'captured' with "
        "'attention_outputs', 'mlp_outputs' or 'other_outputs'. Name a document that "
        "agnostic_capture.py wrote.",
    ),
    Row(
        "no attention weights in the document",
        ["view", "--input", "none.json"],
        1,
        "no attention weights in 'none.json': it holds m.{layer}.self_attn. Capture the "
        'attention modules: python agnostic_capture.py --auto-select "attn:weights"',
    ),
    Row(
        "Attention tensor does not have correct dimensions",
        ["view", "--input", "flat.json"],
        1,
        "Attention tensor does not have correct dimensions: m.0.self_attn, element 1 has the "
        "shape (2, 2, 2), expected (batch, heads, seq_len, seq_len). Choose other --layers, "
        "or capture modules that hand out attention weights.",
    ),
    Row(
        "Attention tensor does not have correct dimensions",
        ["view", "--input", "oblong.json"],
        1,
        "Attention tensor does not have correct dimensions: m.0.self_attn, element 1 has the "
        "shape (1, 2, 2, 3), expected (batch, heads, seq_len, seq_len). Choose other "
        "--layers, or capture modules that hand out attention weights.",
    ),
    Row(
        "layer outside",
        ["capture", "--layers", "1,7"],
        2,
        "--layers: the selected patterns have no layer 7. Their layers are 0-2.",
    ),
    Row(
        "layer outside",
        ["view", "--layers", "3"],
        2,
        "--layers: there is no layer 3 in the document. It has layers 0.",
    ),
    Row(
        "layer outside",
        ["view", "--summary", "--layers", "3"],
        2,
        "--layers: there is no layer 3 in the document. It has layers 0.",
    ),
    Row(
        "head outside",
        ["view", "--heads", "0-2"],
        2,
        "--heads: there is no head 2 in the document. It has heads 0-1.",
    ),
    Row(
        "token range outside",
        ["view", "--tokens", "0:3"],
        2,
        "--tokens 0:3 is outside the text: there are tokens 0:2.",
    ),
    Row(
        "batch larger than one",
        ["view", "--input", "batch.json"],
        1,
        "m.0.self_attn, element 1 holds a batch of 2 texts (or windows of an image), and a "
        "view shows one. Capture one prompt at a time.",
    ),
    Row(
        "page too large to open",
        ["view"],
        1,
        "the page would be too large to open (0 MB). Take a part of it with --layers, "
        "--heads or --tokens.",
        "browsers that take little",
    ),
    # ------------------------------------------------------------------------- capture's options
    Row(
        "--attn-implementation",
        ["capture", "--attn-implementation", "eagre"],
        2,
        "--attn-implementation does not know 'eagre'. Did you mean 'eager' or 'paged|eager'?",
    ),
    Row(
        "--attn-implementation",
        ["capture", "--attn-implementation", "flash_attention_2"],
        1,
        "'{llama}' does not run with attention 'flash_attention_2' (ImportError: "
        "FlashAttention2 has been toggled on, but it cannot be used due to the following "
        "error: the package for FlashAttention2 doesn't seem to be installed). Use "
        "--attn-implementation eager.",
    ),
    Row(
        "--audio",
        ["capture", "--audio", "none.wav"],
        1,
        "--audio: 'none.wav' cannot be read: No such file or directory.",
    ),
    Row(
        "--audio",
        ["capture", "--audio", "good.json"],
        2,
        "--audio: 'good.json' is not audio that can be read (LibsndfileError). Give a WAV, "
        "FLAC, OGG or MP3 file.",
    ),
    Row(
        "--audio",
        ["capture", "--audio", "nothing.txt"],
        2,
        "--audio: 'nothing.txt' is not audio that can be read (LibsndfileError). Give a WAV, "
        "FLAC, OGG or MP3 file.",
    ),
    Row(
        "--audio",
        ["capture", "--audio", "pipe"],
        1,
        "--audio: 'pipe' is not an ordinary file. Name another.",
    ),
    Row(
        "--audio",
        ["capture", "--audio", "a\0b"],
        1,
        "--audio: 'a\x00b' cannot be read: embedded null byte.",
    ),
    Row(
        "--auto-select",
        ["capture", "--auto-select", "attn"],
        2,
        "--auto-select cannot read 'attn'. Write category:answer pairs with the categories "
        'attn, mlp and other and a ; between them, as in "attn:0;mlp:0;other:".',
    ),
    Row(
        "--auto-select",
        ["capture", "--auto-select", "attn:0;attn:1"],
        2,
        "--auto-select names attention twice. Separate several answers for one category by "
        'commas, as in "attn:0,2".',
    ),
    Row(
        "--auto-select",
        ["capture", "--auto-select", "heads:0"],
        2,
        "--auto-select cannot read 'heads:0'. Write category:answer pairs with the "
        'categories attn, mlp and other and a ; between them, as in "attn:0;mlp:0;other:".',
    ),
    Row(
        "--auto-select",
        ["capture", "--auto-select", "attn:0 mlp:0"],
        2,
        "--auto-select cannot read 'attn:0 mlp:0'. Write category:answer pairs with the "
        'categories attn, mlp and other and a ; between them, as in "attn:0;mlp:0;other:".',
    ),
    Row(
        "--auto-select",
        ["capture", "--auto-select", "attn:0,,x"],
        2,
        "Module not found: no attention pattern is called 'x'. --list shows what there is.",
    ),
    Row(
        "--auto-select",
        ["capture", "--auto-select", "attn:0", "--list"],
        2,
        "argument --list: not allowed with argument --auto-select. See --help.",
    ),
    Row(
        "--auto-select",
        ["capture", "--auto-select", "attn:2-1"],
        2,
        "'2-1' is an empty range. Write the smaller index first.",
    ),
    Row(
        "--backend",
        ["capture", "--backend", "jax"],
        2,
        "--backend does not know 'jax'. Write hooks or pyvene.",
    ),
    Row(
        "--chat",
        ["capture", "--chat"],
        2,
        "--chat needs a tokenizer with a chat template. Leave it out.",
    ),
    Row(
        "--device",
        ["capture", "--device", "abacus"],
        2,
        "--device does not know 'abacus'. Write auto, cpu, cuda, cuda:0 or mps.",
    ),
    Row(
        "--device",
        ["capture", "--device", ""],
        2,
        "--device does not know ''. Write auto, cpu, cuda, cuda:0 or mps.",
    ),
    Row(
        "--device",
        ["capture", "--device", "cuda:99"],
        1,
        "this machine has no device 'cuda:99'. Write --device cpu or auto.",
    ),
    Row(
        "--device",
        ["capture", "--device", "cpu:7"],
        1,
        "this machine has no device 'cpu:7'. Write --device cpu or auto.",
    ),
    Row(
        "--device",
        ["capture", "--device", "meta"],
        1,
        "this machine has no device 'meta'. Write --device cpu or auto.",
    ),
    Row(
        "--device-map",
        ["capture", "--device-map", "everywhere"],
        2,
        "--device-map does not know 'everywhere'. Write auto, balanced, balanced_low_0, "
        'sequential, disk, or a JSON object such as {"model": "cpu", "lm_head": "disk"}.',
    ),
    Row(
        "--device-map",
        ["capture", "--device-map", ""],
        2,
        "--device-map does not know ''. Write auto, balanced, balanced_low_0, sequential, "
        'disk, or a JSON object such as {"model": "cpu", "lm_head": "disk"}.',
    ),
    Row(
        "--device-map",
        ["capture", "--device-map", "[1]"],
        2,
        "--device-map does not know '[1]'. Write auto, balanced, balanced_low_0, sequential, "
        'disk, or a JSON object such as {"model": "cpu", "lm_head": "disk"}.',
    ),
    Row(
        "--device-map",
        ["capture", "--device-map", '{"model": "cuda:7"}'],
        1,
        "this machine has no device 'cuda:7'. Write --device-map cpu or auto.",
    ),
    Row(
        "--device-map",
        ["capture", "--device-map", '{"modle": "cpu"}'],
        2,
        "--device-map: the model has no part 'modle'. Did you mean 'model', 'model.norm' or "
        "'model.layers.0.mlp'?",
    ),
    Row(
        "--device-map",
        ["capture", "--device-map", '{"": true}'],
        2,
        "--device-map does not know 'True'. Write auto, cpu, cuda, cuda:0 or mps.",
    ),
    Row(
        "--device-map",
        ["capture", "--device-map", "auto", "--device", "cpu"],
        2,
        "--device and --device-map exclude each other. Give one of them.",
    ),
    Row(
        "--dtype",
        ["capture", "--dtype", "int3"],
        2,
        "--dtype does not know 'int3'. Write auto, float32, bfloat16 or float16.",
    ),
    Row(
        "--dtype",
        ["capture", "--dtype", ""],
        2,
        "--dtype does not know ''. Write auto, float32, bfloat16 or float16.",
    ),
    Row(
        "--dtype",
        ["capture", "--dtype", "bfloat61"],
        2,
        "--dtype does not know 'bfloat61'. Write auto, float32, bfloat16 or float16.",
    ),
    Row(
        "--format",
        ["capture", "--format", "npz"],
        2,
        "--format does not know 'npz'. Write json or safetensors.",
    ),
    Row(
        "--format",
        ["capture", "--format", ""],
        2,
        "--format does not know ''. Write json or safetensors.",
    ),
    Row(
        "--image",
        ["capture", "--image", "none.png"],
        1,
        "--image: 'none.png' cannot be read: No such file or directory.",
    ),
    Row(
        "--image",
        ["capture", "--image", "good.json"],
        2,
        "--image: 'good.json' is not an image that can be read (UnidentifiedImageError). "
        "Give a PNG or JPEG file.",
    ),
    Row(
        "--image",
        ["capture", "--image", "."],
        1,
        "--image: '.' cannot be read: Is a directory.",
    ),
    Row(
        "--image",
        ["capture", "--image", "a\0b"],
        1,
        "--image: 'a\x00b' cannot be read: embedded null byte.",
    ),
    Row(
        "--image",
        ["capture", "--image", ""],
        1,
        "--image: '' cannot be read: No such file or directory.",
    ),
    Row(
        "--image",
        ["capture", "--image", "pipe"],
        1,
        "--image: 'pipe' is not an ordinary file. Name another.",
    ),
    Row(
        "--layers",
        ["capture", "--layers", "one"],
        2,
        "--layers cannot read 'one'. Write numbers and ranges, as in --layers 0,4-7.",
    ),
    Row(
        "--layers",
        ["capture", "--layers", ""],
        2,
        "--layers cannot read ''. Write numbers and ranges, as in --layers 0,4-7.",
    ),
    Row(
        "--layers",
        ["capture", "--layers", "-1"],
        2,
        "--layers cannot read '-1'. Write numbers and ranges, as in --layers 0,4-7.",
    ),
    Row(
        "--layers",
        ["capture", "--layers", "2-1"],
        2,
        "--layers cannot read '2-1'. Write numbers and ranges, as in --layers 0,4-7.",
    ),
    Row(
        "--layers",
        ["capture", "--layers", "1e3"],
        2,
        "--layers cannot read '1e3'. Write numbers and ranges, as in --layers 0,4-7.",
    ),
    Row(
        "--layers",
        ["capture", "--layers", "99999999"],
        2,
        "--layers cannot read '99999999'. Write numbers and ranges, as in --layers 0,4-7.",
    ),
    Row(
        "--layers",
        ["capture", "--layers", "0", "--layers", "x"],
        2,
        "--layers cannot read 'x'. Write numbers and ranges, as in --layers 0,4-7.",
    ),
    Row(
        "--max-new-tokens",
        ["capture", "--max-new-tokens", "0"],
        2,
        "--max-new-tokens takes a number from 1 up.",
    ),
    Row(
        "--max-new-tokens",
        ["capture", "--max-new-tokens", "two"],
        2,
        "argument --max-new-tokens: invalid int value: 'two'. See --help.",
    ),
    Row(
        "--max-new-tokens",
        ["capture", "--max-new-tokens", "-3"],
        2,
        "--max-new-tokens takes a number from 1 up.",
    ),
    Row(
        "--max-new-tokens",
        ["capture", "--max-new-tokens", "1.5"],
        2,
        "argument --max-new-tokens: invalid int value: '1.5'. See --help.",
    ),
    Row(
        "--max-new-tokens",
        ["capture", "--max-new-tokens", "999999999999999999999999999999"],
        2,
        "with --max-new-tokens 999999999999999999999999999999 the text is "
        "1000000000000000000000000000001 tokens long, and this model takes 128. Shorten it.",
    ),
    Row(
        "--max-new-tokens",
        ["capture", "--model", "{bert}", "--max-new-tokens", "2"],
        2,
        "--max-new-tokens needs a model that writes text. Leave it out.",
    ),
    Row(
        "--model",
        ["capture", "--model", ""],
        2,
        "--model is empty. Give a hub name or a checkpoint folder.",
    ),
    Row(
        "--model",
        ["capture", "--model", "good.json"],
        1,
        "'good.json' is a file. Name the checkpoint's folder with --model.",
    ),
    Row(
        "--model",
        ["capture", "--model", "{llama}/config.json"],
        1,
        "'{llama}/config.json' is a file. Name the checkpoint's folder with --model.",
    ),
    Row(
        "--model",
        ["capture", "--model", "a b/c d"],
        1,
        "model not found: 'a b/c d' is neither a local folder nor a model on the Hugging "
        "Face hub (or a private one: log in with 'hf auth login'). Check --model.",
    ),
    Row(
        "--model",
        ["capture", "--model", "~/nowhere"],
        1,
        "model not found: there is no folder '~/nowhere'. Check --model.",
    ),
    Row(
        "--model",
        ["capture", "--model", "x" * 300],
        1,
        (
            "model not found: '"
            + "x" * 300
            + "' is neither a local folder nor a model on the Hugging Face hub (or a private one: "
            "log in with 'hf auth login'). Check --model."
        ),
    ),
    Row(
        "--model",
        ["capture", "--model", "a\0b"],
        1,
        "model not found: 'a\x00b' is neither a local folder nor a model on the Hugging "
        "Face hub (or a private one: log in with 'hf auth login'). Check --model.",
    ),
    Row(
        "--model",
        ["capture", "--model", "\udcff"],
        1,
        "model not found: '\udcff' is neither a local folder nor a model on the Hugging "
        "Face hub (or a private one: log in with 'hf auth login'). Check --model.",
    ),
    Row(
        "--output",
        ["capture", "--output", "."],
        1,
        "'.' is a folder. Name a file.",
    ),
    Row(
        "--output",
        ["capture", "--output", ""],
        2,
        "the name of the file to write is empty. Name one with --output.",
    ),
    Row(
        "--output",
        ["capture", "--output", "x" * 300],
        1,
        "'" + "x" * 300 + "' cannot be written: File name too long. Write elsewhere.",
    ),
    Row(
        "--output",
        ["capture", "--output", "a\0b"],
        1,
        "'a\x00b' cannot be written: embedded null byte. Write elsewhere.",
    ),
    Row(
        "--output",
        ["capture", "--output", "good.json/x.json"],
        1,
        "the folder of 'good.json/x.json' does not exist. Make it, or write elsewhere.",
    ),
    Row(
        "--output",
        ["capture", "--output", "loop"],
        1,
        "'loop' is a symbolic link that leads to itself. Name another.",
    ),
    Row(
        "--output",
        ["capture", "--output", "pipe"],
        1,
        "'pipe' is not an ordinary file. Name another.",
    ),
    Row(
        "--output",
        ["capture", "--output", "/dev/null"],
        1,
        "'/dev/null' is not an ordinary file. Name another.",
    ),
    Row(
        "--output",
        ["capture", "--output", "leads_nowhere"],
        1,
        "the folder of 'leads_nowhere' does not exist. Make it, or write elsewhere.",
    ),
    Row(
        "--output",
        ["capture", "--output", "x.safetensors"],
        2,
        "--output names the document, which is JSON. Write x.json, and --format safetensors "
        "for tensors beside it.",
    ),
    Row(
        "--output",
        ["capture", "--output", "x.safetensors", "--format", "safetensors"],
        2,
        "--output names the document, which is JSON. Write x.json; the tensors go beside it.",
    ),
    Row(
        "--prompt",
        ["capture", "--prompt", "a", "--prompt-file", "b"],
        2,
        "argument --prompt-file: not allowed with argument --prompt. See --help.",
    ),
    Row(
        "--prompt",
        ["capture", "--prompt", "\udcff"],
        2,
        "the prompt is not text in UTF-8. Save or type it so.",
    ),
    Row(
        "--prompt",
        ["capture", "--prompt", "\ud800"],
        2,
        "the prompt is not text in UTF-8. Save or type it so.",
    ),
    Row(
        "--prompt",
        ["capture", "--prompt"],
        2,
        "--prompt needs a value. One that begins with - is written with =, as in --prompt=-1.",
    ),
    Row(
        "--prompt",
        ["capture", "--prompt", "The", "cat"],
        2,
        "'cat' belongs to no option. Put quotes around a text of several words.",
    ),
    Row(
        "--prompt-file",
        ["capture", "--prompt-file", "missing.txt"],
        1,
        "--prompt-file: 'missing.txt' cannot be read: No such file or directory.",
    ),
    Row(
        "--prompt-file",
        ["capture", "--prompt-file", "."],
        1,
        "--prompt-file: '.' cannot be read: Is a directory.",
    ),
    Row(
        "--prompt-file",
        ["capture", "--prompt-file", "a\0b"],
        1,
        "--prompt-file: 'a\x00b' cannot be read: embedded null byte.",
    ),
    Row(
        "--prompt-file",
        ["capture", "--prompt-file", "latin.txt"],
        2,
        "--prompt-file: 'latin.txt' is not text in UTF-8. Convert it.",
    ),
    Row(
        "--prompt-file",
        ["capture", "--prompt-file", "nothing.txt"],
        2,
        "the prompt is empty. Give a text with --prompt or --prompt-file.",
    ),
    Row(
        "--revision",
        ["capture", "--model", "o/m", "--revision", "nowhere"],
        1,
        "model not found: 'o/m' is not on this machine and the Hugging Face hub cannot be "
        "reached. Check the name and the network, or give a local folder with --model.",
    ),
    Row(
        "--revision",
        ["capture", "--model", "o/m", "--revision", "a b"],
        1,
        "model not found: 'o/m' is not on this machine and the Hugging Face hub cannot be "
        "reached. Check the name and the network, or give a local folder with --model.",
    ),
    Row(
        "--target",
        ["capture", "--target", "x"],
        2,
        "--target needs a model with a decoder of its own. Leave it out.",
    ),
    Row(
        "--target",
        ["capture", "--model", "{bart}", "--target", "x", "--max-new-tokens", "2"],
        2,
        "--target and --max-new-tokens exclude each other. Give one of them.",
    ),
    Row(
        "--target",
        ["capture", "--model", "{bart}", "--target", "\udcff"],
        2,
        "the target is not text in UTF-8. Save or type it so.",
    ),
    Row(
        "--text-pair",
        ["capture", "--text-pair", "\udcff"],
        2,
        "the text pair is not text in UTF-8. Save or type it so.",
    ),
    Row(
        "--text-pair",
        ["capture", "--text-pair", ""],
        2,
        "the second text is empty. Leave --text-pair out.",
    ),
    Row(
        "--text-pair",
        ["capture", "--text-pair", "x", "--chat"],
        2,
        "--chat and --text-pair exclude each other. Give one of them.",
    ),
    Row(
        "abbreviated flag",
        ["capture", "--lay", "x"],
        2,
        "--layers cannot read 'x'. Write numbers and ranges, as in --layers 0,4-7.",
    ),
    Row(
        "ambiguous flag",
        ["capture", "--m", "x"],
        2,
        "ambiguous option: --m could match --model, --max-new-tokens. See --help.",
    ),
    Row(
        "unknown flag",
        ["capture", "--auto-selct", "x"],
        2,
        "there is no option '--auto-selct'. Did you mean '--auto-select'?",
    ),
    Row(
        "unknown flag",
        ["capture", "--no-such-flag"],
        2,
        "there is no option '--no-such-flag'. See --help.",
    ),
    Row(
        "unknown flag",
        ["capture", "--promt", "x"],
        2,
        "there is no option '--promt'. Did you mean '--prompt', '--prompt-file' or '--format'?",
    ),
    Row(
        "unknown flag",
        ["capture", "--dtpye=float32"],
        2,
        "there is no option '--dtpye'. Did you mean '--dtype'?",
    ),
    Row(
        "unknown flag",
        ["capture", "--output-dir", "x"],
        2,
        "there is no option '--output-dir'. Did you mean '--output' or '--text-pair'?",
    ),
    Row(
        "unknown flag",
        ["capture", "-x"],
        2,
        "there is no option '-x'. Did you mean '--text-pair' or '--max-new-tokens'?",
    ),
    Row(
        "unknown flag",
        ["capture", "--zzz"],
        2,
        "there is no option '--zzz'. See --help.",
    ),
    # ---------------------------------------------------------------------------- view's options
    Row(
        "--figure",
        ["view", "--figure", "x"],
        2,
        "--figure cannot read 'x'. Write layer and head, as in 3.5.",
    ),
    Row(
        "--figure",
        ["view", "--figure", "0.0,"],
        2,
        "--figure cannot read ''. Write layer and head, as in 3.5.",
    ),
    Row(
        "--figure",
        ["view", "--figure", "0.-1"],
        2,
        "--figure cannot read '0.-1'. Write layer and head, as in 3.5.",
    ),
    Row(
        "--figure",
        ["view", "--figure", "3.1"],
        2,
        "--figure 3.1: there is no layer 3. There are layers 0.",
    ),
    Row(
        "--figure",
        ["view", "--figure", "0.0,0.5"],
        2,
        "--figure 0.5: layer 0 has no head 5. It has heads 0-1.",
    ),
    Row(
        "--figure",
        ["view", "--figure", "0.0", "--heads", "1"],
        2,
        "--figure 0.0: layer 0 has no head 0. It has heads 1.",
    ),
    Row(
        "--figure",
        ["view", "--figure", "cross:0.0"],
        2,
        "--figure cross:0.0: there is no 'cross' attention. There is self.",
    ),
    Row(
        "--figure",
        ["view", "--figure", "0.0", "--output-format", "gif"],
        2,
        "--output-format does not know 'gif'. Write svg, png or pdf.",
    ),
    Row(
        "--figure",
        ["view", "--figure", "0.0", "--min-weight", "0.1"],
        2,
        "--min-weight is for pages. Leave it out, or add --view.",
    ),
    Row(
        "--figure",
        ["view", "--figure", "0.0", "--output-format", ""],
        2,
        "--output-format does not know ''. Write svg, png or pdf.",
    ),
    Row(
        "--figure",
        ["view", "--figure", ""],
        2,
        "--figure cannot read ''. Write layer and head, as in 3.5.",
    ),
    Row(
        "--figure",
        ["view", "--figure", "0.0", "--figure", "y"],
        2,
        "--figure cannot read 'y'. Write layer and head, as in 3.5.",
    ),
    Row(
        "--heads",
        ["view", "--heads", "x"],
        2,
        "--heads cannot read 'x'. Write numbers and ranges, as in --heads 0,4-7.",
    ),
    Row(
        "--heads",
        ["view", "--heads", "-1"],
        2,
        "--heads cannot read '-1'. Write numbers and ranges, as in --heads 0,4-7.",
    ),
    Row(
        "--input",
        ["view", "--input", "."],
        1,
        "'.' is a folder. Name the document's file.",
    ),
    Row(
        "--input",
        ["view", "--input", "long.json", "--figure", "0.0"],
        2,
        "--figure 0.0: 3001 tokens cannot be told apart in a figure. Take up to 3000 of "
        "them, as in --tokens 0:3000.",
    ),
    Row(
        "--input",
        ["view", "--input", ""],
        2,
        "--input is empty. Leave it out, or name one.",
    ),
    Row(
        "--input",
        ["view", "--input", "loop"],
        1,
        "'loop' cannot be read: Too many levels of symbolic links.",
    ),
    Row(
        "--input",
        ["view", "--input", "pipe"],
        1,
        "'pipe' is not an ordinary file. Name the document's file.",
    ),
    Row(
        "--input",
        ["view", "--input", "/dev/null"],
        1,
        "'/dev/null' is not an ordinary file. Name the document's file.",
    ),
    Row(
        "--input",
        ["view", "--input", "nothing.txt"],
        1,
        "'nothing.txt' is cut short: it is empty. Capture again.",
    ),
    Row(
        "--input",
        ["view", "--input", "good.json/x"],
        1,
        "'good.json/x' cannot be read: Not a directory.",
    ),
    Row(
        "--input",
        ["view", "--input", "x" * 300],
        1,
        "'" + "x" * 300 + "' cannot be read: File name too long.",
    ),
    Row(
        "--layers",
        ["view", "--layers", "x"],
        2,
        "--layers cannot read 'x'. Write numbers and ranges, as in --layers 0,4-7.",
    ),
    Row(
        "--min-weight",
        ["view", "--min-weight", "1"],
        2,
        "--min-weight takes a number from 0 up to, but not, 1.",
    ),
    Row(
        "--min-weight",
        ["view", "--min-weight", "x"],
        2,
        "argument --min-weight: invalid float value: 'x'. See --help.",
    ),
    Row(
        "--min-weight",
        ["view", "--min-weight", "-0.1"],
        2,
        "--min-weight takes a number from 0 up to, but not, 1.",
    ),
    Row(
        "--min-weight",
        ["view", "--min-weight", "nan"],
        2,
        "--min-weight takes a number from 0 up to, but not, 1.",
    ),
    Row(
        "--min-weight",
        ["view", "--min-weight", "inf"],
        2,
        "--min-weight takes a number from 0 up to, but not, 1.",
    ),
    Row(
        "--output-dir",
        ["view", "--output-dir", "good.json"],
        1,
        "--output-dir: 'good.json' is a file. Name a folder.",
    ),
    Row(
        "--output-dir",
        ["view", "--output-dir", ""],
        2,
        "--output-dir is empty. Leave it out, or name one.",
    ),
    Row(
        "--output-dir",
        ["view", "--output-dir", "x" * 300],
        1,
        "--output-dir: '" + "x" * 300 + "' cannot be made (File name too long). Name another.",
    ),
    Row(
        "--output-dir",
        ["view", "--output-dir", "a\0b"],
        1,
        "--output-dir: 'a\x00b' cannot be made (embedded null byte). Name another.",
    ),
    Row(
        "--output-dir",
        ["view", "--output-dir", "loop"],
        1,
        "--output-dir: 'loop' is a symbolic link that leads to itself. Name another.",
    ),
    Row(
        "--output-dir",
        ["view", "--output-dir", "pipe"],
        1,
        "--output-dir: 'pipe' is a file. Name a folder.",
    ),
    Row(
        "--output-dir",
        ["view", "--output-dir", "good.json/x"],
        1,
        "--output-dir: the folder above 'good.json/x' does not exist. Make it, or name another.",
    ),
    Row(
        "--output-dir",
        ["view", "--output-dir", "/proc/pages"],
        1,
        "--output-dir: '/proc/pages' cannot be made (No such file or directory). Name another.",
    ),
    Row(
        "--output-format",
        ["view", "--output-format", "png"],
        2,
        "--output-format is for figures. Leave it out, or add --figure.",
    ),
    Row(
        "--output-format",
        ["view", "--figure", "0.0", "--output-format", "SVG"],
        2,
        "--output-format does not know 'SVG'. Write svg, png or pdf.",
    ),
    Row(
        "--summary",
        ["view", "--summary", ""],
        2,
        "--summary does not know ''. Write table or csv.",
    ),
    Row(
        "--summary",
        ["view", "--summary", "json"],
        2,
        "--summary does not know 'json'. Write table or csv.",
    ),
    Row(
        "--summary",
        ["view", "--summary", "--tokens", "0:1"],
        2,
        "--tokens: scores are those of the whole text. Leave it out, or add --view or --figure.",
    ),
    Row(
        "--summary",
        ["view", "--summary", "--open"],
        2,
        "--open: --summary only prints. Leave it out, or add --view or --figure.",
    ),
    Row(
        "--summary",
        ["view", "--summary", "csv", "--figure", "0.0"],
        2,
        "--summary csv prints nothing but the CSV. Write pages and figures by a command of "
        "their own.",
    ),
    Row(
        "--tokens",
        ["view", "--tokens", "1:1"],
        2,
        "--tokens 1:1 is empty. Write first and end, as in 0:64.",
    ),
    Row(
        "--tokens",
        ["view", "--tokens", "1"],
        2,
        "--tokens cannot read '1'. Write first and end, as in 0:64.",
    ),
    Row(
        "--tokens",
        ["view", "--tokens", "-1:2"],
        2,
        "--tokens needs a value. One that begins with - is written with =, as in --tokens=-1.",
    ),
    Row(
        "--tokens",
        ["view", "--tokens", "2:1"],
        2,
        "--tokens 2:1 is empty. Write first and end, as in 0:64.",
    ),
    Row(
        "--tokens",
        ["view", "--tokens", "0:99999999"],
        2,
        "--tokens cannot read '0:99999999'. Write first and end, as in 0:64.",
    ),
    Row(
        "--tokens",
        ["view", "--tokens", "7:9"],
        2,
        "--tokens 7:9 is outside the text: there are tokens 0:2.",
    ),
    Row(
        "--view",
        ["view", "--view", "neuron"],
        2,
        "--view does not know 'neuron'. Write head, model or head,model.",
    ),
    Row(
        "--view",
        ["view", "--view", ""],
        2,
        "--view does not know ''. Write head, model or head,model.",
    ),
    Row(
        "--view",
        ["view", "--view", "head,neuron"],
        2,
        "--view does not know 'head,neuron'. Write head, model or head,model.",
    ),
    Row(
        "abbreviated flag",
        ["view", "--fig", "x"],
        2,
        "--figure cannot read 'x'. Write layer and head, as in 3.5.",
    ),
    Row(
        "abbreviated flag",
        ["view", "--layer=x"],
        2,
        "--layers cannot read 'x'. Write numbers and ranges, as in --layers 0,4-7.",
    ),
    Row(
        "unknown flag",
        ["view", "--format", "png"],
        2,
        "there is no option '--format'. Did you mean '--output-format'?",
    ),
    Row(
        "unknown flag",
        ["view", "good.json"],
        2,
        "'good.json' belongs to no option. Put quotes around a text of several words.",
    ),
]


# What a hub answers, by the model's name: status, its code for the error; and our line.
HUB: dict[str, tuple[str, int, str, str]] = {
    "o/gated": (
        "gated",
        403,
        "GatedRepo",
        "'o/gated' is gated on the Hugging Face hub. Ask for access on its page and log in with "
        "'hf auth login'.",
    ),
    "o/missing": (
        "model not found",
        401,
        "RepoNotFound",
        "model not found: 'o/missing' is neither a local folder nor a model on the Hugging Face "
        "hub (or a private one: log in with 'hf auth login'). Check --model.",
    ),
    "o/other": (
        "--revision",
        404,
        "RevisionNotFound",
        "'o/other' has no such revision on the Hugging Face hub. Check --revision.",
    ),
}


@dataclass(frozen=True)
class Line:
    """A line for a shell, in which $capture and $view are the commands: what it shows, and gives.

    `new` are the files it leaves.
    """

    item: str
    shell: str
    code: int
    err: str = ""
    out: str = ""
    new: tuple[str, ...] = ()


FULL = (
    "error: standard output cannot be written: No space left on device. Send it elsewhere; files "
    "that were to be written are there."
)
CLOSED = "error: standard output is closed. Give it a place, as in > /dev/null."
PAGE = "{}/attention_head_view_m.html"
# Every one a process of its own: those that import torch take seconds, and are few.
LINES = [
    Line("standard output closed", "$view >&-", 1, CLOSED),
    Line("standard output closed", "$capture --list >&-", 1, CLOSED),
    Line("standard output full", "$view --summary csv >/dev/full", 1, FULL),
    Line("standard output full", "$view --help >/dev/full", 1, FULL),
    Line("standard output full", "$capture --version >/dev/full", 1, FULL),
    Line(
        "standard output full",
        "$view --view head --output-dir new >/dev/full",
        1,
        FULL,
        new=("new", PAGE.format("new")),
    ),
    Line(
        "standard output for reading",
        "$view --summary csv 1</dev/null",
        1,
        FULL.replace("No space left on device", "Bad file descriptor"),
    ),
    Line("nobody reads standard output", "$view --summary csv | :; exit ${PIPESTATUS[0]}", 1),
    Line("standard error closed", "$view --input gone 2>&-", 1),
    Line("standard error full", "$view --input gone 2>/dev/full", 1),
    Line("nobody reads standard error", "$view --input gone 2> >(:)", 1),
    Line(
        "standard error closed, and all well",
        "$view --view head --output-dir new 2>&-",
        0,
        out=PAGE.format("new"),
        new=("new", PAGE.format("new")),
    ),
    Line(
        "standard input closed",
        "$capture --auto-select attn:0 --prompt-file - <&-",
        2,
        "error: the prompt is empty. Give a text with --prompt or --prompt-file.",
    ),
    Line(
        "standard input for writing",
        "$capture --auto-select attn:0 --prompt-file - 0>/dev/null",
        1,
        "error: --prompt-file: '-' cannot be read: Bad file descriptor.",
    ),
    Line(
        "standard input no text",
        r"printf '\xff' | $capture --auto-select attn:0 --prompt-file -",
        2,
        "error: --prompt-file: '-' is not text in UTF-8. Convert it.",
    ),
    Line(
        "no current folder",
        "mkdir new && cd new && rmdir ../new && $view --input ../good.json",
        1,
        "error: the current folder is gone. Change into another.",
    ),
    Line(
        "no current folder, help",
        "mkdir new && cd new && rmdir ../new && $view --version",
        0,
        out="bertviz_head_model_view.py {version}",
    ),
    Line(
        "no home",
        "env -u HOME $view --view head --output-dir new",
        0,
        out=PAGE.format("new"),
        new=("new", PAGE.format("new")),
    ),
    Line(
        "no home, a model on the hub",
        "env -u HOME $capture --model o/m --prompt x --auto-select attn:0",
        1,
        "error: model not found: 'o/m' is not on this machine and the Hugging Face hub cannot be "
        "reached. Check the name and the network, or give a local folder with --model.",
    ),
    Line(
        "ASCII alone",
        "LC_ALL=C PYTHONUTF8=0 PYTHONCOERCECLOCALE=0 $view --view head --output-dir é",
        0,
        out=PAGE.format("é"),
        new=("é", PAGE.format("é")),
    ),
    Line(
        "ASCII alone on standard output",
        "PYTHONIOENCODING=ascii $view --view head --output-dir é",
        0,
        out=PAGE.format(r"\xe9"),
        new=("é", PAGE.format("é")),
    ),
    Line(
        "ASCII alone, a prompt of other letters",
        "LC_ALL=C $capture --prompt é東 --auto-select attn:0 --output new.json --quiet",
        0,
        out="new.json",
        new=("new.json",),
    ),
    Line(
        "names that are no text",
        r"$view --input $'\xff.json'",
        1,
        r"error: there is no file '\udcff.json'. Capture first: python agnostic_capture.py "
        r"--output \udcff.json",
    ),
    Line(
        "no traceback, but with --debug",
        "$view --input gone --debug 2>&1 | grep -c Traceback",
        0,
        out="1",
    ),
    Line("no traceback", "$view --input gone 2>&1 | grep -c Traceback", 1, out="0"),
]
