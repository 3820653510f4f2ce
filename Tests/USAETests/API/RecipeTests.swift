import CUSAE
import Testing

@testable import USAE

/// Cases are handed over as numbers, so those of the library and of usae.h must be the same.
@Suite struct RecipeTests {
  @Test func choicesHaveTheNumbersOfTheHeader() {
    #expect(Recipe.Encoder.linear.rawValue == Int32(USAE_ENCODER_LINEAR))
    #expect(Recipe.Encoder.batchNorm.rawValue == Int32(USAE_ENCODER_BATCHNORM))
    #expect(Recipe.Selection.topK.rawValue == Int32(USAE_SELECTION_TOPK))
    #expect(Recipe.Selection.batchTopK.rawValue == Int32(USAE_SELECTION_BATCHTOPK))
    #expect(Recipe.PrefixLoss.mean.rawValue == Int32(USAE_PREFIXES_MEAN))
    #expect(Recipe.PrefixLoss.drawn.rawValue == Int32(USAE_PREFIXES_DRAWN))
    #expect(Recipe.Loss.l1.rawValue == Int32(USAE_LOSS_L1))
    #expect(Recipe.Loss.mse.rawValue == Int32(USAE_LOSS_MSE))
    #expect(Recipe.Auxiliary.none.rawValue == Int32(USAE_AUX_NONE))
    #expect(Recipe.Auxiliary.unchosen.rawValue == Int32(USAE_AUX_UNCHOSEN))
    #expect(Recipe.Auxiliary.dead.rawValue == Int32(USAE_AUX_DEAD))
    #expect(Recipe.AuxiliaryScale.none.rawValue == Int32(USAE_AUX_SCALE_NONE))
    #expect(Recipe.AuxiliaryScale.residual.rawValue == Int32(USAE_AUX_SCALE_RESIDUAL))
    #expect(Recipe.Update.all.rawValue == Int32(USAE_UPDATE_ALL))
    #expect(Recipe.Update.encoder.rawValue == Int32(USAE_UPDATE_ENCODER))
    #expect(Recipe.Statistic.scalar.rawValue == Int32(USAE_STATISTIC_SCALAR))
    #expect(Recipe.Statistic.dimension.rawValue == Int32(USAE_STATISTIC_DIMENSION))
    #expect(Recipe.Initialization.random.rawValue == Int32(USAE_INIT_RANDOM))
    #expect(Recipe.Initialization.tied.rawValue == Int32(USAE_INIT_TIED))
    #expect(Recipe.Initialization.data.rawValue == Int32(USAE_INIT_DATA))
    #expect(Recipe.Schedule.constant.rawValue == Int32(USAE_SCHEDULE_CONSTANT))
    #expect(Recipe.Schedule.cosine.rawValue == Int32(USAE_SCHEDULE_COSINE))
    #expect(Recipe.Schedule.linear.rawValue == Int32(USAE_SCHEDULE_LINEAR))
    #expect(Recipe.Clock.global.rawValue == Int32(USAE_CLOCK_GLOBAL))
    #expect(Recipe.Clock.model.rawValue == Int32(USAE_CLOCK_MODEL))
    #expect(Recipe.mostPrefixes == USAE_MOST_PREFIXES)
  }

  @Test func tensorsHaveTheNumbersOfTheHeader() {
    let kinds: [(TensorID.Kind, Int)] = [
      (.mean, USAE_MEAN), (.scale, USAE_SCALE), (.encoderWeight, USAE_ENCODER_WEIGHT),
      (.encoderBias, USAE_ENCODER_BIAS), (.batchNormWeight, USAE_BN_WEIGHT), (.batchNormBias, USAE_BN_BIAS),
      (.runningMean, USAE_BN_RUNNING_MEAN), (.runningVariance, USAE_BN_RUNNING_VAR), (.dictionary, USAE_DICTIONARY),
      (.threshold, USAE_THRESHOLD), (.silentTokens, USAE_SILENT_TOKENS), (.counters, USAE_COUNTERS),
    ]
    for (kind, number) in kinds { #expect(TensorID(Int32(number))?.kind == kind) }
    #expect(TensorID(Int32(USAE_FIRST_MOMENT + USAE_DICTIONARY))?.part == .firstMoment)
    #expect(TensorID(Int32(USAE_SECOND_MOMENT + USAE_DICTIONARY))?.part == .secondMoment)
    #expect(TensorID(Int32(USAE_GRADIENT + USAE_DICTIONARY))?.part == .gradient)
    #expect(TensorID(10) == nil && TensorID(-1) == nil && TensorID(Int32.max) == nil)
  }
}
