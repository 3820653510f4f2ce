/// The shortlists of some tokens of a tile, one after the other. A token's shortlist holds the concepts with its k largest
/// estimates, whose pre-activations are computed first.
final class Shortlists: @unchecked Sendable {
  /// Concepts on all lists.
  private(set) var count = 0
  private var tokens = 0
  private let concepts: GrowingBuffer<Int32>
  private let values: GrowingBuffer<Float>
  /// List t is ends[t]..<ends[t + 1].
  private let ends: AlignedBuffer<Int>

  /// - Parameter capacity: most tokens of a tile.
  init(capacity: Int) throws(USAEError) {
    concepts = GrowingBuffer(64 * capacity)
    values = GrowingBuffer(64 * capacity)
    ends = try AlignedBuffer<Int>(capacity + 1)
  }

  func clear() { (count, tokens) = (0, 0) }

  /// Adds the next token's list: what was found with an estimate that is at least the top-k threshold.
  func add(_ found: TokenSearch.Found, topKThreshold: Float) {
    concepts.reserve(count + found.count)
    let concepts = concepts.base
    var place = count
    for i in 0..<found.count {
      concepts[place] = found.concepts[i]
      place &+= found.numbers[i] >= topKThreshold ? 1 : 0
    }
    end(at: place)
  }

  /// Adds all concepts as the next token's list.
  func addAll(_ all: Int) {
    concepts.reserve(count + all)
    for concept in 0..<all { concepts.base[count + concept] = Int32(truncatingIfNeeded: concept) }
    end(at: count + all)
  }

  private func end(at place: Int) {
    count = place
    tokens += 1
    ends.base[tokens] = place
  }

  /// The concepts of list `number`.
  func concepts(_ number: Int) -> UnsafeBufferPointer<Int32> {
    let first = ends.base[number]
    return UnsafeBufferPointer(start: concepts.base + first, count: ends.base[number + 1] - first)
  }

  /// The pre-activations of list `number` that `compute` left.
  func values(_ number: Int) -> UnsafePointer<Float> { UnsafePointer(values.base + ends.base[number]) }

  /// Computes the pre-activations of all lists, the first of which is the list of token `first`, and calls `use` with the k-th
  /// largest of each token's.
  func compute(
    _ weights: ScreenedWeights, _ rows: TokenRows, from first: Int, k: Int, _ use: (_ token: Int, _ kth: Float) -> Void
  ) {
    values.reserve(count + 16)
    for number in 0..<tokens {
      let (start, end) = (ends.base[number], ends.base[number + 1])
      let out = values.base + start
      weights.exactPreactivations(
        rows.row(first + number), concepts.base + start, count: end - start, following: count - end, out: out)
      // Overwrites a vector past the list, before the next list is written there.
      use(first + number, kernels.selection.smallestOfLargest(out, end - start, k))
    }
  }
}
