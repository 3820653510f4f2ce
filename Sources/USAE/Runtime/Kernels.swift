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
/// `USAE_KERNELS=portable|avx2|avx512|avxvnni|avx512vnni|amx`, on arm64 `portable|dotprod`, chooses another; what the processor lacks,
/// or an unknown word, is ignored.
let kernels: KernelTable = {
  let wanted = getenv("USAE_KERNELS").map { String(cString: $0) }
  return availableKernels(tiles: false).first { "\($0.name)" == wanted } ?? availableKernels()[0]
}()

extension KernelTable {
  /// Concepts of a panel, of either product.
  var largestPanel: Int { max(panelWidth, screening.panelWidth) }
}

/// All kernel tables that this processor can run, best first. Tests walk them.
///
/// - Parameter tiles: also those for which the operating system has to be asked. That cannot be taken back, and signal stacks of
///   the process must be larger then.
func availableKernels(tiles: Bool = true) -> [KernelTable] {
  var tables = [KernelsPortable.kernelTable()]
  let features = Int(usae_cpu_features())
  #if arch(x86_64)
    if features & USAE_CPU_AVX2 != 0 { tables.insert(KernelsAVX2.kernelTable(), at: 0) }
    if features & USAE_CPU_AVX512 != 0 { tables.insert(KernelsAVX512.kernelTable(), at: 0) }
    // Above AVX-512 without VNNI, which no known processor has beside it: on one with all of them, a step of the default
    // recipe took .83 of the time.
    if features & USAE_CPU_AVX_VNNI != 0 { tables.insert(KernelsAVXVNNI.kernelTable(), at: 0) }
    if features & USAE_CPU_AVX512_VNNI != 0 { tables.insert(KernelsAVX512VNNI.kernelTable(), at: 0) }
    if tiles, features & USAE_CPU_AMX != 0, usae_allow_tiles() != 0 { tables.insert(KernelsAMX.kernelTable(), at: 0) }
  #elseif arch(arm64)
    if features & USAE_CPU_DOTPROD != 0 { tables.insert(KernelsDotProd.kernelTable(), at: 0) }
  #endif
  return tables
}
