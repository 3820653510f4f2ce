/// A universal sparse autoencoder: one sparse code, encoded from any of several models' activations and decoded to all.
///
/// Reading calls (`encode`, `decode`, `evaluate`, ...) may run in many threads at once; training waits for them and they wait
/// for it. Every call checks its arguments before it changes anything.
public final class UniversalSAE: Sendable {
  public let concepts: Int
  /// Active concepts of a token: at most k, or with BatchTopK k on average over a batch, which need not be a whole number.
  public let k: Double
  /// The most active concepts that one token can have: k, or with BatchTopK `Recipe.kMax`.
  public let slots: Int
  public let seed: UInt64
  let threadsWanted: Int
  let lock = ReadWriteLock()
  let state: State
  /// What callers can read at any time, without waiting for a step to end.
  private let summary: LockProtected<Summary>

  private struct Summary {
    var recipe: Recipe
    var names: [String] = []
    var widths: [Int] = []
    var step = 0
  }

  /// Everything that changes; guarded by `lock`.
  final class State: @unchecked Sendable {
    var recipe: Recipe
    var models: [ModelParameters] = []
    var step = 0
    var trainer: Trainer?
    /// A step that several processes share, from its begin to its end.
    var shared: SharedStep?
    /// Encoders and stepped dictionaries of the gradients that can be read.
    var visibleGradients: (encoders: Set<Int>, dictionaries: Set<Int>)?
    let inference: InferenceCache

    init(recipe: Recipe, k: Double, slots: Int) {
      self.recipe = recipe
      inference = InferenceCache(k: wholeK(k), slots: slots)
    }
  }

  /// - Parameters:
  ///   - concepts: size of the code, 1...2^24.
  ///   - k: active concepts of a token, 1...concepts: at most k, or with BatchTopK, where it may be fractional, k on average
  ///     over a batch.
  ///   - seed: all random draws depend on it and on the step alone.
  ///   - threads: 0 takes the process's default; results do not depend on it.
  public init(concepts: Int, k: Double, recipe: Recipe = Recipe(), seed: UInt64 = 0, threads: Int = 0) throws(USAEError) {
    try checkKernels()
    try Self.require("n_concepts", concepts, in: 1...1 << 24)
    try recipe.check(k: k, concepts: concepts)
    try Self.require("n_threads", threads, in: 0...1024)
    try recipe.validate()
    self.concepts = concepts
    self.k = k
    slots = try recipe.slots(concepts: concepts, k: k)
    self.seed = seed
    threadsWanted = threads
    state = State(recipe: recipe, k: k, slots: slots)
    summary = LockProtected(Summary(recipe: recipe))
  }

  public var recipe: Recipe { summary.withLock { $0.recipe } }
  public var modelNames: [String] { summary.withLock { $0.names } }
  public var widths: [Int] { summary.withLock { $0.widths } }
  public var stepCount: Int { summary.withLock { $0.step } }

  /// Runs a change with the lock for writing. Throws while a step that other processes share is under way.
  func changing<Result>(poll: (() -> Bool)? = nil, _ body: () throws(USAEError) -> Result) throws(USAEError) -> Result {
    try lock.writing(poll: poll) { () throws(USAEError) in
      guard state.shared == nil else {
        throw .invalidArgument(
          name: "autoencoder", expected: "no shared step under way", got: "one that was begun and has not ended",
          remedy: "finish or abandon it first")
      }
      return try body()
    }
  }

  /// To be called after every change, inside the lock for writing.
  func changed(gradients: (Set<Int>, Set<Int>)?) {
    state.visibleGradients = gradients
    state.inference.clear()
    summary.withLock {
      $0 = Summary(
        recipe: state.recipe, names: state.models.map(\.name), widths: state.models.map(\.width), step: state.step)
    }
  }

  package func makeWork(
    poll: (@Sendable () -> Bool)? = nil, progress: (@Sendable (Int) -> Void)? = nil
  ) -> InterruptibleWork {
    InterruptibleWork(wanted: threadsWanted, poll: poll, progress: progress)
  }

  static func require(_ name: String, _ value: Int, in range: ClosedRange<Int>, remedy: String = "") throws(USAEError) {
    guard range.contains(value) else {
      throw .invalidArgument(
        name: name, expected: "a whole number from \(range.lowerBound) to \(range.upperBound)", got: "\(value)",
        remedy: remedy)
    }
  }

