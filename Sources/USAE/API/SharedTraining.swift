extension UniversalSAE {
  /// What every process tells the others of a step that it has begun.
  package struct SharedOpening: Sendable, Equatable {
    package let encoders: [Int]
    /// A hash of which models the batch has.
    package let present: UInt64
    /// Steps done before it.
    package let step: Int
    /// Tokens of this process.
    package let tokens: Int
    /// A hash of the parameters: equal in processes whose parameters are equal.
    package let fingerprint: UInt64
  }

  /// Begins a step that several processes share: takes in this process's tokens. Nothing else may change the autoencoder until
  /// the step is finished or abandoned.
  ///
  /// - Parameters:
  ///   - activations: by model; nil for those that the batch does not have, in every process the same.
  ///   - encoder: the first model to encode; nil draws it, in every process the same.
  package func beginShared(_ activations: [Activations?], rows selection: RowSelection, encoder: Int?, work: InterruptibleWork)
    throws(USAEError) -> SharedOpening
  {
    try changing(poll: work.poll) { () throws(USAEError) in
      let trainer = try checkBatch(activations, selection, encoder: encoder)
      if let frozen = state.models.first(where: \.isFrozen) {
        throw .invalidArgument(
          name: "model '\(frozen.name)'", expected: "none that is frozen in a shared step", got: "a frozen one",
          remedy: "train in one process")
      }
      let present = activations.present
      let encoders = trainer.encoders(first: encoder, of: present, step: state.step, recipe: state.recipe)
      let workspace = try trainer.ingest(activations, selection, recipe: state.recipe, work: work)
      state.shared = try SharedStep(
        trainer, workspace: workspace, recipe: state.recipe, present: present, encoders: encoders, step: state.step,
        work: work)
      return SharedOpening(
        encoders: encoders, present: present.reduce(Self.hashStart) { Self.mixed($0, UInt64($1)) }, step: state.step,
        tokens: workspace.rows, fingerprint: fingerprint())
    }
  }

  /// Takes the tokens of each process, and which of them this one is; returns what is to be exchanged.
  package func agreeShared(_ tokens: [Int], rank: Int) throws(USAEError) -> [SharedExchange] {
    try withShared { step throws(USAEError) in
      try Self.require("n_processes", tokens.count, in: 1...Self.mostProcesses)
      try Self.require("rank", rank, in: 0...tokens.count - 1)
      for count in tokens { try Self.require("tokens", count, in: 1...1 << 24) }
      guard tokens[rank] == step.workspace.rows else {
        throw .invalidArgument(
          name: "tokens[\(rank)]", expected: "this process's \(step.workspace.rows)", got: "\(tokens[rank])")
      }
      try step.agree(tokens, rank: rank)
      return step.exchanges
    }
  }

  package static let mostProcesses = 1 << 20

  /// Checks how many exchanges the step has that was begun.
  package func requireShared(exchanges count: Int) throws(USAEError) {
    try withShared { step throws(USAEError) in try step.requireSums(count) }
  }

  package func sharedExchange(_ number: Int) throws(USAEError) -> SharedExchange {
    try lock.reading { () throws(USAEError) in
      let exchanges = state.shared?.exchanges ?? []
      guard exchanges.indices.contains(number) else {
        throw .invalidArgument(
          name: "exchange", expected: "one of the \(exchanges.count) of a step under way", got: "\(number)")
      }
      return exchanges[number]
    }
  }

  package func fillShared(_ number: Int, _ data: UnsafeMutableBufferPointer<Float>, work: InterruptibleWork) throws(USAEError) {
    try withShared(poll: work.poll) { step throws(USAEError) in try step.fill(number, data, work: work) }
  }

  package func takeShared(_ number: Int, _ sum: UnsafeBufferPointer<Float>) throws(USAEError) {
    try withShared { step throws(USAEError) in try step.take(number, sum) }
  }

  /// Updates the parameters from the sums, one for each exchange. A sum that `takeShared` was given may be nil.
  package func finishShared(_ sums: [UnsafeBufferPointer<Float>?]) throws(USAEError) -> StepReport {
    let work = makeWork()
    return try withShared { step throws(USAEError) in
      let report = try step.finish(sums, work: work)
      state.shared = nil
      state.step = report.step
      changed(gradients: nil)
      return report
    }
  }

  /// Drops the step that was begun, if there is one. It has changed nothing.
  package func abandonShared() throws(USAEError) {
    try lock.writing { () throws(USAEError) in state.shared = nil }
  }

  /// Runs `body` on the step that was begun; one that fails is abandoned.
  private func withShared<Result>(poll: (() -> Bool)? = nil, _ body: (SharedStep) throws(USAEError) -> Result)
    throws(USAEError) -> Result
  {
    do throws(USAEError) {
      return try lock.writing(poll: poll) { () throws(USAEError) in
        guard let step = state.shared else {
          throw .invalidArgument(name: "step", expected: "a shared step that was begun", got: "none")
        }
        do throws(USAEError) { return try body(step) } catch {
          state.shared = nil
          throw error
        }
      }
    } catch {
      if error == .interrupted { try abandonShared() }  // while it waited for the lock
      throw error
    }
  }

  private static let hashStart: UInt64 = 0xcbf2_9ce4_8422_2325
  private static func mixed(_ hash: UInt64, _ word: UInt64) -> UInt64 { (hash ^ word) &* 0x100_0000_01b3 }

  /// A hash over every dictionary row's norm, every bias, running statistics and counters, whose bits differ as soon as
  /// parameters do.
  private func fingerprint() -> UInt64 {
    var hash = Self.hashStart
    func mix(_ word: UInt64) { hash = Self.mixed(hash, word) }
    mix(UInt64(state.step))
    for model in state.models {
      for value in [model.encoderSteps, model.dictionarySteps, model.tokens] { mix(UInt64(value)) }
      for c in 0..<concepts {
        mix(UInt64(model.rowNorms.base[c].bitPattern))
        mix(UInt64(model.encoderBias.value.base[c].bitPattern))
        mix(UInt64(model.silentTokens.base[c]))
        guard let batchNorm = model.batchNorm else { continue }
        mix(UInt64(batchNorm.runningMean.base[c].bitPattern) << 32 | UInt64(batchNorm.runningVariance.base[c].bitPattern))
      }
      for c in 0..<model.width {
        mix(UInt64(model.mean.base[c].bitPattern) << 32 | UInt64(model.scale.base[c].bitPattern))
        if model.doubles != nil { mix(UInt64(model.meanRest.base[c].bitPattern)) }
      }
    }
    return hash
  }
}
