import Dispatch
import Synchronization
import Testing

@testable import USAE

@Suite struct ReadWriteLockTests {
  /// Runs `body` on so many threads of its own and waits for all.
  private func onThreads(_ count: Int, _ body: @escaping @Sendable (Int) -> Void) {
    let group = DispatchGroup()
    for i in 0..<count { DispatchQueue(label: "test \(i)").async(group: group) { body(i) } }
    group.wait()
  }

  @Test func aWriterIsAloneAndReadersAreNot() {
    let lock = ReadWriteLock()
    nonisolated(unsafe) var value = 0
    let mistakes = Atomic<Int>(0)
    onThreads(4) { thread in
      for _ in 0..<500 {
        if thread == 0 {
          try? lock.writing {
            value += 1
            value += 1
          }
        } else {
          try? lock.reading { if value % 2 != 0 { mistakes.add(1, ordering: .relaxed) } }
        }
      }
    }
    #expect(value == 1000)
    #expect(mistakes.load(ordering: .relaxed) == 0)
  }

  @Test func readersInALoopDoNotKeepAWriterOut() {
    let lock = ReadWriteLock()
    let stop = Atomic<Bool>(false)
    onThreads(4) { thread in
      if thread == 0 {
        for _ in 0..<50 { try? lock.writing {} }
        stop.store(true, ordering: .relaxed)
      } else {
        while !stop.load(ordering: .relaxed) { try? lock.reading { for _ in 0..<1000 { _ = stop.load(ordering: .relaxed) } } }
      }
    }
    let finished = stop.load(ordering: .relaxed)
    #expect(finished)
  }

  @Test func aWaitingCallerCanGiveUpAndOthersGoOn() throws {
    let lock = ReadWriteLock()
    let holding = DispatchSemaphore(value: 0)
    let release = DispatchSemaphore(value: 0)
    DispatchQueue(label: "holder").async {
      try? lock.writing {
        holding.signal()
        release.wait()
      }
    }
    holding.wait()
    #expect(throws: USAEError.interrupted) { try lock.reading(poll: { true }) {} }
    #expect(throws: USAEError.interrupted) { try lock.writing(poll: { true }) {} }
    release.signal()
    let got = try lock.reading { 7 }  // would wait for ever behind tickets that nobody takes back
    #expect(got == 7)
  }
}
