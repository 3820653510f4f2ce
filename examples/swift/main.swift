// A universal sparse autoencoder from Swift alone: two made-up models that see the same hidden causes through different
// random dictionaries. Run with: swift run -c release train-from-swift
import USAE

/// Sixteen hidden causes, one or two active in each token; `width` numbers per token.
func tokens(width: Int, count: Int, seed: UInt64) throws -> Matrix {
  var random = SplitMix(state: seed)
  let dictionary = (0..<16 * width).map { _ in random.next() }
  var causes = SplitMix(state: 7)  // the same for every model: that is what they share
  var values = [Float](repeating: 0, count: count * width)
  for t in 0..<count {
    for _ in 0..<2 {
      let cause = Int((causes.next() + 1) * 8) % 16
      let strength = causes.next() + 2
      for c in 0..<width { values[t * width + c] += strength * dictionary[cause * width + c] }
    }
  }
  return try Matrix(rows: count, columns: width, values: values)
}

/// Uniform in -1..<1.
struct SplitMix {
  var state: UInt64

  mutating func next() -> Float {
    state &+= 0x9E37_79B9_7F4A_7C15
    var z = state
    z = (z ^ (z >> 30)) &* 0xBF58_476D_1CE4_E5B9
    z = (z ^ (z >> 27)) &* 0x94D0_49BB_1331_11EB
    return Float((z ^ (z >> 31)) >> 40) / 8_388_608 - 1
  }
}

let sae = try UniversalSAE(concepts: 64, k: 3, seed: 1)
let left = try tokens(width: 24, count: 4096, seed: 1)
let right = try tokens(width: 40, count: 4096, seed: 2)
let reports = try sae.fit(["left": left, "right": right], steps: 400, batchSize: 512)
let evaluation = try sae.evaluate(["left": left, "right": right])
let codes = try sae.encode(left, model: "left")

print("loss \(reports[0].loss) -> \(reports[reports.count - 1].loss) with \(Configuration.kernels) kernels")
for (source, row) in zip(sae.modelNames, evaluation.r2) {
  for (target, r2) in zip(sae.modelNames, row) { print("R2 \(source) -> \(target): \(r2)") }
}
print("first token: \(codes.active(0))")
