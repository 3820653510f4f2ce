/// A training step on a batch that is spread over several processes, each with the same autoencoder and some of the tokens.
///
/// Nothing here knows how processes communicate. The step is a fixed list of exchanges: `fill` writes this process's part of
/// one, the caller adds up the parts of all processes, and the sum comes back: through `take` where a later part depends on it,
/// in `finish` otherwise. So sums on which no later part depends can be exchanged while the next part is computed, and tests
/// need no network. Every process ends with the same bits, because what it changes is a function of sums alone.
///
/// Means over the batch are linear in sums over tokens, and so is the backward pass through BatchNorm once mean and covariance
/// are those of the whole batch: the sum of the processes' gradients is the gradient.
///
/// Parameters do not change before `finish`, so a step that is abandoned has changed nothing.
final class SharedStep {
  /// This process's part.
  let local: TrainingStep
  let merging: DuplicateMerging
  let duplicates: [DuplicateMerging.Pair]
  /// In the order in which they are filled; empty before the processes have told each other their tokens.
  private(set) var exchanges: [SharedExchange] = []
  /// By encoder and target model: means for the encoders that `scaledSeats` lists and the models that the batch has, spreads
  /// for all.
  var residualMeans: [[PaddedMatrix]] = []
  var spreads: [[Double]]
  /// The seats of encoders whose auxiliary loss is scaled.
  let scaledSeats: [Int]
  /// Results of the phases so far. A phase runs when an exchange first needs it.
  private var encoded, decoded: TrainingStep.Forward?
  private var gradients: (forward: TrainingStep.Forward, concepts: ConceptUpdate)?
  /// By seat.
  private var selections: [SharedSelection]
  /// The exchange that is filled next, and the one whose sum has to come first.
  private var next = 0
  private var awaited: Int?
  /// Of the call that began: later calls use as many, whatever the process's number has become, since memory is for these.
  private let threads: Int
  /// Which process this is, and the tokens of those before it.
  private var rank = 0
  private var first = 0
  private(set) var processes = 1

  var workspace: StepWorkspace { local.workspace }
  var models: [ModelParameters] { local.models }
  var recipe: Recipe { local.recipe }

  init(
    _ trainer: Trainer, workspace: StepWorkspace, recipe: Recipe, present: [Int], encoders: [Int], step: Int,
    work: InterruptibleWork
  ) throws(USAEError) {
    threads = work.threads
    local = TrainingStep(
      trainer: trainer, workspace: workspace, recipe: recipe, present: present, encoders: encoders, step: step,
      buffered: false)
    selections = encoders.indices.map { SharedSelection(seat: $0) }
    spreads = AuxiliaryLoss.noSpreads(local.reconstruction)
    scaledSeats = recipe.auxiliaryScale == .residual ? local.auxiliarySeats : []
    if recipe.selection == .batchTopK { try workspace.allowUnevenCodes() }
    merging = DuplicateMerging(models: trainer.models, recipe: recipe, seed: trainer.seed)
    duplicates = merging.isDue(after: step + 1) ? try merging.find(work: work) : []
  }

  /// Entries of the codes of all processes, which are counted in doubles.
  private static let mostEntries = 1 << 52
  /// The most that the codes of all processes can have.
  func mostEntries(encoders: Int) -> Double { Double(workspace.totalRows * encoders) * Double(workspace.codes.slots) }

  /// Takes the number of tokens of each process.
  func agree(_ tokens: [Int], rank: Int) throws(USAEError) {
    guard exchanges.isEmpty else {
      throw .invalidArgument(name: "usae_shared_agree", expected: "one call for each step", got: "a second one")
    }
    let total = tokens.reduce(0, +)
    let slots = workspace.codes.slots * local.encoders.count
    let (entries, overflow) = total.multipliedReportingOverflow(by: slots)
    guard !overflow, entries <= Self.mostEntries else {
      let most = Self.mostEntries / slots
      throw .invalidArgument(name: "tokens", expected: "at most \(most) in all", got: "\(total)")
    }
    workspace.totalRows = total
    processes = tokens.count
    self.rank = rank
    first = tokens[..<rank].reduce(0, +)
    workspace.firstRow = first
    try local.requireTokens()
    exchanges = makeExchanges(processes: tokens.count)
  }

