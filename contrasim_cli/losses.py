"""The objectives. Items are compared pairwise; sets of positives and negatives are boolean masks [anchors, items].

Similarities `s` are already divided by the temperature. Anchors are the first rows of the items: all of them, or the
first view's. Equations are the paper's.
"""

from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

Similarity = Literal["dot", "norm"]
NORM_EPSILON = 1e-12  # under the square root of `norm`, whose gradient is infinite at 0
MILD = 0.025  # temperature at which similarities of unit rows lie within ±40


class Sets(NamedTuple):
    """Boolean masks [anchors, items]."""

    positives: Tensor
    negatives: Tensor
    others: Tensor


def layer_sets(n_models: int, n_layers: int, device: torch.device | None = None) -> Sets:
    """Task `layers`: item = model · n_layers + layer. Positives: the same layer of other models; negatives: every other layer."""
    index = torch.arange(n_models * n_layers, device=device)
    same_layer = (index[:, None] % n_layers) == (index[None, :] % n_layers)
    others = index[:, None] != index[None, :]
    return Sets(same_layer & others, ~same_layer, others)


def pair_sets(n_rows: int, anchor_side: Literal["both", "first"] = "both", device: torch.device | None = None) -> Sets:
    """Task `pairs`: item = view · n_rows + row. Positive: the same row of the other view; negatives: all other rows of both."""
    index = torch.arange(2 * n_rows, device=device)
    anchors = index if anchor_side == "both" else index[:n_rows]
    same_row = (anchors[:, None] % n_rows) == (index[None, :] % n_rows)
    others = anchors[:, None] != index[None, :]
    return Sets(same_row & others, ~same_row, others)


def similarity_matrix(z: Tensor, similarity: Similarity = "dot") -> Tensor:
    """Similarity [items, items] of items z [items, n, d], the mean over their n rows (Eq. 2, or Eq. 9 and 10)."""
    return (similarity_sums(z, similarity) / z.shape[1]).to(z.dtype)


def similarity_sums(z: Tensor, similarity: Similarity = "dot") -> Tensor:
    """The sums over rows of which `similarity_matrix` is the mean; those of `norm` in float64."""
    if similarity == "dot":
        products: Tensor = _Products.apply(z.flatten(1))  # type: ignore[no-untyped-call]
        return products
    # ‖a‖² + ‖b‖² - 2 a·b cancels: in float32 it loses the small distances, which positives come to have
    by_row = z.transpose(0, 1).double()
    squared = by_row.square().sum(dim=-1)
    distance = squared[:, :, None] + squared[:, None, :] - 2 * by_row @ by_row.mT
    return (1.0 - (distance.clamp_min(0.0) + NORM_EPSILON).sqrt()).sum(dim=0)


class _Products(torch.autograd.Function):
    """z zᵀ, whose gradient (G + Gᵀ) z is one product where that of two factors is two."""

    @staticmethod
    def forward(ctx: Any, z: Tensor) -> Tensor:
        ctx.save_for_backward(z)
        return z @ z.T

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        (z,) = ctx.saved_tensors
        found: Tensor = (gradient + gradient.T) @ z
        return found


def contrasim(s: Tensor, positives: Tensor, negatives: Tensor) -> Tensor:
    """Σ_i -1/|P(i)| (logsumexp_{p ∈ P(i)} s_ip - logsumexp_{n ∈ N(i)} s_in) (Eq. 3); anchors without a set count nothing."""
    usable = positives.any(dim=1) & negatives.any(dim=1)
    s, positives, negatives = s[usable], positives[usable], negatives[usable]
    attract = s.masked_fill(~positives, -torch.inf).logsumexp(dim=1)
    repel = s.masked_fill(~negatives, -torch.inf).logsumexp(dim=1)
    return ((repel - attract) / positives.sum(dim=1)).sum()


