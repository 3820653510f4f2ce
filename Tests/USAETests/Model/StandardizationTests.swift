import Testing

@testable import USAE

@Suite struct StandardizationTests {
  private static let width = 20

  @Test(arguments: [0, 1 << 40]) func moreRowsThanMemoryHasNumbersForAreRefused(wanted: Int) throws {
    var recipe = Recipe()
    recipe.statisticsTokens = wanted
    let sae = try UniversalSAE(concepts: 8, k: 2, recipe: recipe)
    let row: [Float] = [1, 2, 3]
    try row.withUnsafeBufferPointer { row in
      let endless = try Activations(
        name: "a", base: UnsafeRawPointer(row.baseAddress!), element: .float32, outer: 1 << 31, inner: 7, columns: 3,
        outerStride: 0, innerStride: 0, columnStride: 4)
      #expect(throws: USAEError.self) { try sae.initialize(from: [endless], work: sae.makeWork()) }
    }
  }

  private static func fitted(_ matrix: Matrix, _ recipe: Recipe = Recipe()) throws -> ModelParameters {
    let model = try ModelParameters(
      name: "a", width: matrix.columns, concepts: 4, batchNorm: false, batchTopK: false)
    try matrix.withActivations(name: "a") { activations throws(USAEError) in
      try Standardization(recipe: recipe, seed: 0).fit(
        model, to: ModelRows([activations]), work: InterruptibleWork(wanted: 2, poll: nil))
    }
    return model
  }

  private static func data(_ rows: Int, times factor: Float = 1) throws -> Matrix {
    var random = TestRandom(1)
    var matrix = try random.matrix(rows, width)
    for r in 0..<rows { for c in 0..<width { matrix[r, c] *= factor } }
    return matrix
  }

  /// Powers of two change no bit of the fraction.
  @Test(arguments: [-90, -20, 90])
  func unitsScaleMeanAndScale(exponent: Int) throws {
    let factor = Float(sign: .plus, exponent: exponent, significand: 1)
    let plain = try Self.fitted(try Self.data(500))
    let scaled = try Self.fitted(try Self.data(500, times: factor))
    for c in 0..<Self.width {
      #expect(abs(scaled.mean.base[c] / factor - plain.mean.base[c]) <= 1e-6)
      #expect(abs(scaled.scale.base[c] / factor / plain.scale.base[c] - 1) < 5e-5)
    }
  }

  @Test func outlyingRowsCountForNothing() throws {
    var spoiled = try Self.data(500)
    let kept = try Matrix(rows: 495, columns: Self.width, values: Array(spoiled.values[(5 * Self.width)...]))
    for r in 0..<5 { for c in 0..<Self.width { spoiled[r, c] *= 1000 } }
    let model = try Self.fitted(spoiled)
    let expected = try Self.fitted(kept)
    #expect(model.sample?.leftOutRows == 5)
    for c in 0..<Self.width {
      #expect(abs(model.mean.base[c] - expected.mean.base[c]) < 1e-6)
      #expect(abs(model.scale.base[c] / expected.scale.base[c] - 1) < 1e-6)
    }
    var recipe = Recipe()
    recipe.outlierMultiple = 0
    let all = try Self.fitted(spoiled, recipe)
    #expect(all.scale.base[0] > 10 * model.scale.base[0] && all.sample?.leftOutRows == 0)
  }

  @Test func rowsThatAreAllEqualAreRefused() throws {
    let equal = try Matrix(rows: 30, columns: 3, values: Array(repeating: 0.1, count: 90))
    #expect(throws: USAEError.self) { try Self.fitted(equal) }
    #expect(throws: USAEError.self) { try Self.fitted(try equal.slice(0..<1)) }
  }

  @Test func equalRowsAreCounted() throws {
    var padded = try Self.data(200)
    for r in 0..<150 { for c in 0..<Self.width { padded[r, c] = 0 } }
    let sample = try #require(try Self.fitted(padded).sample)
    #expect(sample.identicalRows == 150 && sample.outlyingRows == 0)
  }

  @Test(arguments: [Float(0), 1e-30, 1e-20, 1, 1e25, 3e37])
  func normsAreRightWhereSquaresLeaveTheRange(size: Float) throws {
    let row = try PaddedMatrix(rows: 1, columns: 4)
    for c in 0..<4 { row.base[c] = size }
    #expect(abs(rowNorm(row.base, row.stride) - 2 * size) <= 1e-6 * size)
  }
}
