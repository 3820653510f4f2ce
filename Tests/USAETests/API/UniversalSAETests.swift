import Testing

@testable import USAE

/// The promises of the public class, as a Swift caller sees them. python/tests compares gradients with PyTorch's.
@Suite struct UniversalSAETests {
  static func recipe(_ name: String) -> Recipe {
    var recipe = name == "published" ? Recipe.published(totalSteps: 50, warmupSteps: 5) : Recipe()
    if name == "dead" { recipe.deadTokens = 200 }
    if name == "batchtopk" { (recipe.selection, recipe.deadTokens) = (.batchTopK, 200) }
    if name == "prefixes" { (recipe.prefixes, recipe.prefixLoss) = ([0.1, 0.4, 1], .mean) }
    return recipe
  }

  static func data(_ rows: Int, seed: UInt64 = 1) throws -> KeyValuePairs<String, Matrix> {
    var random = TestRandom(seed)
    return ["a": try random.matrix(rows, 19), "b": try random.matrix(rows, 33)]
  }

  static func parameters(_ sae: UniversalSAE) throws -> [[Float]] {
    var all: [[Float]] = []
    for model in sae.modelNames.indices {
      for number in Int32(0)...10 {
        guard let id = TensorID(number), let shape = try? sae.tensorShape(model: model, id) else { continue }
        var values = [Float](repeating: 0, count: shape.rows * max(1, shape.columns))
        try values.withUnsafeMutableBytes { bytes throws in
          try sae.readTensor(model: model, id, to: bytes.baseAddress!, count: shape.rows * max(1, shape.columns))
        }
        all.append(values)
      }
    }
    return all
  }

  @Test(arguments: ["default", "dead", "published", "prefixes", "batchtopk"])
  func threadsDoNotChangeABit(recipe name: String) throws {
    var results: [[[Float]]] = []
    for threads in [1, 2, 4] {
      let sae = try UniversalSAE(concepts: 70, k: 5, recipe: Self.recipe(name), seed: 3, threads: threads)
      try sae.fit(try Self.data(700), steps: 12, batchSize: 300)
      results.append(try Self.parameters(sae))
    }
    #expect(results[0] == results[1])
    #expect(results[0] == results[2])
  }

  @Test func aTokensCodeIsTheSameInAnyBatch() throws {
    let data = try Self.data(500)
    let sae = try UniversalSAE(concepts: 70, k: 5)
    try sae.fit(data, steps: 5, batchSize: 256)
    let x = data[0].value
    let all = try sae.encode(x, model: "a")
    for range in [0..<1, 3..<4, 17..<100, 255..<500] {
      let part = try sae.encode(try x.slice(range), model: "a")
      #expect(part.values == Array(all.values[range.lowerBound * 5..<range.upperBound * 5]))
      #expect(part.indices == Array(all.indices[range.lowerBound * 5..<range.upperBound * 5]))
    }
  }

  @Test(arguments: ["default", "published", "prefixes", "batchtopk"])
  func trainingLowersTheLoss(recipe name: String) throws {
    var recipe = Self.recipe(name)
    recipe.learningRate = 1e-2
    let sae = try UniversalSAE(concepts: 70, k: 5, recipe: recipe)
    let reports = try sae.fit(try Self.data(600), steps: 50, batchSize: 300)
    let first = reports.prefix(5).map(\.loss).reduce(0, +)
    let last = reports.suffix(5).map(\.loss).reduce(0, +)
    #expect(last < 0.97 * first)
    #expect(reports.allSatisfy { $0.l0 <= 5 })
  }

  @Test func codesAreTheLargestPositivePreactivations() throws {
    let data = try Self.data(64)
    let sae = try UniversalSAE(concepts: 37, k: 6)
    try sae.fit(data, steps: 3, batchSize: 64)
    let x = data[1].value
    let codes = try sae.encode(x, model: "b")
    var pre = [Float](repeating: 0, count: 64 * 37)
    try x.withActivations(name: "b") { activations throws(USAEError) in
      try sae.preactivations(activations, model: 1, out: &pre, work: sae.makeWork())
    }
    for t in 0..<64 {
      let row = Array(pre[t * 37..<(t + 1) * 37])
      let expected = Reference.topK(row, k: 6)
      #expect(codes.active(t).map(\.concept) == expected)
      #expect(codes.active(t).map(\.value) == expected.map { row[$0] })
    }
  }

