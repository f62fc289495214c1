"""Models on the Hugging Face hub: its cache first, one quick question to the network, no retries."""

from __future__ import annotations

from pathlib import Path

from noisette.checkpoint import read_json, weight_names
from noisette.errors import UserError
from noisette.kinds import check_known, networks_of

TIMEOUT = 5.0  # seconds for the question whether a model exists
SMALL = (".json", ".txt", "spiece.model")


def find(model: str) -> tuple[Path, list[str], tuple[str, ...]]:
    """The snapshot folder of a hub id, its small files fetched; all its file names; the missing weights.

    Without a network (or with HF_HUB_OFFLINE=1) what the cache holds. Raises UserError.
    """
    from huggingface_hub import HfApi, constants, try_to_load_from_cache
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError

    try:
        info = HfApi().model_info(model, timeout=TIMEOUT)
    except GatedRepoError:
        raise UserError(
            f"{model} is gated: accept its licence on {constants.ENDPOINT}/{model}, then `hf auth login`"
        ) from None
    except RepositoryNotFoundError:
        raise UserError(f"no model {model}: neither a path nor a public model on {constants.ENDPOINT}") from None
    except Exception as error:  # offline, no name service, a proxy, a 5xx: each HTTP stack has its own classes
        return cached(model, str(error).partition("\n")[0])
    names = [file.rfilename for file in info.siblings or []]
    if "model_index.json" not in names:
        raise UserError(f"{model} is no diffusers model: model_index.json is missing")
    index = read_json(download(model, ["model_index.json"]) / "model_index.json")
    check_known(model, index)
    folders = tuple(f"{component}/" for component in index)
    small = [n for n in names if n.startswith(folders) and n.endswith(SMALL)]
    folder = download(model, small)
    wanted = [name for network in networks_of(index) for name in weight_names(model, network, names)]
    missing = [n for n in wanted if not isinstance(try_to_load_from_cache(model, n, revision=info.sha), str)]
    return folder, names, tuple(f"{model}/{name}" for name in missing)


def cached(model: str, why: str) -> tuple[Path, list[str], tuple[str, ...]]:
    """The same from the cache alone. Raises UserError, with `why` the network was no help."""
    from huggingface_hub import try_to_load_from_cache

    index = try_to_load_from_cache(model, "model_index.json")
    if not isinstance(index, str):
        raise UserError(f"no model {model}: not a path, not in the hub's cache, and the hub is out of reach ({why})")
    folder = Path(index).parent
    names = [path.relative_to(folder).as_posix() for path in folder.glob("*/*")]
    pipeline = read_json(Path(index))
    check_known(model, pipeline)
    for network in networks_of(pipeline):
        if not any(name.startswith(network + "/") and name.endswith(".safetensors") for name in names):
            raise UserError(f"{model}: the weights of {network} are not in the hub's cache, and {why}")
    return folder, names, ()


def download(model: str, names: list[str]) -> Path:
    """Fetches these files of a model into the hub's cache; returns the snapshot folder. Raises UserError."""
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(model, allow_patterns=names, etag_timeout=TIMEOUT))
    except OSError as error:
        reason = str(error).partition("\n")[0]
    except Exception as error:  # the client's HTTP errors share no public base class
        reason = str(error).partition("\n")[0]
    raise UserError(f"downloading {model} failed: {reason}")
