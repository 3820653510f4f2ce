/// A training step on a batch that is spread over several processes, each with the same autoencoder and some of the tokens.
///
/// Nothing here knows how processes talk. The step is a fixed list of exchanges: `fill` writes this process's part of one, the
/// caller adds up the parts of all processes, and the sum comes back: through `take` where a later part depends on it, in
/// `finish` otherwise. So those that nothing waits for can be under way while the next is computed, and whoever tests this needs
/// no network. Every process ends with the same bits, because what it changes is a function of sums alone.
///
/// Means over the batch are linear in sums over tokens, and so is the way back through BatchNorm once mean and covariance are
/// those of the whole batch: the sum of the processes' gradients is the gradient.
///
/// Parameters are read only until `finish`, so a step that is abandoned before has changed nothing.
final class SharedStep {
  let pass: Trainer.Pass
  let step: Int
  let merging: TwinMerging
  let twins: [TwinMerging.Pair]
  /// In the order in which they are filled; empty before the processes have told each other their tokens.
  private(set) var exchanges: [SharedExchange] = []
  var forward = Trainer.Forward(losses: [], auxiliary: 0, loss: 0, deadConcepts: 0)
  /// By target model, where the auxiliary loss is scaled.
  var residualMeans: [PaddedMatrix] = []
  var spreads: [Double] = []
  /// Once code gradients are known.
  private var concepts: ConceptUpdate?
  private var isEncoded = false
  private var isDecoded = false
  private var selection = SharedSelection()
  /// The exchange that is filled next, and the one whose sum has to come first.
  private var next = 0
  private var awaited: Int?
  /// Which process this is, and the tokens of those before it.
  private var rank = 0
  private var first = 0

  var workspace: StepWorkspace { pass.workspace }
  var models: [ModelParameters] { pass.trainer.models }
  var recipe: Recipe { pass.recipe }

  init(_ trainer: Trainer, workspace: StepWorkspace, recipe: Recipe, encoder: Int, step: Int, work: Work) throws(USAEError) {
    pass = Trainer.Pass(
      trainer: trainer, workspace: workspace, recipe: recipe, encoder: encoder, step: step, buffered: false)
    self.step = step
    if recipe.selection == .batchTopK { try workspace.makeRoomForUnevenCodes() }
    merging = TwinMerging(models: trainer.models, recipe: recipe, seed: trainer.seed)
    twins = merging.isDue(after: step + 1) ? try merging.find(work: work) : []
  }

  /// Takes what the processes have told each other: the tokens of each.
  func agree(_ tokens: [Int], rank: Int) throws(USAEError) {
    guard exchanges.isEmpty else {
      throw .invalidArgument(name: "step", expected: "one whose tokens are not agreed on yet", got: "one where they are")
    }
    workspace.totalRows = tokens.reduce(0, +)
    self.rank = rank
    first = tokens[..<rank].reduce(0, +)
    try pass.requireTokens()
    exchanges = makeExchanges(processes: tokens.count)
  }

  private func makeExchanges(processes: Int) -> [SharedExchange] {
    var list: [SharedExchange] = []
    let width = pass.model.width
    if pass.model.batchNorm != nil {
      list.append(.init(.means, model: pass.encoder, count: width))
      list.append(.init(.covariance, model: pass.encoder, count: width * (width + 1) / 2))
    }
    if recipe.selection == .batchTopK {
      list.append(.init(.upperHalves, count: BatchSelection.bins))
      list.append(.init(.lowerHalves, count: BatchSelection.bins))
      list.append(.init(.ties, count: processes))
    }
    if scalesAuxiliary {
      list.append(.init(.residualMeans, count: models.reduce(0) { $0 + $1.width }))
      list.append(.init(.spreads, count: models.count))
    }
    if !twins.isEmpty { list.append(.init(.restarts, count: twins.count * models.reduce(0) { $0 + $1.width })) }
    list.append(.init(.gradient, model: pass.encoder, tensor: .encoderWeight, count: pass.trainer.concepts * width))
    for j in pass.steppedDictionaries {
      list.append(.init(.gradient, model: j, tensor: .dictionary, count: pass.trainer.concepts * models[j].width))
    }
    list.append(.init(.summary, count: SharedSummary.count(self)))
    return list
  }

  private var hasAuxiliary: Bool {
    pass.auxiliary == .unchosen || (pass.auxiliary == .dead && !pass.deadConcepts().isEmpty)
  }

  private var scalesAuxiliary: Bool { hasAuxiliary && recipe.auxiliaryScale == .residual }

  // MARK: Parts and sums

  /// Writes this process's part of exchange `number`, the next one.
  func fill(_ number: Int, _ data: UnsafeMutableBufferPointer<Float>, work: Work) throws(USAEError) {
    guard exchanges.indices.contains(number), number == next, awaited == nil else {
      throw .invalidArgument(
        name: "exchange", expected: awaited.map { "the sum of number \($0) first" } ?? "number \(next) of \(exchanges.count)",
        got: "\(number)")
    }
    let exchange = exchanges[number]
    try exchange.check(data.count)
    try fill(exchange, data, work: work)
    next += 1
    if exchange.isAwaited { awaited = number }
  }

