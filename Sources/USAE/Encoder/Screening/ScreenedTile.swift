/// Selection by screening: estimates of all pre-activations from bytes, bounds on their errors, and float32 only for the
/// concepts that could be among the k largest. The result has the bits of the product.
///
/// The concepts with the k largest estimates lead, and their pre-activations are computed as the product would. The k-th
/// largest of these is a floor under the k-th largest of all, so whatever has its upper bound below it is out. Of what is left,
/// refined estimates rule out nearly everything, and the rest is computed too.
final class ScreenedTile: @unchecked Sendable {
  var weights: ScreenedWeights? {
    get { search.weights }
    set { search.weights = newValue }
  }
  var counts = ScreeningCounts()
  private let encoder: PackedEncoder
  private let search: CandidateSearch
  private var tokens: UnsafePointer<Float>?
  private var stride = 0
  private var count = 0
  private let pairs: CandidatePairs
  /// Concepts that lead, one token after the other, with their pre-activations.
  private let leaders: GrowingBuffer<Int32>
  private var leaderCount = 0
  private let values: GrowingBuffer<Float>
  /// Where each token's leaders end.
  private var leaderEnds: [Int] = []
  /// None of a token's k largest pre-activations is below its floor.
  private let floors: FloatBuffer
  /// What selection chooses from, one token after the other; empty before the first `select`.
  private var keys: [UInt64] = []
  private var keyEnds: [Int] = []
  // For one token: some concepts, and numbers of concepts.
  private let listed: AlignedBuffer<Int32>
  private let numbers: FloatBuffer

  init(_ encoder: PackedEncoder, capacity: Int) throws(USAEError) {
    self.encoder = encoder
    search = try CandidateSearch(encoder, capacity: capacity)
    floors = try FloatBuffer(capacity)
    pairs = try CandidatePairs(columns: encoder.columns, tokens: capacity)
    listed = try AlignedBuffer<Int32>(encoder.columns)
    numbers = try FloatBuffer(encoder.columns + 16)
    leaders = GrowingBuffer(64 * capacity)
    values = GrowingBuffer(64 * capacity)
    leaderEnds.reserveCapacity(capacity)
    keyEnds.reserveCapacity(capacity)
  }

  /// Takes the rows from `tokens` on, which are read again by `select`.
  func take(_ tokens: UnsafePointer<Float>, stride rowStride: Int, count: Int) {
    self.tokens = tokens
    stride = rowStride
    self.count = count
    keys.removeAll(keepingCapacity: true)
    keyEnds.removeAll(keepingCapacity: true)
    search.take(tokens, stride: rowStride, count: count)
  }

  /// See `EncoderTile.select`.
  func select(_ token: Int, k: Int, above limit: Float, keys out: UnsafeMutablePointer<UInt64>) -> Int {
    if keyEnds.isEmpty { selectAll(k, above: limit) }
    let first = token == 0 ? 0 : keyEnds[token - 1]
    let count = keyEnds[token] - first
    for i in 0..<count { out[i] = keys[first &+ i] }
    return kernels.selection.keepLargest(out, count, k)
  }

  /// Finds the keys of all tokens of the tile.
  private func selectAll(_ k: Int, above limit: Float) {
    search.findLargest(k, above: limit)
    leaderEnds.removeAll(keepingCapacity: true)
    var first = 0
    var found = 0  // of the tokens from `first` on, which all may become pairs
    clear()
    for token in 0..<count {
      let more = search.bounds[token].isUsable ? search.lists.found(token).count : 0  // others are not searched
      if found + more > pairs.capacity {
        finish(first..<token, k, above: limit)
        (first, found) = (token, 0)
        clear()
      }
      found += more
      lead(token)
    }
    finish(first..<count, k, above: limit)
    counts.tokens += count
  }

  private func clear() {
    pairs.clear()
    leaderCount = 0
  }

  /// Lists the concepts that lead for a token.
  private func lead(_ token: Int) {
    if search.bounds[token].isUsable {
      let level = search.lists.levels.base[token]
      let (found, estimates, count) = search.lists.found(token)
      leaders.reserve(leaderCount + count)
      let leaders = leaders.base
      var place = leaderCount
      for i in 0..<count {
        leaders[place] = found[i]
        place &+= estimates[i] >= level ? 1 : 0
      }
      leaderCount = place
    } else {  // nothing is known
      counts.fallbacks += 1
      leaders.reserve(leaderCount + encoder.concepts)
      for concept in 0..<encoder.concepts { leaders.base[leaderCount + concept] = Int32(truncatingIfNeeded: concept) }
      leaderCount += encoder.concepts
    }
    leaderEnds.append(leaderCount)
  }