  /// NaN is in no range, so it is refused.
  static func require(_ name: String, _ value: Double, in range: ClosedRange<Double>) throws(USAEError) {
    guard range.contains(value) else {
      throw .invalidArgument(name: name, expected: "a number from \(range.lowerBound) to \(range.upperBound)", got: "\(value)")
    }
  }

  // MARK: Models

  package static let mostModels = 4096
  package static let mostParts = 1 << 20

  /// Allocates and seeds parameters without data: mean 0, scale 1; training starts again.
  public func initialize(_ widths: [(name: String, width: Int)]) throws(USAEError) {
    let work = makeWork()
    try changing { () throws(USAEError) in
      let models = try makeModels(widths)
      try Initialization(recipe: state.recipe, seed: seed, work: work).seed(models)
      adopt(models)
    }
  }

  /// The same, with standardisation and, where the recipe says so, dictionaries from data.
  package func initialize(from activations: [Activations], work: InterruptibleWork) throws(USAEError) {
    try initialize(activations.map(\.name), from: [activations], work: work)
  }

  /// The same from several parts, each aligned activations of some models. A model's standardisation comes from its rows in all
  /// parts.
  ///
  /// - Parameters:
  ///   - names: of all models.
  ///   - parts: activations by part and model; nil where a part does not have a model.
  package func initialize(_ names: [String], from parts: [[Activations?]], work: InterruptibleWork) throws(USAEError) {
    try changing(poll: work.poll) { () throws(USAEError) in
      let rows = try checkParts(names, parts)
      let models = try makeModels(zip(names, rows).map { ($0, $1.columns) })
      let initialization = Initialization(recipe: state.recipe, seed: seed, work: work)
      for (model, rows) in zip(models, rows) {
        try Standardization(recipe: state.recipe, seed: seed).fit(model, to: rows, work: work)
      }
      try initialization.seed(models)
      if state.recipe.initialization == .data {
        try initialization.copyDictionaries(from: AlignedRows.groups(parts), to: models, k: wholeK(k))
      }
      adopt(models)
    }
  }

  /// Returns the rows of each model in all parts.
  private func checkParts(_ names: [String], _ parts: [[Activations?]]) throws(USAEError) -> [ModelRows] {
    for part in parts {
      guard part.count == names.count else {
        throw .shapeMismatch(name: "activations", expected: "\(names.count) models (\(names))", got: "\(part.count)")
      }
      try Self.checkAligned(part.compactMap { $0 })
    }
    var models: [ModelRows] = []
    for (j, name) in names.enumerated() {
      let own = parts.compactMap { $0[j] }
      guard let first = own.first else {
        throw .invalidArgument(name: "activations of '\(name)'", expected: "those of at least one part", got: "none")
      }
      for values in own where values.columns != first.columns {
        throw .shapeMismatch(
          name: "activations of '\(values.name)'", expected: "\(first.columns) columns as in its first part",
          got: "\(values.columns)", remedy: "all parts need the same layer of a model")
      }
      models.append(ModelRows(own))
    }
    return models
  }

  private func makeModels(_ widths: [(name: String, width: Int)]) throws(USAEError) -> [ModelParameters] {
    guard !widths.isEmpty else {
      throw .invalidArgument(name: "models", expected: "at least one", got: "none")
    }
    try Self.require("number of models", widths.count, in: 1...Self.mostModels)
    var seen: Set<String> = []
    var models: [ModelParameters] = []
    for (name, width) in widths {
      guard !name.isEmpty, seen.insert(name).inserted else {
        throw .invalidArgument(name: "models", expected: "names that are not empty and differ", got: "'\(name)'")
      }
      try Self.require("width of '\(name)'", width, in: 1...1 << 20)
      models.append(
        try ModelParameters(
          name: name, width: width, concepts: concepts, batchNorm: state.recipe.encoder == .batchNorm,
          batchTopK: state.recipe.selection == .batchTopK))
    }
    return models
  }

  private func adopt(_ models: [ModelParameters]) {
    state.models = models
    state.step = 0
    state.trainer = Trainer(concepts: concepts, k: k, seed: seed, models: models)
    changed(gradients: nil)
  }

