import Testing
import KernelTypes

@testable import USAE

/// Products with signs, and transposes, of every instruction set that this machine has.
@Suite struct SignKernelTests {
  static let names = availableKernels().map { "\($0.name)" }

  static func table(_ name: String) throws -> KernelTable {
    try #require(availableKernels().first { "\($0.name)" == name })
  }

  @Test(arguments: names, [1, 59, 60, 61, 150])
  func sumsOfSignedVectors(kernels name: String, count: Int) throws {
    let signs = try Self.table(name).signs
    var random = TestRandom(UInt64(count))
    let rows = 7, wordStride = 9
    let slopes = random.rows(rows, count)
    let values = random.rows(count, 48)  // the lanes are columns 16 to 31
    let flat = values.flatMap { $0 }
    var words = [UInt64](repeating: ~0, count: (count + signsPerWord - 1) / signsPerWord * wordStride)
    words.withUnsafeMutableBufferPointer { words in
      for r in 0..<rows { #expect(!signs.words(slopes[r], count, words.baseAddress! + r, wordStride)) }
    }
    var tables = [Float](repeating: 0, count: 12 * 32 * 16)
    var out = [Float](repeating: 0.5, count: rows * 16 + 1)
    flat.withUnsafeBufferPointer {
      signs.sums($0.baseAddress! + 16, 48, count, words, wordStride, rows, &tables, &out)
    }
    for r in 0..<rows {
      for lane in 0..<16 {
        let terms = (0..<count).map { Double(values[$0][16 + lane]) * (slopes[r][$0] > 0 ? 1 : -1) }
        let magnitude = terms.reduce(0.5) { $0 + abs($1) }
        // Each value enters a table through five additions, and a sum through one for each table.
        #expect(abs(Double(out[r * 16 + lane]) - terms.reduce(0.5, +)) <= KernelTests.tolerance(count + 5, magnitude))
      }
    }
    #expect(out[rows * 16] == 0.5)
  }

  @Test(arguments: names)
  func aSlopeOfZeroIsSeen(kernels name: String) throws {
    let signs = try Self.table(name).signs
    var words = [UInt64](repeating: 0, count: 2)
    var row = [Float](repeating: -1, count: 64)
    row[63] = 2
    #expect(!signs.words(row, 64, &words, 1))
    #expect(words == [0, 1 << 3])
    row[62] = 0
    #expect(signs.words(row, 64, &words, 1))
    row[62] = -0.0
    #expect(signs.words(row, 64, &words, 1))
    #expect(!signs.words(row, 62, &words, 1), "only what is asked for")
    row[62] = 1
    for place in [0, 15, 16, 59, 60, 61] {
      let kept = row[place]
      row[place] = 0
      #expect(signs.words(row, 64, &words, 1), "\(place)")
      row[place] = kept
    }
  }

  @Test(arguments: names)
  func bitsByDimension(kernels name: String) throws {
    let signs = try Self.table(name).signs
    var words = [UInt64](repeating: 0, count: 5)
    signs.addSigns([1, -1, 0, 3, -2], 5, 0, &words)
    signs.addSigns([1, 1, -1, -1, -1], 5, 59, &words)
    #expect(words == [1 | 1 << 59, 1 << 59, 0, 1, 0])
  }

  @Test(arguments: names)
  func maskedValuesAndTheirSums(kernels name: String) throws {
    let signs = try Self.table(name).signs
    var random = TestRandom(3)
    let values = random.rows(20, 16), codes = random.rows(20, 32)
    var out = [Float](repeating: -7, count: 20 * 24)
    var sums = [Float](repeating: 1, count: 16)
    signs.maskAndSum(values.flatMap { $0 }, 16, codes.flatMap { $0 }, 32, 20, &out, 24, &sums)
    for lane in 0..<16 {
      let kept = (0..<20).map { codes[$0][lane] > 0 ? values[$0][lane] : 0 }
      #expect((0..<20).map { out[$0 * 24 + lane] } == kept)
      #expect(abs(sums[lane] - kept.reduce(1, +)) < 1e-5)
    }
    #expect((0..<20).allSatisfy { out[$0 * 24 + 20] == -7 })
  }

  @Test(arguments: names)
  func lanesBecomeRows(kernels name: String) throws {
    let transpose = try Self.table(name).transpose
    var random = TestRandom(5)
    let values = random.rows(32, 24)
    var out = [Float](repeating: -7, count: 16 * 40)
    transpose.lanes(values.flatMap { $0 }, 24, 32, &out, 40)
    for lane in 0..<16 {
      #expect((0..<32).allSatisfy { out[lane * 40 + $0] == values[$0][lane] })
      #expect((32..<40).allSatisfy { out[lane * 40 + $0] == -7 })
    }
  }

  @Test(arguments: names, [16, 48, 784])
  func transposing(kernels name: String, columns: Int) throws {
    let transpose = try Self.table(name).transpose
    var random = TestRandom(UInt64(columns))
    let rows = random.rows(16, columns), scales = random.row(16)
    var lanes = [Float](repeating: 0, count: columns * 16)
    transpose.rows(rows.flatMap { $0 }, columns, scales, columns, &lanes)
    for c in 0..<columns { for lane in 0..<16 { #expect(lanes[c * 16 + lane] == rows[lane][c] * scales[lane]) } }
    var out = rows.flatMap { $0 }
    var scratch = [Float](repeating: 0, count: 256)
    transpose.addLanes(lanes, columns, 2, &out, columns, &scratch)
    for c in 0..<columns {
      for lane in 0..<16 {
        let expected = rows[lane][c] + 2 * lanes[c * 16 + lane]
        #expect(abs(out[lane * columns + c] - expected) <= 1e-6 * (abs(rows[lane][c]) + 2 * abs(lanes[c * 16 + lane])))
      }
    }
  }
}
