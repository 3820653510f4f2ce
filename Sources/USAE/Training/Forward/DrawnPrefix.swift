/// Nested dropout (Rippel et al., 2014): one prefix of the concepts, drawn for each step, reconstructs by itself.
///
/// In expectation it trains what the mean over all prefixes trains (`NestedPrefixes`), at no more than the cost of a step
/// without prefixes. Half of the steps take all concepts, so that the whole code, and the dead concepts that reconstruct its
/// residual, are learned fast enough; the other half share the shorter prefixes evenly.
struct DrawnPrefix {
  /// Ends of the prefixes as numbers of concepts, ascending; the last is all.
  let ends: [Int]

  /// Concepts that reconstruct in the step after `step` others.
  func concepts(seed: UInt64, step: Int) -> Int {
    let shorter = ends.count - 1
    let draw = CounterRandom(seed: seed, stream: .prefixDraw).index(UInt64(step), below: 2 * shorter)
    return ends[min(draw, shorter)]
  }
}

extension CodeBuffer {
  /// Moves each token's entries of the first `end` concepts to the front, in their order, and counts only these from now on.
  ///
  /// - Parameter found: gets the numbers of all entries.
  func keep(before end: Int, found: UnsafeMutablePointer<Int32>) {
    for token in 0..<rows { found[token] = keep(token, before: end) }
  }

  /// Returns the number of all entries.
  private func keep(_ token: Int, before end: Int) -> Int32 {
    let (values, indices, used) = (values(token), indices(token), count(token))
    var kept = 0
    for slot in 0..<used where Int(indices[slot]) < end {
      (values[kept], values[slot]) = (values[slot], values[kept])
      (indices[kept], indices[slot]) = (indices[slot], indices[kept])
      kept &+= 1
    }
    counts.base[token] = Int32(truncatingIfNeeded: kept)
    return Int32(truncatingIfNeeded: used)
  }
}
