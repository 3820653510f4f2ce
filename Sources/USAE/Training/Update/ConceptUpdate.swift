import KernelTypes

/// Gradients and updates, concept by concept. The gradient of a concept's row, in a dictionary or the encoder, is a sum over
/// the tokens that used the concept. Where nothing else has to be known first, the row is updated while it is in cache.
struct ConceptUpdate {
  let models: [ModelParameters]
  let recipe: Recipe
  let workspace: StepWorkspace
  /// By seat.
  let encoders: [UpdatedEncoder]
  /// Seats of the encoders that the step changes: those of models that are not frozen.
  let updatedSeats: [Int]
  let steppedDictionaries: [Int]
  private let dead: DeadAuxiliary.Buffers?
  private let agreement: Agreement.Buffers?
  /// Whether the gradient buffers hold a dense part, to which the entries' part is added.
  let isDense: Bool
  /// Each model's dictionary.
  let dictionaryRows: [TrainedRows]
  private let dictionaries: [ScaledRows]
  private let dictionaryNorm: RowNorm

  /// An encoder that the step changes.
  struct UpdatedEncoder {
    /// The model's number.
    let index: Int
    fileprivate let model: ModelParameters
    fileprivate let statistics: BatchStatistics?
    /// What it read.
    fileprivate let tokens: UnsafePointer<Float>
    /// Sums over tokens of a dense auxiliary code's gradients, whose other sums are in the gradient buffers already.
    fileprivate let denseSums: AlignedBuffer<Double>?
    /// The weights, and the gradients of the biases.
    let rows: TrainedRows
    fileprivate let biasGradient: UnsafeMutablePointer<Float>
    fileprivate let batchNormRows: BatchNormRows?
  }

  static let blockConcepts = 32

  /// Groups the entries of the codes by concept.
  init(_ step: TrainingStep, _ forward: TrainingStep.Forward) {
    let workspace = step.workspace
    (models, recipe, self.workspace) = (step.models, step.recipe, workspace)
    steppedDictionaries = step.steppedDictionaries
    (dead, isDense) = (forward.auxiliary.dead, forward.auxiliary.isDense)
    agreement = forward.agreement?.buffers
    let encodings = workspace.encodings
    workspace.groups.group(
      workspace.codes, workspace.codeGradients, parts: (0..<encodings.encoders).map(encodings.range)
    ) { _, row in encodings.token(of: row) }
    dead?.group()
    agreement?.group()
    encoders = zip(step.encoders, forward.encoded).enumerated().map { seat, one in
      let (index, encoded) = one
      let model = step.models[index]
      var batchNormRows: BatchNormRows?
      if let batchNorm = model.batchNorm, let statistics = encoded.statistics {
        batchNormRows = BatchNormRows(batchNorm, statistics)
      }
      return UpdatedEncoder(
        index: index, model: model, statistics: encoded.statistics, tokens: UnsafePointer(workspace.inputs[index].base),
        denseSums: forward.auxiliary.denseSums(seat), rows: TrainedRows(model.encoderWeight),
        biasGradient: TrainedRows(model.encoderBias).gradientRow(0), batchNormRows: batchNormRows)
    }
    updatedSeats = encoders.indices.filter { !step.encodedModels[$0].isFrozen }
    dictionaryRows = models.map { TrainedRows($0.dictionary) }
    dictionaries = models.map(\.scaledRows)
    dictionaryNorm = recipe.rowNorm
  }

  private var nConcepts: Int { models[0].concepts }

  /// Computes every gradient into its buffer. Returns the squared norm by model.
  func computeGradients(work: InterruptibleWork) -> [Double] {
    squares(work: work) { concept, j, worker in
      let row = self.dictionaryRows[j].gradientRow(concept)
      self.dictionaryGradient(concept, target: j, out: row, scratch: self.workspace.updateScratch[worker].base)
      return UnsafePointer(row)
    } encoderRow: { concept, seat, worker in
      let row = self.encoders[seat].rows.gradientRow(concept)
      self.encoderGradient(concept, seat: seat, out: row, scratch: self.workspace.updateScratch[worker].base)
      return UnsafePointer(row)
    }
  }

