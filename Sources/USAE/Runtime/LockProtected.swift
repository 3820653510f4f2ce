/// A value behind a lock, which one thread at a time can use. A process that is forked meanwhile finds the value whole and the
/// lock free.
///
/// The lock is not Swift's Mutex: where threads contend, the kernel hands that over, which ThreadSanitizer cannot see, so it
/// reports false races.
final class LockProtected<Value>: @unchecked Sendable {
  private let lock = ForkSafeLock()
  private var value: Value

  init(_ value: Value) { self.value = value }

  /// - Parameter body: short; it must not use another such value.
  func withLock<Result, Failure: Error>(_ body: (inout Value) throws(Failure) -> Result) throws(Failure) -> Result {
    lock.lock()
    defer { lock.unlock() }
    return try body(&value)
  }
}
