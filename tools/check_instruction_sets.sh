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
  check "KernelsDotProd shares no symbol" has_none_shared KernelsDotProd
  check "KernelsDotProd multiplies bytes" uses KernelsDotProd '\ssdot\s'
  check "no other kernels multiply bytes" uses_not KernelsPortable '\ssdot\s'
  finish
  exit
elif [ "$(uname -m)" != x86_64 ]; then
  echo "One set of kernels on this architecture: nothing to compare."
  echo "0 passed, 0 failed, 1 skipped"
  exit 0
fi
[ -d "$folder/KernelsAVX512.build" ] || { echo "no compiled kernels in $folder" >&2; exit 1; }
check "KernelsAVX2 shares no symbol" has_none_shared KernelsAVX2
check "KernelsAVX512 shares no symbol" has_none_shared KernelsAVX512
check "KernelsAVX2 multiplies and adds in ymm registers" uses KernelsAVX2 'vfmadd.*%ymm'
check "KernelsAVX2 uses no zmm register" uses_not KernelsAVX2 '%zmm'
check "KernelsAVX512 multiplies and adds in zmm registers" uses KernelsAVX512 'vfmadd.*%zmm'
check "KernelsAVX512VNNI shares no symbol" has_none_shared KernelsAVX512VNNI
check "KernelsAVX512VNNI multiplies bytes in zmm registers" uses KernelsAVX512VNNI 'vpdpbusd.*%zmm'
check "KernelsAVXVNNI shares no symbol" has_none_shared KernelsAVXVNNI
check "KernelsAVXVNNI multiplies bytes in ymm registers" uses KernelsAVXVNNI '\{vex\} vpdpbusd.*%ymm'
check "KernelsAVXVNNI has that of AVX-VNNI only, and uses no zmm register" uses_not KernelsAVXVNNI '[^}]\svpdpbusd|%zmm'
check "KernelsAMX shares no symbol" has_none_shared KernelsAMX
check "KernelsAMX multiplies bytes in tiles" uses KernelsAMX 'tdpbusd'
check "no other kernels have tiles: KernelsAVX512VNNI" uses_not KernelsAVX512VNNI '%tmm'
check "no other kernels multiply bytes: KernelsAVX2" uses_not KernelsAVX2 'vpdpbusd'
check "no other kernels multiply bytes: KernelsAVX512" uses_not KernelsAVX512 'vpdpbusd'
check "KernelsPortable uses neither, and calls no fmaf" uses_not KernelsPortable '%[yz]mm|fmaf'
finish
