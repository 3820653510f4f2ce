#!/usr/bin/env bash
# Installs the wheel $1 into a new environment of $2 (python3) and uses it where neither OpenBLAS nor Swift can be found.
set -euo pipefail
wheel=$(realpath "$1")
python=${2:-python3}
here=$(cd "$(dirname "$0")" && pwd)
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

"$python" -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check "$wheel"

# As root the system's copies are covered up, in a mount namespace of our own; otherwise the program's look at
# /proc/self/maps has to do.
hide='
  for library in $(ldconfig -p | awk "/libopenblas|libscipy_openblas/ {print \$NF}" | xargs -r -n1 realpath | sort -u); do
    mount --bind /dev/null "$library"
    echo "hidden: $library"
  done
  if [ -d "$SWIFT_FOLDER" ]; then mount -t tmpfs none "$SWIFT_FOLDER"; echo "hidden: $SWIFT_FOLDER"; fi
  exec "$@"'
swift=$(command -v "${SWIFT:-swift}" || true)
SWIFT_FOLDER=${swift:+$(dirname "$(dirname "$(realpath "$swift")")")/lib/swift} # of the runtime libraries
export SWIFT_FOLDER
run=(env -i "HOME=$folder" "$folder/venv/bin/python" -I "$here/use_wheel.py")
cd "$folder"
if [ "$(id -u)" -eq 0 ] && unshare --mount true 2> /dev/null; then
  run=(unshare --mount bash -euc "$hide" hide "${run[@]}")
fi
"${run[@]}"
