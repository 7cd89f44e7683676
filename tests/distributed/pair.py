"""What a rank can check of `distributed` in one process: run by every rank, prints JSON of all of it."""

import json
import sys

import numpy as np
import torch

from contrasim_cli import distributed as d
from contrasim_cli.errors import ContraSimError, InputError, MismatchError

JOINED: dict[str, object] = {}


def refused(by: dict[int, ContraSimError]) -> list[object]:
    """What all ranks are told where some are refused."""

    def work() -> str:
        if d.rank() in by:
            raise by[d.rank()]
        return "done"

    try:
        return [d.agreed(work)]
    except ContraSimError as error:
        return [list(error.lines), error.exit_code]


def checks() -> dict[str, object]:
    """Everything."""
    own, world = d.rank(), d.world()
    double, single = torch.arange(6.0, dtype=torch.float64).view(2, 3).t() * (own + 1), torch.full((3,), float(own))
    d.PIECE_BYTES = 16  # several pieces
    d.total(double, single)
    return {
        "who": [own, world, d.local_rank(), d.first()],
        "shares": [list(d.share(range(count))) for count in (0, 1, 7)],
        "total": [double.tolist(), single.tolist()],
        "gathered": d.gathered({"rank": own, "text": "é" * own}),
        "arrays": [part.tolist() for part in d.gathered_arrays(np.arange(own * 2.0).reshape(own, 2))],
        "joined": d.joined_rows(np.full((2, own + 1), own), axis=1).tolist(),
        "budget": d.budget_per_rank(1000 + own),
        "agreed": refused({}),
        "one refused": refused({world - 1: InputError("bad row")}),
        "all refused the same": refused(dict.fromkeys(range(world), InputError("bad file"))),
        "refused in two ways": refused({0: MismatchError("ids"), world - 1: InputError("bad row")}),
    }


if __name__ == "__main__":
    with d.joined():
        json.dump(checks(), sys.stdout)
