import Testing

@testable import USAE

/// Copies of one autoencoder, as processes would have them, share steps whose sums are made here.
@Suite struct SharedStepTests {
  struct Case: Sendable, CustomTestStringConvertible {
    let name: String
    let recipe: Recipe
    let k: Double
    /// What this case tests.
    let expected: Set<SharedExchange.Kind>
    var testDescription: String { name }

    init(
      _ name: String, expected: Set<SharedExchange.Kind> = [], k: Double = 5, _ recipe: Recipe = Recipe(),
      _ change: (inout Recipe) -> Void = { _ in }
    ) {
      self.name = name
      self.k = k
      self.expected = expected
      var recipe = recipe
      recipe.mergeCosine = 0
      recipe.prefixes = []
      change(&recipe)
      self.recipe = recipe
    }
  }

  static let published = Recipe.published(totalSteps: 50, warmupSteps: 5)
  static let cases = [
    Case("default, nothing dead"),
    Case("published", expected: [.means, .covariance], published),
    Case("published, all dictionaries, scaled", expected: [.means, .covariance, .residualMeans, .spreads], published) {
      ($0.update, $0.auxiliaryScale, $0.auxiliaryDetach) = (.all, .residual, true)
    },
    Case("dead", expected: [.residualMeans, .spreads]) { ($0.deadTokens, $0.auxiliaryK) = (200, 9) },
    Case("dead, L1", expected: [.residualMeans, .spreads]) { ($0.deadTokens, $0.loss, $0.auxiliaryDetach) = (200, .l1, false) },
    Case("prefixes") { ($0.prefixes, $0.prefixLoss) = ([0.1, 0.4, 1], .mean) },
    Case("drawn prefix") { $0.prefixes = [0.2, 0.6, 1] },
    Case("clipped") { $0.clipNorm = 1e-3 },
    Case("batchtopk", expected: [.upperHalves, .lowerHalves, .ties, .residualMeans, .spreads]) {
      ($0.selection, $0.deadTokens, $0.prefixes, $0.prefixLoss) = (.batchTopK, 200, [0.3, 1], .mean)
    },
    Case("two encoders", expected: [.residualMeans, .spreads]) {
      ($0.encodedModels, $0.agreement, $0.deadTokens, $0.clipNorm) = (.two, 0.3, 200, 1e-3)
    },
    Case("two encoders, drawn prefix, of the codes") {
      ($0.encodedModels, $0.agreement, $0.agreementOn, $0.prefixes) = (.two, 0.3, .codes, [0.2, 0.6, 1])
    },
    Case("two encoders, batchtopk", expected: [.upperHalves, .lowerHalves, .ties, .residualMeans, .spreads]) {
      ($0.encodedModels, $0.agreement, $0.selection, $0.deadTokens) = (.all, 0.3, .batchTopK, 200)
    },
    Case("two published encoders", expected: [.means, .covariance], published) { $0.encodedModels = .two },
    Case("merging", expected: [.restarts]) { ($0.mergeCosine, $0.mergeEvery, $0.warmupSteps) = (0.05, 6, 0) },
    Case("batchtopk, fractional k", expected: [.upperHalves, .lowerHalves, .ties, .residualMeans, .spreads], k: 4.27) {
      ($0.selection, $0.deadTokens) = (.batchTopK, 200)
    },
  ]

  /// Rows of all models, cut into parts of these sizes.
  static func parts(_ data: KeyValuePairs<String, Matrix>, _ sizes: [Int]) throws -> [KeyValuePairs<String, Matrix>] {
    var first = 0
    return try sizes.map { size in
      defer { first += size }
      return [
        data[0].key: try data[0].value.slice(first..<first + size), data[1].key: try data[1].value.slice(first..<first + size),
      ]
    }
  }

  /// One autoencoder, trained for five steps, for each process and one more.
  static func copies(_ recipe: Recipe, _ count: Int, k: Double = 5) throws -> [UniversalSAE] {
    try (0...count).map { _ in
      let sae = try UniversalSAE(concepts: 70, k: k, recipe: recipe, seed: 3, threads: 1)
      for step in 0..<5 {
        try sae.partialFit(try UniversalSAETests.data(300, seed: UInt64(10 + step)), encoder: ["a", "b"][step % 2])
      }
      guard recipe.auxiliary == .dead else { return sae }
      let silent = (0..<70).map { Int64($0 % 3 == 0 ? 500 : 0) }  // set by hand, since on these data every concept fires
      for model in 0..<2 {
        try silent.withUnsafeBytes { try sae.writeTensor(model: model, TensorID(400)!, from: $0.baseAddress!, count: 70) }
      }
      return sae
    }
  }

  struct Outcome {
    var exchanges: [SharedExchange] = []
    var sums: [[Float]] = []
    var reports: [StepReport] = []
  }

