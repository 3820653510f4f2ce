import CPlatform

#if canImport(Glibc)
  import Glibc
#elseif canImport(Darwin)
  import Darwin
#endif

/// Many readers or one writer, in the order in which they came.
///
/// The order is first come, first served, because any preference starves somebody: threads that encode in a loop would keep
/// training out, or training in a loop would keep them out. A waiting caller polls for an interrupt, so that Ctrl-C works while
/// another thread trains.
final class ReadWriteLock: @unchecked Sendable {
  private let mutex = ForkSafeLock()
  private let changed = UnsafeMutablePointer<pthread_cond_t>.allocate(capacity: 1)
  // All under `mutex`.
  private var nextTicket = 0
  private var serving = 0
  private var abandoned: Set<Int> = []
  private var readers = 0
  private var writer: pthread_t?
  /// All of the above is of threads of the process after so many forks.
  private var forks = ForkSafeLock.forks
  /// The process was forked while another thread was writing: what is guarded is half written in the child.
  private var isTorn = false

  /// Nanoseconds between two polls of a waiting caller.
  private static let pollInterval = 50_000_000

  init() { pthread_cond_init(changed, nil) }

  deinit {
    pthread_cond_destroy(changed)
    changed.deallocate()
  }

  func reading<Result>(poll: (() -> Bool)? = nil, _ body: () throws(USAEError) -> Result) throws(USAEError) -> Result {
    let forks = try enter(writing: false, poll)
    defer { leave(writing: false, forks) }
    return try body()
  }

  func writing<Result>(poll: (() -> Bool)? = nil, _ body: () throws(USAEError) -> Result) throws(USAEError) -> Result {
    let forks = try enter(writing: true, poll)
    defer { leave(writing: true, forks) }
    return try body()
  }

  /// Returns the count of forks, by which `leave` sees whether the entry still counts.
  private func enter(writing: Bool, _ poll: (() -> Bool)?) throws(USAEError) -> Int {
    mutex.lock()
    defer { mutex.unlock() }
    var ticket = try takeTicket()
    while serving != ticket || writer != nil || (writing && readers > 0) {
      mutex.wait(for: changed, nanoseconds: Self.pollInterval)
      guard let poll else { continue }
      let before = forks
      mutex.unlock()  // the poll may take another lock, or fork
      let stop = poll()
      mutex.lock()
      if before != ForkSafeLock.forks { ticket = try takeTicket() }
      if stop {
        abandoned.insert(ticket)
        serveNext()
        throw .interrupted
      }
    }
    if writing { writer = pthread_self() } else { readers += 1 }
    serving += 1
    serveNext()
    return forks
  }

  private func takeTicket() throws(USAEError) -> Int {
    forgetThreadsOfParent()
    guard !isTorn else { throw .forkedWhileTraining }
    nextTicket += 1
    return nextTicket - 1
  }

  /// - Parameter forks: those when the caller entered. A caller that forked since is no longer among those inside.
  private func leave(writing: Bool, _ forks: Int) {
    mutex.lock()
    defer { mutex.unlock() }
    forgetThreadsOfParent()
    guard forks == self.forks else { return }
    if writing { writer = nil } else { readers -= 1 }
    pthread_cond_broadcast(changed)
  }

  /// Skips the tickets of callers that gave up, and wakes the others.
  private func serveNext() {
    while abandoned.remove(serving) != nil { serving += 1 }
    pthread_cond_broadcast(changed)
  }

  /// In a forked child, forgets who was inside or waited. The thread that forked, if it is one of them, does so from its poll,
  /// when it has changed nothing yet, and ends its call (`InterruptibleWork`).
  private func forgetThreadsOfParent() {
    guard forks != ForkSafeLock.forks else { return }
    forks = ForkSafeLock.forks
    pthread_cond_init(changed, nil)
    if let writer, usae_is_forking_thread(writer) == 0 { isTorn = true }
    (nextTicket, serving, readers, writer) = (0, 0, 0, nil)
    abandoned.removeAll()
  }
}
