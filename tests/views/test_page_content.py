"""The pages without a browser: names, escaping, the weights in them, and readable tokens."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

import numpy as np
import pytest
from browser import Layer, random_weights, stack_of, write_capture
from hypothesis import example, given, settings
from hypothesis import strategies as st
from packed import unpack
from tokenizers.pre_tokenizers import ByteLevel

from activations import load
from activations.attention.spelling import readable
from activations.document import reader
from activations.errors import ToolkitError
from activations.text import is_seen, printable
from activations.views import assets, packing
from activations.views.content import Caption, read_content
from activations.views.packing import NOT_A_NUMBER, pack
from activations.views.page import build_pages, page_name

patient = settings(deadline=None)  # the machine may be busy with a browser


def made(*arguments: Any) -> dict[str, bytes]:
    """The pages, each as one."""
    return {view: b"".join(pieces) for view, pieces in build_pages(*arguments).items()}


# ------------------------------------------------------------------------------------- file names


@pytest.mark.parametrize(
    ("model", "name"),
    [
        ("Qwen/Qwen2.5-0.5B", "Qwen_Qwen2.5-0.5B"),
        ("demo_model", "demo_model"),
        # Of a local folder the last part, whether the folder is here or not.
        ("../../x", "x"),
        ("/etc/passwd", "passwd"),
        ("C:\\models\\x", "x"),
        ("./ckpt/run-7", "run-7"),
        ("/data/models/foo/", "foo"),
        ("ckpt/old/run-7", "run-7"),
        ("run-7/", "run-7"),
        ("~/run 7", "run_7"),
        (".hidden", ".hidden"),
        ("..", ".."),
        ("./", "._"),
        ("/", "_"),
        ("a b", "a_b"),
        ("a \t\n/\\?*:|<>\"'%#&b", "a_b"),
        ("a__b_/_c", "a__b___c"),
        ("Modèle/東京🙂", "Mod_le_"),
        ("", ""),
        ("x" * 500, "x" * 180),
    ],
)
def test_page_name(model: str, name: str) -> None:
    assert page_name("head", model) == f"attention_head_view_{name}.html"
    assert page_name("model", model) == f"attention_model_view_{name}.html"
    assert page_name("head", model, "agnostic_activations") == page_name("head", model)


@pytest.mark.parametrize(
    ("document", "name"),
    [
        ("second", "m_second"),
        ("my run (2)", "m_my_run_2_"),
        ("m", "m"),  # it says nothing more
        ("a.b-c", "m_a.b-c"),
        # Where letters are lost, two names stay two.
        ("猫", "m_a810bf84"),
        ("犬", "m_1e82f9b0"),
        ("x" * 300, "m_" + "x" * 81 + "_0d4e2ca9"),
    ],
)
def test_a_document_adds_its_own_name(document: str, name: str) -> None:
    assert page_name("head", "m", document) == f"attention_head_view_{name}.html"


def test_with_one_slash_only_a_folder_that_exists_is_local(workplace: Path) -> None:
    assert page_name("head", "ckpt/run-7") == "attention_head_view_ckpt_run-7.html"
    Path("ckpt/run-7").mkdir(parents=True)
    assert page_name("head", "ckpt/run-7") == "attention_head_view_run-7.html"


@patient
@given(st.text(), st.text())
@example("m" * 500, "d" * 500)
def test_page_names_stay_in_the_folder(model: str, document: str) -> None:
    name = page_name("head", model, document)
    assert re.fullmatch(r"attention_head_view_[A-Za-z0-9._-]*\.html", name)
    assert PurePosixPath(name).parts == PureWindowsPath(name).parts == (name,)
    assert len(name) < 250  # file systems take 255


# ---------------------------------------------------------------------------------- text in a page


class Parsed(HTMLParser):
    """What a browser would read: elements with their attributes and the text in them."""

    def __init__(self, page: bytes) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self._open: list[int] = []
        self.feed(page.decode("utf-8"))
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self.texts.append("")
        if tag not in ("meta", "br"):
            self._open.append(len(self.elements) - 1)

    def handle_endtag(self, tag: str) -> None:
        assert self.elements[self._open.pop()][0] == tag

    def handle_data(self, data: str) -> None:
        if self._open:
            self.texts[self._open[-1]] += data

    def by_id(self, name: str) -> str:
        (found,) = (
            i for i, (_, attributes) in enumerate(self.elements) if attributes.get("id") == name
        )
        return self.texts[found]

    def of(self, tag: str) -> list[tuple[dict[str, str | None], str]]:
        pairs = zip(self.elements, self.texts, strict=True)
        return [(attributes, text) for (name, attributes), text in pairs if name == tag]


def as_html_keeps_it(text: str) -> str:
    """What can be shown of a string: HTML knows no NUL, UTF-8 no half of a surrogate pair."""
    return text.encode("utf-8", "replace").decode().replace("\0", "\ufffd")


def hashes(texts: list[str]) -> list[str]:
    digests = (hashlib.sha256(text.encode()).digest() for text in texts)
    return [f"'sha256-{base64.b64encode(digest).decode()}'" for digest in digests]


# Any text, and text made of what is dangerous in a page.
PIECES = ["</script>", "<script>", "<!--", "-->", "]]>", "</style>", "</title>", "</dd>", "<", ">"]
PIECES += ["&", "&lt;", "&#0;", '"', "'", "\\", "\\u003c", "$data", "${x}", "\0", "\r", "\r\n"]
PIECES += ["\n", "\u2028", "\u2029", "\u202e", "\ufeff", "\ud800", "🙂", "Ġ", "Ċ", "▁", "ð", "Ł"]
TEXT = st.text() | st.lists(st.sampled_from(PIECES)).map("".join)


@patient
@given(st.sampled_from(["head", "model"]), TEXT, TEXT, st.lists(TEXT, min_size=1, max_size=4), TEXT)
@example("head", "</title><script>", "</div><script>", ["</script><script>x()</script>"], "<i>")
@example("model", "a\r\nb\0", "\u2028\u2029\ud800", ["<!--<script>", "\ud83d"], "&lt;")
def test_any_text_stays_text(
    view: str, model: str, prompt: str, tokens: list[str], note: str
) -> None:
    weights = np.full((1, len(tokens), len(tokens)), 1 / len(tokens))
    caption = Caption(model, prompt, (note,))
    pages = made(["head", "model"], caption, [stack_of(weights, rows=tokens, columns=tokens)])
    parsed = Parsed(pages[view])
    plain = Parsed(made([view], Caption("m", "p", ("n",)), [stack_of(weights)])[view])
    assert [tag for tag, _ in parsed.elements] == [tag for tag, _ in plain.elements]
    assert parsed.by_id("prompt") == as_html_keeps_it(prompt)
    assert parsed.by_id("model") == as_html_keeps_it(model)
    ((_, title),) = parsed.of("title")
    assert title.startswith(f"Attention {view} view: {printable(caption.title)}")
    assert printable(title) == title
    assert parsed.of("li") == [({}, as_html_keeps_it(note))]

    data = json.loads(parsed.by_id("page-data"))
    assert data["view"] == view
    assert data["otherPage"] == page_name({"head": "model", "model": "head"}[view], model)
    assert data["stacks"][0]["rowTokens"] == readable(tokens)
    assert data["stacks"][0]["columnTokens"] == readable(tokens)

    (policy,) = (
        attributes["content"]
        for attributes, _ in parsed.of("meta")
        if attributes.get("http-equiv") == "Content-Security-Policy"
    )
    assert policy
    rules = dict(rule.split(" ", 1) for rule in policy.split("; "))
    run = [text for attributes, text in parsed.of("script") if "type" not in attributes]
    assert len(run) == 4
    assert rules["script-src"].split() == hashes(run)
    assert rules["style-src"].split() == hashes([text for _, text in parsed.of("style")])
    assert rules["default-src"] == rules["base-uri"] == rules["form-action"] == "'none'"


@pytest.mark.parametrize(
    ("caption", "title"),
    [
        (Caption("m", "Hi."), "m – Hi."),
        (Caption("m", ""), "m"),
        (Caption("m", " \n<b>\tx\x1b[0m\u202e"), "m – <b> x\\x1b[0m\\u202e"),
        (Caption("a\x07b", "x" * 41), f"a\\x07b – {'x' * 40}…"),
        (Caption("m", "word " * 1000), f"m – {'word ' * 8}".rstrip() + "…"),
        (Caption("m", "", texts=(("Image", "fox.png"),)), "m – fox.png"),
        (Caption("/data/run-7", "می\u200cخواهم"), "run-7 – می\u200cخواهم"),
    ],
)
def test_a_page_is_named_by_what_it_shows(caption: Caption, title: str) -> None:
    pages = made(["head", "model"], caption, [stack_of(np.ones((1, 1, 1)))])
    for view, content in pages.items():
        assert Parsed(content).of("title") == [({}, f"Attention {view} view: {title}")]


def test_nothing_in_a_page_points_outside() -> None:
    page = made(["head"], Caption("m", "p"), [stack_of(np.ones((1, 1, 1)))])["head"]
    for tag, attributes in Parsed(page).elements:
        assert not {"src", "href", "srcset", "action", "style", "onload"} & set(attributes), tag


def test_a_page_too_large_to_open_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packing, "LARGEST", 100)
    weights = np.random.default_rng(0).random((2, 20, 20))
    with pytest.raises(ToolkitError, match="--layers, --heads or --tokens"):
        build_pages(["head"], Caption("m", "p"), [stack_of(weights)])


@pytest.mark.parametrize("script", ["x = '</script>'", "/* <!-- */", "</STYLE>"])
def test_a_library_that_would_end_its_element_is_refused(script: str) -> None:
    with pytest.raises(ToolkitError, match="cannot be put into a page"):
        assets.checked(script, "library.js")
    assert assets.checked("a\r\nb\rc", "library.js") == "a\nb\nc"  # as a browser hashes it


def test_a_missing_library_is_named() -> None:
    with pytest.raises(ToolkitError, match="pip install"):
        assets.library_script("no-such-distribution", "x.js")
    with pytest.raises(ToolkitError, match=r"no/such\.js is missing"):
        assets.library_script("bertviz", "no/such.js")


# ---------------------------------------------------------------------------------------- weights


def same_weights(found: list[np.ndarray], expected: tuple[np.ndarray, ...], step: float) -> None:
    for ours, theirs in zip(found, expected, strict=True):
        finite = np.isfinite(theirs)
        assert (np.isnan(ours) == ~finite).all()
        wide = theirs[finite].astype(np.float64)
        assert np.abs(ours[finite] - wide).max(initial=0) <= step / 2 + 1e-9 * step


def test_weights_to_four_decimals() -> None:
    rng = np.random.default_rng(0)
    square = stack_of(*(rng.dirichlet(np.ones(9), (3, 9)).astype(np.float32) for _ in range(4)))
    oblong = stack_of(*(rng.dirichlet(np.ones(5), (2, 7)).astype(np.float32) for _ in range(2)))
    packed = pack([square, oblong])
    for found, made in zip(unpack(packed), (square, oblong), strict=True):
        weights = tuple(layer.dense() for layer in made.weights)
        same_weights(found, weights, 1e-4)
        for ours, theirs in zip(found, weights, strict=True):
            assert (ours.round(9) == theirs.astype(np.float64).round(4).round(9)).all()


def test_the_ends_of_the_scale() -> None:
    exact = np.array([[[0.0, 1.0, 0.00004, 0.00006, 0.9999, 0.99996]]])
    packed = pack([stack_of(exact)])
    assert unpack(packed)[0][0].tolist() == [[[0, 1, 0, 0.0001, 0.9999, 1]]]
    # In single precision these would be rounded to the other side.
    close = np.array([[[0.8393499851226807, 0.7901499867439270, 0.8534500002861023]]], np.float32)
    packed = pack([stack_of(close)])
    assert unpack(packed)[0][0].tolist() == [[[0.8393, 0.7901, 0.8535]]]


@patient
@given(
    st.floats(-9e3, 1e6),  # lower is a mask
    st.floats(0, 1e6),
    st.lists(st.floats(0, 1), min_size=2, max_size=8),
    st.lists(st.sampled_from([np.nan, np.inf, -np.inf]), max_size=3),
)
@example(-5.0, 0.0, [0.0, 1.0], [np.nan])  # all alike and negative
@example(0.0, 1e6, [0.0, 1.0], [])
@example(0.0, 6.5534, [0.0, 1.0], [])
@example(0.0, 6.5535, [0.0, 1.0], [np.inf])  # one step more than 4 decimals can hold
def test_odd_ranges_are_kept_within_a_step(
    low: float, size: float, inside: list[float], odd: list[float]
) -> None:
    weights = np.array([[[low + size * part for part in inside] + odd]])
    packed = pack([stack_of(weights)])
    finite = weights[np.isfinite(weights)]
    if odd and finite.min() >= 0 and finite.max() <= 1:  # a row of probabilities is whole or none
        assert np.isnan(unpack(packed)[0][0]).all()
        return
    span = np.nanmax(weights[np.isfinite(weights)]) - weights[np.isfinite(weights)].min()
    step = max(1e-4, span / (NOT_A_NUMBER - 1), weights[np.isfinite(weights)].max() / 65534)
    (found,) = unpack(packed)
    same_weights(found, (weights,), 2 * step)


def test_nothing_but_odd_values() -> None:
    weights = np.array([[[np.nan, np.inf], [-np.inf, np.nan]]])
    packed = pack([stack_of(weights)])
    assert np.isnan(unpack(packed)[0][0]).all()


@pytest.mark.parametrize("mask", [np.finfo(np.float32).min, np.finfo(np.float16).min, -np.inf])
def test_masked_raw_scores_do_not_spoil_the_scale(mask: float) -> None:
    scores = np.array([[[3.25, mask], [-2.5, 0.125]]], dtype=np.float32)
    packed = pack([stack_of(scores)])
    found = unpack(packed)[0][0]
    np.testing.assert_allclose(found[0, [0, 1, 1], [0, 0, 1]], [3.25, -2.5, 0.125], atol=1e-4)
    assert np.isnan(found[0, 0, 1])


def test_sentence_pairs_share_the_weights() -> None:
    rng = np.random.default_rng(0)
    weights = [rng.dirichlet(np.ones(6), (2, 6)) for _ in range(2)]
    single, pair = stack_of(*weights), stack_of(*weights, split=2)
    packed = pack([pair])
    alone = pack([single])
    assert (packed.heads, packed.overviews) == (alone.heads, alone.overviews)  # they travel once
    assert [entry["name"] for entry in packed.stacks] == [
        "All",
        "Sentence A -> Sentence A",
        "Sentence B -> Sentence B",
        "Sentence A -> Sentence B",
        "Sentence B -> Sentence A",
    ]
    a, b, every = slice(0, 2), slice(2, 6), slice(0, 6)
    parts = [(every, every), (a, a), (b, b), (a, b), (b, a)]
    for found, (rows, columns) in zip(unpack(packed), parts, strict=True):
        same_weights(found, tuple(w[:, rows, columns] for w in weights), 1e-4)


def test_sentence_pairs_of_several_stacks_are_told_apart() -> None:
    made = stack_of(np.ones((2, 4, 4)), split=1)
    stacks = [
        replace(made, name=name)
        for name in ("Self, layer 0, 2 heads of 4 x 4", "Self, layer 1, 2 heads of 4 x 4")
    ]
    names = [entry["name"] for entry in pack(stacks).stacks]
    assert len(set(names)) == 10
    assert names[0] == "Self, layer 0, 2 heads of 4 x 4: All"
    assert names[9] == "Self, layer 1, 2 heads of 4 x 4: Sentence B -> Sentence A"
    # One that is no pair, beside one that is.
    whole = replace(made, name="Decoder", split=None)
    assert pack([made, whole]).stacks[-1]["name"] == "Decoder"


def test_the_numbers_of_layers_and_heads_travel() -> None:
    made = stack_of(np.ones((2, 1, 1)), np.ones((2, 1, 1)))
    made = replace(made, layers=(3, 8), heads=(1, 5))
    (entry,) = pack([made]).stacks
    assert (entry["layers"], entry["heads"]) == ((3, 8), (1, 5))


# ----------------------------------------------------------------------------------------- tokens


ENGLAND = "🏴" + "".join(chr(0xE0000 + ord(c)) for c in "gbeng\x7f")
SPELLED = "🏴" + "".join(f"\\ue00{ord(c):x}" for c in "gbeng")


@pytest.mark.parametrize(
    ("tokens", "shown"),
    [
        (["The", "Ġcat", "Ċ", "ĉ", "č"], ["The", "·cat", "↵", "→", "␍"]),  # byte-level
        (["Ġ", "ĠĠ", "Ġa", "ĊĊ"], ["·", "··", "·a", "↵↵"]),
        (["naÃ¯ve", "ĠcafÃ©"], ["naïve", "·café"]),
        (["naÃ¯ve"], ["naïve"]),  # without a mark of a space
        (["Ġ", "æĿ±äº¬"], ["·", "東京"]),
        (["Ġð", "ŁĻĤ"], ["·\\xf0", "\\x9f\\x99\\x82"]),  # an emoji in two tokens
        (["<|endoftext|>", "ĠðŁĻĤ"], ["<|endoftext|>", "·🙂"]),
        (["Ġcat", "東京"], ["·cat", "東京"]),  # a token the user added
        (["<s>", "▁The", "▁cat", "s", "▁"], ["<s>", "·The", "·cat", "s", "·"]),  # sentencepiece
        (["▁naïve", "▁café", "<0x0A>"], ["·naïve", "·café", "<0x0A>"]),
        (["[CLS]", "play", "##ing", "über", "[SEP]"], ["[CLS]", "play", "##ing", "über", "[SEP]"]),
        (["low</w>", "er</w>"], ["low", "er"]),
        (["a</w>", "cafÃ©</w>", "ðŁĺ", "Ģ</w>"], ["a", "café", "\\xf0\\x9f\\x98", "\\x80"]),  # CLIP
        (["un</w>", "café</w>"], ["un", "café"]),  # OpenAI's first GPT
        # Letters of Maltese, in WordPiece, in SentencePiece and in whole words.
        (["ta", "##l", "Ċomb", "café"], ["ta", "##l", "Ċomb", "café"]),
        (["▁Ġwann", "▁ra", "▁Ċ"], ["·Ġwann", "·ra", "·Ċ"]),
        (["Ġwann", "u", "café"], ["Ġwann", "u", "café"]),
        (["café", "Ġwann"], ["café", "Ġwann"]),
        (["Māori", "čas", "będę"], ["Māori", "čas", "będę"]),  # nor are these marks
        # Text in bytes that looks like another spelling, or is cut within a character.
        (["##", "ĠTitle"], ["##", "·Title"]),
        (["<｜begin▁of▁sentence｜>", "The", "Ġcat"], ["<｜begin▁of▁sentence｜>", "The", "·cat"]),
        (["ŁĻĤ", "Ġna", "Ã"], ["\\x9f\\x99\\x82", "·na", "\\xc3"]),
        # Bytes that a model wrote without sense, among words.
        (["The", "Ġcat", "é", "Ġâ", "Ġsat"], ["The", "·cat", "\\xe9", "·\\xe2", "·sat"]),
        (["", "a"], ["∅", "a"]),
        (["a b", "\n", "\r", "\t", "\u00a0"], ["a·b", "↵", "␍", "→", "⍽"]),
        (["\u202eabc", "\u2066", "\u200b"], ["\\u202eabc", "\\u2066", "\\u200b"]),
        (["\0", "\x1b[0m", "\u2028", "\ud800"], ["\\u0000", "\\u001b[0m", "\\u2028", "\\ud800"]),
        # Joiners that join, and what else belongs to the character before, stay.
        (["می\u200cخواهم", "PDF\u200cها"], ["می\u200cخواهم", "PDF\u200cها"]),
        (["👨\u200d👩\u200d👧\u200d👦"], ["👨\u200d👩\u200d👧\u200d👦"]),
        (["👩🏽\u200d❤\ufe0f\u200d👨"], ["👩🏽\u200d❤\ufe0f\u200d👨"]),
        (["क\u094d\u200dष", "ක\u0dca\u200dර"], ["क\u094d\u200dष", "ක\u0dca\u200dර"]),
        (["ന\u0d4d\u200d"], ["ന\u0d4d\u200d"]),  # a chillu, at the end of a word
        ([ENGLAND, "1\ufe0f\u20e3", "葛\U000e0100"], [ENGLAND, "1\ufe0f\u20e3", "葛\U000e0100"]),
        (["؁٢٠٢٦", "\u06dd٧"], ["؁٢٠٢٦", "\u06dd٧"]),  # format characters that are seen
        # Those with nothing to join, and what nobody could see.
        (["\u200d", "می\u200c", "\u200dक"], ["\\u200d", "می\\u200c", "\\u200dक"]),
        (["pass\u200dword", "日\u200c本"], ["pass\\u200dword", "日\\u200c本"]),
        (["م\u200c\u200cم"], ["م\\u200c\\u200cم"]),
        (["\ufe0f", "❤\ufe0f\ufe0f"], ["\\ufe0f", "❤\ufe0f\\ufe0f"]),
        (["hi\U000e0068\U000e0069", ENGLAND[:-1]], ["hi\\ue0068\\ue0069", SPELLED]),
        (
            ["so\u00adft", "\u3164", "\u3000", "\u2800"],
            ["so\\u00adft", "\\u3164", "\\u3000", "\\u2800"],
        ),
        (["م\u202e\u200cم"], ["م\\u202e\\u200cم"]),
        (["#12", "#7"], ["#12", "#7"]),
        ([], []),
    ],
)
def test_readable(tokens: list[str], shown: list[str]) -> None:
    assert readable(tokens) == shown


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("می\u200cخواهم 👩\u200d👧", "می\u200cخواهم 👩\u200d👧"),
        ("\u200c a\u200db", "\\u200c a\\u200db"),
        ("\u202eabc\u2066\x1b[0m\n", "\\u202eabc\\u2066\\x1b[0m\\n"),
        ("\ud800\ue000\U000e0068", "\\ud800\\ue000\\U000e0068"),
    ],
)
def test_on_a_terminal_and_in_titles(text: str, shown: str) -> None:
    assert printable(text) == shown


def test_virtual_tokens_are_shown_by_their_names() -> None:
    made = stack_of(
        np.ones((1, 2, 4)), rows=["Ġa", "b"], columns=["prefix 0", "prefix 1", "Ġa", "b"]
    )
    (entry,) = pack([replace(made, start=-2)]).stacks
    assert entry["columnTokens"] == ["prefix 0", "prefix 1", "·a", "b"]
    assert (entry["rowTokens"], entry["start"], entry["offset"]) == (["·a", "b"], -2, 2)


@patient
@given(st.lists(TEXT))
@example(["\U000e0001", "a"])  # a control beyond 16 bits
def test_any_tokens_are_readable(tokens: list[str]) -> None:
    shown = readable(tokens)
    assert len(shown) == len(tokens)
    assert all(shown)
    for text in shown:
        text.encode("utf-8")
        assert text.isprintable() or not text.isascii()
        assert not re.search("[\0-\x1f\x7f\u202a-\u202e\u2066-\u2069\u2028\u2029 ]", text)


PLAIN = st.text(
    st.characters(exclude_categories=["Cs", "Cc", "Cf", "Zl", "Zp", "Zs"]).filter(is_seen),
    min_size=1,
).filter(lambda text: not re.match(r"##\w", text) and not text.endswith("</w>"))


def in_bytes(text: str) -> str:
    ((token, _),) = ByteLevel(add_prefix_space=False, use_regex=False).pre_tokenize_str(text)
    return token


@patient
@given(PLAIN)
def test_what_a_byte_level_tokenizer_wrote_is_undone(text: str) -> None:
    assert readable(["Ġ", in_bytes(text)]) == ["·", text]
    assert readable(["Ġ</w>", in_bytes(text) + "</w>"]) == ["·", text]  # CLIP's


@patient
@given(PLAIN, st.integers(0, 20), st.integers(0, 20))
def test_a_text_in_bytes_may_be_cut_anywhere(text: str, start: int, end: int) -> None:
    """As --tokens does. Each byte is a token here, and there is a space."""
    tokens = [*in_bytes(text), "Ġ", *in_bytes(text)]
    space = len(tokens) // 2
    part = slice(min(start, space), space + 1 + end)
    assert readable(tokens[part]) == readable(tokens)[part]
    assert readable(tokens)[space] == "·"


@patient
@given(st.lists(st.text("abcéħżàçĠĊġċ", min_size=1)), st.sampled_from(["##s", "▁s"]))
def test_letters_are_no_marks_in_another_spelling(words: list[str], token: str) -> None:
    assert readable([*words, token])[:-1] == words


# ------------------------------------------------------------------------------- the first reading


@pytest.mark.parametrize("part", [{}, {"heads": [1]}, {"layers": [2]}, {"tokens": (3, 9)}], ids=str)
@pytest.mark.parametrize("raw", [False, True])
def test_heads_are_packed_while_they_are_read(
    part: dict[str, Any], raw: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each layer of JSON is parsed once, and the page is the same as without that."""
    layers = [Layer(i, random_weights(i, 2, 12)) for i in range(3)]
    layers[0] = Layer(0, layers[0].weights - 0.5 * raw)
    write_capture(tmp_path / "a.json", layers)
    parsed = []
    parse_line = reader.parse_line
    monkeypatch.setattr(reader, "parse_line", lambda *a: parsed.append(a[-1]) or parse_line(*a))
    content = read_content(load(tmp_path / "a.json"), lambda *_: [], **part)
    pages = build_pages(["head"], content.caption, content.stacks, first=content.first)
    shown = [layer for stack in content.stacks for layer in stack.layers]
    # Of a part, what is outside it is looked at too.
    if (not raw or 0 not in shown) and "tokens" not in part:
        assert len(parsed) == len(set(parsed)) >= len(shown)
    again = build_pages(["head"], content.caption, content.stacks)
    assert again == pages
    assert len(parsed) > len(set(parsed))


def test_a_first_reading_gives_up_over_the_budget(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_capture(tmp_path / "a.json", [Layer(i, random_weights(i, 2, 60)) for i in range(3)])
    monkeypatch.setattr(packing, "BUDGET", 5_000)
    content = read_content(load(tmp_path / "a.json"), lambda *_: [])
    assert content.first is not None
    assert not content.first.blobs
    pages = build_pages(["head"], content.caption, content.stacks, 0.01, 5_000, content.first)
    assert len(pages["head"]) > 1
