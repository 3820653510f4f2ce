/// The last exchange of a shared step: losses and counts, the gradients of the encoder's vectors, and which concepts fired.
///
/// As floats: [losses by model, auxiliary loss, active entries, processes whose numbers are not finite, gradients of each
/// vector [n_concepts], processes in which a concept fired [n_concepts]].
struct SharedSummary {
  private let step: SharedStep

  init(_ step: SharedStep) { self.step = step }

  static func count(_ step: SharedStep) -> Int {
    let vectors = step.local.model.encoderTrainables.count - 1
    return step.models.count + 3 + step.local.trainer.concepts * (vectors + 1)
  }

  private var concepts: Int { step.local.trainer.concepts }
  private var vectors: ArraySlice<Trainable> { step.local.model.encoderTrainables.dropFirst() }

  func write(_ forward: TrainingStep.Forward, to out: UnsafeMutablePointer<Float>) {
    let workspace = step.workspace
    var out = out
    func put(_ value: Double) {
      out.pointee = Float(value)
      out += 1
    }
    for loss in forward.losses { put(loss) }
    put(forward.auxiliaryLoss)
    put(Double((0..<workspace.rows).reduce(0) { $0 + workspace.foundCount($1) }))
    put(step.local.isFinite(forward) ? 0 : 1)
    for vector in vectors {
      guard let gradient = vector.gradient else { preconditionFailure("the encoder's gradient was computed") }
      out.update(from: gradient.base, count: concepts)
      out += concepts
    }
    out.update(repeating: 0, count: concepts)
    for t in 0..<workspace.rows {
      for q in 0..<workspace.foundCount(t) { out[Int(workspace.codes.indices(t)[q])] = 1 }
    }
  }

  /// Reads the sum over all processes, and checks all of it first. The vectors' gradients become those of the whole batch.
  func read(_ sum: SharedSum?) throws(USAEError) -> Sums {
    guard let sum else { preconditionFailure("a step has a summary") }
    let (numbers, count) = (sum.numbers, step.models.count)
    let losses = numbers[..<count].map(Double.init)
    let auxiliary = Double(numbers[count])
    let loss = losses.reduce(0, +) + step.recipe.auxiliaryCoefficient * auxiliary
    guard loss.isFinite, numbers[count + 2] == 0 else { throw .lossNotFinite(step: step.local.number + 1) }
    try sum.requireFinite()
    try sum.requireNotNegative(0..<count + 1)
    let active = try sum.counts(count + 1..<count + 2, most: step.mostEntries, together: true)[0]
    var first = count + 3
    let fired = first + vectors.count * concepts
    let counts = try sum.counts(fired..<fired + concepts, most: Double(step.processes), together: false)
    for vector in vectors {
      guard let gradient = vector.gradient else { preconditionFailure("the encoder's gradient was computed") }
      for c in 0..<concepts { gradient.base[c] = numbers[first + c] }
      first += concepts
    }
    return Sums(losses: losses, auxiliary: auxiliary, loss: loss, active: Double(active), fired: counts)
  }

  struct Sums {
    let losses: [Double]
    let auxiliary, loss, active: Double
    /// Processes in which each concept fired.
    let fired: [Int]

    /// Counts tokens since each concept last fired for any process.
    func countFirings(of model: ModelParameters, concepts: Int, tokens: Int) {
      for c in 0..<concepts { model.silentTokens.base[c] = fired[c] > 0 ? 0 : model.silentTokens.base[c] + Int64(tokens) }
      model.tokens += tokens
    }
  }
}
