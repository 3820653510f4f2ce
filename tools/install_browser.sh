#!/usr/bin/env bash
# Installs the browser that the tests of the explorer's page use, where that can be done (apt-get and root); otherwise says that
# these tests are left out.
set -euo pipefail
command -v chromium > /dev/null && command -v chromedriver > /dev/null && exit 0
if [ "$(id -u)" -ne 0 ] || ! command -v apt-get > /dev/null; then
  echo "chromium and chromedriver are not installed, so the explorer's page is not tested in a browser." >&2
  exit 0
fi
echo "Installing chromium chromium-driver"
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq && apt-get install -y -qq --no-install-recommends chromium chromium-driver ||
  echo "No browser could be installed, so the explorer's page is not tested in one." >&2
