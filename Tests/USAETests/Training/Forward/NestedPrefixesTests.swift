import Testing

@testable import USAE

@Suite struct NestedPrefixesTests {
  private static func recipe(_ prefixes: [Double], _ loss: Recipe.PrefixLoss = .mean) -> Recipe {
    var recipe = Recipe()
    (recipe.prefixes, recipe.prefixLoss) = (prefixes, loss)
    recipe.deadTokens = 200
    return recipe
  }

  @Test func slotsAreOrderedByGroupAndWithinItAsTheyWere() throws {
    let codes = try CodeBuffer(rows: 3, slots: 5)
    let concepts: [[Int32]] = [[7, 2, 9, 0, 3], [], [4, 4, 1]]
    for (token, row) in concepts.enumerated() {
      let keys = row.enumerated().map { selectionKey(Float(10 - $0), $1) }
      keys.withUnsafeBufferPointer { codes.store($0, row: token) }
    }
    let nested = try NestedPrefixes(ends: [1, 4, 10], rows: 3, slots: 5, widths: [2], threads: 2)
    try nested.arrange(codes, rows: 3, work: InterruptibleWork(threads: 2))
    func slots(_ token: Int) -> [[Int32]] {
      (0..<3).map { group in nested.slots(token, group: group).map { codes.indices(token)[$0] } }
    }
    #expect(slots(0) == [[0], [2, 3], [7, 9]])
    #expect(slots(1) == [[], [], []])
    #expect(slots(2) == [[], [1], [4, 4]])
    #expect((0..<5).map { codes.values(0)[$0] } == [7, 9, 6, 10, 8])
    #expect((0..<10).map { nested.group(of: $0) } == [0, 1, 1, 1, 2, 2, 2, 2, 2, 2])
  }

  @Test func theLossIsTheMeanOverThePrefixesAsTheyWouldScoreAlone() throws {
    let data = try UniversalSAETests.data(300)
    let sae = try UniversalSAE(concepts: 40, k: 6, recipe: Self.recipe([0.25, 1]))
    try sae.fit(data, steps: 20, batchSize: 300)
    let codes = try sae.encode(data[0].value, model: "a")
    let report = try data[0].value.withActivations(name: "a") { a throws(USAEError) in
      try data[1].value.withActivations(name: "b") { b throws(USAEError) in
        try sae.step([a, b], rows: .all, encoder: 0, keepGradients: true, work: sae.makeWork())
      }
    }
    var first = codes
    for slot in first.indices.indices where first.indices[slot] >= 10 { (first.indices[slot], first.values[slot]) = (-1, 0) }
    for (j, entry) in data.enumerated() {
      var scale = [Float](repeating: 0, count: entry.value.columns)
      try scale.withUnsafeMutableBytes { try sae.readTensor(model: j, TensorID(1)!, to: $0.baseAddress!, count: $0.count / 4) }
      var sum = 0.0
      for codes in [first, codes] {
        let out = try sae.decode(codes, model: entry.key)
        for (i, (x, y)) in zip(entry.value.values, out.values).enumerated() {
          let residual = Double(x - y) / Double(scale[i % scale.count])
          sum += residual * residual
        }
      }
      #expect(abs(report.losses[0][j] / (sum / 2 / Double(entry.value.values.count)) - 1) < 1e-4)
    }
  }

  @Test func onePrefixOfEverythingIsNone() throws {
    let data = try UniversalSAETests.data(300)
    let results = try [[], [1.0]].map { prefixes in
      let sae = try UniversalSAE(concepts: 40, k: 6, recipe: Self.recipe(prefixes))
      try sae.fit(data, steps: 10, batchSize: 200)
      return try UniversalSAETests.parameters(sae)
    }
    #expect(results[0] == results[1])
  }

  @Test(arguments: [[0.5], [0.5, 0.25, 1], [0, 1], [-0.5, 1], [.nan, 1], [0.5, 0.5, 1], [0.5, 2]])
  func sharesThatDoNotAscendToOneAreRefused(prefixes: [Double]) {
    #expect(throws: USAEError.self) { try UniversalSAE(concepts: 40, k: 6, recipe: Self.recipe(prefixes)) }
  }

  @Test func sharesThatComeToTheSameNumberOfConceptsCountOnce() {
    #expect(Self.recipe([0.1, 0.5, 1]).prefixEnds(concepts: 40) == [4, 20, 40])
    #expect(Self.recipe([0.5, 0.6, 0.99, 1]).prefixEnds(concepts: 4) == [2, 4])
    #expect(Self.recipe([0.1, 1]).prefixEnds(concepts: 3) == [])
    #expect(Self.recipe([]).prefixEnds(concepts: 3) == [])
  }

  // MARK: Drawn

  @Test func halfOfTheDrawsAreAllConceptsAndShorterPrefixesShareTheRest() {
    let prefix = DrawnPrefix(ends: [10, 20, 30, 40])
    let draws = (0..<6000).map { prefix.concepts(seed: 5, step: $0) }
    for (end, share) in [(10, 1.0 / 6), (20, 1.0 / 6), (30, 1.0 / 6), (40, 0.5)] {
      #expect(abs(Double(draws.count { $0 == end }) / 6000 - share) < 0.025)  // 4 standard deviations
    }
    #expect(draws != (0..<6000).map { prefix.concepts(seed: 6, step: $0) })
  }

  @Test func entriesOfThePrefixComeFirstInTheirOrderAndTheOthersStay() throws {
    let codes = try CodeBuffer(rows: 3, slots: 5)
    for (token, row) in ([[7, 2, 9, 0, 3], [], [8, 9]] as [[Int32]]).enumerated() {
      let keys = row.enumerated().map { selectionKey(Float(10 - $0), $1) }
      keys.withUnsafeBufferPointer { codes.store($0, row: token) }
    }
    var found = [Int32](repeating: -1, count: 3)
    codes.keep(before: 4, found: &found)
    #expect(found == [5, 0, 2])
    #expect((0..<3).map { codes.count($0) } == [3, 0, 0])
    #expect((0..<3).map { codes.indices(0)[$0] } == [2, 0, 3])
    #expect((0..<3).map { codes.values(0)[$0] } == [9, 7, 6])
    #expect(Set((3..<5).map { codes.indices(0)[$0] }) == [7, 9])
    #expect(Set((0..<2).map { codes.indices(2)[$0] }) == [8, 9])
  }

  @Test func conceptsBeyondTheDrawnPrefixFireButLearnNothing() throws {
    let data = try UniversalSAETests.data(300)
    var reports: [Int: StepReport] = [:]
    for seed in 0..<12 {  // other seeds draw other prefixes for the first step
      let sae = try UniversalSAE(concepts: 40, k: 6, recipe: Self.recipe([0.25, 1], .drawn), seed: UInt64(seed))
      try sae.initialize([("a", data[0].value.columns), ("b", data[1].value.columns)])
      let report = try sae.withActivations(data) { activations throws(USAEError) in
        try sae.step(activations, rows: .all, encoder: 0, keepGradients: true, work: sae.makeWork())
      }
      let gradient = try SharedStepTests.read(sae, 1, 308)
      let width = gradient.count / 40
      #expect(gradient[..<(10 * width)].contains { $0 != 0 })
      #expect(gradient[(10 * width)...].contains { $0 != 0 } == (report.prefix == 40))
      #expect(report.l0 == 6, "all that the encoder found")
      reports[report.prefix] = report
    }
    #expect(Set(reports.keys) == [10, 40])
  }
}
