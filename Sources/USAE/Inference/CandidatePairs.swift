/// Pairs of a tile's tokens and the concepts that may be among their largest, and what refined estimates add to each.
///
/// Pairs come token by token and are refined concept by concept: a concept's digits are then read once for all tokens of the
/// tile, whose own digits stay in the second cache. The other way round every pair would fetch its concept from further away.
final class CandidatePairs: @unchecked Sendable {
  /// Room for pairs: those of any one token, and more.
  let capacity: Int
  private(set) var count = 0
  /// Concept of each pair, and what is added to its estimate.
  let concepts: AlignedBuffer<Int32>
  let refinements: FloatBuffer
  private let tokens: AlignedBuffer<Int32>
  // By concept: the pairs' numbers, their tokens, and what comes out.
  private let starts: AlignedBuffer<Int32>
  private let sortedPairs, sortedTokens, sums: AlignedBuffer<Int32>
  private let refined: FloatBuffer

  init(columns: Int, tokens count: Int) throws(USAEError) {
    capacity = columns + 512 * count
    concepts = try AlignedBuffer<Int32>(capacity)
    tokens = try AlignedBuffer<Int32>(capacity)
    refinements = try FloatBuffer(capacity)
    starts = try AlignedBuffer<Int32>(columns + 1)
    sortedPairs = try AlignedBuffer<Int32>(capacity)
    sortedTokens = try AlignedBuffer<Int32>(capacity)
    sums = try AlignedBuffer<Int32>(count)
    refined = try FloatBuffer(count)
  }

  func clear() { count = 0 }

  func hasRoom(for more: Int) -> Bool { count + more <= capacity }

  func add(token: Int, _ found: UnsafePointer<Int32>, _ more: Int) {
    (concepts.base + count).update(from: found, count: more)
    (tokens.base + count).update(repeating: Int32(truncatingIfNeeded: token), count: more)
    count += more
  }

  /// Fills `refinements`.
  func refine(_ weights: ScreenedWeights, digits: UnsafePointer<Int32>, tokenScales: UnsafePointer<Float>) {
    sortByConcept()
    var first = 0
    for concept in 0..<weights.columns {
      let last = Int(starts.base[concept])
      guard last > first else { continue }
      weights.refinements(
        of: concept, digits, tokenScales: tokenScales, sortedTokens.base + first, last - first, sums: sums.base,
        out: refined.base)
      for i in first..<last { refinements.base[Int(sortedPairs.base[i])] = refined.base[i - first] }
      first = last
    }
  }

  /// A counting sort; afterwards starts[c] is the end of concept c's pairs.
  private func sortByConcept() {
    starts.zero()
    for pair in 0..<count { starts.base[Int(concepts.base[pair]) &+ 1] &+= 1 }
    for c in 1..<starts.count { starts.base[c] &+= starts.base[c &- 1] }
    for pair in 0..<count {
      let concept = Int(concepts.base[pair])
      let place = Int(starts.base[concept])
      starts.base[concept] &+= 1
      sortedPairs.base[place] = Int32(truncatingIfNeeded: pair)
      sortedTokens.base[place] = tokens.base[pair]
    }
  }
}
