import Testing

@testable import USAE

/// What a step with several encoders computes, beside plain loops. Gradients are compared with PyTorch's in
/// python/tests/core/test_agreement.py.
@Suite struct AgreementTests {
  static func trained(_ change: (inout Recipe) -> Void, k: Double = 5, steps: Int = 8) throws -> UniversalSAE {
    var recipe = Recipe()
    recipe.mergeCosine = 0
    recipe.prefixes = []
    recipe.warmupSteps = 0
    (recipe.encodedModels, recipe.agreement, recipe.agreementScale) = (.one, 0, 0)
    change(&recipe)
    let sae = try UniversalSAE(concepts: 70, k: k, recipe: recipe, seed: 3)
    for step in 0..<steps { try sae.partialFit(try UniversalSAETests.data(300, seed: UInt64(10 + step))) }
    return sae
  }

  static func report(_ sae: UniversalSAE, _ data: KeyValuePairs<String, Matrix>, encoder: Int = 0) throws -> StepReport {
    try sae.withActivations(data) { activations throws(USAEError) in
      try sae.step(activations, rows: .all, encoder: encoder, keepGradients: true, work: sae.makeWork())
    }
  }

  /// Pre-activations [rows, concepts], and for each row which of the concepts are among the k largest positive ones.
  static func encoded(_ sae: UniversalSAE, _ x: Matrix, _ model: String) throws -> (numbers: [Float], isActive: [Bool]) {
    var numbers = [Float](repeating: 0, count: x.rows * sae.concepts)
    try numbers.withUnsafeMutableBufferPointer { out in
      try sae.withActivations([model: x]) { all throws(USAEError) in
        try sae.preactivations(all[0], model: try sae.index(of: model), out: out.baseAddress!, work: sae.makeWork())
      }
    }
    var isActive = [Bool](repeating: false, count: numbers.count)
    for row in 0..<x.rows {
      let own = (0..<sae.concepts).sorted {
        let (a, b) = (numbers[row * sae.concepts + $0], numbers[row * sae.concepts + $1])
        return a != b ? a > b : $0 < $1
      }
      for c in own.prefix(Int(sae.k)) where numbers[row * sae.concepts + c] > 0 { isActive[row * sae.concepts + c] = true }
    }
    return (numbers, isActive)
  }

  @Test(arguments: [Recipe.AgreementOn.preactivations, .codes], [Recipe.EncodedModels.two, .all])
  func theTermIsThatOfPlainLoops(_ on: Recipe.AgreementOn, _ encodedModels: Recipe.EncodedModels) throws {
    let sae = try Self.trained { ($0.encodedModels, $0.agreement, $0.agreementOn) = (encodedModels, 0.2, on) }
    let data = try UniversalSAETests.data(130, seed: 77)
    let (a, b) = (try Self.encoded(sae, data[0].value, "a"), try Self.encoded(sae, data[1].value, "b"))
    var sum = 0.0
    for i in a.numbers.indices where a.isActive[i] || b.isActive[i] {
      let isOnCodes = on == .codes
      let left = isOnCodes && !a.isActive[i] ? 0 : Double(a.numbers[i])
      let right = isOnCodes && !b.isActive[i] ? 0 : Double(b.numbers[i])
      sum += (left - right) * (left - right)
    }
    let scale = Double(data[0].value.columns + data[1].value.columns) / 2
    let report = try Self.report(sae, data)
    #expect(report.encoders == [0, 1])
    #expect(abs(report.agreement - sum / (130 * scale)) < 1e-5 * report.agreement)
    let mean = report.losses.joined().reduce(0, +) / 2
    let rest = sae.recipe.auxiliaryCoefficient * report.auxiliaryLoss
    #expect(abs(report.loss - mean - rest - 0.2 * report.agreement) < 1e-9)
  }

  @Test func aWeightThatNothingCanUseChangesNoBit() throws {
    let saes = try [0.0, 0.7].map { weight in try Self.trained { $0.agreement = weight } }
    #expect(try UniversalSAETests.parameters(saes[0]) == UniversalSAETests.parameters(saes[1]))
    #expect(try Self.report(saes[1], try UniversalSAETests.data(60)).agreement == 0)
  }

  @Test func twoEncodersAreAllOfTwo() throws {
    let saes = try [Recipe.EncodedModels.two, .all].map { encoded in
      try Self.trained { ($0.encodedModels, $0.agreement) = (encoded, 0.1) }
    }
    #expect(try UniversalSAETests.parameters(saes[0]) == UniversalSAETests.parameters(saes[1]))
  }

