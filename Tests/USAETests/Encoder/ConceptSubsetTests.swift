import Testing

@testable import USAE

/// What a subset of the concepts selects is what sorting all pre-activations selects, bit by bit.
@Suite struct ConceptSubsetTests {
  struct Case: Sendable {
    /// Of the concepts, in the subset.
    let share: Double
    let slots: Int
    var screening = true
    /// One row in so many, at uneven distances.
    var every = 1
  }

  static let concepts = 300

  static let cases = [0, 0.01, 0.1, 0.5, 1].flatMap { share in
    // The last has more slots than there are concepts in any subset.
    [1, 12, concepts].flatMap { slots in
      [Case(share: share, slots: slots), Case(share: share, slots: slots, screening: false, every: 8)]
    }
  }

  @Test(arguments: cases) func theLargestThatCodesLeftOut(of one: Case) throws {
    var random = TestRandom(31)
    let apart = one.share > 0 ? Int((1 / one.share).rounded()) : Self.concepts + 1
    let subset = stride(from: Int32(apart - 1), to: Int32(Self.concepts), by: apart).map { $0 }
    #expect(subset.count == Int(one.share * Double(Self.concepts)))
    let bias = random.row(Self.concepts)
    let problem = ScreeningTests.Problem(
      weight: try ScreeningTests.matrix(random.rows(Self.concepts, 48)),
      tokens: try ScreeningTests.matrix(random.rows(333, 48)), scale: { _ in 1 }, bias: { 0.1 * bias[$0] }, subset: subset)
    let sorted = try problem.sorted()
    for k in [6, 200] {  // few tokens have 200 positive pre-activations, so codes leave nothing out
      let rows = AuxiliaryTokens(every: one.every, seed: 1, step: k, firstRow: 0, totalRows: 333).rows(333)
      let found = try Self.next(problem, one, k: k, rows)
      let expected = problem.next(sorted, after: sorted.map { Array($0.prefix(k)) }, slots: one.slots)
      #expect(found == rows.map { expected[$0] })
    }
  }

  /// Keys of some rows.
  private static func next(
    _ problem: ScreeningTests.Problem, _ one: Case, k: Int, _ rows: [Int]
  ) throws -> [[UInt64]] {
    let work = InterruptibleWork(threads: 2)
    let encoder = try problem.encoder(screening: one.screening)
    let scratch = try (0..<2).map { _ in try ConceptSubset.Scratch(columns: encoder.columns, depth: encoder.depth) }
    let subset = try ConceptSubset(problem.subset, of: encoder, scratch: scratch, work: work)
    let found = LockProtected([Int: [UInt64]]())
    try encoder.forEachTile(
      of: problem.tokens, 0..<problem.tokens.rows, k: k, scratch: encoder.makeScratch(2), work: work
    ) { tile in
      let own = rows.filter(tile.rows.contains)
      guard let tokens = try? PaddedMatrix(rows: own.count, columns: problem.tokens.columns) else { return }
      for (number, row) in own.enumerated() {
        tokens.row(number).update(from: problem.tokens.row(row), count: tokens.stride)
      }
      let keys = subset.selectNext(tile, rows: own[...], tokens: TokenRows(tokens, 0..<own.count), slots: one.slots)
      for (number, row) in own.enumerated() {
        let next = Array(keys[number])
        found.withLock { $0[row] = next }
      }
    }
    return rows.map { row in found.withLock { $0[row] ?? [] } }
  }
}
