#!/usr/bin/env bash
# Each kernel must run only where its instruction set was found. The compiled kernels are looked at, in the build folder $1:
# no symbol of the targets but the portable one may be shared (the linker could keep the AVX-512 copy of a generic
# specialisation for everybody), each must use the registers it is for, and the portable one must not.
set -euo pipefail
folder=$1
subject='instruction sets'
source "$(dirname "${BASH_SOURCE[0]}")/checks.sh"

objects() { find "$folder/$1.build" -name '*.o'; }
# Weak ones, which the linker merges by name; not those that carry the target's own name in theirs.
shared_symbols() {
  objects "$1" | xargs nm --defined-only |
    awk -v own="\$s${#1}$1" '$2 ~ /[WVu]/ && index($3, own) != 1 && $3 != "__swift_reflection_version" {print $3}'
}
has_none_shared() {
  local symbols
  symbols=$(shared_symbols "$1")
  [ -z "$symbols" ] || { echo "$symbols" >&2; false; }
}
uses() { objects "$1" | xargs objdump -dr --no-show-raw-insn | grep -E "$2" > /dev/null; }
uses_not() { ! uses "$@"; }

if [ "$(uname -m)" = aarch64 ]; then
  check "USAEKernelsDotProd shares no symbol" has_none_shared USAEKernelsDotProd
  check "USAEKernelsDotProd multiplies bytes" uses USAEKernelsDotProd '\ssdot\s'
  check "no other kernels multiply bytes" uses_not USAEKernelsPortable '\ssdot\s'
  finish
  exit
elif [ "$(uname -m)" != x86_64 ]; then
  echo "One set of kernels on this architecture: nothing to compare."
  echo "0 passed, 0 failed, 1 skipped"
  exit 0
fi
[ -d "$folder/USAEKernelsV4.build" ] || { echo "no compiled kernels in $folder" >&2; exit 1; }
check "USAEKernelsV3 shares no symbol" has_none_shared USAEKernelsV3
check "USAEKernelsV4 shares no symbol" has_none_shared USAEKernelsV4
check "USAEKernelsV3 multiplies and adds in ymm registers" uses USAEKernelsV3 'vfmadd.*%ymm'
check "USAEKernelsV3 uses no zmm register" uses_not USAEKernelsV3 '%zmm'
check "USAEKernelsV4 multiplies and adds in zmm registers" uses USAEKernelsV4 'vfmadd.*%zmm'
check "USAEKernelsVNNI shares no symbol" has_none_shared USAEKernelsVNNI
check "USAEKernelsVNNI multiplies bytes in zmm registers" uses USAEKernelsVNNI 'vpdpbusd.*%zmm'
check "USAEKernelsAVXVNNI shares no symbol" has_none_shared USAEKernelsAVXVNNI
check "USAEKernelsAVXVNNI multiplies bytes in ymm registers" uses USAEKernelsAVXVNNI '\{vex\} vpdpbusd.*%ymm'
check "USAEKernelsAVXVNNI has that of AVX-VNNI only, and uses no zmm register" uses_not USAEKernelsAVXVNNI '[^}]\svpdpbusd|%zmm'
check "USAEKernelsAMX shares no symbol" has_none_shared USAEKernelsAMX
check "USAEKernelsAMX multiplies bytes in tiles" uses USAEKernelsAMX 'tdpbusd'
check "no other kernels have tiles: USAEKernelsVNNI" uses_not USAEKernelsVNNI '%tmm'
check "no other kernels multiply bytes: USAEKernelsV3" uses_not USAEKernelsV3 'vpdpbusd'
check "no other kernels multiply bytes: USAEKernelsV4" uses_not USAEKernelsV4 'vpdpbusd'
check "USAEKernelsPortable uses neither, and calls no fmaf" uses_not USAEKernelsPortable '%[yz]mm|fmaf'
finish
