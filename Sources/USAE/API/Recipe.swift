/// Everything that decides how parameters are learned; usae.h explains each field of its `usae_recipe`, in the same order.
///
/// A new field is a property here, an entry of `Recipe.fields`, a field of `usae_recipe`, and one of Python's `Recipe`, with
/// its value for older saves in `_saved/header.py`. Tests of both languages name what was forgotten.
public struct Recipe: Sendable, Equatable {
  public enum Initialization: Int32, RecipeChoice { case random, tied, data }
  public enum Statistic: Int32, RecipeChoice { case scalar, dimension }
  public enum Encoder: Int32, RecipeChoice { case linear, batchNorm }
  public enum Selection: Int32, RecipeChoice { case topK, batchTopK }
  public enum Loss: Int32, RecipeChoice { case l1, mse }
  public enum PrefixLoss: Int32, RecipeChoice { case mean, drawn }
  public enum Auxiliary: Int32, RecipeChoice {
    case none, published, dead

    /// Recipes call the published AuxK "unchosen", after the concepts that it selects among.
    var name: String { self == .published ? "unchosen" : "\(self)" }
  }
  public enum AuxiliaryScale: Int32, RecipeChoice { case none, residual }
  public enum Update: Int32, RecipeChoice { case all, encoder }
  public enum Schedule: Int32, RecipeChoice { case constant, cosine, linear }
  public enum Clock: Int32, RecipeChoice { case global, model }
  public enum EncodedModels: Int32, RecipeChoice { case one, two, all }
  public enum DictionaryNorm: Int32, RecipeChoice { case unit, bounded }
  public enum AgreementOn: Int32, RecipeChoice { case preactivations, codes }

  // Before the first step
  public var initialization = Initialization.data
  public var center = Statistic.dimension
  public var scale = Statistic.scalar
  public var scaleEpsilon = 1e-5
  /// 0: all.
  public var statisticsTokens = 200_000

  // Code
  public var encoder = Encoder.linear
  public var selection = Selection.topK
  /// Most active concepts of a token with `batchTopK`; 0: 4 k, rounded up.
  public var kMax = 0

  // Dictionary
  public var dictionaryEpsilon = 1e-8
  public var renormalize = true

  // Main loss
  public var loss = Loss.mse
  /// Matryoshka: at most 16 shares of the concepts, ascending to 1. For each share, the first share * n_concepts concepts
  /// reconstruct by themselves. Empty: only the whole code reconstructs.
  public var prefixes: [Double] = [0.25, 0.5, 0.75, 1]
  /// The loss is the mean over the prefixes, or that of one prefix drawn for each step (`DrawnPrefix`).
  public var prefixLoss = PrefixLoss.drawn

  // Auxiliary loss
  public var auxiliary = Auxiliary.dead
  public var auxiliaryScale = AuxiliaryScale.residual
  public var auxiliaryDetach = true
  /// 0: half of all concepts for `published`, 2 k for `dead`, rounded up.
  public var auxiliaryK = 0
  public var auxiliaryCoefficient = 1.0 / 32
  /// Tokens encoded without firing that make a concept dead; 0: never.
  public var deadTokens = 1_000_000

  // Duplicate concepts
  /// Concepts whose dictionary rows have a larger cosine in every model are merged; 0: never.
  public var mergeCosine = 0.8
  /// Steps from one search for duplicates to the next.
  public var mergeEvery = 50

  // Update
  public var beta1 = 0.9
  public var beta2 = 0.999
  public var epsilon = 1e-8
  public var weightDecay = 0.0
  /// 0: no clipping.
  public var clipNorm = 0.0
  public var update = Update.all

  // Learning rate
  public var schedule = Schedule.linear
  public var clock = Clock.global
  /// Whether the first step of a schedule has the full rate, before the warm-up goes on from its second step.
  public var firstStepFull = false
  /// Whether the last step of the warm-up, and not the one after it, is the first with the full rate.
  public var warmupInclusive = false
  public var learningRate = 7e-3
  public var warmupLearningRate = 0.0
  public var finalLearningRate = 0.0
  public var warmupSteps = 100
  /// 0: unknown.
  public var totalSteps = 0
  public var decayShare = 0.2

  // Outlying rows
  /// A row is outlying if it is farther from the centre than this multiple of the median distance; 0: none is.
  public var outlierMultiple = 5.0

  // Auxiliary loss, continued
  /// With `dead`, one token in so many has an auxiliary code.
  ///
  /// Measured: with every token, AuxK more than doubled a step with a tenth of the concepts dead, and dead concepts learned no
  /// better; with every sixteenth, more were left (docs/recipes.md).
  public var auxiliaryEvery = 8

