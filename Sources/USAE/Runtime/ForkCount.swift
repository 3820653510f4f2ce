import Synchronization

#if canImport(Glibc)
  import Glibc
#elseif canImport(Darwin)
  import Darwin
#endif

/// How many forks lie between this process and the one that loaded the library.
///
/// fork() copies the memory of all threads but only one thread: locks may be held by threads that do not exist. Objects with
/// such state remember the count, and reset themselves when it has changed.
enum ForkCount {
  private static let count = Atomic<Int>(0)
  private static let registered: Bool = pthread_atfork(nil, nil, { ForkCount.count.add(1, ordering: .relaxed) }) == 0

  static var current: Int {
    _ = registered
    return count.load(ordering: .relaxed)
  }
}
