/// A dictionary, and what makes its rows unit vectors where they are used, as pointers into a model: a token or a concept is so
/// little work that threads which count references to one object wait for each other.
struct UnitRows {
  let rows: UnsafePointer<Float>
  let stride: Int
  let inverseNorms: UnsafePointer<Float>

  /// out = codes of one token times the unit rows of the dictionary, in standardised units.
  ///
  /// - Parameters:
  ///   - slots: those to take; nil takes all.
  ///   - scratch: a float for each slot.
  @inline(__always)
  func decode(
    _ codes: CodeBuffer, token: Int, slots: Range<Int>? = nil, scratch: UnsafeMutablePointer<Float>,
    to out: UnsafeMutablePointer<Float>
  ) {
    let slots = slots ?? 0..<codes.count(token)
    let count = slots.count
    let indices = codes.indices(token) + slots.lowerBound
    let values = codes.values(token) + slots.lowerBound
    for q in 0..<count { scratch[q] = values[q] * inverseNorms[Int(indices[q])] }
    kernels.rows.weightedSum(rows, stride, indices, scratch, count, stride, out)
  }
}

extension ModelParameters {
  /// Good as long as the model is kept.
  var unitRows: UnitRows {
    let rows = dictionary.value
    return UnitRows(rows: rows.base, stride: rows.stride, inverseNorms: inverseNorms.base)
  }
}
