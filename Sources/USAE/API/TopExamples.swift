/// For each concept of one model the tokens that fire it most, [concepts, n], the strongest first.
public struct TopExamples: Sendable, Equatable {
  public let concepts, n: Int
  /// Row numbers; -1 where fewer than n tokens have the concept.
  public internal(set) var tokens: [Int64]
  /// The codes of these tokens; 0 where there is no token.
  public internal(set) var values: [Float]
}

extension UniversalSAE {
  /// Finds for each concept the `n` rows of `x` with the largest codes; ties go to the earlier row.
  ///
  /// One pass; memory does not grow with the rows. `values` and `tokens`, [concepts, n], are written at the end of it only.
  ///
  /// - Parameter tokensPerImage: consecutive rows that make an image, of which a concept takes at most one; with 1 it takes any
  ///   rows.
  package func topExamples(
    _ x: Activations, model index: Int, n: Int, tokensPerImage: Int, values: UnsafeMutablePointer<Float>,
    tokens: UnsafeMutablePointer<Int64>, work: InterruptibleWork
  ) throws(USAEError) {
    try Self.require("n", n, in: 1...1 << 32)
    try Self.require("tokens_per_image", tokensPerImage, in: 1...1 << 40)
    try lock.reading(poll: work.poll) { () throws(USAEError) in
      let model = try model(index, for: "top_examples")
      try Self.checkWidth(x, of: model)
      guard x.storedRows.isMultiple(of: tokensPerImage) else {
        throw .shapeMismatch(
          name: "activations of '\(model.name)'", expected: "whole images of \(tokensPerImage) rows",
          got: "\(x.storedRows) rows")
      }
      let encoder = try state.inference.encoder(of: model, work: work)
      let heaps = try ExampleHeaps(concepts: concepts, n: n, tokensPerImage: tokensPerImage, work: work)
      let chunkRows = CodeStream.chunkRows(columns: encoder.columns, rows: x.rows, unit: 1, work: work)
      let stream = try CodeStream(model, encoder: encoder, k: slots, chunkRows: chunkRows, work: work)
      for first in stride(from: 0, to: x.rows, by: chunkRows) {
        let range = first..<min(x.rows, first + chunkRows)
        try stream.encode(x, range)
        try heaps.add(stream.codes, count: range.count, rows: x.selection)
        work.progress?(range.upperBound)
      }
      heaps.drain(values: values, tokens: tokens)
    }
  }

  /// The `n` rows of `x`, activations of `model`, that fire each concept most.
  public func topExamples(_ x: Matrix, model name: String, n: Int, tokensPerImage: Int = 1) throws(USAEError)
    -> TopExamples
  {
    let index = try index(of: name)
    try Self.require("n", n, in: 1...1 << 32)
    let (entries, overflow) = concepts.multipliedReportingOverflow(by: n)
    guard !overflow else { throw .outOfMemory(bytes: Int.max) }
    let work = makeWork()
    var found = TopExamples(
      concepts: concepts, n: n, tokens: [Int64](repeating: -1, count: entries),
      values: [Float](repeating: 0, count: entries))
    try x.withActivations(name: name) { activations throws(USAEError) in
      try topExamples(
        activations, model: index, n: n, tokensPerImage: tokensPerImage, values: &found.values, tokens: &found.tokens,
        work: work)
    }
    return found
  }
}
