/// The sums over all processes that a shared step updates from; matrices have no padding.
struct SharedTotals {
  /// By model.
  private(set) var encoders: [Int: UnsafeBufferPointer<Float>] = [:]
  private(set) var dictionaries: [Int: UnsafeBufferPointer<Float>] = [:]
  private(set) var restarts: UnsafeBufferPointer<Float>?
  private(set) var summary: SharedSum?
  /// Those that are numbers of one kind.
  private(set) var others: [SharedSum] = []

  mutating func add(_ sum: SharedSum) {
    switch sum.exchange.kind {
    case .gradient where sum.exchange.tensor == .dictionary: dictionaries[sum.exchange.model] = sum.numbers
    case .gradient: encoders[sum.exchange.model] = sum.numbers
    case .restarts: restarts = sum.numbers
    case .summary: summary = sum
    case .means, .covariance, .upperHalves, .lowerHalves, .ties, .residualMeans, .spreads: return
    }
    if sum.exchange.kind != .summary { others.append(sum) }
  }

  /// Copies row `number` of a matrix to `row`, with padding.
  @inline(__always)
  static func load(
    _ matrix: UnsafeBufferPointer<Float>, _ number: Int, like tensor: Trainable, to row: UnsafeMutablePointer<Float>
  ) {
    let (columns, stride) = (tensor.value.columns, tensor.value.stride)
    guard let base = matrix.baseAddress else { preconditionFailure("sizes were checked") }
    row.update(from: base + number &* columns, count: columns)
    (row + columns).update(repeating: 0, count: stride &- columns)
  }
}

/// The gradients of a shared step are exchanged as the caller's dense matrices, which are copied row by row through a thread's
/// scratch memory: so nothing depends on their alignment, and no padding is exchanged.
extension ConceptUpdate {
  /// This process's part of dLoss/dW of an encoder, [n_concepts, width]; those of its vectors go to their buffers.
  func writeEncoderGradient(model: Int, to out: UnsafeMutablePointer<Float>, work: InterruptibleWork) {
    let width = models[model].width
    guard let seat = encoders.firstIndex(where: { $0.index == model }) else { preconditionFailure("an encoded model") }
    forEachConcept(work) { concept, worker in
      let (row, scratch) = self.gradientMemory(self.encoders[seat].rows, concept, worker)
      self.encoderGradient(concept, seat: seat, out: row, scratch: scratch)
      (out + concept * width).update(from: row, count: width)
    }
  }

  /// This process's part of dLoss/dD of a model, [n_concepts, width].
  func writeDictionaryGradient(target: Int, to out: UnsafeMutablePointer<Float>, work: InterruptibleWork) {
    let width = models[target].width
    forEachConcept(work) { concept, worker in
      let (row, scratch) = self.gradientMemory(self.dictionaryRows[target], concept, worker)
      self.dictionaryGradient(concept, target: target, out: row, scratch: scratch)
      (out + concept * width).update(from: row, count: width)
    }
  }

  /// Memory for a row of a gradient, which is the row of the gradient buffer where that holds a dense part, and scratch memory
  /// of the same size.
  private func gradientMemory(_ rows: TrainedRows, _ concept: Int, _ worker: Int)
    -> (row: UnsafeMutablePointer<Float>, scratch: UnsafeMutablePointer<Float>)
  {
    let own = workspace.updateScratch[worker]
    return isDense ? (rows.gradientRow(concept), own.base) : (own.base, own.base + own.count / 2)
  }

  /// Squared norms of the whole gradients by model, the encoder's vectors included.
  func squares(of totals: SharedTotals, work: InterruptibleWork) -> [Double] {
    squares(work: work) { concept, j, worker in
      let row = self.workspace.updateScratch[worker].base
      SharedTotals.load(totals.dictionaries[j]!, concept, like: self.models[j].dictionary, to: row)
      return UnsafePointer(row)
    } encoderRow: { concept, seat, worker in
      let (row, index) = (self.workspace.updateScratch[worker].base, self.encoders[seat].index)
      SharedTotals.load(totals.encoders[index]!, concept, like: self.models[index].encoderWeight, to: row)
      return UnsafePointer(row)
    }
  }

  /// Updates every stepped tensor, each model's gradients times its factor.
  func apply(_ totals: SharedTotals, rates: [Double], factors: [Float], work: InterruptibleWork) {
    let constants = makeConstants(rates: rates, factors: factors)
    for (seat, encoder) in encoders.enumerated() {
      forEachConcept(work) { concept, worker in
        let row = workspace.updateScratch[worker].base
        SharedTotals.load(totals.encoders[encoder.index]!, concept, like: self.models[encoder.index].encoderWeight, to: row)
        encoder.rows.update(concept, along: row, constants.encoders[seat])
      }
    }
    for j in steppedDictionaries {
      forEachConcept(work) { concept, worker in
        let row = workspace.updateScratch[worker].base
        SharedTotals.load(totals.dictionaries[j]!, concept, like: self.models[j].dictionary, to: row)
        self.updateDictionary(concept, j, row, constants.dictionaries[j])
      }
    }
    finish(constants)
  }
}
