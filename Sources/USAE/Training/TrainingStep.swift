/// The phases of one step, and what each hands to the next: encode, decode, auxiliary loss, group by concept, update.
struct TrainingStep {
  let trainer: Trainer
  let workspace: StepWorkspace
  let recipe: Recipe
  let encoder: Int
  /// Steps done before this one.
  let number: Int
  /// Concepts that reconstruct: all, or a prefix of them.
  let prefix: Int
  /// Whether all gradients are written to buffers before the first update.
  let buffered: Bool

  /// - Parameter step: steps done before this one.
  init(trainer: Trainer, workspace: StepWorkspace, recipe: Recipe, encoder: Int, step: Int, buffered: Bool) {
    self.trainer = trainer
    self.workspace = workspace
    self.recipe = recipe
    self.encoder = encoder
    self.buffered = buffered
    number = step
    prefix = workspace.drawn?.concepts(seed: trainer.seed, step: step) ?? trainer.concepts
  }

  var models: [ModelParameters] { trainer.models }
  var model: ModelParameters { models[encoder] }
  var steppedDictionaries: [Int] { recipe.update == .all ? Array(models.indices) : [encoder] }
  var reconstruction: Reconstruction { Reconstruction(models: models, workspace: workspace, recipe: recipe) }

  /// What the forward phases compute for the update.
  struct Forward {
    // From `encode`.
    let encoder: PackedEncoder
    let statistics: BatchStatistics?
    let auxiliary: StepAuxiliary
    let deadConcepts: Int
    let screening: ScreeningCounts
    /// With BatchTopK, the smallest entry that the batch kept.
    let smallest: Float?
    // From `decode` and `addAuxiliary`.
    var losses: [Double] = []
    var auxiliaryLoss = 0.0
  }

  func forward(work: InterruptibleWork) throws(USAEError) -> Forward {
    var forward = try encode(batchStatistics(work: work), work: work)
    try decode(&forward, work: work)
    if forward.auxiliary.exists { try addAuxiliary(AuxiliaryLoss(reconstruction, work: work), &forward, work: work) }
    return forward
  }

  func loss(_ forward: Forward) -> Double {
    forward.losses.reduce(0, +) + recipe.auxiliaryCoefficient * forward.auxiliaryLoss
  }

  private func batchStatistics(work: InterruptibleWork) throws(USAEError) -> BatchStatistics? {
    guard model.batchNorm != nil else { return nil }
    try requireTokens()
    let statistics = try workspace.statistics(width: model.width)
    try statistics.compute(workspace.tokens[encoder], count: workspace.rows, model: model, work: work)
    return statistics
  }

  func requireTokens() throws(USAEError) {
    guard model.batchNorm == nil || workspace.totalRows > 1 else {
      throw .invalidArgument(
        name: "batch", expected: "at least 2 tokens for an encoder with BatchNorm", got: "\(workspace.totalRows)")
    }
  }

  /// Near the largest float32, the loss can be finite where a slope or a variance of the batch is not, and one such number
  /// would spoil the parameters.
  func isFinite(_ forward: Forward) -> Bool {
    (forward.losses + [forward.auxiliaryLoss, loss(forward)]).allSatisfy(\.isFinite)
      && workspace.codes.isFinite(workspace.codeGradients, rows: workspace.rows)
      && (forward.statistics?.isFinite ?? true) && forward.auxiliary.isFinite
  }
}

// MARK: Encode

extension TrainingStep {
  /// Selects the codes, and the auxiliary codes of dead concepts.
  ///
  /// - Parameter whole: whether the batch is this process's alone, so that BatchTopK can select here.
  func encode(_ statistics: BatchStatistics?, whole: Bool = true, work: InterruptibleWork) throws(USAEError) -> Forward {
    let packed = try workspace.pack(model, statistics, work: work)
    let dead = deadConcepts()
    let auxiliary = try makeAuxiliary(packed, dead: dead)
    let deadSelection = try auxiliary.dead.map { buffers throws(USAEError) in
      try DeadAuxiliary.Selection(dead, of: packed, buffers, work: work)
    }
    var smallest: Float?
    if whole, let selection = workspace.batchSelection {
      smallest = try selectByBatch(packed, deadSelection, selection, work: work)
    } else {
      try select(packed, deadSelection, work: work)
    }
    return Forward(
      encoder: packed, statistics: statistics, auxiliary: auxiliary, deadConcepts: dead.count,
      screening: packed.screeningCounts, smallest: smallest)
  }

