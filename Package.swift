// swift-tools-version: 6.2
import PackageDescription

// Set by setup.py only; a plain `swift build` and `swift test` need neither.
let pythonInclude = Context.environment["USAE_PYTHON_INCLUDE"]  // folder of Python.h: also build the CPython extension
let scipyBLAS = Context.environment["USAE_SCIPY_OPENBLAS_LIB"]  // link the library of the scipy-openblas32 wheel

/// An instruction set that the kernels are compiled for.
struct InstructionSet {
  /// What the run-time dispatch and USAE_KERNELS call it.
  let name: String
  let target: String
  /// As Swift calls it, or "any".
  let architecture: String
  /// Of clang's importer, which decide for Swift too.
  let flags: String
  /// What sources ask for in `#if`.
  let defines: String
  /// Patterns of disassembled instructions: what the set is for, and what its processors may lack.
  let uses, never: String

  /// A folder belongs to one target, so the others reach the sources through links. The portable kernels are compiled from the
  /// folder itself: an editor that opens a file there finds a target for it.
  var path: String { "Sources/Kernels/" + (name == "portable" ? "Source" : target.dropFirst("Kernels".count)) }
}

// The best of each architecture first. Scripts read this table (tools/instruction_sets.sh); tests compare with it what else
// names the sets: Runtime/KernelChoice.swift and the documents. It is here and not in a file of its own because SwiftPM
// evaluates a manifest again only when the manifest's own text has changed.
let instructionSets = [
  InstructionSet(
    name: "amx", target: "KernelsAMX", architecture: "x86_64",
    flags: "-march=x86-64-v4 -mavx512vnni -mamx-tile -mamx-int8", defines: "USAE_FMA USAE_AVX512 USAE_VNNI USAE_AMX",
    uses: "tdpbusd", never: #"\{vex\} vpdpbusd"#),
  InstructionSet(
    name: "avx512vnni", target: "KernelsAVX512VNNI", architecture: "x86_64",
    flags: "-march=x86-64-v4 -mavx512vnni", defines: "USAE_FMA USAE_AVX512 USAE_VNNI",
    uses: "vpdpbusd.*%zmm", never: #"%tmm|\{vex\} vpdpbusd"#),
  InstructionSet(
    name: "avxvnni", target: "KernelsAVXVNNI", architecture: "x86_64",
    flags: "-march=x86-64-v3 -mavxvnni", defines: "USAE_FMA USAE_AVX2 USAE_VNNI",
    uses: #"\{vex\} vpdpbusd.*%ymm"#, never: #"%[zt]mm|[^}]\svpdpbusd"#),
  InstructionSet(
    name: "avx512", target: "KernelsAVX512", architecture: "x86_64",
    flags: "-march=x86-64-v4", defines: "USAE_FMA USAE_AVX512",
    uses: "vfmadd.*%zmm", never: "%tmm|vpdpbusd"),
  InstructionSet(
    name: "avx2", target: "KernelsAVX2", architecture: "x86_64",
    flags: "-march=x86-64-v3", defines: "USAE_FMA USAE_AVX2",
    uses: "vfmadd.*%ymm", never: "%[zt]mm|vpdpbusd"),
  InstructionSet(
    name: "dotprod", target: "KernelsDotProd", architecture: "arm64",
    flags: "-march=armv8.2-a+dotprod", defines: "USAE_DOTPROD",
    uses: #"\ssdot\s"#, never: "mmla|usdot|sudot"),
  InstructionSet(
    name: "portable", target: "KernelsPortable", architecture: "any", flags: "", defines: "",
    uses: #"mulps|fmla"#, never: #"%[yzt]mm|fmaf|\ssdot\s"#),
]
#if arch(x86_64)
  let architecture = "x86_64"
#elseif arch(arm64)
  let architecture = "arm64"
#else
  let architecture = "other"
#endif
let setsHere = instructionSets.filter { [architecture, "any"].contains($0.architecture) }

// -Ounchecked deletes `precondition`, so only the kernels have it; the library and the ABI check with -O.
// -fno-math-errno: a square root is one instruction instead of a call for negative arguments.
let unchecked: [SwiftSetting] = [
  .unsafeFlags(["-Ounchecked"], .when(configuration: .release)), .unsafeFlags(["-Xcc", "-fno-math-errno"]),
]

var targets: [Target] = [
  // Public API
  .target(
    name: "USAE",
    dependencies: ["COpenBLAS", "CPlatform", "KernelTypes"] + setsHere.map { .target(name: $0.target) },
    swiftSettings: scipyBLAS == nil ? [] : [.unsafeFlags(["-Xcc", "-DUSAE_BLAS_SCIPY"])],
    linkerSettings: scipyBLAS.map { [.unsafeFlags(["-L", $0]), .linkedLibrary("scipy_openblas")] }
      ?? [.linkedLibrary("openblas")]),
  .target(name: "CUSAE"),
  .target(name: "USAECABI", dependencies: ["CUSAE", "USAE"]),

  // Implementation details
  .target(name: "CPlatform"),
  .target(name: "CIntrinsics"),
  scipyBLAS == nil
    ? .systemLibrary(name: "COpenBLAS", pkgConfig: "openblas", providers: [.apt(["libopenblas-dev"])])
    : .systemLibrary(name: "COpenBLAS"),
  .target(name: "KernelTypes", path: "Sources/Kernels/Types", swiftSettings: unchecked),

  // Tests and examples
  .testTarget(name: "USAETests", dependencies: ["USAE", "USAECABI", "CUSAE"]),
  .executableTarget(name: "usae-abi-test", dependencies: ["CUSAE", "USAECABI"], path: "Tests/CABI",
    cSettings: [.unsafeFlags(["-std=c11", "-Wall", "-Wextra", "-Wpedantic"])], linkerSettings: [.linkedLibrary("m")]),
  .executableTarget(name: "usae-fuzz-abi", dependencies: ["CUSAE", "USAECABI"], path: "Tests/FuzzCABI",
    cSettings: [.unsafeFlags(["-std=c11", "-Wall", "-Wextra", "-Wpedantic"])], linkerSettings: [.linkedLibrary("m")]),
  .executableTarget(name: "train-from-swift", dependencies: ["USAE"], path: "examples/swift"),
]

// The kernels, once for each instruction set.
targets += setsHere.map { set in
  .target(
    name: set.target, dependencies: ["CIntrinsics", "KernelTypes"], path: set.path,
    swiftSettings: unchecked + [.unsafeFlags(set.flags.split(separator: " ").flatMap { ["-Xcc", String($0)] })]
      + set.defines.split(separator: " ").map { .define(String($0)) })
}

var products: [Product] = [.library(name: "USAE", targets: ["USAE"])]

if let pythonInclude {
  targets.append(
    .target(
      name: "USAEPython", dependencies: ["CUSAE", "USAECABI"], path: "python/src/_usae",
      cSettings: [.unsafeFlags(["-I", pythonInclude, "-fvisibility=hidden", "-Wall", "-Wextra", "-Werror=switch"])],
      linkerSettings: [
        .unsafeFlags(
          ["-Xlinker", "--version-script=" + Context.packageDirectory + "/python/src/_usae/exports.map"],
          .when(platforms: [.linux])),
        .unsafeFlags(
          ["-Xlinker", "-undefined", "-Xlinker", "dynamic_lookup"], .when(platforms: [.macOS])),
      ]))
  products.append(.library(name: "usae_python", type: .dynamic, targets: ["USAEPython"]))
}

let package = Package(name: "usae", products: products, targets: targets)
