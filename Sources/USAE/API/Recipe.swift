/// Everything that decides how parameters are learned; the fields of `usae_recipe`, where each is explained.
public struct Recipe: Sendable, Equatable {
  public enum Encoder: Int32, Sendable { case linear, batchNorm }
  public enum Selection: Int32, Sendable { case topK, batchTopK }
  public enum Initialization: Int32, Sendable { case random, tied, data }
  public enum Loss: Int32, Sendable { case l1, mse }
  public enum PrefixLoss: Int32, Sendable { case mean, drawn }
  public enum Auxiliary: Int32, Sendable { case none, unchosen, dead }
  public enum AuxiliaryScale: Int32, Sendable { case none, residual }
  public enum Update: Int32, Sendable { case all, encoder }
  public enum Statistic: Int32, Sendable { case scalar, dimension }
  public enum Schedule: Int32, Sendable { case constant, cosine, linear }
  public enum Clock: Int32, Sendable { case global, model }

  public var encoder = Encoder.linear
  public var selection = Selection.topK
  /// Most active concepts of a token with `batchTopK`; 0: 4 k.
  public var kMax = 0
  public var initialization = Initialization.data
  public var loss = Loss.mse
  public var update = Update.all
  public var center = Statistic.dimension
  public var scale = Statistic.scalar
  public var scaleEpsilon = 1e-5
  public var statisticsTokens = 200_000
  public var renormalize = true
  public var dictionaryEpsilon = 1e-8
  /// Matryoshka: shares of the concepts, ascending to 1, of which each reconstructs by itself; at most 16. Empty: all alone.
  public var prefixes: [Double] = [0.25, 0.5, 0.75, 1]
  /// The mean over the prefixes, or one of them in each step (`DrawnPrefix`).
  public var prefixLoss = PrefixLoss.drawn
  /// Concepts whose dictionary rows have a larger cosine in every model are merged; 0: never.
  public var mergeCosine = 0.8
  /// Steps from one merge to the next.
  public var mergeEvery = 50

  public var auxiliary = Auxiliary.dead
  public var auxiliaryScale = AuxiliaryScale.residual
  public var auxiliaryDetach = true
  /// 0: half of all concepts for `unchosen`, 2 k for `dead`.
  public var auxiliaryK = 0
  public var auxiliaryCoefficient = 1.0 / 32
  /// Tokens encoded without firing that make a concept dead; 0: never.
  public var deadTokens = 1_000_000

  public var learningRate = 7e-3
  public var warmupLearningRate = 0.0
  public var finalLearningRate = 0.0
  public var warmupSteps = 100
  /// 0: unknown.
  public var totalSteps = 0
  public var schedule = Schedule.linear
  public var decayShare = 0.2
  public var clock = Clock.global
  public var beta1 = 0.9
  public var beta2 = 0.999
  public var epsilon = 1e-8
  public var weightDecay = 0.0
  /// 0: no clipping.
  public var clipNorm = 0.0

  /// The default recipe.
  public init() {}

  /// The recipe of the published code, quirks included (docs/method.md).
  public static func published(totalSteps: Int = 0, warmupSteps: Int = 40_037) -> Recipe {
    var recipe = Recipe()
    recipe.encoder = .batchNorm
    recipe.initialization = .random
    recipe.loss = .l1
    recipe.update = .encoder
    recipe.center = .scalar
    recipe.statisticsTokens = 196_000
    recipe.renormalize = false
    recipe.prefixes = []
    recipe.mergeCosine = 0
    recipe.auxiliary = .unchosen
    recipe.auxiliaryScale = .none
    recipe.auxiliaryDetach = false
    recipe.auxiliaryCoefficient = 0.1
    recipe.deadTokens = 0
    recipe.learningRate = 3e-4
    recipe.warmupLearningRate = 1e-6
    recipe.finalLearningRate = 1e-6
    recipe.warmupSteps = warmupSteps
    recipe.totalSteps = totalSteps
    recipe.schedule = .cosine
    recipe.decayShare = 1
    recipe.clock = .model
    recipe.weightDecay = 1e-5
    recipe.clipNorm = 1
    return recipe
  }

  func validate() throws(USAEError) {
    try require("scale_epsilon", scaleEpsilon, in: 0...1)
    try require("dictionary_epsilon", dictionaryEpsilon, in: 0...1)
    try require("aux_coefficient", auxiliaryCoefficient, in: 0...1e6)
    try require("learning_rate", learningRate, in: 0...1e3)
    try require("warmup_learning_rate", warmupLearningRate, in: 0...1e3)
    try require("final_learning_rate", finalLearningRate, in: 0...1e3)
    try require("decay_share", decayShare, in: 0...1)
    try require("beta1", beta1, in: 0...0.999_999_9)
    try require("beta2", beta2, in: 0...0.999_999_9)
    try require("epsilon", epsilon, in: 0...1)
    try require("weight_decay", weightDecay, in: 0...1e3)
    try require("clip_norm", clipNorm, in: 0...1e30)
    try validatePrefixes()
    try require("merge_cosine", mergeCosine, in: 0...1)
    guard mergeCosine == 0 || mergeEvery > 0 else {
      throw .invalidArgument(name: "recipe.merge_every", expected: "an integer above 0", got: "\(mergeEvery)")
    }
    try require("statistics_tokens", statisticsTokens)
    try require("aux_k", auxiliaryK)
    try require("k_max", kMax)
    try require("dead_tokens", deadTokens)
    try require("warmup_steps", warmupSteps)
    try require("total_steps", totalSteps)
  }

  /// Slots of a token's code.
  func slots(concepts: Int, k: Int) throws(USAEError) -> Int {
    guard selection == .batchTopK else { return k }
    guard kMax == 0 || kMax >= k else {
      throw .invalidArgument(
        name: "recipe.k_max", expected: "at least k = \(k)", got: "\(kMax)",
        remedy: "k is the mean over tokens, k_max the most that one token can have")
    }
    return min(kMax > 0 ? kMax : 4 * k, concepts)
  }

  static let mostPrefixes = 16

  private func validatePrefixes() throws(USAEError) {
    let ascending = zip([0] + prefixes, prefixes).allSatisfy { $0 < $1 }  // NaN is not
    guard prefixes.isEmpty || (ascending && prefixes.last == 1 && prefixes.count <= Self.mostPrefixes) else {
      throw .invalidArgument(
        name: "recipe.prefixes", expected: "at most \(Self.mostPrefixes) shares, ascending from above 0 to 1",
        got: "\(prefixes)")
    }
  }

  private func require(_ name: String, _ value: Double, in range: ClosedRange<Double>) throws(USAEError) {
    try UniversalSAE.require("recipe.\(name)", value, in: range)
  }

  private func require(_ name: String, _ value: Int) throws(USAEError) {
    guard (0...1 << 53).contains(value) else {
      throw .invalidArgument(name: "recipe.\(name)", expected: "a whole number from 0 to 2^53", got: "\(value)")
    }
  }
}
