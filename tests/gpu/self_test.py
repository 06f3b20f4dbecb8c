"""How far an engine on a provider is from its own reference outputs, which the CPU computed."""

import argparse
import json
import sys
import time
from dataclasses import asdict
from pathlib import Path

from edge_medgemma.runtime.backends.select import parse_providers
from edge_medgemma.runtime.backends.self_test.reference_outputs import load_reference_outputs
from edge_medgemma.runtime.errors import EdgeMedgemmaError
from edge_medgemma.runtime.generation.engine import Engine
from edge_medgemma.runtime.generation.self_test import compare_with_reference
from edge_medgemma.runtime.manifest import load_manifest


def main() -> None:
    """See the module; exits with 1 where the engine itself refuses the provider."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("engine", type=Path)
    parser.add_argument("--provider", required=True)
    parser.add_argument("--json", type=Path, required=True)
    arguments = parser.parse_args()
    reference = load_reference_outputs(arguments.engine, load_manifest(arguments.engine).files)
    if reference is None:
        sys.exit(
            f"error: '{arguments.engine}' has no reference outputs; export it without --no-reference-outputs"
        )
    try:
        providers = parse_providers([arguments.provider])
        with Engine.open(arguments.engine, providers=providers) as engine:
            start_s = time.perf_counter()
            identity = engine.decoder_identity  # a GPU is tested here before it is trusted
            opened_s = time.perf_counter() - start_s
            comparison = compare_with_reference(engine, reference)
    except EdgeMedgemmaError as error:
        sys.exit(f"error: {error}")
    found = {"identity": identity, "opened_s": opened_s, **asdict(comparison)}
    arguments.json.write_text(json.dumps(found, indent=1) + "\n")
    print(found)


if __name__ == "__main__":
    main()
