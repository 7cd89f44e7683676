"""Adam and AdamW by torch's fused kernels, with the state that `torch.optim.Adam` saves.

The numbers are those of `torch.optim.Adam(fused=True)`, bit by bit; the first use of `torch.optim` imports 822 modules of torch's
compiler, which takes longer than many a run.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

BETAS, EPSILON = (0.9, 0.999), 1e-8


class Adam:
    """One step of Adam for all parameters at once (Kingma & Ba 2015); `decoupled` weight decay makes it AdamW.

    What `torch.amp.GradScaler` asks of an optimiser is here, too: gradients are scaled back within the step, which does nothing
    where one is infinite.
    """

    _step_supports_amp_scaling = True

    def __init__(
        self, parameters: Iterable[nn.Parameter], lr: float, weight_decay: float = 0.0, decoupled: bool = False
    ) -> None:
        group = {"lr": lr, "betas": BETAS, "eps": EPSILON, "weight_decay": weight_decay, "amsgrad": False}
        group |= {"maximize": False, "foreach": None, "capturable": False, "differentiable": False, "fused": True}
        self.param_groups: list[dict[str, Any]] = [
            {**group, "decoupled_weight_decay": decoupled, "params": list(parameters)}
        ]
        self.state: dict[Tensor, dict[str, Tensor]] = {}

    @property
    def _parameters(self) -> list[nn.Parameter]:
        found: list[nn.Parameter] = self.param_groups[0]["params"]
        return found

    def zero_grad(self) -> None:
        """Forget the gradients."""
        for parameter in self._parameters:
            parameter.grad = None

    @torch.no_grad()
    def step(self) -> None:
        """Move the parameters that have a gradient."""
        group = self.param_groups[0]
        moved: list[Tensor] = [parameter for parameter in self._parameters if parameter.grad is not None]
        gradients = [parameter.grad for parameter in moved if parameter.grad is not None]
        if not moved:
            return
        states = [self.state.setdefault(parameter, _fresh(parameter)) for parameter in moved]
        steps = [state["step"] for state in states]
        found_inf = getattr(self, "found_inf", None)
        torch._foreach_add_(steps, 1)
        kernel = torch._fused_adamw_ if group["decoupled_weight_decay"] else torch._fused_adam_
        kernel(
            moved,
            gradients,
            [state["exp_avg"] for state in states],
            [state["exp_avg_sq"] for state in states],
            [],
            steps,
            lr=group["lr"],
            beta1=group["betas"][0],
            beta2=group["betas"][1],
            weight_decay=group["weight_decay"],
            eps=group["eps"],
            amsgrad=False,
            maximize=False,
            grad_scale=getattr(self, "grad_scale", None),
            found_inf=found_inf,
        )
        if found_inf is not None:  # a step that was left out is not counted
            torch._foreach_sub_(steps, [found_inf] * len(steps))

    def state_dict(self) -> dict[str, Any]:
        """The state of every parameter by its number, as `torch.optim.Adam` has it."""
        places: dict[Tensor, int] = {parameter: k for k, parameter in enumerate(self._parameters)}
        group = {**self.param_groups[0], "params": list(places.values())}
        return {"state": {places[one]: state for one, state in self.state.items()}, "param_groups": [group]}

    def load_state_dict(self, found: Mapping[str, Any]) -> None:
        """Go on from a state.

        Raises:
            ValueError: it is of other parameters.
        """
        (group,) = found["param_groups"]
        parameters = self._parameters
        if len(group["params"]) != len(parameters):
            raise ValueError(
                f"expected the state of {len(parameters)} parameters, found that of {len(group['params'])}"
            )
        self.param_groups = [{**self.param_groups[0], **group, "params": parameters}]
        self.state = {}
        for place, state in found["state"].items():
            parameter = parameters[group["params"].index(place)]
            fresh = _fresh(parameter)
            if state["exp_avg"].shape != parameter.shape:
                raise ValueError(f"expected moments {list(parameter.shape)}, found {list(state['exp_avg'].shape)}")
            self.state[parameter] = {name: state[name].to(fresh[name], copy=True) for name in fresh}


def _fresh(parameter: Tensor) -> dict[str, Tensor]:
    step = torch.zeros((), dtype=torch.float32, device=parameter.device)
    return {"step": step, "exp_avg": torch.zeros_like(parameter), "exp_avg_sq": torch.zeros_like(parameter)}
