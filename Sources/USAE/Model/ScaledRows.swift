/// What a dictionary's rows are multiplied by where they are used.
struct RowNorm {
  let kind: Recipe.DictionaryNorm
  let epsilon: Float

  /// For a row of this norm.
  @inline(__always)
  func scale(_ norm: Float) -> Float {
    let scale =
      switch kind {
      case .unit: 1 / (norm + epsilon)
      case .bounded: keeps(norm) ? 1 : 1 / norm
      }
    return scale.isFinite ? scale : 0  // a row of zeros, without epsilon, adds nothing
  }

  /// Whether a row of this norm is used as it is.
  ///
  /// The norm of a row that was divided by it is 1 but for rounding. Rounding must not decide whether the row's gradient has a
  /// part along the row, and so whether the row may get shorter.
  @inline(__always)
  func keeps(_ norm: Float) -> Bool { kind == .bounded && norm <= Self.bound }

  private static let bound: Float = 1 + 1e-6
}

extension Recipe {
  var rowNorm: RowNorm { RowNorm(kind: dictionaryNorm, epsilon: Float(dictionaryEpsilon)) }
}

/// A dictionary, with scales and norms of its rows, as raw pointers: a token or a concept is so little work that with objects,
/// threads would wait for each other's reference counts.
struct ScaledRows {
  let rows: UnsafePointer<Float>
  let stride: Int
  let rowScales, rowNorms: UnsafePointer<Float>

  /// out = codes of one token times the scaled rows of the dictionary, in standardised units.
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
    for q in 0..<count { scratch[q] = values[q] * rowScales[Int(indices[q])] }
    kernels.rows.weightedSum(rows, stride, indices, scratch, count, stride, out)
  }
}

extension ModelParameters {
  /// Valid while the model exists.
  var scaledRows: ScaledRows {
    let rows = dictionary.value
    return ScaledRows(rows: rows.base, stride: rows.stride, rowScales: rowScales.base, rowNorms: rowNorms.base)
  }
}
