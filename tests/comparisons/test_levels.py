import subprocess
import sys
from pathlib import Path

import pytest
from comparisons import trapping_copies
from comparisons.environments import PEERS, STAMP, environment_python
from comparisons.fidelity import kl_by_format, our_format, peer_runtime, with_kl
from comparisons.levels import LEVELS, NATIVE

from edge_medgemma.runtime.kernels.level import cpu_kernels
from edge_medgemma.runtime.manifest import Precision

CLAIMED = cpu_kernels.claimed_levels() if cpu_kernels else []


@pytest.mark.parametrize("name", [name for name in LEVELS if name in CLAIMED])
def test_a_program_sees_an_older_processor(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(trapping_copies, "PACKAGES", ())  # copies of our own kernels alone
    code = "from edge_medgemma.runtime.kernels.level import cpu_kernels as k\n"
    code += "print(k.claimed_levels()[0])"
    try:
        shown = LEVELS[name].command(tmp_path)
        subprocess.run([*shown, "true"], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as reason:
        pytest.skip(f"this machine shows no older processor: {reason}")
    command = [*shown, sys.executable, "-c", code]
    seen = subprocess.run(command, check=True, capture_output=True, text=True)
    assert seen.stdout.strip() == name


def test_this_processor_needs_nothing():
    assert NATIVE.command(Path("unused")) == []


def test_only_what_is_compiled_has_an_environment_for_each_level(tmp_path: Path):
    for folder in ("llama_cpp", "llama_cpp-avx2", "transformers"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / STAMP).touch()
    avx2 = LEVELS["avx2"]
    assert environment_python(tmp_path, "llama_cpp").parts[-3] == "llama_cpp"
    assert environment_python(tmp_path, "llama_cpp", avx2).parts[-3] == "llama_cpp-avx2"
    assert environment_python(tmp_path, "transformers", avx2).parts[-3] == "transformers"


def test_losses_are_those_of_the_fair_weights(tmp_path: Path):
    (tmp_path / "quality.md").write_text(
        "| stored | llama.cpp q4_k_m | 1 | 5 / 8 | 0.0057 / 0.0044 | 1% | 2 |\n"
        "| shuffled | llama.cpp q4_k_m | 1 | 5 / 8 | 0.08 / 0.058 | 1% | 2 |\n"
        "| shuffled | llama.cpp q4_k_m-whole | 1 | 5 / 8 | 0.19 / 0.14 | 1% | 2 |\n"
        "| shuffled | ours int4-32 | 1 | 5 / 8 | 0.071 / 0.044 | 1% | 2 |\n"
    )
    losses = kl_by_format(tmp_path)
    kind = PEERS["llama.cpp-q4_k_m"]
    assert with_kl("q4", peer_runtime(kind), losses) == "q4 (KL 0.19)"
    assert with_kl("hf", peer_runtime(PEERS["transformers-bf16"]), losses) == "hf"
    of_32 = our_format(Precision("int4", "int8", "head", "int8", 32, 128, "fp32", "fp32"))
    assert with_kl(of_32, f"ours {of_32}", losses) == "int4-32 (KL 0.071)"


def test_the_documented_losses_are_found_where_none_were_measured(tmp_path: Path):
    losses = kl_by_format(tmp_path)
    assert {"ours int4", "ours int4-32", "llama.cpp q4_0", "llama.cpp q4_k_m-whole"} <= set(losses)
