"""What was changed in the pass, and what that did to the prediction, as a part of the page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from activations.attention.spelling import readable
from activations.document.interventions import Effect, Top, read_effect
from activations.text import html_text
from activations.views.effects_summary import change_lines, nats, read_tokens


def effect_section(header: Mapping[str, Any]) -> str:
    """The HTML of it, escaped; empty where nothing was changed."""
    changes, effect = change_lines(header), read_effect(header)
    if not changes:
        return ""
    said = "".join(f"<li>{html_text(line)}</li>" for line in changes)
    table = "" if effect is None else _table(effect, read_tokens(header))
    return (
        '<section id="effect" aria-labelledby="effect-title"><h2 id="effect-title">What was '
        f"changed</h2><ul>{said}</ul>{table}</section>"
    )


def _table(effect: Effect, tokens: Sequence[str] | None) -> str:
    ids = list(dict.fromkeys([*effect.before.ids, *effect.after.ids]))
    names = dict(zip(effect.after.ids, effect.after.tokens, strict=True))
    names |= dict(zip(effect.before.ids, effect.before.tokens, strict=True))
    shown = readable([names[id] for id in ids], tokens)
    before, after = _by_id(effect.before), _by_id(effect.after)
    rows = "".join(
        f'<tr><th scope="row"><bdi>{html_text(token)}</bdi></th>{_cell(before.get(id))}'
        f"{_cell(after.get(id))}</tr>"
        for id, token in zip(ids, shown, strict=True)
    )
    return (
        f"<p>The prediction at position {effect.position:,} moved by {nats(effect.kl)}.</p>"
        '<table><thead><tr><th scope="col">Expected</th><th scope="col">Unchanged</th>'
        f'<th scope="col">Changed</th></tr></thead><tbody>{rows}</tbody></table>'
    )


def _by_id(top: Top) -> dict[int, float]:
    return dict(zip(top.ids, top.probabilities, strict=True))


def _cell(likely: float | None) -> str:
    """A probability over a bar; a dash where it is not among the likeliest."""
    if likely is None:
        return "<td>–</td>"
    tenths = round(20 * likely) if likely == likely else 0
    return f'<td class="share-{tenths}">{likely:.2f}</td>'
