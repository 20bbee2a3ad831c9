"""Strings that have broken pages: as a model, a prompt, a token or a module may be called."""

from __future__ import annotations

HACK = "window.hacked=1"

INJECTIONS = [
    # the script that the data stand in, and comments
    f"</script><script>{HACK}</script>",
    f"</SCRIPT\t><script>{HACK}</script>",
    f"<!--<script>{HACK}",
    "--><!-- --!> <![CDATA[ ]]>",
    f"*/ }}; {HACK}; /*",
    f"\\u003c/script\\u003e\\x3cscript>{HACK}",
    f"\u2028{HACK}\u2029{HACK}",
    # elements and attributes
    f"<img src=x onerror={HACK}>",
    f"<svg/onload={HACK}>",
    f"<svg><animate onbegin={HACK} attributeName=x dur=1s>",
    f"<iframe srcdoc='<script>parent.{HACK}</script>'>",
    f"<details open ontoggle={HACK}>",
    f"<input autofocus onfocus={HACK}>",
    "<form action=http://127.0.0.1:9/><button>press",
    "<base href=http://127.0.0.1:9/>",
    "<meta http-equiv=refresh content='0;url=http://127.0.0.1:9/'>",
    "<link rel=stylesheet href=http://127.0.0.1:9/x.css>",
    "<style>@import 'http://127.0.0.1:9/y.css';*{display:none}</style>",
    "<object data=http://127.0.0.1:9/></object><embed src=http://127.0.0.1:9/>",
    f'" onmouseover="{HACK}" x="',
    f"' autofocus onfocus='{HACK}' x='",
    f"` onclick={HACK} `",
    "</title></textarea></style></template></noscript><b>bold</b>",
    "<a id=page-data name=Page><form id=heads><input name=attributes>",  # what is found by its name
    "<template><select><option>",
    # addresses and styles
    f"javascript:{HACK}",
    f"data:text/html,<script>{HACK}</script>",
    "http://127.0.0.1:9/z",
    "//127.0.0.1:9/z",
    "url(http://127.0.0.1:9/x.png)",
    f"#layer=0&head=0'\"><script>{HACK}</script>",
    "expression(alert(1));}*{background:url(//127.0.0.1:9/)}",
    # templates, of this toolkit's and of others
    f"${{{HACK}}} {{{{constructor.constructor('{HACK}')()}}}}",
    "$data$weights$$PYTHON_PARAMS $policy %s %(x)s {0} {page}",
    "&lt;b&gt; &amp;amp; &#60;script&#62; &#x3c;",
    # names that every object has
    "__proto__",
    "constructor",
    "prototype",
    "toString",
    "hasOwnProperty",
    # spreadsheets and terminals
    '=HYPERLINK("http://127.0.0.1:9/";"x")',
    "+1+cmd|' /C calc'!A0",
    "@SUM(1,1)\tx",
    "\x1b[31mred\x1b]0;title\x07",
    # characters
    "\u202eright to left\u2066 \u200f\u2069\u202c",
    "\ufeff\u200b\u200d\u00ad\u2060\u180e",
    "\x01\x0b\x0c\x1f\x7f\x85\x9f",
    "\ufffe\uffff\ufdd0\U0001ffff\U0010ffff",
    "a\u0301\u0316\u0489\u20dd" + "\u0335" * 30,
    "🙂👩‍👩‍👧🏳️‍🌈\U000e0041",
    "new\nline\rand\r\ntab\t",
    "\\ \\\\ \\n \\u0041 \\",
    "../../../etc/passwd",
    "C:\\..\\..\\autoexec.bat",
    "",
    "   ",
    "x" * 3000,
]
