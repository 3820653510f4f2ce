import Testing

@testable import USAE

/// Statistics and examples of codes, compared with loops over dense codes.
@Suite struct EvaluationTests {
  /// Codes with many equal values, and their dense equivalents, [model][token][concept].
  static func codes(models: Int, tokens: Int, concepts: Int, slots: Int, seed: UInt64) throws
    -> ([CodeBuffer], [[[Float]]])
  {
    var random = TestRandom(seed)
    var buffers: [CodeBuffer] = []
    var dense: [[[Float]]] = []
    for _ in 0..<models {
      let buffer = try CodeBuffer(rows: tokens, slots: slots)
      var rows: [[Float]] = []
      for t in 0..<tokens {
        let row = random.row(concepts).map { ($0 * 2).rounded(.down) / 2 }
        let chosen = Reference.topK(row, k: slots)
        var kept = [Float](repeating: 0, count: concepts)
        for (q, c) in chosen.enumerated() {
          (buffer.values(t)[q], buffer.indices(t)[q], kept[c]) = (row[c], Int32(c), row[c])
        }
        buffer.counts.base[t] = Int32(chosen.count)
        rows.append(kept)
      }
      buffers.append(buffer)
      dense.append(rows)
    }
    return (buffers, dense)
  }

  @Test(arguments: [(1, 1, 5), (2, 1, 30), (3, 2, 30), (3, 5, 17), (5, 3, 9)])
  func countsAndSumsAreThoseOfDenseCodes(models: Int, threads: Int, concepts: Int) throws {
    let (tokens, threshold) = (200, Float(1))
    let (codes, dense) = try Self.codes(
      models: models, tokens: tokens, concepts: concepts, slots: 4, seed: UInt64(models + threads))
    let statistics = try ConceptStatistics(
      models: models, concepts: concepts, slots: 4, threshold: threshold, work: InterruptibleWork(threads: threads))
    try statistics.add(codes, count: tokens)
    try statistics.add(codes, count: 50)  // the first fifty once more
    let rows = Array(0..<tokens) + Array(0..<50)
    for i in 0..<models {
      #expect(statistics.active[i] == Int64(rows.reduce(0) { $0 + dense[i][$1].filter { $0 > 0 }.count }))
      for c in 0..<concepts {
        // Values are multiples of a half: all sums and products are exact.
        #expect(statistics.sumsOfCodes[i][c] == rows.reduce(0) { $0 + Double(dense[i][$1][c]) })
        #expect(statistics.largestCodes[i][c] == rows.map { dense[i][$0][c] }.max())
        for j in 0..<models {
          let both = rows.filter { dense[i][$0][c] > threshold && dense[j][$0][c] > threshold }
          #expect(statistics.cofireCounts[i][j][c] == Int64(both.count))
          let product = rows.reduce(0) { $0 + Double(dense[i][$1][c]) * Double(dense[j][$1][c]) }
          #expect(statistics.codeProducts[i][j][c] == product)
        }
      }
    }
    for c in 0..<concepts {
      let firing = rows.map { t in dense.filter { $0[t][c] > threshold }.count }
      #expect(statistics.anyFireCounts[c] == Int64(firing.filter { $0 > 0 }.count))
      #expect(statistics.allFireCounts[c] == Int64(firing.filter { $0 == models }.count))
    }
  }

  @Test(arguments: [(1, 1, 1), (3, 1, 2), (4, 5, 1), (4, 20, 3), (300, 1, 2), (7, 200, 1)])
  func heapsKeepTheLargestOfEachConceptAndTheEarlierOfEquals(n: Int, tokensPerImage: Int, threads: Int) throws {
    let (tokens, concepts) = (200, 19)
    let (codes, dense) = try Self.codes(models: 1, tokens: tokens, concepts: concepts, slots: 4, seed: UInt64(n))
    let work = InterruptibleWork(threads: threads)
    let heaps = try ExampleHeaps(concepts: concepts, n: n, tokensPerImage: tokensPerImage, work: work)
    try heaps.add(codes[0], count: tokens)
    var values = [Float](repeating: -7, count: concepts * n)
    var rows = [Int64](repeating: -7, count: concepts * n)
    heaps.drain(values: &values, tokens: &rows)
    for c in 0..<concepts {
      var expected = (0..<tokens).filter { dense[0][$0][c] > 0 }
        .sorted { (dense[0][$0][c], -$0) > (dense[0][$1][c], -$1) }
      var images: Set<Int> = []
      if tokensPerImage > 1 { expected = expected.filter { images.insert($0 / tokensPerImage).inserted } }
      expected = Array(expected.prefix(n))
      let padding = [Int](repeating: -1, count: n - expected.count)
      #expect(rows[c * n..<(c + 1) * n].map { Int($0) } == expected + padding)
      #expect(Array(values[c * n..<(c + 1) * n]) == expected.map { dense[0][$0][c] } + padding.map { _ in 0 })
    }
  }

  @Test func anEvaluationHasTheSameBitsForAnyNumberOfThreads() throws {
    // More rows than the chunk of one thread, so that the chunks differ too.
    let data = try UniversalSAETests.data(5000)
    var results: [(Evaluation, TopExamples)] = []
    for threads in [1, 2, 5] {
      let sae = try UniversalSAE(concepts: 70, k: 5, seed: 3, threads: threads)
      try sae.fit(data, steps: 10, batchSize: 300)
      let examples = try sae.topExamples(data[0].value, model: "a", n: 5, tokensPerImage: 10)
      results.append((try sae.evaluate(data, threshold: 0.1), examples))
    }
    for result in results.dropFirst() { #expect(result == results[0]) }
  }

  @Test func chunksHaveWorkForAllThreadsAndNoMoreRowsThanThereAre() throws {
    for threads in [1, 2, 3, 16, 64, 1000] {
      for rows in [1, 63, 64, 65, 3000, 1_000_000] {
        let chunk = CodeStream.chunkRows(columns: 112, rows: rows, unit: 64, work: InterruptibleWork(threads: threads))
        #expect(chunk.isMultiple(of: 64) && chunk > 0 && chunk <= 8192 && chunk < rows + 64)
      }
    }
  }

  @Test func topExamplesOfMistakesAreErrors() throws {
    let data = try UniversalSAETests.data(60)
    let sae = try UniversalSAE(concepts: 16, k: 2)
    #expect(throws: USAEError.self) { try sae.topExamples(data[0].value, model: "a", n: 3) }
    try sae.fit(data, steps: 2)
    #expect(throws: USAEError.self) { try sae.topExamples(data[0].value, model: "c", n: 3) }
    #expect(throws: USAEError.self) { try sae.topExamples(data[1].value, model: "a", n: 3) }
    #expect(throws: USAEError.self) { try sae.topExamples(data[0].value, model: "a", n: 0) }
    #expect(throws: USAEError.self) { try sae.topExamples(data[0].value, model: "a", n: 3, tokensPerImage: 0) }
    #expect(throws: USAEError.self) { try sae.topExamples(data[0].value, model: "a", n: 3, tokensPerImage: 7) }
  }
}