  /// Pairs up a token, whose floor is known, with what was found for it and does not lead.
  private func addPairs(_ token: Int, _ weights: ScreenedWeights) {
    guard search.bounds[token].isUsable else { return }  // all concepts lead
    let concepts = weights.concepts
    let factors = search.bounds[token].factors(roundingShare: weights.roundingShare)
    let (found, estimates, count) = search.lists.found(token)
    kernels.screening.upperBounds(
      found, estimates, count, concepts.norms.base, concepts.errors.base, concepts.slacks.base, factors.ofNorm,
      factors.ofError, numbers.base)
    pairs.add(
      token: token, found, estimates, numbers.base, count: count, below: search.lists.levels.base[token],
      floor: floors.base[token])
  }

  /// Keys of some tokens that have their leaders.
  private func finish(_ tokens: Range<Int>, _ k: Int, above limit: Float) {
    guard let weights else { preconditionFailure("a tile is prepared before it is used") }
    computeLeaders(tokens, k, above: limit)
    for token in tokens { addPairs(token, weights) }
    counts.candidates += leaderCount + pairs.count
    pairs.refine(weights, digits: search.digits.base, tokenScales: search.scales.base, bounds: search.bounds)
    pairs.prune(floors: floors.base)
    let hidden = tokensWithHidden(tokens, above: limit)
    search.find(hidden, floors: floors, above: limit)
    var nextHidden = hidden[...]
    var first = 0
    for token in tokens {
      let own = leaders(of: token, from: tokens.lowerBound)
      for i in own { append(values.base[i], leaders.base[i], above: limit) }
      let end = pairs.end(of: token, from: first)
      if nextHidden.first == token {
        nextHidden = nextHidden.dropFirst()
        appendKeys(of: listed.base, listFound(token, but: own), token, above: limit)
      } else {
        appendKeys(of: pairs.concepts.base + first, end - first, token, above: limit)
      }
      keyEnds.append(keys.count)
      first = end
    }
  }

  /// Places of a token's leaders, `first` being the first token that has some.
  private func leaders(of token: Int, from first: Int) -> Range<Int> {
    (token == first ? 0 : leaderEnds[token - 1])..<leaderEnds[token]
  }

  /// The leaders' pre-activations, and each token's floor.
  private func computeLeaders(_ tokens: Range<Int>, _ k: Int, above limit: Float) {
    values.reserve(leaderCount + 16)
    for token in tokens {
      let own = leaders(of: token, from: tokens.lowerBound)
      let out = values.base + own.lowerBound
      compute(token, leaders.base + own.lowerBound, own.count, following: leaderCount - own.upperBound, out)
      // Writes where the next token's come then.
      floors.base[token] = max(limit, kernels.selection.smallestOfLargest(out, own.count, k))
    }
  }

  /// Tokens whose floor came out below the start of their search, so that some of their k largest may be hidden: estimates were
  /// off by just that much.
  private func tokensWithHidden(_ tokens: Range<Int>, above limit: Float) -> [Int] {
    tokens.filter {
      search.bounds[$0].isUsable && floors.base[$0] <= search.lists.starts.base[$0]
        && search.lists.starts.base[$0] > limit
    }
  }

  /// Lists what was found for a token except its leaders, which are in these places; returns how many there are.
  private func listFound(_ token: Int, but places: Range<Int>) -> Int {
    let known = Set(places.map { leaders.base[$0] })
    let found = search.lists.found(token)
    counts.candidates += found.count
    var left = 0
    for i in 0..<found.count where !known.contains(found.concepts[i]) {
      listed.base[left] = found.concepts[i]
      left += 1
    }
    return left
  }

  private func appendKeys(of concepts: UnsafePointer<Int32>, _ count: Int, _ token: Int, above limit: Float) {
    guard count > 0 else { return }
    compute(token, concepts, count, following: 0, numbers.base)
    for i in 0..<count { append(numbers.base[i], concepts[i], above: limit) }
  }

  @inline(__always)
  private func append(_ value: Float, _ concept: Int32, above limit: Float) {
    if value > limit { keys.append(selectionKey(value, concept)) }
  }

  /// The canonical pre-activations of some concepts.
  private func compute(
    _ token: Int, _ concepts: UnsafePointer<Int32>, _ count: Int, following: Int, _ out: UnsafeMutablePointer<Float>
  ) {
    guard let weight = encoder.weight, let tokens else { preconditionFailure("a tile takes tokens first") }
    counts.chains += count
    kernels.screening.exactProducts(
      tokens + token &* stride, weight.base, weight.stride, encoder.scales.base, encoder.bias.base, concepts, count, following,
      out)
  }
}
