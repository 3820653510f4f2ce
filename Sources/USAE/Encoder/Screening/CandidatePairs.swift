/// Pairs of a tile's tokens and concepts that may be among their largest, beside those whose pre-activations are computed anyway.
///
/// Pairs come token by token and are refined concept by concept: a concept's digits are then read once for all tokens of the
/// tile, whose own digits stay in the second cache. The other way round every pair would fetch its concept from further away.
final class CandidatePairs: @unchecked Sendable {
  /// Room for pairs: those of any one token, and more.
  let capacity: Int
  private(set) var count = 0
  let concepts: AlignedBuffer<Int32>
  private let tokens: AlignedBuffer<Int32>
  /// Estimates of the pre-activations, and what those are at most.
  private let estimates, uppers: FloatBuffer
  // By concept: the pairs' numbers, their concepts and tokens, and what comes out.
  private let starts: AlignedBuffer<Int32>
  private let sortedPairs, sortedConcepts, sortedTokens, sums: AlignedBuffer<Int32>

  init(columns: Int, tokens count: Int) throws(USAEError) {
    capacity = columns + 128 * count
    let room = capacity + 1  // writes come before it is known whether they count
    tokens = try AlignedBuffer<Int32>(room)
    concepts = try AlignedBuffer<Int32>(room)
    estimates = try FloatBuffer(room)
    uppers = try FloatBuffer(room)
    starts = try AlignedBuffer<Int32>(columns + 1)
    sortedPairs = try AlignedBuffer<Int32>(capacity)
    sortedConcepts = try AlignedBuffer<Int32>(capacity)
    sortedTokens = try AlignedBuffer<Int32>(capacity)
    sums = try AlignedBuffer<Int32>(capacity)
  }

  func clear() { count = 0 }

  /// Adds those of a token's candidates whose estimates are below a level, and whose upper ends are not below the floor.
  ///
  /// The caller sees to it that all of them would have room: `count + more` is at most `capacity`.
  func add(
    token: Int, _ found: UnsafePointer<Int32>, _ estimate: UnsafePointer<Float>, _ upper: UnsafePointer<Float>,
    count more: Int, below level: Float, floor: Float
  ) {
    var place = count
    for i in 0..<more {
      tokens.base[place] = Int32(truncatingIfNeeded: token)
      concepts.base[place] = found[i]
      estimates.base[place] = estimate[i]
      uppers.base[place] = upper[i]
      place &+= (estimate[i] < level ? 1 : 0) & (upper[i] < floor ? 0 : 1)
    }
    count = place
  }

  /// Drops the pairs that are below their token's floor.
  func prune(floors: UnsafePointer<Float>) {
    var kept = 0
    for pair in 0..<count {
      tokens.base[kept] = tokens.base[pair]
      concepts.base[kept] = concepts.base[pair]
      estimates.base[kept] = estimates.base[pair]
      uppers.base[kept] = uppers.base[pair]
      kept &+= uppers.base[pair] < floors[Int(tokens.base[pair])] ? 0 : 1
    }
    count = kept
  }

  /// The end of a token's pairs, which come next from `first` on.
  func end(of token: Int, from first: Int) -> Int {
    var end = first
    while end < count, tokens.base[end] == token { end &+= 1 }
    return end
  }

  /// Brings the upper ends close to the pre-activations, by the tokens' and concepts' second digits.
  func refine(
    _ weights: ScreenedWeights, digits: UnsafePointer<Int32>, tokenScales: UnsafePointer<Float>, bounds: [ErrorBounds]
  ) {
    sortByConcept()
    weights.refine(
      sortedConcepts.base, sortedTokens.base, count: count, digits: digits, tokenScales: tokenScales, sums: sums.base
    ) { place, refinement in
      let pair = Int(sortedPairs.base[place])
      let bound = weights.concepts.refined(bounds[Int(sortedTokens.base[place])], Int(sortedConcepts.base[place]))
      uppers.base[pair] = estimates.base[pair] + refinement + bound
    }
  }

  /// A counting sort.
  private func sortByConcept() {
    starts.zero()
    for pair in 0..<count { starts.base[Int(concepts.base[pair]) &+ 1] &+= 1 }
    for c in 1..<starts.count { starts.base[c] &+= starts.base[c &- 1] }
    for pair in 0..<count {
      let concept = Int(concepts.base[pair])
      let place = Int(starts.base[concept])
      starts.base[concept] &+= 1
      sortedPairs.base[place] = Int32(truncatingIfNeeded: pair)
      sortedConcepts.base[place] = concepts.base[pair]
      sortedTokens.base[place] = tokens.base[pair]
    }
  }
}
