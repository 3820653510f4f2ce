/// A dense matrix of 32-bit floats, row after row: what Swift callers pass in and get back.
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

  /// Runs `body` with a view of these values, valid inside it.
  func withActivations<Result>(name: String, _ body: (Activations) throws(USAEError) -> Result) throws(USAEError)
    -> Result
  {
    try values.withUnsafeBufferPointer { buffer throws(USAEError) in
      // An empty array has no address, and an empty view needs none.
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

/// Activations of one model where they lie in the caller's memory, [outer * inner, columns].
///
/// Two row strides, so that [images, tokens, d] with a token sliced off is read without a copy.
package struct Activations {
  package enum Element: Sendable {
    case float32, float16, float64, bfloat16

    var size: Int {
      switch self {
      case .float32: 4
      case .float16, .bfloat16: 2
      case .float64: 8
      }
    }
  }

  package let name: String
  package let columns: Int
  package var rows: Int { outer * inner }
  private let base: UnsafeRawPointer
  private let element: Element
  private let outer, inner: Int
  private let outerStride, innerStride, columnStride: Int

  /// - Throws: `invalidArgument` for negative sizes, or more rows than can be counted.
  package init(
    name: String, base: UnsafeRawPointer, element: Element, outer: Int, inner: Int, columns: Int, outerStride: Int,
    innerStride: Int, columnStride: Int
  ) throws(USAEError) {
    let (rows, overflow) = outer.multipliedReportingOverflow(by: inner)
    guard outer >= 0, inner >= 0, columns >= 0, !overflow else {
      throw .invalidArgument(
        name: "activations of '\(name)'", expected: "a shape of numbers from 0 up", got: "\(outer) x \(inner) x \(columns)")
    }
    self.name = name
    self.base = base
    self.element = element
    self.outer = outer
    self.inner = rows == 0 ? 1 : inner
    self.columns = columns
    self.outerStride = outerStride
    self.innerStride = innerStride
    self.columnStride = columnStride
  }

  /// Standardises row `row` into `out` [columns]; false if it holds a number that is not finite.
  ///
  /// - Parameter scratch: `columns` floats, used where a row's elements are not adjacent.
  func standardize(
    row: Int, mean: UnsafePointer<Float>, inverseScale: UnsafePointer<Float>, scratch: UnsafeMutablePointer<Float>,
    out: UnsafeMutablePointer<Float>
  ) -> Bool {
    let start = address(row)
    guard columnStride == element.size else {
      for c in 0..<columns { scratch[c] = value(at: start + c &* columnStride) }
      return kernels.standardize.float32(UnsafeRawPointer(scratch), columns, mean, inverseScale, out)
    }
    switch element {
    case .float32: return kernels.standardize.float32(start, columns, mean, inverseScale, out)
    case .float16: return kernels.standardize.float16(start, columns, mean, inverseScale, out)
    case .float64: return kernels.standardize.float64(start, columns, mean, inverseScale, out)
    case .bfloat16: return kernels.standardize.bfloat16(start, columns, mean, inverseScale, out)
    }
  }

  /// Column of the first number of a row that is NaN or infinite as float32.
  func firstNotFinite(row: Int) -> Int? {
    let start = address(row)
    return (0..<columns).first { !value(at: start + $0 &* columnStride).isFinite }
  }

  @inline(__always)
  private func address(_ row: Int) -> UnsafeRawPointer {
    let (image, token) = row.quotientAndRemainder(dividingBy: inner)
    return base.advanced(by: image &* outerStride &+ token &* innerStride)
  }

  private func value(at address: UnsafeRawPointer) -> Float {
    switch element {
    case .float32: return address.loadUnaligned(as: Float.self)
    case .float64: return Float(address.loadUnaligned(as: Double.self))
    case .bfloat16: return Float(bitPattern: UInt32(address.loadUnaligned(as: UInt16.self)) << 16)
    case .float16: return Float(halfBits: address.loadUnaligned(as: UInt16.self))
    }
  }
}

extension Float {
  /// The value of an IEEE half with these bits.
  fileprivate init(halfBits: UInt16) {
    let sign: Float = halfBits & 0x8000 == 0 ? 1 : -1
    let exponent = Int(halfBits >> 10) & 0x1f
    let fraction = Float(halfBits & 0x3ff)
    switch exponent {
    case 0: self = sign * fraction * 0x1p-24
    case 31: self = fraction == 0 ? sign * .infinity : .nan
    default: self = sign * (1024 + fraction) * Float(sign: .plus, exponent: exponent - 25, significand: 1)
    }
  }
}

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
