/// The phases of one step, and what each hands to the next: encode, decode, auxiliary loss, agreement, group by concept,
/// update.
struct TrainingStep {
  let trainer: Trainer
  let workspace: StepWorkspace
  let recipe: Recipe
  /// The models that the batch has, ascending. The step neither decodes to others nor changes them.
  let present: [Int]
  /// The models that are encoded. An encoder's number here is its seat (`StepEncodings`).
  let encoders: [Int]
  /// Steps done before this one.
  let number: Int
  /// Concepts that reconstruct: all, or a prefix of them.
  let prefix: Int
  /// Weight of the agreement term; 0 where the loss does not have it.
  let agreementWeight: Double
  /// Whether all gradients are written to buffers before the first update.
  let buffered: Bool

  /// - Parameter step: steps done before this one.
  init(
    trainer: Trainer, workspace: StepWorkspace, recipe: Recipe, present: [Int], encoders: [Int], step: Int, buffered: Bool
  ) {
    self.trainer = trainer
    self.workspace = workspace
    self.recipe = recipe
    self.present = present
    self.encoders = encoders
    self.buffered = buffered
    number = step
    agreementWeight = recipe.agreementWeight(at: step, models: present.count)
    prefix = workspace.drawn?.concepts(seed: trainer.seed, step: step) ?? trainer.concepts
  }

  var models: [ModelParameters] { trainer.models }
  /// The encoded models by seat.
  var encodedModels: [ModelParameters] { encoders.map { models[$0] } }
  var encodings: StepEncodings { workspace.encodings }
  /// Dictionaries that the step changes.
  var steppedDictionaries: [Int] {
    (recipe.update == .all ? present : encoders).filter { !models[$0].isFrozen }
  }
  private var lossWeights: LossWeights { LossWeights(recipe, encoders: encoders, models: present.count) }
  var reconstruction: Reconstruction {
    Reconstruction(models: models, targets: present, weights: lossWeights, workspace: workspace, recipe: recipe)
  }

  /// What the forward phases compute for the update.
  struct Forward {
    // From `encode`.
    let encoded: [Encoded]
    let auxiliary: StepAuxiliary
    // From `decode`, `addAuxiliary` and `addAgreement`.
    /// The main loss by seat and target model; NaN for models that the batch does not have.
    var losses: [[Double]] = []
    var auxiliaryLoss = 0.0
    var agreement: Agreement.Result?

    var screening: ScreeningCounts { encoded.reduce(into: ScreeningCounts()) { $0 += $1.screening } }
  }

  /// What the encoding of one model leaves.
  struct Encoded {
    let encoder: PackedEncoder
    let statistics: BatchStatistics?
    let deadConcepts: Int
    let screening: ScreeningCounts
    /// With BatchTopK, the smallest entry that the batch kept.
    let smallest: Float?
  }

  func forward(work: InterruptibleWork) throws(USAEError) -> Forward {
    try addNoise(work: work)
    var forward = try encode(batchStatistics(work: work), work: work)
    try decode(&forward, work: work)
    if forward.auxiliary.exists {
      try addAuxiliary(AuxiliaryLoss(reconstruction, forward.auxiliary, work: work), &forward, work: work)
    }
    try addAgreement(&forward, work: work)
    return forward
  }

  /// The step's loss from that by seat and target model, and the other terms.
  func loss(_ losses: [[Double]], auxiliary: Double, agreement: Double) -> Double {
    meanLosses(losses).reduce(0, +) + recipe.auxiliaryCoefficient * auxiliary + agreementWeight * agreement
  }

  private func loss(_ forward: Forward) -> Double {
    loss(forward.losses, auxiliary: forward.auxiliaryLoss, agreement: forward.agreement?.loss ?? 0)
  }

  /// Weighted means over the encoders, by target model that the batch has.
  private func meanLosses(_ losses: [[Double]]) -> [Double] {
    let weights = lossWeights
    return present.map { j in
      losses.indices.reduce(0) { $0 + weights.weight(seat: $1, target: j) * losses[$1][j] } / Double(losses.count)
    }
  }

  private func batchStatistics(work: InterruptibleWork) throws(USAEError) -> [BatchStatistics?] {
    try requireTokens()
    var all: [BatchStatistics?] = []
    for (seat, model) in encodedModels.enumerated() {
      guard model.batchNorm != nil, !model.isFrozen else {  // a frozen one has its running statistics
        all.append(nil)
        continue
      }
      let statistics = try workspace.statistics(seat: seat, width: model.width)
      try statistics.compute(workspace.inputs[encoders[seat]], count: workspace.rows, model: model, work: work)
      all.append(statistics)
    }
    return all
  }

  func requireTokens() throws(USAEError) {
    guard models[0].batchNorm == nil || workspace.totalRows > 1 else {
      throw .invalidArgument(
        name: "batch", expected: "at least 2 tokens for an encoder with BatchNorm", got: "\(workspace.totalRows)")
    }
  }

