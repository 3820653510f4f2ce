import KernelTypes

/// Computes a number for each concept and token of a tile (the pre-activation or an estimate of it), and finds the concepts
/// whose number, or whose upper bound, is above the token's search threshold.
protocol PairFinder {
  /// The token's Euclidean norm.
  func norm(of token: Int) -> Float
  /// Packs a token for the next `find`.
  func place(_ token: Int, at place: Int, above threshold: Float)
  /// Finds pairs of one of the first `count` places and a concept, as long as there is capacity for them.
  func find(count: Int, _ pairs: inout FoundPairs)
}

/// Finds the k largest numbers of each token of a tile while they are in registers: all numbers of a tile would not fit into
/// the second-level cache, so only those above a threshold are written.
///
/// All files of the encoder use these words:
///
/// * the **selection threshold** is the caller's and the same for all tokens: what is selected is larger. It is 0, or more with
///   BatchTopK;
/// * a token's **search threshold**: one search finds every concept whose number is larger;
/// * the **predicted threshold** is the first search threshold of the next tokens, as a share of their norm;
/// * a token's **top-k threshold** is the k-th largest number that was found for it, or 0 where fewer than k are positive;
/// * a token's **exact threshold**, in screening alone, is the k-th largest of a few exact pre-activations: that of all
///   concepts is not below it.
///
/// A search threshold should be just below the top-k threshold, which is not known before the search. If it was not below, the
/// token is searched again with a lower one, together with all other such tokens. So of these thresholds the selection
/// threshold alone affects what is selected.
final class TokenSearch: @unchecked Sendable {
  /// By token.
  let searchThresholds, topKThresholds: FloatBuffer
  private let columns: Int
  // The pairs that one search finds: nearly always some hundred concepts a token. Capacity for more is allocated when it is
  // needed.
  private let pairs: GrowingBuffer<Int32>
  private let pairNumbers: GrowingBuffer<Float>
  private let conceptBits: Int32
  // The same pairs, sorted by token.
  private let firsts, ends: AlignedBuffer<Int>
  private let concepts: GrowingBuffer<Int32>
  private let numbers: GrowingBuffer<Float>
  private var used = 0
  // Where each place's pairs end in one search; and the numbers of one token.
  private let placeEnds: AlignedBuffer<Int>
  private let scratch: FloatBuffer
  private var predictedThreshold: Float = 0
  /// A search threshold is this share of a known or predicted top-k threshold: few searches are repeated, and lists stay short.
  private static let margin: Float = 0.97

  init(columns: Int, capacity: Int) throws(USAEError) {
    self.columns = columns
    let expected = capacity * 288
    pairs = GrowingBuffer(expected)
    pairNumbers = GrowingBuffer(expected)
    concepts = GrowingBuffer(expected)
    numbers = GrowingBuffer(expected)
    conceptBits = Int32(columns.bitWidth - (columns - 1).leadingZeroBitCount)
    precondition(capacity << conceptBits < 1 << 31, "tiles are smaller where there are more concepts")
    firsts = try AlignedBuffer<Int>(capacity)
    ends = try AlignedBuffer<Int>(capacity)
    placeEnds = try AlignedBuffer<Int>(capacity + 1)
    searchThresholds = try FloatBuffer(capacity)
    topKThresholds = try FloatBuffer(capacity)
    scratch = try FloatBuffer(columns + 16)
  }

  /// Concepts in ascending order, and their numbers.
  struct Found {
    let concepts: UnsafePointer<Int32>
    let numbers: UnsafePointer<Float>
    let count: Int
  }

  /// What was found for a token of the tile (nothing if it was not searched), valid until the next search.
  func found(_ token: Int) -> Found {
    let first = firsts.base[token]
    return Found(concepts: concepts.base + first, numbers: numbers.base + first, count: ends.base[token] - first)
  }

  /// Begins a tile: searches some of its tokens so that each token's k largest numbers above `threshold` are found.
  func findLargest(_ k: Int, above threshold: Float, of tokens: [Int], _ finder: some PairFinder) {
    used = 0
    firsts.zero()
    ends.zero()
    // Without a prediction a search finds nearly half of all concepts, so only the first tokens are searched that way.
    let first = predictedThreshold > 0 ? 0 : min(tokens.count, 16)
    find(tokens.prefix(first), k, above: threshold, finder)
    find(tokens.dropFirst(first), k, above: threshold, finder)
  }

