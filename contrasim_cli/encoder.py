"""The encoder e: an MLP whose unit-norm outputs an ordinary measure compares, and its checkpoint, version 2.

Learned similarity = encode both sides, then `dot` (Eq. 2), `norm` (Eq. 9, 10) or `cka` of what comes out.
"""

import dataclasses
import errno
import hashlib
import io
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from contrasim_cli import archives
from contrasim_cli.anchors import Anchoring
from contrasim_cli.errors import InputError, MismatchError, reason
from contrasim_cli.names import quoted
from contrasim_cli.output_files import write_atomic
from contrasim_cli.snapshot import Snapshot, one_version
from contrasim_cli.stacking.measures import eligible
from contrasim_cli.stacking.network import GridNetwork
from contrasim_cli.store.blocks import spans
from contrasim_cli.transforms import Standardization, Within

FORMAT = "contrasim-encoder"
FORMAT_VERSION = 2
READABLE = (1, 2)  # version 1 knew nothing but the paper's recipe, which is what options it lacks stand at
STATE_OF_A_RUN = frozenset({"optimizer", "scaler", "best"})  # tensors of an unfinished run
BYTES_PER_WEIGHT = 16  # float32: itself, its gradient, and two moments
ENCODE_ROWS = 8192  # rows per block, so that encoding needs little memory whatever the layer


@dataclass(frozen=True)
class Config:
    """What an encoder is and what it was trained to do; everything that its weights depend on but the data.

    `views` and `view_widths`, the names of the views' files and their layers' widths, are empty unless each view has its
    own first layers.
    """

    task: str
    objective: str
    widths: tuple[int, ...]
    views: tuple[str, ...] = ()
    view_widths: tuple[tuple[int, ...], ...] = ()
    similarity: str = "dot"
    hidden: tuple[int, ...] = (512, 256)
    output: int = 128
    temperature: float = 0.07
    lr: float = 1e-3
    weight_decay: float = 0.0
    batch_size: int = 1024
    epochs: int = 50
    anchor_side: str = "both"
    encoder_per_view: bool = False
    seed: int = 0
    recipe: str = "paper"
    standardize: str = "none"
    shrinkage: float = 0.01
    path: str = "mlp"
    optimizer: str = "adam"
    schedule: str = "constant"
    warmup: float = 0.0
    validation: float = 0.0
    patience: int = 0
    precision: str = "float32"
    within: tuple[tuple[str, int], ...] = ()  # names and widths of the layers whose maps the encoder holds
    by_layer: tuple[
        tuple[str, str, float, float], ...
    ] = ()  # name, kind, shrinkage and step, where chosen layer by layer
    inputs: str = "raw"
    anchors: tuple[str, ...] = ()
    anchor_sources: tuple[str, ...] = ()
    features: tuple[str, ...] = ()
    components: int = 0
    copies: int = 0
    members: int = 1
    measures: tuple[str, ...] = ()  # that an encoder of measures looks at
    blind: tuple[str, ...] = ()  # those that every second of its members does not see
    epoch_steps: int = 0  # of its training
    start: str = "random"  # of the first layers: random, or whitened, by the rows that are trained on

    @property
    def stacked(self) -> bool:
        """Whether it looks at grids of closed-form measures, and at no rows."""
        return self.inputs == "measures"

    @property
    def unseen(self) -> tuple[int, ...]:
        """Positions of the measures that every second member does not see."""
        return tuple(k for k, name in enumerate(self.measures) if name in self.blind)

    @property
    def encoded(self) -> int:
        """Width of an encoded row: that of every member's output, side by side; 0 where rows are not encoded."""
        return 0 if self.stacked else self.members * self.output

    @property
    def anchoring(self) -> Anchoring | None:
        """How rows are described by anchors, where they are."""
        if self.inputs != "anchors":
            return None
        return Anchoring(self.anchors, self.anchor_sources, self.features, self.components, self.members)

    @property
    def standardization(self) -> Standardization:
        """What is done to rows before they are encoded."""
        own = tuple((name, Standardization(kind, shrinkage)) for name, kind, shrinkage, _ in self.by_layer)
        return Standardization(self.standardize, self.shrinkage, by_layer=own)

    @property
    def steps(self) -> bool:
        """Whether layers go part of the way from rows as they are to the trained map: both lie in one space."""
        return bool(self.by_layer) and self.path == "linear" and self.output >= self.widths[-1]

    def step(self, layer: str) -> float:
        """How far a layer goes, 0 to 1; one that was not trained on stays where it is."""
        if not self.steps:
            return 1.0
        return {name: step for name, _, _, step in self.by_layer}.get(layer, 0.0)

    @property
    def scored_by(self) -> str:
        """The measure that compares encoded rows."""
        return "cka" if self.objective == "deepcka" else self.similarity


