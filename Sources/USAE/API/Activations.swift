/// One model's activations in the caller's memory, [outer * inner, columns].
///
/// With two row strides, [images, tokens, d] without its prefix token is read without a copy. They may be a selection of the
/// rows of an array: rows are then counted in the selection, and the others are never read.
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
  package var rows: Int { selection.count(of: storedRows) }
  /// Rows in memory, of which `rows` are selected.
  var storedRows: Int { outer * inner }
  private let base: UnsafeRawPointer
  private let element: Element
  private let outer, inner: Int
  private let outerStride, innerStride, columnStride: Int
  let selection: RowSelection

  /// The most rows, and the most columns: so few that the elements of a chunk, and bytes between them, can be counted.
  static let mostRows = 1 << 40

  /// - Parameter selection: numbers of rows in memory, which increase.
  /// - Throws: `invalidArgument` for negative sizes, more rows or columns than there can be, or a selection of other rows.
  package init(
    name: String, base: UnsafeRawPointer, element: Element, outer: Int, inner: Int, columns: Int, outerStride: Int,
    innerStride: Int, columnStride: Int, selection: RowSelection = .all
  ) throws(USAEError) {
    let (rows, overflow) = outer.multipliedReportingOverflow(by: inner)
    guard outer >= 0, inner >= 0, (0...Self.mostRows).contains(columns), !overflow, rows <= Self.mostRows else {
      throw .invalidArgument(
        name: "activations of '\(name)'", expected: "a shape of numbers from 0 to 2^40, of rows and of columns",
        got: "\(outer) x \(inner) x \(columns)")
    }
    self.name = name
    self.base = base
    self.element = element
    (self.outer, self.inner) = rows == 0 ? (0, 1) : (outer, inner)  // no rows, and no division by 0
    self.columns = columns
    self.outerStride = outerStride
    self.innerStride = innerStride
    self.columnStride = columnStride
    self.selection = selection
    try selection.validateIncreasing(total: rows, name: name)
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

  /// The same in double, for standardisations that float32 cannot compute.
  func standardize(row: Int, _ doubles: ModelParameters.DoubleStandardization, out: UnsafeMutablePointer<Float>) -> Bool {
    let start = address(row)
    var bad: Float = 0
    for c in 0..<columns {
      let y = Float((exactValue(at: start + c &* columnStride) - doubles.center[c]) * doubles.inverseScale[c])
      bad += y - y
      out[c] = y
    }
    return bad == 0
  }

  /// The elements of a row as they are.
  func read(row: Int, to out: UnsafeMutablePointer<Double>) {
    let start = address(row)
    for c in 0..<columns { out[c] = exactValue(at: start + c &* columnStride) }
  }

  /// Whether two rows hold the same numbers.
  func equal(_ row: Int, _ other: Int) -> Bool {
    let (start, otherStart) = (address(row), address(other))
    return (0..<columns).allSatisfy {
      exactValue(at: start + $0 &* columnStride) == exactValue(at: otherStart + $0 &* columnStride)
    }
  }

  func element(row: Int, column: Int) -> Double { exactValue(at: address(row) + column &* columnStride) }

  var isFloat64: Bool { element == .float64 }

  /// Column of the first number of a row that is NaN or infinite as float32.
  func firstNotFinite(row: Int) -> Int? {
    let start = address(row)
    return (0..<columns).first { !value(at: start + $0 &* columnStride).isFinite }
  }

  /// The caller's number of a row, counted in memory.
  @inline(__always)
  func number(ofRow row: Int) -> Int { selection.row(row) }

  /// Row numbers are the caller's, and another thread may change them after they were checked, so that they are limited again.
  @inline(__always)
  private func address(_ row: Int) -> UnsafeRawPointer {
    let stored = min(max(selection.row(min(max(row, 0), rows - 1)), 0), storedRows - 1)
    let (image, token) = stored.quotientAndRemainder(dividingBy: inner)
    return base.advanced(by: image &* outerStride &+ token &* innerStride)
  }

  private func exactValue(at address: UnsafeRawPointer) -> Double {
    element == .float64 ? address.loadUnaligned(as: Double.self) : Double(value(at: address))
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

extension [Activations?] {
  /// The models that a batch or a part of the data has, ascending.
  var present: [Int] { indices.filter { self[$0] != nil } }
}