  /// What the mean and scale of a model were computed from; nil where they were set or loaded.
  package func sampleReport(model index: Int, width: Int) throws(USAEError) -> SampleReport? {
    try lock.reading { () throws(USAEError) in
      let model = try model(index, for: "a sample")
      guard width == model.width else {
        throw .shapeMismatch(name: "width", expected: "\(model.width) as '\(model.name)' has", got: "\(width)")
      }
      return model.sample
    }
  }

  func requireModels(_ operation: String) throws(USAEError) {
    guard !state.models.isEmpty else { throw .notInitialized(operation: operation) }
  }

  func model(_ index: Int, for operation: String) throws(USAEError) -> ModelParameters {
    try requireModels(operation)
    guard state.models.indices.contains(index) else {
      throw .unknownModel(name: "number \(index)", known: state.models.map(\.name))
    }
    return state.models[index]
  }

  /// Index of a model by name.
  public func index(of name: String) throws(USAEError) -> Int {
    let names = modelNames
    guard let index = names.firstIndex(of: name) else { throw .unknownModel(name: "'\(name)'", known: names) }
    return index
  }

  /// Checks that all models have the same number of rows, since row t is the same token in all of them, and at least one.
  static func checkAligned(_ activations: [Activations]) throws(USAEError) {
    guard let first = activations.first else {
      throw .invalidArgument(name: "activations", expected: "at least one model", got: "none")
    }
    for values in activations {
      guard (1...1 << 40).contains(values.rows) else {
        throw .shapeMismatch(
          name: "activations of '\(values.name)'", expected: "from 1 to 2^40 rows", got: "\(values.rows)")
      }
      guard values.rows == first.rows else {
        throw .shapeMismatch(
          name: "activations of '\(values.name)'", expected: "\(first.rows) rows as in '\(first.name)'",
          got: "\(values.rows)", remedy: "row t must be the same image patch in every model")
      }
    }
  }

  func checkAll(_ activations: [Activations], operation: String) throws(USAEError) {
    try checkBatch(activations, operation: operation)
  }

  /// Checks the activations of all models, or of those that a batch has: the others are nil.
  private func checkBatch(_ activations: [Activations?], operation: String) throws(USAEError) {
    try requireModels(operation)
    guard activations.count == state.models.count else {
      throw .shapeMismatch(
        name: "activations", expected: "\(state.models.count) models (\(state.models.map(\.name)))",
        got: "\(activations.count)")
    }
    try Self.checkAligned(activations.compactMap { $0 })
    for (model, values) in zip(state.models, activations) {
      if let values { try Self.checkWidth(values, of: model) }
    }
  }

  /// Checks that places in an output [rows, columns] can be counted, whose size only the caller knows.
  static func checkOutput(_ name: String, rows: Int, columns: Int) throws(USAEError) {
    let (elements, overflow) = rows.multipliedReportingOverflow(by: columns)
    guard !overflow, elements <= 1 << 58 else {
      throw .shapeMismatch(
        name: name, expected: "at most 2^58 elements", got: "\(rows) x \(columns)", remedy: "pass fewer rows")
    }
  }

  static func checkWidth(_ values: Activations, of model: ModelParameters) throws(USAEError) {
    guard values.columns == model.width else {
      throw .shapeMismatch(
        name: "activations of '\(model.name)'", expected: "\(model.width) columns", got: "\(values.columns)",
        remedy: "use the layer that the autoencoder was made for")
    }
  }

  // MARK: Training

  /// Sets the length of the planned run (0: unknown) and the tokens without firing that make a concept dead (0: never).
  public func setPlan(totalSteps: Int, deadTokens: Int) throws(USAEError) {
    try changing { () throws(USAEError) in
      var recipe = state.recipe
      recipe.totalSteps = totalSteps
      recipe.deadTokens = deadTokens
      try recipe.validate()
      state.recipe = recipe
      changed(gradients: state.visibleGradients.map { ($0.encoders, $0.dictionaries) })
    }
  }

  /// Says whether training leaves a model's encoder and dictionary, and all that belongs to them, as they are. At first it
  /// leaves none; and it is not saved. Steps that several processes share refuse frozen models.
  public func setFrozen(_ isFrozen: Bool, model index: Int) throws(USAEError) {
    try changing { () throws(USAEError) in
      try model(index, for: "freezing").isFrozen = isFrozen
      changed(gradients: nil)
    }
  }

