/// What all autoencoders of the process share.
public enum Configuration {
  public static let version = "0.1.0"

  /// The instruction set of the kernels in use, such as "avx512vnni" or "portable".
  public static var kernels: String { "\(USAE.kernels.name)" }

  /// OpenBLAS's description of itself.
  public static var blas: String { BLAS.description }

  /// Threads of autoencoders that do not ask for a number of their own.
  public static var threads: Int { ThreadPool.threads }

  /// Sets `threads`. 0 restores the number of cores that this process may use.
  public static func setThreads(_ threads: Int) throws(USAEError) {
    try UniversalSAE.require("n_threads", threads, in: 0...1024)
    ThreadPool.defaultThreads.store(threads, ordering: .relaxed)
  }
}
