/// Which concepts fire, how often, how strongly, and in which models at once.
///
/// Each worker owns a range of concepts and walks all tokens in order, so that every sum is made by one thread in the order
/// of the tokens: the same bits for any number of threads and any size of chunks. Memory is about 16 bytes for each concept
/// and pair of models.
final class ConceptStatistics: @unchecked Sendable {
  let models, concepts: Int
  /// Unordered pairs of models, the equal ones included.
  private let pairs: Int
  private let threshold: Float
  private let work: InterruptibleWork
  private let shards: [Shard]
  /// Active slots by model.
  private(set) var active: [Int64]
  // By concept, so that all numbers that one concept of a token changes are adjacent: [concept][model], [concept][pair].
  private let sums: AlignedBuffer<Double>
  private let maxima: FloatBuffer
  private let products: AlignedBuffer<Double>
  private let cofired: AlignedBuffer<Int64>
  private let anyFired, allFired: AlignedBuffer<Int64>

  init(models: Int, concepts: Int, slots: Int, threshold: Float, work: InterruptibleWork) throws(USAEError) {
    self.models = models
    self.concepts = concepts
    self.threshold = threshold
    self.work = work
    pairs = models * (models + 1) / 2
    // At least eight concepts, so that workers write to different cache lines of counts.
    let size = max(8, (concepts + work.threads - 1) / work.threads)
    var shards: [Shard] = []
    for first in stride(from: 0, to: concepts, by: size) {
      shards.append(try Shard(first..<min(concepts, first + size), models: models, slots: slots))
    }
    self.shards = shards
    active = [Int64](repeating: 0, count: models)
    // At most 4096 models and 2^24 concepts: no product overflows.
    sums = try AlignedBuffer<Double>(concepts * models)
    maxima = try FloatBuffer(concepts * models)
    products = try AlignedBuffer<Double>(concepts * pairs)
    cofired = try AlignedBuffer<Int64>(concepts * pairs)
    anyFired = try AlignedBuffer<Int64>(concepts)
    allFired = try AlignedBuffer<Int64>(concepts)
  }

  /// A worker's range of concepts, and its scratch memory for one token.
  private final class Shard: @unchecked Sendable {
    let range: Range<Int>
    /// For each concept of the range, its place among the token's concepts, or -1.
    let places: AlignedBuffer<Int32>
    /// The token's concepts, [place], and their values in each model, [place][model], 0 where a model has no such concept.
    let touched: AlignedBuffer<Int32>
    let values: FloatBuffer

    init(_ range: Range<Int>, models: Int, slots: Int) throws(USAEError) {
      self.range = range
      places = try AlignedBuffer<Int32>(range.count)
      places.fill(-1)
      let most = min(range.count, models * slots)
      touched = try AlignedBuffer<Int32>(most)
      values = try FloatBuffer(most * models)
    }
  }

  /// Adds the first `count` tokens of the codes of all models.
  func add(_ codes: [CodeBuffer], count: Int) throws(USAEError) {
    try work.run(shards.count) { piece, _ in
      let shard = self.shards[piece]
      for t in 0..<count { self.add(self.gather(codes, token: t, shard), of: shard) }
    }
    for (i, codes) in codes.enumerated() {
      for t in 0..<count { active[i] += Int64(codes.count(t)) }
    }
  }

  /// Collects the token's concepts of the range; returns how many there are.
  @inline(__always)
  private func gather(_ codes: [CodeBuffer], token: Int, _ shard: Shard) -> Int {
    let (first, size) = (shard.range.lowerBound, UInt(bitPattern: shard.range.count))
    let (places, touched, values) = (shard.places.base, shard.touched.base, shard.values.base)
    var found = 0
    for i in 0..<models {
      let (indices, numbers) = (codes[i].indices(token), codes[i].values(token))
      for q in 0..<codes[i].count(token) {
        let offset = Int(indices[q]) &- first
        guard UInt(bitPattern: offset) < size else { continue }
        var place = Int(places[offset])
        if place < 0 {
          place = found
          places[offset] = Int32(truncatingIfNeeded: place)
          touched[place] = Int32(truncatingIfNeeded: offset)
          for j in 0..<models { values[place &* models &+ j] = 0 }
          found &+= 1
        }
        values[place &* models &+ i] = numbers[q]
      }
    }
    return found
  }

  /// Adds the token's collected concepts.
  @inline(__always)
  private func add(_ found: Int, of shard: Shard) {
    for place in 0..<found {
      let offset = Int(shard.touched.base[place])
      shard.places.base[offset] = -1
      add(shard.values.base + place &* models, concept: shard.range.lowerBound &+ offset)
    }
  }

  /// Adds one concept of one token, given its value in each model. Thresholds are not negative, so a value of 0 adds nothing.
  @inline(__always)
  private func add(_ values: UnsafePointer<Float>, concept: Int) {
    let (sums, maxima) = (sums.base + concept &* models, maxima.base + concept &* models)
    let (products, cofired) = (products.base + concept &* pairs, cofired.base + concept &* pairs)
    var fires = 0
    var pair = 0
    for i in 0..<models {
      let (x, xFires) = (Double(values[i]), values[i] > threshold)
      sums[i] += x
      maxima[i] = max(maxima[i], values[i])
      fires &+= xFires ? 1 : 0
      for j in i..<models {
        products[pair] += x * Double(values[j])
        cofired[pair] &+= xFires && values[j] > threshold ? 1 : 0
        pair &+= 1
      }
    }
    anyFired.base[concept] &+= fires > 0 ? 1 : 0
    allFired.base[concept] &+= fires == models ? 1 : 0
  }

  // MARK: Results, by model or pair of models, then concept

  var sumsOfCodes: [[Double]] { byModel(sums) }
  var largestCodes: [[Float]] { byModel(maxima) }
  /// Tokens in which both models fire a concept; of a model with itself, tokens in which it fires it.
  var cofireCounts: [[[Int64]]] { byPair(cofired) }
  /// Sums over tokens of the product of both models' codes.
  var codeProducts: [[[Double]]] { byPair(products) }
  /// Tokens in which any model, and in which every model fires a concept.
  var anyFireCounts: [Int64] { Array(UnsafeBufferPointer(start: anyFired.base, count: concepts)) }
  var allFireCounts: [Int64] { Array(UnsafeBufferPointer(start: allFired.base, count: concepts)) }

  private func byModel<Element>(_ buffer: AlignedBuffer<Element>) -> [[Element]] {
    (0..<models).map { i in (0..<concepts).map { buffer.base[$0 * models + i] } }
  }

  private func byPair<Element>(_ buffer: AlignedBuffer<Element>) -> [[[Element]]] {
    (0..<models).map { i in
      (0..<models).map { j in
        let (low, high) = (min(i, j), max(i, j))
        let pair = low * models - low * (low - 1) / 2 + high - low
        return (0..<concepts).map { buffer.base[$0 * pairs + pair] }
      }
    }
  }
}
