import CUSAE
import USAE

// Each function of usae.h checks what a C caller can get wrong, calls the library, and turns a thrown error into a status.

/// Copies as many whole characters as fit, and a terminator. Does nothing where the capacity is 0.
func write(_ text: String, to bytes: UnsafeMutableRawBufferPointer) {
  guard !bytes.isEmpty else { return }
  var used = 0
  for character in text {
    let units = character.utf8
    guard used + units.count < bytes.count else { break }
    for unit in units {
      bytes[used] = unit
      used += 1
    }
  }
  bytes[used] = 0
}

/// A copy in memory that is never freed, for constants that C callers may keep.
func staticCopy<Element>(_ elements: [Element]) -> UnsafePointer<Element> {
  let copy = UnsafeMutablePointer<Element>.allocate(capacity: elements.count)
  copy.initialize(from: elements, count: elements.count)
  return UnsafePointer(copy)
}

func staticCopy(_ text: String) -> UnsafePointer<CChar> { staticCopy(Array(text.utf8CString)) }

extension UniversalSAE {
  /// The object behind a handle.
  static func at(_ handle: OpaquePointer?) throws(USAEError) -> UniversalSAE {
    Unmanaged<UniversalSAE>.fromOpaque(try required(handle.map(UnsafeRawPointer.init), "sae")).takeUnretainedValue()
  }
}

/// A pointer that must not be NULL.
func required<Pointer>(_ pointer: Pointer?, _ name: String) throws(USAEError) -> Pointer {
  guard let pointer else { throw .invalidArgument(name: name, expected: "an address", got: "NULL") }
  return pointer
}

extension Activations {
  init(_ matrix: usae_matrix, name: String) throws(USAEError) {
    try requireZero(matrix.reserved, "activations of '\(name)'")
    let empty = matrix.outer == 0 || matrix.inner == 0 || matrix.columns == 0
    // An empty array may have no address; none of it is read.
    guard let base = matrix.data ?? (empty ? UnsafeRawPointer(bitPattern: 64) : nil) else {
      throw .invalidArgument(name: "activations of '\(name)'", expected: "an address", got: "NULL")
    }
    try self.init(
      name: name, base: base, element: try Element(matrix.dtype, name: name), outer: Int(matrix.outer),
      inner: Int(matrix.inner), columns: Int(matrix.columns), outerStride: Int(matrix.outer_stride),
      innerStride: Int(matrix.inner_stride), columnStride: Int(matrix.column_stride),
      selection: try RowSelection(matrix, name: name))
  }

  /// The activations of `count` matrices, with the names of the models.
  static func list(
    _ matrices: UnsafePointer<usae_matrix>?, _ count: Int32, names: [String]
  ) throws(USAEError) -> [Activations] {
    guard (0...Int32(UniversalSAE.mostModels)).contains(count), count == 0 || matrices != nil else {
      throw .invalidArgument(
        name: "activations", expected: "an array of up to \(UniversalSAE.mostModels) matrices",
        got: matrices == nil ? "NULL" : "\(count) of them")
    }
    var activations: [Activations] = []
    for i in 0..<Int(count) {
      activations.append(try Activations(matrices![i], name: i < names.count ? names[i] : "number \(i)"))
    }
    return activations
  }

  /// The same, but nil for matrices that are 0 but for `reserved`: models that a batch or a part does not have.
  static func batch(
    _ matrices: UnsafePointer<usae_matrix>?, _ count: Int32, names: [String]
  ) throws(USAEError) -> [Activations?] {
    guard (0...Int32(UniversalSAE.mostModels)).contains(count), let matrices else {
      return try list(matrices, count, names: names)  // which says what is wrong
    }
    var batch: [Activations?] = []
    for i in 0..<Int(count) {
      let name = i < names.count ? names[i] : "number \(i)"
      batch.append(matrices[i].isAbsent ? nil : try Activations(matrices[i], name: name))
    }
    return batch
  }
}

extension usae_matrix {
  /// Whether it says that a model is absent.
  fileprivate var isAbsent: Bool {
    data == nil && rows == nil && n_rows == 0 && outer == 0 && inner == 0 && columns == 0 && reserved == 0
  }
}

extension RowSelection {
  init(_ matrix: usae_matrix, name: String) throws(USAEError) {
    guard matrix.n_rows >= 0, matrix.rows != nil || matrix.n_rows == 0 else {
      throw .invalidArgument(
        name: "n_rows of '\(name)'", expected: "the length of rows, 0 where that is NULL", got: "\(matrix.n_rows)")
    }
    self = matrix.rows.map { .some(UnsafeBufferPointer(start: $0, count: Int(matrix.n_rows))) } ?? .all
  }
}

extension Activations.Element {
  init(_ dtype: Int32, name: String) throws(USAEError) {
    switch dtype {
    case Int32(USAE_FLOAT32): self = .float32
    case Int32(USAE_FLOAT16): self = .float16
    case Int32(USAE_FLOAT64): self = .float64
    case Int32(USAE_BFLOAT16): self = .bfloat16
    default:
      throw .invalidArgument(name: "dtype of '\(name)'", expected: "one of USAE_FLOAT32...USAE_BFLOAT16", got: "\(dtype)")
    }
  }
}

/// The caller's interrupt, as a closure that the library polls.
func poll(_ interrupt: UnsafePointer<usae_interrupt>?) -> (@Sendable () -> Bool)? {
  guard let interrupt, let poll = interrupt.pointee.poll else { return nil }
  nonisolated(unsafe) let context = interrupt.pointee.context
  return { poll(context) != 0 }
}

/// What the caller wants to be told, as a closure that the library calls.
func progress(_ interrupt: UnsafePointer<usae_interrupt>?) -> (@Sendable (Int) -> Void)? {
  guard let interrupt, let progress = interrupt.pointee.progress else { return nil }
  nonisolated(unsafe) let context = interrupt.pointee.context
  return { progress(context, Int64($0)) }
}