  private func select(
    _ packed: PackedEncoder, _ dead: DeadAuxiliary.Selection?, above threshold: Float = 0, work: InterruptibleWork
  ) throws(USAEError) {
    let codes = workspace.codes
    try packed.forEachTile(
      of: workspace.tokens[encoder], 0..<workspace.rows, k: codes.slots, above: threshold,
      scratch: workspace.tileScratch(for: packed), work: work
    ) { tile in
      for row in tile.rows { codes.store(tile[row], row: row) }
      dead?.select(tile)
    }
  }

  /// Selects by BatchTopK. Returns the smallest entry that is kept, or nil where there is none.
  private func selectByBatch(
    _ packed: PackedEncoder, _ dead: DeadAuxiliary.Selection?, _ selection: BatchSelection, work: InterruptibleWork
  ) throws(USAEError) -> Float? {
    let wanted = workspace.rows * trainer.k
    let threshold = selection.threshold(model: encoder)
    try select(packed, dead, above: threshold, work: work)
    if threshold > 0, selection.total(workspace.codes, rows: workspace.rows) < wanted {
      try select(packed, dead, work: work)
    }
    let smallest = selection.trim(workspace.codes, rows: workspace.rows, wanted: wanted, model: encoder)
    try dead?.buffers.takeTrimmed(from: workspace.codes, selection, rows: workspace.rows, isDead: isDead, work: work)
    return smallest
  }

  func deadConcepts() -> [Int32] {
    guard recipe.deadTokens > 0 else { return [] }
    return (0..<Int32(trainer.concepts)).filter(isDead)
  }

  func isDead(_ concept: Int32) -> Bool { model.silentTokens.base[Int(concept)] >= Int64(recipe.deadTokens) }
}

// MARK: Decode, auxiliary loss

extension TrainingStep {
  /// Computes residuals and main losses; also slopes and code gradients, unless an auxiliary loss needs the residuals first.
  func decode(_ forward: inout Forward, work: InterruptibleWork) throws(USAEError) {
    workspace.keepConcepts(before: prefix)
    try workspace.nested?.arrange(workspace.codes, rows: workspace.rows, work: work)
    try allocateGradients(isDense: forward.auxiliary.isDense)
    try reconstruction.forward(forward.auxiliary.backward(reconstruction), work: work)
    forward.losses = reconstruction.losses()
  }

  /// Dense parts are added up in the buffers, which therefore start at zero. Vectors always have a buffer.
  private func allocateGradients(isDense: Bool) throws(USAEError) {
    let large = [model.encoderWeight] + steppedDictionaries.map { models[$0].dictionary }
    for tensor in model.encoderTrainables.dropFirst() { try tensor.allocateGradient() }
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
      forward.auxiliaryLoss = try PublishedAuxiliary(self, packed: forward.encoder, buffers: buffers).run(loss, work: work)
    }
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
      norm = squares[encoder].squareRoot()
      if update { concepts.apply(rates: rates, factors: squares.map(clipFactor), work: work) }
    } else {
      concepts.computeAndApply(rates: rates, work: work)
    }
    if update {
      countFirings()
      if let smallest = forward.smallest { model.followThreshold(smallest) }
    }
    return StepReport(
      encoder: encoder, step: update ? number + 1 : number, loss: loss(forward), losses: forward.losses,
      auxiliaryLoss: forward.auxiliaryLoss, l0: meanActive(), learningRate: rates[encoder], gradientNorm: norm,
      deadConcepts: forward.deadConcepts, prefix: prefix, screening: forward.screening)
  }

  /// By model.
  func learningRates() -> [Double] {
    let steps = recipe.clock == .model ? model.encoderSteps : number
    return models.map { recipe.learningRate(at: steps, of: $0) }
  }

  /// As torch.nn.utils.clip_grad_norm_.
  func clipFactor(square: Double) -> Float {
    recipe.clipNorm > 0 ? Float(min(1, recipe.clipNorm / (square.squareRoot() + 1e-6))) : 1
  }

  private func countFirings() {
    for c in 0..<trainer.concepts { model.silentTokens.base[c] += Int64(workspace.rows) }
    for t in 0..<workspace.rows {
      for q in 0..<workspace.foundCount(t) { model.silentTokens.base[Int(workspace.codes.indices(t)[q])] = 0 }
    }
    model.tokens += workspace.rows
  }

  private func meanActive() -> Double {
    Double((0..<workspace.rows).reduce(0) { $0 + workspace.foundCount($1) }) / Double(workspace.rows)
  }
}