def supcon(s: Tensor, positives: Tensor, others: Tensor) -> Tensor:
    """mean_i mean_{p ∈ P(i)} -(s_ip - logsumexp_{a ≠ i} s_ia) (Khosla et al. 2020; what the released code optimises)."""
    usable = positives.any(dim=1)
    s, positives, others = s[usable], positives[usable], others[usable]
    everything = s.masked_fill(~others, -torch.inf).logsumexp(dim=1, keepdim=True)
    by_anchor = ((everything - s) * positives).sum(dim=1) / positives.sum(dim=1)
    return by_anchor.sum() / max(1, len(by_anchor))


def paired(first: Tensor, second: Tensor, temperature: float, all_others: bool, first_only: bool = False) -> Tensor:
    """`contrasim`, or with `all_others` `supcon`, of task `pairs` for unit rows [n, d] of two views, without masks.

    Every anchor has one positive, so that both are `logsumexp_{j} s_ij - s_ip`, over j ∈ N(i) or over all j ≠ i, summed
    or averaged over anchors. The temperature is one that is `mild`.
    """
    by_view: Tensor = _LogSumExp.apply(first, second, temperature, all_others, first_only)  # type: ignore[no-untyped-call]
    by_anchor = by_view - (first * second).sum(dim=1) / temperature
    return by_anchor.mean() if all_others else by_anchor.sum()


def mild(temperature: float) -> bool:
    """Whether sums of exponentials of similarities of unit rows stay so far within float32 that they need no shift."""
    return temperature >= MILD


class _LogSumExp(torch.autograd.Function):
    """logsumexp_j s_ij [views, n] of every anchor i, over the items j that `paired` says.

    The matrix of all similarities is symmetric, and so are its exponentials where no row is shifted by its largest: of its
    four blocks three are made, and one product with each gives the gradient.
    """

    @staticmethod
    def forward(
        ctx: Any, first: Tensor, second: Tensor, temperature: float, all_others: bool, first_only: bool
    ) -> Tensor:
        across = _exponentials(first, second, temperature, but_itself=not all_others)
        within = [
            _exponentials(z, z, temperature, but_itself=True) for z in ([first] if first_only else [first, second])
        ]
        total = torch.stack([block.sum(dim=1) + across.sum(dim=1 - v) for v, block in enumerate(within)])
        ctx.temperature = temperature
        ctx.save_for_backward(first, second, total, across, *within)
        return total.log()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, None, None, None]:
        # with w_i = ∂L/∂lse_i / Σ_j e_ij the gradient of row i is Σ_j (w_i + w_j) e_ij z_j / τ
        first, second, total, across, *within = ctx.saved_tensors
        weights = gradient / total / ctx.temperature
        w, v = weights if len(within) == 2 else (weights[0], torch.zeros_like(weights[0]))
        between = (w.unsqueeze(1) + v).mul_(across)
        of_first, of_second = between @ second, between.T @ first
        for of, block, z, u in zip((of_first, of_second), within, (first, second), (w, v), strict=False):
            of.addmm_((u.unsqueeze(1) + u).mul_(block), z)
        return of_first, of_second, None, None, None


def _exponentials(a: Tensor, b: Tensor, temperature: float, but_itself: bool) -> Tensor:
    """exp s_ij [n, n]; 0 for a row and that of the same number where these are not wanted."""
    e = (a / temperature @ b.T).exp_()
    if but_itself:
        e.fill_diagonal_(0)
    return e


def deepdot(s: Tensor, positives: Tensor) -> Tensor:
    """Minus the mean similarity of positive pairs (Eq. 4)."""
    return -s[positives].mean()


def deepcka(z: Tensor, pairs: Tensor) -> Tensor:
    """Minus the mean CKA of the positive pairs [k, 2] among items z [items, n, d] (Eq. 4, Eq. 8)."""
    shifted = z - z[:, :1]  # equal rows become exactly zero, so that rounding cannot correlate with itself
    rows = shifted - shifted.mean(dim=1, keepdim=True)
    norms: Tensor = torch.linalg.matrix_norm(rows.mT @ rows)
    first, second = pairs.unbind(dim=1)
    cross: Tensor = (rows[first].mT @ rows[second]).square().sum(dim=(-2, -1))
    return -(cross / (norms[first] * norms[second]).clamp_min(torch.finfo(z.dtype).tiny)).mean()
