#!/usr/bin/env bash
# Each kernel must run only where its instruction set was found. The compiled kernels are looked at, in the build folder $1:
# no symbol of the targets but the portable one may be shared (the linker could keep the AVX-512 copy of a generic
# specialisation for everybody), each must use the instructions that it is for, and none that its processors may lack.
set -euo pipefail
folder=$(realpath "$1")
cd "$(dirname "$0")/.."
subject='instruction sets'
source tools/checks.sh
source tools/instruction_sets.sh

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

case $(uname -m) in
  x86_64) architecture=x86_64 ;;
  aarch64 | arm64) architecture=arm64 ;;
  *)
    echo "One set of kernels on this architecture: nothing to compare."
    echo "0 passed, 0 failed, 1 skipped"
    exit
    ;;
esac
sets=$(instruction_sets "$architecture")
[ "$(wc -w <<< "$sets")" -gt 1 ] || { echo "Package.swift: no table of instruction sets was understood" >&2; exit 1; }
for set in $sets; do
  target=$(of_set "$set" target)
  [ -n "$(objects "$target")" ] || { echo "no compiled $target in $folder" >&2; exit 1; }
  [ "$set" = portable ] || check "$target shares no symbol" has_none_shared "$target"
  check "$target uses $(of_set "$set" uses)" uses "$target" "$(of_set "$set" uses)"
  check "$target never uses $(of_set "$set" never)" uses_not "$target" "$(of_set "$set" never)"
done
finish
