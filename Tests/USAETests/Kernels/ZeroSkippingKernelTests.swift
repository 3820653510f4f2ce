import Testing
import KernelTypes

@testable import USAE

/// Products that skip zeros, against plain loops, for every kernel set of this processor.
@Suite struct SkippingKernelTests {
  static let names = SignKernelTests.names

  private static func skipping(_ name: String) throws -> SkippingKernels { try SignKernelTests.table(name).skipping }

  /// Portable x86-64 kernels round products too.
  private static func multiplyAdd(_ sum: Float, _ a: Float, _ b: Float, _ name: String) -> Float {
    #if arch(x86_64)
      if name == "portable" { return sum + a * b }
    #endif
    return sum.addingProduct(a, b)
  }

  @Test(arguments: names, [0, 0.5, 1])
  func productsAreChainsInOrder(kernels name: String, share: Float) throws {
    let skipping = try Self.skipping(name)
    var random = TestRandom(1)
    for columns in [16, 64, 80, skipping.width] {
      let panel = random.rows(32, columns)
      let start = random.rows(7, columns)
      let values = random.rows(7, 40).map { $0.map { abs($0) < 2 * share ? $0 : 0 } }
      var out = start.flatMap { $0 + [Float](repeating: -7, count: 16) }
      skipping.add(values.flatMap { $0 }, 40, 7, panel.flatMap { $0 }, columns, &out, columns + 16)
      for r in 0..<7 {
        for c in 0..<columns {
          var expected = start[r][c]
          for i in 0..<32 { expected = Self.multiplyAdd(expected, values[r][i], panel[i][c], name) }
          #expect(out[r * (columns + 16) + c] == expected)
        }
        #expect(out[r * (columns + 16) + columns] == -7)
      }
    }
  }

  @Test(arguments: names)
  func rectifyingKeepsAndCountsWhatIsPositive(kernels name: String) throws {
    let skipping = try Self.skipping(name)
    var random = TestRandom(2)
    var row = random.row(96)
    row[3] = 0
    row[40] = .nan
    row[41] = -0.0
    var out = [Float](repeating: -7, count: 3 * 50)
    let count = skipping.rectify(row, 96, &out, 50)
    #expect(count == row.count { $0 > 0 })
    for c in 0..<96 { #expect(out[c / 32 * 50 + c % 32] == (row[c] > 0 ? row[c] : 0)) }
    #expect(out[32] == -7)
  }

  @Test(arguments: names)
  func rectifyingFillsUpTheLastPieceAndReadsNoFurther(kernels name: String) throws {
    var random = TestRandom(2)
    var row = random.row(80)  // 48 columns, a piece and a half, and numbers past the row
    for c in 48..<80 { row[c] = 1 }
    var out = [Float](repeating: -7, count: 2 * 32 + 1)
    let count = try Self.skipping(name).rectify(row, 48, &out, 32)
    #expect(count == row[..<48].count { $0 > 0 })
    #expect(Array(out[..<48]) == row[..<48].map { max($0, 0) })
    #expect(Array(out[48...]) == [Float](repeating: 0, count: 16) + [-7])
  }

  @Test(arguments: names)
  func panelsOfColumns(kernels name: String) throws {
    let skipping = try Self.skipping(name)
    var random = TestRandom(4)
    let rows = random.rows(5, 64), scales = random.row(5)
    for columns in [16, 48] {
      var out = [Float](repeating: 9, count: 5 * columns + 1)
      skipping.packColumns(rows.flatMap { $0 }, 64, 5, scales, columns, &out)
      for r in 0..<5 { for c in 0..<columns { #expect(out[r * columns + c] == rows[r][c] * scales[r]) } }
      skipping.packColumns(rows.flatMap { $0 }, 64, 5, nil, columns, &out)
      for r in 0..<5 { for c in 0..<columns { #expect(out[r * columns + c] == rows[r][c]) } }
      #expect(out[5 * columns] == 9)
    }
  }
}