  static func begin(_ sae: UniversalSAE, _ part: KeyValuePairs<String, Matrix>, encoder: Int?) throws
    -> UniversalSAE.SharedOpening
  {
    try sae.withActivations(part) { activations throws(USAEError) in
      try sae.beginShared(activations, rows: .all, encoder: encoder, work: sae.makeWork())
    }
  }

  /// A step that the autoencoders share.
  static func step(_ saes: [UniversalSAE], _ parts: [KeyValuePairs<String, Matrix>], encoder: Int?) throws -> Outcome {
    try finish(saes, begun: try zip(saes, parts).map { try begin($0, $1, encoder: encoder) })
  }

  /// The rest of a step that the autoencoders have begun.
  static func finish(_ saes: [UniversalSAE], begun openings: [UniversalSAE.SharedOpening]) throws -> Outcome {
    let tokens = openings.map(\.tokens)
    #expect(Set(openings.map(\.fingerprint)).count == 1)
    let lists = try saes.indices.map { r in
      try saes[r].agreeShared(tokens, rank: r)
    }
    var outcome = Outcome(exchanges: lists[0])
    #expect(lists.allSatisfy { $0 == lists[0] })
    for (number, exchange) in lists[0].enumerated() {
      var sum = [Float](repeating: 0, count: exchange.count)
      for sae in saes {
        var part = [Float](repeating: .nan, count: exchange.count)
        try part.withUnsafeMutableBufferPointer { try sae.fillShared(number, $0, work: sae.makeWork()) }
        for i in sum.indices { sum[i] += part[i] }
      }
      if exchange.isAwaited { for sae in saes { try sum.withUnsafeBufferPointer { try sae.takeShared(number, $0) } } }
      outcome.sums.append(sum)
    }
    for sae in saes { outcome.reports.append(try finish(sae, outcome.sums[...], [])) }
    return outcome
  }

  static func finish(
    _ sae: UniversalSAE, _ rest: ArraySlice<[Float]>, _ buffers: [UnsafeBufferPointer<Float>?]
  ) throws -> StepReport {
    guard let first = rest.first else { return try sae.finishShared(buffers) }
    return try first.withUnsafeBufferPointer { try finish(sae, rest.dropFirst(), buffers + [$0]) }
  }

  static func read(_ sae: UniversalSAE, _ model: Int, _ number: Int32) throws -> [Float] {
    let id = TensorID(number)!
    let shape = try sae.tensorShape(model: model, id)
    let count = shape.rows * max(1, shape.columns)
    var values = [Float](repeating: 0, count: count)
    try values.withUnsafeMutableBytes { try sae.readTensor(model: model, id, to: $0.baseAddress!, count: count) }
    return values
  }

  static func silent(_ sae: UniversalSAE, _ model: Int) throws -> [Int64] {
    var values = [Int64](repeating: 0, count: 70)
    try values.withUnsafeMutableBytes { try sae.readTensor(model: model, TensorID(400)!, to: $0.baseAddress!, count: 70) }
    return values
  }

  static func distance(_ a: some Collection<Float>, _ b: some Collection<Float>) -> Double {
    let difference = zip(a, b).reduce(0.0) { $0 + Double($1.0 - $1.1) * Double($1.0 - $1.1) }
    return difference.squareRoot() / max(b.reduce(0.0) { $0 + Double($1) * Double($1) }.squareRoot(), 1e-30)
  }

  // Float32 sums in another order: 1e-7 each, some of which cancel.
  static let tolerance = 1e-5

