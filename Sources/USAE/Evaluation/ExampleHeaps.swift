/// For each concept the `n` tokens with the largest codes, at most one of each image; ties go to the earlier token.
///
/// Each worker owns a range of concepts, and tokens come in order, so what is kept depends neither on chunks nor on threads.
/// Memory is 12 bytes for each concept and example.
final class ExampleHeaps: @unchecked Sendable {
  private let n, tokensPerImage, concepts: Int
  private let work: InterruptibleWork
  /// Concepts of one worker, at least eight, so that workers write to different cache lines of counts.
  private let share: Int
  // For each concept a heap [n] with its worst example in front: the smallest value, or of equal values the latest token.
  private let values: FloatBuffer
  private let tokens: AlignedBuffer<Int64>
  private let counts: AlignedBuffer<Int64>
  /// For each concept the best example of the latest image in which it is active. It enters the heap when the next such image
  /// comes.
  private let pendingValues: FloatBuffer
  private let pendingTokens: AlignedBuffer<Int64>
  private var seen = 0

  /// - Parameter tokensPerImage: consecutive rows that make an image; 1 where every token counts by itself.
  init(concepts: Int, n: Int, tokensPerImage: Int, work: InterruptibleWork) throws(USAEError) {
    self.n = n
    self.tokensPerImage = tokensPerImage
    self.concepts = concepts
    self.work = work
    share = max(8, (concepts + work.threads - 1) / work.threads)
    let (entries, overflow) = concepts.multipliedReportingOverflow(by: n)
    guard !overflow else { throw .outOfMemory(bytes: Int.max) }
    values = try FloatBuffer(entries)
    tokens = try AlignedBuffer<Int64>(entries)
    counts = try AlignedBuffer<Int64>(concepts)
    pendingValues = try FloatBuffer(concepts)
    pendingTokens = try AlignedBuffer<Int64>(concepts)
    pendingTokens.fill(-1)
  }

  /// Adds the first `count` tokens of the codes, which follow those added before. `rows` has the numbers of all tokens.
  func add(_ codes: CodeBuffer, count: Int, rows: RowSelection = .all) throws(USAEError) {
    let first = seen
    try work.runBlocks(concepts, of: share) { _, range, _ in
      let size = UInt(bitPattern: range.count)
      for t in 0..<count {
        let token = rows.row(first + t)
        let (indices, numbers) = (codes.indices(t), codes.values(t))
        for q in 0..<codes.count(t) where UInt(bitPattern: Int(indices[q]) &- range.lowerBound) < size {
          self.offer(numbers[q], token: token, concept: Int(indices[q]))
        }
      }
    }
    seen += count
  }

  private func offer(_ value: Float, token: Int, concept: Int) {
    let pending = Int(pendingTokens.base[concept])
    if pending >= 0 && pending / tokensPerImage == token / tokensPerImage {
      // Of equal values the earlier stays.
      guard value > pendingValues.base[concept] else { return }
    } else {
      flush(concept)
    }
    pendingValues.base[concept] = value
    pendingTokens.base[concept] = Int64(token)
  }

  /// Puts the pending example into the heap if it is among the n best.
  private func flush(_ concept: Int) {
    guard pendingTokens.base[concept] >= 0 else { return }
    let (value, token) = (pendingValues.base[concept], pendingTokens.base[concept])
    pendingTokens.base[concept] = -1
    let count = Int(counts.base[concept])
    let values = values.base + concept * n
    let tokens = tokens.base + concept * n
    if count < n {
      counts.base[concept] += 1
      rise(from: count, value, token, values, tokens)
    } else if value > values[0] {  // of equal values the earlier token, in the heap, stays
      sink(from: 0, value, token, values, tokens, count: n)
    }
  }

  /// Whether one example is to leave the heap before another.
  private func isWorse(_ value: Float, _ token: Int64, than other: Float, _ otherToken: Int64) -> Bool {
    value != other ? value < other : token > otherToken
  }

  private func rise(
    from place: Int, _ value: Float, _ token: Int64, _ values: UnsafeMutablePointer<Float>,
    _ tokens: UnsafeMutablePointer<Int64>
  ) {
    var place = place
    while place > 0 {
      let parent = (place - 1) / 2
      guard isWorse(value, token, than: values[parent], tokens[parent]) else { break }
      (values[place], tokens[place]) = (values[parent], tokens[parent])
      place = parent
    }
    (values[place], tokens[place]) = (value, token)
  }

  private func sink(
    from place: Int, _ value: Float, _ token: Int64, _ values: UnsafeMutablePointer<Float>,
    _ tokens: UnsafeMutablePointer<Int64>, count: Int
  ) {
    var place = place
    while 2 * place + 1 < count {
      var child = 2 * place + 1
      let other = child + 1
      if other < count && isWorse(values[other], tokens[other], than: values[child], tokens[child]) { child = other }
      guard isWorse(values[child], tokens[child], than: value, token) else { break }
      (values[place], tokens[place]) = (values[child], tokens[child])
      place = child
    }
    (values[place], tokens[place]) = (value, token)
  }

  /// Writes [concepts, n], the largest first; 0 and -1 where there are fewer. The heaps are used up.
  func drain(values out: UnsafeMutablePointer<Float>, tokens outTokens: UnsafeMutablePointer<Int64>) {
    nonisolated(unsafe) let (out, outTokens) = (out, outTokens)
    work.runToEnd((concepts + share - 1) / share) { block, _ in
      for concept in block * self.share..<min(self.concepts, (block + 1) * self.share) {
        self.flush(concept)
        let values = self.values.base + concept * self.n
        let tokens = self.tokens.base + concept * self.n
        let count = Int(self.counts.base[concept])
        for q in count..<self.n { (out[concept * self.n + q], outTokens[concept * self.n + q]) = (0, -1) }
        for q in stride(from: count - 1, through: 0, by: -1) {
          (out[concept * self.n + q], outTokens[concept * self.n + q]) = (values[0], tokens[0])
          self.sink(from: 0, values[q], tokens[q], values, tokens, count: q)
        }
      }
    }
  }
}
