/// One model's rows in all parts of the data, numbered part after part.
struct ModelRows {
  private let parts: [Activations]
  /// The number of each part's first row.
  private let starts: [Int]
  let rows: Int

  /// - Parameter parts: at least one, all with the same columns.
  init(_ parts: [Activations]) {
    self.parts = parts
    var starts: [Int] = []
    var rows = 0
    for part in parts {
      starts.append(rows)
      rows += part.rows
    }
    (self.starts, self.rows) = (starts, rows)
  }

  var name: String { parts[0].name }
  var columns: Int { parts[0].columns }
  /// Whether a part has elements that float32 may not tell apart.
  var isFloat64: Bool { parts.contains(where: \.isFloat64) }

  /// The number of a row's part.
  @inline(__always)
  private func part(of row: Int) -> Int {
    var number = parts.count &- 1
    while starts[number] > row { number &-= 1 }
    return number
  }

  /// As of `Activations`.
  func standardize(
    row: Int, mean: UnsafePointer<Float>, inverseScale: UnsafePointer<Float>, scratch: UnsafeMutablePointer<Float>,
    out: UnsafeMutablePointer<Float>
  ) -> Bool {
    let number = part(of: row)
    return parts[number].standardize(
      row: row &- starts[number], mean: mean, inverseScale: inverseScale, scratch: scratch, out: out)
  }

  /// The elements of a row as they are.
  func read(row: Int, to out: UnsafeMutablePointer<Double>) {
    let number = part(of: row)
    parts[number].read(row: row &- starts[number], to: out)
  }

  /// Whether two rows hold the same numbers.
  func equal(_ row: Int, _ other: Int) -> Bool {
    let (a, b) = (part(of: row), part(of: other))
    return (0..<columns).allSatisfy {
      parts[a].element(row: row &- starts[a], column: $0) == parts[b].element(row: other &- starts[b], column: $0)
    }
  }

  /// The error for a row that holds a number that is not finite as float32.
  func notFinite(row: Int) -> USAEError {
    let number = part(of: row)
    let (part, row) = (parts[number], row - starts[number])
    return .notFinite(model: part.name, row: part.number(ofRow: row), column: part.firstNotFinite(row: row) ?? 0)
  }

  /// Copies rows, standardised, into the first rows of `out`. They may be in any order.
  func copy(
    _ chosen: [Int], of model: ModelParameters, lengths: TokenLengths, to out: PaddedMatrix, scratch: [FloatBuffer],
    work: InterruptibleWork
  ) throws(USAEError) {
    for (number, part) in parts.enumerated() {
      let own = starts[number]..<starts[number] + part.rows
      let places = chosen.indices.filter { own.contains(chosen[$0]) }
      let rows = places.map { Int64(chosen[$0] - own.lowerBound) }
      let ingestion = Ingestion(model: model, activations: part, lengths: lengths)
      if rows.isEmpty { continue }
      try rows.withUnsafeBufferPointer { rows throws(USAEError) in
        if rows.count == chosen.count {
          return try ingestion.copy(0..<rows.count, of: .some(rows), to: out, scratch: scratch, work: work)
        }
        let copy = try PaddedMatrix(rows: rows.count, columns: out.columns)
        try ingestion.copy(0..<rows.count, of: .some(rows), to: copy, scratch: scratch, work: work)
        for (row, place) in places.enumerated() { out.row(place).update(from: copy.row(row), count: out.stride) }
      }
    }
  }
}

/// Rows that are aligned between the same models: those of all parts that have these models.
struct AlignedRows {
  /// Which models they are of, ascending.
  let present: [Int]
  /// By model; nil for the others.
  let models: [ModelRows?]
  let rows: Int

  /// Groups the parts of the data by the models that they have: those with more models first, of equally many the earlier.
  ///
  /// - Parameter parts: activations by part and model; nil where a part does not have a model.
  static func groups(_ parts: [[Activations?]]) -> [AlignedRows] {
    var orders: [[Int]] = []
    for part in parts {
      let present = part.present
      if !orders.contains(present) { orders.append(present) }
    }
    let sorted = orders.enumerated().sorted { ($1.element.count, $0.offset) < ($0.element.count, $1.offset) }
    return sorted.map { _, present in
      let own = parts.filter { $0.present == present }
      let models = own[0].indices.map { j in present.contains(j) ? ModelRows(own.compactMap { $0[j] }) : nil }
      return AlignedRows(present: present, models: models, rows: models[present[0]]?.rows ?? 0)
    }
  }
}