  /// Checks every element; throws `notFinite` for the first bad row of a model.
  package func checkFinite(_ activations: [Activations?], work: InterruptibleWork) throws(USAEError) {
    try lock.reading(poll: work.poll) { () throws(USAEError) in
      try checkBatch(activations, operation: "a look at the data")
      for (model, values) in zip(state.models, activations) {
        guard let values else { continue }
        let scratch = try makeScratch(work.threads, model.width)
        let rows = try PaddedMatrix(rows: max(1, min(Self.checkedRows, values.rows)), columns: model.width)
        for first in stride(from: 0, to: values.rows, by: Self.checkedRows) {
          try Ingestion(model: model, activations: values, lengths: .comparable).copy(
            first..<min(values.rows, first + Self.checkedRows), of: .all, to: rows, scratch: scratch, work: work)
        }
      }
    }
  }

  /// Rows that are checked between two polls for an interrupt.
  private static let checkedRows = 8192

  /// The models that the next step encodes.
  ///
  /// - Parameters:
  ///   - encoder: the first of them; nil draws it.
  ///   - present: the models that its batch has; nil if all.
  public func encoders(first encoder: Int? = nil, of present: Set<Int>? = nil) throws(USAEError) -> [Int] {
    try lock.reading { () throws(USAEError) in
      try requireModels("a training step")
      let present = (present ?? Set(state.models.indices)).sorted()
      for index in present { _ = try model(index, for: "a training step") }
      guard !present.isEmpty else { throw Self.emptyBatch }
      if let encoder { try checkEncoder(encoder, of: present) }
      guard let trainer = state.trainer else { return [] }
      return trainer.encoders(first: encoder, of: present, step: state.step, recipe: state.recipe)
    }
  }

  private static let emptyBatch = USAEError.invalidArgument(
    name: "activations", expected: "those of at least one model", got: "none")

  /// Checks that a step on these models can encode a model first.
  private func checkEncoder(_ encoder: Int, of present: [Int]) throws(USAEError) {
    let model = try model(encoder, for: "a training step")
    guard present.contains(encoder) else {
      throw .invalidArgument(
        name: "encoder", expected: "a model that the batch has (\(present.map { state.models[$0].name }))",
        got: "'\(model.name)'")
    }
  }

  /// One optimisation step. Models whose activations are nil are absent from the batch: the step neither decodes to them nor
  /// changes them. With `keepGradients` it changes no parameters, and the gradients can be read instead: `tensors` are
  /// copied before another call can change them.
  package func step(
    _ activations: [Activations?], rows selection: RowSelection, encoder: Int?, keepGradients: Bool = false,
    copying tensors: [TensorMemory] = [], work: InterruptibleWork
  ) throws(USAEError) -> StepReport {
    try changing(poll: work.poll) { () throws(USAEError) in
      let trainer = try checkBatch(activations, selection, encoder: encoder)
      let report = try trainer.step(
        activations, selection, step: state.step, encoder: encoder, recipe: state.recipe, keepGradients: keepGradients,
        work: work)
      let trained = Set(activations.present.filter { !state.models[$0].isFrozen })
      let encoders = Set(report.encoders).intersection(trained)
      let stepped = state.recipe.update == .all ? trained : encoders
      if !keepGradients { state.step = report.step }
      changed(gradients: keepGradients ? (encoders, stepped) : nil)
      try copyOut(tensors)
      return report
    }
  }

  /// Checks a batch before anything of it is read.
  func checkBatch(_ activations: [Activations?], _ selection: RowSelection, encoder: Int?) throws(USAEError) -> Trainer {
    try checkBatch(activations, operation: "a training step")
    let present = activations.present
    if let encoder { try checkEncoder(encoder, of: present) }
    let total = activations.compactMap { $0 }[0].rows
    try selection.validate(total: total)
    let rows = selection.count(of: total)
    let encoders = state.recipe.encoderCount(models: present.count)
    try Self.require(
      "rows of the batch", rows, in: 1...RowSelection.mostRows / encoders, remedy: "take a smaller batch_size")
    let slots = slots * encoders
    let (entries, overflow) = rows.multipliedReportingOverflow(by: slots)
    guard !overflow, entries <= 1 << 40, let trainer = state.trainer else {
      throw .invalidArgument(
        name: "rows of the batch", expected: "at most \((1 << 40) / slots), because each has \(slots) slots", got: "\(rows)",
        remedy: "take a smaller batch_size")
    }
    return trainer
  }
}
