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

  /// Stores one token's keys.
  @inline(__always)
  func store(_ keys: UnsafePointer<UInt64>, count: Int, row: Int) {
    counts.base[row] = Int32(truncatingIfNeeded: count)
    let first = row &* slots
    for q in 0..<count {
      values.base[first &+ q] = value(ofKey: keys[q])
      indices.base[first &+ q] = column(ofKey: keys[q])
    }
  }

  @inline(__always) func count(_ row: Int) -> Int { Int(counts.base[row]) }
  @inline(__always) func values(_ row: Int) -> UnsafeMutablePointer<Float> { values.base + row &* slots }
  @inline(__always) func indices(_ row: Int) -> UnsafeMutablePointer<Int32> { indices.base + row &* slots }
}