def training_bytes(config: Config) -> int:
    """What weights take while they are trained, with their gradients and the optimizer's two moments."""
    with torch.device("meta"):
        return BYTES_PER_WEIGHT * sum(parameter.numel() for parameter in Encoder(config).parameters())


class Encoder(nn.Module):
    """MLP: one first linear layer per width (or per view and width), the rest shared; ReLU between, unit-norm output.

    `path` linear: a linear map instead, one per width, that starts as the identity (as a random rotation into the
    output where that is narrower). `both`: rows of norm 1 through the linear map, plus `gain` times the MLP's unit-norm
    output, where the gain starts at 0: before the first step the encoder is the linear map alone.

    An encoder of measures (`stacked`) has a network over grids in place of all that, `grids`, and encodes no rows.

    Of several members, rows are those of each side by side, as anchors of its own describe them, and so are the outputs: the
    dot product of two rows is the mean of the members' (an ensemble: Breiman 1996, Lakshminarayanan et al. 2017).
    """

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        if config.stacked:
            self.grids = GridNetwork(len(config.measures), config.hidden, config.members, blind=config.unseen)
            return
        for k, (_, width) in enumerate(config.within):  # what rows are standardised by, kept with the weights
            self.register_buffer(f"within_{k}", torch.zeros(width, width))
        if config.members > 1:
            alone = replace(config, members=1, widths=tuple(width // config.members for width in config.widths))
            self.members = nn.ModuleList(Encoder(alone) for _ in range(config.members))
            return
        first = config.hidden[0] if config.hidden else config.output
        by_view = config.view_widths if config.encoder_per_view else (config.widths,)
        inputs = [(_key(view, width), width) for view, widths in enumerate(by_view) for width in widths]
        if config.path != "linear":
            self.first = nn.ModuleDict({key: nn.Linear(width, first) for key, width in inputs})
            sizes = [*config.hidden, config.output]
            layers = [nn.Sequential(nn.ReLU(inplace=True), nn.Linear(a, b)) for a, b in pairwise(sizes)]
            self.rest = nn.Sequential(*layers)
        if config.path != "mlp":
            self.linear = nn.ParameterDict({key: _start(width, config.output) for key, width in inputs})
        if config.path == "both":
            self.gain = nn.Parameter(torch.zeros(()))

    def forward(self, rows: Tensor, view: int = 0, step: float = 1.0) -> Tensor:
        """Rows [..., width] to unit vectors [..., members · output]; `view` counts only where views have their own first layer.

        With a `step` below 1, the linear map is that part of the way from the identity to what was trained.
        """
        if self.config.members > 1:
            parts = zip(self.members, rows.chunk(self.config.members, dim=-1), strict=True)
            return side_by_side([member(part) for member, part in parts])
        key = _key(view if self.config.encoder_per_view else 0, rows.shape[-1])
        if self.config.path == "mlp":
            return functional.normalize(self._mlp(rows, key), dim=-1)
        if self.config.path == "linear":
            mapped = _widened(functional.linear(rows, self.linear[key]))
            if step < 1:
                mapped = step * mapped + (1 - step) * functional.pad(rows, (0, mapped.shape[-1] - rows.shape[-1]))
            return functional.normalize(mapped, dim=-1)
        unit = functional.normalize(_widened(rows), dim=-1)
        scaled = unit * rows.shape[-1] ** 0.5  # values of about 1, as an MLP is initialised for
        beside = functional.normalize(self._mlp(scaled, key), dim=-1)
        return functional.normalize(_widened(functional.linear(unit, self.linear[key])) + self.gain * beside, dim=-1)

    @torch.no_grad()
    def fold(self, width: int, mean: np.ndarray[Any, Any], factor: np.ndarray[Any, Any]) -> None:
        """Let the MLP's first layer of this width take (rows - mean [p]) · factor [p, p] in place of rows."""
        first = self.first[_key(0, width)]
        assert isinstance(first, nn.Linear)
        weight = first.weight.double().cpu() @ torch.from_numpy(factor).T
        first.bias.sub_((weight @ torch.from_numpy(mean)).to(first.bias))
        first.weight.copy_(weight)

    def keep(self, maps: Within) -> None:
        """Keep the maps by which rows are standardised."""
        for k, (name, _) in enumerate(self.config.within):
            self.get_buffer(f"within_{k}").copy_(torch.from_numpy(maps.factors[name]))

    @property
    def maps(self) -> Within:
        """The maps that were kept."""
        names = enumerate(name for name, _ in self.config.within)
        return Within({name: self.get_buffer(f"within_{k}").cpu().double().numpy() for k, name in names})

    def _mlp(self, rows: Tensor, key: str) -> Tensor:
        return _widened(self.rest(self.first[key](rows)))


def side_by_side(encoded: Sequence[Tensor]) -> Tensor:
    """Unit rows [..., d] of every member as unit rows [..., members · d], whose dot products are the means of the members'."""
    return torch.cat(list(encoded), dim=-1) / math.sqrt(len(encoded))


def by_member(encoded: Tensor, members: int) -> Tensor:
    """Encoded rows [..., members · d] as the unit rows of every member, [members, ..., d]."""
    if members == 1:
        return encoded.unsqueeze(0)
    return torch.stack(encoded.chunk(members, dim=-1)) * math.sqrt(members)


def _widened(rows: Tensor) -> Tensor:
    """No narrower than float32: norms and similarities are never taken in less."""
    return rows.float() if rows.dtype in (torch.float16, torch.bfloat16) else rows


def _start(width: int, output: int) -> nn.Parameter:
    """[output, width] the identity, or orthonormal rows where the output is narrower."""
    if output >= width:
        return nn.Parameter(torch.eye(output, width))
    rotation: Tensor = torch.linalg.qr(torch.randn(width, output))[0]
    return nn.Parameter(rotation.T.contiguous())


def _key(view: int, width: int) -> str:
    return f"view{view}_width{width}"


@dataclass
class Checkpoint:
    """A trained (or half-trained) encoder and where it comes from."""

    encoder: Encoder
    training: dict[str, Any] = field(default_factory=dict)
    provenance: dict[str, Any] = field(default_factory=dict)
    path: Path = Path()

    @property
    def config(self) -> Config:
        """The encoder's configuration."""
        return self.encoder.config

    @property
    def rows_as(self) -> Standardization | Anchoring:
        """What rows are made into before they are encoded."""
        return self.config.anchoring or self.standardization

    @property
    def standardization(self) -> Standardization:
        """How rows that are not described by anchors are standardised before they are encoded."""
        how = self.config.standardization
        return replace(how, within=self.encoder.maps) if "within" in how.kinds else how

    def view_of(self, stem: str, where: Path) -> int:
        """Which view's first layer a store of that name goes through.

        Raises:
            MismatchError: each view has its own first layer, and the store is neither view.
        """
        if not self.config.encoder_per_view:
            return 0
        if stem not in self.config.views:
            raise MismatchError(
                f"{quoted(where)}: the encoder {quoted(self.path)} has a first layer for each of the views "
                f"{' and '.join(map(quoted, self.config.views))} alone, and recognises views by their file names; "
                "train without --encoder-per-view to score other stores"
            )
        return self.config.views.index(stem)

    def check_width(self, where: Path, layer: str, width: int) -> None:
        """Refuse a layer that no first linear layer fits; anchored rows fit whatever the layer's width."""
        if self.config.anchoring or self.config.stacked:
            return
        widths = self.config.widths
        if self.config.encoder_per_view and where.stem in self.config.views:
            widths = self.config.view_widths[self.config.views.index(where.stem)]
        if width not in widths:
            fits = " or ".join(map(str, widths))
            raise MismatchError(
                f"{quoted(where)}: layer {quoted(layer)} has width {width}; the encoder {quoted(self.path)} takes width {fits}"
            )

    @torch.inference_mode()
    def encode(self, rows: np.ndarray[Any, Any] | Tensor, view: int, layer: str, device: torch.device) -> Tensor:
        """Rows [n, width] of a layer to unit vectors [n, members · output], float32, on the device."""
        encoder, step = self.encoder.to(device).eval(), self.config.step(layer)
        blocks = [
            encoder(torch.as_tensor(rows[start:stop], dtype=torch.float32).to(device), view, step)
            for start, stop in spans(len(rows), ENCODE_ROWS)
        ]
        return torch.cat(blocks)


def weights_digest(state: Mapping[str, Tensor]) -> str:
    """SHA-256 of names, shapes and values; `torch.load` does not check them."""
    digest = hashlib.sha256()
    for name in sorted(state):
        tensor = state[name].detach().cpu().contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)};".encode())
        digest.update(tensor.numpy().tobytes())
    return digest.hexdigest()


