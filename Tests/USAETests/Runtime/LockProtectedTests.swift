import Testing

@testable import USAE

@Suite struct LockProtectedTests {
  /// ThreadSanitizer has to see that the lock hands the value over, whoever waits for it.
  @Test func threadsThatContendChangeTheValueOneAfterTheOther() async {
    let count = LockProtected((changes: 0, history: [Int]()))
    await withTaskGroup(of: Void.self) { group in
      for number in 0..<8 {
        group.addTask {
          for _ in 0..<5_000 {
            count.withLock { ($0.changes, $0.history) = ($0.changes + 1, $0.history.suffix(20) + [number]) }
          }
        }
      }
    }
    #expect(count.withLock { $0.changes } == 40_000)
  }

  @Test func whatTheBodyThrowsComesOutAndTheLockIsFree() {
    let value = LockProtected(1)
    #expect(throws: USAEError.interrupted) {
      try value.withLock { value throws(USAEError) in
        value = 2
        throw .interrupted
      }
    }
    #expect(value.withLock { $0 } == 2)
  }
}