  /// Squared norms by model, the encoders' vectors included, whose gradients are in their buffers once `encoderRow` returns.
  ///
  /// A row is read before the closure is called for the next.
  func squares(
    work: InterruptibleWork, dictionaryRow: (_ concept: Int, _ target: Int, _ worker: Int) -> UnsafePointer<Float>,
    encoderRow: (_ concept: Int, _ seat: Int, _ worker: Int) -> UnsafePointer<Float>
  ) -> [Double] {
    let blocks = (nConcepts + Self.blockConcepts - 1) / Self.blockConcepts
    var squares = [[Double]](repeating: [Double](repeating: 0, count: models.count), count: blocks)
    let vectors = encoders.map { $0.model.encoderTrainables.dropFirst().map { TrainedRows($0).gradientRow(0) } }
    squares.withUnsafeMutableBufferPointer { squares in
      nonisolated(unsafe) let (squares, vectors) = (squares, vectors)
      forEachConcept(work) { concept, worker in
        for j in self.steppedDictionaries {
          squares[concept / Self.blockConcepts][j] += self.square(dictionaryRow(concept, j, worker), self.models[j].width)
        }
        for seat in self.updatedSeats {
          let encoder = self.encoders[seat]
          var square = self.square(encoderRow(concept, seat, worker), encoder.model.width)
          for vector in vectors[seat] {
            let g = Double(vector[concept])
            square += g * g
          }
          squares[concept / Self.blockConcepts][encoder.index] += square
        }
      }
    }
    return models.indices.map { j in squares.reduce(0) { $0 + $1[j] } }
  }

  /// Updates every stepped tensor from the gradient buffers, each model's gradients times its factor.
  func apply(rates: [Double], factors: [Float], work: InterruptibleWork) {
    let constants = makeConstants(rates: rates, factors: factors)
    forEachConcept(work) { concept, _ in
      for j in self.steppedDictionaries {
        self.updateDictionary(concept, j, self.dictionaryRows[j].gradientRow(concept), constants.dictionaries[j])
      }
      for seat in self.updatedSeats {
        let encoder = self.encoders[seat]
        encoder.rows.update(concept, along: encoder.rows.gradientRow(concept), constants.encoders[seat])
      }
    }
    finish(constants)
  }

  /// Computes and applies the gradient of each tensor in one pass over the concepts, with memory for one row.
  ///
  /// Tensors follow each other, so that the rows that a gradient sums stay in the last cache.
  func computeAndApply(rates: [Double], work: InterruptibleWork) {
    let constants = makeConstants(rates: rates, factors: models.map { _ in 1 })
    let widest = paddedWidth(models.map(\.width).max() ?? 1)
    for seat in updatedSeats {
      let encoder = encoders[seat]
      forEachConcept(work) { concept, worker in
        let row = workspace.updateScratch[worker].base
        self.encoderGradient(concept, seat: seat, out: row, scratch: row + widest)
        encoder.rows.update(concept, along: row, constants.encoders[seat])
      }
    }
    for j in steppedDictionaries {
      forEachConcept(work) { concept, worker in
        let row = workspace.updateScratch[worker].base
        self.dictionaryGradient(concept, target: j, out: row, scratch: row + widest)
        self.updateDictionary(concept, j, row, constants.dictionaries[j])
      }
    }
    finish(constants)
  }

  func forEachConcept(_ work: InterruptibleWork, _ body: (_ concept: Int, _ worker: Int) -> Void) {
    let concepts = nConcepts
    work.runToEnd((concepts + Self.blockConcepts - 1) / Self.blockConcepts) { block, worker in
      for concept in block * Self.blockConcepts..<min(concepts, (block + 1) * Self.blockConcepts) { body(concept, worker) }
    }
  }

  func square(_ row: UnsafePointer<Float>, _ width: Int) -> Double {
    Double(kernels.rows.dot(row, row, paddedWidth(width)))
  }

  // MARK: Gradients

