/// Selection by screening: int8 products estimate all pre-activations of a tile, with bounds on the error, and float32
/// products are computed only for the concepts that could be among a token's k largest. The keys have the bits of the product.
///
/// The concepts with a token's k largest estimates are its shortlist, whose pre-activations are computed first. The k-th
/// largest of these is the exact threshold: a concept with a lower upper bound is not among the k largest. Of the other
/// candidates, refined estimates rule out nearly all, and the pre-activations of the rest are computed too.
struct ScreenedSelection {
  private let tokens: TokenRows
  private let k: Int
  private let threshold: Float
  private let weights: ScreenedWeights
  private let search: CandidateSearch
  private let scratch: Scratch

  /// One thread's memory.
  final class Scratch: @unchecked Sendable {
    fileprivate let search: CandidateSearch.Scratch
    fileprivate let shortlists: Shortlists
    fileprivate let pairs: CandidatePairs
    fileprivate let keys: KeyLists
    fileprivate let exactThresholds: FloatBuffer
    // For one token: some concepts, and their numbers.
    fileprivate let concepts: AlignedBuffer<Int32>
    fileprivate let numbers: FloatBuffer

    init(columns: Int, depth: Int) throws(USAEError) {
      let capacity = TileSize.capacity(columns: columns)
      search = try CandidateSearch.Scratch(columns: columns, depth: depth)
      shortlists = try Shortlists(capacity: capacity)
      pairs = try CandidatePairs(columns: columns, tokens: capacity)
      keys = try KeyLists(capacity: capacity)
      exactThresholds = try FloatBuffer(capacity)
      concepts = try AlignedBuffer<Int32>(columns)
      numbers = try FloatBuffer(columns + 16)
    }
  }

  init(_ tokens: TokenRows, k: Int, above threshold: Float, _ weights: ScreenedWeights, _ scratch: Scratch) {
    self.tokens = tokens
    self.k = k
    self.threshold = threshold
    self.weights = weights
    self.scratch = scratch
    search = CandidateSearch(tokens, weights, scratch.search)
  }

  /// See `TopKSelector.select`.
  func select() -> SelectedKeys {
    var counts = ScreeningCounts()
    counts.tokens = tokens.count
    search.findLargest(k, above: threshold)
    scratch.keys.clear()
    var first = 0
    while first < tokens.count {
      let part = tokensOfPart(from: first)
      addKeys(of: part, &counts)
      first = part.upperBound
    }
    return scratch.keys.selected(k: k, above: threshold, counts: counts)
  }

  /// The next tokens: as many as have no more candidates together than there is capacity for as pairs.
  private func tokensOfPart(from first: Int) -> Range<Int> {
    var (last, found) = (first, 0)
    while last < tokens.count {
      found += search.lists.found(last).count
      if found > scratch.pairs.capacity { break }
      last += 1
    }
    return first..<last
  }

  /// Selects the keys of some tokens.
  private func addKeys(of part: Range<Int>, _ counts: inout ScreeningCounts) {
    let (shortlists, pairs) = (scratch.shortlists, scratch.pairs)
    listShortlists(part, &counts)
    computeShortlists(part, &counts)
    addPairs(part)
    counts.candidates += shortlists.count + pairs.count
    pairs.refine(weights, search)
    pairs.prune(exactThresholds: scratch.exactThresholds.base)
    let incomplete = incompleteTokens(part)
    search.find(incomplete, from: scratch.exactThresholds, above: threshold)
    var nextIncomplete = incomplete[...]
    var firstPair = 0
    for token in part {
      let number = token - part.lowerBound
      let shortlist = shortlists.concepts(number)
      if let concepts = shortlist.baseAddress {
        scratch.keys.add(concepts, shortlists.values(number), shortlist.count, above: threshold)
      }
      let end = pairs.end(of: token, from: firstPair)
      if nextIncomplete.first == token {
        nextIncomplete = nextIncomplete.dropFirst()
        addKeys(of: token, scratch.concepts.base, listFound(token, but: shortlist, &counts), &counts)
      } else {
        addKeys(of: token, pairs.concepts.base + firstPair, end - firstPair, &counts)
      }
      scratch.keys.endToken(k: k)
      firstPair = end
    }
  }

  /// Adds keys of some concepts to a token's list.
  private func addKeys(of token: Int, _ concepts: UnsafePointer<Int32>, _ count: Int, _ counts: inout ScreeningCounts) {
    guard count > 0 else { return }
    counts.computed += count
    weights.exactPreactivations(tokens.row(token), concepts, count: count, out: scratch.numbers.base)
    scratch.keys.add(concepts, scratch.numbers.base, count, above: threshold)
  }

  /// The shortlists; without usable bounds, a token's holds all concepts.
  private func listShortlists(_ part: Range<Int>, _ counts: inout ScreeningCounts) {
    scratch.shortlists.clear()
    for token in part {
      if search.bounds[token].isUsable {
        scratch.shortlists.add(search.lists.found(token), topKThreshold: search.lists.topKThresholds.base[token])
      } else {
        counts.fallbacks += 1
        scratch.shortlists.addAll(weights.concepts)
      }
    }
  }

  /// The pre-activations of shortlists, and each token's exact threshold.
  private func computeShortlists(_ part: Range<Int>, _ counts: inout ScreeningCounts) {
    counts.computed += scratch.shortlists.count
    scratch.shortlists.compute(weights, tokens, from: part.lowerBound, k: k) { token, kth in
      scratch.exactThresholds.base[token] = max(threshold, kth)
    }
  }

  /// Pairs of tokens and those of their candidates that are not on the shortlist.
  private func addPairs(_ part: Range<Int>) {
    scratch.pairs.clear()
    for token in part where search.bounds[token].isUsable {  // the shortlists of the others hold all concepts
      let found = search.lists.found(token)
      weights.upperBounds(search.bounds[token], found, out: scratch.numbers.base)
      scratch.pairs.add(
        token: token, found, upperBounds: scratch.numbers.base, topKThreshold: search.lists.topKThresholds.base[token],
        exactThreshold: scratch.exactThresholds.base[token])
    }
  }

  /// Tokens whose exact threshold is not above their search threshold, because estimates were too high: some of their k largest
  /// may not be candidates.
  private func incompleteTokens(_ part: Range<Int>) -> [Int] {
    let (exact, searched) = (scratch.exactThresholds.base, search.lists.searchThresholds.base)
    return part.filter { search.bounds[$0].isUsable && exact[$0] <= searched[$0] && searched[$0] > threshold }
  }

  /// Lists the concepts that were found for a token, without its shortlist; returns how many there are.
  private func listFound(_ token: Int, but shortlist: UnsafeBufferPointer<Int32>, _ counts: inout ScreeningCounts) -> Int {
    let known = Set(shortlist)
    let found = search.lists.found(token)
    counts.candidates += found.count
    var left = 0
    for i in 0..<found.count where !known.contains(found.concepts[i]) {
      scratch.concepts.base[left] = found.concepts[i]
      left += 1
    }
    return left
  }
}