  /// Near the largest float32, the loss can be finite where a slope or a variance of the batch is not, and one such number
  /// would spoil the parameters.
  func isFinite(_ forward: Forward) -> Bool {
    (forward.losses.flatMap { losses in present.map { losses[$0] } } + [forward.auxiliaryLoss, loss(forward)])
      .allSatisfy(\.isFinite)
      && workspace.codes.isFinite(workspace.codeGradients, rows: encodings.count)
      && forward.encoded.allSatisfy { $0.statistics?.isFinite ?? true } && forward.auxiliary.isFinite
      && (forward.agreement?.isFinite ?? true)
  }
}

// MARK: Encode

extension TrainingStep {
  /// Writes what the encoders read, where that is not the tokens themselves.
  func addNoise(work: InterruptibleWork) throws(USAEError) {
    guard recipe.inputNoise > 0 else { return }
    let noise = InputNoise(deviation: recipe.inputNoise, seed: trainer.seed, step: number)
    for model in encoders {
      try noise.add(
        to: workspace.tokens[model], rows: workspace.rows, firstRow: workspace.firstRow, model: model,
        out: workspace.inputs[model], work: work)
    }
  }

  /// Selects the codes, and the auxiliary codes of dead concepts.
  ///
  /// - Parameter whole: whether the batch is this process's alone, so that BatchTopK can select here.
  func encode(_ statistics: [BatchStatistics?], whole: Bool = true, work: InterruptibleWork) throws(USAEError) -> Forward {
    let dead = encoders.indices.map(deadConcepts)
    let auxiliary = try makeAuxiliary(dead: dead)
    var encoded: [Encoded] = []
    for seat in encoders.indices {
      encoded.append(
        try encode(seat, statistics[seat], dead: dead[seat], auxiliary.dead, whole: whole, work: work))
    }
    return Forward(encoded: encoded, auxiliary: auxiliary)
  }

  private func encode(
    _ seat: Int, _ statistics: BatchStatistics?, dead: [Int32], _ buffers: DeadAuxiliary.Buffers?, whole: Bool,
    work: InterruptibleWork
  ) throws(USAEError) -> Encoded {
    let packed = try workspace.pack(models[encoders[seat]], statistics, work: work)
    var deadSelection: DeadAuxiliary.Selection?
    if let buffers, !dead.isEmpty {
      deadSelection = try DeadAuxiliary.Selection(dead, of: packed, buffers, seat: seat, work: work)
    }
    var smallest: Float?
    if whole, let selection = workspace.batchSelection {
      smallest = try selectByBatch(seat, packed, deadSelection, selection, work: work)
    } else {
      try select(seat, packed, deadSelection, work: work)
    }
    return Encoded(
      encoder: packed, statistics: statistics, deadConcepts: dead.count, screening: packed.screeningCounts,
      smallest: smallest)
  }

  private func select(
    _ seat: Int, _ packed: PackedEncoder, _ dead: DeadAuxiliary.Selection?, above threshold: Float = 0,
    work: InterruptibleWork
  ) throws(USAEError) {
    let codes = workspace.codes
    let first = encodings.range(seat).lowerBound
    try packed.forEachTile(
      of: workspace.inputs[encoders[seat]], 0..<workspace.rows, k: codes.slots, above: threshold,
      scratch: workspace.tileScratch(for: packed), work: work
    ) { tile in
      for row in tile.rows { codes.store(tile[row], row: first &+ row) }
      dead?.select(tile)
    }
  }

  /// Selects by BatchTopK. Returns the smallest entry that is kept, or nil where there is none.
  private func selectByBatch(
    _ seat: Int, _ packed: PackedEncoder, _ dead: DeadAuxiliary.Selection?, _ selection: BatchSelection,
    work: InterruptibleWork
  ) throws(USAEError) -> Float? {
    let (wanted, rows) = (batchEntries(trainer.k, tokens: workspace.rows), encodings.range(seat))
    let threshold = selection.threshold(model: encoders[seat])
    try select(seat, packed, dead, above: threshold, work: work)
    if threshold > 0, selection.total(workspace.codes, rows: rows) < wanted {
      try select(seat, packed, dead, work: work)
    }
    let smallest = selection.trim(workspace.codes, rows: rows, wanted: wanted, model: encoders[seat])
    if let dead { try takeTrimmed(seat, selection, dead.buffers, work: work) }
    return smallest
  }

  func takeTrimmed(
    _ seat: Int, _ selection: BatchSelection, _ buffers: DeadAuxiliary.Buffers, work: InterruptibleWork
  ) throws(USAEError) {
    try buffers.takeTrimmed(
      from: workspace.codes, selection, rows: encodings.range(seat), isDead: { self.isDead($0, seat: seat) }, work: work)
  }

  /// Concepts that are dead in the encoded model at a seat.
  func deadConcepts(_ seat: Int) -> [Int32] {
    guard recipe.deadTokens > 0 else { return [] }
    return (0..<Int32(trainer.concepts)).filter { isDead($0, seat: seat) }
  }

