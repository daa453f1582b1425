#!/bin/sh
# make gpu-deps DEPS=FOLDER [SOURCES=FILE]: downloads the Debian packages that kiln builds with into a folder, with all that they
# need beyond a machine that has a compiler: what `make gpu-check DEPS=FOLDER` unpacks on a machine with no network. Needs no root.
# SOURCES: an apt sources file of another release than this machine's (its keyring must be installed here).
set -eu
[ $# -ge 1 ] || { echo "usage: scripts/gpu_deps.sh FOLDER [SOURCES]" >&2; exit 2; }
command -v apt-get >/dev/null 2>&1 || { echo "gpu-deps: no apt-get here: run it on a Debian or Ubuntu machine" >&2; exit 2; }
mkdir -p "$1"
folder=$(cd "$1" && pwd)
options=""
if [ $# -ge 2 ] && [ -n "$2" ]; then
  [ -r "$2" ] || { echo "gpu-deps: $2: no such file; name an apt sources file" >&2; exit 2; }
  state=$(mktemp -d)
  trap 'rm -rf "$state"' EXIT
  mkdir -p "$state/lists/partial" "$state/cache"
  : >"$state/status"
  options="-o Dir::Etc::sourcelist=$(realpath "$2") -o Dir::Etc::sourceparts=- -o Dir::State::lists=$state/lists -o Dir::State::status=$state/status -o Dir::Cache=$state/cache"
  # shellcheck disable=SC2086
  apt-get $options update >&2
fi
wanted="cmake ninja-build pkg-config libdnnl-dev libfmt-dev nlohmann-json3-dev libcli11-dev libstb-dev libpng-dev libjpeg-dev
libwebp-dev libexif-dev libfreetype-dev libzip-dev libeigen3-dev libavcodec-dev libavfilter-dev libavformat-dev libavutil-dev doctest-dev"
# A machine with a compiler has these, and copies of another release's would break its programs.
base='^(libc6|libc6-dev|libc-bin|libc-dev-bin|libcrypt1|libcrypt-dev|libgcc-s1|libgcc-[0-9]+-dev|libstdc\+\+6|libstdc\+\+-[0-9]+-dev|gcc.*|g\+\+.*|cpp.*|binutils.*|libbinutils|linux-libc-dev|perl.*|libperl.*|python3.*|libpython3.*|debconf.*|dpkg.*|libdpkg-perl|libgomp1|libtsan.*|libasan.*|libubsan.*|liblsan.*|libitm1|libatomic1|libquadmath0|libcc1-0|make|tar|bash|coreutils|debianutils|install-info|libtirpc.*|libnsl.*|libssl3.*|openssl|ca-certificates|rpcsvc-proto|manpages.*|javascript-common|libjs-.*|libmail.*|libfile.*|liblocale.*|libalgorithm.*|patch|xz-utils|bzip2|libc-bin|init-system-helpers|usr-is-merged|libudev1|libsystemd0|libpam.*)$'
# Alternatives to what is there already, and what only shows text.
spare='^(fonts-.*|ttf-.*|xfonts-.*|libav[a-z]*-extra[0-9]*|libblis.*|libopenblas0-(openmp|serial)|libatlas.*|liblapack3)$'
# shellcheck disable=SC2086
all=$(apt-cache $options depends --recurse --no-recommends --no-suggests --no-conflicts --no-breaks --no-replaces --no-enhances $wanted |
  grep -E '^[a-z0-9]' | sed 's/:.*//' | sort -u)
list=""
for p in $all; do
  echo "$p" | grep -Eq "$base|$spare" && continue
  # shellcheck disable=SC2086
  apt-cache $options show "$p" >/dev/null 2>&1 && list="$list $p"
done
# shellcheck disable=SC2086
(cd "$folder" && apt-get $options download $list >/dev/null)
bytes=$(cat "$folder"/*.deb | wc -c)
echo "$(ls "$folder"/*.deb | wc -l) packages, $((bytes / 1048576)) MiB, in $folder"
