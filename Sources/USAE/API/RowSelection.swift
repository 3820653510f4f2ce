/// Which rows of the activations make a batch.
package enum RowSelection {
  case all
  case some(UnsafeBufferPointer<Int64>)

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
}
