public import CUSAE
import USAE

@c @implementation
public func usae_set_threads(_ n_threads: Int32, _ error: UnsafeMutablePointer<usae_error>?) -> usae_status {
  status(error) { () throws(USAEError) in try Configuration.setThreads(Int(n_threads)) }
}

@c @implementation
public func usae_threads() -> Int32 { Int32(Configuration.threads) }

// C strings with static storage: made once and never freed.
nonisolated(unsafe) private let kernelName = staticCopy(Configuration.kernels)
nonisolated(unsafe) private let blasName = staticCopy(Configuration.blas)
nonisolated(unsafe) private let versionName = staticCopy(Configuration.version)

private func staticCopy(_ text: String) -> UnsafePointer<CChar> {
  let bytes = Array(text.utf8CString)
  let copy = UnsafeMutablePointer<CChar>.allocate(capacity: bytes.count)
  copy.initialize(from: bytes, count: bytes.count)
  return UnsafePointer(copy)
}

@c @implementation
public func usae_kernels() -> UnsafePointer<CChar>? { kernelName }

@c @implementation
public func usae_blas() -> UnsafePointer<CChar>? { blasName }

@c @implementation
public func usae_version() -> UnsafePointer<CChar>? { versionName }
