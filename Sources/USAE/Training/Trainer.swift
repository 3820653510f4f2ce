/// Trains models step by step, in memory that is kept from step to step.
final class Trainer: @unchecked Sendable {
  let concepts: Int
  let k: Double
  let seed: UInt64
  let models: [ModelParameters]
  /// That of the last step last. Several, if batches lack models: then batches of several shapes follow each other.
  private var workspaces: [StepWorkspace] = []
  private var mostWorkspaces = 1

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
  ///   - activations: by model; nil for those that the batch does not have.
  ///   - step: steps done before this one.
  ///   - encoder: the first model to encode; nil draws it. The recipe says how many more are encoded.
  ///   - keepGradients: leave the parameters alone and the raw gradients in the tensors' buffers.
  func step(
    _ activations: [Activations?], _ selection: RowSelection, step number: Int, encoder: Int?, recipe: Recipe,
    keepGradients: Bool, work: InterruptibleWork
  ) throws(USAEError) -> StepReport {
    let present = activations.present
    let workspace = try ingest(activations, selection, recipe: recipe, work: work)
    let step = TrainingStep(
      trainer: self, workspace: workspace, recipe: recipe, present: present,
      encoders: encoders(first: encoder, of: present, step: number, recipe: recipe), step: number,
      buffered: keepGradients || recipe.clipNorm > 0)
    let merging = DuplicateMerging(models: models, recipe: recipe, seed: seed)
    let duplicates = !keepGradients && merging.isDue(after: number + 1) ? try merging.find(work: work) : []
    let forward = try step.forward(work: work)
    guard step.isFinite(forward) else { throw .lossNotFinite(step: number + 1) }
    let restarts = duplicates.isEmpty ? [] : try step.restartTokens(of: duplicates) {
      merging.token(ofPair: $0, of: workspace.rows, step: number + 1)
    }
    let report = step.finish(forward, update: !keepGradients, work: work)
    merging.merge(duplicates, tokens: restarts)
    return report
  }

  /// Copies the batch, standardised, into a workspace of its size.
  func ingest(
    _ activations: [Activations?], _ selection: RowSelection, recipe: Recipe, work: InterruptibleWork
  ) throws(USAEError) -> StepWorkspace {
    let present = activations.present
    let rows = selection.count(of: activations.lazy.compactMap { $0 }.first?.rows ?? 0)
    let workspace = try workspace(rows: rows, present: present, recipe: recipe, threads: work.threads)
    (workspace.totalRows, workspace.firstRow) = (rows, 0)
    for j in present {
      guard let own = activations[j] else { continue }
      try Ingestion(model: models[j], activations: own, lengths: .atMost(recipe.outlierMultiple)).copy(
        0..<rows, of: selection, to: workspace.tokens[j], scratch: workspace.scratch, work: work)
    }
    return workspace
  }

  /// The models that the step after `step` others encodes, among those of its batch. Where some are frozen, the first is drawn
  /// among the others.
  ///
  /// - Parameters:
  ///   - first: the first of them; nil draws it.
  ///   - present: the models that the batch has.
  func encoders(first: Int?, of present: [Int], step: Int, recipe: Recipe) -> [Int] {
    let position = UInt64(step)
    let trained = present.filter { !models[$0].isFrozen }
    let drawn = trained.isEmpty ? present : trained
    let first = first ?? drawn[CounterRandom(seed: seed, stream: .encoderDraw).index(position, below: drawn.count)]
    var others = present.filter { $0 != first }
    if recipe.encoderCount(models: present.count) == 2, others.count > 1 {
      others = [others[CounterRandom(seed: seed, stream: .secondEncoderDraw).index(position, below: others.count)]]
    }
    return [first] + others.prefix(recipe.encoderCount(models: present.count) - 1)
  }

  /// The most workspaces that are kept once batches lack models.
  private static let mostShapes = 4

  private func workspace(rows: Int, present: [Int], recipe: Recipe, threads: Int) throws(USAEError) -> StepWorkspace {
    if present.count < models.count { mostWorkspaces = Self.mostShapes }
    let encoders = recipe.encoderCount(models: present.count)
    let found = workspaces.firstIndex { $0.fits(rows: rows, encoders: encoders, threads: threads) }
    if let found {
      workspaces.append(workspaces.remove(at: found))
    } else {
      workspaces.removeFirst(max(0, workspaces.count - mostWorkspaces + 1))  // before the new one, for a lower peak
      workspaces.append(
        try StepWorkspace(
          rows: rows, encoders: encoders, k: k, recipe: recipe, concepts: concepts, widths: models.map { $0.width },
          threads: threads))
    }
    let workspace = workspaces[workspaces.count - 1]
    try workspace.allocate(present)
    return workspace
  }
}
