import Testing
import KernelTypes

@testable import USAE

/// Screening selects what the product selects, bit by bit, whatever the numbers are.
@Suite struct ScreeningTests {
  static func matrix(_ rows: [[Float]]) throws -> PaddedMatrix {
    let matrix = try PaddedMatrix(rows: rows.count, columns: rows[0].count)
    for (r, row) in rows.enumerated() { matrix.row(r).update(from: row, count: row.count) }
    return matrix
  }

  /// An encoder, a batch of tokens, and some concepts to select among beside the codes.
  struct Problem {
    let weight, tokens: PaddedMatrix
    let scale, bias: (Int) -> Float
    let subset: [Int32]

    func encoder(screening: Bool?) throws -> PackedEncoder {
      try PackedEncoder(weight, affine: { (scale($0), bias($0)) }, screening: screening, work: InterruptibleWork(threads: 2))
    }

    /// Keys of each token's k largest above a threshold, and of the next 7 among the subset.
    func select(k: Int, above threshold: Float, screening: Bool) throws
      -> (keys: [[UInt64]], next: [[UInt64]], counts: ScreeningCounts)
    {
      let work = InterruptibleWork(threads: 2)
      let encoder = try encoder(screening: screening)
      let scratch = try (0..<2).map { _ in try ConceptSubset.Scratch(columns: encoder.columns, depth: encoder.depth) }
      let subset = try ConceptSubset(subset, of: encoder, scratch: scratch, work: work)
      var keys = [[UInt64]](repeating: [], count: tokens.rows), next = keys
      try keys.withUnsafeMutableBufferPointer { keys throws in
        try next.withUnsafeMutableBufferPointer { next throws in
          nonisolated(unsafe) let (keys, next) = (keys, next)
          try encoder.forEachTile(
            of: tokens, 0..<tokens.rows, k: k, above: threshold, scratch: encoder.makeScratch(2), work: work
          ) { tile in
            let nextKeys = subset.selectNext(tile, rows: Array(tile.rows)[...], tokens: tile.tokens, slots: 7)
            for (token, row) in tile.rows.enumerated() { (keys[row], next[row]) = (Array(tile[row]), Array(nextKeys[token])) }
          }
        }
      }
      return (keys, next, encoder.screeningCounts)
    }

    /// Keys of each token's positive pre-activations in descending order.
    func sorted() throws -> [[UInt64]] {
      let encoder = try encoder(screening: nil)
      let scratch = [try DenseTile.Scratch(columns: encoder.columns, depth: encoder.depth)]
      var keys: [[UInt64]] = []
      try encoder.forEachDenseTile(of: tokens, 0..<tokens.rows, scratch: scratch, work: InterruptibleWork(threads: 1)) { tile in
        for row in tile.rows {
          let values = tile[row]
          let positive = (0..<weight.rows).filter { values[$0] > 0 }.map { selectionKey(values[$0], Int32($0)) }
          keys.append(positive.sorted(by: >))
        }
      }
      return keys
    }

    /// The next of the subset that each token's keys leave out.
    func next(_ sorted: [[UInt64]], after keys: [[UInt64]], slots: Int = 7) -> [[UInt64]] {
      let subset = Set(subset)
      return zip(sorted, keys).map { all, chosen in
        Array(all.filter { subset.contains(column(ofKey: $0)) && !chosen.contains($0) }.prefix(slots))
      }
    }
  }