  @Test func encodersAreDrawnBySeedAndStepAlone() throws {
    var recipe = Recipe()
    recipe.encodedModels = .two
    let sae = try UniversalSAE(concepts: 8, k: 2, recipe: recipe, seed: 5)
    #expect(throws: USAEError.self) { try sae.encoders() }
    try sae.initialize([("a", 3), ("b", 4), ("c", 5), ("d", 6)])
    var pairs: [[Int]: Int] = [:]
    for step in 0..<600 {
      try sae.setStepCount(step)
      let drawn = try sae.encoders()
      #expect(try sae.encoders() == drawn && drawn.count == 2 && drawn[0] != drawn[1])
      pairs[drawn, default: 0] += 1
      let first = try sae.encoders(first: 2)
      #expect(first.count == 2 && first[0] == 2 && first[1] != 2)
    }
    #expect(pairs.count == 12, "all pairs, in both orders")
    #expect(pairs.values.allSatisfy { (25...80).contains($0) })
    #expect(throws: USAEError.self) { try sae.encoders(first: 4) }
  }

  @Test func aBatchIsAsManyEncodingsWhateverTheEncoders() {
    var recipe = Recipe()
    for (encoded, counts) in [(Recipe.EncodedModels.one, [1, 1, 1]), (.two, [1, 2, 2]), (.all, [1, 2, 5])] {
      recipe.encodedModels = encoded
      for (models, count) in zip([1, 2, 5], counts) {
        #expect(recipe.encoderCount(models: models) == count)
        #expect(recipe.tokens(ofBatch: 2048, models: models) == 2048 / count)
        #expect(recipe.tokens(ofBatch: 1, models: models) == 1)
      }
    }
  }

  @Test func anInterruptAnywhereLeavesTheAutoencoderAsItWas() throws {
    var recipe = Recipe()
    (recipe.encodedModels, recipe.agreement, recipe.deadTokens) = (.two, 0.3, 1)
    // One thread, which asks before each piece of work that it does.
    let sae = try UniversalSAE(concepts: 70, k: 5, recipe: recipe, seed: 3, threads: 1)
    let data = try UniversalSAETests.data(200)
    try sae.partialFit(data)
    let before = try UniversalSAETests.parameters(sae)
    var stopAt = 1
    while sae.stepCount == 1, stopAt < 1000 {
      let asked = Counter()
      let work = sae.makeWork { [stopAt] in asked.next() >= stopAt }
      try? Self.step(sae, data, work)
      if sae.stepCount == 1 { #expect(try UniversalSAETests.parameters(sae) == before) }
      stopAt += 1
    }
    #expect(stopAt > 20)
    #expect(sae.stepCount == 2)
  }

  /// Counts in one thread.
  final class Counter: @unchecked Sendable {
    private var count = 0

    func next() -> Int {
      count += 1
      return count
    }
  }

  static func step(_ sae: UniversalSAE, _ data: KeyValuePairs<String, Matrix>, _ work: InterruptibleWork) throws {
    try sae.withActivations(data) { activations throws(USAEError) in
      _ = try sae.step(activations, rows: .all, encoder: 0, work: work)
    }
  }

  @Test(arguments: [Float(1e-30), 1e-20, 1e17, 1e18, 1e25], [Recipe.AgreementOn.preactivations, .codes])
  func extremeSizesNeverSpoilTheParameters(_ factor: Float, _ on: Recipe.AgreementOn) throws {
    var recipe = Recipe()
    (recipe.encodedModels, recipe.agreement, recipe.agreementOn) = (.two, 0.3, on)
    (recipe.deadTokens, recipe.statisticsTokens) = (1, 1)  // scale 1: the numbers stay as extreme as they are
    let sae = try UniversalSAE(concepts: 40, k: 3, recipe: recipe)
    let data = try UniversalSAETests.data(200)
    let left = try Matrix(rows: 200, columns: 19, values: data[0].value.values.map { $0 * factor })
    let right = try Matrix(rows: 200, columns: 33, values: data[1].value.values.map { $0 * factor })
    for _ in 0..<20 { _ = try? sae.partialFit(["a": left, "b": right]) }
    for tensor in try UniversalSAETests.parameters(sae) { #expect(tensor.allSatisfy { $0.isFinite }) }
  }

  @Test(arguments: [1e-300, 1e300])
  func aScaleThatOverflowsIsRefusedAndChangesNothing(_ scale: Double) throws {
    var recipe = Recipe()
    (recipe.encodedModels, recipe.agreement, recipe.agreementScale) = (.two, 1, scale)
    guard scale < 1 else {
      #expect(throws: USAEError.self) { try UniversalSAE(concepts: 40, k: 3, recipe: recipe) }
      return
    }
    let sae = try UniversalSAE(concepts: 40, k: 3, recipe: recipe)
    let data = try UniversalSAETests.data(50)
    try sae.initialize([("a", 19), ("b", 33)])
    let before = try UniversalSAETests.parameters(sae)
    #expect(throws: USAEError.lossNotFinite(step: 1)) { try sae.partialFit(data) }
    #expect(try UniversalSAETests.parameters(sae) == before && sae.stepCount == 0)
  }
}
