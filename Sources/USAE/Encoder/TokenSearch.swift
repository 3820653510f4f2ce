import KernelTypes

/// What looks for concepts whose numbers are above a floor, for some tokens of a tile at once.
protocol PairFinder: AnyObject {
  func norm(of token: Int) -> Float
  /// Puts a token of the tile where the next search looks for it.
  func place(_ token: Int, at place: Int, floor: Float)
  /// Searches the first `count` places for pairs of a place and a concept, as long as there is room.
  func find(count: Int, _ pairs: inout FoundPairs)
}

/// For each token of a tile the concepts that may be among its k largest, found where their numbers are made: these go no
/// further than the registers, since a tile of them does not fit into the second cache.
///
/// A token is searched from a start: every concept with a number above that is found. The start should be just below the token's
/// k-th largest number, which nobody knows before; it is guessed from earlier tokens, and where the guess was too high, the token
/// is searched again, with others of its kind.
final class TokenSearch: @unchecked Sendable {
  /// Where each token was searched from, and its k-th largest number.
  let starts, levels: FloatBuffer
  private let columns: Int
  // What a search finds. Nearly always some hundred concepts a token; room for more is made when they come.
  private let pairs: GrowingBuffer<Int32>
  private let pairNumbers: GrowingBuffer<Float>
  private let conceptBits: Int32
  // The same by token: where a token's are, which are adjacent.
  private var ranges: [Range<Int>]
  private let concepts: GrowingBuffer<Int32>
  private let numbers: GrowingBuffer<Float>
  private var used = 0
  private let ends: AlignedBuffer<Int>
  private let spare: FloatBuffer
  /// Where a search starts, as a share of the token's norm.
  private var guess: Float = 0
  /// Of a level, or of the level that one token of sixteen is below; few searches are repeated, and lists stay short.
  private static let share: Float = 0.97
  init(columns: Int, capacity: Int) throws(USAEError) {
    self.columns = columns
    let room = capacity * 288
    pairs = GrowingBuffer(room)
    pairNumbers = GrowingBuffer(room)
    concepts = GrowingBuffer(room)
    numbers = GrowingBuffer(room)
    conceptBits = Int32(columns.bitWidth - (columns - 1).leadingZeroBitCount)
    precondition(capacity << conceptBits < 1 << 31, "tiles are smaller where there are more concepts")
    ranges = [Range<Int>](repeating: 0..<0, count: capacity)
    ends = try AlignedBuffer<Int>(capacity + 1)
    starts = try FloatBuffer(capacity)
    levels = try FloatBuffer(capacity)
    spare = try FloatBuffer(columns + 16)
  }

  /// The concepts that were found for a token, which ascend, and their numbers; until the next search.
  func found(_ token: Int) -> (concepts: UnsafePointer<Int32>, numbers: UnsafePointer<Float>, count: Int) {
    let first = ranges[token].lowerBound
    return (UnsafePointer(concepts.base + first), UnsafePointer(numbers.base + first), ranges[token].count)
  }

  /// Searches tokens such that the k largest numbers of each above a limit are found. Earlier lists are gone.
  func findLargest(_ k: Int, above limit: Float, of tokens: [Int], _ finder: some PairFinder) {
    used = 0
    // Without a guess nearly half of all concepts are found.
    let first = guess > 0 ? 0 : min(tokens.count, 16)
    find(tokens.prefix(first), k, above: limit, finder)
    find(tokens.dropFirst(first), k, above: limit, finder)
  }

  private func find(_ tokens: ArraySlice<Int>, _ k: Int, above limit: Float, _ finder: some PairFinder) {
    for token in tokens { starts.base[token] = max(guess * finder.norm(of: token), limit) }
    var left = tokens
    var isFirst = true
    while !left.isEmpty {
      search(left, finder)
      left = left.filter { !settles($0, k, above: limit, isFirst) }
      isFirst = false
    }
    learn(from: tokens, finder)
  }

  /// Whether a token's list has its k largest numbers; if not, its start is lower now.
  private func settles(_ token: Int, _ k: Int, above limit: Float, _ isFirst: Bool) -> Bool {
    let start = starts.base[token]
    let found = found(token)
    spare.base.update(from: found.numbers, count: found.count)  // the kernel writes past the end
    let level = kernels.selection.smallestOfLargest(spare.base, found.count, k)
    levels.base[token] = level
    if level > start || start == limit { return true }
    // The start was too high. A level, if there is one, is not above that of all concepts; once, since a number with few bits may
    // be its own share.
    let lower = level > limit ? Self.share * level : 0.5 * start
    starts.base[token] = isFirst ? max(limit, lower) : limit
    return false
  }

  private func learn(from tokens: ArraySlice<Int>, _ finder: some PairFinder) {
    // A level is 0 where fewer than k numbers are positive: then the search has to begin at the limit. No number, where a token is 0.
    let levels = tokens.map { self.levels.base[$0] / finder.norm(of: $0) }.filter { $0 > 0 && $0.isFinite }.sorted()
    if tokens.isEmpty { return }
    guess = 4 * levels.count < 3 * tokens.count ? 0 : Self.share * levels[levels.count / 16]
  }

  /// Searches some tokens again, each so that all concepts with a number of its floor or more, and above the limit, are found. Other
  /// lists stay.
  func find(_ tokens: [Int], floors: FloatBuffer, above limit: Float, _ finder: some PairFinder) {
    // Never below 0: columns past the last concept have 0, and nothing behind them.
    for token in tokens { starts.base[token] = floors.base[token] > limit ? floors.base[token].nextDown : limit }
    search(tokens[...], finder)
  }

  /// Searches tokens from their starts.
  private func search(_ tokens: ArraySlice<Int>, _ finder: some PairFinder) {
    guard !tokens.isEmpty else { return }
    for (place, token) in tokens.enumerated() { finder.place(token, at: place, floor: starts.base[token]) }
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
    let pairs = pairs.base, ends = ends.base, concepts = concepts.base, numbers = numbers.base
    for place in 0...tokens.count { ends[place] = 0 }
    for i in 0..<count { ends[Int(pairs[i] &>> conceptBits) &+ 1] &+= 1 }
    ends[0] = used
    for place in 0..<tokens.count { ends[place &+ 1] &+= ends[place] }
    for (place, token) in tokens.enumerated() { ranges[token] = ends[place]..<ends[place &+ 1] }
    let concept: Int32 = (1 << conceptBits) - 1
    for i in 0..<count {
      let place = Int(pairs[i] &>> conceptBits)
      let end = ends[place]
      ends[place] = end &+ 1
      concepts[end] = pairs[i] & concept
      numbers[end] = pairNumbers.base[i]
    }
    used += count
  }
}
