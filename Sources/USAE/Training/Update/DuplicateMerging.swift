/// Merges duplicate concepts: two indices whose dictionary rows point the same way in every model.
///
/// Every encoder trains every dictionary, so dictionary rows agree across models early. But nothing makes two encoders agree on
/// which of two such rows to use: one fires the first, another the second, both reconstruct well, and the concept has no index
/// of its own. So every `mergeEvery` steps duplicates are searched for; the encoder rows that are in use move to one index, and
/// the other index starts again from a token.
struct DuplicateMerging {
  let models: [ModelParameters]
  let recipe: Recipe
  let seed: UInt64

  /// Share of the run in which duplicates are merged: a restarted concept needs time to learn, but new duplicates form until
  /// late.
  private static let share = 0.95
  /// A bound on the error of the products, which only propose pairs.
  private static let margin: Float = 1e-3

  struct Pair: Sendable {
    let first, second: Int
    /// The smallest cosine over the models.
    let cosine: Float

    /// Larger cosines come first, of equal ones the earlier concepts.
    func comesBefore(_ other: Pair) -> Bool {
      cosine != other.cosine ? cosine > other.cosine : (first, second) < (other.first, other.second)
    }
  }

  /// A merge moves rows of every model, so there is none where some are frozen.
  ///
  /// - Parameter step: steps done when the merge is.
  func isDue(after step: Int) -> Bool {
    recipe.mergeCosine > 0 && !models.contains(where: \.isFrozen)
      && step > recipe.warmupSteps && step.isMultiple(of: recipe.mergeEvery)
      && (recipe.totalSteps == 0 || Double(step) <= Self.share * Double(recipe.totalSteps))
  }

  // MARK: Finding

  /// The most pairs of a concept with later ones that are kept, and that are compared exactly. Concepts have a few duplicates
  /// where data are healthy. Where they all come from equal rows, each has thousands, and any few are enough to merge it.
  static let mostPairs = 32, mostComparisons = 4 * mostPairs

  /// Finds pairs of duplicates, those with the largest cosines first; no concept is in two pairs. Changes nothing.
  ///
  /// Memory is that of the packed rows of the narrowest dictionary and at most `mostPairs` pairs for each concept, however many
  /// duplicates there are.
  func find(work: InterruptibleWork) throws(USAEError) -> [Pair] {
    var taken = Set<Int>()
    return try candidates(work: work)
      .sorted { $0.comesBefore($1) }
      .filter { pair in
        guard !taken.contains(pair.first), !taken.contains(pair.second) else { return false }
        taken.formUnion([pair.first, pair.second])
        return true
      }
  }

  /// Pairs of duplicates in any order, at most `mostPairs` for each concept.
  func candidates(work: InterruptibleWork) throws(USAEError) -> [Pair] {
    guard let narrowest = models.min(by: { $0.width < $1.width }) else { return [] }
    let (rows, concepts) = (narrowest.dictionary.value, narrowest.concepts)
    let inverseNorms = try FloatBuffer(concepts)
    for c in 0..<concepts { inverseNorms.base[c] = inverseNorm(c, narrowest) }
    let products = try TiledProduct(columns: concepts, depth: rows.columns, threads: work.threads)
    products.take(rowsOf: rows, work: work)
    let found = LockProtected<[Pair]>([])
    try work.runBlocks(concepts, of: TiledProduct.blockRows) { _, range, worker in
      var lists = range.map { BestPairs(first: $0) }
      products.rows(range.count, from: range.lowerBound, worker: worker) {
        kernels.product.packTokens(rows.row(range.lowerBound), rows.stride, range.count, rows.columns, $0)
      } use: {
        self.add(to: &lists[$0], from: $1..<$1 + $3, $2, inverseNorms: inverseNorms.base)
      }
      let pairs = lists.flatMap(\.pairs)
      if !pairs.isEmpty { found.withLock { $0 += pairs } }
    }
    return found.withLock { $0 }
  }

  /// The pairs of one concept with later ones that are kept: those with the largest cosines, of equal ones the earlier.
  private struct BestPairs {
    let first: Int
    private(set) var pairs: [Pair] = []
    private(set) var comparisons = 0

    init(first: Int) { self.first = first }

    var isComplete: Bool { comparisons >= mostComparisons }

    /// Pairs come in the order of their second concepts.
    mutating func add(_ pair: Pair) {
      comparisons += 1
      if pairs.count < mostPairs { return pairs.append(pair) }
      let last = pairs.indices.max { pairs[$0].comesBefore(pairs[$1]) }
      if let last, pair.comesBefore(pairs[last]) { pairs[last] = pair }
    }
  }

  /// Adds pairs of a concept with later ones among `others`, from products of their rows in one model.
  private func add(
    to list: inout BestPairs, from others: Range<Int>, _ products: UnsafePointer<Float>, inverseNorms: UnsafePointer<Float>
  ) {
    let first = list.first
    let threshold = Float(recipe.mergeCosine)
    let least = (threshold - Self.margin) / inverseNorms[first]
    for second in others
    where second > first && products[second - others.lowerBound] * inverseNorms[second] > least {
      if list.isComplete { return }
      let cosine = smallestCosine(first, second)
      if cosine > threshold { list.add(Pair(first: first, second: second, cosine: cosine)) }
    }
  }

  /// Rows that are used as they are may be shorter than 1.
  private func inverseNorm(_ concept: Int, _ model: ModelParameters) -> Float {
    RowNorm(kind: .unit, epsilon: Float(recipe.dictionaryEpsilon)).scale(model.rowNorms.base[concept])
  }

