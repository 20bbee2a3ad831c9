"""Layers refused by what a config.json says: only where no module can have them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import tiny
import transformers

from activations.errors import UsageError
from activations.forward.probe import list_modules, observe
from activations.model.checkpoint import Checkpoint
from activations.model.config_file import check_layers
from activations.model.loading import skeleton
from activations.selection.catalog import build_catalog
from activations.selection.observation import Observation

REUSED = ("albert", "hrm_text")  # one module is several layers


@pytest.mark.parametrize(
    "family", ["llama", "gpt2", "bert", "bart", "t5", "swin", "wav2vec2", "clip", "mamba", *REUSED]
)
def test_no_layer_that_is_there_is_refused(family: str, tmp_path: Path) -> None:
    auto_class = "AutoModel"
    config = tiny.config(family, auto_class)
    config.save_pretrained(tmp_path)
    model = skeleton(Checkpoint(family, config, auto_class))
    listed = Observation(list_modules(model), probed=False)
    seen = [listed, observe(model)] if family in REUSED else [listed]
    patterns = [pattern for observation in seen for pattern in build_catalog(observation).patterns]
    layers = {n for p in patterns for calls in p.layers for n in calls if n is not None}
    assert layers
    check_layers(str(tmp_path), sorted(layers | {-n - 1 for n in layers}))


@pytest.mark.parametrize(
    ("fields", "most"),
    [
        ({"num_hidden_layers": 3}, 3),
        ({"n_layer": 3, "layer_types": ["full"] * 3}, 3),
        ({"num_layers": 2, "depths": [2, 2, 6, 2]}, 6),
        ({"num_hidden_layers": 3, "num_conv_layers": 7}, 7),
        # the default of a part stands in no file
        ({"num_hidden_layers": 3, "is_encoder_decoder": True}, None),
        ({"vision_config": {"num_hidden_layers": 3}, "text_config": {}}, None),
        ({"num_hidden_layers": 3, "text_config": {}}, None),
        ({"hidden_size": 3}, None),
        # custom code may run its layers several times
        ({"num_hidden_layers": 3, "auto_map": {}}, None),
        ({"num_hidden_layers": "abc"}, None),
        ({"num_hidden_layers": {}}, None),
        ([3], None),
    ],
)
def test_what_a_configuration_bounds(fields: Any, most: int | None, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(fields))
    check_layers(str(tmp_path), [0, (most or 1000) - 1])
    if most is not None:
        check_layers(str(tmp_path), [-most])
        for missing in (most, -most - 1):
            message = f"there is no layer {missing}. .* at most {most} layers"
            with pytest.raises(UsageError, match=message):
                check_layers(str(tmp_path), [0, missing])


def test_what_cannot_be_read_is_let_pass(tmp_path: Path) -> None:
    check_layers(str(tmp_path), [1000])
    check_layers("no/such/model", [1000])
    (tmp_path / "config.json").write_text("{")
    check_layers(str(tmp_path), [1000])
    assert transformers  # the module itself needs none
