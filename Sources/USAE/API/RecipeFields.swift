/// The fields of a recipe by the names that other languages use, with what each may be.
///
/// The one list of them: `validate` walks it, so does the C interface, whose `usae_recipe` has these fields in this order, and
/// through that the Python package. Defaults are those of `Recipe()`.
extension Recipe {
  package struct Field: Sendable {
    package let name: String
    package let content: Content
    /// Whether 0, or no shares at all, stands for "none" or for a number that the library chooses.
    package let zeroIsNone: Bool
  }

  package typealias Path<Value> = WritableKeyPath<Recipe, Value> & Sendable

  package enum Content: Sendable {
    /// The names of the cases by number.
    case choice([String], get: @Sendable (Recipe) -> Int32, set: @Sendable (inout Recipe, Int32) -> Void)
    case toggle(Path<Bool>)
    case count(Path<Int>, ClosedRange<Int>)
    case number(Path<Double>, ClosedRange<Double>)
    /// Ascending from above 0 to 1.
    case shares(Path<[Double]>)
  }

  package static let fields: [Field] = [
    choice("initialization", \.initialization),
    choice("center", \.center),
    choice("scale", \.scale),
    number("scale_epsilon", \.scaleEpsilon, 0...1),
    count("statistics_tokens", \.statisticsTokens, zeroIsNone: true),

    choice("encoder", \.encoder),
    choice("selection", \.selection),
    count("k_max", \.kMax, zeroIsNone: true),

    number("dictionary_epsilon", \.dictionaryEpsilon, 0...1),
    toggle("renormalize", \.renormalize),

    choice("loss", \.loss),
    Field(name: "prefixes", content: .shares(\.prefixes), zeroIsNone: true),
    choice("prefix_loss", \.prefixLoss),

    choice("aux", \.auxiliary),
    choice("aux_scale", \.auxiliaryScale),
    toggle("aux_detach", \.auxiliaryDetach),
    count("aux_k", \.auxiliaryK, zeroIsNone: true),
    number("aux_coefficient", \.auxiliaryCoefficient, 0...1e6),
    count("dead_tokens", \.deadTokens),

    number("merge_cosine", \.mergeCosine, 0...1, zeroIsNone: true),
    count("merge_every", \.mergeEvery, from: 1),

    number("beta1", \.beta1, 0...0.999_999_9),
    number("beta2", \.beta2, 0...0.999_999_9),
    number("epsilon", \.epsilon, 0...1),
    number("weight_decay", \.weightDecay, 0...1e3),
    number("clip_norm", \.clipNorm, 0...1e30, zeroIsNone: true),
    choice("update", \.update),

    choice("schedule", \.schedule),
    choice("clock", \.clock),
    toggle("first_step_full", \.firstStepFull),
    toggle("warmup_inclusive", \.warmupInclusive),
    number("learning_rate", \.learningRate, 0...1e3),
    number("warmup_learning_rate", \.warmupLearningRate, 0...1e3),
    number("final_learning_rate", \.finalLearningRate, 0...1e3),
    count("warmup_steps", \.warmupSteps),
    count("total_steps", \.totalSteps, zeroIsNone: true),
    number("decay_share", \.decayShare, 0...1),

    number("outlier_multiple", \.outlierMultiple, 0...1e6, zeroIsNone: true),

    count("aux_every", \.auxiliaryEvery, from: 1),

    number("step_limit", \.stepLimit, 0...1e12, zeroIsNone: true),

    choice("encoded_models", \.encodedModels),
    choice("agreement_on", \.agreementOn),
    number("agreement", \.agreement, 0...1e6),
    number("agreement_scale", \.agreementScale, 0...1e12, zeroIsNone: true),
    number("agreement_start", \.agreementStart, 0...1),
    number("agreement_full", \.agreementFull, 0...1),

    choice("dictionary_norm", \.dictionaryNorm),

    number("input_noise", \.inputNoise, 0...1e3),

    number("same_model_weight", \.sameModelWeight, 1e-3...1e3),
  ]

  private static func choice<Case: RecipeChoice>(_ name: String, _ path: Path<Case>) -> Field {
    let content = Content.choice(
      Case.allCases.map(\.name), get: { $0[keyPath: path].rawValue },
      set: { if let chosen = Case(rawValue: $1) { $0[keyPath: path] = chosen } })
    return Field(name: name, content: content, zeroIsNone: false)
  }

  private static func toggle(_ name: String, _ path: Path<Bool>) -> Field {
    Field(name: name, content: .toggle(path), zeroIsNone: false)
  }

  /// Up to 2^53, so that a language whose numbers are doubles can hold it.
  private static func count(_ name: String, _ path: Path<Int>, from smallest: Int = 0, zeroIsNone: Bool = false) -> Field {
    Field(name: name, content: .count(path, smallest...1 << 53), zeroIsNone: zeroIsNone)
  }

  private static func number(
    _ name: String, _ path: Path<Double>, _ range: ClosedRange<Double>, zeroIsNone: Bool = false
  ) -> Field {
    Field(name: name, content: .number(path, range), zeroIsNone: zeroIsNone)
  }

  static let mostPrefixes = 16

  func validate() throws(USAEError) {
    for field in Self.fields {
      let name = "recipe.\(field.name)"
      switch field.content {
      case .choice, .toggle: break  // by their types
      case .count(let path, let range): try UniversalSAE.require(name, self[keyPath: path], in: range)
      case .number(let path, let range): try UniversalSAE.require(name, self[keyPath: path], in: range)
      case .shares(let path): try Self.require(name, shares: self[keyPath: path])
      }
    }
  }

  private static func require(_ name: String, shares: [Double]) throws(USAEError) {
    let ascending = zip([0] + shares, shares).allSatisfy { $0 < $1 }  // NaN is not
    guard shares.isEmpty || (ascending && shares.last == 1 && shares.count <= mostPrefixes) else {
      throw .invalidArgument(
        name: name, expected: "at most \(mostPrefixes) shares, ascending from above 0 to 1", got: "\(shares)")
    }
  }
}

/// A case is numbered by its place, in usae.h too. Where recipes are written with words, `name` stands for it.
protocol RecipeChoice: RawRepresentable<Int32>, CaseIterable, Sendable {
  var name: String { get }
}

extension RecipeChoice {
  /// The case in lower case.
  var name: String { "\(self)".lowercased() }
}
