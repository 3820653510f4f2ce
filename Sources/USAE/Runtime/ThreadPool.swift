import CPlatform
import Synchronization

#if canImport(Glibc)
  import Glibc
#elseif canImport(Darwin)
  import Darwin
#endif

/// The process's workers: the caller and up to `participants - 1` threads that live as long as the process.
///
/// Workers spin for a few microseconds between jobs and then sleep, so a step's many short phases cost about a microsecond each
/// and an idle process costs nothing. The caller waits only for workers that have begun a piece: on a busy machine, a worker
/// that the system has not woken yet delays nobody. A second caller, or a nested call, does its work alone. After fork() the
/// child starts workers of its own.
final class ThreadPool: @unchecked Sendable {
  static let shared = ThreadPool()

  /// Threads for objects that do not ask for a number of their own; 0 means all cores.
  static let defaultThreads = Atomic<Int>(0)

  static var threads: Int {
    let wanted = defaultThreads.load(ordering: .relaxed)
    return wanted > 0 ? wanted : Int(usae_cpu_count())
  }

  private let mutex = ForkSafeLock()
  private let wake = UnsafeMutablePointer<pthread_cond_t>.allocate(capacity: 1)
  private let job = Atomic<Int>(0)  // number of the current job; a change starts the workers
  private let next = Atomic<Int>(0)  // next piece of the current job
  private let open = Atomic<Int>(0)  // number of the job that may be joined; 0 when its pieces are given out
  private let inside = Atomic<Int>(0)  // workers that may be touching the open job
  private let busy = Atomic<Bool>(false)
  // Written by the caller before it opens a job, read by workers inside it.
  private var body: (Int, Int) -> Void = { _, _ in }
  private var pieces = 0
  private var participants = 1
  private var sleepers = 0  // under `mutex`
  private var workers = 0
  private let forks = Atomic<Int>(ForkSafeLock.forks)

  private init() { pthread_cond_init(wake, nil) }

  /// Calls `work(piece, worker)` for every piece in 0..<count, `worker` being below `threads` and 0 on the calling thread.
  func run(_ count: Int, threads: Int, _ work: (Int, Int) -> Void) {
    restartAfterFork()
    guard threads > 1, count > 1,
      busy.compareExchange(expected: false, desired: true, ordering: .acquiring).exchanged
    else {
      for piece in 0..<count { work(piece, 0) }
      return
    }
    defer { busy.store(false, ordering: .releasing) }
    startWorkers(threads - 1)
    withoutActuallyEscaping(work) { work in
      publish(work, count, threads)
      takePieces(worker: 0)
      closeJob()
      body = { _, _ in }
    }
  }

  private func publish(_ work: @escaping (Int, Int) -> Void, _ count: Int, _ threads: Int) {
    body = work
    pieces = count
    participants = threads
    next.store(0, ordering: .relaxed)
    open.store(job.load(ordering: .relaxed) + 1, ordering: .sequentiallyConsistent)
    mutex.lock()
    job.add(1, ordering: .releasing)
    if sleepers > 0 { pthread_cond_broadcast(wake) }
    mutex.unlock()
  }

  /// Closes the job to other workers, and waits for those inside.
  ///
  /// A worker enters before it checks that the job is open, and the caller closes the job before it checks who is inside. All
  /// four operations are sequentially consistent, so either the worker sees the job closed or the caller sees the worker. A
  /// caller that forked meanwhile waits for nobody in the child.
  private func closeJob() {
    open.store(0, ordering: .sequentiallyConsistent)
    var spins = 0
    while inside.load(ordering: .sequentiallyConsistent) != 0, forks.load(ordering: .relaxed) == ForkSafeLock.forks {
      usae_cpu_relax()
      spins &+= 1
      if spins & 0xff == 0 { sched_yield() }
    }
  }

  private func takePieces(worker: Int) {
    while true {
      let piece = next.add(1, ordering: .relaxed).oldValue
      if piece >= pieces { return }
      body(piece, worker)
    }
  }

  private func work(as worker: Int, after seenJob: Int) {
    var seen = seenJob
    while true {
      waitForJob(after: seen)
      seen = job.load(ordering: .acquiring)
      inside.add(1, ordering: .sequentiallyConsistent)
      if open.load(ordering: .sequentiallyConsistent) != 0, worker < participants { takePieces(worker: worker) }
      inside.subtract(1, ordering: .sequentiallyConsistent)
    }
  }

  private func waitForJob(after seen: Int) {
    for _ in 0..<2000 {  // about 20 microseconds: longer than the pause between two phases of a step
      if job.load(ordering: .acquiring) != seen { return }
      usae_cpu_relax()
    }
    mutex.lock()
    sleepers += 1
    while job.load(ordering: .acquiring) == seen { mutex.wait(for: wake) }
    sleepers -= 1
    mutex.unlock()
  }

  private func startWorkers(_ wanted: Int) {
    while workers < wanted {
      let ticket = Unmanaged.passRetained(Ticket(pool: self, worker: workers + 1, job: job.load(ordering: .relaxed)))
      var thread = pthread_t()
      var attributes = pthread_attr_t()
      pthread_attr_init(&attributes)
      pthread_attr_setdetachstate(&attributes, Int32(PTHREAD_CREATE_DETACHED))
      let status = pthread_create(
        &thread, &attributes,
        { argument in
          let ticket = Unmanaged<Ticket>.fromOpaque(argument!).takeRetainedValue()
          ticket.pool.work(as: ticket.worker, after: ticket.job)
          return nil
        }, ticket.toOpaque())
      pthread_attr_destroy(&attributes)
      guard status == 0 else {  // the system gives no more threads: those that run do the work
        ticket.release()
        return
      }
      workers += 1
    }
  }

  private final class Ticket {
    let pool: ThreadPool
    let worker, job: Int
    init(pool: ThreadPool, worker: Int, job: Int) {
      self.pool = pool
      self.worker = worker
      self.job = job
    }
  }

  /// The child of fork() has the memory of the workers but not the workers. Whichever thread comes first makes a new pool.
  private func restartAfterFork() {
    guard forks.load(ordering: .acquiring) != ForkSafeLock.forks else { return }
    mutex.lock()
    defer { mutex.unlock() }
    guard forks.load(ordering: .relaxed) != ForkSafeLock.forks else { return }
    pthread_cond_init(wake, nil)
    sleepers = 0
    workers = 0
    open.store(0, ordering: .relaxed)
    inside.store(0, ordering: .relaxed)
    busy.store(false, ordering: .relaxed)
    forks.store(ForkSafeLock.forks, ordering: .releasing)
  }
}
