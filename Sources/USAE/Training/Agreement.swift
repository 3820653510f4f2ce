import KernelTypes

/// The agreement term: the encoders of a step should give a token the same code.
///
/// For each pair of encoders i and j it is the mean over tokens of
///
///     sum over c in (support of z_i or of z_j) of (p_i,c - p_j,c)^2 / s
///
/// and with more than two encoders the mean over the pairs. p are pre-activations, so that an encoder also learns where it
/// should have fired; or, where the recipe says so, codes, which are 0 outside their support. s is fixed: divided by the codes'
/// own energy, the term would make them vanish where nothing can agree.
///
/// Only the pre-activations of concepts in one support and not in the other have to be computed, as dot products; those in the
/// supports are the codes. So everything is sparse, as the codes are. With a drawn prefix, supports are of concepts in it: the
/// others would only shrink in a step that does not reconstruct with them.
struct Agreement {
  private let step: TrainingStep
  private let buffers: Buffers

  init(_ step: TrainingStep, _ buffers: Buffers) {
    self.step = step
    self.buffers = buffers
  }

  /// Memory of a step, in addition to the workspace.
  final class Buffers: @unchecked Sendable {
    /// For each row of codes (`StepEncodings`), concepts that only other encoders selected: first their pre-activations, then
    /// dLoss/d(pre-activation).
    fileprivate let others: CodeBuffer
    private let encodings: StepEncodings
    private let groups: ConceptGroups
    /// Factors and constants of one encoder's pre-activations, [n_concepts].
    fileprivate let scales, bias: FloatBuffer
    /// For each thread.
    fileprivate let scratch: [Scratch]
    /// Of the term by block of tokens.
    fileprivate let sums: AlignedBuffer<Double>

    init(_ encodings: StepEncodings, slots: Int, concepts: Int, threads: Int) throws(USAEError) {
      self.encodings = encodings
      let most = min(concepts, encodings.encoders * slots)
      others = try CodeBuffer(rows: encodings.count, slots: most)
      groups = try ConceptGroups(rows: encodings.count, encoders: encodings.encoders, slots: most, concepts: concepts)
      scales = try FloatBuffer(concepts)
      bias = try FloatBuffer(concepts)
      sums = try AlignedBuffer<Double>((encodings.tokens + Agreement.blockTokens - 1) / Agreement.blockTokens)
      scratch = try (0..<threads).map { _ throws(USAEError) in
        try Scratch(encoders: encodings.encoders, most: most, concepts: concepts)
      }
    }

    /// Sorts the entries by concept. Their gradients stand where values do.
    func group() {
      let parts = (0..<encodings.encoders).map(encodings.range)
      groups.group(others, others.values, parts: parts) { _, row in self.encodings.token(of: row) }
    }

    @inline(__always)
    func entries(_ concept: Int, seat: Int) -> ConceptGroups.Entries { groups.entries(concept, seat: seat) }
  }

  /// One thread's memory, for one token.
  fileprivate final class Scratch: @unchecked Sendable {
    /// The position of each concept in the union of the supports, from 1; 0 outside of it, and between tokens.
    let positions: AlignedBuffer<Int32>
    /// The union.
    let concepts: AlignedBuffer<Int32>
    /// By seat and position in the union, [encoders, most]: numbers, their gradients, and whether the concept is in the
    /// encoder's support.
    let numbers, gradients: FloatBuffer
    let isActive: AlignedBuffer<Bool>
    let most: Int

    init(encoders: Int, most: Int, concepts: Int) throws(USAEError) {
      self.most = most
      positions = try AlignedBuffer<Int32>(concepts)
      self.concepts = try AlignedBuffer<Int32>(most)
      numbers = try FloatBuffer(encoders * most)
      gradients = try FloatBuffer(encoders * most)
      isActive = try AlignedBuffer<Bool>(encoders * most)
    }
  }

