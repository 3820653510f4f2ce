/// The encodings of a step: each of its tokens, encoded by each of its encoders.
///
/// Token t, encoded by the step's encoder number e ("seat" e), is encoding e * tokens + t. So the encodings of one model follow
/// each other, and all arrays of codes, residuals and slopes are by encoding.
struct StepEncodings: Sendable {
  let tokens, encoders: Int

  var count: Int { tokens &* encoders }

  @inline(__always) func range(_ seat: Int) -> Range<Int> { seat &* tokens..<(seat &+ 1) &* tokens }
  @inline(__always) func seat(of encoding: Int) -> Int { encoders == 1 ? 0 : encoding / tokens }
  @inline(__always) func token(of encoding: Int) -> Int { encoders == 1 ? encoding : encoding % tokens }

  /// Blocks of `size` encodings of one model; sums over a block are of one model.
  func blocks(of size: Int) -> Int { (tokens + size - 1) / size }

  /// Runs `body` on all blocks, numbered from 0 model by model.
  func runBlocks(of size: Int, _ work: InterruptibleWork, _ body: (_ block: Int, Range<Int>, _ worker: Int) -> Void)
    throws(USAEError)
  {
    let blocks = blocks(of: size)
    try work.run(encoders * blocks) { block, worker in
      let own = range(block / blocks)
      let first = own.lowerBound + block % blocks * size
      body(block, first..<min(own.upperBound, first + size), worker)
    }
  }
}

extension Recipe {
  /// How many models a step encodes.
  package func encoderCount(models: Int) -> Int {
    switch encodedModels {
    case .one: return 1
    case .two: return min(2, models)
    case .all: return models
    }
  }

  /// Tokens of a step of `batch` encodings.
  func tokens(ofBatch batch: Int, models: Int) -> Int { max(1, batch / encoderCount(models: models)) }

  /// Weight of the agreement term in the step after `step` others; 0 where the loss does not have it.
  func agreementWeight(at step: Int, models: Int) -> Double {
    guard agreement > 0, encoderCount(models: models) > 1 else { return 0 }
    guard totalSteps > 0 else { return agreement }
    let (start, full) = (agreementStart * Double(totalSteps), agreementFull * Double(totalSteps))
    guard Double(step) < full else { return agreement }
    return agreement * max(0, Double(step) - start) / max(full - start, 1)
  }
}
