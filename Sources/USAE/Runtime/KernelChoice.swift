import CPlatform
import KernelTypes
import KernelsPortable

#if canImport(Glibc)
  import Glibc
#elseif canImport(Darwin)
  import Darwin
#endif
#if arch(x86_64)
  import KernelsAMX
  import KernelsAVX2
  import KernelsAVX512
  import KernelsAVX512VNNI
  import KernelsAVXVNNI
#elseif arch(arm64)
  import KernelsDotProd
#endif

/// The kernels of the best instruction set of this processor, chosen once.
///
/// The environment variable `USAE_KERNELS` names another set. `checkKernels` refuses one that cannot be used.
let kernels: KernelTable = availableKernels(tiles: false).first { "\($0.name)" == wantedKernels } ?? availableKernels()[0]

/// What `USAE_KERNELS` says; nil if it is not set, or set to nothing.
private let wantedKernels: String? = {
  let wanted = getenv("USAE_KERNELS").map { String(cString: $0) }
  return wanted?.isEmpty == true ? nil : wanted
}()

/// Refuses an instruction set that is named in `USAE_KERNELS` and cannot be used, so that no measurement is of another one.
/// Called where objects are made.
func checkKernels() throws(USAEError) {
  guard let wantedKernels, "\(kernels.name)" != wantedKernels else { return }
  let usable = availableKernels().map { "\($0.name)" }.joined(separator: ", ")
  throw .invalidArgument(
    name: "USAE_KERNELS", expected: "an instruction set that this processor has (\(usable))", got: "'\(wantedKernels)'",
    remedy: "unset the environment variable for the best one")
}

extension KernelTable {
  /// Concepts of a panel, of whichever product has the larger ones.
  var largestPanel: Int { max(product.panelWidth, screening.panelWidth) }
}

/// A name at run time, the feature of the processor that the set needs, and its kernels.
private typealias InstructionSet = (name: StaticString, feature: Int, kernels: @Sendable (StaticString) -> KernelTable)

// Best first. Package.swift says what each is compiled for, and the tests compare this list with its table.
#if arch(x86_64)
  private let instructionSets: [InstructionSet] = [
    ("amx", USAE_CPU_AMX, KernelsAMX.kernelTable),
    ("avx512vnni", USAE_CPU_AVX512_VNNI, KernelsAVX512VNNI.kernelTable),
    // AVX-VNNI comes before AVX-512 without VNNI. No known processor has just these two, but on one with all sets a step of the
    // default recipe took .83 of the time.
    ("avxvnni", USAE_CPU_AVX_VNNI, KernelsAVXVNNI.kernelTable),
    ("avx512", USAE_CPU_AVX512, KernelsAVX512.kernelTable),
    ("avx2", USAE_CPU_AVX2, KernelsAVX2.kernelTable),
  ]
#elseif arch(arm64)
  private let instructionSets: [InstructionSet] = [
    ("dotprod", USAE_CPU_DOTPROD, KernelsDotProd.kernelTable)
  ]
#else
  private let instructionSets: [InstructionSet] = []
#endif
private let anyProcessor: InstructionSet = ("portable", 0, KernelsPortable.kernelTable)

/// All kernel tables that this processor can run, best first. Tests walk them.
///
/// - Parameter tiles: also those with tiles (AMX), for which the operating system has to be asked. That cannot be undone, and
///   the process then needs larger signal stacks.
func availableKernels(tiles: Bool = true) -> [KernelTable] {
  let features = Int(usae_cpu_features())
  return (instructionSets + [anyProcessor])
    .filter { features & $0.feature == $0.feature && ($0.feature != USAE_CPU_AMX || tiles && usae_allow_tiles() != 0) }
    .map { $0.kernels($0.name) }
}