  private func makeExchanges(processes: Int) -> [SharedExchange] {
    var list: [SharedExchange] = []
    let widths = models.reduce(0) { $0 + $1.width }
    let presentWidths = local.present.reduce(0) { $0 + models[$1].width }
    for (seat, model) in local.encoders.enumerated() where models[model].batchNorm != nil {
      let width = models[model].width
      list.append(.init(.means, model: model, seat: seat, count: width))
      list.append(.init(.covariance, model: model, seat: seat, count: width * (width + 1) / 2))
    }
    for (seat, encoder) in local.encoders.enumerated() where recipe.selection == .batchTopK {
      let model = local.encoders.count > 1 ? encoder : -1
      list.append(.init(.upperHalves, model: model, seat: seat, count: BatchSelection.bins))
      list.append(.init(.lowerHalves, model: model, seat: seat, count: BatchSelection.bins))
      list.append(.init(.ties, model: model, seat: seat, count: processes))
    }
    if !scaledSeats.isEmpty {
      list.append(.init(.residualMeans, count: scaledSeats.count * presentWidths))
      list.append(.init(.spreads, count: scaledSeats.count * local.present.count))
    }
    if !duplicates.isEmpty { list.append(.init(.restarts, count: duplicates.count * widths)) }
    for model in local.encoders {
      let count = local.trainer.concepts * models[model].width
      list.append(.init(.gradient, model: model, tensor: .encoderWeight, count: count))
    }
    for j in local.steppedDictionaries {
      list.append(.init(.gradient, model: j, tensor: .dictionary, count: local.trainer.concepts * models[j].width))
    }
    list.append(.init(.summary, count: SharedSummary.count(self)))
    return list
  }

  // MARK: Parts and sums

  /// Writes this process's part of exchange `number`, the next one.
  func fill(_ number: Int, _ data: UnsafeMutableBufferPointer<Float>, work: InterruptibleWork) throws(USAEError) {
    guard exchanges.indices.contains(number), number == next, awaited == nil else {
      throw .invalidArgument(
        name: "exchange", expected: awaited.map { "the sum of number \($0) first" } ?? "number \(next) of \(exchanges.count)",
        got: "\(number)")
    }
    let exchange = exchanges[number]
    try exchange.check(data.count)
    let work = InterruptibleWork(threads: threads, poll: work.poll)
    if number == 0 { try local.addNoise(work: work) }
    try fill(exchange, data, work: work)
    next += 1
    if exchange.isAwaited { awaited = number }
  }

  private func fill(
    _ exchange: SharedExchange, _ data: UnsafeMutableBufferPointer<Float>, work: InterruptibleWork
  ) throws(USAEError) {
    guard let out = data.baseAddress else { return }
    switch exchange.kind {
    case .means: try fillMeans(exchange.seat, out, work: work)
    case .covariance: try fillCovariance(exchange.seat, out, work: work)
    case .upperHalves, .lowerHalves, .ties:
      _ = try encode(work: work)
      selections[exchange.seat].fill(exchange.kind, self, rank: rank, to: data)
    case .residualMeans:
      _ = try decode(work: work)
      try fillResidualMeans(out, work: work)
    case .spreads: try fillSpreads(out, work: work)
    case .restarts:
      if local.present.count < models.count { _ = try decode(work: work) }  // the codes predict tokens of the others
      try fillRestarts(data, first: first)
    case .gradient:
      let concepts = try computeGradients(work: work).concepts
      if exchange.tensor == .dictionary {
        concepts.writeDictionaryGradient(target: exchange.model, to: out, work: work)
      } else {
        concepts.writeEncoderGradient(model: exchange.model, to: out, work: work)
      }
    case .summary: SharedSummary(self).write(try computeGradients(work: work).forward, to: out)
    }
  }

  /// Takes the sum of an exchange that the next part depends on.
  func take(_ number: Int, _ sum: UnsafeBufferPointer<Float>) throws(USAEError) {
    guard number == awaited else {
      throw .invalidArgument(
        name: "exchange", expected: awaited.map { "number \($0)" } ?? "none, because no sum is waited for", got: "\(number)")
    }
    let sum = try SharedSum(exchanges[number], sum)
    awaited = nil
    switch sum.exchange.kind {
    case .means: try takeMeans(sum)
    case .covariance: try takeCovariance(sum)
    case .upperHalves: try selections[sum.exchange.seat].takeUpperHalves(sum, self)
    case .lowerHalves: try selections[sum.exchange.seat].takeLowerHalves(sum, self)
    case .ties: try selections[sum.exchange.seat].takeTies(sum, rank: rank)
    case .residualMeans: try takeResidualMeans(sum)
    case .spreads: try takeSpreads(sum)
    case .restarts, .gradient, .summary: break  // `finish` takes them
    }
  }

