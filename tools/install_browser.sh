#!/usr/bin/env bash
# Installs the browsers that the tests of the explorer's page use, where that can be done (apt-get and root); otherwise says which
# tests are left out. Chromium is 121 MB to download and Firefox 80 MB, each about 300 MB on disk.
set -euo pipefail
missing=()
command -v chromium > /dev/null && command -v chromedriver > /dev/null || missing+=(chromium chromium-driver)
command -v firefox-esr > /dev/null || command -v firefox > /dev/null || missing+=(firefox-esr)
[ "${#missing[@]}" -gt 0 ] || exit 0
if [ "$(id -u)" -ne 0 ] || ! command -v apt-get > /dev/null; then
  echo "Not installed, so the explorer's page is not tested in it: ${missing[*]}" >&2
  exit 0
fi
echo "Installing ${missing[*]}"
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq || true
for package in "${missing[@]}"; do # one at a time: a system may lack one of them
  apt-get install -y -qq --no-install-recommends "$package" ||
    echo "Could not be installed, so the explorer's page is not tested in it: $package" >&2
done
