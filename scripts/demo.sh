#!/bin/sh
# make demo: from a fresh machine to a trained generator. Usage: scripts/demo.sh [MINUTES]
set -eu
cd "$(dirname "$0")/.."
minutes=${1:-5}
scripts/install_packages.sh fonts-noto-color-emoji
echo "building..."
# Only what this machine can use: the GPU kernels are left out where there is no GPU.
cuda=OFF
if [ -e /dev/nvidia0 ] && command -v nvcc >/dev/null 2>&1; then cuda=AUTO; fi
generator=""
if command -v ninja >/dev/null 2>&1; then generator="-G Ninja"; fi
# shellcheck disable=SC2086
cmake -S . -B build-demo $generator -DKILN_CUDA=$cuda -DKILN_TESTS=OFF >build-demo.log 2>&1 || { cat build-demo.log >&2; exit 2; }
cmake --build build-demo -j "$(nproc)" >>build-demo.log 2>&1 || { tail -40 build-demo.log >&2; exit 2; }
mv build-demo.log build-demo/log.txt
if [ ! -d data/faces ]; then
  rm -rf data/faces.part
  ./emoji_faces data/faces.part
  mv data/faces.part data/faces
fi
out=runs/demo
i=2
while [ -e "$out" ]; do out=runs/demo-$i; i=$((i + 1)); done
./fastgan_train data/faces --out "$out" --size 64 --ngf 16 --ndf 16 --minutes "$minutes" --steps 1500 --sample-every 250 --metric-every 250
last=$(ls "$out"/samples/[0-9]*[0-9].png | tail -n 1)
echo
echo "Look at:"
echo "  $last                 pictures that the generator made up"
echo "  $out/samples/real.png the pictures it learned from"
echo "  $out/report.html      losses, distances and all samples as one page"
echo "Your own pictures:  ./fastgan_train FOLDER"
