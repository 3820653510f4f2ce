/// How well each model's code reconstructs each model, and how often each concept fires. [i][j] is encoded from model i and
/// decoded to model j.
public struct Evaluation: Sendable, Equatable {
  public let tokens: Int
  /// R squared in the models' own units, against each dimension's mean over these tokens: predicting the mean scores 0.
  public internal(set) var r2: [[Double]]
  public internal(set) var r2Standardized: [[Double]]
  /// R squared in standardised units, against one mean over all elements, as the published code computes it.
  public internal(set) var r2ScalarMean: [[Double]]
  /// Mean squared error per element, in the models' own units.
  public internal(set) var meanSquaredError: [[Double]]
  /// Mean number of active concepts, by model.
  public internal(set) var l0: [Double]
  /// Tokens whose code is above the threshold, by model and concept.
  public internal(set) var firingCounts: [[Int64]]
  /// Tokens where it is above the threshold in both models of a pair, [i][j][concept]; [i][i] are the firing counts.
  public internal(set) var pairCofireCounts: [[[Int64]]]
  /// Tokens where it is above the threshold in every model, and in any model, by concept.
  public internal(set) var cofireCounts: [Int64]
  public internal(set) var unionCounts: [Int64]
  /// Over all tokens, by model and concept.
  public internal(set) var meanActivation: [[Double]]
  public internal(set) var maxActivation: [[Float]]
  /// Sum over tokens of the product of two models' codes of a concept, [i][j][concept].
  public internal(set) var codeProducts: [[[Double]]]
}

extension UniversalSAE {
  /// Encodes and decodes every row through every pair of models in one pass; memory does not grow with the rows.
  package func evaluate(
    _ activations: [Activations], threshold: Double, work: InterruptibleWork
  ) throws(USAEError) -> Evaluation {
    guard threshold >= 0, threshold.isFinite else {
      throw .invalidArgument(name: "threshold", expected: "a finite number from 0 up", got: "\(threshold)")
    }
    return try lock.reading(poll: work.poll) { () throws(USAEError) in
      try checkAll(activations, operation: "evaluate")
      var encoders: [PackedEncoder] = []
      for model in state.models { encoders.append(try state.inference.encoder(of: model, work: work)) }
      let pass = try StreamingEvaluation(
        models: state.models, encoders: encoders, k: slots, threshold: Float(threshold), rows: activations[0].rows, work: work)
      try pass.run(activations)
      return pass.result()
    }
  }

  /// Evaluates on held-out activations by model name.
  public func evaluate(_ activations: KeyValuePairs<String, Matrix>, threshold: Double = 0) throws(USAEError) -> Evaluation {
    let work = makeWork()
    return try withActivations(activations) { activations throws(USAEError) in
      try evaluate(try ordered(activations), threshold: threshold, work: work)
    }
  }
}

