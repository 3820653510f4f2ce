import Testing

@testable import USAE

/// Steps on batches that do not have all models. Gradients are compared with PyTorch's in python/tests/core/test_gradients.py.
@Suite struct AbsentModelsTests {
  static let names = ["a", "b", "c"]

  static func data(_ rows: Int, seed: UInt64 = 1) throws -> KeyValuePairs<String, Matrix> {
    var random = TestRandom(seed)
    return ["a": try random.matrix(rows, 19), "b": try random.matrix(rows, 33), "c": try random.matrix(rows, 16)]
  }

  static func only(_ present: [Int], of data: KeyValuePairs<String, Matrix>) -> KeyValuePairs<String, Matrix> {
    switch present {
    case [0]: ["a": data[0].value]
    case [1]: ["b": data[1].value]
    case [2]: ["c": data[2].value]
    case [0, 1]: ["a": data[0].value, "b": data[1].value]
    case [1, 2]: ["b": data[1].value, "c": data[2].value]
    default: data
    }
  }

  /// A step on the models that a batch has.
  @discardableResult
  static func step(_ sae: UniversalSAE, _ batch: KeyValuePairs<String, Matrix>, encoder: String? = nil) throws -> StepReport {
    try sae.partialFit(batch, encoder: encoder, absent: Set(names).subtracting(batch.map(\.key)))
  }

  /// Recipes with every kind of step.
  static let recipes: [String: Recipe] = {
    var all: [String: Recipe] = [:]
    for name in ["default", "dead", "published", "prefixes", "batchtopk"] { all[name] = UniversalSAETests.recipe(name) }
    for name in ["published, all", "published, MSE"] { all[name] = .published(totalSteps: 50, warmupSteps: 5) }
    (all["published, all"]!.update, all["published, all"]!.auxiliaryScale) = (.all, .residual)
    all["published, MSE"]!.loss = .mse
    all["clipped"] = Recipe()
    all["clipped"]!.clipNorm = 1e-3
    for (name, encoded) in [("two", Recipe.EncodedModels.two), ("all encoders", .all)] {
      all[name] = Recipe()
      (all[name]!.encodedModels, all[name]!.agreement, all[name]!.deadTokens) = (encoded, 0.3, 200)
      all[name]!.agreementScale = 20  // else it is the mean width of all models
    }
    for name in all.keys { all[name]!.mergeCosine = 0 }
    return all
  }()

  /// Everything that is known of a model, by the number of the tensor, as bits.
  static func state(_ sae: UniversalSAE, _ model: Int) throws -> [Int32: [UInt32]] {
    var all: [Int32: [UInt32]] = [:]
    for number in Array(0...11) + Array(102...108) + Array(202...208) + [400, 401, 402] {
      guard let id = TensorID(Int32(number)), let shape = try? sae.tensorShape(model: model, id) else { continue }
      let count = shape.rows * max(1, shape.columns)
      var words = [UInt32](repeating: 0, count: count * (number == 400 || number == 401 ? 2 : 1))
      try words.withUnsafeMutableBytes { try sae.readTensor(model: model, id, to: $0.baseAddress!, count: count) }
      all[Int32(number)] = words
    }
    return all
  }

  static func trained(_ recipe: Recipe, steps: Int = 6, threads: Int = 1) throws -> UniversalSAE {
    let sae = try UniversalSAE(concepts: 70, k: 5, recipe: recipe, seed: 3, threads: threads)
    for step in 0..<steps { try sae.partialFit(try data(300, seed: UInt64(10 + step))) }
    return sae
  }

  /// An autoencoder of some of the models, in the same state.
  static func reduced(_ sae: UniversalSAE, to present: [Int]) throws -> UniversalSAE {
    let result = try UniversalSAE(concepts: 70, k: 5, recipe: sae.recipe, seed: 3, threads: 1)
    try result.initialize(present.map { (names[$0], sae.widths[$0]) })
    for (own, model) in present.enumerated() {
      // The mean before what float32 lacks of it.
      for (number, words) in try state(sae, model).sorted(by: { $0.key < $1.key }) {
        let id = try #require(TensorID(number)), count = number == 400 || number == 401 ? words.count / 2 : words.count
        try words.withUnsafeBytes { try result.writeTensor(model: own, id, from: $0.baseAddress!, count: count) }
      }
    }
    try result.setStepCount(sae.stepCount)
    return result
  }

