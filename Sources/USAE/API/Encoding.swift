import Synchronization

/// Encodes rows of one model in chunks, so that memory does not grow with their number.
struct Encoding {
  let model: ModelParameters
  let activations: Activations
  let encoder: PackedEncoder
  let work: InterruptibleWork

  static let chunkRows = 4096

  /// Calls `consume` with the standardised rows of every chunk and the number of its first row.
  private func forEachChunk(
    _ consume: (_ chunk: PaddedMatrix, _ count: Int, _ first: Int) throws(USAEError) -> Void
  ) throws(USAEError) {
    let rows = activations.rows
    let chunk = try PaddedMatrix(rows: min(rows, Self.chunkRows), columns: model.width)
    let scratch = try makeScratch(work.threads, model.width)
    for first in stride(from: 0, to: rows, by: Self.chunkRows) {
      let count = min(rows - first, Self.chunkRows)
      try Ingestion(model: model, activations: activations, lengths: .encodable).copy(
        first..<first + count, of: .all, to: chunk, scratch: scratch, work: work)
      try consume(chunk, count, first)
    }
  }

  /// Calls `consume` with the keys of every row's code, at most k, from any thread.
  func forEachRow(k: Int, _ consume: (_ row: Int, _ keys: UnsafeBufferPointer<UInt64>) -> Void) throws(USAEError) {
    let scratch = encoder.makeScratch(work.threads)
    try forEachChunk { chunk, count, first throws(USAEError) in
      try encoder.forEachTile(of: chunk, 0..<count, k: k, scratch: scratch, work: work) { tile in
        for row in tile.rows { consume(first + row, tile[row]) }
      }
    }
  }

  /// Calls `consume` with all pre-activations of every row, from any thread.
  func forEachDenseRow(_ consume: (_ row: Int, _ preactivations: UnsafePointer<Float>) -> Void) throws(USAEError) {
    let scratch = try (0..<work.threads).map { _ throws(USAEError) in
      try DenseTile.Scratch(columns: encoder.columns, depth: encoder.depth)
    }
    try forEachChunk { chunk, count, first throws(USAEError) in
      try encoder.forEachDenseTile(of: chunk, 0..<count, scratch: scratch, work: work) { tile in
        for row in tile.rows { consume(first + row, tile[row]) }
      }
    }
  }
}

extension UniversalSAE {
  /// Encodes every row of `x` with model `index` into `values` and `indices`, [x.rows, slots].
  package func encode(
    _ x: Activations, model index: Int, values: UnsafeMutablePointer<Float>, indices: UnsafeMutablePointer<Int32>,
    work: InterruptibleWork
  ) throws(USAEError) {
    try lock.reading(poll: work.poll) { () throws(USAEError) in
      let encoding = try encoding(x, index, "encode", work)
      let slots = self.slots
      try Self.checkOutput("values", rows: x.rows, columns: slots)
      nonisolated(unsafe) let (values, indices) = (values, indices)
      let infinite = Atomic<Int>(-1)
      try encoding.forEachRow(k: slots) { row, keys in
        if keys.count > 0, value(ofKey: keys[0]) == .infinity { infinite.store(row, ordering: .relaxed) }
        for q in 0..<slots {
          let used = q < keys.count
          values[row * slots + q] = used ? value(ofKey: keys[q]) : 0
          indices[row * slots + q] = used ? column(ofKey: keys[q]) : -1
        }
      }
      let row = infinite.load(ordering: .relaxed)
      if row >= 0 { throw Ingestion.tooLarge(x, row: row) }
    }
  }

  /// Pre-activations, which ReLU and the selection would be given: `out` [x.rows, concepts].
  package func preactivations(_ x: Activations, model index: Int, out: UnsafeMutablePointer<Float>, work: InterruptibleWork)
    throws(USAEError)
  {
    try lock.reading(poll: work.poll) { () throws(USAEError) in
      let encoding = try encoding(x, index, "preactivations", work)
      let concepts = self.concepts
      try Self.checkOutput("out", rows: x.rows, columns: concepts)
      nonisolated(unsafe) let out = out
      try encoding.forEachDenseRow { row, preactivations in
        (out + row * concepts).update(from: preactivations, count: concepts)
      }
    }
  }

  private func encoding(
    _ x: Activations, _ index: Int, _ operation: String, _ work: InterruptibleWork
  ) throws(USAEError) -> Encoding {
    let model = try model(index, for: operation)
    try Self.checkWidth(x, of: model)
    return Encoding(model: model, activations: x, encoder: try state.inference.encoder(of: model, work: work), work: work)
  }

  /// Codes of every row of `x`, which are activations of `model`.
  public func encode(_ x: Matrix, model name: String) throws(USAEError) -> Codes {
    let index = try index(of: name)
    let work = makeWork()
    var codes = Codes(rows: x.rows, k: slots, concepts: concepts)
    try x.withActivations(name: name) { activations throws(USAEError) in
      try codes.values.withUnsafeMutableBufferPointer { values throws(USAEError) in
        try codes.indices.withUnsafeMutableBufferPointer { indices throws(USAEError) in
          guard let values = values.baseAddress, let indices = indices.baseAddress else { return }
          try encode(activations, model: index, values: values, indices: indices, work: work)
        }
      }
    }
    return codes
  }
}
