/// One optimisation step, or its gradients: the order of the phases and what each hands to the next.
///
/// Everything before `update` reads parameters only, so an error or an interrupt there leaves the autoencoder as it was.
final class Trainer: @unchecked Sendable {
  let concepts, k: Int
  let seed: UInt64
  let models: [ModelParameters]
  private var workspace: StepWorkspace?

  init(concepts: Int, k: Int, seed: UInt64, models: [ModelParameters]) {
    self.concepts = concepts
    self.k = k
    self.seed = seed
    self.models = models
  }

  /// - Parameters:
  ///   - step: steps done before this one.
  ///   - encoder: the model to encode; nil draws it.
  ///   - keepGradients: leave the parameters alone and the raw gradients in the tensors' buffers.
  func step(
    _ activations: [Activations], _ selection: RowSelection, step: Int, encoder: Int?, recipe: Recipe, keepGradients: Bool,
    work: Work
  ) throws(USAEError) -> StepReport {
    let workspace = try ingest(activations, selection, recipe: recipe, work: work)
    let pass = Pass(
      trainer: self, workspace: workspace, recipe: recipe, encoder: encoder ?? drawEncoder(step: step), step: step,
      buffered: keepGradients || recipe.clipNorm > 0)
    let merging = TwinMerging(models: models, recipe: recipe, seed: seed)
    let twins = !keepGradients && merging.isDue(after: step + 1) ? try merging.find(work: work) : []
    let forward = try pass.forward(work: work)
    guard forward.loss.isFinite, pass.isFinite(forward) else { throw .lossNotFinite(step: step + 1) }
    let report = pass.finish(forward, step: step, update: !keepGradients, work: work)
    merging.merge(twins, inputs: workspace.inputs, rows: workspace.rows, step: step + 1)
    return report
  }

  /// The batch, standardised, in a workspace of its size.
  func ingest(_ activations: [Activations], _ selection: RowSelection, recipe: Recipe, work: Work) throws(USAEError)
    -> StepWorkspace
  {
    let rows = selection.count(of: activations[0].rows)
    let workspace = try workspace(rows: rows, recipe: recipe, threads: work.threads)
    workspace.totalRows = rows
    for j in models.indices {
      try Ingestion(model: models[j], activations: activations[j]).copy(
        0..<rows, of: selection, to: workspace.inputs[j], spares: workspace.spares, work: work)
    }
    return workspace
  }

  func drawEncoder(step: Int) -> Int {
    CounterRandom(seed: seed, stream: .encoderDraw).index(UInt64(step), below: models.count)
  }

  private func workspace(rows: Int, recipe: Recipe, threads: Int) throws(USAEError) -> StepWorkspace {
    if let workspace, workspace.fits(rows: rows, threads: threads) { return workspace }
    workspace = nil  // before the new one: both together would double the peak
    let made = try StepWorkspace(
      rows: rows, k: k, recipe: recipe, concepts: concepts, widths: models.map { $0.width }, threads: threads)
    workspace = made
    return made
  }

  // MARK: One pass

  /// What the forward half of a step leaves for the update.
  struct Forward {
    var losses: [Double]
    var auxiliary: Double
    var loss: Double
    var deadConcepts: Int
    var screening = ScreeningCounts()
    /// The smallest activation that the batch kept, where it selects by batch.
    var smallest: Float?
    var statistics: BatchStatistics?
    var dead: DeadAuxiliary.Buffers?
    var unchosen: UnchosenAuxiliary.Buffers?
  }

  struct Pass {
    let trainer: Trainer
    let workspace: StepWorkspace
    let recipe: Recipe
    let encoder: Int
    /// Concepts that reconstruct: all, or the first of them.
    let prefix: Int
    /// Gradients are written out before the first update.
    let buffered: Bool

    /// - Parameter step: steps done before this one.
    init(trainer: Trainer, workspace: StepWorkspace, recipe: Recipe, encoder: Int, step: Int, buffered: Bool) {
      self.trainer = trainer
      self.workspace = workspace
      self.recipe = recipe
      self.encoder = encoder
      self.buffered = buffered
      prefix = workspace.drawn?.concepts(seed: trainer.seed, step: step) ?? trainer.concepts
    }

    private var models: [ModelParameters] { trainer.models }
    var model: ModelParameters { models[encoder] }
    var steppedDictionaries: [Int] { recipe.update == .all ? Array(models.indices) : [encoder] }

    func forward(work: Work) throws(USAEError) -> Forward {
      var result = Forward(losses: [], auxiliary: 0, loss: 0, deadConcepts: 0)
      result.statistics = try batchStatistics(work: work)
      try encode(&result, work: work)
      try decode(&result, work: work)
      if waitsForResiduals(result) { try addAuxiliary(try AuxiliaryLoss(reconstruction, work: work), &result, work: work) }
      result.loss = result.losses.reduce(0, +) + recipe.auxiliaryCoefficient * result.auxiliary
      return result
    }

    var reconstruction: Reconstruction { Reconstruction(models: models, workspace: workspace, recipe: recipe) }