  @Test func predictingTheMeanScoresZeroAndCopyingScoresOne() throws {
    // Without an active concept, the reconstruction is the stored mean.
    let sae = try UniversalSAE(concepts: 8, k: 2)
    let data = try Self.data(400)
    var recipe = sae.recipe
    recipe.initialization = .tied
    let zero = try UniversalSAE(concepts: 8, k: 2, recipe: recipe)
    try data[0].value.withActivations(name: "a") { a throws(USAEError) in
      try data[1].value.withActivations(name: "b") { b throws(USAEError) in
        try zero.initialize(from: [a, b], work: zero.makeWork())
      }
    }
    var bias = [Float](repeating: -1e6, count: 8)
    for model in 0..<2 {
      try bias.withUnsafeMutableBytes { try zero.writeTensor(model: model, TensorID(3)!, from: $0.baseAddress!, count: 8) }
    }
    let evaluation = try zero.evaluate(data)
    for row in evaluation.r2 { for r2 in row { #expect(abs(r2) < 1e-5) } }
    #expect(evaluation.l0 == [0, 0])
  }

  @Test func mistakesAreErrorsAndChangeNothing() throws {
    #expect(throws: USAEError.self) { try UniversalSAE(concepts: 0, k: 1) }
    #expect(throws: USAEError.self) { try UniversalSAE(concepts: 8, k: 9) }
    #expect(throws: USAEError.self) { try UniversalSAE(concepts: 8, k: 0) }
    var wrong = Recipe()
    wrong.learningRate = .nan
    #expect(throws: USAEError.self) { try UniversalSAE(concepts: 8, k: 2, recipe: wrong) }

    let sae = try UniversalSAE(concepts: 16, k: 2)
    let data = try Self.data(50)
    #expect(throws: USAEError.notInitialized(operation: "encode")) {
      try data[0].value.withActivations(name: "a") { activations throws(USAEError) in
        var values = [Float](repeating: 0, count: 100)
        var indices = [Int32](repeating: 0, count: 100)
        try sae.encode(activations, model: 0, values: &values, indices: &indices, work: sae.makeWork())
      }
    }
    try sae.fit(data, steps: 3)
    let before = try Self.parameters(sae)
    let short = try Self.data(20)
    #expect(throws: USAEError.self) { try sae.partialFit(["a": data[0].value, "b": short[1].value]) }
    #expect(throws: USAEError.self) { try sae.partialFit(["a": data[0].value]) }
    #expect(throws: USAEError.self) { try sae.partialFit(["a": data[1].value, "b": data[1].value]) }
    #expect(throws: USAEError.self) { try sae.partialFit(["a": data[0].value, "c": data[1].value]) }
    var bad = data[1].value
    bad[7, 3] = .nan
    #expect(throws: USAEError.notFinite(model: "b", row: 7, column: 3)) {
      try sae.partialFit(["a": data[0].value, "b": bad])
    }
    #expect(try Self.parameters(sae) == before)
    #expect(sae.stepCount == 3)
  }

  @Test(arguments: [Float(1e-30), 1e-20, 1e17, 1e18, 1e25])
  func extremeSizesNeverSpoilTheParameters(factor: Float) throws {
    var recipe = Recipe()
    recipe.deadTokens = 1
    recipe.statisticsTokens = 1  // scale 1: the numbers stay as extreme as they are
    let sae = try UniversalSAE(concepts: 40, k: 3, recipe: recipe)
    let data = try Self.data(200)
    let left = try Matrix(rows: 200, columns: 19, values: data[0].value.values.map { $0 * factor })
    let right = try Matrix(rows: 200, columns: 33, values: data[1].value.values.map { $0 * factor })
    for _ in 0..<20 { _ = try? sae.partialFit(["a": left, "b": right]) }
    for tensor in try Self.parameters(sae) { #expect(tensor.allSatisfy { $0.isFinite }) }
  }

  @Test func anInterruptLeavesTheAutoencoderAsItWas() throws {
    let data = try Self.data(2000)
    // The calling thread asks before each piece that it does: one thread does all of them.
    let sae = try UniversalSAE(concepts: 70, k: 5, recipe: Self.recipe("published"), threads: 1)
    try sae.fit(data, steps: 2, batchSize: 500)
    let before = try Self.parameters(sae)
    for stopAt in [1, 5, 20, 60] {
      nonisolated(unsafe) var asked = 0
      let work = sae.makeWork {
        asked += 1
        return asked >= stopAt
      }
      #expect(throws: USAEError.interrupted) {
        try sae.withActivations(data) { activations throws(USAEError) in
          _ = try sae.step(activations, rows: .all, encoder: 0, work: work)
        }
      }
      #expect(try Self.parameters(sae) == before)
    }
  }
}