  private func find(_ tokens: ArraySlice<Int>, _ k: Int, above threshold: Float, _ finder: some PairFinder) {
    for token in tokens { searchThresholds.base[token] = max(predictedThreshold * finder.norm(of: token), threshold) }
    var left = tokens
    var isFirst = true
    while !left.isEmpty {
      search(left, finder)
      left = left.filter { !settles($0, k, above: threshold, isFirst) }
      isFirst = false
    }
    predict(from: tokens, finder)
  }

  /// Whether a token's list has its k largest numbers. If not, lowers its search threshold.
  private func settles(_ token: Int, _ k: Int, above threshold: Float, _ isFirst: Bool) -> Bool {
    let searched = searchThresholds.base[token]
    let found = found(token)
    scratch.base.update(from: found.numbers, count: found.count)  // the kernel writes past the end
    let topK = kernels.selection.smallestOfLargest(scratch.base, found.count, k)
    topKThresholds.base[token] = topK
    if topK > searched || searched == threshold { return true }
    // The k-th largest number of all concepts is not below that of the list. The margin lowers the threshold only once, since
    // 0.97 x can round to x for subnormals.
    let lower = topK > threshold ? Self.margin * topK : 0.5 * searched
    searchThresholds.base[token] = isFirst ? max(threshold, lower) : threshold
    return false
  }

  /// Predicts from the 1/16 quantile of the tokens' top-k thresholds, each relative to the token's norm.
  private func predict(from tokens: ArraySlice<Int>, _ finder: some PairFinder) {
    if tokens.isEmpty { return }
    // A quotient is NaN where the token is 0.
    let shares = tokens.map { topKThresholds.base[$0] / finder.norm(of: $0) }.filter { $0 > 0 && $0.isFinite }.sorted()
    // Where many tokens have fewer than k positive numbers, searches have to start at the selection threshold.
    predictedThreshold = 4 * shares.count < 3 * tokens.count ? 0 : Self.margin * shares[shares.count / 16]
  }

  /// Searches some tokens again so that all concepts are found whose number is at least the token's exact threshold and above
  /// the selection threshold. The lists of other tokens stay.
  func find(
    _ tokens: [Int], from exactThresholds: FloatBuffer, above threshold: Float, _ finder: some PairFinder
  ) {
    // Thresholds are never below 0, so that columns past the last concept, which hold 0, are not found.
    for token in tokens {
      let exact = exactThresholds.base[token]
      searchThresholds.base[token] = exact > threshold ? exact.nextDown : threshold
    }
    search(tokens[...], finder)
  }

  /// Searches tokens from their search thresholds.
  private func search(_ tokens: ArraySlice<Int>, _ finder: some PairFinder) {
    guard !tokens.isEmpty else { return }
    for (place, token) in tokens.enumerated() { finder.place(token, at: place, above: searchThresholds.base[token]) }
    var (found, column) = (0, 0)
    while column < columns {
      let least = found + kernels.largestPanel * tokens.count + 16
      pairs.reserve(least)
      pairNumbers.reserve(least)
      var result = FoundPairs(pairs: pairs.base, conceptBits: conceptBits, numbers: pairNumbers.base, capacity: pairs.count)
      (result.found, result.nextColumn) = (found, column)
      finder.find(count: tokens.count, &result)
      (found, column) = (result.found, result.nextColumn)
    }
    sort(found, tokens)
  }

  /// A counting sort of pairs by token.
  private func sort(_ count: Int, _ tokens: ArraySlice<Int>) {
    concepts.reserve(used + count)
    numbers.reserve(used + count)
    let pairs = pairs.base, placeEnds = placeEnds.base, concepts = concepts.base, numbers = numbers.base
    for place in 0...tokens.count { placeEnds[place] = 0 }
    for i in 0..<count { placeEnds[Int(pairs[i] &>> conceptBits) &+ 1] &+= 1 }
    placeEnds[0] = used
    for place in 0..<tokens.count { placeEnds[place &+ 1] &+= placeEnds[place] }
    for (place, token) in tokens.enumerated() {
      (firsts.base[token], ends.base[token]) = (placeEnds[place], placeEnds[place &+ 1])
    }
    let concept: Int32 = (1 << conceptBits) - 1
    for i in 0..<count {
      let place = Int(pairs[i] &>> conceptBits)
      let end = placeEnds[place]
      placeEnds[place] = end &+ 1
      concepts[end] = pairs[i] & concept
      numbers[end] = pairNumbers.base[i]
    }
    used += count
  }
}
