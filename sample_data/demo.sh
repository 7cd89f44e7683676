#!/usr/bin/env bash
# Six small vision transformers that differ only in their seed: does a measure find the same layer in another model?
set -euo pipefail
cd "$(dirname "$0")"
out=${1:-../demo_out}
mkdir -p "$out"
export COLUMNS=${COLUMNS:-120}
test=(layers/test/seed_*.h5)
train=(layers/train/seed_*.h5)

echo "1. Without any training: universal, the learned measure of the package, beside the closed-form measures."
contrasim bench layers "${test[@]}" --pairs all --encoder universal \
    --measure cka --measure pwcca --measure svcca --measure cca --measure dot --measure norm \
    -o "$out/layers.tsv" --force --format table -q

echo "2. An encoder trained on other rows of the same models, in a few seconds."
contrasim train "${train[@]}" --task layers -o "$out/default.pt" --force -q

echo "3. ContraSim as the paper trains it. The paper has five times as many rows, and so five times as many steps."
contrasim train "${train[@]}" --task layers --recipe paper -o "$out/paper.pt" --force -q
contrasim bench layers "${test[@]}" --pairs all --encoder universal --encoder "$out/default.pt" --encoder "$out/paper.pt" \
    -o "$out/encoders.tsv" --force --format table -q

if python3 -c 'import plotly' 2> /dev/null; then
    contrasim baseline "${test[@]:0:2}" --measure cka --measure pwcca -o "$out/scores.tsv" --report "$out/report.html" --force -q > /dev/null
    echo "Layer by layer, to open in a browser: $out/report.html"
else
    echo "With the extra report (pip install '.[report]') this also writes $out/report.html, to open in a browser."
fi
