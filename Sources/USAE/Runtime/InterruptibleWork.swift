import Synchronization

/// How one call runs: on how many threads, what may interrupt it, and who is told how far it is.
package final class InterruptibleWork: Sendable {
  let threads: Int
  let poll: (@Sendable () -> Bool)?
  /// Told on the calling thread how many rows are done.
  let progress: (@Sendable (Int) -> Void)?
  private let stopped = Atomic<Bool>(false)
  private let forked = Atomic<Bool>(false)

  /// - Parameter poll: asked on the calling thread between pieces; true stops the call with `interrupted`.
  init(threads: Int, poll: (@Sendable () -> Bool)? = nil, progress: (@Sendable (Int) -> Void)? = nil) {
    self.threads = threads
    self.poll = poll
    self.progress = progress
  }

  /// 0 threads stand for the process's default.
  convenience init(
    wanted threads: Int, poll: (@Sendable () -> Bool)? = nil, progress: (@Sendable (Int) -> Void)? = nil
  ) {
    self.init(threads: threads > 0 ? threads : ThreadPool.threads, poll: poll, progress: progress)
  }

  /// The same with a number from a caller, which is checked, and without an interrupt.
  package convenience init(threadsWanted: Int) throws(USAEError) {
    try UniversalSAE.require("n_threads", threadsWanted, in: 0...1024)
    self.init(wanted: threadsWanted)
  }

  /// Runs `body(piece, worker)` for all pieces on the pool. After an interrupt the rest is skipped and the call throws.
  func run(_ pieces: Int, _ body: (Int, Int) -> Void) throws(USAEError) {
    try check()
    ThreadPool.shared.run(pieces, threads: threads) { piece, worker in
      if self.stopped.load(ordering: .relaxed) { return }
      if worker == 0, self.isStopWanted() {
        self.stopped.store(true, ordering: .relaxed)
        return
      }
      body(piece, worker)
    }
    if stopped.load(ordering: .relaxed) { throw reason }
  }

  /// Throws if the caller wants to stop.
  func check() throws(USAEError) {
    if isStopWanted() { throw reason }
  }

  /// Asks the caller. A poll in which this thread forked, as a handler of a signal may, ends the call in the child: the workers
  /// that had taken a part of it are not there.
  private func isStopWanted() -> Bool {
    guard let poll else { return false }
    let before = ForkSafeLock.forks
    let stop = poll()
    guard before != ForkSafeLock.forks else { return stop }
    forked.store(true, ordering: .relaxed)
    return true
  }

  private var reason: USAEError { forked.load(ordering: .relaxed) ? .forkedWhileTraining : .interrupted }

  /// The same without interrupts, for the part of a step that must not be left half done.
  func runToEnd(_ pieces: Int, _ body: (Int, Int) -> Void) {
    ThreadPool.shared.run(pieces, threads: threads, body)
  }

  /// Splits 0..<count into blocks of `size` and runs them. Block limits depend on `count` alone, so sums over a block do not
  /// depend on the number of threads.
  func runBlocks(_ count: Int, of size: Int, _ body: (_ block: Int, Range<Int>, _ worker: Int) -> Void)
    throws(USAEError)
  {
    try run((count + size - 1) / size) { block, worker in
      body(block, block * size..<min(count, (block + 1) * size), worker)
    }
  }
}
