/// The entries of a batch of codes, sorted by concept and within a concept by token: a counting sort.
///
/// A dictionary row's gradient is then one weighted sum of contiguous lists, made by one thread in a fixed order.
final class ConceptGroups: @unchecked Sendable {
  /// Entries of concept c are start[c]..<start[c + 1].
  let start: AlignedBuffer<Int>
  let tokens: AlignedBuffer<Int32>
  let values: FloatBuffer
  let gradients: FloatBuffer
  private let cursor: AlignedBuffer<Int>
  private let concepts: Int

  init(rows: Int, slots: Int, concepts: Int) throws(USAEError) {
    self.concepts = concepts
    start = try AlignedBuffer<Int>(concepts + 1)
    cursor = try AlignedBuffer<Int>(concepts)
    tokens = try AlignedBuffer<Int32>(rows * slots)
    values = try FloatBuffer(rows * slots)
    gradients = try FloatBuffer(rows * slots)
  }

  /// The entries of one concept, as pointers.
  struct Entries {
    let count: Int
    let tokens: UnsafePointer<Int32>
    let values, gradients: UnsafePointer<Float>
  }

  @inline(__always)
  func entries(_ concept: Int) -> Entries {
    let first = start.base[concept]
    return Entries(
      count: start.base[concept &+ 1] &- first, tokens: tokens.base + first, values: values.base + first,
      gradients: gradients.base + first)
  }

  /// - Parameter codeGradients: dLoss/dcode by token and slot, laid out as the codes.
  func group(_ codes: CodeBuffer, _ codeGradients: FloatBuffer, rows: Int) {
    start.zero()
    for t in 0..<rows {
      let indices = codes.indices(t)
      for q in 0..<codes.count(t) { start.base[Int(indices[q]) &+ 1] &+= 1 }
    }
    for c in 0..<concepts {
      cursor.base[c] = start.base[c]
      start.base[c + 1] += start.base[c]
    }
    for t in 0..<rows {
      let indices = codes.indices(t)
      for q in 0..<codes.count(t) {
        let place = cursor.base[Int(indices[q])]
        cursor.base[Int(indices[q])] = place &+ 1
        tokens.base[place] = Int32(truncatingIfNeeded: t)
        values.base[place] = codes.values(t)[q]
        gradients.base[place] = codeGradients.base[t &* codes.slots &+ q]
      }
    }
  }
}