def words_digest(content: Mapping[str, Any]) -> str:
    """SHA-256 of the configuration, of where the encoder comes from, and of what training noted in numbers and words."""
    noted = {name: value for name, value in content["training"].items() if name not in STATE_OF_A_RUN}
    words = [content["config"], content["provenance"], noted]
    return hashlib.sha256(json.dumps(words, sort_keys=True).encode()).hexdigest()


def save(path: Path, checkpoint: Checkpoint, force: bool) -> None:
    """Write a checkpoint, whole or not at all."""
    state = {name: tensor.detach().cpu() for name, tensor in checkpoint.encoder.state_dict().items()}
    content: dict[str, Any] = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "config": {name: _plain(value) for name, value in dataclasses.asdict(checkpoint.config).items()},
        "state_dict": state,
        "digest": weights_digest(state),
        "training": checkpoint.training,
        "provenance": checkpoint.provenance,
    }
    content["words_digest"] = words_digest(content)
    buffer = io.BytesIO()
    torch.save(content, buffer)
    write_atomic(path, buffer.getvalue(), force)


def _plain(value: Any) -> Any:
    return [_plain(item) for item in value] if isinstance(value, tuple) else value


def _tuples(value: Any) -> Any:
    return tuple(_tuples(item) for item in value) if isinstance(value, list) else value


