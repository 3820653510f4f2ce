import Testing

@testable import USAE

/// Sums that no processes can have, in every exchange of every recipe: an error in all processes, and nothing changes.
@Suite struct SharedSumTests {
  /// One damage of a sum, and whether it must be refused wherever it is done.
  struct Damage: Sendable, CustomTestStringConvertible {
    let testDescription: String
    let isFatal: @Sendable (SharedExchange.Kind) -> Bool
    let apply: @Sendable (inout [Float], _ place: Int) -> Void

    init(
      _ name: String, fatal: @escaping @Sendable (SharedExchange.Kind) -> Bool = { _ in true },
      _ apply: @escaping @Sendable (inout [Float], Int) -> Void
    ) {
      testDescription = name
      isFatal = fatal
      self.apply = apply
    }
  }

  static let counts: Set<SharedExchange.Kind> = [.upperHalves, .lowerHalves, .ties]
  static let damages = [
    Damage("NaN") { $0[$1] = .nan },
    Damage("infinity") { $0[$1] = .infinity },
    Damage("minus infinity") { $0[$1] = -.infinity },
    Damage("largest", fatal: { counts.contains($0) }) { $0[$1] = .greatestFiniteMagnitude },
    Damage("half an entry", fatal: { counts.contains($0) }) { $0[$1] += 0.5 },
    Damage("minus one", fatal: { counts.contains($0) || $0 == .spreads }) { $0[$1] = -1 },
    Damage("another entry", fatal: { [.lowerHalves, .ties].contains($0) }) { sum, place in sum[place] += 1 },
    Damage("zeros", fatal: { counts.contains($0) }) { sum, _ in for i in sum.indices { sum[i] = 0 } },
    Damage("half of all", fatal: { counts.contains($0) }) { sum, _ in for i in sum.indices { sum[i] /= 2 } },
    Damage("reversed", fatal: { [.lowerHalves].contains($0) }) { sum, _ in sum.reverse() },
    Damage("random bits") { sum, place in
      let random = CounterRandom(seed: UInt64(place), stream: .rowOrder)
      for i in sum.indices { sum[i] = Float(bitPattern: random.block(UInt64(i)).0) }
      sum[place] = .nan
    },
  ]

  /// Every exchange of a step of two copies, once with each damage.
  @Test(arguments: SharedStepTests.cases, damages)
  func whatNoProcessesCanHaveIsRefusedAndChangesNothing(_ test: SharedStepTests.Case, _ damage: Damage) throws {
    let data = try UniversalSAETests.data(300, seed: 99)
    let parts = try SharedStepTests.parts(data, [150, 150])
    var saes = try SharedStepTests.copies(test.recipe, 1)
    let before = try UniversalSAETests.parameters(saes[0])
    for encoder in 0..<2 {
      let exchanges = try exchanges(saes, parts, encoder)
      for (number, exchange) in exchanges.enumerated() {
        for place in Set([0, exchange.count - 1]) {
          guard let failure = failure(saes, parts, encoder, damaging: number, { damage.apply(&$0, place) }) else {
            #expect(!damage.isFatal(exchange.kind), "\(exchange.kind) at \(place)")
            try requireFinite(saes)
            saes = try SharedStepTests.copies(test.recipe, 1)
            continue
          }
          #expect(failure is USAEError)
          #expect(throws: USAEError.self, "the step has ended") { try saes[0].requireShared(exchanges: exchanges.count) }
          for sae in saes { try sae.abandonShared() }
          #expect(try UniversalSAETests.parameters(saes[0]) == before)
        }
      }
    }
  }

  private func requireFinite(_ saes: [UniversalSAE]) throws {
    for sae in saes {
      for tensor in try UniversalSAETests.parameters(sae) { #expect(tensor.allSatisfy { $0.isFinite }) }
    }
  }

  private func exchanges(_ saes: [UniversalSAE], _ parts: [KeyValuePairs<String, Matrix>], _ encoder: Int) throws
    -> [SharedExchange]
  {
    _ = try SharedStepTests.begin(saes[0], parts[0], encoder: encoder)
    defer { try? saes[0].abandonShared() }
    return try saes[0].agreeShared([150, 150], rank: 0)
  }

  /// What a step throws in the first of two copies whose sum of one exchange is damaged.
  private func failure(
    _ saes: [UniversalSAE], _ parts: [KeyValuePairs<String, Matrix>], _ encoder: Int, damaging number: Int,
    _ damage: (inout [Float]) -> Void
  ) -> (any Error)? {
    do {
      for rank in 0..<2 {
        try saes[rank].abandonShared()
        _ = try SharedStepTests.begin(saes[rank], parts[rank], encoder: encoder)
      }
      var sums: [[Float]] = []
      for (n, exchange) in try saes.indices.map({ try saes[$0].agreeShared([150, 150], rank: $0) })[0].enumerated() {
        var sum = [Float](repeating: 0, count: exchange.count)
        for sae in saes {
          var part = sum
          try part.withUnsafeMutableBufferPointer { try sae.fillShared(n, $0, work: sae.makeWork()) }
          for i in sum.indices { sum[i] += part[i] }
        }
        if n == number { damage(&sum) }
        if exchange.isAwaited { for sae in saes { try sum.withUnsafeBufferPointer { try sae.takeShared(n, $0) } } }
        sums.append(sum)
      }
      for sae in saes { _ = try SharedStepTests.finish(sae, sums[...], []) }
      return nil
    } catch { return error }
  }

  @Test func largeSumsAreLookedThroughByAllThreadsAndTheFirstPlaceIsNamed() throws {
    let exchange = SharedExchange(.gradient, model: 0, tensor: .dictionary, count: 300_001)
    var numbers = [Float](repeating: 1e38, count: exchange.count)
    func check() throws {
      try numbers.withUnsafeBufferPointer { try SharedSum(exchange, $0).requireFinite(work: InterruptibleWork(threads: 3)) }
    }
    try check()
    for place in [300_000, 70_000, 16, 3] {
      numbers[place] = .nan
      #expect(throws: USAEError.sumNotFinite(exchange: "\(SharedExchange.Kind.gradient)", position: place)) { try check() }
    }
  }

  @Test func countsThatFloatsRoundAgreeAndOthersDoNot() {
    #expect(SharedSum.agrees(1 << 20, with: 1 << 20) && !SharedSum.agrees(1 << 20, with: 1 << 20 + 1))
    #expect(SharedSum.agrees(1 << 30, with: 1 << 30 + 64) && !SharedSum.agrees(1 << 30, with: 1 << 29))
  }
}
