#!/bin/sh
# install_test.sh BUILD SOURCE: installs the build to a folder of its own and uses it as a stranger would: every header
# alone, the example through the CMake package and through pkg-config, from a copy that was moved, its programs run.
set -eu
build=$1 source=$2
cxx=${CXX:-c++}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
say() { echo "install_test: $*"; }
die() { say "$*" >&2; exit 1; }

cmake --install "$build" --prefix "$work/first" >"$work/log" || { cat "$work/log"; die "it does not install"; }
mv "$work/first" "$work/prefix"
prefix=$work/prefix
include=$prefix/include

# Headers: each compiles with nothing before it, and brings no vendor's with it.
count=0
for header in $(cd "$include" && find kiln -name '*.h' | sort); do
  echo "#include <$header>" >"$work/one.cpp"
  $cxx -std=c++20 -Wall -Wextra -Werror -fsyntax-only -I"$include" -I"$include/kiln" "$work/one.cpp" || die "$header does not compile alone"
  vendors=$($cxx -std=c++20 -M -I"$include" -I"$include/kiln" "$work/one.cpp" | tr ' ' '\n' |
            grep -E '/(cuda|cudnn|cublas|dnnl|oneapi|mpi|nccl|png|jpeglib|turbojpeg|webp/|libexif|exif|zip\.h|libav|ft2build|freetype|nlohmann|CLI/|stb/|omp\.h)' |
            grep -v "^$include" || true)
  [ -z "$vendors" ] || die "$header brings in $vendors"
  count=$((count + 1))
done
[ "$count" -gt 20 ] || die "only $count headers were installed"
say "$count headers"

# The example, by the CMake package. It is copied, so that nothing of the source tree is near.
cp -r "$source/examples/embed" "$work/embed"
cmake -S "$work/embed" -B "$work/embed/build" -DCMAKE_PREFIX_PATH="$prefix" -DCMAKE_CXX_COMPILER="$cxx" >"$work/log" 2>&1 || { cat "$work/log"; die "find_package(kiln) fails"; }
cmake --build "$work/embed/build" >"$work/log" 2>&1 || { cat "$work/log"; die "the example does not build"; }

# Pictures to train on: the smallest that PPM's kin among kiln's formats allow, TGA: a header and pixels.
mkdir "$work/pictures"
for i in 1 2 3 4 5 6 7 8; do
  { printf '\000\000\002\000\000\000\000\000\000\000\000\000\040\000\040\000\030\000'
    head -c 3072 /dev/zero | tr '\000' "\\$((i * 30 / 64 + 0))$((i * 30 / 8 % 8))$((i * 30 % 8))"; } >"$work/pictures/$i.tga"
done
embed=$work/embed/build
cd "$work"
"$embed/embed_train" pictures run 3 >train.txt || die "embed_train fails"
[ "$(grep -c '^step [123]: D ' train.txt)" = 3 ] || { cat train.txt; die "the callback was not called for every step"; }
checkpoint=$(tail -n 1 train.txt)
[ -f "$checkpoint" ] || die "embed_train left no checkpoint"
"$embed/embed_sample" "$checkpoint" out 2 | grep -q '2 pictures of 32 x 32' || die "embed_sample fails"
[ -s out/seed0.png ] && [ -s out/seed1.png ] || die "embed_sample left no pictures"

# Mistakes: code 2, one line. --help: code 0.
for program in embed_train embed_sample; do
  "$embed/$program" --help | grep -q usage || die "$program --help"
  code=0; "$embed/$program" 2>err.txt || code=$?
  [ "$code" = 2 ] && [ "$(wc -l <err.txt)" = 1 ] || die "$program without arguments ends with $code"
done
code=0; "$embed/embed_sample" nothing.safetensors out 2>err.txt || code=$?
[ "$code" = 2 ] && grep -q nothing.safetensors err.txt || die "embed_sample with no checkpoint ends with $code"
code=0; "$embed/embed_train" nowhere run2 3 2>err.txt || code=$?
[ "$code" = 2 ] && grep -q nowhere err.txt || die "embed_train with no pictures ends with $code"

# By pkg-config.
PKG_CONFIG_PATH=$(dirname "$(find "$prefix" -name kiln.pc)")
export PKG_CONFIG_PATH
# shellcheck disable=SC2046
$cxx -std=c++20 -O1 embed/sample.cpp -o by_pkg_config $(pkg-config --cflags --libs kiln) || die "the example does not build by pkg-config"
./by_pkg_config "$checkpoint" out2 2 >/dev/null
cmp -s out/seed1.png out2/seed1.png || die "the two builds make different pictures"

# The programs.
for program in fastgan_train fastgan_sample kiln_report; do
  "$prefix/bin/$program" --help >/dev/null || die "$program --help fails"
done
"$prefix/bin/kiln_report" run >/dev/null
say "all is well"
