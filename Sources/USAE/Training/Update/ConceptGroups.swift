/// The entries of a batch of codes, sorted by concept and within a concept by encoding: a counting sort.
///
/// A dictionary row's gradient is then one weighted sum of contiguous lists, made by one thread in a fixed order. So is an
/// encoder row's, since the encodings of one model follow each other.
final class ConceptGroups: @unchecked Sendable {
  private let encoders: Int
  /// Entries of concept c by the encoder at seat e are start[c * encoders + e]..<start[c * encoders + e + 1].
  let start: AlignedBuffer<Int>
  /// Numbers of rows in the array of codes that is grouped, and in that of the encoder's tokens.
  let rows, tokens: AlignedBuffer<Int32>
  let values: FloatBuffer
  let gradients: FloatBuffer
  private let cursor: AlignedBuffer<Int>
  private let concepts: Int

  init(rows: Int, encoders: Int, slots: Int, concepts: Int) throws(USAEError) {
    self.concepts = concepts
    self.encoders = encoders
    start = try AlignedBuffer<Int>(concepts * encoders + 1)
    cursor = try AlignedBuffer<Int>(concepts * encoders)
    self.rows = try AlignedBuffer<Int32>(rows * slots)
    tokens = encoders == 1 ? self.rows : try AlignedBuffer<Int32>(rows * slots)
    values = try FloatBuffer(rows * slots)
    gradients = try FloatBuffer(rows * slots)
  }

  /// Entries of one concept, as pointers.
  struct Entries {
    let count: Int
    let rows, tokens: UnsafePointer<Int32>
    let values, gradients: UnsafePointer<Float>
  }

  /// Those of all encoders.
  @inline(__always)
  func entries(_ concept: Int) -> Entries { entries(concept &* encoders, (concept &+ 1) &* encoders) }

  /// Those of the encoder at a seat.
  @inline(__always)
  func entries(_ concept: Int, seat: Int) -> Entries {
    entries(concept &* encoders &+ seat, concept &* encoders &+ seat &+ 1)
  }

  @inline(__always)
  private func entries(_ first: Int, _ end: Int) -> Entries {
    let first = start.base[first]
    return Entries(
      count: start.base[end] &- first, rows: rows.base + first, tokens: tokens.base + first, values: values.base + first,
      gradients: gradients.base + first)
  }

  /// - Parameters:
  ///   - codeGradients: dLoss/dcode by row and slot, laid out as the codes.
  ///   - parts: the rows of each encoder's codes.
  ///   - token: the number of a row among the encoder's tokens, of which there may be fewer than rows.
  func group(
    _ codes: CodeBuffer, _ codeGradients: FloatBuffer, parts: [Range<Int>], token: (_ seat: Int, _ row: Int) -> Int
  ) {
    start.zero()
    for (seat, rows) in parts.enumerated() {
      for t in rows {
        let indices = codes.indices(t)
        for q in 0..<codes.count(t) { start.base[Int(indices[q]) &* encoders &+ seat &+ 1] &+= 1 }
      }
    }
    for c in 0..<concepts * encoders {
      cursor.base[c] = start.base[c]
      start.base[c + 1] += start.base[c]
    }
    for (seat, rows) in parts.enumerated() {
      for t in rows {
        let indices = codes.indices(t)
        let token = Int32(truncatingIfNeeded: token(seat, t))
        for q in 0..<codes.count(t) {
          let key = Int(indices[q]) &* encoders &+ seat
          let target = cursor.base[key]
          cursor.base[key] = target &+ 1
          self.rows.base[target] = Int32(truncatingIfNeeded: t)
          if encoders > 1 { tokens.base[target] = token }
          values.base[target] = codes.values(t)[q]
          gradients.base[target] = codeGradients.base[t &* codes.slots &+ q]
        }
      }
    }
  }
}