  static func expectSame(
    _ concepts: [[Float]], _ tokens: [[Float]], k: Int, scale: @escaping (Int) -> Float = { _ in 1 },
    bias: @escaping (Int) -> Float = { _ in 0 }
  ) throws -> ScreeningCounts {
    let subset = stride(from: Int32(1), to: Int32(concepts.count), by: 3).map { $0 }
    let problem = Problem(weight: try matrix(concepts), tokens: try matrix(tokens), scale: scale, bias: bias, subset: subset)
    let sorted = try problem.sorted()
    let values = sorted.flatMap { $0.prefix(k).map { value(ofKey: $0) } }.sorted()
    let thresholds = [1, values.count / 3, values.count - 2].filter(values.indices.contains).map { values[$0] }
    var counts = ScreeningCounts()
    for threshold in [0] + thresholds {
      let expected = sorted.map { $0.prefix(k).filter { value(ofKey: $0) > threshold } }
      let product = try problem.select(k: k, above: threshold, screening: false)
      let screened = try problem.select(k: k, above: threshold, screening: true)
      #expect(product.keys == expected)
      #expect(screened.keys == expected)
      #expect(product.next == problem.next(sorted, after: expected))
      #expect(screened.next == product.next)
      #expect(product.counts == ScreeningCounts())
      if threshold == 0 { counts = screened.counts }
    }
    return counts
  }

  @Test(arguments: [(16, 1, 1), (40, 3, 40), (40, 100, 8), (333, 64, 9), (1000, 130, 32)])
  func ofRandomNumbers(concepts m: Int, depth: Int, k: Int) throws {
    var random = TestRandom(UInt64(m + depth))
    let bias = random.row(m), scales = random.row(m)
    let counts = try Self.expectSame(
      random.rows(m, depth), random.rows(150, depth), k: k, scale: { scales[$0] }, bias: { 0.1 * bias[$0] })
    #expect(counts.tokens == 150)
  }

  @Test func fewConceptsAreComputedInFull() throws {
    var random = TestRandom(1)
    let counts = try Self.expectSame(random.rows(1000, 256), random.rows(300, 256), k: 10)
    #expect(counts.computed >= counts.tokens * 10)
    #expect(counts.computed < counts.tokens * 11, "of 1000: the first ten, and few that are as good")
    #expect(counts.candidates < counts.tokens * 150)
  }

  @Test func ofHeavyTails() throws {
    var random = TestRandom(2)
    func heavy(_ row: [Float]) -> [Float] { row.map { $0 * $0 * $0 * $0 * $0 } }
    _ = try Self.expectSame(random.rows(500, 96).map(heavy), random.rows(200, 96).map(heavy), k: 12)
    _ = try Self.expectSame(random.rows(500, 96), random.rows(200, 96).map { $0.map { $0 > 2.5 ? 1000 : $0 } }, k: 12)
  }

  @Test func ofTiesAndDuplicates() throws {
    var random = TestRandom(3)
    let some = random.rows(20, 64)
    let duplicates = (0..<400).map { some[$0 % 20] }
    _ = try Self.expectSame(duplicates, random.rows(100, 64), k: 30)
    // Duplicates that differ in one last bit.
    let near = (0..<400).map { i in some[i % 20].enumerated().map { $0.offset == i % 64 ? $0.element.nextUp : $0.element } }
    _ = try Self.expectSame(near, random.rows(100, 64), k: 30)
    let whole = random.rows(300, 64).map { $0.map { ($0 * 2).rounded() } }
    _ = try Self.expectSame(whole, random.rows(100, 64).map { $0.map { $0.rounded() } }, k: 25)
  }

  @Test func ofTokensThatAreNothingLikeTheLast() throws {
    var random = TestRandom(4)
    let tokens = (0..<120).map { t -> [Float] in
      let row = random.row(80)
      let size: Float = [1, 0, 1e-30, 1e30, 1e-3, 1e19, 1e-42, 300][t % 8]
      return row.map { $0 * size }
    }
    let counts = try Self.expectSame(random.rows(300, 80), tokens, k: 10)
    #expect(counts.computed >= 15 * 300, "nothing is known of tokens of size 1e30")
    let oneHot = (0..<80).map { t in (0..<80).map { Float($0 == t ? 1 : 0) } }
    _ = try Self.expectSame(random.rows(300, 80), oneHot, k: 10)
  }