  /// What the term leaves for the update.
  struct Result {
    /// Without its weight.
    let loss: Double
    let isFinite: Bool
    let buffers: Buffers
  }

  /// Tokens of one piece of work, and of one partial sum.
  private static let blockTokens = Reconstruction.blockRows

  private var workspace: StepWorkspace { step.workspace }
  private var encodings: StepEncodings { step.encodings }
  private var isOnCodes: Bool { step.recipe.agreementOn == .codes }
  private var pairs: Int { encodings.encoders * (encodings.encoders - 1) / 2 }

  /// s.
  private var scale: Double {
    if step.recipe.agreementScale > 0 { return step.recipe.agreementScale }
    return Double(step.models.reduce(0) { $0 + $1.width }) / Double(step.models.count)
  }

  /// Computes the term. Adds its gradients to those of the codes' entries, and leaves those of other pre-activations in the
  /// buffers.
  ///
  /// - Parameter statistics: of the batch, by seat, where encoders have BatchNorm.
  func run(statistics: [BatchStatistics?], work: InterruptibleWork) throws(USAEError) -> Result {
    if isOnCodes {
      buffers.others.counts.zero()
    } else {
      for seat in step.encoders.indices { try compute(seat, statistics[seat], work: work) }
    }
    let divisor = Double(pairs) * Double(workspace.totalRows) * scale
    let factor = Float(2 * step.agreementWeight / divisor)
    try work.runBlocks(encodings.tokens, of: Self.blockTokens) { block, range, worker in
      var sum = 0.0
      for token in range { sum += self.differentiate(token, factor: factor, self.buffers.scratch[worker]) }
      self.buffers.sums.base[block] = sum
    }
    var sum = 0.0
    for block in 0..<buffers.sums.count { sum += buffers.sums.base[block] }
    let isFinite = sum.isFinite && buffers.others.isFinite(buffers.others.values, rows: encodings.count)
    return Result(loss: sum / divisor, isFinite: isFinite, buffers: buffers)
  }

  // MARK: Pre-activations

  /// Lists for each token the concepts that only other encoders selected, and computes this encoder's pre-activations of them.
  private func compute(_ seat: Int, _ statistics: BatchStatistics?, work: InterruptibleWork) throws(USAEError) {
    let model = step.models[step.encoders[seat]]
    for c in 0..<model.concepts { (buffers.scales.base[c], buffers.bias.base[c]) = model.affine(c, batch: statistics) }
    let (weight, others) = (model.encoderWeight.value, buffers.others)
    let tokens = workspace.inputs[step.encoders[seat]]
    try work.runBlocks(encodings.tokens, of: Self.blockTokens) { _, range, worker in
      for token in range {
        let row = self.encodings.range(seat).lowerBound &+ token
        let count = self.listOthers(row, token: token, self.buffers.scratch[worker].positions.base)
        others.counts.base[row] = Int32(truncatingIfNeeded: count)
        let (indices, values) = (others.indices(row), others.values(row))
        kernels.rows.dots(tokens.row(token), weight.base, weight.stride, indices, count, weight.stride, values)
        for q in 0..<count {
          let concept = Int(indices[q])
          values[q] = self.buffers.scales.base[concept] * values[q] + self.buffers.bias.base[concept]
        }
      }
    }
  }

  /// Returns how many there are.
  private func listOthers(_ row: Int, token: Int, _ positions: UnsafeMutablePointer<Int32>) -> Int {
    let (codes, out) = (workspace.codes, buffers.others.indices(row))
    let (own, ownCount) = (codes.indices(row), codes.count(row))
    for q in 0..<ownCount { positions[Int(own[q])] = 1 }
    var count = 0
    for other in Swift.stride(from: token, to: encodings.count, by: encodings.tokens) where other != row {
      let indices = codes.indices(other)
      for q in 0..<codes.count(other) where positions[Int(indices[q])] == 0 {
        positions[Int(indices[q])] = 1
        out[count] = indices[q]
        count &+= 1
      }
    }
    for q in 0..<ownCount { positions[Int(own[q])] = 0 }
    for q in 0..<count { positions[Int(out[q])] = 0 }
    return count
  }