  private func isDead(_ concept: Int32, seat: Int) -> Bool {
    let model = models[encoders[seat]]
    return !model.isFrozen && model.silentTokens.base[Int(concept)] >= Int64(recipe.deadTokens)
  }
}

// MARK: Decode, auxiliary loss

extension TrainingStep {
  /// Computes residuals and main losses; also slopes and code gradients, unless an auxiliary loss needs the residuals first.
  func decode(_ forward: inout Forward, work: InterruptibleWork) throws(USAEError) {
    workspace.keepConcepts(before: prefix)
    try workspace.nested?.arrange(workspace.codes, rows: encodings.count, work: work)
    try allocateGradients(isDense: forward.auxiliary.isDense)
    try reconstruction.forward(forward.auxiliary.backward(reconstruction), work: work)
    forward.losses = reconstruction.losses()
  }

  /// Dense parts are added up in the buffers, which therefore start at zero. Vectors always have a buffer.
  private func allocateGradients(isDense: Bool) throws(USAEError) {
    let large = encodedModels.map(\.encoderWeight) + steppedDictionaries.map { models[$0].dictionary }
    for model in encodedModels {
      for tensor in model.encoderTrainables.dropFirst() { try tensor.allocateGradient() }
    }
    for tensor in large {
      if buffered || isDense { try tensor.allocateGradient() } else { tensor.dropGradient() }
      if isDense { tensor.gradient?.storage.zero() }
    }
  }

  /// Computes the auxiliary loss, and then the slopes and code gradients.
  func addAuxiliary(_ loss: AuxiliaryLoss, _ forward: inout Forward, work: InterruptibleWork) throws(USAEError) {
    switch forward.auxiliary {
    case .none: break
    case .dead(let buffers):
      forward.auxiliaryLoss = try DeadAuxiliary(reconstruction: reconstruction, buffers: buffers).run(loss, work: work)
    case .published(let buffers):
      forward.auxiliaryLoss = try PublishedAuxiliary(self, forward, buffers: buffers).run(loss, work: work)
    }
  }

  /// Computes the agreement term, and adds its gradients to those of the codes.
  func addAgreement(_ forward: inout Forward, work: InterruptibleWork) throws(USAEError) {
    guard agreementWeight > 0 else { return }
    let buffers = try workspace.buffersOfAgreement()
    forward.agreement = try Agreement(self, buffers).run(statistics: forward.encoded.map(\.statistics), work: work)
  }
}

// MARK: Update

extension TrainingStep {
  /// Gradients and update; nothing here can fail or be interrupted.
  func finish(_ forward: Forward, update: Bool, work: InterruptibleWork) -> StepReport {
    let concepts = ConceptUpdate(self, forward)
    let rates = learningRates()
    var norm = Double.nan
    if buffered || forward.auxiliary.isDense {
      let squares = concepts.computeGradients(work: work)
      norm = squares[encoders[0]].squareRoot()
      if update { concepts.apply(rates: rates, factors: squares.map(clipFactor), work: work) }
    } else {
      concepts.computeAndApply(rates: rates, work: work)
    }
    if update {
      for (seat, encoded) in forward.encoded.enumerated() where !models[encoders[seat]].isFrozen {
        countFirings(seat)
        if let smallest = encoded.smallest { models[encoders[seat]].followThreshold(smallest) }
      }
    }
    return StepReport(
      encoders: encoders, step: update ? number + 1 : number, loss: loss(forward), losses: forward.losses,
      auxiliaryLoss: forward.auxiliaryLoss, agreement: forward.agreement?.loss ?? 0, l0: meanActive(),
      learningRate: rates[encoders[0]], gradientNorm: norm, deadConcepts: forward.encoded[0].deadConcepts, prefix: prefix,
      screening: forward.screening)
  }

  /// By model. With a clock for each model, a dictionary whose model is not encoded has the clock of the encoded model that was
  /// encoded least often.
  func learningRates() -> [Double] {
    let fewest = encodedModels.reduce(Int.max) { min($0, $1.encoderSteps) }
    return models.indices.map { j in
      let own = encoders.contains(j) ? models[j].encoderSteps : fewest
      return recipe.learningRate(at: recipe.clock == .model ? own : number, of: models[j])
    }
  }

  /// As torch.nn.utils.clip_grad_norm_.
  func clipFactor(square: Double) -> Float {
    recipe.clipNorm > 0 ? Float(min(1, recipe.clipNorm / (square.squareRoot() + 1e-6))) : 1
  }

  private func countFirings(_ seat: Int) {
    let model = models[encoders[seat]]
    for c in 0..<trainer.concepts { model.silentTokens.base[c] += Int64(workspace.rows) }
    for t in encodings.range(seat) {
      for q in 0..<workspace.foundCount(t) { model.silentTokens.base[Int(workspace.codes.indices(t)[q])] = 0 }
    }
    model.tokens += workspace.rows
  }

  private func meanActive() -> Double {
    Double((0..<encodings.count).reduce(0) { $0 + workspace.foundCount($1) }) / Double(encodings.count)
  }
}
