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
  private let mutex = UnsafeMutablePointer<pthread_mutex_t>.allocate(capacity: 1)
  private let changed = UnsafeMutablePointer<pthread_cond_t>.allocate(capacity: 1)
  // All under `mutex`.
  private var nextTicket = 0
  private var serving = 0
  private var abandoned: Set<Int> = []
  private var readers = 0
  private var isWriting = false
  private var forks = ForkCount.current
  /// The process was forked while another thread was writing: what is guarded is half written in the child.
  private var isTorn = false

  /// Nanoseconds between two polls of a waiting caller.
  private static let pollInterval = 50_000_000

  init() { initializeLocks() }

  deinit {
    pthread_mutex_destroy(mutex)
    pthread_cond_destroy(changed)
    mutex.deallocate()
    changed.deallocate()
  }

  func reading<Result>(poll: (() -> Bool)? = nil, _ body: () throws(USAEError) -> Result) throws(USAEError) -> Result {
    try enter(writing: false, poll)
    defer { leave(writing: false) }
    return try body()
  }

  func writing<Result>(poll: (() -> Bool)? = nil, _ body: () throws(USAEError) -> Result) throws(USAEError) -> Result {
    try enter(writing: true, poll)
    defer { leave(writing: true) }
    return try body()
  }

  private func enter(writing: Bool, _ poll: (() -> Bool)?) throws(USAEError) {
    resetAfterFork()
    pthread_mutex_lock(mutex)
    defer { pthread_mutex_unlock(mutex) }
    guard !isTorn else { throw .forkedWhileTraining }
    let ticket = nextTicket
    nextTicket += 1
    while serving != ticket || isWriting || (writing && readers > 0) {
      waitForChange()
      guard let poll else { continue }
      pthread_mutex_unlock(mutex)  // the poll may take another lock
      let stop = poll()
      pthread_mutex_lock(mutex)
      if stop {
        abandoned.insert(ticket)
        serveNext()
        throw .interrupted
      }
    }
    if writing { isWriting = true } else { readers += 1 }
    serving += 1
    serveNext()
  }

  private func leave(writing: Bool) {
    pthread_mutex_lock(mutex)
    if writing { isWriting = false } else { readers -= 1 }
    pthread_cond_broadcast(changed)
    pthread_mutex_unlock(mutex)
  }

  /// Skips the tickets of callers that gave up, and wakes the others.
  private func serveNext() {
    while abandoned.remove(serving) != nil { serving += 1 }
    pthread_cond_broadcast(changed)
  }

  private func waitForChange() {
    var until = timespec()
    clock_gettime(CLOCK_REALTIME, &until)
    until.tv_nsec += Self.pollInterval
    if until.tv_nsec >= 1_000_000_000 {
      until.tv_nsec -= 1_000_000_000
      until.tv_sec += 1
    }
    pthread_cond_timedwait(changed, mutex, &until)
  }

  /// The threads that held or awaited the lock in the parent do not exist in the child.
  private func resetAfterFork() {
    guard forks != ForkCount.current else { return }
    forks = ForkCount.current
    initializeLocks()
    isTorn = isTorn || isWriting
    (nextTicket, serving, readers, isWriting) = (0, 0, 0, false)
    abandoned.removeAll()
  }

  private func initializeLocks() {
    pthread_mutex_init(mutex, nil)
    pthread_cond_init(changed, nil)
  }
}
