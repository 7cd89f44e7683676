"""What the models of Hugging Face's transformers have in common, whatever they are fed.

Layers are the hidden states, `hidden_0` (embeddings) to `hidden_L`, the part's `projected` embeddings, a sentence-transformers
folder's own `sentence`, and, where they are asked for by name or glob, the outputs of submodules.
"""

import contextlib
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from contrasim_cli.errors import ContraSimError, InputError, UsageError, out_of_memory, reason
from contrasim_cli.extraction.networks import blocks
from contrasim_cli.extraction.networks.early_exit import Early, emitting, ending_at, last_to_end
from contrasim_cli.extraction.networks.hooks import Outputs, hooked, only_output, select, without_refused
from contrasim_cli.extraction.networks.network import ANY, Inputs, ModelOptions, autocast, short_name, to_device
from contrasim_cli.extraction.networks.parts import PROJECTED, Part
from contrasim_cli.extraction.networks.probe import Probe, check_repeatable, failing_layer, grouping
from contrasim_cli.names import quoted

PREPARING = ("tokenizer", "processor", "extractor")
SPANS = "spans"  # of an input: which tokens become which row; no business of the model
HEAD_SIZES = ("head_dim", "d_kv", "qk_head_dim", "v_head_dim")  # by which configurations call the width of a head