  @Test func whereNothingIsPositive() throws {
    var random = TestRandom(5)
    let concepts = random.rows(300, 40).map { $0.map { -abs($0) } }
    let tokens = random.rows(50, 40).map { $0.map { abs($0) } }
    _ = try Self.expectSame(concepts, tokens, k: 5)
    _ = try Self.expectSame(concepts, tokens, k: 5, bias: { $0 % 100 == 0 ? 1e3 : 0 })
    _ = try Self.expectSame(concepts, tokens, k: 5, scale: { $0 % 2 == 0 ? 0 : 1 }, bias: { $0 % 7 == 0 ? 1e-6 : 0 })
  }

  @Test func ofWeightsAtTheEndsOfTheRange() throws {
    var random = TestRandom(6)
    let tokens = random.rows(60, 48)
    for size in [Float(1e-38), 1e-20, 1e14, 1e37] {
      let concepts = random.rows(300, 48).enumerated().map { i, row in row.map { $0 * (i % 3 == 0 ? size : 1) } }
      _ = try Self.expectSame(concepts, tokens, k: 9)
    }
  }

  @Test func ofTinyNumbers() throws {
    var random = TestRandom(8)
    for exponent in stride(from: -44, through: -5, by: 3) {
      var size: Float = 1
      for _ in 0..<(-exponent) { size /= 10 }
      let tiny = random.rows(40, 64).map { $0.map { $0 * size } }
      for bias: Float in [0, 1] {
        _ = try Self.expectSame(random.rows(300, 64), tiny, k: 9, bias: { bias * Float($0 % 50) })
        _ = try Self.expectSame(random.rows(300, 64).map { $0.map { $0 * 1e10 } }, tiny, k: 9, bias: { bias * Float($0 % 50) })
        let some = random.rows(300, 64).enumerated().map { i, row in row.map { $0 * (i % 7 == 0 ? size : 1) } }
        _ = try Self.expectSame(some, random.rows(40, 64), k: 9, bias: { $0 % 7 == 0 ? 2.5 * bias : 0 })
      }
      let lone = (0..<20).map { t in (0..<64).map { Float($0 == t ? size : 0) } }
      _ = try Self.expectSame(random.rows(300, 64), lone, k: 9, bias: { Float($0 % 3) - 1 })
    }
  }

  /// Estimates above 0 and pre-activations below it, so that exact thresholds come out at 0, and columns past the last concept.
  @Test func whereEstimatesAreTooHigh() throws {
    let sizes = [Float(1)] + (0..<64).map { _ in 0.6 / 127 } + (0..<192).map { _ in -0.4 / 127 }
    let concepts = (0..<257).map { c in sizes.map { $0 * (1 + Float(c) / 1000) } }
    let tokens = (0..<60).map { t in [Float(0)] + (0..<256).map { _ in 1 + Float(t) / 60 } }
    _ = try Self.expectSame(concepts, tokens, k: 20)
  }

  /// Top-k thresholds that the margin rounds to themselves.
  @Test func ofBiasesOfFewBits() throws {
    let concepts = (0..<512).map { _ in [Float](repeating: 0, count: 64) }
    let tokens = (0..<40).map { t in [Float](repeating: t < 20 ? 1e-3 : 1, count: 64) }
    for bias: Float in [1e-44, 1e-45, 3e-44] { _ = try Self.expectSame(concepts, tokens, k: 9, bias: { _ in bias }) }
  }

  /// Few tokens have k positive pre-activations; the others have thousands.
  @Test func whereSomeTokensHaveLittle() throws {
    var random = TestRandom(10)
    let concepts = random.rows(700, 48).map { row in [2 + abs(row[0])] + row.dropFirst() }
    let tokens = random.rows(120, 48).enumerated().map { t, row in [t % 3 == 0 ? Float(-9) : 3] + row.dropFirst() }
    _ = try Self.expectSame(concepts, tokens, k: 100)
  }

  /// More pairs than fit into memory at once.
  @Test func ofMoreCandidatesThanFit() throws {
    var random = TestRandom(9)
    let counts = try Self.expectSame(random.rows(2048, 64), random.rows(300, 64), k: 600)
    #expect(counts.candidates > 300 * 690)
    let outliers = random.rows(230, 96).map { $0.enumerated().map { $0.offset == 11 ? 100 * $0.element : $0.element } }
    _ = try Self.expectSame(random.rows(6144, 96), outliers, k: 32)
  }

