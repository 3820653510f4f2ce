import CUSAE
import USAE

extension Recipe {
  init(_ c: usae_recipe) throws(USAEError) {
    guard c.size == MemoryLayout<usae_recipe>.size else {
      throw .invalidArgument(
        name: "recipe.size", expected: "\(MemoryLayout<usae_recipe>.size)", got: "\(c.size)",
        remedy: "fill size with sizeof(usae_recipe) of this header")
    }
    self.init()
    encoder = try choice("encoder", c.encoder)
    initialization = try choice("initialization", c.initialization)
    selection = try choice("selection", c.selection)
    kMax = Int(c.k_max)
    loss = try choice("loss", c.loss)
    update = try choice("update", c.update)
    center = try choice("center", c.center)
    scale = try choice("scale", c.scale)
    renormalize = c.renormalize != 0
    scaleEpsilon = c.scale_epsilon
    dictionaryEpsilon = c.dictionary_epsilon
    statisticsTokens = Int(c.statistics_tokens)
    auxiliary = try choice("aux", c.aux)
    auxiliaryScale = try choice("aux_scale", c.aux_scale)
    auxiliaryDetach = c.aux_detach != 0
    auxiliaryK = Int(c.aux_k)
    auxiliaryCoefficient = c.aux_coefficient
    deadTokens = Int(c.dead_tokens)
    schedule = try choice("schedule", c.schedule)
    learningRate = c.learning_rate
    warmupLearningRate = c.warmup_learning_rate
    finalLearningRate = c.final_learning_rate
    warmupSteps = Int(c.warmup_steps)
    totalSteps = Int(c.total_steps)
    decayShare = c.decay_share
    clock = try choice("clock", c.clock)
    beta1 = c.beta1
    beta2 = c.beta2
    epsilon = c.epsilon
    weightDecay = c.weight_decay
    clipNorm = c.clip_norm
    mergeCosine = c.merge_cosine
    mergeEvery = Int(c.merge_every)
    prefixLoss = try choice("prefix_loss", c.prefix_loss)
    prefixes = withUnsafeBytes(of: c.prefixes) { bytes in
      let shares = Array(bytes.bindMemory(to: Double.self))
      return Array(shares[..<(shares.lastIndex { $0 != 0 }.map { $0 + 1 } ?? 0)])  // an inner 0 stays, and is refused
    }
  }
}

/// Cases are numbered as in usae.h; `Tests/USAETests/RecipeTests.swift` holds the two to each other.
private func choice<Choice: RawRepresentable>(_ name: String, _ number: Int32) throws(USAEError) -> Choice
where Choice.RawValue == Int32 {
  guard let choice = Choice(rawValue: number) else {
    throw .invalidArgument(name: "recipe.\(name)", expected: "one of the numbers in usae.h", got: "\(number)")
  }
  return choice
}
