// swift-tools-version: 6.2
import PackageDescription

// Set by setup.py only; a plain `swift build` and `swift test` need neither.
let pythonInclude = Context.environment["USAE_PYTHON_INCLUDE"]  // folder of Python.h: also build the CPython extension
let scipyBLAS = Context.environment["USAE_SCIPY_OPENBLAS_LIB"]  // link the library of the scipy-openblas32 wheel

// Name, flags of clang's importer, which decide for Swift too, and what sources ask for.
let instructionSets: [(String, [String], [String])]
#if arch(x86_64)
  instructionSets = [
    ("KernelsAVX2", ["-march=x86-64-v3"], ["USAE_AVX2"]),
    ("KernelsAVXVNNI", ["-march=x86-64-v3", "-mavxvnni"], ["USAE_AVX2", "USAE_VNNI"]),
    ("KernelsAVX512", ["-march=x86-64-v4"], ["USAE_AVX512"]),
    ("KernelsAVX512VNNI", ["-march=x86-64-v4", "-mavx512vnni"], ["USAE_AVX512", "USAE_VNNI"]),
    (
      "KernelsAMX", ["-march=x86-64-v4", "-mavx512vnni", "-mamx-tile", "-mamx-int8"],
      ["USAE_AVX512", "USAE_VNNI", "USAE_AMX"]
    ),
  ]
#elseif arch(arm64)
  instructionSets = [("KernelsDotProd", ["-march=armv8.2-a+dotprod"], ["USAE_DOTPROD"])]
#else
  instructionSets = []
#endif

// -Ounchecked deletes `precondition`, so only the kernels have it; the library and the ABI check with -O.
// -fno-math-errno: a square root is one instruction instead of a call for negative arguments.
let unchecked: [SwiftSetting] = [
  .unsafeFlags(["-Ounchecked"], .when(configuration: .release)), .unsafeFlags(["-Xcc", "-fno-math-errno"]),
]
let kernelDependencies: [Target.Dependency] = ["CIntrinsics", "KernelTypes"]

var targets: [Target] = [
  // Public API
  .target(
    name: "USAE",
    dependencies: ["COpenBLAS", "CPlatform", "KernelTypes", "KernelsPortable"]
      + instructionSets.map { .target(name: $0.0) },
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
  .target(
    name: "KernelsPortable", dependencies: kernelDependencies, path: "Sources/Kernels/Source", swiftSettings: unchecked),

  // Tests and examples
  .testTarget(name: "USAETests", dependencies: ["USAE", "USAECABI", "CUSAE"]),
  .executableTarget(name: "usae-abi-test", dependencies: ["CUSAE", "USAECABI"], path: "Tests/CABI",
    cSettings: [.unsafeFlags(["-std=c11", "-Wall", "-Wextra", "-Wpedantic"])], linkerSettings: [.linkedLibrary("m")]),
  .executableTarget(name: "train-from-swift", dependencies: ["USAE"], path: "examples/swift"),
]

// The kernels once more for each instruction set, through a link to their folder, since a folder belongs to one target.
targets += instructionSets.map { name, flags, defines in
  .target(
    name: name, dependencies: kernelDependencies, path: "Sources/Kernels/" + name.dropFirst("Kernels".count),
    swiftSettings: unchecked + [.unsafeFlags(flags.flatMap { ["-Xcc", $0] }), .define("USAE_FMA")]
      + defines.map { .define($0) })
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
