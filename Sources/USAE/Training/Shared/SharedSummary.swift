/// The last exchange of a shared step: losses and counts, the gradients of the encoders' vectors, and which concepts fired.
///
/// As floats: [losses by encoder and model of the batch, auxiliary loss, active entries, processes whose numbers are not
/// finite, agreement where the loss has it, then for each encoder: gradients of each vector [n_concepts], processes in which a
/// concept fired [n_concepts]].
struct SharedSummary {
  private let step: SharedStep

  init(_ step: SharedStep) { self.step = step }

  static func count(_ step: SharedStep) -> Int {
    let (encoders, vectors) = (step.local.encoders.count, step.models[0].encoderTrainables.count - 1)
    let numbers = encoders * step.local.present.count + 3 + (hasAgreement(step) ? 1 : 0)
    return numbers + encoders * step.local.trainer.concepts * (vectors + 1)
  }

  private static func hasAgreement(_ step: SharedStep) -> Bool { step.local.agreementWeight > 0 }

  private var concepts: Int { step.local.trainer.concepts }
  private var encoders: [ModelParameters] { step.local.encodedModels }

  func write(_ forward: TrainingStep.Forward, to out: UnsafeMutablePointer<Float>) {
    let workspace = step.workspace
    var out = out
    func put(_ value: Double) {
      out.pointee = Float(value)
      out += 1
    }
    for losses in forward.losses { for j in step.local.present { put(losses[j]) } }
    put(forward.auxiliaryLoss)
    put(Double((0..<workspace.encodings.count).reduce(0) { $0 + workspace.foundCount($1) }))
    put(step.local.isFinite(forward) ? 0 : 1)
    if let agreement = forward.agreement { put(agreement.loss) }
    for (seat, model) in encoders.enumerated() {
      for vector in model.encoderTrainables.dropFirst() {
        guard let gradient = vector.gradient else { preconditionFailure("the encoder's gradient was computed") }
        out.update(from: gradient.base, count: concepts)
        out += concepts
      }
      out.update(repeating: 0, count: concepts)
      for t in workspace.encodings.range(seat) {
        for q in 0..<workspace.foundCount(t) { out[Int(workspace.codes.indices(t)[q])] = 1 }
      }
      out += concepts
    }
  }

  /// Reads the sum over all processes, and checks all of it first. The vectors' gradients become those of the whole batch.
  func read(_ sum: SharedSum?) throws(USAEError) -> Sums {
    guard let sum else { preconditionFailure("a step has a summary") }
    let (numbers, present) = (sum.numbers, step.local.present)
    let count = encoders.count * present.count
    let losses = encoders.indices.map { seat in
      var all = [Double](repeating: .nan, count: step.models.count)
      for (place, j) in present.enumerated() { all[j] = Double(numbers[seat * present.count + place]) }
      return all
    }
    let auxiliary = Double(numbers[count])
    let agreement = Self.hasAgreement(step) ? Double(numbers[count + 3]) : nil
    let loss = step.local.loss(losses, auxiliary: auxiliary, agreement: agreement ?? 0)
    guard loss.isFinite, numbers[count + 2] == 0 else { throw .lossNotFinite(step: step.local.number + 1) }
    try sum.requireFinite()
    try sum.requireNotNegative(0..<count + 1)
    if agreement != nil { try sum.requireNotNegative(count + 3..<count + 4) }
    let most = step.mostEntries(encoders: encoders.count)
    let active = try sum.counts(count + 1..<count + 2, most: most, together: true)[0]
    let first = count + (agreement == nil ? 3 : 4)
    let ofEncoder = (numbers.count - first) / encoders.count
    var fired: [[Int]] = []
    for seat in encoders.indices {
      let last = first + (seat + 1) * ofEncoder
      fired.append(try sum.counts(last - concepts..<last, most: Double(step.processes), together: false))
    }
    takeGradients(numbers, from: first)
    return Sums(losses: losses, auxiliary: auxiliary, agreement: agreement, loss: loss, active: Double(active), fired: fired)
  }

  private func takeGradients(_ numbers: UnsafeBufferPointer<Float>, from first: Int) {
    var first = first
    for model in encoders {
      for vector in model.encoderTrainables.dropFirst() {
        guard let gradient = vector.gradient else { preconditionFailure("the encoder's gradient was computed") }
        for c in 0..<concepts { gradient.base[c] = numbers[first + c] }
        first += concepts
      }
      first += concepts  // those that fired
    }
  }

  struct Sums {
    /// By encoder and target model.
    let losses: [[Double]]
    let auxiliary: Double
    let agreement: Double?
    let loss, active: Double
    /// By seat, the processes in which each concept fired.
    let fired: [[Int]]

    /// Counts tokens since each concept last fired for any process.
    func countFirings(_ seat: Int, of model: ModelParameters, concepts: Int, tokens: Int) {
      let fired = fired[seat]
      for c in 0..<concepts { model.silentTokens.base[c] = fired[c] > 0 ? 0 : model.silentTokens.base[c] + Int64(tokens) }
      model.tokens += tokens
    }
  }
}