    /// What has to be explained beside the main loss is what the whole code leaves over.
    var auxiliary: Recipe.Auxiliary { prefix == trainer.concepts ? recipe.auxiliary : .none }

    private func waitsForResiduals(_ forward: Forward) -> Bool { forward.dead != nil || auxiliary == .unchosen }

    /// Codes.
    ///
    /// - Parameter whole: the batch is this process's alone, so that a selection by batch can be made here.
    func encode(_ result: inout Forward, whole: Bool = true, work: Work) throws(USAEError) {
      let packed = try workspace.encoder(depth: model.width)
      try packed.pack(model.encoderWeight.value, affine: { model.affine($0, batch: result.statistics) }, work: work)
      let tiles = try workspace.tiles(for: packed)
      let deadConcepts = self.deadConcepts()
      result.deadConcepts = deadConcepts.count
      if auxiliary == .dead, !deadConcepts.isEmpty {
        result.dead = try workspace.deadBuffers(slots: recipe.auxiliarySlots(concepts: trainer.concepts, k: trainer.k))
      }
      let subset = ConceptSubset(deadConcepts)
      if result.dead != nil { try packed.prepare(subset, tiles: tiles, work: work) }
      let before = packed.screeningCounts
      if whole, let selection = workspace.batchSelection {
        result.smallest = try encode(tiles, dead: subset, to: result.dead, selection, work: work)
      } else {
        try encode(tiles, dead: subset, to: result.dead, work: work)
      }
      result.screening = packed.screeningCounts - before
    }

    /// Residuals and main losses; also slopes and code gradients where no auxiliary loss waits for the residuals.
    func decode(_ result: inout Forward, work: Work) throws(USAEError) {
      workspace.keepConcepts(before: prefix)
      try workspace.nested?.arrange(workspace.codes, rows: workspace.rows, work: work)
      try allocateGradients()
      try reconstruction.forward(finish: !waitsForResiduals(result), work: work)
      result.losses = reconstruction.losses()
    }

    /// The auxiliary loss, and the slopes and code gradients that waited for it.
    func addAuxiliary(_ loss: AuxiliaryLoss, _ result: inout Forward, work: Work) throws(USAEError) {
      if let buffers = result.dead {
        result.auxiliary = try DeadAuxiliary(reconstruction: reconstruction, buffers: buffers).run(loss, work: work)
      } else {
        let packed = try workspace.encoder(depth: model.width)
        let buffers = try workspace.unchosenBuffers(columns: packed.columns, models: models)
        result.unchosen = buffers
        result.auxiliary = try UnchosenAuxiliary(
          reconstruction: reconstruction, encoder: encoder, steppedDictionaries: steppedDictionaries, buffers: buffers,
          slots: recipe.auxiliarySlots(concepts: trainer.concepts, k: trainer.k)
        ).run(loss, tiles: try workspace.tiles(for: packed), work: work)
      }
    }

    /// Near the end of what float32 holds the loss can be a number where a slope or a variance of the batch is none, and one such
    /// number would spoil the parameters.
    func isFinite(_ forward: Forward) -> Bool {
      isFinite(workspace.codes, workspace.codeGradients)
        && (forward.statistics?.isFinite ?? true)
        && (forward.dead.map { isFinite($0.codes, $0.codeGradients) } ?? true)
        && (forward.unchosen.map { sums in (0..<trainer.concepts).allSatisfy { sums.sums.base[$0].isFinite } } ?? true)
    }

    private func isFinite(_ codes: CodeBuffer, _ gradients: FloatBuffer) -> Bool {
      var sum: Float = 0  // of x - x: 0, or NaN from the first that is not finite
      for t in 0..<workspace.rows {
        let row = gradients.base + t &* codes.slots
        for q in 0..<codes.count(t) { sum += row[q] - row[q] }
      }
      return sum == 0
    }

    private func batchStatistics(work: Work) throws(USAEError) -> BatchStatistics? {
      guard model.batchNorm != nil else { return nil }
      try requireTokens()
      let statistics = try workspace.statistics(width: model.width)
      try statistics.compute(workspace.inputs[encoder], count: workspace.rows, model: model, work: work)
      return statistics
    }

    func requireTokens() throws(USAEError) {
      guard model.batchNorm == nil || workspace.totalRows > 1 else {
        throw .invalidArgument(
          name: "batch", expected: "at least 2 tokens for an encoder with BatchNorm", got: "\(workspace.totalRows)")
      }
    }

    func deadConcepts() -> [Int32] {
      guard recipe.deadTokens > 0 else { return [] }
      return (0..<Int32(trainer.concepts)).filter(isDead)
    }

    func isDead(_ concept: Int32) -> Bool { model.silentTokens.base[Int(concept)] >= Int64(recipe.deadTokens) }