def load(path: Path) -> Checkpoint:
    """Read a checkpoint; only tensors and plain values are unpickled.

    Raises:
        InputError: the file is missing, no encoder, of another version, or its weights are damaged.
    """
    content = one_version(path, _load_dict)
    if content.get("format") != FORMAT:
        raise InputError(f"{quoted(path)}: is not a contrasim encoder; create one with contrasim train")
    if content.get("format_version") not in READABLE:
        raise InputError(
            f"{quoted(path)}: encoder format_version is {content.get('format_version')}, this contrasim reads "
            f"{' and '.join(map(str, READABLE))}; install a newer one"
        )
    try:
        config = Config(**{name: _tuples(value) for name, value in content["config"].items()})
        _check_shapes(config, content["state_dict"])
        encoder = Encoder(config)
        encoder.load_state_dict(content["state_dict"])
        sound = weights_digest(content["state_dict"]) == content["digest"]
        words_match = content["format_version"] == 1 or words_digest(content) == content["words_digest"]
        training, provenance = dict(content["training"]), dict(content["provenance"])
    except (KeyError, TypeError, ValueError, RuntimeError, AttributeError, IndexError) as error:
        raise InputError(f"{quoted(path)}: the encoder is damaged ({reason(error)})") from error
    if not sound:
        raise InputError(f"{quoted(path)}: the encoder's weights do not match their digest; the file is damaged")
    if not words_match:
        raise InputError(
            f"{quoted(path)}: the encoder's options or history do not match their digest; the file is damaged"
        )
    return Checkpoint(encoder, training, provenance, path)


