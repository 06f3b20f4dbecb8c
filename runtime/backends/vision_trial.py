"""The trial of a library with an engine's vision graph, in a process that it may kill."""

from pathlib import Path

from edge_medgemma.runtime.backends.base import VisionModel
from edge_medgemma.runtime.backends.select import Provider, open_untested_vision
from edge_medgemma.runtime.backends.self_test.vision_agreement import agreement
from edge_medgemma.runtime.errors import EdgeMedgemmaError
from edge_medgemma.runtime.manifest import load_manifest
from edge_medgemma.runtime.trial import finish, limit_child


def main() -> None:
    """Compare the library of the second argument with onnxruntime on the engine in the first."""
    engine, name, threads = limit_child()
    directory = Path(engine)
    manifest = load_manifest(directory)

    def opened(provider: Provider) -> VisionModel:
        return open_untested_vision(directory, manifest, provider, int(threads) or None)

    candidate = Provider(name)
    try:
        cosine = agreement(
            manifest, candidate, lambda: opened(candidate), lambda: opened(Provider.CPU)
        )
    except EdgeMedgemmaError as error:
        finish(f"fails: {error}")
    except RuntimeError as error:  # OpenVINO's, `could not execute a primitive` among them
        finish(f"fails: {(str(error).strip() or type(error).__name__).splitlines()[-1]}")
    else:
        finish(None, repr(cosine))


if __name__ == "__main__":
    main()
