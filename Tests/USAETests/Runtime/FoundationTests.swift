import Synchronization
import Testing

@testable import USAE

@Suite struct CounterRandomTests {
  /// From the Random123 distribution's known-answer file.
  @Test func philoxGivesThePublishedVectors() {
    let zero = CounterRandom.philox(counter: (0, 0, 0, 0), key: (0, 0))
    #expect(zero == (0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8))
    let ones = CounterRandom.philox(
      counter: (0xffff_ffff, 0xffff_ffff, 0xffff_ffff, 0xffff_ffff), key: (0xffff_ffff, 0xffff_ffff))
    #expect(ones == (0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd))
    let pi = CounterRandom.philox(
      counter: (0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344), key: (0xa409_3822, 0x299f_31d0))
    #expect(pi == (0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1))
  }

  @Test func normalsHaveTheMomentsOfANormal() {
    let random = CounterRandom(seed: 3, stream: .dictionary)
    var values = [Float](repeating: 0, count: 100_000)
    values.withUnsafeMutableBufferPointer { random.fillNormals($0, from: 0) }
    let x = values.map(Double.init)
    let mean = x.reduce(0, +) / 1e5
    let variance = x.reduce(0) { $0 + $1 * $1 } / 1e5
    let fourth = x.reduce(0) { $0 + $1 * $1 * $1 * $1 } / 1e5
    // Standard errors: 0.0032, 0.0045, 0.031; five of them.
    #expect(abs(mean) < 0.016)
    #expect(abs(variance - 1) < 0.023)
    #expect(abs(fourth - 3) < 0.16)
  }

  @Test func drawsStayInRangeAndReachEveryValue() {
    let random = CounterRandom(seed: 9, stream: .encoderDraw)
    var seen = [0, 0, 0]
    for position in 0..<3000 { seen[random.index(UInt64(position), below: 3)] += 1 }
    for count in seen { #expect(abs(count - 1000) < 130) }  // five standard deviations of a binomial
    for position in 0..<1000 { #expect(abs(random.uniform(UInt64(position), limit: 0.25)) < 0.25) }
  }
}

@Suite struct RowOrderTests {
  @Test(arguments: [1, 2, 3, 4, 5, 16, 17, 100, 1000, 4097])
  func everyPassVisitsEveryRowOnce(rows: Int) {
    let order = RowOrder(seed: 11, rows: rows)
    for pass in 0..<3 {
      let visited = (pass * rows..<(pass + 1) * rows).map { order.row(at: $0) }
      #expect(visited.sorted() == Array(0..<rows))
    }
  }

  @Test func passesAndSeedsDiffer() {
    let order = RowOrder(seed: 1, rows: 1000)
    let first = (0..<1000).map { order.row(at: $0) }
    #expect(first != (1000..<2000).map { order.row(at: $0) })
    let other = RowOrder(seed: 2, rows: 1000)
    #expect(first != (0..<1000).map { other.row(at: $0) })
    #expect(first != Array(0..<1000))
  }

  /// Neighbours in the order must not be neighbours in the data: batches of one image's tokens learn badly.
  @Test func neighboursAreSpreadAsByChance() {
    let rows = 10_000
    let order = RowOrder(seed: 5, rows: rows)
    let gaps = (0..<rows - 1).map { abs(order.row(at: $0 + 1) - order.row(at: $0)) }
    let mean = Double(gaps.reduce(0, +)) / Double(gaps.count)
    // Expected rows / 3, with a standard error near rows / (4.2 sqrt(rows)).
    #expect(abs(mean - Double(rows) / 3) < 5 * Double(rows) / (4.2 * 100))
  }
}

@Suite struct ThreadPoolTests {
  @Test(arguments: [1, 2, 3, 8])
  func everyPieceIsDoneOnceByAWorkerBelowTheLimit(threads: Int) throws {
    for _ in 0..<50 {
      let done = try AlignedBuffer<Int32>(1000)
      ThreadPool.shared.run(1000, threads: threads) { piece, worker in
        done.base[piece] += worker < threads ? 1 : 100
      }
      #expect((0..<1000).allSatisfy { done.base[$0] == 1 })
    }
  }

  @Test func aNestedCallDoesItsWorkAlone() {
    let count = Atomic<Int>(0)
    ThreadPool.shared.run(4, threads: 2) { _, _ in
      ThreadPool.shared.run(10, threads: 2) { _, worker in count.add(worker == 0 ? 1 : 1000, ordering: .relaxed) }
    }
    #expect(count.load(ordering: .relaxed) == 40)
  }

  @Test func aPollThatSaysStopEndsTheCall() throws {
    let asked = Atomic<Int>(0)
    let work = InterruptibleWork(threads: 2) { asked.add(1, ordering: .relaxed).newValue > 3 }
    #expect(throws: USAEError.interrupted) {
      try work.run(1000) { _, worker in
        // The other worker leaves enough pieces for the caller, which is the one that asks.
        while worker > 0, asked.load(ordering: .relaxed) < 4 {}
      }
    }
    #expect(asked.load(ordering: .relaxed) == 4)
  }
}

@Suite struct ScheduleTests {
  /// A model whose tokens vary in `dimensions` directions.
  private func model(_ width: Int = 100, dimensions: Float = 100) throws -> ModelParameters {
    let model = try ModelParameters(name: "a", width: width, concepts: 1, batchNorm: false, batchTopK: false)
    model.effectiveDimensions.base[0] = dimensions
    return model
  }

