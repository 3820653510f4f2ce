#!/usr/bin/env bash
# The kernels of arm64, run on x86-64 by an emulator: they must have the bits of those with AVX2, which the Swift tests compare
# with plain loops. There is no Swift library for arm64 here, so this is Embedded Swift, which needs none; of the whole library
# only the kernels can be run that way. On arm64 itself `swift test` runs all of them, and this has nothing to do.
set -euo pipefail
cd "$(dirname "$0")/.."
toolchain=$(dirname "$(realpath "$(command -v "${SWIFT:-swift}")")") # clang, lld and objdump are beside the compiler
build=$(mktemp -d)
trap 'rm -rf "$build"' EXIT
subject='arm64'
source tools/checks.sh
source tools/instruction_sets.sh

skip() {
  echo "arm64: not run, since $1"
  echo "0 passed, 0 failed, 1 skipped"
  exit 0
}
have_emulator() {
  command -v qemu-aarch64-static > /dev/null && return
  [ "$(id -u)" -eq 0 ] && command -v apt-get > /dev/null || return 1
  echo "Installing qemu-user-static"
  export DEBIAN_FRONTEND=noninteractive
  apt-get update -qq && apt-get install -y -qq --no-install-recommends qemu-user-static > /dev/null
}

# --- Programs that print a line for each kernel, see Tests/Arm64/Trace.swift ------------------------------------------

compile() { # name of an instruction set, other flags of swiftc...
  local name=$1 flag
  local flags=(-enable-experimental-feature Embedded -wmo -parse-as-library -Ounchecked -Xcc -fno-math-errno "${@:2}")
  for flag in $(of_set "$name" flags); do flags+=(-Xcc "$flag"); done
  for flag in $(of_set "$name" defines); do flags+=("-D$flag"); done
  mkdir "$build/$name"
  "$toolchain/swiftc" "${flags[@]}" -emit-module -emit-module-path "$build/$name/KernelTypes.swiftmodule" \
    -module-name KernelTypes Sources/Kernels/Types/*.swift
  "$toolchain/swiftc" "${flags[@]}" -I "$build/$name" -Xcc "-fmodule-map-file=$build/module.modulemap" -c -module-name Kernels \
    -o "$build/$name/kernels.o" Sources/Kernels/Source/*.swift Tests/Arm64/Trace.swift
}
compile_here() {
  compile "$@"
  "$toolchain/clang" -O1 Tests/Arm64/support.c "$build/$1/kernels.o" -o "$build/$1/trace"
}
compile_for_arm64() {
  compile "$@" -target aarch64-none-none-elf -Xcc -ffreestanding -Xfrontend -disable-stack-protector
  "$toolchain/clang" --target=aarch64-none-elf -ffreestanding -O1 -c Tests/Arm64/support.c -o "$build/$1/support.o"
  "$toolchain/ld.lld" -static "$build/$1/support.o" "$build/$1/kernels.o" -o "$build/$1/trace"
}
uses() { "$toolchain/llvm-objdump" -d "$build/$1/trace" | grep -E "$2" > /dev/null; }
uses_not() { ! uses "$@"; }
prints_the_same() { # name, processor
  qemu-aarch64-static -cpu "$2" "$build/$1/trace" > "$build/$1.txt" && diff "$build/avx2.txt" "$build/$1.txt"
}

[ "$(uname -m)" = x86_64 ] || skip "this is no x86-64, whose kernels are compared with"
grep -qw avx2 /proc/cpuinfo || skip "this processor has no AVX2, whose kernels are compared with"
have_emulator || skip "there is no qemu-aarch64-static (Debian: qemu-user-static)"
cat > "$build/module.modulemap" << END
module CIntrinsics { header "$PWD/Sources/CIntrinsics/include/intrinsics.h" export * }
module CTrace { header "$PWD/Tests/Arm64/trace.h" export * }
END
compile_here avx2
for set in $(instruction_sets arm64); do compile_for_arm64 "$set"; done
"$build/avx2/trace" > "$build/avx2.txt"
[ "$(wc -l < "$build/avx2.txt")" -eq 49 ] || { echo "arm64: the kernels' trace is not whole" >&2; exit 1; }

check "portable kernels have the bits of AVX2's, on a processor of 2015" prints_the_same portable cortex-a72
check "kernels with dot products have them, on a processor of 2018" prints_the_same dotprod cortex-a76
check "portable kernels multiply and add four floats at once" uses portable 'fmla\s+v[0-9]+\.4s'
for set in $(instruction_sets arm64); do
  check "$set kernels use $(of_set "$set" uses)" uses "$set" "$(of_set "$set" uses)"
  check "$set kernels never use $(of_set "$set" never)" uses_not "$set" "$(of_set "$set" never)"
done
finish
