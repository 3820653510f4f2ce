import Testing

@testable import USAE

@Suite struct DuplicateMergingTests {
  static let work = InterruptibleWork(threads: 2)

  /// Two models of eight concepts with rows along the axes; concepts 2 and 5 are duplicates, of which model
  /// a uses 5 and model b uses 2.
  static func models() throws -> [ModelParameters] {
    var models: [ModelParameters] = []
    for (name, width, used) in [("a", 9, 5), ("b", 12, 2)] {
      let model = try ModelParameters(name: name, width: width, concepts: 8, batchNorm: name == "a", batchTopK: false)
      for c in 0..<8 {
        model.dictionary.value.row(c)[c == 5 ? 2 : c] = 2
        model.encoderWeight.value.row(c)[c == 5 ? 2 : c] = Float(c + 1)
        model.encoderWeight.firstMoment.row(c)[0] = Float(c)
        model.encoderBias.value.base[c] = Float(c)
        model.silentTokens.base[c] = c == used || c == 0 ? 0 : 4000
      }
      model.updateRowScales(RowNorm(kind: .unit, epsilon: 0), work: work)
      models.append(model)
    }
    return models
  }

  static func merging(_ models: [ModelParameters], cosine: Double = 0.8) -> DuplicateMerging {
    var recipe = Recipe()
    recipe.mergeCosine = cosine
    return DuplicateMerging(models: models, recipe: recipe, seed: 3)
  }

  @Test func onlyWhatIsAlikeInEveryModelIsADuplicate() throws {
    let models = try Self.models()
    // Alike in one model only.
    models[0].dictionary.value.row(7).update(from: models[0].dictionary.value.row(6), count: 16)
    let pairs = try Self.merging(models).find(work: Self.work)
    #expect(pairs.map { [$0.first, $0.second] } == [[2, 5]])
    #expect(pairs.first?.cosine == 1)
  }

  @Test(arguments: [Float(0.001), 0.3, 50]) func rowsOfAnyNormAreComparedByTheirDirections(_ length: Float) throws {
    let models = try Self.models()
    var recipe = Recipe()
    (recipe.mergeCosine, recipe.dictionaryNorm) = (0.8, .bounded)
    for model in models {
      for c in 0..<model.dictionary.value.stride { model.dictionary.value.row(5)[c] *= length }
      model.updateRowScales(recipe.rowNorm, work: Self.work)
    }
    let pairs = try DuplicateMerging(models: models, recipe: recipe, seed: 3).find(work: Self.work)
    #expect(pairs.map { [$0.first, $0.second] } == [[2, 5]])
    #expect(abs((pairs.first?.cosine ?? 0) - 1) < 1e-4)
  }

  @Test func aConceptIsInOnePairAtMostAndTheClosestComeFirst() throws {
    let models = try Self.models()
    for model in models {
      model.dictionary.value.row(6).update(from: model.dictionary.value.row(2), count: 16)
      model.dictionary.value.row(6)[8] = 0.5
      model.updateRowScales(RowNorm(kind: .unit, epsilon: 0), work: Self.work)
    }
    #expect(try Self.merging(models).find(work: Self.work).map { [$0.first, $0.second] } == [[2, 5]])
    #expect(try Self.merging(models, cosine: 1).find(work: Self.work).isEmpty)
  }

  @Test func theKeptIndexTakesWhatEachModelUses() throws {
    let models = try Self.models()
    let tokens = try models.map { model in
      let matrix = try PaddedMatrix(rows: 4, columns: model.width)
      for t in 0..<4 { matrix.row(t)[7] = 3; matrix.row(t)[8] = 4 }
      return matrix
    }
    let merging = Self.merging(models)
    merging.merge(try merging.find(work: Self.work), tokens: tokens)
    // One vote each: the lower index stays.
    #expect(models[0].encoderWeight.value.row(2)[2] == 6, "model a's encoder of 5")
    #expect(models[0].encoderWeight.firstMoment.row(2)[0] == 5)
    #expect(models[0].encoderBias.value.base[2] == 5)
    #expect(models[1].encoderWeight.value.row(2)[2] == 3, "model b's own")
    for (model, norm) in zip(models, [Float(6), 3]) {
      #expect(model.dictionary.value.row(2)[2] == 2)
      let (dictionary, encoder) = (model.dictionary.value.row(5), model.encoderWeight.value.row(5))
      #expect(abs(dictionary[7] - 1.2) < 1e-6 && abs(dictionary[8] - 1.6) < 1e-6 && dictionary[2] == 0)
      #expect(abs(encoder[7] - 0.3 * norm) < 1e-6 && abs(encoder[8] - 0.4 * norm) < 1e-6)
      #expect(model.encoderWeight.firstMoment.row(5)[0] == 0 && model.encoderBias.value.base[5] == 0)
      #expect(abs(model.rowScales.base[5] - 0.5) < 1e-6 && model.silentTokens.base[5] == 0)
    }
  }

  @Test func aTokenWithoutDirectionLeavesDuplicatesAlone() throws {
    let models = try Self.models()
    let tokens = try models.map { try PaddedMatrix(rows: 2, columns: $0.width) }
    let merging = Self.merging(models)
    merging.merge(try merging.find(work: Self.work), tokens: tokens)
    #expect(models[0].encoderWeight.value.row(2)[2] == 3 && models[0].dictionary.value.row(5)[2] == 2)
  }

  /// Rows of tokens that are all alike give dictionaries that are: pairs would be as many as the square of the concepts.
  @Test func manyEqualConceptsGiveFewCandidatesAndAreMergedInPairs() throws {
    let concepts = 1500, equal = 1200
    var models: [ModelParameters] = []
    for (number, width) in [16, 24].enumerated() {
      let model = try ModelParameters(name: "\(number)", width: width, concepts: concepts, batchNorm: false, batchTopK: false)
      for c in 0..<concepts {
        let random = CounterRandom(seed: UInt64(number), stream: .dictionary, part: c < equal ? 0 : c)
        random.fillNormals(UnsafeMutableBufferPointer(start: model.dictionary.value.row(c), count: width), from: 0)
      }
      model.updateRowScales(RowNorm(kind: .unit, epsilon: 0), work: Self.work)
      models.append(model)
    }
    let merging = Self.merging(models, cosine: 0.95)
    let pairs = try merging.find(work: Self.work)
    #expect(pairs.count == equal / 2)
    #expect(pairs.allSatisfy { $0.first < $0.second && $0.second < equal && $0.cosine > 0.999 })
    #expect(Set(pairs.flatMap { [$0.first, $0.second] }).count == equal, "a concept is in one pair at most")
    let alone = try merging.find(work: InterruptibleWork(threads: 1))
    #expect(pairs.map { [$0.first, $0.second] } == alone.map { [$0.first, $0.second] }, "threads do not matter")
    let kept = try merging.candidates(work: Self.work)
    #expect(kept.count <= concepts * DuplicateMerging.mostPairs && kept.count >= equal)
  }

  @Test func mergesAreDueFromTheWarmUpUntilShortlyBeforeTheEnd() {
    var recipe = Recipe()
    recipe.warmupSteps = 100
    recipe.totalSteps = 1000
    recipe.mergeCosine = 0.8
    func due(_ recipe: Recipe) -> [Int] {
      (1...1000).filter { DuplicateMerging(models: [], recipe: recipe, seed: 0).isDue(after: $0) }
    }
    #expect(due(recipe) == Array(stride(from: 150, through: 950, by: 50)))
    recipe.totalSteps = 0
    #expect(due(recipe).last == 1000)
    recipe.mergeCosine = 0
    #expect(due(recipe).isEmpty)
  }
}
