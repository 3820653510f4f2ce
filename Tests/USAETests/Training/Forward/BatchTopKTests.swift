import Testing

@testable import USAE

@Suite struct BatchTopKTests {
  /// Entries as (value, token, slot) after a trim, and what it returned.
  private static func trimmed(_ rows: [[Float]], wanted: Int) throws -> (kept: [[Float]], taken: [[Float]], smallest: Float?) {
    let codes = try CodeBuffer(rows: rows.count, slots: rows.map(\.count).max() ?? 1)
    for (t, row) in rows.enumerated() {
      row.enumerated().map { selectionKey($1, Int32($0)) }.withUnsafeBufferPointer { codes.store($0, row: t) }
    }
    let selection = try BatchSelection(rows: rows.count)
    let smallest = selection.trim(codes, rows: 0..<rows.count, wanted: wanted, model: 0)
    return (
      rows.indices.map { t in (0..<codes.count(t)).map { codes.values(t)[$0] } },
      rows.indices.map { t in selection.trimmed(codes, t).map { codes.values(t)[$0] } }, smallest
    )
  }

  private static func expected(_ rows: [[Float]], wanted: Int) -> [[Float]] {
    let entries = rows.enumerated().flatMap { t, row in row.map { (token: t, value: $0) } }
    // Stable: of equal entries the earlier token's come first.
    let kept = entries.enumerated().sorted { ($1.element.value, $0.offset) < ($0.element.value, $1.offset) }.prefix(wanted)
    return rows.indices.map { t in kept.filter { $0.element.token == t }.map(\.element.value) }
  }

  @Test(arguments: [1, 2, 7, 60, 299, 300, 301, 100_000])
  func theLargestOfAllTokensAreKept(wanted: Int) throws {
    var random = TestRandom(9)
    let rows = (0..<100).map { t in random.row(t % 7).map { abs($0) + .leastNonzeroMagnitude }.sorted(by: >) }
    let result = try Self.trimmed(rows, wanted: wanted)
    #expect(result.kept == Self.expected(rows, wanted: wanted))
    #expect(zip(result.kept, result.taken).map { $0 + $1 } == rows)
    #expect(result.smallest == result.kept.joined().min())
  }

  @Test(arguments: 1...12)
  func amongEqualOnesTheEarlierTokensAreKept(wanted: Int) throws {
    let rows: [[Float]] = [[2, 1, 1], [], [1, 1, 1, 1], [3, 2, 2, 1], [1]]
    let result = try Self.trimmed(rows, wanted: wanted)
    #expect(result.kept == Self.expected(rows, wanted: wanted))
    #expect(result.kept.joined().count == wanted)
  }

  @Test func valuesOfEverySizeAreOrdered() throws {
    let values: [Float] = [.infinity, .greatestFiniteMagnitude, 1.0000001, 1, 0.99999994, 1e-38, 1e-41, .leastNonzeroMagnitude]
    for wanted in 1...values.count {
      let result = try Self.trimmed(values.map { [$0] }, wanted: wanted)
      #expect(result.kept.flatMap { $0 } == Array(values.prefix(wanted)))
      #expect(result.smallest == values[wanted - 1])
    }
  }

  static let batchTopK: Recipe = {
    var recipe = Recipe()
    (recipe.selection, recipe.prefixes, recipe.mergeCosine) = (.batchTopK, [], 0)
    return recipe
  }()

  static func step(_ sae: UniversalSAE, rows: Int) throws -> StepReport {
    try sae.withActivations(try UniversalSAETests.data(rows, seed: 8)) { activations throws(USAEError) in
      try sae.step(activations, rows: .all, encoder: 0, keepGradients: false, work: sae.makeWork())
    }
  }

  @Test(arguments: [1.0, 1.004, 2.5, 2.5000001, 4.75, 5.0, 5.29], [1, 7, 130, 301])
  func aBatchKeepsTheMeanTimesItsTokensRoundedDown(k: Double, rows: Int) throws {
    let sae = try UniversalSAE(concepts: 70, k: k, recipe: Self.batchTopK, seed: 3)
    try sae.initialize([("a", 19), ("b", 33)])
    let report = try Self.step(sae, rows: rows)
    #expect((report.l0 * Double(rows)).rounded() == (k * Double(rows)).rounded(.down))
  }

  @Test func aWholeMeanIsTheSameAutoencoderHoweverItIsWritten() {
    #expect(batchEntries(32, tokens: 1 << 20) == 32 << 20)
    #expect(batchEntries(32.1, tokens: 10) == 321)
    #expect(wholeK(32) == 32)
    #expect(wholeK(32.000001) == 33)
  }

  @Test func slotsOfAFractionalMeanAreRoundedUp() throws {
    #expect(try UniversalSAE(concepts: 70, k: 5.3, recipe: Self.batchTopK).slots == 22)
    #expect(try UniversalSAE(concepts: 20, k: 5.3, recipe: Self.batchTopK).slots == 20)
    var recipe = Self.batchTopK
    recipe.kMax = 6
    #expect(try UniversalSAE(concepts: 70, k: 5.3, recipe: recipe).slots == 6)
    recipe.kMax = 5
    #expect(throws: USAEError.self) { try UniversalSAE(concepts: 70, k: 5.3, recipe: recipe) }
  }

  @Test(arguments: [5.5, 0.5, 0, -1, 70.5, 71, .nan, .infinity, -.infinity])
  func aFractionalKIsForBatchTopKAloneAndWithinItsRange(k: Double) throws {
    #expect(throws: USAEError.self) { try UniversalSAE(concepts: 70, k: k) }
    if k == 5.5 {
      #expect(try UniversalSAE(concepts: 70, k: k, recipe: Self.batchTopK).k == k)
    } else {
      #expect(throws: USAEError.self) { try UniversalSAE(concepts: 70, k: k, recipe: Self.batchTopK) }
    }
  }

  @Test func beforeTheFirstStepATokenHasAFractionalKRoundedUp() throws {
    let sae = try UniversalSAE(concepts: 70, k: 4.2, recipe: Self.batchTopK, seed: 3)
    let data = try UniversalSAETests.data(50, seed: 8)
    try sae.initialize([("a", data[0].value.columns), ("b", data[1].value.columns)])
    let codes = try sae.encode(data[0].value, model: "a")
    #expect((0..<50).allSatisfy { codes.active($0).count == 5 })
  }

  @Test func nothingKeptHasNoSmallest() throws {
    #expect(try Self.trimmed([[], []], wanted: 3).smallest == nil)
  }
}