  @Test(arguments: cases, [[150, 150], [290, 10], [1, 199, 60, 40]])
  func theSumOfPartsIsTheGradientOfTheBatch(_ test: Case, sizes: [Int]) throws {
    let data = try UniversalSAETests.data(300, seed: 99)
    var saes = try Self.copies(test.recipe, sizes.count, k: test.k)
    let single = saes.removeLast()
    for encoder in 0..<2 {
      let whole = try single.withActivations(data) { activations throws(USAEError) in
        try single.step(activations, rows: .all, encoder: encoder, keepGradients: true, work: single.makeWork())
      }
      var gradients: [[Float]] = []
      let before = (2...8).map { number in try? Self.read(single, encoder, Int32(300 + number)) }
      let weights = (0..<2).map { j in try? Self.read(single, j, 302) }
      let dictionaries = (0..<2).map { j in try? Self.read(single, j, 308) }
      let outcome = try Self.step(saes, try Self.parts(data, sizes), encoder: encoder)

      let kinds = Set(outcome.exchanges.map(\.kind))
      var expectedKinds = encoder == 0 ? test.expected : test.expected.subtracting([.restarts])
      if encoder == 1, test.recipe.encodedModels != .one {  // the first step has encoded it too, and every concept fired
        expectedKinds.subtract([.residualMeans, .spreads])
      }
      #expect(kinds.subtracting([.gradient, .summary]) == expectedKinds)
      #expect(whole.deadConcepts > 0 || !expectedKinds.contains(.spreads) || test.recipe.auxiliary == .published)
      for (exchange, sum) in zip(outcome.exchanges, outcome.sums) where exchange.kind == .gradient {
        let expected = exchange.tensor == .dictionary ? dictionaries[exchange.model] : weights[exchange.model]
        gradients.append(sum)
        #expect(Self.distance(sum, try #require(expected)) < Self.tolerance, "\(exchange)")
      }
      let encoders = outcome.reports[0].encoders
      #expect(encoders == (test.recipe.encodedModels == .one ? [encoder] : [encoder, 1 - encoder]))
      #expect(gradients.count == encoders.count + (test.recipe.update == .all ? 2 : encoders.count))
      let summary = try #require(zip(outcome.exchanges, outcome.sums).first { $0.0.kind == .summary }?.1)
      for (place, vector) in before[1..<4].compactMap({ $0 }).enumerated() {
        let first = 2 * encoders.count + 3 + (test.recipe.agreementWeight(at: whole.step, models: 2) > 0 ? 1 : 0) + 70 * place
        let sum = summary[first..<first + 70]
        // The bias before BatchNorm has gradient 0, so that any other number is far from it.
        #expect(Self.distance(sum, vector) < Self.tolerance)
      }
      let report = outcome.reports[0]
      #expect(outcome.reports.allSatisfy { $0.loss == report.loss && $0.losses == report.losses })
      #expect(abs(report.loss - whole.loss) < 1e-5 * whole.loss && report.deadConcepts == whole.deadConcepts)
      #expect(report.l0 == whole.l0 && report.learningRate == whole.learningRate)
      let done = try single.partialFit(data, encoder: ["a", "b"][encoder])
      #expect(report.gradientNorm.isNaN == done.gradientNorm.isNaN && report.step == done.step)
      #expect(done.gradientNorm.isNaN || abs(report.gradientNorm - done.gradientNorm) < 1e-5 * done.gradientNorm)
      for sae in saes {
        #expect(try UniversalSAETests.parameters(sae) == UniversalSAETests.parameters(saes[0]), "all have the same bits")
        for model in 0..<2 { #expect(try Self.silent(sae, model) == Self.silent(single, model)) }
        #expect(sae.stepCount == single.stepCount)
      }
      for number in Int32(6)...7 where test.recipe.encoder == .batchNorm {
        #expect(Self.distance(try Self.read(saes[0], encoder, number), try Self.read(single, encoder, number)) < 1e-6)
      }
      if test.recipe.selection == .batchTopK { #expect(try Self.read(saes[0], encoder, 9) == Self.read(single, encoder, 9)) }
      for (a, b) in zip(try UniversalSAETests.parameters(saes[0]), try UniversalSAETests.parameters(single)) {
        #expect(Self.distance(a, b) < 1e-3)  // Adam takes a whole step even where a gradient is rounding alone
      }
    }
  }

  @Test func aWorldOfOneHasTheBitsOfAnOrdinaryStep() throws {
    for test in Self.cases {
      let saes = try Self.copies(test.recipe, 1, k: test.k)
      for step in 0..<3 {
        let data = try UniversalSAETests.data(200, seed: UInt64(40 + step))
        _ = try Self.step([saes[0]], [data], encoder: nil)
        try saes[1].partialFit(data)
        #expect(try UniversalSAETests.parameters(saes[0]) == UniversalSAETests.parameters(saes[1]), "\(test.name)")
      }
    }
  }

  @Test func aStepThatIsAbandonedChangesNothingAndOneUnderWayKeepsOthersOut() throws {
    let sae = try Self.copies(Recipe(), 1)[0]
    let data = try UniversalSAETests.data(100)
    let before = try UniversalSAETests.parameters(sae)
    _ = try Self.begin(sae, data, encoder: 0)
    #expect(throws: USAEError.self) { try sae.partialFit(data) }
    #expect(throws: USAEError.self) { try sae.setPlan(totalSteps: 9, deadTokens: 0) }
    #expect(throws: USAEError.self) { try sae.setStepCount(0) }
    #expect(throws: USAEError.self) { try sae.initialize([("a", 19)]) }
    #expect(throws: USAEError.self) { _ = try Self.begin(sae, data, encoder: 0) }
    #expect(try sae.encode(data[0].value, model: "a").values.count == 500, "reading goes on")
    let exchanges = try sae.agreeShared([100], rank: 0)
    for (number, exchange) in exchanges.enumerated() {
      var part = [Float](repeating: 0, count: exchange.count)
      try part.withUnsafeMutableBufferPointer { try sae.fillShared(number, $0, work: sae.makeWork()) }
    }
    try sae.abandonShared()
    try sae.abandonShared()
    #expect(try UniversalSAETests.parameters(sae) == before && sae.stepCount == 5)
    try sae.partialFit(data)
  }

  @Test func whatComesOutOfOrderOrHasTheWrongSizeEndsTheStep() throws {
    let sae = try Self.copies(Self.published, 1)[0]
    let data = try UniversalSAETests.data(100)
    let before = try UniversalSAETests.parameters(sae)
    let mistakes: [(UniversalSAE) throws -> Void] = [
      { try $0.fillShared(1, UnsafeMutableBufferPointer(start: nil, count: 0), work: $0.makeWork()) },
      { try $0.fillShared(0, UnsafeMutableBufferPointer(start: nil, count: 0), work: $0.makeWork()) },
      { try $0.takeShared(0, UnsafeBufferPointer(start: nil, count: 0)) },
      { _ = try $0.finishShared([]) },
      { _ = try $0.agreeShared([100], rank: 0) },
    ]
    for mistake in mistakes {
      _ = try Self.begin(sae, data, encoder: 0)
      _ = try sae.agreeShared([100], rank: 0)
      #expect(throws: USAEError.self) { try mistake(sae) }
      #expect(throws: USAEError.self, "it has ended") { _ = try sae.finishShared([]) }
    }
    _ = try Self.begin(sae, data, encoder: 0)
    #expect(throws: USAEError.self) { _ = try sae.agreeShared([99], rank: 0) }
    #expect(try UniversalSAETests.parameters(sae) == before)
    try sae.partialFit(data)
  }

  @Test func numbersOfOneProcessThatAreNotFiniteStopAll() throws {
    var recipe = Recipe()
    recipe.outlierMultiple = 0  // which would shorten them
    let saes = try Self.copies(recipe, 1)
    var data = try UniversalSAETests.data(60)
    let huge = try Matrix(rows: 60, columns: 19, values: data[0].value.values.map { $0 * 1e19 })
    data = ["a": huge, "b": data[1].value]
    let before = try UniversalSAETests.parameters(saes[0])
    #expect(throws: USAEError.self) {
      _ = try Self.step(saes, [try UniversalSAETests.data(60), data], encoder: 0)
    }
    #expect(try UniversalSAETests.parameters(saes[0]) == before)
  }

  @Test func aChangedParameterChangesTheFingerprint() throws {
    let saes = try Self.copies(Recipe(), 1)
    let data = try UniversalSAETests.data(60)
    let first = try Self.begin(saes[0], data, encoder: 0)
    var rows = try Self.read(saes[1], 1, 8)
    rows[100] = rows[100].nextUp + 1e-3
    try rows.withUnsafeBytes { try saes[1].writeTensor(model: 1, TensorID(8)!, from: $0.baseAddress!, count: rows.count) }
    #expect(try Self.begin(saes[1], data, encoder: 0).fingerprint != first.fingerprint)
  }

  @Test func equalEntriesOfSeveralProcessesGoToTheEarlierTokens() throws {
    var recipe = Recipe()
    (recipe.selection, recipe.mergeCosine, recipe.auxiliary) = (.batchTopK, 0, .none)
    let row = try UniversalSAETests.data(1, seed: 5)
    // Twenty equal tokens, then ten with smaller entries: the 150 largest entries are the seven largest of each of the twenty,
    // and ten of their twenty equal eighth-largest ones.
    func tokens(_ model: Int) throws -> Matrix {
      let values = row[model].value.values
      let rows = (0..<30).flatMap { token in values.map { token < 20 ? $0 : $0 * 1e-3 } }
      return try Matrix(rows: 30, columns: values.count, values: rows)
    }
    let data: KeyValuePairs = ["a": try tokens(0), "b": try tokens(1)]
    for sizes in [[10, 20], [1, 28, 1], [29, 1]] {
      var saes = try Self.copies(recipe, sizes.count)
      let single = saes.removeLast()
      let outcome = try Self.step(saes, try Self.parts(data, sizes), encoder: 1)
      let expected = try single.partialFit(data, encoder: "b")
      #expect(outcome.reports[0].l0 == expected.l0 && expected.l0 == 5)
      #expect(abs(outcome.reports[0].loss - expected.loss) < 1e-5 * expected.loss)
      #expect(try Self.read(saes[0], 1, 9) == Self.read(single, 1, 9), "the threshold")
      let ties = try #require(zip(outcome.exchanges, outcome.sums).first { $0.0.kind == .ties }?.1)
      #expect(ties.reduce(0, +) == 20 && ties.count { $0 > 0 } > 1 || sizes == [29, 1], "more ties than entries to keep")
    }
  }
}
