import COpenBLAS

/// The only caller of OpenBLAS.
///
/// Every product is made by one thread on a fixed grid of tiles, from our own workers: OpenBLAS's results depend on how it
/// splits a product, and its spinning threads would compete with ours for the cores. Its thread count is global to the process
/// and may be shared with the user's numpy, so it is 1 inside `exclusively` and restored after it.
enum BLAS {
  private static let state = LockProtected(State())

  private struct State {
    private var users = 0
    private var threadsBefore: Int32 = 0
    private var forks = ForkSafeLock.forks

    mutating func enter() {
      forgetUsersOfParent()
      if users == 0 {
        threadsBefore = openblas_get_num_threads()
        if threadsBefore != 1 { openblas_set_num_threads(1) }
      }
      users += 1
    }

    /// A forked child does not have the parent's users, but the thread count that they set.
    private mutating func forgetUsersOfParent() {
      guard forks != ForkSafeLock.forks else { return }
      forks = ForkSafeLock.forks
      if users > 0 { openblas_set_num_threads(threadsBefore) }
      users = 0
    }

    mutating func leave() {
      forgetUsersOfParent()
      guard users > 0 else { return }  // the caller entered in the parent
      users -= 1
      if users == 0, threadsBefore != 1 { openblas_set_num_threads(threadsBefore) }
    }
  }

  static func exclusively<Result>(_ body: () throws(USAEError) -> Result) throws(USAEError) -> Result {
    state.withLock { $0.enter() }
    defer { state.withLock { $0.leave() } }
    return try body()
  }

  /// One operand: its first element, the stride of its rows as stored, and whether it is used transposed.
  struct Operand {
    let base: UnsafePointer<Float>
    let stride: Int
    var transposed = false
  }

  /// c [rows, columns] = a [rows, depth] b [depth, columns], or c += with `accumulate`.
  static func multiply(
    _ a: Operand, _ b: Operand, into c: UnsafeMutablePointer<Float>, stride: Int, rows: Int, columns: Int,
    depth: Int, accumulate: Bool
  ) {
    let rowMajor: Int32 = 101
    let plain: Int32 = 111
    let transposed: Int32 = 112
    cblas_sgemm(
      rowMajor, a.transposed ? transposed : plain, b.transposed ? transposed : plain, Int32(rows), Int32(columns),
      Int32(depth), 1, a.base, Int32(a.stride), b.base, Int32(b.stride), accumulate ? 1 : 0, c, Int32(stride))
  }

  static var description: String { String(cString: openblas_get_config()) }
}
