import KernelTypes

@testable import USAE

/// What each kernel computes, in loops too simple to be wrong. Sums are in double.
enum Reference {
  static func product(_ tokens: [[Float]], _ concepts: [[Float]], _ bias: [Float]) -> [[Double]] {
    tokens.map { x in
      zip(concepts, bias).map { w, b in zip(x, w).reduce(Double(b)) { $0 + Double($1.0) * Double($1.1) } }
    }
  }

  /// Positions of the k largest positive values: by value, largest first, then by position.
  static func topK(_ row: [Float], k: Int) -> [Int] {
    Array(row.indices.filter { row[$0] > 0 }.sorted { (row[$0], -$0) > (row[$1], -$1) }.prefix(k))
  }

  static func weightedRows(_ rows: [[Float]], _ indices: [Int], _ coefficients: [Float]) -> [Double] {
    var out = [Double](repeating: 0, count: rows[0].count)
    for (index, a) in zip(indices, coefficients) {
      for c in out.indices { out[c] += Double(a) * Double(rows[index][c]) }
    }
    return out
  }

  static func dot(_ a: [Float], _ b: [Float]) -> Double { zip(a, b).reduce(0) { $0 + Double($1.0) * Double($1.1) } }

  static func loss(_ which: Int32, _ r: [Float]) -> Double {
    r.reduce(0) { $0 + (which == absoluteLoss ? abs(Double($1)) : Double($1) * Double($1)) }
  }

  static func slope(_ which: Int32, _ a: Float, _ r: Float) -> Float {
    if which == squaredLoss { return 2 * a * r }
    return r > 0 ? a : r < 0 ? -a : 0
  }
}

/// Repeatable numbers for tests.
struct TestRandom {
  private let random: CounterRandom
  private var position: UInt64 = 0

  init(_ seed: UInt64) { random = CounterRandom(seed: seed, stream: .dictionary) }

  mutating func row(_ count: Int) -> [Float] {
    var values = [Float](repeating: 0, count: count)
    values.withUnsafeMutableBufferPointer { random.fillNormals($0, from: position) }
    position += UInt64(count / 4 + 1)
    return values
  }

  mutating func rows(_ count: Int, _ columns: Int) -> [[Float]] { (0..<count).map { _ in row(columns) } }

  mutating func matrix(_ rows: Int, _ columns: Int) throws -> Matrix {
    try Matrix(rows: rows, columns: columns, values: row(rows * columns))
  }
}

/// Memory that keeps its place, for pointers that outlive a call.
func buffer<Element: BitwiseCopyable>(_ values: [Element]) throws -> AlignedBuffer<Element> {
  let buffer = try AlignedBuffer<Element>(values.count)
  buffer.base.update(from: values, count: values.count)
  return buffer
}

extension Matrix {
  /// The rows from `range`.
  func slice(_ range: Range<Int>) throws -> Matrix {
    try Matrix(
      rows: range.count, columns: columns, values: Array(values[range.lowerBound * columns..<range.upperBound * columns]))
  }
}
