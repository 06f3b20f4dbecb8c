"""Which peers there are, and the environment each of them needs.

python -m comparisons.environments FOLDER PEER... --level avx2
"""

import argparse
import os
import subprocess
import sys
import tomllib
from dataclasses import dataclass
from pathlib import Path

from comparisons.levels import LEVELS, NATIVE, Level

REPOSITORY = Path(__file__).resolve().parents[2]


@dataclass(frozen=True, slots=True)
class PeerKind:
    """A runtime in one precision."""

    module: str
    """`comparisons.MODULE` speaks the worker's protocol."""
    variant: str
    environment: str


@dataclass(frozen=True, slots=True)
class Environment:
    """What pip installs."""

    requirements: tuple[str, ...]
    compiled: str = ""
    """A package that is compiled here for the level, each level in an environment of its own."""
    unwanted: tuple[str, ...] = ()
    """What the requirements bring along and nothing here uses."""


PEERS = {
    "llama.cpp-q4_0": PeerKind("llamacpp", "q4_0", "llama_cpp"),
    "llama.cpp-q4_k_m": PeerKind("llamacpp", "q4_k_m", "llama_cpp"),
    "llama.cpp-iq4_nl": PeerKind("llamacpp", "iq4_nl", "llama_cpp"),
    "llama.cpp-q8_0": PeerKind("llamacpp", "q8_0", "llama_cpp"),
    "llama.cpp-bf16": PeerKind("llamacpp", "bf16", "llama_cpp"),
    "transformers-bf16": PeerKind("hf", "bfloat16", "transformers"),
    "transformers-fp32": PeerKind("hf", "float32", "transformers"),
    "openvino-int4": PeerKind("openvino_intel", "int4", "openvino"),
    "openvino-fp32": PeerKind("openvino_intel", "fp32", "openvino"),
    "optimum-onnx": PeerKind("optimum_onnx", "fp32", "optimum_onnx"),
    "onnxruntime-genai": PeerKind("genai", "int4", "genai"),
}

BASELINE: tuple[str, ...] = tuple(
    tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"][
        "optional-dependencies"
    ]["baseline"]
)
"""The extra of that name."""

ENVIRONMENTS = {
    "llama_cpp": Environment(
        ("llama-cpp-python==0.3.36", "gguf==0.19.0", "pillow"),
        compiled="llama-cpp-python",
    ),
    "transformers": Environment(("torch", "transformers>=5.23,<6", "pillow")),
    "openvino": Environment(
        (*BASELINE, "torch", "pillow"),
        unwanted=("torchvision",),  # its usual build does not load beside a torch for CPUs
    ),
    "optimum_onnx": Environment(
        ("optimum-onnx[onnxruntime]==0.1.0", "transformers==4.57.6", "torch", "pillow")
    ),
    "genai": Environment(
        ("onnxruntime-genai==0.18.0", "transformers>=5.23,<6", "torch", "onnx-ir", "pillow")
    ),
}

STAMP = ".peer-ready"


def environment_python(folder: Path, name: str, level: Level = NATIVE) -> Path:
    """The interpreter of an environment for a level, which is made with its first use.

    Raises:
        subprocess.CalledProcessError: pip could not install it.
    """
    wanted = ENVIRONMENTS[name]
    home = folder / (f"{name}-{level.name}" if wanted.compiled and level is not NATIVE else name)
    python = home / "bin" / "python"
    if (home / STAMP).exists():
        return python
    print(f"making {home} (once)", file=sys.stderr)
    subprocess.run([sys.executable, "-m", "venv", str(home)], check=True)
    pip = [str(python), "-m", "pip", "install", "-q", "-c", str(REPOSITORY / "constraints.txt")]
    if wanted.compiled:  # a wheel in pip's cache may be of another level
        pip += ["--no-cache-dir", "--no-binary", wanted.compiled]
    variables = os.environ | {"CMAKE_ARGS": level.cmake}
    subprocess.run([*pip, *wanted.requirements], check=True, env=variables)
    if wanted.unwanted:
        subprocess.run(
            [str(python), "-m", "pip", "uninstall", "-q", "-y", *wanted.unwanted], check=True
        )
    (home / STAMP).touch()
    return python


def main(arguments: list[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m comparisons.environments", description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("peers", nargs="+", choices=PEERS, metavar="PEER")
    parser.add_argument("--level", choices=LEVELS, default="native", help="what to compile for")
    chosen = parser.parse_args(arguments)
    for peer in chosen.peers:
        print(environment_python(chosen.folder, PEERS[peer].environment, LEVELS[chosen.level]))


if __name__ == "__main__":
    main()
