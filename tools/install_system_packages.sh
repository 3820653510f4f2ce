#!/usr/bin/env bash
# Installs the Debian packages that building needs and that are not there, where that can be done (apt-get and root);
# otherwise says what is missing.
set -euo pipefail
python=${1:-python3}

missing=()
command -v "$python" > /dev/null || missing+=(python3)
"$python" -c 'import os, sysconfig; os.stat(sysconfig.get_path("include") + "/Python.h")' 2> /dev/null || missing+=(python3-dev)
"$python" -c 'import ensurepip, venv' 2> /dev/null || missing+=(python3-venv)
command -v pkg-config > /dev/null || missing+=(pkg-config)
pkg-config --exists openblas 2> /dev/null || missing+=(libopenblas-dev)
command -v objdump > /dev/null && command -v readelf > /dev/null || missing+=(binutils)
[ ${#missing[@]} -eq 0 ] && exit 0

if [ "$(id -u)" -ne 0 ] || ! command -v apt-get > /dev/null; then
  echo "usae needs these packages (by Debian's names), which are not installed: ${missing[*]}" >&2
  echo "Install them, for example with: sudo apt-get install ${missing[*]}" >&2
  exit 1
fi
echo "Installing ${missing[*]}"
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq
apt-get install -y -qq --no-install-recommends "${missing[@]}"