    /// Selects by batch. Returns the smallest activation that is kept, or nil where there is none.
    private func encode(
      _ tiles: [EncoderTile], dead: ConceptSubset, to buffers: DeadAuxiliary.Buffers?, _ selection: BatchSelection, work: Work
    ) throws(USAEError) -> Float? {
      let wanted = workspace.rows * trainer.k
      let floor = selection.floor(model: encoder)
      try encode(tiles, above: floor, dead: dead, to: buffers, work: work)
      if floor > 0, selection.total(workspace.codes, rows: workspace.rows) < wanted {
        try encode(tiles, dead: dead, to: buffers, work: work)
      }
      let smallest = selection.trim(workspace.codes, rows: workspace.rows, wanted: wanted, model: encoder)
      try buffers?.takeTrimmed(from: workspace.codes, selection, rows: workspace.rows, isDead: isDead, work: work)
      return smallest
    }

    private func encode(
      _ tiles: [EncoderTile], above floor: Float = 0, dead: ConceptSubset, to buffers: DeadAuxiliary.Buffers?, work: Work
    ) throws(USAEError) {
      try tiles[0].encoder.forEachToken(
        of: workspace.inputs[encoder], 0..<workspace.rows, tiles: tiles, work: work
      ) { row, tile, token in
        let slots = workspace.codes.slots
        let chosen = tile.select(token, k: slots, above: floor)
        workspace.codes.store(tile.keys.base, count: chosen, row: row)
        if let buffers {
          DeadAuxiliary.select(
            tile, token: token, chosen: chosen, hasAllPositive: chosen < slots && floor == 0, dead: dead,
            slots: buffers.codes.slots, to: buffers.codes, row: row)
        }
      }
    }

    /// Dense parts are added up in the buffers, so those start at zero; vectors always have one.
    private func allocateGradients() throws(USAEError) {
      let large = [model.encoderWeight] + steppedDictionaries.map { models[$0].dictionary }
      let dense = auxiliary == .unchosen
      for tensor in model.encoderTrainables.dropFirst() { try tensor.allocateGradient() }
      for tensor in large {
        if buffered || dense { try tensor.allocateGradient() } else { tensor.dropGradient() }
        if dense { tensor.gradient?.storage.zero() }
      }
    }

    /// Gradients and update; nothing here can fail or be interrupted.
    func finish(_ forward: Forward, step: Int, update: Bool, work: Work) -> StepReport {
      let concepts = groupedByConcept(forward)
      let rate = learningRate(step: step)
      var norm = Double.nan
      if buffered || forward.unchosen != nil {
        let squares = concepts.computeGradients(work: work)
        norm = squares[encoder].squareRoot()
        if update { concepts.apply(rate: rate, factors: squares.map(clipFactor), work: work) }
      } else {
        concepts.computeAndApply(rate: rate, work: work)
      }
      if update {
        countFirings()
        if let smallest = forward.smallest { model.followThreshold(smallest) }
      }
      return StepReport(
        encoder: encoder, step: update ? step + 1 : step, loss: forward.loss, losses: forward.losses,
        auxiliaryLoss: forward.auxiliary, l0: meanActive(), learningRate: rate, gradientNorm: norm,
        deadConcepts: forward.deadConcepts, prefix: prefix, screening: forward.screening)
    }

    func groupedByConcept(_ forward: Forward) -> ConceptUpdate {
      workspace.groups.group(workspace.codes, workspace.codeGradients, rows: workspace.rows)
      if let dead = forward.dead { dead.groups.group(dead.codes, dead.codeGradients, rows: workspace.rows) }
      return ConceptUpdate(
        models: models, recipe: recipe, workspace: workspace, encoder: encoder, steppedDictionaries: steppedDictionaries,
        statistics: forward.statistics, dead: forward.dead, unchosen: forward.unchosen)
    }

    func learningRate(step: Int) -> Double {
      recipe.learningRate(at: recipe.clock == .model ? model.encoderSteps : step)
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
}

/// What a step did.
public struct StepReport: Sendable, Equatable {
  /// Index of the encoded model.
  public let encoder: Int
  /// Steps done, this one included.
  public let step: Int
  /// The auxiliary part included.
  public let loss: Double
  /// The main loss by target model; with prefixes the mean over them, or that of the drawn one.
  public let losses: [Double]
  /// Before its coefficient.
  public let auxiliaryLoss: Double
  /// Mean number of active concepts.
  public let l0: Double
  public let learningRate: Double
  /// Of the encoded model before clipping; NaN where no norm was needed.
  public let gradientNorm: Double
  /// Concepts dead in the encoded model before this step.
  public let deadConcepts: Int
  /// Concepts that had to reconstruct: all, or the first of them where the recipe draws a prefix.
  public let prefix: Int
  /// How the code was found: no tokens where by the product.
  public let screening: ScreeningCounts
}

extension Recipe {
  /// Slots of an auxiliary code.
  func auxiliarySlots(concepts: Int, k: Int) -> Int {
    switch auxiliary {
    case .none: return 0
    case .unchosen: return auxiliaryK > 0 ? min(auxiliaryK, concepts) : concepts / 2
    case .dead: return min(auxiliaryK > 0 ? auxiliaryK : 2 * k, concepts)
    }
  }
}