  // Learning rate, continued
  /// How far a step of Adam may move a model's pre-activations: the model's learning rate is at most this times
  /// sqrt(D) / width, with D its effective dimensions (`EffectiveDimensions`); 0: the rate is `learningRate` in every model.
  ///
  /// A step moves a row by about rate x sqrt(width). Along the tokens' main directions, in which they are about
  /// sqrt(width / sqrt(D)) long, that moves a pre-activation the more, the wider the model and the fewer the directions.
  public var stepLimit = 0.15

  // Agreement
  /// How many models encode each token of a step: one, or two, or all.
  public var encodedModels = EncodedModels.two
  /// Weight of the agreement term (`Agreement`), which steps of several encoders have; 0: there is none.
  public var agreement = 0.03
  public var agreementOn = AgreementOn.preactivations
  /// What the term is divided by; 0: the models' mean width.
  public var agreementScale = 100.0
  /// The weight rises from 0 to `agreement` between these shares of the run: dictionaries first settle on what each model
  /// needs. A run of unknown length has all of it from its first step.
  public var agreementStart = 0.3
  public var agreementFull = 0.8

  // Dictionary, continued
  /// How long the rows are that codes are decoded by: with `unit` 1; with `bounded` at most 1, so that a concept can add less
  /// to the models that have less of it, and nothing to those that do not have it.
  public var dictionaryNorm = DictionaryNorm.bounded

  // Code, continued
  /// Standard deviation of noise that is added to the standardised activations that encoders read in training (`InputNoise`);
  /// 0: none.
  public var inputNoise = 0.0

  // Main loss, continued
  /// Weight of the encoded model's own loss beside that of another model; weights have a mean of 1 over the models
  /// (`LossWeights`).
  public var sameModelWeight = 1.0

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
    recipe.dictionaryNorm = .unit
    recipe.encodedModels = .one
    recipe.agreement = 0
    recipe.agreementScale = 0
    recipe.prefixes = []
    recipe.mergeCosine = 0
    recipe.auxiliary = .published
    recipe.auxiliaryScale = .none
    recipe.auxiliaryDetach = false
    recipe.auxiliaryCoefficient = 0.1
    recipe.deadTokens = 0
    recipe.learningRate = 3e-4
    recipe.stepLimit = 0
    recipe.warmupLearningRate = 1e-6
    recipe.finalLearningRate = 1e-6
    recipe.warmupSteps = warmupSteps
    recipe.totalSteps = totalSteps
    recipe.schedule = .cosine
    recipe.decayShare = 1
    recipe.clock = .model
    recipe.firstStepFull = true
    recipe.warmupInclusive = true
    recipe.weightDecay = 1e-5
    recipe.clipNorm = 1
    recipe.outlierMultiple = 0
    recipe.auxiliaryEvery = 1
    recipe.encodedModels = .one
    recipe.agreement = 0
    return recipe
  }

  /// Slots of a code: the most active concepts of one token.
  func slots(concepts: Int, k: Double) throws(USAEError) -> Int {
    guard selection == .batchTopK else { return wholeK(k) }
    guard kMax == 0 || Double(kMax) >= k else {
      throw .invalidArgument(
        name: "recipe.k_max", expected: "at least k = \(written(k))", got: "\(kMax)",
        remedy: "k is the mean over tokens, k_max the most that one token can have")
    }
    return min(kMax > 0 ? kMax : wholeK(4 * k), concepts)
  }

  /// NaN is in no range, so it is refused.
  func check(k: Double, concepts: Int) throws(USAEError) {
    guard k >= 1, k <= Double(concepts) else {
      throw .invalidArgument(
        name: "k", expected: "from 1 to n_concepts = \(concepts)", got: written(k),
        remedy: "k is the number of concepts active at once")
    }
    guard selection == .batchTopK || k == k.rounded() else {
      throw .invalidArgument(
        name: "k", expected: "a whole number with TopK, which gives every token the same number", got: written(k),
        remedy: "BatchTopK's k is a mean, which may be fractional")
    }
  }
}

/// The most concepts that a token has where it may have k: a fractional k is rounded up.
func wholeK(_ k: Double) -> Int { Int(k.rounded(.up)) }

/// How many entries BatchTopK keeps of so many tokens: k for each on average, rounded down. SAELens computes the same,
/// `int(k * n)` in double precision.
func batchEntries(_ k: Double, tokens: Int) -> Int { Int(k * Double(tokens)) }

/// A number as a user writes it: a whole one has no decimal point.
private func written(_ k: Double) -> String { k == k.rounded() && abs(k) < 0x1p53 ? "\(Int(k))" : "\(k)" }