  /// dLoss/dD for one row.
  func dictionaryGradient(_ concept: Int, target: Int, out: UnsafeMutablePointer<Float>, scratch: UnsafeMutablePointer<Float>) {
    let dictionary = dictionaries[target]
    let stride = dictionary.stride
    let entries = workspace.groups.entries(concept)
    gather(
      slopes(of: concept, target: target), stride, entries.rows, entries.values, entries.count, out: out, scratch: scratch)
    if let dead {
      let (slopes, entries) = (dead.slopes[target].base, dead.groups.entries(concept))
      addGathered(
        slopes, stride, entries.rows, entries.values, entries.count, columns: stride, to: out, scratch: scratch)
    }
    // Through s D with s = 1 / (|D| + epsilon), g becomes s g - (s^2 / |D|) (g . D) D. A row that is used as it is has g.
    let norm = dictionary.rowNorms[concept]
    if dictionaryNorm.keeps(norm) { return }
    let row = dictionary.rows + concept &* stride
    let s = dictionary.rowScales[concept]
    let along = norm > 0 ? kernels.rows.dot(out, row, stride) * s * s / norm : 0
    for c in 0..<stride { out[c] = s * out[c] - along * row[c] }
  }

  /// dLoss/d(z D), summed over the prefixes that hold the concept.
  private func slopes(of concept: Int, target: Int) -> UnsafePointer<Float> {
    let last = workspace.residuals[target].base
    guard let nested = workspace.nested else { return UnsafePointer(last) }
    return UnsafePointer(nested.rows(nested.group(of: concept), target: target, last: last))
  }

  /// dLoss/dW for one row, and the gradients of the concept's bias or BatchNorm parameters into their buffers.
  func encoderGradient(
    _ concept: Int, seat: Int, out: UnsafeMutablePointer<Float>, scratch: UnsafeMutablePointer<Float>
  ) {
    let encoder = encoders[seat]
    let (tokens, stride) = (encoder.tokens, encoder.rows.stride)
    let entries = workspace.groups.entries(concept, seat: seat)
    gather(tokens, stride, entries.tokens, entries.gradients, entries.count, out: out, scratch: scratch)
    var sum = encoder.denseSums?.base[concept] ?? 0
    for e in 0..<entries.count { sum += Double(entries.gradients[e]) }
    if let dead {
      let entries = dead.groups.entries(concept, seat: seat)
      addGathered(
        dead.tokens.base, dead.tokens.stride, entries.tokens, entries.gradients, entries.count, columns: stride, to: out,
        scratch: scratch)
      for e in 0..<entries.count { sum += Double(entries.gradients[e]) }
    }
    if let agreement {
      let entries = agreement.entries(concept, seat: seat)
      addGathered(
        tokens, stride, entries.tokens, entries.gradients, entries.count, columns: stride, to: out, scratch: scratch)
      for e in 0..<entries.count { sum += Double(entries.gradients[e]) }
    }
    guard let batchNormRows = encoder.batchNormRows else {
      encoder.biasGradient[concept] = Float(sum)
      return
    }
    batchNormGradient(concept, encoder, sum: Float(sum), batchNormRows, out: out)
  }

  /// Turns sum dy x into dLoss/dW through BatchNorm, whose only dense pieces are sums and W C (docs/method.md).
  private func batchNormGradient(
    _ concept: Int, _ encoder: UpdatedEncoder, sum: Float, _ batchNorm: BatchNormRows, out: UnsafeMutablePointer<Float>
  ) {
    let stride = encoder.rows.stride
    let inverse = BatchStatistics.inverseDeviation(variance: batchNorm.outputVariance[concept])
    kernels.rows.addScaled(-sum, batchNorm.mean, stride, out)  // sum dy (x - mu)
    let scaleGradient = kernels.rows.dot(encoder.rows.row(concept), out, stride) * inverse
    kernels.rows.addScaled(-scaleGradient * inverse, batchNorm.weightCovariance + concept &* stride, stride, out)
    let factor = batchNorm.scale[concept] * inverse
    for c in 0..<stride { out[c] *= factor }
    batchNorm.scaleGradient[concept] = scaleGradient
    batchNorm.shiftGradient[concept] = sum
    encoder.biasGradient[concept] = 0  // BatchNorm subtracts any constant again
  }

  /// out = sum of coefficients times numbered rows, added to the dense part that `out` holds where there is one.
  @inline(__always)
  private func gather(
    _ rows: UnsafePointer<Float>, _ stride: Int, _ numbers: UnsafePointer<Int32>, _ coefficients: UnsafePointer<Float>,
    _ count: Int, out: UnsafeMutablePointer<Float>, scratch: UnsafeMutablePointer<Float>
  ) {
    if !isDense {
      kernels.rows.weightedSum(rows, stride, numbers, coefficients, count, stride, out)
    } else {
      addGathered(rows, stride, numbers, coefficients, count, columns: stride, to: out, scratch: scratch)
    }
  }

