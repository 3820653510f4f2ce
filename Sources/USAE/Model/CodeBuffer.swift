/// Sparse codes of a batch: [rows, slots] values and concepts, most active first, and the number of used slots.
final class CodeBuffer: @unchecked Sendable {
  let slots: Int
  let values: FloatBuffer
  let indices: AlignedBuffer<Int32>
  let counts: AlignedBuffer<Int32>

  init(rows: Int, slots: Int) throws(USAEError) {
    self.slots = slots
    let (count, overflow) = rows.multipliedReportingOverflow(by: slots)
    guard !overflow else { throw .outOfMemory(bytes: Int.max) }
    values = try FloatBuffer(count)
    indices = try AlignedBuffer<Int32>(count)
    counts = try AlignedBuffer<Int32>(rows)
  }

  var rows: Int { counts.count }

  /// Stores one token's keys, at most as many as there are slots.
  @inline(__always)
  func store(_ keys: UnsafeBufferPointer<UInt64>, row: Int) {
    counts.base[row] = Int32(truncatingIfNeeded: keys.count)
    let first = row &* slots
    for q in 0..<keys.count {
      values.base[first &+ q] = value(ofKey: keys[q])
      indices.base[first &+ q] = column(ofKey: keys[q])
    }
  }

  /// Whether the numbers for all entries of the first `rows` tokens, laid out as the codes, are finite.
  func isFinite(_ numbers: FloatBuffer, rows: Int) -> Bool {
    var sum: Float = 0  // of x - x: 0, or NaN from the first that is not finite
    for row in 0..<rows {
      let own = numbers.base + row &* slots
      for q in 0..<count(row) { sum += own[q] - own[q] }
    }
    return sum == 0
  }

  @inline(__always) func count(_ row: Int) -> Int { Int(counts.base[row]) }
  @inline(__always) func values(_ row: Int) -> UnsafeMutablePointer<Float> { values.base + row &* slots }
  @inline(__always) func indices(_ row: Int) -> UnsafeMutablePointer<Int32> { indices.base + row &* slots }
}
