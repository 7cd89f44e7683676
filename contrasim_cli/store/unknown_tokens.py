"""How many tokens of a store's texts their tokenizer does not know, as the store's provenance counts them."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from contrasim_cli.names import quoted

log = logging.getLogger(__name__)

TOKENS, UNKNOWN = "tokens", "unknown_tokens"  # counts, over all rows
LARGE_SHARE = 0.05


def unknown_share(provenance: Mapping[str, Any]) -> float | None:
    """Unknown tokens as a part of all, in [0, 1]; None where nobody counted, or there are no tokens."""
    unknown, tokens = provenance.get(UNKNOWN), provenance.get(TOKENS)
    return unknown / tokens if isinstance(unknown, int) and isinstance(tokens, int) and tokens > 0 else None


def warn_unknown(path: Path, provenance: Mapping[str, Any]) -> None:
    """Warn of a store of which more than 5 % of the tokens are unknown."""
    share = unknown_share(provenance)
    if share is not None and share > LARGE_SHARE:
        log.warning(
            "%s: %.0f %% of the tokens are unknown (%s) to this tokenizer; does it fit the model and the texts' language?",
            quoted(path), 100 * share, quoted(provenance.get("unknown_token")),
        )  # fmt: skip
