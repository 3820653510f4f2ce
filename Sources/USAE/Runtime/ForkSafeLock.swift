import CPlatform

#if canImport(Glibc)
  import Glibc
#elseif canImport(Musl)
  import Musl
#elseif canImport(Darwin)
  import Darwin
#endif

/// A lock for short sections, free in a forked child.
///
/// fork() copies the memory of all threads but only one thread, so a lock that another thread holds would stay held in the
/// child for ever, and what it protects could be half written. So fork() takes every lock of this kind first. All locks of the
/// library are of this kind. A section must not take another one, and must not call back.
final class ForkSafeLock: @unchecked Sendable {
  private let memory: UnsafeMutablePointer<usae_lock>

  /// Without memory for some bytes it ends the process, as Swift does where there is none for the object itself.
  init() {
    guard let made = usae_lock_make() else { fatalError("no memory for a lock") }
    memory = made
  }

  deinit { usae_lock_recycle(memory) }

  /// How many forks lie between this process and the one that made the first lock. An object that knows of threads (who waits,
  /// who works) compares it, inside its lock, with the count that it saw last, and forgets the threads that are gone.
  static var forks: Int { Int(usae_fork_count()) }

  func lock() { pthread_mutex_lock(mutex) }

  func unlock() { pthread_mutex_unlock(mutex) }

  /// Waits for a signal, without the lock meanwhile.
  func wait(for condition: UnsafeMutablePointer<pthread_cond_t>) { pthread_cond_wait(condition, mutex) }

  /// The same, for a limited time.
  func wait(for condition: UnsafeMutablePointer<pthread_cond_t>, nanoseconds: Int) {
    var until = timespec()
    clock_gettime(CLOCK_REALTIME, &until)
    until.tv_nsec += nanoseconds
    if until.tv_nsec >= 1_000_000_000 {
      until.tv_nsec -= 1_000_000_000
      until.tv_sec += 1
    }
    pthread_cond_timedwait(condition, mutex, &until)
  }

  private var mutex: UnsafeMutablePointer<pthread_mutex_t> {
    UnsafeMutableRawPointer(memory).assumingMemoryBound(to: pthread_mutex_t.self)  // the first member
  }
}