@dataclass
class Pretrained(ABC):
    """A model of texts or images, and the layers that are read from it."""

    options: ModelOptions
    part: Part
    digest: str
    pooling: str
    chosen: list[str] = field(default_factory=list, init=False)
    hooks: dict[str, nn.Module] = field(default_factory=dict, init=False)
    after_norm: bool | None = field(default=None, init=False)
    grouping: str = field(default=ANY, init=False)
    early: Early | None = field(default=None, init=False)
    aliases: dict[str, str] = field(default_factory=dict, init=False)

    @property
    def model(self) -> Any:
        return self.part.model

    @property
    def name(self) -> str:
        return short_name(self.options.model)

    def discover(self, inputs: Inputs) -> dict[str, int]:
        # twice, so that a state without an axis of rows is not taken for that of one row
        given = twice(inputs)
        states = self._states(self._forward(given), given)
        modules = self._modules(states, given)
        names = (
            select(list(states), list(modules), self.options.layers, self.name)
            if self.options.layers
            else self._default(states)
        )
        found = self._found(names, states, modules, given)
        self.chosen = list(without_refused(found, self.options.layers or (), self.name))
        self.hooks = {name: modules[name] for name in self.chosen if name not in states}
        if self.options.hook == "input" and len(self.hooks) < len(self.chosen):
            raise UsageError("--hook input is for modules, not for hidden states; choose modules with --layers")
        self.after_norm = self._is_normed(given)
        self._end_early(states, given, inputs)
        self._probe(inputs)
        return {name: rows.shape[1] for name, rows in self.rows(given).items()}

    def _end_early(self, states: Mapping[str, Tensor], given: Inputs, inputs: Inputs) -> None:
        """Read the layers where they come about, and end there, if that gives the same and something comes after."""
        self.early = None
        chosen = {name: state for name, state in states.items() if name in self.chosen}
        if states and list(states)[-1] in chosen:
            return
        sources = emitting(self.model, chosen, lambda: self._forward(given))
        if len(sources) < len(chosen):
            return
        last = last_to_end([*sources.values(), *self.hooks.values()], lambda: self._forward(given))
        others = next(iter(self._probes(inputs).values()))[0]
        expected = [self.rows(one) for one in others]
        self.early = Early(sources, last)
        with contextlib.suppress(InputError):
            if all(_equal(self.rows(one), rows) for one, rows in zip(others, expected, strict=True)):
                return
        self.early = None

    def _modules(self, states: Mapping[str, Tensor], given: Inputs, every: bool = False) -> dict[str, nn.Module]:
        """The modules by their paths, and by the names that they have in all models where these are asked for."""
        modules = dict(_named_modules(self.model))
        if every or blocks.asked(self.options.layers or ()):
            hidden = [state for name, state in states.items() if name.startswith("hidden_")]
            self.aliases = blocks.aliases(self.model, hidden, lambda: self._forward(given))
        return modules | {name: modules[path] for name, path in self.aliases.items()}

    def rows(self, inputs: Inputs) -> dict[str, Tensor]:
        states = self._collected(inputs, self.hooks)
        rows = {name: self._row(self._by_item(states[name].float(), inputs), inputs) for name in self.chosen}
        return self._heads(rows) if self.options.split_heads else rows

    def _heads(self, rows: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The rows of every head of attention, which lie side by side in those of a layer."""
        found: dict[str, Tensor] = {}
        for name, one in rows.items():
            # what a block adds is a sum over its heads
            mixed = name not in self.hooks or (name in self.aliases and self.options.hook == "output")
            heads, count = self._head_counts(one.shape[1])
            if mixed or count is None:
                raise UsageError(
                    f"--split-heads: layer {quoted(name)} of width {one.shape[1]} is not made of {heads or 'known'} heads; "
                    "choose what attention hands to its projection (--hook input and --layers '…o_proj')"
                )
            found |= {f"{name}.head_{head}": part for head, part in enumerate(one.chunk(count, dim=1))}
        return found

    def _head_counts(self, width: int) -> tuple[int | None, int | None]:
        """How many heads of attention there are, and how many of them, or of those of keys and values, make this width."""
        config = self.model.config
        config = config.get_text_config() if hasattr(config, "get_text_config") else config
        own = getattr(config, "decoder_attention_heads", None) if self.part.is_second else None
        heads = own or getattr(config, "num_attention_heads", None)
        if not isinstance(heads, int):
            return None, None
        sizes = [size for name in HEAD_SIZES if (size := getattr(config, name, None)) is not None]
        sizes = sizes or [getattr(config, "hidden_size", 0) // heads]
        counts = (heads, getattr(config, "num_key_value_heads", None) or heads)
        return heads, next((count for count in counts if any(width == count * size for size in sizes)), None)

    def widths(self) -> dict[str, str]:
        inputs = self._made_up()
        found = {name: f"[rows, {width}]" for name, width in self.discover(inputs).items()}
        if self.options.layers:
            return found
        # what could be asked for by name besides what is taken without a choice
        given = twice(inputs)
        modules = self._modules(self._states(self._forward(given), given), given, every=True)
        others = self._found(modules, {}, modules, given)
        return found | {name: self._shape(state, given) for name, state in others.items() if isinstance(state, Tensor)}

    @property
    def prepared_by(self) -> str | None:
        """The class of the tokenizer, image processor or feature extractor, where there is one."""
        made = next((one for name in PREPARING if (one := getattr(self, name, None)) is not None), None)
        return None if made is None else type(made).__name__

    def about(self) -> dict[str, Any]:
        about = {"last_layer_after_final_norm": self.after_norm, "architecture": type(self.model).__name__}
        return about | {"grouping": self.grouping} | ({"part": self.part.name} if self.part.name else {})

    def _probe(self, inputs: Inputs) -> None:
        """Find which items may share a batch, with two items that are made of this one."""
        ways = self._probes(inputs)
        dtype = next((one.dtype for one in self.model.parameters() if one.is_floating_point()), torch.float32)
        if self.options.dtype != "float32":
            dtype = getattr(torch, self.options.dtype)
        first = next(iter(ways.values()))[0][0]
        check_repeatable(lambda: self.rows(first), self.part.whole.config, dtype, self.name, self.options.allow_random)
        if self.options.allow_random:
            return
        self.grouping = grouping(self.rows, ways, dtype, self.name)

    def _forward(self, inputs: Inputs) -> Any:
        return self._run(self.part.run, inputs)

    @torch.inference_mode()
    def _run(self, function: Any, inputs: Inputs) -> Any:
        given = to_device(self._given(inputs), self.options.device)
        kept = next((one.dtype for one in self.model.parameters() if one.is_floating_point()), torch.float32)
        given = {name: one.to(kept) if one.is_floating_point() else one for name, one in given.items()}
        try:
            with autocast(self.options):
                return function(given)
        except Exception as error:  # a model raises whatever its author chose
            if isinstance(error, ContraSimError) or out_of_memory(error):
                raise
            raise self._failure(error, inputs) from error

    def _failure(self, error: Exception, inputs: Inputs) -> ContraSimError:
        """What a failing model says: the layer, and the exception with its type."""
        layer = failing_layer(error, self.model)
        where = f" in layer {quoted(layer)}" if layer else ""
        return InputError(
            f"{quoted(self.name)}: fails{where} with {type(error).__name__}: {reason(error)}; what "
            "it needs beside this, a function of yours can give it (--model file.py:function)"
        )

    def _given(self, inputs: Inputs) -> Inputs:
        """What of the inputs the model takes."""
        return {name: tensor for name, tensor in inputs.items() if name != SPANS}

    def _states(self, output: Any, inputs: Inputs) -> dict[str, Tensor]:
        """The hidden states by name, and the projected embeddings."""
        hidden = self.part.states(output)
        if not hidden:
            raise InputError(
                f"{quoted(self.name)}: gives no hidden states; give --model file.py:function and choose its modules"
            )
        states = {f"hidden_{index}": state for index, state in enumerate(hidden)}
        if PROJECTED in (self.chosen or [PROJECTED]) and self.part.features is not None and self._has_whole_items():
            states |= self._projected(inputs)
        return states

    def _projected(self, inputs: Inputs) -> dict[str, Tensor]:
        try:
            projected = self._run(self.part.project, inputs)
        except ContraSimError:
            if self.chosen:
                raise
            return {}  # a function that needs more than the part does: the layer is not offered
        return {} if projected is None else {PROJECTED: projected}

    def _collected(self, inputs: Inputs, hooks: Mapping[str, nn.Module]) -> dict[str, Tensor]:
        """The states and what the hooked modules put out, one output each."""
        early = self.early or Early({}, None)
        with hooked(early.sources) as outputs, hooked(hooks, self.options.hook) as others, ending_at(early.last):
            output = self._forward(inputs)
        found = {name: state for name, (state,) in (*outputs.items(), *others.items()) if state is not None}
        return found if self.early is not None else self._states(output, inputs) | found

    def _found(
        self, names: Iterable[str], states: Mapping[str, Tensor], modules: Mapping[str, nn.Module], inputs: Inputs
    ) -> dict[str, Tensor | str]:
        """What each of the layers puts out, or why it is no layer."""
        outputs = self._module_outputs({name: modules[name] for name in names if name not in states}, inputs)
        return {name: self._usable(name, [states[name]] if name in states else outputs[name], inputs) for name in names}

    def _module_outputs(self, modules: Mapping[str, nn.Module], inputs: Inputs) -> Outputs:
        with hooked(modules, self.options.hook) as outputs:
            if modules:
                self._forward(inputs)
        return outputs

    def _usable(self, name: str, outputs: Sequence[Tensor | None], inputs: Inputs) -> Tensor | str:
        state = only_output(name, outputs)
        if isinstance(state, str):
            return state
        if any(weight.startswith(f"{self.aliases.get(name, name)}.") for weight in self.part.unsaved):
            return f"layer {quoted(name)} has weights that the model's files do not hold"
        count = _count(self._given(inputs))
        state = self._by_item(state, inputs)
        if state.ndim < 2 or len(state) != count or not state.is_floating_point() or not self._fits(state, inputs):
            return f"layer {quoted(name)} puts out {list(state.shape)} for {count} rows; expected {self._expected}"
        return state

    def _is_normed(self, inputs: Inputs) -> bool:
        """Whether the last hidden state is what a normalisation puts out."""
        norms = {name: module for name, module in _named_modules(self.model) if "norm" in type(module).__name__.lower()}
        with hooked(norms) as outputs:
            last = self.part.states(self._forward(inputs))[-1]
        tensors = [tensor for found in outputs.values() for tensor in found if tensor is not None]
        return any(tensor.shape == last.shape and torch.equal(tensor, last) for tensor in tensors)

    def _by_item(self, state: Tensor, inputs: Inputs) -> Tensor:
        """A module's output with an axis of items in front."""
        return state

    def _default(self, states: Iterable[str]) -> Iterable[str]:
        """The layers that are taken without a choice."""
        return states

    def _has_whole_items(self) -> bool:
        """Whether a row is an item, not a part of one."""
        return True

    @property
    @abstractmethod
    def _expected(self) -> str:
        """The shapes of states that can be read."""

    @abstractmethod
    def _fits(self, state: Tensor, inputs: Inputs) -> bool:
        """Whether a module's output can become rows."""

    @abstractmethod
    def _row(self, states: Tensor, inputs: Inputs) -> Tensor:
        """[rows, width] of a layer's states."""

    @abstractmethod
    def _shape(self, state: Tensor, inputs: Inputs) -> str:
        """The shape of a module's output, in words where it is that of the data."""

    @abstractmethod
    def _probes(self, inputs: Inputs) -> Mapping[str, Probe]:
        """For each way that items may go together, two like this one that differ, and both of them as a batch."""

    @abstractmethod
    def _made_up(self) -> dict[str, Tensor]:
        """One item of the kind that the model takes."""


def _equal(rows: Mapping[str, Tensor], others: Mapping[str, Tensor]) -> bool:
    return all(torch.equal(rows[name], others[name]) for name in rows)


def twice(inputs: Inputs) -> dict[str, Tensor]:
    """A batch of the same items once more."""
    count = _count(inputs)
    doubled = {name: torch.cat([tensor, tensor]) for name, tensor in inputs.items()}
    if SPANS in inputs:
        doubled[SPANS] = torch.cat([inputs[SPANS], inputs[SPANS] + torch.tensor([count, 0, 0])])
    return doubled


def _count(inputs: Inputs) -> int:
    return len(next(tensor for name, tensor in inputs.items() if name != SPANS))


def _named_modules(model: nn.Module) -> Iterable[tuple[str, nn.Module]]:
    return ((name, module) for name, module in model.named_modules() if name)