  @Test func aWarmUpOfOneStepStartsWhereItIsTold() throws {
    let model = try model()
    var recipe = Recipe()
    (recipe.warmupSteps, recipe.warmupLearningRate, recipe.warmupInclusive) = (1, 1e-5, true)
    #expect(recipe.learningRate(at: 0, of: model) == 1e-5)
    #expect(recipe.learningRate(at: 1, of: model) == recipe.learningRate)
    recipe.warmupSteps = 0
    #expect(recipe.learningRate(at: 0, of: model) == recipe.learningRate)
  }

  @Test func thePublishedScheduleWarmsUpAndFallsAsACosine() throws {
    let model = try model()
    var recipe = Recipe.published(totalSteps: 1000, warmupSteps: 100)
    #expect(recipe.learningRate(at: 0, of: model) == 3e-4)
    #expect(abs(recipe.learningRate(at: 1, of: model) - (1e-6 + (3e-4 - 1e-6) / 99)) < 1e-15)
    #expect(abs(recipe.learningRate(at: 99, of: model) - 3e-4) < 1e-15)
    recipe.firstStepFull = false
    #expect(recipe.learningRate(at: 0, of: model) == 1e-6)
    recipe.warmupInclusive = false
    #expect(abs(recipe.learningRate(at: 50, of: model) - (1e-6 + 0.5 * (3e-4 - 1e-6))) < 1e-15)
    #expect(recipe.learningRate(at: 100, of: model) == 3e-4)
    #expect(abs(recipe.learningRate(at: 550, of: model) - (3e-4 + 1e-6) / 2) < 1e-15)
    #expect(abs(recipe.learningRate(at: 1000, of: model) - 1e-6) < 1e-15)
    #expect(abs(recipe.learningRate(at: 5000, of: model) - 1e-6) < 1e-15)
  }

  @Test func aStepMovesPreActivationsByALimitAtMost() throws {
    var recipe = Recipe()
    (recipe.learningRate, recipe.stepLimit, recipe.warmupSteps) = (1e-2, 0.5, 10)
    (recipe.totalSteps, recipe.decayShare, recipe.finalLearningRate) = (100, 0.2, 0)
    // Fewer than 32 dimensions count as 32.
    for (width, dimensions, rate) in [(1, 1, 1e-2), (200, 64, 1e-2), (800, 64, 5e-3), (8000, 64, 5e-4), (8000, 256, 1e-3)] {
      let model = try model(width, dimensions: Float(dimensions))
      #expect(recipe.learningRate(of: model) == rate)
      #expect(abs(recipe.learningRate(at: 5, of: model) - rate / 2) < 1e-15)
      #expect(recipe.learningRate(at: 50, of: model) == rate)
      #expect(abs(recipe.learningRate(at: 90, of: model) - rate / 2) < 1e-15)
    }
    let few = try model(8000, dimensions: 1), more = try model(8000, dimensions: 32)
    #expect(recipe.learningRate(of: few) == recipe.learningRate(of: more))
    recipe.stepLimit = 0
    #expect(recipe.learningRate(at: 50, of: try model(2000, dimensions: 1)) == 1e-2)
    #expect(Recipe.published().learningRate(of: try model(4096, dimensions: 1)) == 3e-4)
  }

  @Test func aLinearDecayTakesTheLastShare() throws {
    let model = try model()
    var recipe = Recipe()
    (recipe.learningRate, recipe.stepLimit) = (1, 0)
    recipe.warmupSteps = 10
    recipe.totalSteps = 100
    recipe.decayShare = 0.2
    #expect(recipe.learningRate(at: 79, of: model) == 1)
    #expect(abs(recipe.learningRate(at: 90, of: model) - 0.5) < 1e-12)
    #expect(recipe.learningRate(at: 100, of: model) == 0)
    recipe.totalSteps = 0
    #expect(recipe.learningRate(at: 1_000_000, of: model) == 1)
  }
}
