"""The adapter that is switched on in a model which the user loaded with peft or transformers.

Read from the attributes of peft's classes, so that peft need not be imported.
"""

from __future__ import annotations

from typing import Any


def active_adapter(model: Any, base: str) -> dict[str, str] | None:
    """Its name, base model and type (`LORA`); None where no adapter is switched on.

    `base` is what the base model is called where the adapter's configuration does not say it.
    """
    for module in model.modules():
        configs = getattr(module, "peft_config", None)
        if not isinstance(configs, dict):
            continue
        for name in _switched_on(module):
            if name in configs:
                config = configs[name]
                named = str(config.base_model_name_or_path or base)
                return {"name": name, "base_model": named, "type": str(config.peft_type.value)}
    return None


def _switched_on(module: Any) -> list[str]:
    """The names of the active adapters in a module that has a `peft_config`."""
    if getattr(module, "_adapters_disabled", False):  # a PeftModel in disable_adapter()
        return []
    # On peft's own layers this is a property; transformers' models have a method of that name.
    layers = [m for m in module.modules() if isinstance(getattr(m, "disable_adapters", None), bool)]
    if layers:
        on = (layer.active_adapters for layer in layers if not layer.disable_adapters)
        return [name for names in on for name in names]
    own = getattr(module, "active_adapter", None)  # prompt learning has no layers in the model
    return [own] if isinstance(own, str) else []
