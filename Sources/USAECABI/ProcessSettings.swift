public import CUSAE
import USAE

@c @implementation
public func usae_set_threads(_ n_threads: Int32, _ error: UnsafeMutablePointer<usae_error>?) -> usae_status {
  status(error) { () throws(USAEError) in try Configuration.setThreads(Int(n_threads)) }
}

@c @implementation
public func usae_threads() -> Int32 { Int32(Configuration.threads) }

nonisolated(unsafe) private let kernelName = staticCopy(Configuration.kernels)
nonisolated(unsafe) private let blasName = staticCopy(Configuration.blas)
nonisolated(unsafe) private let versionName = staticCopy(Configuration.version)

@c @implementation
public func usae_kernels() -> UnsafePointer<CChar>? { kernelName }

@c @implementation
public func usae_blas() -> UnsafePointer<CChar>? { blasName }

@c @implementation
public func usae_version() -> UnsafePointer<CChar>? { versionName }
