/// Trains models step by step, in memory that is kept from step to step.
final class Trainer: @unchecked Sendable {
  let concepts: Int
  let k: Double
  let seed: UInt64
  let models: [ModelParameters]
  private var workspace: StepWorkspace?

  init(concepts: Int, k: Double, seed: UInt64, models: [ModelParameters]) {
    self.concepts = concepts
    self.k = k
    self.seed = seed
    self.models = models
  }

  /// One optimisation step, or its gradients. Everything before `finish` and `merge` reads parameters only, so an error or an
  /// interrupt there leaves the autoencoder as it was.
  ///
  /// - Parameters:
  ///   - step: steps done before this one.
  ///   - encoder: the first model to encode; nil draws it. The recipe says how many more are encoded.
  ///   - keepGradients: leave the parameters alone and the raw gradients in the tensors' buffers.
  func step(
    _ activations: [Activations], _ selection: RowSelection, step number: Int, encoder: Int?, recipe: Recipe,
    keepGradients: Bool, work: InterruptibleWork
  ) throws(USAEError) -> StepReport {
    let workspace = try ingest(activations, selection, recipe: recipe, work: work)
    let step = TrainingStep(
      trainer: self, workspace: workspace, recipe: recipe, encoders: encoders(first: encoder, step: number, recipe: recipe),
      step: number, buffered: keepGradients || recipe.clipNorm > 0)
    let merging = DuplicateMerging(models: models, recipe: recipe, seed: seed)
    let duplicates = !keepGradients && merging.isDue(after: number + 1) ? try merging.find(work: work) : []
    let forward = try step.forward(work: work)
    guard step.isFinite(forward) else { throw .lossNotFinite(step: number + 1) }
    let report = step.finish(forward, update: !keepGradients, work: work)
    merging.merge(duplicates, tokens: workspace.tokens, rows: workspace.rows, step: number + 1)
    return report
  }

  /// Copies the batch, standardised, into a workspace of its size.
  func ingest(
    _ activations: [Activations], _ selection: RowSelection, recipe: Recipe, work: InterruptibleWork
  ) throws(USAEError) -> StepWorkspace {
    let rows = selection.count(of: activations[0].rows)
    let workspace = try workspace(rows: rows, recipe: recipe, threads: work.threads)
    (workspace.totalRows, workspace.firstRow) = (rows, 0)
    for j in models.indices {
      try Ingestion(model: models[j], activations: activations[j], lengths: .atMost(recipe.outlierMultiple)).copy(
        0..<rows, of: selection, to: workspace.tokens[j], scratch: workspace.scratch, work: work)
    }
    return workspace
  }

  /// The models that the step after `step` others encodes. Where some are frozen, the first is drawn among the others.
  ///
  /// - Parameter first: the first of them; nil draws it.
  func encoders(first: Int?, step: Int, recipe: Recipe) -> [Int] {
    let position = UInt64(step)
    let trained = models.indices.filter { !models[$0].isFrozen }
    let drawn = trained.isEmpty ? Array(models.indices) : trained
    let first = first ?? drawn[CounterRandom(seed: seed, stream: .encoderDraw).index(position, below: drawn.count)]
    var others = models.indices.filter { $0 != first }
    if recipe.encoderCount(models: models.count) == 2, others.count > 1 {
      others = [others[CounterRandom(seed: seed, stream: .secondEncoderDraw).index(position, below: others.count)]]
    }
    return [first] + others.prefix(recipe.encoderCount(models: models.count) - 1)
  }

  private func workspace(rows: Int, recipe: Recipe, threads: Int) throws(USAEError) -> StepWorkspace {
    let encoders = recipe.encoderCount(models: models.count)
    if let workspace, workspace.fits(rows: rows, encoders: encoders, threads: threads) { return workspace }
    workspace = nil  // before the new one: both together would double the peak
    let made = try StepWorkspace(
      rows: rows, encoders: encoders, k: k, recipe: recipe, concepts: concepts, widths: models.map { $0.width },
      threads: threads)
    workspace = made
    return made
  }
}
