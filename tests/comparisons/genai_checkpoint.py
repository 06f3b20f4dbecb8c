"""A Gemma 3 checkpoint with the configuration that onnxruntime-genai's builder understands.

The builder (0.18) needs a transformers that knows Qwen 3.5. Those keep one set of rotary settings
for each kind of layer, where it looks for a single one and for `rope_local_base_freq`; it finds
both at the top level of config.json, which transformers passes through.
"""

import json
import shutil
from pathlib import Path
from typing import Any


def readable_config(config: dict[str, Any]) -> dict[str, Any]:
    """The configuration with rotary settings of the language model at the top level too."""
    text = config["text_config"]
    scaling = text.get("rope_scaling") or {"rope_type": "default"}
    return config | {
        "rope_parameters": scaling | {"rope_theta": text["rope_theta"]},
        "rope_local_base_freq": text["rope_local_base_freq"],
    }


def write_readable(checkpoint: Path, folder: Path) -> Path:
    """Links to the checkpoint's files beside such a configuration; return `folder`."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for path in checkpoint.iterdir():
        if path.name != "config.json":
            (folder / path.name).symlink_to(path.resolve())
    config = json.loads((checkpoint / "config.json").read_text(encoding="utf-8"))
    text = json.dumps(readable_config(config), indent=1)
    (folder / "config.json").write_text(text + "\n", encoding="utf-8")
    return folder
