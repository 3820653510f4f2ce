/// A dense, row-major matrix of 32-bit floats, which Swift callers pass in and get back.
public struct Matrix: Sendable, Equatable {
  public let rows, columns: Int
  public private(set) var values: [Float]

  /// - Parameter values: row after row, `rows * columns` of them.
  public init(rows: Int, columns: Int, values: [Float]) throws(USAEError) {
    guard rows >= 0, columns >= 0, rows.multipliedReportingOverflow(by: columns) == (values.count, false) else {
      throw .shapeMismatch(name: "values", expected: "\(rows) x \(columns) numbers", got: "\(values.count)")
    }
    self.rows = rows
    self.columns = columns
    self.values = values
  }

  init(rows: Int, columns: Int) {
    self.rows = rows
    self.columns = columns
    values = [Float](repeating: 0, count: rows * columns)
  }

  public subscript(row: Int, column: Int) -> Float {
    get { values[row * columns + column] }
    set { values[row * columns + column] = newValue }
  }

  /// Runs `body` with these values as activations, valid inside it.
  func withActivations<Result>(name: String, _ body: (Activations) throws(USAEError) -> Result) throws(USAEError)
    -> Result
  {
    try values.withUnsafeBufferPointer { buffer throws(USAEError) in
      // An empty array has no address, and none of it is read.
      let base = UnsafeRawPointer(buffer.baseAddress) ?? UnsafeRawPointer(bitPattern: 64)!
      return try body(
        try Activations(
          name: name, base: base, element: .float32, outer: rows, inner: 1, columns: columns, outerStride: columns * 4,
          innerStride: 0, columnStride: 4))
    }
  }

  mutating func withMutableValues(_ body: (UnsafeMutablePointer<Float>) throws(USAEError) -> Void) throws(USAEError) {
    try values.withUnsafeMutableBufferPointer { buffer throws(USAEError) in
      if let base = buffer.baseAddress { try body(base) }
    }
  }
}
