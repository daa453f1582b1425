#!/bin/sh
# make fuzz: libFuzzer under AddressSanitizer and UBSan on the picture decoders and the readers of safetensors and .pth
# files, each for so many seconds, from the kept corpus on. Usage: scripts/fuzz.sh [SECONDS [picture|safetensors|pth]]
# What is found lies in build-fuzz/NAME.crash-*, and what was learned in build-fuzz/NAME (it is used again the next time).
set -eu
cd "$(dirname "$0")/.."
seconds=${1:-600}
only=${2:-}
command -v clang++ >/dev/null 2>&1 || { echo "fuzzing needs clang++: install Debian's clang package" >&2; exit 2; }
mkdir -p build-fuzz
fuzz() {
  name=$1 options=$2
  shift 2
  [ -z "$only" ] || [ "$only" = "$name" ] || return 0
  # shellcheck disable=SC2086
  clang++ -std=c++20 -O1 -g -fsanitize=fuzzer,address,undefined -fno-sanitize-recover=undefined -I. "tests/fuzz/${name}_fuzz.cpp" "$@" \
    -lfmt -o "build-fuzz/${name}_fuzz"
  mkdir -p "build-fuzz/$name"
  # shellcheck disable=SC2086
  "build-fuzz/${name}_fuzz" $options -max_total_time="$seconds" -timeout=20 -print_final_stats=1 -verbosity=1 \
    -artifact_prefix="build-fuzz/$name." "build-fuzz/$name" "tests/fuzz/corpus/$name"
}
fuzz picture "-max_len=20000 -rss_limit_mb=2000" engine/picture.cpp engine/picture_jpeg.cpp engine/picture_png.cpp \
  engine/picture_stb.cpp engine/picture_webp.cpp engine/picture_write.cpp engine/file.cpp -lpng -ljpeg -lwebpdemux -lwebp -lexif
fuzz safetensors "-max_len=4000" engine/safetensors.cpp engine/file.cpp engine/hash.cpp
fuzz pth "-max_len=6000 -rss_limit_mb=2000" engine/pth.cpp engine/pth_pickle.cpp engine/file.cpp -lzip
