import CUSAE
import USAE

extension USAEError {
  var status: usae_status {
    switch self {
    case .invalidArgument: return usae_status(USAE_INVALID_ARGUMENT)
    case .shapeMismatch: return usae_status(USAE_SHAPE_MISMATCH)
    case .unknownModel: return usae_status(USAE_UNKNOWN_MODEL)
    case .notFinite, .tooLarge, .decodedTooLarge, .lossNotFinite, .sumNotFinite: return usae_status(USAE_NOT_FINITE)
    case .notInitialized: return usae_status(USAE_NOT_INITIALIZED)
    case .forkedWhileTraining: return usae_status(USAE_INVALID_ARGUMENT)
    case .interrupted: return usae_status(USAE_INTERRUPTED)
    case .outOfMemory: return usae_status(USAE_OUT_OF_MEMORY)
    }
  }
}

/// Runs `body`; what it throws fills the caller's error.
func status(_ error: UnsafeMutablePointer<usae_error>?, _ body: () throws(USAEError) -> Void) -> usae_status {
  do throws(USAEError) {
    try body()
    return usae_status(USAE_OK)
  } catch let failure {
    if let error {
      withUnsafeMutableBytes(of: &error.pointee.message) { write(failure.description, to: $0) }
    }
    return failure.status
  }
}
