/// A dictionary and the inverse norms of its rows, as raw pointers: a token or a concept is so little work that with objects,
/// threads would wait for each other's reference counts.
struct UnitRows {
  let rows: UnsafePointer<Float>
  let stride: Int
  let inverseNorms: UnsafePointer<Float>

  /// out = codes of one token times the unit rows of the dictionary, in standardised units.
  ///
  /// - Parameters:
  ///   - slots: the slots to decode; nil decodes all.
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
  /// Valid while the model exists.
  var unitRows: UnitRows {
    let rows = dictionary.value
    return UnitRows(rows: rows.base, stride: rows.stride, inverseNorms: inverseNorms.base)
  }
}
