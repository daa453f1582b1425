#!/bin/sh
# Installs the Debian/Ubuntu packages that kiln builds with, those that are missing. With neither root nor sudo it prints the
# line to run. Extra packages may be named as arguments.
set -eu
wanted="g++ cmake ninja-build pkg-config libdnnl-dev libfmt-dev nlohmann-json3-dev libcli11-dev libstb-dev libpng-dev
libjpeg-dev libwebp-dev libexif-dev libfreetype-dev libzip-dev libeigen3-dev
libavcodec-dev libavfilter-dev libavformat-dev libavutil-dev libswscale-dev libopenmpi-dev openmpi-bin doctest-dev python3 $*"
missing=""
for p in $wanted; do
  dpkg-query -W -f '${Status}\n' "$p" 2>/dev/null | grep -q '^install ok installed$' || missing="$missing $p"
done
[ -n "$missing" ] || exit 0
if [ "$(id -u)" = 0 ]; then as_root=""; elif command -v sudo >/dev/null 2>&1 && sudo -n true 2>/dev/null; then as_root="sudo"; else
  echo "These packages are missing. Run this, then the same command again:" >&2
  echo "  sudo apt-get update && sudo apt-get install -y --no-install-recommends$missing" >&2
  exit 2
fi
echo "installing:$missing"
export DEBIAN_FRONTEND=noninteractive
log=$(mktemp)
trap 'rm -f "$log"' EXIT
# A fresh machine may have no package list, or an old one: update only if the first try fails.
# shellcheck disable=SC2086
if ! $as_root apt-get install -y --no-install-recommends $missing >"$log" 2>&1; then
  $as_root apt-get update >>"$log" 2>&1 || { cat "$log" >&2; echo "apt-get update failed: is the network there?" >&2; exit 2; }
  $as_root apt-get install -y --no-install-recommends $missing >>"$log" 2>&1 || { cat "$log" >&2; echo "apt-get could not install:$missing" >&2; exit 2; }
fi
