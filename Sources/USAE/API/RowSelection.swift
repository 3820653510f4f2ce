/// Which rows of an array are activations, or which rows of activations make a batch.
package enum RowSelection {
  case all
  case some(UnsafeBufferPointer<Int64>)

  /// The most rows of a batch.
  package static let mostRows = 1 << 24

  func count(of total: Int) -> Int {
    switch self {
    case .all: return total
    case .some(let rows): return rows.count
    }
  }

  @inline(__always)
  func row(_ position: Int) -> Int {
    switch self {
    case .all: return position
    case .some(let rows): return Int(rows[position])
    }
  }

  func validate(total: Int) throws(USAEError) {
    guard case .some(let rows) = self else { return }
    for row in rows where row < 0 || row >= Int64(total) {
      throw .invalidArgument(name: "rows", expected: "numbers in 0..<\(total)", got: "\(row)")
    }
  }

  /// Whether the rows are a subset of all, in order.
  func validateIncreasing(total: Int, name: String) throws(USAEError) {
    guard case .some(let rows) = self else { return }
    guard rows.count <= total else {
      throw .invalidArgument(name: "rows of '\(name)'", expected: "at most the \(total) that there are", got: "\(rows.count)")
    }
    var last: Int64 = -1
    for row in rows {
      guard row > last, row < Int64(total) else {
        throw .invalidArgument(
          name: "rows of '\(name)'", expected: "increasing numbers in 0..<\(total)", got: "\(row) after \(last)")
      }
      last = row
    }
  }
}
