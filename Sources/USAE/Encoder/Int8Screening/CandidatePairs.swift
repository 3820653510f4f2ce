/// Pairs of a tile's tokens and their candidates, without the candidates on the shortlists, whose pre-activations are computed
/// anyway.
///
/// Pairs come token by token and are refined concept by concept: a concept's int8 parts are then read once for all tokens of
/// the tile, whose own parts stay in the second-level cache. Refined token by token, every pair would fetch its concept from a
/// slower cache.
final class CandidatePairs: @unchecked Sendable {
  /// The most pairs that fit: all concepts of any one token, and more.
  let capacity: Int
  private(set) var count = 0
  let concepts: AlignedBuffer<Int32>
  private let tokens: AlignedBuffer<Int32>
  /// Estimates of the pre-activations, and upper bounds on them.
  private let estimates, upperBounds: FloatBuffer
  // Sorted by concept: the numbers of the pairs, their concepts and tokens, and the sums of products of bytes.
  private let conceptEnds: AlignedBuffer<Int32>
  private let sortedPairs, sortedConcepts, sortedTokens, sums: AlignedBuffer<Int32>

  /// - Parameter tokens: most tokens of a tile.
  init(columns: Int, tokens count: Int) throws(USAEError) {
    capacity = columns + 128 * count
    let size = capacity + 1  // a pair is written before it is known whether it is kept
    tokens = try AlignedBuffer<Int32>(size)
    concepts = try AlignedBuffer<Int32>(size)
    estimates = try FloatBuffer(size)
    upperBounds = try FloatBuffer(size)
    conceptEnds = try AlignedBuffer<Int32>(columns + 1)
    sortedPairs = try AlignedBuffer<Int32>(capacity)
    sortedConcepts = try AlignedBuffer<Int32>(capacity)
    sortedTokens = try AlignedBuffer<Int32>(capacity)
    sums = try AlignedBuffer<Int32>(capacity)
  }

  func clear() { count = 0 }

  /// Adds those of a token's candidates whose estimates are below the top-k threshold, since others are on the shortlist, and
  /// whose upper bounds are not below the exact threshold.
  ///
  /// The caller sees to it that there is capacity for all candidates.
  func add(
    token: Int, _ found: TokenSearch.Found, upperBounds upper: UnsafePointer<Float>, topKThreshold: Float, exactThreshold: Float
  ) {
    var place = count
    for i in 0..<found.count {
      tokens.base[place] = Int32(truncatingIfNeeded: token)
      concepts.base[place] = found.concepts[i]
      estimates.base[place] = found.numbers[i]
      upperBounds.base[place] = upper[i]
      place &+= (found.numbers[i] < topKThreshold ? 1 : 0) & (upper[i] < exactThreshold ? 0 : 1)
    }
    count = place
  }

  /// Drops the pairs whose upper bound is below the token's exact threshold.
  func prune(exactThresholds: UnsafePointer<Float>) {
    var kept = 0
    for pair in 0..<count {
      tokens.base[kept] = tokens.base[pair]
      concepts.base[kept] = concepts.base[pair]
      estimates.base[kept] = estimates.base[pair]
      upperBounds.base[kept] = upperBounds.base[pair]
      kept &+= upperBounds.base[pair] < exactThresholds[Int(tokens.base[pair])] ? 0 : 1
    }
    count = kept
  }

  /// The end of a token's pairs, which come next from `first` on.
  func end(of token: Int, from first: Int) -> Int {
    var end = first
    while end < count, tokens.base[end] == token { end &+= 1 }
    return end
  }

  /// Lowers the upper bounds to those of refined estimates, which take the low int8 parts into account.
  func refine(_ weights: ScreenedWeights, _ search: CandidateSearch) {
    sortByConcept()
    let bounds = search.bounds
    weights.refine(
      sortedConcepts.base, sortedTokens.base, count: count, parts: search.parts, tokenScales: search.scales, sums: sums.base
    ) { place, refinement in
      let pair = Int(sortedPairs.base[place])
      let bound = weights.bounds.refined(bounds[Int(sortedTokens.base[place])], Int(sortedConcepts.base[place]))
      upperBounds.base[pair] = estimates.base[pair] + refinement + bound
    }
  }

  /// A counting sort.
  private func sortByConcept() {
    conceptEnds.zero()
    for pair in 0..<count { conceptEnds.base[Int(concepts.base[pair]) &+ 1] &+= 1 }
    for c in 1..<conceptEnds.count { conceptEnds.base[c] &+= conceptEnds.base[c &- 1] }
    for pair in 0..<count {
      let concept = Int(concepts.base[pair])
      let place = Int(conceptEnds.base[concept])
      conceptEnds.base[concept] &+= 1
      sortedPairs.base[place] = Int32(truncatingIfNeeded: pair)
      sortedConcepts.base[place] = concepts.base[pair]
      sortedTokens.base[place] = tokens.base[pair]
    }
  }
}