  private func encode(work: InterruptibleWork) throws(USAEError) -> TrainingStep.Forward {
    if let encoded { return encoded }
    var statistics: [BatchStatistics?] = []
    for (seat, model) in local.encodedModels.enumerated() {
      let batch = model.batchNorm == nil ? nil : try workspace.statistics(seat: seat, width: model.width)
      try batch?.computeOutputs(model, work: work)
      statistics.append(batch)
    }
    let forward = try local.encode(statistics, whole: false, work: work)
    encoded = forward
    return forward
  }

  private func decode(work: InterruptibleWork) throws(USAEError) -> TrainingStep.Forward {
    if let decoded { return decoded }
    var forward = try encode(work: work)
    for selection in selections { try selection.cut(self, forward, work: work) }
    try local.decode(&forward, work: work)
    decoded = forward
    return forward
  }

  private func computeGradients(
    work: InterruptibleWork
  ) throws(USAEError) -> (forward: TrainingStep.Forward, concepts: ConceptUpdate) {
    if let gradients { return gradients }
    var forward = try decode(work: work)
    try local.addAuxiliary(AuxiliaryLoss(local.reconstruction, spreads: spreads), &forward, work: work)
    try local.addAgreement(&forward, work: work)
    let made = (forward, ConceptUpdate(local, forward))
    gradients = made
    return made
  }

  // MARK: The end

  func requireSums(_ count: Int) throws(USAEError) {
    guard count == exchanges.count else {
      throw .shapeMismatch(name: "sums", expected: "one for each of \(exchanges.count) exchanges", got: "\(count)")
    }
  }

  /// Updates from the sums, `sums` by number of the exchange. Throws before it changes anything.
  func finish(_ sums: [UnsafeBufferPointer<Float>?], work: InterruptibleWork) throws(USAEError) -> StepReport {
    let work = InterruptibleWork(threads: threads, poll: work.poll)
    guard let (forward, concepts) = gradients, next == exchanges.count, awaited == nil else {
      throw .invalidArgument(name: "step", expected: "all \(exchanges.count) exchanges", got: "\(next) of them")
    }
    try requireSums(sums.count)
    var totals = SharedTotals()
    for (exchange, sum) in zip(exchanges, sums) where !exchange.isAwaited {
      totals.add(try SharedSum(exchange, sum ?? UnsafeBufferPointer(start: nil, count: 0)))
    }
    // The summary first: it says if a process knows that its numbers are not finite.
    let summary = try SharedSummary(self).read(totals.summary)
    for sum in totals.others { try sum.requireFinite(work: work) }
    let restarts = try totals.restarts.map { sum throws(USAEError) in try restartTokens(sum) }

    let rates = local.learningRates()
    let isNormWanted = recipe.clipNorm > 0 || forward.auxiliary.isDense
    let squares = isNormWanted ? concepts.squares(of: totals, work: work) : models.map { _ in .nan }
    concepts.apply(totals, rates: rates, factors: squares.map(local.clipFactor), work: work)
    for (seat, model) in local.encodedModels.enumerated() {
      summary.countFirings(seat, of: model, concepts: local.trainer.concepts, tokens: workspace.totalRows)
      if let smallest = selections[seat].smallest { model.followThreshold(smallest) }
    }
    if let restarts { merging.merge(duplicates, tokens: restarts) }
    return StepReport(
      encoders: local.encoders, step: local.number + 1, loss: summary.loss, losses: summary.losses,
      auxiliaryLoss: summary.auxiliary, agreement: summary.agreement ?? 0,
      l0: summary.active / Double(workspace.totalEncodings), learningRate: rates[local.encoders[0]],
      gradientNorm: isNormWanted ? squares[local.encoders[0]].squareRoot() : .nan,
      deadConcepts: forward.encoded[0].deadConcepts, prefix: local.prefix, screening: forward.screening)
  }
}
