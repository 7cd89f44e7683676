#!/usr/bin/env bash
# Six small vision transformers that differ only in their seed: does a measure find the same layer in another model?
# Trains ContraSim, DeepDot and DeepCKA with the paper's hyper-parameters and sets them beside the closed-form measures.
# The paper has five times as many rows, and so five times as many steps: one more ContraSim encoder takes smaller batches.
set -euo pipefail
cd "$(dirname "$0")"
out=${1:-../demo_out}
mkdir -p "$out"

for objective in contrasim deepdot deepcka; do
    contrasim train layers/train/seed_*.h5 --task layers --recipe paper --objective "$objective" -o "$out/$objective.pt" --force
done
contrasim train layers/train/seed_*.h5 --task layers --recipe paper --batch-size 256 -o "$out/contrasim-batch256.pt" --force

contrasim bench layers layers/test/seed_*.h5 --pairs all \
    --measure cka --measure pwcca --measure svcca --measure cca --measure dot --measure norm \
    --encoder "$out/deepdot.pt" --encoder "$out/deepcka.pt" --encoder "$out/contrasim.pt" \
    --encoder "$out/contrasim-batch256.pt" \
    -o "$out/layers.tsv" --force --format table