  @inline(__always)
  private func addGathered(
    _ rows: UnsafePointer<Float>, _ stride: Int, _ numbers: UnsafePointer<Int32>, _ coefficients: UnsafePointer<Float>,
    _ count: Int, columns: Int, to out: UnsafeMutablePointer<Float>, scratch: UnsafeMutablePointer<Float>
  ) {
    guard count > 0 else { return }
    kernels.rows.weightedSum(rows, stride, numbers, coefficients, count, columns, scratch)
    kernels.rows.addScaled(1, scratch, columns, out)
  }

  // MARK: Updates

  struct Constants {
    /// By seat.
    let encoders: [AdamConstants]
    let dictionaries: [AdamConstants]
  }

  func makeConstants(rates: [Double], factors: [Float]) -> Constants {
    Constants(
      encoders: encoders.map { constants(rates[$0.index], steps: $0.model.encoderSteps + 1, factors[$0.index]) },
      dictionaries: models.indices.map { constants(rates[$0], steps: models[$0].dictionarySteps + 1, factors[$0]) })
  }

  private func constants(_ rate: Double, steps: Int, _ factor: Float) -> AdamConstants {
    AdamConstants(
      beta1: Float(recipe.beta1), beta2: Float(recipe.beta2),
      stepSize: Float(rate / (1 - recipe.beta1.power(steps))),
      inverseRootCorrection: Float(1 / (1 - recipe.beta2.power(steps)).squareRoot()), epsilon: Float(recipe.epsilon),
      keep: Float(1 - rate * recipe.weightDecay), gradientScale: factor)
  }

  func updateDictionary(_ concept: Int, _ target: Int, _ gradient: UnsafePointer<Float>, _ constants: AdamConstants) {
    let rows = dictionaryRows[target]
    rows.update(concept, along: gradient, constants)
    models[target].updateRowScale(of: concept, dictionaryNorm)
    let norm = dictionaries[target].rowNorms[concept]
    guard recipe.renormalize, norm > 0, !dictionaryNorm.keeps(norm) else { return }
    let row = rows.row(concept)
    for c in 0..<rows.stride { row[c] /= norm }
    models[target].updateRowScale(of: concept, dictionaryNorm)
  }

  /// Updates the vectors of the encoders, running statistics and step counts.
  func finish(_ constants: Constants) {
    for seat in updatedSeats {
      let (encoder, constants) = (encoders[seat], constants.encoders[seat])
      if let batchNorm = encoder.model.batchNorm, let statistics = encoder.statistics {
        batchNorm.updateRunning(statistics, concepts: nConcepts, tokens: workspace.totalRows)
      }
      for tensor in encoder.model.encoderTrainables.dropFirst() {
        let rows = TrainedRows(tensor)
        rows.update(0, along: rows.gradientRow(0), constants)
      }
      encoder.model.encoderSteps += 1
    }
    for j in steppedDictionaries { models[j].dictionarySteps += 1 }
  }
}

extension BatchNormParameters {
  /// As torch.nn.BatchNorm1d: momentum 0.1, unbiased variance.
  fileprivate func updateRunning(_ statistics: BatchStatistics, concepts: Int, tokens: Int) {
    let unbiased = Float(Double(tokens) / Double(tokens - 1))
    let rest = 1 - Self.momentum
    for c in 0..<concepts {
      runningMean.base[c] = rest * runningMean.base[c] + Self.momentum * statistics.outputMean.base[c]
      runningVariance.base[c] =
        rest * runningVariance.base[c] + Self.momentum * statistics.outputVariance.base[c] * unbiased
    }
  }
}

extension Double {
  /// x^n by squaring: the same bits everywhere, unlike libm's pow.
  fileprivate func power(_ exponent: Int) -> Double {
    var result = 1.0
    var base = self
    var rest = exponent
    while rest > 0 {
      if rest & 1 == 1 { result *= base }
      base *= base
      rest >>= 1
    }
    return result
  }
}
