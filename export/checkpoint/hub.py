"""Fetching a checkpoint from the Hugging Face hub, or saying what stands in the way."""

import os
from pathlib import Path

from edge_medgemma.runtime.errors import CheckpointError, ResourceError

PATTERNS = ("*.json", "*.safetensors", "*.jinja")
SUBFOLDERS = ("*/*",)
"""Checkpoints of a training, other formats: nothing in them is read, and they may be large."""


def download(name: str, revision: str | None) -> Path:
    """Local snapshot folder of a hub model; its name is the commit hash.

    Raises:
        CheckpointError: gated and not accepted, unknown, or the hub cannot be reached.
        ResourceError: no room or no right to store it.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        HFValidationError,
        LocalEntryNotFoundError,
        OfflineModeIsEnabled,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    transport_error = HfHubHTTPError.__bases__[0]  # of the HTTP library, such as a wrong proxy's
    page = f"https://huggingface.co/{name}"
    elsewhere = "or copy the model's folder to this machine and pass its path"
    try:
        folder = snapshot_download(
            name,
            revision=revision,
            allow_patterns=list(PATTERNS),
            ignore_patterns=list(SUBFOLDERS),
        )
        return Path(folder)
    except HFValidationError:
        raise CheckpointError(
            f"'{name}' is neither a folder nor a hub id; check the spelling"
        ) from None
    except GatedRepoError:
        raise CheckpointError(
            f"'{name}' is gated: accept its terms at {page}, then run 'hf auth login' or set "
            f"HF_TOKEN; {elsewhere}"
        ) from None
    except RevisionNotFoundError:
        raise CheckpointError(f"'{name}' has no revision '{revision}'; see {page}") from None
    except RepositoryNotFoundError:
        raise CheckpointError(
            f"the hub has no model '{name}', or it needs a login ('hf auth login'); see {page}, "
            f"{elsewhere}"
        ) from None
    except (LocalEntryNotFoundError, OfflineModeIsEnabled, transport_error):
        offline = " (HF_HUB_OFFLINE is set)" if os.environ.get("HF_HUB_OFFLINE") else ""
        raise CheckpointError(
            f"no folder '{name}', and the hub cannot be reached{offline}; connect, {elsewhere}"
        ) from None
    except OSError as error:
        raise ResourceError(
            f"'{name}' cannot be stored ({error.strerror or error}); set HF_HOME to a folder with "
            "room for it that can be written"
        ) from None