  @Test(arguments: [Float(1e-40), 1e-25, 1e-11, 1e-9, 1, 1e9, 1e13])
  func estimatesAreWithinTheirBounds(size: Float) throws {
    var random = TestRandom(7)
    for depth in [16, 100, 700] {
      let concepts = random.rows(64, depth).enumerated().map { i, row in row.map { $0 * (i % 2 == 0 ? 1 : size) } }
      let bias = random.row(64)
      let factors = try FloatBuffer(64), biases = try FloatBuffer(64)
      factors.fill(1)
      biases.base.update(from: bias, count: 64)
      let weights = try ScreenedWeights(
        try Self.matrix(concepts), columns: 64, scales: factors, bias: biases, work: InterruptibleWork(threads: 1))
      let parts = try AlignedBuffer<Int32>(2 * weights.groups)
      for (t, numbers) in random.rows(50, depth).enumerated() {
        let token = numbers.map { $0 * (t % 2 == 0 ? 1 : size) }
        try Self.expectWithinBounds(token, concepts, bias, weights, parts)
      }
    }
  }

  private static func expectWithinBounds(
    _ token: [Float], _ concepts: [[Float]], _ bias: [Float], _ weights: ScreenedWeights, _ parts: AlignedBuffer<Int32>
  ) throws {
    let row = try matrix([token])
    let split = Int8Row(row.base, columns: row.stride, factor: 1, groups: weights.groups, to: parts.base)
    let bounds = ErrorBounds(split, roundingShare: weights.roundingShare)
    guard bounds.isUsable, weights.isUsable else { return }
    for group in 0..<2 * weights.groups { parts.base[group] ^= Int32(bitPattern: 0x8080_8080) }
    let scales = [split.scale]
    let estimates = try allEstimates(weights, parts.base, scale: split.scale)
    let factors = bounds.factors(roundingShare: weights.roundingShare)
    for c in 0..<64 {
      let exact = zip(token, concepts[c]).reduce(bias[c]) { $0.addingProduct($1.0, $1.1) }
      let known = weights.bounds
      let bound = factors.ofNorm * known.norms.base[c] + factors.ofError * known.highErrors.base[c] + known.slacks.base[c]
      #expect(abs(exact - estimates[c]) <= bound)
      var (number, sum, addition) = (Int32(c), Int32(0), Float(0))
      weights.refine(
        &number, [0], count: 1, parts: parts.base, tokenScales: scales, sums: &sum, consume: { addition = $1 })
      let refined = known.refined(bounds, c)
      #expect(abs(exact - estimates[c] - addition) <= refined)
      // The bounds are small, too.
      let whole = bounds.norm * known.norms.base[c]
      if split.scale > 0, known.highErrors.base[c] < 0.1 * known.norms.base[c] {
        #expect(bound <= 0.05 * whole + known.slacks.base[c] && refined <= 0.001 * whole + known.slacks.base[c])
      }
    }
  }

  /// The estimates of one token for 64 concepts, all of which a search from a threshold of -infinity finds.
  private static func allEstimates(_ weights: ScreenedWeights, _ parts: UnsafePointer<Int32>, scale: Float) throws -> [Float] {
    let packed = try PackedInt8Tokens(capacity: 1, groups: weights.groups)
    packed.place(parts, scale: scale, factors: (0, 0), threshold: -.infinity, at: 0)
    let pairs = try AlignedBuffer<Int32>(96), estimates = try FloatBuffer(96)
    var found = FoundPairs(pairs: pairs.base, conceptBits: 6, numbers: estimates.base, capacity: 80)
    weights.screen(packed, count: 1, &found)
    #expect(found.found == 64 && found.nextColumn == 64)
    #expect((0..<64).allSatisfy { pairs.base[$0] == $0 })
    return (0..<64).map { estimates.base[$0] }
  }
}