  private func fill(_ exchange: SharedExchange, _ data: UnsafeMutableBufferPointer<Float>, work: Work) throws(USAEError) {
    guard let out = data.baseAddress else { return }
    switch exchange.kind {
    case .means: try fillMeans(out, work: work)
    case .covariance: try fillCovariance(out, work: work)
    case .upperHalves, .lowerHalves, .ties:
      try encode(work: work)
      selection.fill(exchange.kind, self, rank: rank, to: data)
    case .residualMeans:
      try decode(work: work)
      try fillResidualMeans(out, work: work)
    case .spreads: try fillSpreads(out, work: work)
    case .restarts: fillRestarts(data, first: first)
    case .gradient:
      let concepts = try concepts(work: work)
      if exchange.tensor == .dictionary {
        concepts.writeDictionaryGradient(target: exchange.model, to: out, work: work)
      } else {
        concepts.writeEncoderGradient(to: out, work: work)
      }
    case .summary: SharedSummary(self).write(to: out)
    }
  }

  /// Takes the sum of an exchange that the next part depends on.
  func take(_ number: Int, _ sum: UnsafeBufferPointer<Float>) throws(USAEError) {
    guard number == awaited else {
      throw .invalidArgument(
        name: "exchange", expected: awaited.map { "number \($0)" } ?? "none, because no sum is waited for", got: "\(number)")
    }
    try exchanges[number].check(sum.count)
    awaited = nil
    switch exchanges[number].kind {
    case .means: try takeMeans(sum)
    case .covariance: try takeCovariance(sum)
    case .upperHalves, .lowerHalves, .ties: selection.take(exchanges[number].kind, self, rank: rank, sum)
    case .residualMeans: try takeResidualMeans(sum)
    case .spreads:
      spreads = models.indices.map { Double(sum[$0]) / (Double(workspace.totalRows) * Double(models[$0].width)) }
    case .restarts, .gradient, .summary: break
    }
  }

  private func encode(work: Work) throws(USAEError) {
    guard !isEncoded else { return }
    if let statistics = forward.statistics { try statistics.computeOutputs(pass.model, work: work) }
    try pass.encode(&forward, whole: false, work: work)
    isEncoded = true
  }

  private func decode(work: Work) throws(USAEError) {
    guard !isDecoded else { return }
    try encode(work: work)
    try selection.cut(self, work: work)
    try pass.decode(&forward, work: work)
    isDecoded = true
  }

  private func concepts(work: Work) throws(USAEError) -> ConceptUpdate {
    if let concepts { return concepts }
    try decode(work: work)
    if hasAuxiliary {
      let spreads = scalesAuxiliary ? spreads : models.map { _ in 1 }
      try pass.addAuxiliary(AuxiliaryLoss(pass.reconstruction, spreads: spreads), &forward, work: work)
    }
    let made = pass.groupedByConcept(forward)
    concepts = made
    return made
  }

  // MARK: The end

  /// Updates from the sums, `sums` by number of the exchange. Throws before it changes anything.
  func finish(_ sums: [UnsafeBufferPointer<Float>?], work: Work) throws(USAEError) -> StepReport {
    guard let concepts, next == exchanges.count, awaited == nil else {
      throw .invalidArgument(name: "step", expected: "all \(exchanges.count) exchanges", got: "\(next) of them")
    }
    guard sums.count == exchanges.count else {
      throw .shapeMismatch(name: "sums", expected: "one for each of \(exchanges.count) exchanges", got: "\(sums.count)")
    }
    for (exchange, sum) in zip(exchanges, sums) where !exchange.isAwaited { try exchange.check(sum?.count ?? 0) }
    let totals = SharedTotals(exchanges, sums)
    let summary = try SharedSummary(self).read(totals.summary)
    let restarts = try totals.restarts.map { sum throws(USAEError) in try restartTokens(sum) }

    let rate = pass.learningRate(step: step)
    let isNormWanted = recipe.clipNorm > 0 || forward.unchosen != nil
    let squares = isNormWanted ? concepts.squares(of: totals, work: work) : models.map { _ in .nan }
    concepts.apply(totals, rate: rate, factors: squares.map(pass.clipFactor), work: work)
    summary.countFirings(of: pass.model, concepts: pass.trainer.concepts, tokens: workspace.totalRows)
    if let smallest = selection.smallest { pass.model.followThreshold(smallest) }
    if let restarts { merging.merge(twins, tokens: restarts) { $0 } }
    return StepReport(
      encoder: pass.encoder, step: step + 1, loss: summary.loss, losses: summary.losses, auxiliaryLoss: summary.auxiliary,
      l0: summary.active / Double(workspace.totalRows), learningRate: rate,
      gradientNorm: isNormWanted ? squares[pass.encoder].squareRoot() : .nan, deadConcepts: forward.deadConcepts,
      prefix: pass.prefix,
      screening: forward.screening)
  }
}
