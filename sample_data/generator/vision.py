"""Small vision transformers (transformers' ViT), trained here from scratch."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from transformers import ViTConfig, ViTModel

from .digits import Floats, Labelled, random_shifts


@dataclass(frozen=True)
class VisionSettings:
    """Shape and training of one ViT."""

    image_size: int
    patch_size: int
    width: int
    blocks: int
    heads: int
    epochs: int
    mlp: int = 2
    batch: int = 64
    learning_rate: float = 2e-3
    weight_decay: float = 0.05


class DigitReader(nn.Module):
    """A ViT whose CLS row predicts each of the image's digits: logits `[n, digits, 10]`."""

    def __init__(self, settings: VisionSettings, digits: int) -> None:
        super().__init__()
        self.vit = ViTModel(_config(settings), add_pooling_layer=False)
        self.head = nn.Linear(settings.width, digits * 10)

    def forward(self, images: Tensor) -> Tensor:
        cls = self.vit(pixel_values=images).last_hidden_state[:, 0]
        logits: Tensor = self.head(cls)
        return logits.view(len(images), -1, 10)


def _config(settings: VisionSettings) -> ViTConfig:
    return ViTConfig(
        image_size=settings.image_size,
        patch_size=settings.patch_size,
        num_channels=1,
        hidden_size=settings.width,
        num_hidden_layers=settings.blocks,
        num_attention_heads=settings.heads,
        intermediate_size=settings.mlp * settings.width,
        # The usual 0.02 suits width 768; rows this narrow need larger weights to start learning at once.
        initializer_range=0.1,
    )


def train_vit(settings: VisionSettings, data: Labelled, seed: int) -> DigitReader:
    """A `DigitReader` after AdamW with a one-cycle rate; everything random comes from `seed`."""
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    labels = torch.from_numpy(data.labels.reshape(len(data.labels), -1))
    model = DigitReader(settings, labels.shape[1])
    optimizer = torch.optim.AdamW(model.parameters(), settings.learning_rate, weight_decay=settings.weight_decay)
    steps = settings.epochs * -(-len(labels) // settings.batch)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, settings.learning_rate, total_steps=steps)
    for _ in range(settings.epochs):
        for rows in np.array_split(rng.permutation(len(labels)), -(-len(labels) // settings.batch)):
            images = torch.from_numpy(random_shifts(data.images[rows], rng))
            loss = nn.functional.cross_entropy(model(images).flatten(0, 1), labels[rows].flatten())
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
    return model.eval()


@torch.inference_mode()
def accuracy(model: DigitReader, data: Labelled) -> float:
    """Share of digits that the model reads correctly."""
    predicted = model(torch.from_numpy(data.images)).argmax(-1)
    return float((predicted == torch.from_numpy(data.labels).view_as(predicted)).float().mean())


@torch.inference_mode()
def hidden_states(model: DigitReader, images: Floats) -> list[Tensor]:
    """Every layer's tokens, embeddings first (for tuning; the stores come from `contrasim extract`)."""
    return list(model.vit(pixel_values=torch.from_numpy(images), output_hidden_states=True).hidden_states)