def _check_shapes(config: Config, state: Mapping[str, Tensor]) -> None:
    """Refuse a configuration of other layers than there are weights for, before room is made for what it claims.

    Raises:
        ValueError: the shapes are others.
    """
    firsts = config.view_widths if config.encoder_per_view else (config.widths,)
    hidden = () if config.path == "linear" else config.hidden
    if config.stacked:
        if not set(config.measures) <= set(eligible()):
            raise ValueError(f"its measures are {' '.join(config.measures)}")
        if len(config.unseen) != len(config.blind) or len(config.blind) >= len(config.measures):
            raise ValueError(f"its members are blind to {' '.join(config.blind)}")
        if not config.hidden or config.members * len(config.hidden) > len(state):
            raise ValueError("there are fewer weights than layers")
    elif config.members * (len(hidden) + sum(map(len, firsts))) + len(config.within) > len(state):
        raise ValueError("there are fewer weights than layers")
    if not 1 <= config.members <= len(state) or (config.members > 1 and config.inputs == "raw"):
        raise ValueError(f"there are {config.members} members")
    with torch.device("meta"):
        expected = {name: tensor.shape for name, tensor in Encoder(config).state_dict().items()}
    shapes = {name: tensor.shape for name, tensor in state.items()}
    if expected != shapes:
        name = next(name for name in (*expected, *shapes) if expected.get(name) != shapes.get(name))
        raise ValueError(f"{name} is {_shape(shapes.get(name))}, and {_shape(expected.get(name))} by the configuration")


def _shape(shape: torch.Size | None) -> str:
    return "missing" if shape is None else str(tuple(shape))


def _load_dict(file: Snapshot) -> Mapping[str, Any]:
    path, start = file.path, file.start()
    none_such = InputError(
        f"{quoted(path)}: is not a contrasim encoder, or is damaged; create one with contrasim train"
    )
    try:
        for mark, kind in ((b"\x89HDF", "HDF5"), (b"\x93NUMPY", ".npy")):
            if start.startswith(mark):
                raise InputError(
                    f"{quoted(path)}: is a store of activations ({kind}), not an encoder; name it without --encoder, and give "
                    "--encoder a file made by contrasim train"
                )
        if not start.startswith(b"PK"):  # torch.save writes a zip; anything else never reaches an unpickler
            raise none_such
        archives.check_stored(file)
        content = torch.load(file.name, map_location="cpu", weights_only=True)
    except InputError:
        raise
    except OSError as error:
        if error.errno == errno.EINVAL:  # an archive cut short sends its reader to places before its start
            raise none_such from error
        raise InputError(f"{quoted(path)}: cannot be read: {error.strerror or error}") from error
    except Exception as error:  # torch raises whatever its unpickler trips over
        raise none_such from error
    if not isinstance(content, Mapping):
        raise InputError(f"{quoted(path)}: is not a contrasim encoder; create one with contrasim train")
    return content