  // MARK: Gradients

  /// Returns a token's part of the term's sum.
  private func differentiate(_ token: Int, factor: Float, _ scratch: Scratch) -> Double {
    let count = gather(token, scratch)
    let sum = addPairs(count, scratch)
    for seat in step.encoders.indices { scatter(token, seat, factor: factor, scratch) }
    for u in 0..<count { scratch.positions.base[Int(scratch.concepts.base[u])] = 0 }
    return sum
  }

  /// Gathers every encoder's numbers of the union of the supports. Returns its size.
  private func gather(_ token: Int, _ scratch: Scratch) -> Int {
    let (codes, others, positions) = (workspace.codes, buffers.others, scratch.positions.base)
    var count = 0
    for row in Swift.stride(from: token, to: encodings.count, by: encodings.tokens) {
      let indices = codes.indices(row)
      for q in 0..<codes.count(row) where positions[Int(indices[q])] == 0 {
        scratch.concepts.base[count] = indices[q]
        count &+= 1
        positions[Int(indices[q])] = Int32(truncatingIfNeeded: count)
      }
    }
    for seat in step.encoders.indices {
      let (row, first) = (encodings.range(seat).lowerBound &+ token, seat &* scratch.most)
      let (numbers, isActive) = (scratch.numbers.base + first, scratch.isActive.base + first)
      numbers.update(repeating: 0, count: count)
      isActive.update(repeating: false, count: count)
      (scratch.gradients.base + first).update(repeating: 0, count: count)
      let (indices, values) = (codes.indices(row), codes.values(row))
      for q in 0..<codes.count(row) {
        let u = Int(positions[Int(indices[q])]) &- 1
        (numbers[u], isActive[u]) = (values[q], true)
      }
      for q in 0..<others.count(row) { numbers[Int(positions[Int(others.indices(row)[q])]) &- 1] = others.values(row)[q] }
    }
    return count
  }

  /// Adds up squares of differences, and the differences that each number's gradient is made of, over the pairs of encoders of
  /// which one selected the concept.
  private func addPairs(_ count: Int, _ scratch: Scratch) -> Double {
    var sum: Double = 0
    for i in step.encoders.indices {
      let (a, aGradients) = (scratch.numbers.base + i &* scratch.most, scratch.gradients.base + i &* scratch.most)
      let aIsActive = scratch.isActive.base + i &* scratch.most
      for j in i &+ 1..<encodings.encoders {
        let (b, bGradients) = (scratch.numbers.base + j &* scratch.most, scratch.gradients.base + j &* scratch.most)
        let bIsActive = scratch.isActive.base + j &* scratch.most
        for u in 0..<count where aIsActive[u] || bIsActive[u] {
          let difference = a[u] - b[u]
          sum += Double(difference) * Double(difference)
          aGradients[u] += difference
          bGradients[u] -= difference
        }
      }
    }
    return sum
  }

  /// Adds one encoder's gradients to those of its code's entries, and stores those of other pre-activations.
  private func scatter(_ token: Int, _ seat: Int, factor: Float, _ scratch: Scratch) {
    let (codes, others, positions) = (workspace.codes, buffers.others, scratch.positions.base)
    let row = encodings.range(seat).lowerBound &+ token
    let sums = scratch.gradients.base + seat &* scratch.most
    let (values, indices) = (others.values(row), others.indices(row))
    for q in 0..<others.count(row) { values[q] = factor * sums[Int(positions[Int(indices[q])]) &- 1] }
    let (own, gradients) = (codes.indices(row), workspace.codeGradients.base + row &* codes.slots)
    for q in 0..<codes.count(row) { gradients[q] += factor * sums[Int(positions[Int(own[q])]) &- 1] }
  }
}
