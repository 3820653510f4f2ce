import Testing

@testable import USAE

@Suite struct NestedPrefixesTests {
  private static func recipe(_ prefixes: [Double]) -> Recipe {
    var recipe = Recipe()
    recipe.prefixes = prefixes
    recipe.deadTokens = 200
    return recipe
  }

  @Test func slotsAreOrderedByGroupAndWithinItAsTheyWere() throws {
    let codes = try CodeBuffer(rows: 3, slots: 5)
    let concepts: [[Int32]] = [[7, 2, 9, 0, 3], [], [4, 4, 1]]
    for (token, row) in concepts.enumerated() {
      let keys = row.enumerated().map { selectionKey(Float(10 - $0), $1) }
      codes.store(keys, count: keys.count, row: token)
    }
    let nested = try NestedPrefixes(ends: [1, 4, 10], rows: 3, slots: 5, widths: [2], threads: 2)
    try nested.arrange(codes, rows: 3, work: Work(threads: 2))
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
      #expect(abs(report.losses[j] / (sum / 2 / Double(entry.value.values.count)) - 1) < 1e-4)
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

  @Test func sharesOfTooFewConceptsAreRefused() {
    #expect(throws: USAEError.self) { try UniversalSAE(concepts: 3, k: 1, recipe: Self.recipe([0.1, 1])) }
    #expect(throws: USAEError.self) { try UniversalSAE(concepts: 3, k: 1, recipe: Self.recipe([0.9, 1])) }
  }
}