  @Test(arguments: recipes.keys.sorted(), [[0], [1], [2], [0, 1], [1, 2]])
  func aStepIsThatOfAnAutoencoderOfTheModelsThatAreThere(_ name: String, _ present: [Int]) throws {
    let sae = try Self.trained(try #require(Self.recipes[name]))
    let other = try Self.reduced(sae, to: present)
    let before = try (0..<3).map { try Self.state(sae, $0) }
    let batch = Self.only(present, of: try Self.data(250, seed: 99))
    for encoder in present {
      let (report, expected) = (
        try Self.step(sae, batch, encoder: Self.names[encoder]), try other.partialFit(batch, encoder: Self.names[encoder])
      )
      #expect(report.encoders == expected.encoders.map { present[$0] })
      #expect(report.losses.map { losses in present.map { losses[$0] } } == expected.losses)
      #expect(report.losses.allSatisfy { losses in (0..<3).allSatisfy { present.contains($0) != losses[$0].isNaN } })
      #expect(report.loss == expected.loss && report.l0 == expected.l0 && report.agreement == expected.agreement)
    }
    for model in 0..<3 {
      let now = try Self.state(sae, model)
      guard let own = present.firstIndex(of: model) else {
        #expect(now == before[model], "nothing of an absent model changes")
        continue
      }
      #expect(now != before[model])
      #expect(try now == Self.state(other, own))
    }
  }

  @Test(arguments: recipes.keys.sorted())
  func threadsDoNotChangeABitOfMixedBatches(_ name: String) throws {
    var results: [[[Int32: [UInt32]]]] = []
    for threads in [1, 2, 4] {
      var recipe = try #require(Self.recipes[name])
      (recipe.mergeCosine, recipe.mergeEvery, recipe.warmupSteps) = (0.3, 2, 0)
      let sae = try UniversalSAE(concepts: 70, k: 5, recipe: recipe, seed: 3, threads: threads)
      try sae.partialFit(try Self.data(300))
      for step in 0..<12 {
        let data = try Self.data([300, 130][step % 2], seed: UInt64(20 + step))
        try Self.step(sae, Self.only([[0], [0, 1, 2], [1, 2], [2]][step % 4], of: data))
      }
      results.append(try (0..<3).map { try Self.state(sae, $0) })
    }
    #expect(results[0] == results[1] && results[0] == results[2])
  }

  @Test func encodersAreDrawnAmongTheModelsThatAreThere() throws {
    for encoded in [Recipe.EncodedModels.one, .two, .all] {
      var recipe = Recipe()
      recipe.encodedModels = encoded
      let sae = try UniversalSAE(concepts: 8, k: 2, recipe: recipe, seed: 5)
      try sae.initialize([("a", 3), ("b", 4), ("c", 5), ("d", 6)])
      var firsts = Set<Int>()
      for step in 0..<60 {
        try sae.setStepCount(step)
        let drawn = try sae.encoders(of: [1, 3])
        #expect(Set(drawn).isSubset(of: [1, 3]) && drawn.count == (encoded == .one ? 1 : 2))
        #expect(try sae.encoders(of: [0, 1, 2, 3]) == sae.encoders() && sae.encoders(of: [2]) == [2])
        firsts.insert(drawn[0])
      }
      #expect(firsts == [1, 3])
      #expect(throws: USAEError.self) { try sae.encoders(first: 0, of: [1, 3]) }
      #expect(throws: USAEError.self) { try sae.encoders(of: [4]) }
      #expect(throws: USAEError.self) { try sae.encoders(of: []) }
    }
  }

  @Test func batchesThatCannotBeUsedChangeNothing() throws {
    let sae = try Self.trained(Recipe())
    let before = try (0..<3).map { try Self.state(sae, $0) }
    let data = try Self.data(50)
    #expect(throws: USAEError.self) { try Self.step(sae, ["a": data[0].value], encoder: "b") }
    #expect(throws: USAEError.self) { try Self.step(sae, ["b": data[0].value]) }
    #expect(throws: USAEError.self) { try Self.step(sae, ["z": data[0].value]) }
    #expect(throws: USAEError.self) { try sae.partialFit(["a": data[0].value]) }
    #expect(throws: USAEError.self) { try sae.partialFit(data, absent: ["b"]) }
    #expect(throws: USAEError.self) { try sae.partialFit(data, absent: ["z"]) }
    #expect(throws: USAEError.self) { try sae.step([nil, nil, nil], rows: .all, encoder: nil, work: sae.makeWork()) }
    #expect(throws: USAEError.self) { try sae.evaluate(["a": data[0].value]) }
    #expect(try (0..<3).map { try Self.state(sae, $0) } == before && sae.stepCount == 6)
  }

  // MARK: Merging

  @Test func aConceptStartsAgainAtWhatTheCodePredictsWhereItsModelIsAbsent() throws {
    var recipe = Recipe()
    (recipe.mergeCosine, recipe.mergeEvery, recipe.warmupSteps, recipe.prefixes) = (0.9, 7, 0, [])
    let sae = try Self.trained(recipe)
    for model in 0..<3 {  // 4 and 9 are duplicates
      let width = sae.widths[model], id = try #require(TensorID(8))
      var rows = try Self.floats(sae, model, 8)
      for c in 0..<width { rows[9 * width + c] = rows[4 * width + c] }
      try rows.withUnsafeBytes { try sae.writeTensor(model: model, id, from: $0.baseAddress!, count: rows.count) }
    }
    let data = try Self.data(40, seed: 5)
    var predictions: [[Float]] = []
    let codes = try sae.encode(data[1].value, model: "b")
    let mean = try Self.floats(sae, 0, 0), scale = try Self.floats(sae, 0, 1)
    let decoded = try sae.decode(codes, model: "a")
    for t in 0..<40 { predictions.append((0..<19).map { (decoded[t, $0] - mean[$0]) / scale[$0] }) }
    #expect(try Self.step(sae, ["b": data[1].value]).step == 7)
    let rows = try Self.floats(sae, 0, 8)
    let freed = [4, 9].map { Array(rows[$0 * 19..<($0 + 1) * 19]) }
    #expect(predictions.contains { p in freed.contains { Self.cosine($0, p) > 0.9999 } })
  }

  static func floats(_ sae: UniversalSAE, _ model: Int, _ number: Int32) throws -> [Float] {
    try #require(try state(sae, model)[number]).map { Float(bitPattern: $0) }
  }

  static func cosine(_ a: [Float], _ b: [Float]) -> Float {
    func dot(_ a: [Float], _ b: [Float]) -> Float { zip(a, b).reduce(0) { $0 + $1.0 * $1.1 } }
    return dot(a, b) / (dot(a, a) * dot(b, b)).squareRoot()
  }

  // MARK: Shared steps

  @Test(arguments: recipes.keys.sorted(), [[1], [0, 1]])
  func processesShareAStepOfTheModelsThatAreThere(_ name: String, _ present: [Int]) throws {
    var recipe = try #require(Self.recipes[name])
    recipe.prefixes = []
    (recipe.mergeCosine, recipe.mergeEvery) = (0.05, 7)
    let saes = try (0..<3).map { _ in try Self.trained(recipe) }
    let single = saes[2]
    let whole = try Self.data(200, seed: 99)
    let parts = try [0..<150, 150..<200].map { rows in
      let part: KeyValuePairs = [
        "a": try whole[0].value.slice(rows), "b": try whole[1].value.slice(rows), "c": try whole[2].value.slice(rows),
      ]
      return Self.only(present, of: part)
    }
    let report = try Self.step(single, Self.only(present, of: whole), encoder: "b")
    let openings = try zip(saes, parts).map { try Self.begin($0, $1, present, encoder: 1) }
    #expect(Set(openings.map(\.present)).count == 1)
    let outcome = try SharedStepTests.finish(Array(saes[..<2]), begun: openings)
    #expect(outcome.exchanges.allSatisfy { $0.model < 0 || present.contains($0.model) })
    #expect(outcome.reports.allSatisfy { $0.encoders == report.encoders && $0.step == 7 })
    #expect(abs(outcome.reports[0].loss - report.loss) < 1e-5 * report.loss)
    for model in 0..<3 {
      #expect(try Self.state(saes[0], model) == Self.state(saes[1], model), "all have the same bits")
      for number in Int32(2)...8 where try Self.state(single, model)[number] != nil {
        let (own, other) = (try Self.floats(saes[0], model, number), try Self.floats(single, model, number))
        // Adam's first steps move by about the rate whatever the gradient, where that is rounding.
        #expect(SharedStepTests.distance(own, other) < 5e-3, "\(model) \(number)")
      }
    }
  }

  static func begin(_ sae: UniversalSAE, _ part: KeyValuePairs<String, Matrix>, _ present: [Int], encoder: Int?) throws
    -> UniversalSAE.SharedOpening
  {
    try sae.withActivations(part) { own throws(USAEError) in
      var batch: [Activations?] = [nil, nil, nil]
      for (place, model) in present.enumerated() { batch[model] = own[place] }
      return try sae.beginShared(batch, rows: .all, encoder: encoder, work: sae.makeWork())
    }
  }

  @Test func processesTellWhichModelsTheirBatchesHave() throws {
    let data = try Self.data(50)
    let hashes = try [[0], [1], [2], [0, 1], [1, 2], [0, 1, 2]].map { present in
      try Self.begin(try Self.trained(Recipe(), steps: 1), Self.only(present, of: data), present, encoder: nil).present
    }
    #expect(Set(hashes).count == hashes.count)
  }

  // MARK: The beginning

  static func initialized(
    _ recipe: Recipe, _ parts: [(present: [Int], rows: Range<Int>)], of data: KeyValuePairs<String, Matrix>
  ) throws -> UniversalSAE {
    let sae = try UniversalSAE(concepts: 70, k: 5, recipe: recipe, seed: 3, threads: 2)
    func take(_ rest: ArraySlice<(present: [Int], rows: Range<Int>)>, _ taken: [[Activations?]]) throws {
      guard let next = rest.first else { return try sae.initialize(names, from: taken, work: sae.makeWork()) }
      let part: KeyValuePairs = [
        "a": try data[0].value.slice(next.rows), "b": try data[1].value.slice(next.rows),
        "c": try data[2].value.slice(next.rows),
      ]
      var failure: (any Error)?
      try sae.withActivations(part) { own throws(USAEError) in
        let batch = own.indices.map { next.present.contains($0) ? own[$0] : nil }
        do { try take(rest.dropFirst(), taken + [batch]) } catch { failure = error }
      }
      if let failure { throw failure }
    }
    try take(parts[...], [])
    return sae
  }

  @Test(arguments: ["default", "published"])
  func statisticsAreThoseOfAllRowsOfAModel(_ name: String) throws {
    let (recipe, data) = (UniversalSAETests.recipe(name), try Self.data(400))
    let whole = try Self.initialized(recipe, [([0, 1, 2], 0..<400)], of: data)
    let halves = try Self.initialized(recipe, [([0, 1, 2], 0..<130), ([0, 1, 2], 130..<400)], of: data)
    for model in 0..<3 { #expect(try Self.state(whole, model) == Self.state(halves, model), "parts alike are one") }
    let weak = try Self.initialized(
      recipe, [([0, 1, 2], 0..<40), ([0], 40..<400), ([1], 40..<400), ([2], 40..<300)], of: data)
    for model in 0..<3 {
      for number in [Int32(0), 1, 402] {
        let (own, other) = (try Self.state(weak, model)[number], try Self.state(whole, model)[number])
        #expect((own == other) == (model < 2), "\(number) of \(model)")
      }
    }
  }

  /// The row of the data that a dictionary row points to.
  static func source(of sae: UniversalSAE, _ model: Int, _ concept: Int, _ data: KeyValuePairs<String, Matrix>) throws -> Int? {
    let (width, rows) = (sae.widths[model], try floats(sae, model, 8))
    let mean = try floats(sae, model, 0), scale = try floats(sae, model, 1)
    let row = Array(rows[concept * width..<(concept + 1) * width])
    return (0..<data[model].value.rows).first { t in
      cosine(row, (0..<width).map { (data[model].value[t, $0] - mean[$0]) / scale[$0] }) > 0.9999
    }
  }

  /// Parts of as many rows, which happen to be in one order, are not drawn alike: else chance would align the models.
  @Test func rowsThatAreNotAlignedStartConceptsOfTheirOwn() throws {
    let data = try Self.data(200)
    let sae = try Self.initialized(Recipe(), [([0], 0..<200), ([1], 0..<200), ([2], 0..<200)], of: data)
    let sources = try (0..<70).map { concept in try (0..<3).map { try Self.source(of: sae, $0, concept, data) } }
    #expect(sources.allSatisfy { $0.allSatisfy { $0 != nil } })
    #expect(sources.count { $0[0] == $0[1] || $0[1] == $0[2] || $0[0] == $0[2] } < 10)
  }

  @Test func conceptsStartAtAlignedRowsAndThenAtRowsOfEachModel() throws {
    let data = try Self.data(400)
    var recipe = Recipe()
    recipe.outlierMultiple = 0
    let weak = try Self.initialized(
      recipe, [([2], 0..<30), ([0], 40..<60), ([0, 1, 2], 60..<70), ([0, 1], 70..<90)], of: data)
    func source(_ model: Int, _ concept: Int) throws -> Int? { try Self.source(of: weak, model, concept, data) }
    for concept in 0..<10 {
      let row = try #require(try source(0, concept))
      #expect(try (60..<70).contains(row) && source(1, concept) == row && source(2, concept) == row)
    }
    for concept in 10..<30 {
      let row = try #require(try source(0, concept))
      #expect(try (70..<90).contains(row) && source(1, concept) == row)
    }
    for concept in 10..<40 { #expect(try (0..<30).contains(#require(try source(2, concept)))) }
    for concept in 30..<50 { #expect(try (40..<60).contains(#require(try source(0, concept)))) }
    #expect(try source(0, 55) == nil && source(1, 35) == nil && source(2, 45) == nil, "random where there are no rows")
  }
}
