import Synchronization

extension UniversalSAE {
  /// Decodes codes [rows, slots] to model `index`, in its own units: `out` [rows, width]. Slots with index -1 are skipped.
  ///
  /// - Parameter width: columns of `out`. It must be the model's width, which is checked under the lock, since models can
  ///   change meanwhile.
  package func decode(
    model index: Int, rows: Int, slots: Int, values: UnsafePointer<Float>, indices: UnsafePointer<Int32>,
    width: Int, out: UnsafeMutablePointer<Float>, work: InterruptibleWork
  ) throws(USAEError) {
    try lock.reading(poll: work.poll) { () throws(USAEError) in
      let model = try model(index, for: "decode")
      try Self.require("n", rows, in: 0...Activations.mostRows)
      try Self.require("slots", slots, in: 0...concepts)
      guard width == model.width else {
        throw .shapeMismatch(name: "out", expected: "\(model.width) columns as '\(model.name)' has", got: "\(width)")
      }
      try Self.checkOutput("out", rows: rows, columns: max(width, slots))
      try checkCodes(rows: rows, slots: slots, values, indices, work: work)
      let scratch = try makeScratch(work.threads, slots + paddedWidth(model.width))
      let compact = try CompactScratch(threads: work.threads, slots: slots, concepts: concepts)
      let changed = Atomic<Int>(-1)
      nonisolated(unsafe) let (values, indices, out) = (values, indices, out)
      let overflowed = Atomic<Int>(-1)
      try work.runBlocks(rows, of: 64) { _, range, worker in
        for t in range {
          let used = compact.gather(values + t * slots, indices + t * slots, slots, model.rowScales.base, worker: worker)
          guard let used else {
            changed.store(t, ordering: .relaxed)
            continue
          }
          let row = scratch[worker].base
          kernels.rows.weightedSum(
            model.dictionary.value.base, model.dictionary.value.stride, compact.indices[worker].base,
            compact.coefficients[worker].base, used, model.dictionary.value.stride, row)
          let result = out + t * model.width
          var bad: Float = 0  // of y - y: 0, or NaN from the first that is not finite
          for c in 0..<model.width {
            let y = row[c] * model.scale.base[c] + model.mean.base[c]
            bad += y - y
            result[c] = y
          }
          if model.doubles != nil { model.rescale(row, to: result) }
          if bad != 0 { overflowed.store(t, ordering: .relaxed) }
        }
      }
      let row = changed.load(ordering: .relaxed)
      guard row < 0 else {
        throw .invalidArgument(
          name: "codes", expected: "indices that stay as they are while they are decoded", got: "other ones in row \(row)",
          remedy: "decode a copy, or wait for the thread that changes them")
      }
      let large = overflowed.load(ordering: .relaxed)
      guard large < 0 else { throw .decodedTooLarge(model: model.name, row: large) }
    }
  }

  /// Checks indices and values, since callers may have made these codes themselves.
  private func checkCodes(
    rows: Int, slots: Int, _ values: UnsafePointer<Float>, _ indices: UnsafePointer<Int32>, work: InterruptibleWork
  ) throws(USAEError) {
    let concepts = Int32(self.concepts)
    let bad = Atomic<Int>(-1)
    nonisolated(unsafe) let (values, indices) = (values, indices)
    try work.runBlocks(rows, of: 1024) { _, range, _ in
      for entry in range.lowerBound * slots..<range.upperBound * slots {
        let valid = indices[entry] >= -1 && indices[entry] < concepts && values[entry].isFinite
        if !valid { bad.store(entry, ordering: .relaxed) }
      }
    }
    let entry = bad.load(ordering: .relaxed)
    guard entry >= 0 else { return }
    throw .invalidArgument(
      name: "codes", expected: "indices from -1 to \(concepts - 1) and finite values",
      got: "index \(indices[entry]), value \(values[entry]) in row \(entry / slots)")
  }

  /// Activations of `model` that the codes stand for, in the model's own units.
  public func decode(_ codes: Codes, model name: String) throws(USAEError) -> Matrix {
    let index = try index(of: name)
    guard codes.concepts == concepts else {
      throw .shapeMismatch(name: "codes", expected: "\(concepts) concepts", got: "\(codes.concepts)")
    }
    let width = widths[index]
    var out = Matrix(rows: codes.rows, columns: width)
    let work = makeWork()
    try out.withMutableValues { base throws(USAEError) in
      try decode(
        model: index, rows: codes.rows, slots: codes.k, values: codes.values, indices: codes.indices, width: width,
        out: base, work: work)
    }
    return out
  }

  /// Activations of `source`, encoded by its encoder and decoded by the dictionary of `target`.
  public func reconstruct(_ x: Matrix, source: String, target: String) throws(USAEError) -> Matrix {
    try decode(encode(x, model: source), model: target)
  }
}

/// The used slots of a token without gaps: coefficients of dictionary rows, and their concepts.
private struct CompactScratch {
  let coefficients: [FloatBuffer]
  private(set) var indices: [AlignedBuffer<Int32>] = []
  private let inDictionary: UInt32

  init(threads: Int, slots: Int, concepts: Int) throws(USAEError) {
    inDictionary = UInt32(concepts)
    coefficients = try makeScratch(threads, slots)
    for _ in 0..<threads { indices.append(try AlignedBuffer<Int32>(slots)) }
  }

  /// Returns how many there are; nil if an index is out of range, since another thread may have changed it after the check.
  func gather(
    _ values: UnsafePointer<Float>, _ concepts: UnsafePointer<Int32>, _ slots: Int, _ norms: UnsafePointer<Float>,
    worker: Int
  ) -> Int? {
    var used = 0
    for q in 0..<slots {
      let concept = concepts[q]
      if concept < 0 { continue }
      guard UInt32(concept) < inDictionary else { return nil }
      coefficients[worker].base[used] = values[q] * norms[Int(concept)]
      indices[worker].base[used] = concept
      used += 1
    }
    return used
  }
}