  private func smallestCosine(_ first: Int, _ second: Int) -> Float {
    var smallest = Float.infinity
    for model in models {
      let rows = model.dictionary.value
      let product = kernels.rows.dot(rows.row(first), rows.row(second), rows.stride)
      smallest = min(smallest, product * inverseNorm(first, model) * inverseNorm(second, model))
    }
    return smallest
  }

  // MARK: Merging

  /// The token of a batch from which the concept that a pair frees starts again.
  func token(ofPair number: Int, of rows: Int, step: Int) -> Int {
    CounterRandom(seed: seed, stream: .restartTokens)
      .index(UInt64(step) &* UInt64(models[0].concepts) &+ UInt64(number), below: rows)
  }

  /// Merges the pairs. The freed concepts start again from `tokens`, by model [pairs, width].
  func merge(_ pairs: [Pair], tokens: [PaddedMatrix]) {
    for (number, pair) in pairs.enumerated() {
      let hasDirection = tokens.allSatisfy { rowNorm($0.row(number), $0.stride) > 0 }
      guard hasDirection else { continue }
      let votes = models.count { $0.uses(pair.second, ratherThan: pair.first) }
      let (kept, freed) = 2 * votes > models.count ? (pair.second, pair.first) : (pair.first, pair.second)
      for (model, tokens) in zip(models, tokens) {
        if model.uses(freed, ratherThan: kept) { model.copyEncoder(of: freed, to: kept) }
        model.restart(freed, at: tokens.row(number), like: kept, recipe.rowNorm)
      }
    }
  }
}

extension TrainingStep {
  /// The tokens of the batch from which concepts start again that pairs free, by model [pairs, width]. In a model that the
  /// batch does not have, it is what the token's code predicts there.
  ///
  /// - Parameter token: the row of a pair's token, nil where another process has it: its row stays 0.
  func restartTokens(of pairs: [DuplicateMerging.Pair], token: (_ pair: Int) -> Int?) throws(USAEError) -> [PaddedMatrix] {
    var all: [PaddedMatrix] = []
    for (j, model) in models.enumerated() {
      let (out, isPresent) = (try PaddedMatrix(rows: pairs.count, columns: model.width), present.contains(j))
      for number in pairs.indices {
        guard let token = token(number) else { continue }
        if isPresent {
          out.row(number).update(from: workspace.tokens[j].row(token), count: out.stride)
        } else {  // by the step's first encoder, whose rows come first
          model.scaledRows.decode(workspace.codes, token: token, scratch: workspace.scratch[0].base, to: out.row(number))
        }
      }
      all.append(out)
    }
    return all
  }
}

extension ModelParameters {
  /// Whether this model's encoder has more use for one concept than for another: the one that fired since the last batch, else
  /// the one with the larger gradients.
  fileprivate func uses(_ concept: Int, ratherThan other: Int) -> Bool {
    let (fires, otherFires) = (silentTokens.base[concept] == 0, silentTokens.base[other] == 0)
    if fires != otherFires { return fires }
    return encoderBias.secondMoment.base[concept] > encoderBias.secondMoment.base[other]
  }

  fileprivate func copyEncoder(of source: Int, to target: Int) {
    for tensor in encoderTrainables { tensor.copy(source, to: target) }
    if let batchNorm {
      batchNorm.runningMean.base[target] = batchNorm.runningMean.base[source]
      batchNorm.runningVariance.base[target] = batchNorm.runningVariance.base[source]
    }
    silentTokens.base[target] = silentTokens.base[source]
  }

  /// Restarts a concept: its encoder and dictionary rows point to a token. Their norms, and all else, are those of concept
  /// `other`, but the encoder's norm is halved so that the concept does not fire for much else at once.
  fileprivate func restart(_ concept: Int, at token: UnsafePointer<Float>, like other: Int, _ norm: RowNorm) {
    copyEncoder(of: other, to: concept)
    let tokenNorm = rowNorm(token, dictionary.value.stride)
    let encoderNorm = rowNorm(encoderWeight.value.row(other), encoderWeight.value.stride)
    encoderWeight.set(concept, token, factor: 0.5 * encoderNorm / tokenNorm)
    dictionary.set(concept, token, factor: rowNorms.base[other] / tokenNorm)
    updateRowScale(of: concept, norm)
    for vector in encoderTrainables.dropFirst() { vector.forgetMoments(concept) }
    encoderBias.value.base[concept] = 0
    silentTokens.base[concept] = 0
  }
}

extension Trainable {
  private var isVector: Bool { value.rows == 1 }

  private func place(_ concept: Int, in matrix: PaddedMatrix) -> UnsafeMutablePointer<Float> {
    isVector ? matrix.base + concept : matrix.row(concept)
  }

  private var length: Int { isVector ? 1 : value.stride }

  /// Copies a concept's values and moments to another concept.
  fileprivate func copy(_ source: Int, to target: Int) {
    for matrix in [value, firstMoment, secondMoment] {
      place(target, in: matrix).update(from: place(source, in: matrix), count: length)
    }
  }

  fileprivate func forgetMoments(_ concept: Int) {
    for matrix in [firstMoment, secondMoment] { place(concept, in: matrix).update(repeating: 0, count: length) }
  }

  /// Sets a row to a multiple of `values`, and its moments to 0.
  fileprivate func set(_ concept: Int, _ values: UnsafePointer<Float>, factor: Float) {
    let row = value.row(concept)
    for c in 0..<value.stride { row[c] = factor * values[c] }
    forgetMoments(concept)
  }
}
